#include "ops/band.h"

#include "ops/pool.h"

void cnn_band_transpose(int64_t out, const cnn_band *bands, int64_t in, cnn_band *transposed)
{
    int64_t begin = 0, end = 0; /* the outputs whose bands hold position i */
    for (int64_t i = 0; i < in; i++) {
        while (begin < out && bands[begin].first + bands[begin].count <= i) begin++;
        while (end < out && bands[end].first <= i) end++;
        transposed[i] = (cnn_band){.first = begin, .count = cnn_max_i64(end - begin, 0)};
    }
}

typedef struct band_job {
    const cnn_kernels *kernels;
    cnn_image src, dst;
    const cnn_band *rows, *cols;
    const float *row_divisor, *col_divisor; /* averages: instead of the weights */
    int64_t rows_per_task;
    const float *x;
    float *y;
} band_job;

static void apply_rows(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const band_job *job = arg;
    const cnn_image src = job->src, dst = job->dst;
    const struct cnn_pool_kernels *pool = &job->kernels->pool;
    const int64_t begin = task * job->rows_per_task;
    const int64_t end = cnn_min_i64(begin + job->rows_per_task, dst.n * dst.h);
    for (int64_t row = begin; row < end; row++) {
        const int64_t n = row / dst.h, oh = row % dst.h;
        const float *image = job->x + n * src.h * src.w * src.c;
        const cnn_band *band = &job->rows[oh];
        float *y = job->y + row * dst.w * dst.c;
        cnn_window window = {.rows = band->count, .row_pitch = src.w, .col_pitch = 1};
        for (int64_t ow = 0; ow < dst.w; ow++, y += dst.c) {
            window.first = band->first * src.w + job->cols[ow].first;
            window.cols = job->cols[ow].count;
            if (job->row_divisor != NULL)
                pool->mean(src.c, &window, image, job->row_divisor[oh] * job->col_divisor[ow], y);
            else
                pool->weighted(src.c, &window, band->weights, job->cols[ow].weights, image, y);
        }
    }
}

static double mean_count(int64_t n, const cnn_band *bands)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += (double)bands[i].count;
    return sum / (double)cnn_max_i64(n, 1);
}

static void run(int32_t threads, band_job *job)
{
    const double taps = mean_count(job->dst.h, job->rows) * mean_count(job->dst.w, job->cols);
    const double work = (double)job->dst.w * (4.0 + 0.1 * (double)job->dst.c * (taps + 1.0));
    const int64_t rows = job->dst.n * job->dst.h;
    job->rows_per_task = cnn_pool_rows(work);
    cnn_parallel(cnn_useful_threads(threads, work * (double)rows), cnn_ceil_div(rows, job->rows_per_task), apply_rows,
                 job);
}

void cnn_band_apply(const cnn_kernels *kernels, int32_t threads, cnn_image src, cnn_image dst, const cnn_band *rows,
                    const cnn_band *cols, const float *x, float *y)
{
    band_job job = {.kernels = kernels, .src = src, .dst = dst, .rows = rows, .cols = cols, .x = x, .y = y};
    run(threads, &job);
}

size_t cnn_average_axis_bytes(int64_t in, int64_t out)
{
    const size_t bands = cnn_size_mul((size_t)out, sizeof(cnn_band));
    const size_t transposed = cnn_size_mul((size_t)in, sizeof(cnn_band));
    return cnn_size_add(cnn_size_add(cnn_size_align(bands), cnn_size_align(transposed)), cnn_float_bytes(out));
}

cnn_average_axis cnn_average_axis_take(int64_t in, int64_t out, char **cursor)
{
    cnn_average_axis axis = {.in = in, .out = out};
    axis.band = cnn_take(cursor, (size_t)out * sizeof *axis.band);
    axis.divisor = cnn_take(cursor, (size_t)out * sizeof *axis.divisor);
    return axis;
}

void cnn_average_forward(const cnn_call *call, const cnn_average_axis axis[2])
{
    const cnn_node *node = call->node;
    band_job job = {.kernels = node->kernels,
                    .src = cnn_image_of(&node->src_shape[0]),
                    .dst = cnn_image_of(&node->dst_shape),
                    .rows = axis[0].band,
                    .cols = axis[1].band,
                    .row_divisor = axis[0].divisor,
                    .col_divisor = axis[1].divisor,
                    .x = call->src[0],
                    .y = call->dst};
    run(call->threads, &job);
}

/* An input's weight in window i is 1 / divisor[i] whichever input it is: its band's weights are a stretch of that list. */
static const cnn_band *transpose_average(const cnn_average_axis *axis, char **cursor)
{
    cnn_band *transposed = cnn_take(cursor, (size_t)axis->in * sizeof *transposed);
    for (int64_t i = 0; i < axis->out; i++) axis->divisor[i] = 1.0f / axis->divisor[i];
    cnn_band_transpose(axis->out, axis->band, axis->in, transposed);
    for (int64_t i = 0; i < axis->in; i++) transposed[i].weights = axis->divisor + transposed[i].first;
    return transposed;
}

void cnn_average_backward(const cnn_call *call, const cnn_average_axis axis[2], char **cursor)
{
    const cnn_node *node = call->node;
    const cnn_band *rows = transpose_average(&axis[0], cursor), *cols = transpose_average(&axis[1], cursor);
    cnn_band_apply(node->kernels, call->threads, cnn_image_of(&node->dst_shape), cnn_image_of(&node->src_shape[0]), rows,
                   cols, call->diff_dst, call->diff_src[0]);
}
