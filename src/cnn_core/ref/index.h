/* Indices of the references: elements numbered in logical row-major order, found in memory through strides. */
#ifndef CNN_REF_INDEX_H
#define CNN_REF_INDEX_H

#include "ops/op.h"

/* The offset in memory of element `flat` of `shape`. */
static inline int64_t cnn_ref_offset(const cnn_shape *shape, const int64_t stride[CNN_MAX_RANK], int64_t flat)
{
    int64_t offset = 0;
    for (int32_t axis = shape->rank - 1; axis >= 0; axis--) {
        offset += flat % shape->dim[axis] * stride[axis];
        flat /= shape->dim[axis];
    }
    return offset;
}

/* The shape of source i with ones before it up to the rank of `space`, and strides to go with it: 0 where it has size 1. */
static inline cnn_shape cnn_ref_stretch(const cnn_node *node, int32_t i, const cnn_shape *space,
                                        int64_t stride[CNN_MAX_RANK])
{
    const cnn_shape *shape = &node->src_shape[i];
    int64_t own[CNN_MAX_RANK];
    cnn_shape_strides(shape, !node->row_major[i], own);
    cnn_shape stretched = {.rank = space->rank};
    const int32_t missing = space->rank - shape->rank;
    for (int32_t axis = 0; axis < space->rank; axis++) {
        stretched.dim[axis] = axis < missing ? 1 : shape->dim[axis - missing];
        stride[axis] = stretched.dim[axis] == 1 ? 0 : own[axis - missing];
    }
    return stretched;
}

#endif
