#include "ref/ref.h"

/* The shape and memory strides of src, dst and their gradients, and how many slopes there are. */
typedef struct prelu_walk {
    cnn_shape shape;
    int64_t stride[CNN_MAX_RANK];
    int64_t slopes;
} prelu_walk;

static prelu_walk walk_of(const cnn_node *node)
{
    prelu_walk walk = {.shape = node->dst_shape, .slopes = cnn_shape_count(&node->src_shape[1])};
    cnn_shape_strides(&walk.shape, true, walk.stride);
    return walk;
}

/* Which slope the element at this place in memory has. */
static int64_t slope_at(const prelu_walk *walk, int64_t offset)
{
    return walk->slopes == 1 ? 0 : offset / walk->stride[1] % walk->shape.dim[1];
}

#define REAL float
#define NAME(function) function##_f32
#include "ref/prelu.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(function) function##_f64
#include "ref/prelu.inc"

CNN_REFERENCE_DISPATCH(prelu)
