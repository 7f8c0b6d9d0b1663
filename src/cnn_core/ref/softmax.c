#include <math.h>

#include "ref/ref.h"

/* The distributions of a softmax: where the one that holds logical element i starts is found by taking the axis out of
 * i's coordinates. */
typedef struct softmax_axis {
    int64_t n, stride;    /* along the axis */
    int64_t before, after; /* numbers of coordinates in logical order before and after the axis */
} softmax_axis;

static softmax_axis axis_of(const cnn_node *node)
{
    const int32_t axis = node->attributes.axis.axis;
    int64_t stride[CNN_MAX_RANK];
    cnn_shape_strides(&node->dst_shape, true, stride);
    softmax_axis a = {.n = node->dst_shape.dim[axis], .stride = stride[axis], .before = 1, .after = 1};
    for (int32_t i = 0; i < axis; i++) a.before *= node->dst_shape.dim[i];
    for (int32_t i = axis + 1; i < node->dst_shape.rank; i++) a.after *= node->dst_shape.dim[i];
    return a;
}

/* Where distribution d, 0 <= d < before * after, starts. */
static int64_t start_of(const cnn_node *node, int64_t d)
{
    int64_t stride[CNN_MAX_RANK], offset = 0;
    cnn_shape_strides(&node->dst_shape, true, stride);
    for (int32_t axis = node->dst_shape.rank - 1; axis >= 0; axis--) {
        if (axis == node->attributes.axis.axis) continue;
        offset += d % node->dst_shape.dim[axis] * stride[axis];
        d /= node->dst_shape.dim[axis];
    }
    return offset;
}

#define REAL float
#define NAME(function) function##_f32
#include "ref/softmax.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(function) function##_f64
#include "ref/softmax.inc"

CNN_REFERENCE_DISPATCH(softmax)
CNN_REFERENCE_DISPATCH(log_softmax)
