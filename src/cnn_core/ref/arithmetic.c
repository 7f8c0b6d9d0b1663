#include "ref/index.h"
#include "ref/ref.h"

/* Sources of one or two, stretched to the rank of the destination. */
typedef struct binary_map {
    int64_t count;
    const cnn_shape *dst;
    int64_t dst_stride[CNN_MAX_RANK];
    cnn_shape shape[2];
    int64_t stride[2][CNN_MAX_RANK];
} binary_map;

static binary_map binary_of(const cnn_node *node)
{
    binary_map m = {.count = cnn_shape_count(&node->dst_shape), .dst = &node->dst_shape};
    cnn_shape_strides(m.dst, true, m.dst_stride);
    for (int32_t i = 0; i < 2 && i < node->num_sources; i++)
        m.shape[i] = cnn_ref_stretch(node, i, m.dst, m.stride[i]);
    return m;
}

/* The axes along which a source was repeated, the others with size 1. */
static cnn_shape copies_of(const cnn_shape *own, const cnn_shape *dst)
{
    cnn_shape copies = {.rank = dst->rank};
    for (int32_t axis = 0; axis < dst->rank; axis++) copies.dim[axis] = own->dim[axis] == 1 ? dst->dim[axis] : 1;
    return copies;
}

#define REAL float
#define NAME(name) name##_f32
#include "ref/arithmetic.inc"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_f64
#include "ref/arithmetic.inc"

CNN_REFERENCE_DISPATCH(add)
CNN_REFERENCE_DISPATCH(multiply)
CNN_REFERENCE_DISPATCH(affine)
