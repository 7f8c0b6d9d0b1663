/* Average pooling: windows clipped to the image, each row and column of them with its own divisor. */
#include "ops/band.h"
#include "ops/pool.h"
#include "ref/ref.h"

static size_t workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)backward;
    (void)threads;
    const cnn_image src = cnn_image_of(&node->src_shape[0]), dst = cnn_image_of(&node->dst_shape);
    return cnn_size_add(cnn_average_axis_bytes(src.h, dst.h), cnn_average_axis_bytes(src.w, dst.w));
}

/* The divisor of a window is the product of one factor for its row and one for its column: how many of its positions count
 * along that axis. Padding counts if asked; what ceil_mode lets hang over beyond the padding never does. divisor_override
 * replaces the product: it stands in the row's factor, beside 1 for the column. */
static cnn_average_axis make_axis(const cnn_node *node, int k, char **cursor)
{
    const int64_t kernel = node->attributes.pool.kernel[k], stride = node->attributes.pool.stride[k];
    const int64_t padding = node->attributes.pool.padding[k], override = node->attributes.pool.divisor;
    const int64_t size = node->src_shape[0].dim[2 + k];
    cnn_average_axis axis = cnn_average_axis_take(size, node->dst_shape.dim[2 + k], cursor);
    for (int64_t i = 0; i < axis.out; i++) {
        const int64_t start = i * stride - padding;
        const cnn_span span = cnn_pool_span(start, kernel, 1, size);
        axis.band[i] = (cnn_band){.first = span.first, .count = span.count};
        int64_t divisor = span.count;
        if (node->attributes.pool.count_include_pad) divisor = cnn_min_i64(start + kernel, size + padding) - start;
        if (override != 0) divisor = k == 0 ? override : 1;
        axis.divisor[i] = (float)divisor;
    }
    return axis;
}

static cnn_status infer(cnn_node *node)
{
    node->attributes.pool.dilation[0] = node->attributes.pool.dilation[1] = 1;
    return cnn_pool_infer(node);
}

static cnn_status forward(const cnn_call *call)
{
    char *cursor = call->workspace;
    const cnn_average_axis axis[2] = {make_axis(call->node, 0, &cursor), make_axis(call->node, 1, &cursor)};
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

const cnn_op_row cnn_op_avg_pool2d = {
    .name = "avg_pool2d",
    .fields = cnn_fields_pool,
    .min_sources = 1,
    .max_sources = 1,
    .infer = infer,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .reference_forward = cnn_ref_avg_pool2d_forward,
    .reference_backward = cnn_ref_avg_pool2d_backward,
};
