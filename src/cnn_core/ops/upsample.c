/* Upsampling, nearest and bilinear, by PyTorch's rules. Rows and columns are independent maps of one axis each (band.h). */
#include <math.h>
#include <string.h>

#include "ops/band.h"
#include "ops/check.h"
#include "ops/pool.h"
#include "ref/ref.h"

static cnn_status infer(cnn_node *node)
{
    CNN_TRY(cnn_check_image(node, 0, "x"));
    const int64_t *size = node->attributes.resize.size;
    const double *scale = node->attributes.resize.scale;
    if (size[0] < 1 || size[1] < 1 || size[0] > INT32_MAX || size[1] > INT32_MAX)
        return cnn_fail(CNN_INVALID_VALUE, "size: got (%lld, %lld), expected sizes from 1 to %d", (long long)size[0],
                        (long long)size[1], INT32_MAX);
    for (int k = 0; k < 2; k++)
        if (!(scale[k] >= 0.0) || isinf(scale[k]))
            return cnn_fail(CNN_INVALID_VALUE, "scale_factor: got a step of %g source pixels, expected a finite one, "
                            "positive or 0 for the ratio of the sizes", scale[k]);
    const cnn_image src = cnn_image_of(&node->src_shape[0]);
    char text[CNN_SHAPE_TEXT];
    if (src.h == 0 || src.w == 0)
        return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s, expected at least one row and one column",
                        cnn_shape_text(&node->src_shape[0], text));
    node->dst_shape = (cnn_shape){.rank = 4, .dim = {src.n, src.c, size[0], size[1]}};
    return CNN_OK;
}

/* One axis: the bands of the map, room for the bands of its transpose, and for the weights of either, two an output. */
typedef struct upsample_axis {
    int64_t in, out;
    cnn_band *band, *transposed;
    float *weights, *transposed_weights;
} upsample_axis;

static size_t axis_bytes(int64_t in, int64_t out)
{
    size_t bytes = cnn_size_align(cnn_size_mul((size_t)out, sizeof(cnn_band)));
    bytes = cnn_size_add(bytes, cnn_size_align(cnn_size_mul((size_t)in, sizeof(cnn_band))));
    return cnn_size_add(bytes, cnn_size_mul(2, cnn_float_bytes(2 * out)));
}

static upsample_axis axis_take(const cnn_node *node, int k, char **cursor)
{
    upsample_axis axis = {.in = node->src_shape[0].dim[2 + k], .out = node->dst_shape.dim[2 + k]};
    axis.band = cnn_take(cursor, (size_t)axis.out * sizeof *axis.band);
    axis.transposed = cnn_take(cursor, (size_t)axis.in * sizeof *axis.transposed);
    axis.weights = cnn_take(cursor, (size_t)axis.out * 2 * sizeof *axis.weights);
    axis.transposed_weights = cnn_take(cursor, (size_t)axis.out * 2 * sizeof *axis.transposed_weights);
    return axis;
}

static size_t workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)backward;
    (void)threads;
    const cnn_image src = cnn_image_of(&node->src_shape[0]), dst = cnn_image_of(&node->dst_shape);
    return cnn_size_add(axis_bytes(src.h, dst.h), axis_bytes(src.w, dst.w));
}

/* Source pixels per output pixel: as the user gave it, or the ratio of the sizes. Torch goes by the sizes too where they are
 * equal, as 3 and floor(1.3 * 3). */
static double step_of(const cnn_node *node, int k)
{
    const int64_t in = node->src_shape[0].dim[2 + k], out = node->dst_shape.dim[2 + k];
    const double given = node->attributes.resize.scale[k];
    return given > 0.0 && in != out ? given : (double)in / (double)out;
}

/* Output i copies input floor(i step). Torch computes this in float, whatever the type of the data, and so does this: where
 * i step is a whole number but for rounding, both must err to the same side. */
static upsample_axis nearest_axis(const cnn_node *node, int k, char **cursor)
{
    const upsample_axis axis = axis_take(node, k, cursor);
    const float step = (float)step_of(node, k);
    for (int64_t i = 0; i < axis.out; i++) {
        const float position = floorf((float)i * step);
        const int64_t source = position < (float)axis.in ? (int64_t)position : axis.in - 1;
        axis.weights[i] = 1.0f;
        axis.band[i] =
            (cnn_band){.first = cnn_min_i64(source, axis.in - 1), .count = 1, .weights = &axis.weights[i]};
    }
    return axis;
}

/* Output i mixes the two inputs beside its position. align_corners: the centres of the corner pixels coincide. Otherwise
 * pixels are unit squares with their centres at i + 1/2, and the edges of the images coincide. */
static upsample_axis bilinear_axis(const cnn_node *node, int k, char **cursor)
{
    const upsample_axis axis = axis_take(node, k, cursor);
    const bool align = node->attributes.resize.align_corners != 0;
    double step = step_of(node, k);
    if (align) step = axis.out > 1 ? (double)(axis.in - 1) / (double)(axis.out - 1) : 0.0;
    for (int64_t i = 0; i < axis.out; i++) {
        double position = align ? (double)i * step : ((double)i + 0.5) * step - 0.5;
        if (position < 0.0) position = 0.0;
        if (position > (double)(axis.in - 1)) position = (double)(axis.in - 1);
        const int64_t lower = (int64_t)position;
        const double fraction = position - (double)lower;
        float *weights = &axis.weights[2 * i];
        weights[0] = (float)(1.0 - fraction);
        weights[1] = (float)fraction;
        /* On a pixel, the next one has no say: not even with weight 0, which would let its infinity through. */
        axis.band[i] = (cnn_band){.first = lower, .count = fraction > 0.0 ? 2 : 1, .weights = weights};
    }
    return axis;
}

/* Bands of the transpose, with weights of their own, gathered from those of the outputs that each input has a part in. */
static void transpose(const upsample_axis *axis)
{
    cnn_band_transpose(axis->out, axis->band, axis->in, axis->transposed);
    float *weights = axis->transposed_weights;
    for (int64_t i = 0; i < axis->in; i++) {
        cnn_band *band = &axis->transposed[i];
        band->weights = weights;
        for (int64_t k = band->first; k < band->first + band->count; k++)
            *weights++ = axis->band[k].weights[i - axis->band[k].first];
    }
}

static void gather_gradient(const cnn_call *call, const upsample_axis axis[2])
{
    const cnn_node *node = call->node;
    transpose(&axis[0]);
    transpose(&axis[1]);
    cnn_band_apply(node->kernels, call->threads, cnn_image_of(&node->dst_shape), cnn_image_of(&node->src_shape[0]),
                   axis[0].transposed, axis[1].transposed, call->diff_dst, call->diff_src[0]);
}

typedef struct nearest_job {
    cnn_image src, dst;
    const cnn_band *rows, *cols;
    int64_t rows_per_task;
    const float *x;
    float *y;
} nearest_job;

/* Pixels are copied. An output row that shows the same input row as the one above it is a copy of that. */
static void nearest_rows(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const nearest_job *job = arg;
    const cnn_image src = job->src, dst = job->dst;
    const size_t pixel = (size_t)src.c * sizeof(float);
    const int64_t begin = task * job->rows_per_task;
    const int64_t end = cnn_min_i64(begin + job->rows_per_task, dst.n * dst.h);
    for (int64_t row = begin; row < end; row++) {
        const int64_t n = row / dst.h, oh = row % dst.h;
        float *y = job->y + row * dst.w * dst.c;
        if (row > begin && oh > 0 && job->rows[oh].first == job->rows[oh - 1].first) {
            memcpy(y, y - dst.w * dst.c, (size_t)dst.w * pixel);
            continue;
        }
        const float *x = job->x + (n * src.h + job->rows[oh].first) * src.w * src.c;
        for (int64_t ow = 0; ow < dst.w; ow++) memcpy(y + ow * dst.c, x + job->cols[ow].first * src.c, pixel);
    }
}

static cnn_status nearest_forward(const cnn_call *call)
{
    char *cursor = call->workspace;
    const upsample_axis rows = nearest_axis(call->node, 0, &cursor), cols = nearest_axis(call->node, 1, &cursor);
    nearest_job job = {.src = cnn_image_of(&call->node->src_shape[0]),
                       .dst = cnn_image_of(&call->node->dst_shape),
                       .rows = rows.band,
                       .cols = cols.band,
                       .x = call->src[0],
                       .y = call->dst};
    const double work = (double)job.dst.w * (4.0 + 0.2 * (double)job.dst.c);
    const int64_t all = job.dst.n * job.dst.h;
    job.rows_per_task = cnn_pool_rows(work);
    cnn_parallel(cnn_useful_threads(call->threads, work * (double)all), cnn_ceil_div(all, job.rows_per_task),
                 nearest_rows, &job);
    return CNN_OK;
}

static cnn_status nearest_backward(const cnn_call *call)
{
    if (call->diff_src[0] == NULL) return CNN_OK;
    char *cursor = call->workspace;
    const upsample_axis axis[2] = {nearest_axis(call->node, 0, &cursor), nearest_axis(call->node, 1, &cursor)};
    gather_gradient(call, axis);
    return CNN_OK;
}

static cnn_status bilinear_forward(const cnn_call *call)
{
    const cnn_node *node = call->node;
    char *cursor = call->workspace;
    const upsample_axis rows = bilinear_axis(node, 0, &cursor), cols = bilinear_axis(node, 1, &cursor);
    cnn_band_apply(node->kernels, call->threads, cnn_image_of(&node->src_shape[0]), cnn_image_of(&node->dst_shape),
                   rows.band, cols.band, call->src[0], call->dst);
    return CNN_OK;
}

static cnn_status bilinear_backward(const cnn_call *call)
{
    if (call->diff_src[0] == NULL) return CNN_OK;
    char *cursor = call->workspace;
    const upsample_axis axis[2] = {bilinear_axis(call->node, 0, &cursor), bilinear_axis(call->node, 1, &cursor)};
    gather_gradient(call, axis);
    return CNN_OK;
}

const cnn_op_row cnn_op_upsample_nearest = {
    .name = "upsample_nearest",
    .fields = cnn_fields_resize,
    .min_sources = 1,
    .max_sources = 1,
    .infer = infer,
    .workspace = workspace,
    .forward = nearest_forward,
    .backward = nearest_backward,
    .reference_forward = cnn_ref_upsample_nearest_forward,
    .reference_backward = cnn_ref_upsample_nearest_backward,
};

const cnn_op_row cnn_op_upsample_bilinear = {
    .name = "upsample_bilinear",
    .fields = cnn_fields_resize,
    .min_sources = 1,
    .max_sources = 1,
    .infer = infer,
    .workspace = workspace,
    .forward = bilinear_forward,
    .backward = bilinear_backward,
    .reference_forward = cnn_ref_upsample_bilinear_forward,
    .reference_backward = cnn_ref_upsample_bilinear_backward,
};
