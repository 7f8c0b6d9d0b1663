#include <math.h>
#include <string.h>

#include "ref/ref.h"

/* The source positions that an output position mixes along one axis, and their weights. */
typedef struct mix {
    int count;
    int64_t position[2];
    double weight[2];
} mix;

typedef mix mix_fn(const cnn_node *node, int axis, int64_t o);

/* Source pixels per output pixel: the user's number, unless there is none or the size stays. */
static double step_of(const cnn_node *node, int axis)
{
    const double in = (double)node->src_shape[0].dim[2 + axis], out = (double)node->dst_shape.dim[2 + axis];
    const double scale = node->attributes.resize.scale[axis];
    return scale > 0.0 && in != out ? scale : in / out;
}

/* In float for either type, as PyTorch. */
static mix nearest_mix(const cnn_node *node, int axis, int64_t o)
{
    const int64_t in = node->src_shape[0].dim[2 + axis];
    const float position = fminf(floorf((float)o * (float)step_of(node, axis)), (float)(in - 1));
    return (mix){.count = 1, .position = {(int64_t)position}, .weight = {1.0}};
}

static mix bilinear_mix(const cnn_node *node, int axis, int64_t o)
{
    const int64_t in = node->src_shape[0].dim[2 + axis], out = node->dst_shape.dim[2 + axis];
    double position;
    if (node->attributes.resize.align_corners)
        position = out > 1 ? (double)o * ((double)(in - 1) / (double)(out - 1)) : 0.0;
    else
        position = ((double)o + 0.5) * step_of(node, axis) - 0.5;
    position = fmin(fmax(position, 0.0), (double)(in - 1));
    const double lower = floor(position), fraction = position - lower;
    return (mix){.count = fraction > 0.0 ? 2 : 1,
                 .position = {(int64_t)lower, (int64_t)lower + 1},
                 .weight = {1.0 - fraction, fraction}};
}

#define REAL float
#define NAME(name) name##_f32
#include "ref/upsample.inc"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_f64
#include "ref/upsample.inc"

CNN_REFERENCE_DISPATCH(upsample_nearest)
CNN_REFERENCE_DISPATCH(upsample_bilinear)
