/* Max pooling, forward and backward, over NHWC images, vectorised over channels.
 *
 * Forward notes the pixel that each output came from. Backward runs over the pixels of diff_src and collects from the
 * windows that cover each: every element is written once, by one task, and overlapping windows need no care. */
#include "ops/elementwise.h"
#include "ops/pool.h"
#include "ref/ref.h"

#define FROM_MEMORY (4 << 20) /* floats of src from which on it is fetched ahead */
#define AHEAD 2048            /* floats */
#define PAST (8 << 20)        /* floats of dst from which on it is stored past the caches: who reads less finds some of it there */

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
    bool streams;
    int64_t ahead; /* pixels by which src is fetched ahead */
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
    cnn_max_row what = {.c = src.c,
                        .width = dst.w,
                        .row_pitch = job->dilation[0] * src.w,
                        .size = src.w,
                        .kernel = job->kernel[1],
                        .stride = job->stride[1],
                        .padding = job->padding[1],
                        .dilation = job->dilation[1],
                        .ahead = job->ahead};
    for (int64_t row = begin; row < end; row++) {
        const int64_t n = row / dst.h, oh = row % dst.h;
        const cnn_span rows =
            cnn_pool_span(oh * job->stride[0] - job->padding[0], job->kernel[0], job->dilation[0], src.h);
        what.first = rows.first * src.w;
        what.rows = rows.count;
        const int64_t at = row * dst.w * dst.c;
        job->kernels->pool.max(&what, job->x + n * src.h * src.w * src.c, job->y + at,
                               job->index == NULL ? NULL : job->index + at, job->streams);
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
    const int64_t count = cnn_shape_count(&call->node->dst_shape);
    job.streams = job.index == NULL && job.src.c % job.kernels->width == 0 && count >= PAST && cnn_streams(count, job.x, job.y);
    if (cnn_shape_count(&call->node->src_shape[0]) >= FROM_MEMORY) job.ahead = cnn_max_i64(AHEAD / job.src.c, 1);
    job.rows_per_task = cnn_pool_rows(work);
    cnn_parallel(cnn_useful_threads(call->threads, work * (double)rows), cnn_ceil_div(rows, job.rows_per_task),
                 forward_rows, &job);
    return CNN_OK;
}

/* Of the windows that reach over a position, those whose taps meet it lie so far apart. */
static int64_t covering_step(int64_t stride, int64_t dilation)
{
    int64_t a = stride, b = dilation; /* dilation / gcd(stride, dilation) */
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return dilation / a;
}

static void backward_rows(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const max_job *job = arg;
    const cnn_image src = job->src, dst = job->dst;
    const int64_t reach = (job->kernel[0] - 1) * job->dilation[0];
    const int64_t first_row = task * job->rows_per_task;
    const int64_t end_row = cnn_min_i64(first_row + job->rows_per_task, src.n * src.h);
    const int64_t row_step = covering_step(job->stride[0], job->dilation[0]);
    cnn_max_row what = {.c = src.c,
                        .width = src.w,
                        .row_pitch = row_step * dst.w,
                        .step = covering_step(job->stride[1], job->dilation[1]),
                        .size = dst.w,
                        .kernel = job->kernel[1],
                        .stride = job->stride[1],
                        .padding = job->padding[1],
                        .dilation = job->dilation[1]};
    for (int64_t row = first_row; row < end_row; row++) {
        const int64_t n = row / src.h, ih = row % src.h, y = ih + job->padding[0];
        int64_t begin_oh = y > reach ? cnn_ceil_div(y - reach, job->stride[0]) : 0;
        const int64_t end_oh = cnn_min_i64(y / job->stride[0] + 1, dst.h);
        while (begin_oh < end_oh && (y - begin_oh * job->stride[0]) % job->dilation[0] != 0) begin_oh++;
        const int64_t image = n * dst.h * dst.w * dst.c;
        what.first = begin_oh * dst.w;
        what.rows = begin_oh < end_oh ? cnn_ceil_div(end_oh - begin_oh, row_step) : 0;
        job->kernels->pool.max_backward(&what, job->diff_y + image, job->index + image, (int32_t)(ih * src.w),
                                        job->diff_x + row * src.w * src.c, job->streams);
    }
}

static cnn_status backward(const cnn_call *call)
{
    max_job job = job_of(call);
    job.diff_y = call->diff_dst;
    job.diff_x = call->diff_src[0];
    if (job.diff_x == NULL) return CNN_OK;
    job.streams = job.src.c % job.kernels->width == 0 &&
                  cnn_streams(cnn_shape_count(&call->node->src_shape[0]), call->diff_dst, job.diff_x);
    const double taps = ((double)job.kernel[0] / (double)job.stride[0] + 1.0) *
                        ((double)job.kernel[1] / (double)job.stride[1] + 1.0);
    const double work = row_work(job.src.w, job.src.c, taps);
    const int64_t rows = job.src.n * job.src.h;
    job.rows_per_task = cnn_pool_rows(work);
    cnn_parallel(cnn_useful_threads(call->threads, work * (double)rows), cnn_ceil_div(rows, job.rows_per_task),
                 backward_rows, &job);
    return CNN_OK;
}

const cnn_op_row cnn_op_max_pool2d = {
    .name = "max_pool2d",
    .fields = cnn_fields_pool,
    .min_sources = 1,
    .max_sources = 1,
    .infer = infer,
    .saved = saved,
    .forward = forward,
    .backward = backward,
    .reference_forward = cnn_ref_max_pool2d_forward,
    .reference_backward = cnn_ref_max_pool2d_backward,
};
