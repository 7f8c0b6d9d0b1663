#include "base/shape.h"

cnn_status cnn_shape_check(const cnn_shape *shape)
{
    if (shape->rank < 0 || shape->rank > CNN_MAX_RANK)
        return cnn_fail(CNN_INVALID_VALUE, "shape has %d dimensions; 0 to %d are supported", shape->rank, CNN_MAX_RANK);
    size_t bytes = sizeof(double); /* the widest element */
    char text[CNN_SHAPE_TEXT];
    for (int32_t i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 0)
            return cnn_fail(CNN_INVALID_VALUE, "shape %s has a negative size", cnn_shape_text(shape, text));
        /* Zero sizes count as one here, so that no partial product of a stride can overflow either. */
        bytes = cnn_size_mul(bytes, (size_t)cnn_max_i64(shape->dim[i], 1));
    }
    if (bytes >= CNN_SIZE_LIMIT)
        return cnn_fail(CNN_INVALID_VALUE, "shape %s is too large to address", cnn_shape_text(shape, text));
    return CNN_OK;
}

void cnn_shape_strides(const cnn_shape *shape, bool channels_last, int64_t stride[CNN_MAX_RANK])
{
    if (channels_last && shape->rank == 4) {
        const cnn_image i = cnn_image_of(shape);
        stride[0] = i.c * i.w * i.h;
        stride[1] = 1;
        stride[2] = i.c * i.w;
        stride[3] = i.c;
        return;
    }
    int64_t step = 1;
    for (int32_t axis = shape->rank - 1; axis >= 0; axis--) {
        stride[axis] = step;
        step *= shape->dim[axis];
    }
}
