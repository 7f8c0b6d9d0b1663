#include "ref/ref.h"

/* The rows of the last axis, numbered in logical row-major order over the axes before it. */
typedef struct linear_rows {
    int64_t rows, in, out;
    int32_t rank;
    int64_t dim[CNN_MAX_RANK]; /* the axes before the last */
    int64_t src_stride[CNN_MAX_RANK], dst_stride[CNN_MAX_RANK];
} linear_rows;

static linear_rows rows_of(const cnn_node *node)
{
    const cnn_shape *src = &node->src_shape[0];
    linear_rows l = {.rows = 1, .rank = src->rank, .in = node->src_shape[1].dim[1], .out = node->src_shape[1].dim[0]};
    for (int32_t axis = 0; axis < src->rank - 1; axis++) {
        l.dim[axis] = src->dim[axis];
        l.rows *= src->dim[axis];
    }
    cnn_shape_strides(src, !node->row_major[0], l.src_stride);
    cnn_shape_strides(&node->dst_shape, true, l.dst_stride);
    return l;
}

/* Where element i of a row lies. */
static int64_t at(const linear_rows *l, const int64_t *stride, int64_t row, int64_t i)
{
    int64_t offset = i * stride[l->rank - 1];
    for (int32_t axis = l->rank - 2; axis >= 0; axis--) {
        offset += row % l->dim[axis] * stride[axis];
        row /= l->dim[axis];
    }
    return offset;
}

#define REAL float
#define NAME(function) function##_f32
#include "ref/linear.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(function) function##_f64
#include "ref/linear.inc"

CNN_REFERENCE_DISPATCH(linear)
