#include "ops/pool.h"

#include "ops/check.h"

/* Bounds for sizes that come from the user, so that what is computed from them fits 64 bits. */
#define LARGEST INT32_MAX

static cnn_status check_pair(const char *name, const int64_t pair[2], int64_t least)
{
    if (pair[0] >= least && pair[0] <= LARGEST && pair[1] >= least && pair[1] <= LARGEST) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "%s: got (%lld, %lld), expected %lld or more", name, (long long)pair[0],
                    (long long)pair[1], (long long)least);
}

/* Torch's rule; 0 where not even one window fits. */
static int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                           bool ceil_mode)
{
    const int64_t room = size + 2 * padding - (dilation * (kernel - 1) + 1) + (ceil_mode ? stride - 1 : 0);
    if (room < 0) return 0;
    const int64_t windows = room / stride + 1;
    return ceil_mode && (windows - 1) * stride >= size + padding ? windows - 1 : windows;
}

cnn_status cnn_pool_infer(cnn_node *node)
{
    CNN_TRY(cnn_check_image(node, 0, "x"));
    const int64_t *kernel = node->attributes.pool.kernel, *stride = node->attributes.pool.stride;
    const int64_t *padding = node->attributes.pool.padding, *dilation = node->attributes.pool.dilation;
    CNN_TRY(check_pair("kernel_size", kernel, 1));
    CNN_TRY(check_pair("stride", stride, 1));
    CNN_TRY(check_pair("padding", padding, 0));
    CNN_TRY(check_pair("dilation", dilation, 1));
    if (padding[0] > kernel[0] / 2 || padding[1] > kernel[1] / 2)
        return cnn_fail(CNN_INVALID_VALUE, "padding: got (%lld, %lld), expected at most half of kernel_size (%lld, %lld)",
                        (long long)padding[0], (long long)padding[1], (long long)kernel[0], (long long)kernel[1]);

    const cnn_shape *src = &node->src_shape[0];
    node->dst_shape = *src;
    char text[CNN_SHAPE_TEXT];
    for (int axis = 0; axis < 2; axis++) {
        if (src->dim[2 + axis] == 0)
            return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s, expected at least one row and one column",
                            cnn_shape_text(src, text));
        node->dst_shape.dim[2 + axis] = output_size(src->dim[2 + axis], kernel[axis], stride[axis], padding[axis],
                                                    dilation[axis], node->attributes.pool.ceil_mode != 0);
        if (node->dst_shape.dim[2 + axis] <= 0)
            return cnn_fail(CNN_INVALID_VALUE,
                            "kernel_size: got (%lld, %lld) with dilation (%lld, %lld), larger than x %s with "
                            "padding (%lld, %lld)",
                            (long long)kernel[0], (long long)kernel[1], (long long)dilation[0], (long long)dilation[1],
                            cnn_shape_text(src, text), (long long)padding[0], (long long)padding[1]);
    }
    return CNN_OK;
}
