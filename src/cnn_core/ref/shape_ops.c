#include <string.h>

#include "ref/index.h"
#include "ref/ref.h"

typedef struct reshape_map {
    int64_t count;
    const cnn_shape *src, *dst;
    int64_t src_stride[CNN_MAX_RANK], dst_stride[CNN_MAX_RANK];
} reshape_map;

static reshape_map reshape_of(const cnn_node *node)
{
    reshape_map m = {.count = cnn_shape_count(&node->dst_shape), .src = &node->src_shape[0], .dst = &node->dst_shape};
    cnn_shape_strides(m.src, !node->row_major[0], m.src_stride);
    cnn_shape_strides(m.dst, true, m.dst_stride);
    return m;
}

/* Source s and where it lies in the destination. */
typedef struct concat_part {
    int64_t count, offset;
    const cnn_shape *shape;
    int64_t src_stride[CNN_MAX_RANK], dst_stride[CNN_MAX_RANK];
} concat_part;

/* *begin is the part's position along the axis; it moves on to the next part's. */
static concat_part concat_part_of(const cnn_node *node, int32_t s, int64_t *begin)
{
    const int32_t axis = node->attributes.axis.axis;
    concat_part part = {.count = cnn_shape_count(&node->src_shape[s]), .shape = &node->src_shape[s]};
    cnn_shape_strides(part.shape, !node->row_major[s], part.src_stride);
    cnn_shape_strides(&node->dst_shape, true, part.dst_stride);
    part.offset = *begin * part.dst_stride[axis];
    *begin += part.shape->dim[axis];
    return part;
}

/* The source seen through the slice: `offset` is its first element. */
typedef struct slice_map {
    int64_t count, offset;
    const cnn_shape *dst;
    int64_t src_stride[CNN_MAX_RANK], dst_stride[CNN_MAX_RANK];
} slice_map;

static slice_map slice_of(const cnn_node *node)
{
    slice_map m = {.count = cnn_shape_count(&node->dst_shape), .dst = &node->dst_shape};
    cnn_shape_strides(&node->src_shape[0], !node->row_major[0], m.src_stride);
    cnn_shape_strides(m.dst, true, m.dst_stride);
    for (int32_t axis = 0; axis < m.dst->rank; axis++) {
        m.offset += node->attributes.slice.start[axis] * m.src_stride[axis];
        m.src_stride[axis] *= node->attributes.slice.step[axis];
    }
    return m;
}

#define REAL float
#define NAME(name) name##_f32
#include "ref/shape_ops.inc"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_f64
#include "ref/shape_ops.inc"

CNN_REFERENCE_DISPATCH(reshape)
CNN_REFERENCE_DISPATCH(concat)
CNN_REFERENCE_DISPATCH(slice)
