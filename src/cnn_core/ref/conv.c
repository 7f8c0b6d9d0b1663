#include "ref/ref.h"

/* A convolution as the linear map that both operations are, one way or the other: x is the padded side, y the
 * strided. */
typedef struct conv_map {
    cnn_image x, y;
    int64_t group_ic, group_oc, kh, kw;
    int64_t stride[2], dilation[2], top, left;
    int64_t x_stride[CNN_MAX_RANK], y_stride[CNN_MAX_RANK], weights_stride[CNN_MAX_RANK];
} conv_map;

static conv_map map_of(const cnn_node *node, const cnn_shape *x, const cnn_shape *y)
{
    const cnn_attributes *a = &node->attributes;
    const cnn_shape *weights = &node->src_shape[1];
    conv_map m = {
        .x = cnn_image_of(x),
        .y = cnn_image_of(y),
        .group_oc = weights->dim[0] / a->conv.groups,
        .group_ic = weights->dim[1],
        .kh = weights->dim[2],
        .kw = weights->dim[3],
        .stride = {a->conv.stride[0], a->conv.stride[1]},
        .dilation = {a->conv.dilation[0], a->conv.dilation[1]},
        .top = a->conv.padding[0],
        .left = a->conv.padding[1],
    };
    cnn_shape_strides(x, true, m.x_stride);
    cnn_shape_strides(y, true, m.y_stride);
    cnn_shape_strides(weights, !node->row_major[1], m.weights_stride);
    return m;
}

static int64_t at(const int64_t *stride, int64_t i, int64_t j, int64_t k, int64_t l)
{
    return i * stride[0] + j * stride[1] + k * stride[2] + l * stride[3];
}

#define REAL float
#define NAME(function) function##_f32
#include "ref/conv.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(function) function##_f64
#include "ref/conv.inc"

CNN_REFERENCE_DISPATCH(conv2d)
CNN_REFERENCE_DISPATCH(conv_transpose2d)
