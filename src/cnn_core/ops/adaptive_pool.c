/* Adaptive average pooling: the image in as many bins as asked, of as equal size as can be, overlapping where they must.
 * One bin is global pooling: the column means of each image, cut into blocks so that even one image has several tasks. */
#include "ops/band.h"
#include "ops/check.h"
#include "ops/reduce.h"
#include "ref/ref.h"

static cnn_status infer(cnn_node *node)
{
    CNN_TRY(cnn_check_image(node, 0, "x"));
    const int64_t *size = node->attributes.resize.size;
    if (size[0] < 0 || size[1] < 0 || size[0] > INT32_MAX || size[1] > INT32_MAX)
        return cnn_fail(CNN_INVALID_VALUE, "output_size: got (%lld, %lld), expected sizes from 0 to %d",
                        (long long)size[0], (long long)size[1], INT32_MAX);
    const cnn_image src = cnn_image_of(&node->src_shape[0]);
    char text[CNN_SHAPE_TEXT];
    if (src.h == 0 || src.w == 0)
        return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s, expected at least one row and one column",
                        cnn_shape_text(&node->src_shape[0], text));
    node->dst_shape = (cnn_shape){.rank = 4, .dim = {src.n, src.c, size[0], size[1]}};
    return CNN_OK;
}

static bool is_global(const cnn_node *node)
{
    return node->dst_shape.dim[2] == 1 && node->dst_shape.dim[3] == 1;
}

static cnn_reduction_space global_space(const cnn_node *node)
{
    const cnn_image src = cnn_image_of(&node->src_shape[0]);
    return (cnn_reduction_space){.outer = src.n, .length = src.h * src.w, .inner = src.c};
}

static size_t workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)threads;
    if (is_global(node) && !backward) return cnn_reduce_workspace(global_space(node));
    const cnn_image src = cnn_image_of(&node->src_shape[0]), dst = cnn_image_of(&node->dst_shape);
    return cnn_size_add(cnn_average_axis_bytes(src.h, dst.h), cnn_average_axis_bytes(src.w, dst.w));
}

/* floor(i in / out), without the product. */
static int64_t bin_edge(int64_t i, int64_t in, int64_t out)
{
    return i * (in / out) + i * (in % out) / out;
}

/* Bin i is floor(i in / out) .. ceil((i + 1) in / out). */
static cnn_average_axis make_axis(const cnn_node *node, int k, char **cursor)
{
    const int64_t in = node->src_shape[0].dim[2 + k], out = node->dst_shape.dim[2 + k];
    cnn_average_axis axis = cnn_average_axis_take(in, out, cursor);
    for (int64_t i = 0; i < out; i++) {
        const int64_t begin = bin_edge(i, in, out), end = bin_edge(i + 1, in, out);
        const int64_t rest = (i + 1) * (in % out) % out != 0 ? 1 : 0;
        axis.band[i] = (cnn_band){.first = begin, .count = end + rest - begin};
        axis.divisor[i] = (float)axis.band[i].count;
    }
    return axis;
}

static cnn_status forward(const cnn_call *call)
{
    const cnn_node *node = call->node;
    if (is_global(node)) {
        const cnn_reduction_space space = global_space(node);
        const cnn_factor src = {call->src[0], space.length * space.inner, space.inner, 1}, none = {NULL, 0, 0, 0};
        cnn_reduce(node->kernels, call->threads, space, src, none, 1.0 / (double)space.length, call->workspace,
                   call->dst);
        return CNN_OK;
    }
    char *cursor = call->workspace;
    const cnn_average_axis axis[2] = {make_axis(node, 0, &cursor), make_axis(node, 1, &cursor)};
    cnn_average_forward(call, axis);
    return CNN_OK;
}

static cnn_status backward(const cnn_call *call)
{
    if (call->diff_src[0] == NULL) return CNN_OK;
    char *cursor = call->workspace;
    const cnn_average_axis axis[2] = {make_axis(call->node, 0, &cursor), make_axis(call->node, 1, &cursor)};
    cnn_average_backward(call, axis, &cursor);
    return CNN_OK;
}

const cnn_op_row cnn_op_adaptive_avg_pool2d = {
    .name = "adaptive_avg_pool2d",
    .fields = cnn_fields_resize,
    .min_sources = 1,
    .max_sources = 1,
    .infer = infer,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .reference_forward = cnn_ref_adaptive_avg_pool2d_forward,
    .reference_backward = cnn_ref_adaptive_avg_pool2d_backward,
};
