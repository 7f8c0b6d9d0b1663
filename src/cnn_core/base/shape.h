/* Shapes: logical sizes, dense strides. */
#ifndef CNN_BASE_SHAPE_H
#define CNN_BASE_SHAPE_H

#include "base/memory.h"
#include "base/status.h"

static inline int64_t cnn_shape_count(const cnn_shape *shape)
{
    int64_t count = 1;
    for (int32_t i = 0; i < shape->rank; i++) count *= shape->dim[i];
    return count;
}

static inline bool cnn_shape_equal(const cnn_shape *a, const cnn_shape *b)
{
    if (a->rank != b->rank) return false;
    for (int32_t i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

static inline size_t cnn_tensor_bytes(const cnn_shape *shape, cnn_dtype dtype)
{
    return (size_t)cnn_shape_count(shape) * cnn_dtype_bytes(dtype);
}

/* Fails on a rank or a size out of range and on an element count whose bytes would not fit: every shape that passed can
 * be counted without a check. */
cnn_status cnn_shape_check(const cnn_shape *shape);

/* stride = element strides of the dense layout: channels-last where asked and the rank is 4, else row-major. */
void cnn_shape_strides(const cnn_shape *shape, bool channels_last, int64_t stride[CNN_MAX_RANK]);

/* An image batch, the sizes of a rank-4 shape by name. */
typedef struct cnn_image {
    int64_t n, c, h, w;
} cnn_image;

static inline cnn_image cnn_image_of(const cnn_shape *shape)
{
    return (cnn_image){shape->dim[0], shape->dim[1], shape->dim[2], shape->dim[3]};
}

#endif
