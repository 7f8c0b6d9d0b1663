#include <math.h>

#include "ops/loss.h"
#include "ref/index.h"
#include "ref/ref.h"

/* ---- classes ------------------------------------------------------------------------------------------------------ */

/* Rows of scores: row r is position r % positions of image r / positions. */
typedef struct class_map {
    bool cross_entropy;
    int64_t rows, c, positions;
    int64_t image_stride, class_stride, position_stride;
    double smoothing;
    int64_t ignore_index;
} class_map;

static class_map class_of(const cnn_node *node, bool cross_entropy)
{
    const cnn_shape *scores = &node->src_shape[0];
    int64_t stride[CNN_MAX_RANK];
    cnn_shape_strides(scores, !node->row_major[0], stride);
    class_map m = {
        .cross_entropy = cross_entropy,
        .rows = cnn_shape_count(&node->src_shape[1]),
        .c = scores->dim[1],
        .positions = 1,
        .image_stride = stride[0],
        .class_stride = stride[1],
        .position_stride = stride[scores->rank - 1],
        .smoothing = cross_entropy ? node->attributes.loss.label_smoothing : 0.0,
        .ignore_index = node->attributes.loss.ignore_index,
    };
    for (int32_t axis = 2; axis < scores->rank; axis++) m.positions *= scores->dim[axis];
    return m;
}

static int64_t score_at(const class_map *m, int64_t row, int64_t j)
{
    return row / m->positions * m->image_stride + j * m->class_stride + row % m->positions * m->position_stride;
}

/* ---- pairs -------------------------------------------------------------------------------------------------------- */

typedef struct pair_map {
    int64_t count;
    const cnn_shape *shape;
    int64_t dst_stride[CNN_MAX_RANK];
    int64_t stride[4][CNN_MAX_RANK];
} pair_map;

static pair_map pair_of(const cnn_node *node)
{
    pair_map m = {.count = cnn_shape_count(&node->src_shape[0]), .shape = &node->src_shape[0]};
    cnn_shape_strides(m.shape, true, m.dst_stride);
    for (int32_t i = 0; i < 4; i++)
        if (node->present[i]) (void)cnn_ref_stretch(node, i, m.shape, m.stride[i]);
    return m;
}

static int64_t pair_at(const pair_map *m, int32_t s, int64_t i)
{
    return cnn_ref_offset(m->shape, m->stride[s], i);
}

/* Returns the loss of prediction x and target t; slope[] = its derivatives by x and by t. */
typedef double pair_fn(double x, double t, double weight, double pos_weight, double slope[2]);

static double squared_error(double x, double t, double weight, double pos_weight, double slope[2])
{
    (void)weight;
    (void)pos_weight;
    slope[0] = 2.0 * (x - t);
    slope[1] = -slope[0];
    return (x - t) * (x - t);
}

static double absolute_error(double x, double t, double weight, double pos_weight, double slope[2])
{
    (void)weight;
    (void)pos_weight;
    slope[0] = x > t ? 1.0 : (x < t ? -1.0 : x - t);
    slope[1] = -slope[0];
    return fabs(x - t);
}

static double softplus(double x)
{
    return (x > 0.0 ? x : 0.0) + log1p(exp(-fabs(x)));
}

static double binary_cross_entropy(double x, double t, double weight, double pos_weight, double slope[2])
{
    const double p = 1.0 / (1.0 + exp(-x)), q = 1.0 / (1.0 + exp(x)); /* q = 1 - p */
    slope[0] = weight * ((1.0 - t) * p - pos_weight * t * q);
    slope[1] = weight * (pos_weight * softplus(-x) - softplus(x));
    return weight * ((1.0 - t) * softplus(x) + pos_weight * t * softplus(-x));
}

#define REAL float
#define NAME(name) name##_f32
#include "ref/loss.inc"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_f64
#include "ref/loss.inc"

CNN_REFERENCE_DISPATCH(cross_entropy)
CNN_REFERENCE_DISPATCH(nll)
CNN_REFERENCE_DISPATCH(mse)
CNN_REFERENCE_DISPATCH(l1)
CNN_REFERENCE_DISPATCH(bce_with_logits)
