/* Max pooling, forward and backward, over NHWC images, vectorised over channels.
 *
 * Forward notes the pixel that each output came from. Backward runs over the pixels of diff_src and collects from the
 * windows that cover each: every element is written once, by one task, and overlapping windows need no care. */
#include "ops/pool.h"
#include "ref/ref.h"

static cnn_status infer(cnn_node *node)
{
    CNN_TRY(cnn_pool_infer(node));
    const cnn_image src = cnn_image_of(&node->src_shape[0]);
    if (src.h <= INT32_MAX / src.w) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "x: got images of %lld x %lld pixels, expected at most %d pixels",
                    (long long)src.h, (long long)src.w, INT32_MAX);
}

/* int32 index[n][oh][ow][c]: the pixel y w + x of src that won the window, -1 for none. */
static size_t saved(const cnn_node *node)
{
    return node->wanted[0] ? cnn_size_mul((size_t)cnn_shape_count(&node->dst_shape), sizeof(int32_t)) : 0;
}

typedef struct max_job {
    const cnn_kernels *kernels;
    cnn_image src, dst; /* shapes */
    const int64_t *kernel, *stride, *padding, *dilation;
    int64_t rows_per_task;
    int32_t *index;
    const float *x;
    float *y;
    const float *diff_y;
    float *diff_x;
} max_job;

static max_job job_of(const cnn_call *call)
{
    const cnn_node *node = call->node;
    return (max_job){
        .kernels = node->kernels,
        .src = cnn_image_of(&node->src_shape[0]),
        .dst = cnn_image_of(&node->dst_shape),
        .kernel = node->attributes.pool.kernel,
        .stride = node->attributes.pool.stride,
        .padding = node->attributes.pool.padding,
        .dilation = node->attributes.pool.dilation,
        .index = node->wanted[0] ? call->saved : NULL,
    };
}

static void forward_rows(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const max_job *job = arg;
    const cnn_image src = job->src, dst = job->dst;
    const int64_t begin = task * job->rows_per_task;
    const int64_t end = cnn_min_i64(begin + job->rows_per_task, dst.n * dst.h);
    for (int64_t row = begin; row < end; row++) {
        const int64_t n = row / dst.h, oh = row % dst.h;
        const float *image = job->x + n * src.h * src.w * src.c;
        const cnn_span rows =
            cnn_pool_span(oh * job->stride[0] - job->padding[0], job->kernel[0], job->dilation[0], src.h);
        cnn_window window = {.rows = rows.count, .row_pitch = job->dilation[0] * src.w, .col_pitch = job->dilation[1]};
        for (int64_t ow = 0; ow < dst.w; ow++) {
            const cnn_span cols =
                cnn_pool_span(ow * job->stride[1] - job->padding[1], job->kernel[1], job->dilation[1], src.w);
            window.first = rows.first * src.w + cols.first;
            window.cols = cols.count;
            const int64_t at = (row * dst.w + ow) * dst.c;
            job->kernels->pool.max(src.c, &window, image, job->y + at, job->index == NULL ? NULL : job->index + at);
        }
    }
}

/* Nanoseconds of one core for one row of `pixels` pixels, when each looks at `taps` others. */
static double row_work(int64_t pixels, int64_t c, double taps)
{
    return (double)pixels * (4.0 + 0.1 * (double)c * taps);
}

static cnn_status forward(const cnn_call *call)
{
    max_job job = job_of(call);
    job.x = call->src[0];
    job.y = call->dst;
    const double work = row_work(job.dst.w, job.dst.c, (double)job.kernel[0] * (double)job.kernel[1]);
    const int64_t rows = job.dst.n * job.dst.h;
    job.rows_per_task = cnn_pool_rows(work);
    cnn_parallel(cnn_useful_threads(call->threads, work * (double)rows), cnn_ceil_div(rows, job.rows_per_task),
                 forward_rows, &job);
    return CNN_OK;
}

/* Windows that may cover a position lie between begin and end; the index tells whether they had it. */
static void backward_rows(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const max_job *job = arg;
    const cnn_image src = job->src, dst = job->dst;
    const int64_t row_reach = (job->kernel[0] - 1) * job->dilation[0];
    const int64_t col_reach = (job->kernel[1] - 1) * job->dilation[1];
    const int64_t first_row = task * job->rows_per_task;
    const int64_t end_row = cnn_min_i64(first_row + job->rows_per_task, src.n * src.h);
    for (int64_t row = first_row; row < end_row; row++) {
        const int64_t n = row / src.h, ih = row % src.h, y = ih + job->padding[0];
        const int64_t begin_oh = y > row_reach ? cnn_ceil_div(y - row_reach, job->stride[0]) : 0;
        const int64_t end_oh = cnn_min_i64(y / job->stride[0] + 1, dst.h);
        const int64_t image = n * dst.h * dst.w * dst.c;
        cnn_window window = {.rows = end_oh - begin_oh, .row_pitch = dst.w, .col_pitch = 1};
        int64_t begin_ow = 0, end_ow = 0;
        for (int64_t iw = 0; iw < src.w; iw++) {
            const int64_t x = iw + job->padding[1];
            while (begin_ow * job->stride[1] + col_reach < x) begin_ow++;
            while (end_ow < dst.w && end_ow * job->stride[1] <= x) end_ow++;
            window.first = begin_oh * dst.w + begin_ow;
            window.cols = end_ow - begin_ow;
            job->kernels->pool.max_backward(src.c, &window, job->diff_y + image, job->index + image,
                                            (int32_t)(ih * src.w + iw), job->diff_x + (row * src.w + iw) * src.c);
        }
    }
}

static cnn_status backward(const cnn_call *call)
{
    max_job job = job_of(call);
    job.diff_y = call->diff_dst;
    job.diff_x = call->diff_src[0];
    if (job.diff_x == NULL) return CNN_OK;
    const double taps = ((double)job.kernel[0] * (double)job.dilation[0] / (double)job.stride[0] + 1.0) *
                        ((double)job.kernel[1] * (double)job.dilation[1] / (double)job.stride[1] + 1.0);
    const double work = row_work(job.src.w, job.src.c, taps);
    const int64_t rows = job.src.n * job.src.h;
    job.rows_per_task = cnn_pool_rows(work);
    cnn_parallel(cnn_useful_threads(call->threads, work * (double)rows), cnn_ceil_div(rows, job.rows_per_task),
                 backward_rows, &job);
    return CNN_OK;
}

const cnn_op_row cnn_op_max_pool2d = {
    .name = "max_pool2d",
    .min_sources = 1,
    .max_sources = 1,
    .infer = infer,
    .saved = saved,
    .forward = forward,
    .backward = backward,
    .reference_forward = cnn_ref_max_pool2d_forward,
    .reference_backward = cnn_ref_max_pool2d_backward,
};
