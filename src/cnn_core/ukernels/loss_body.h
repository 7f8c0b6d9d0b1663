#include <stddef.h>

#include "ukernels/loss.h"

VF_INLINE vf loss_load(const float *p, int64_t i, int lanes)
{
    return lanes == VF_WIDTH ? vf_load(p + i) : vf_load_tail(p + i, lanes);
}

VF_INLINE void loss_store(float *p, int64_t i, vf a, int lanes)
{
    if (lanes == VF_WIDTH)
        vf_store(p + i, a);
    else
        vf_store_tail(p + i, a, lanes);
}

/* The weight of each element, 1 where there are none. */
VF_INLINE vf loss_weight(const float *p, int64_t i, int lanes)
{
    return p == NULL ? vf_set1(1.0f) : loss_load(p, i, lanes);
}

/* ---- rows of class scores ----------------------------------------------------------------------------------------- */

/* The first n of VF_WIDTH floats, `fill` in the other lanes. */
VF_INLINE vf loss_load_filled(const float *p, int n, float fill)
{
    static const float lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vf_select(vf_lt(vf_load(lane), vf_set1((float)n)), vf_load_tail(p, n), vf_set1(fill));
}

static void softmax_parts(int64_t c, const float *x, float *max, float *sum)
{
    const int64_t whole = c - c % VF_WIDTH;
    const int tail = (int)(c - whole);
    vf largest = vf_set1(-INFINITY);
    for (int64_t i = 0; i < whole; i += VF_WIDTH) largest = vf_max(largest, vf_load(x + i));
    if (tail > 0) largest = vf_max(largest, loss_load_filled(x + whole, tail, -INFINITY));
    *max = vf_max_lane(largest);

    const vf shift = vf_set1(*max);
    vf total = vf_zero();
    for (int64_t i = 0; i < whole; i += VF_WIDTH) total = vf_add(total, vf_exp(vf_sub(vf_load(x + i), shift)));
    if (tail > 0)
        total = vf_add(total, vf_exp(vf_sub(loss_load_filled(x + whole, tail, -INFINITY), shift)));
    *sum = vf_sum(total);
}

static float weighted_gap(int64_t c, const float *x, const float *weights, float max)
{
    const vf shift = vf_set1(max);
    vf total = vf_zero();
    for (int64_t i = 0; i < c; i += VF_WIDTH) {
        const int lanes = c - i < VF_WIDTH ? (int)(c - i) : VF_WIDTH;
        const vf gap = vf_sub(loss_load_filled(x + i, lanes, max), shift);
        total = vf_fmadd(loss_weight(weights, i, lanes), gap, total);
    }
    return vf_sum(total);
}

static void softmax_gradient(int64_t c, const float *x, float max, float scale, float smooth, const float *weights,
                             float *dst)
{
    const vf shift = vf_set1(max), factor = vf_set1(scale), less = vf_set1(smooth);
    for (int64_t i = 0; i < c; i += VF_WIDTH) {
        const int lanes = c - i < VF_WIDTH ? (int)(c - i) : VF_WIDTH;
        const vf p = vf_exp(vf_sub(loss_load(x, i, lanes), shift));
        loss_store(dst, i, vf_fnmadd(less, loss_weight(weights, i, lanes), vf_mul(factor, p)), lanes);
    }
}

/* ---- pairs of prediction and target ------------------------------------------------------------------------------- */

VF_INLINE vf mse_value(const cnn_loss_terms *terms, int64_t i, int lanes)
{
    const vf d = vf_sub(loss_load(terms->src, i, lanes), loss_load(terms->targets, i, lanes));
    return vf_mul(d, d);
}

VF_INLINE void mse_slope(const cnn_loss_terms *terms, int64_t i, int lanes, vf *by_src, vf *by_target)
{
    const vf d = vf_sub(loss_load(terms->src, i, lanes), loss_load(terms->targets, i, lanes));
    *by_src = vf_add(d, d);
    *by_target = vf_neg(*by_src);
}

VF_INLINE vf l1_value(const cnn_loss_terms *terms, int64_t i, int lanes)
{
    return vf_abs(vf_sub(loss_load(terms->src, i, lanes), loss_load(terms->targets, i, lanes)));
}

/* The sign of the difference: 0 where it is 0, NaN where it is NaN. */
VF_INLINE void l1_slope(const cnn_loss_terms *terms, int64_t i, int lanes, vf *by_src, vf *by_target)
{
    const vf d = vf_sub(loss_load(terms->src, i, lanes), loss_load(terms->targets, i, lanes));
    const vf not_below = vf_select(vf_gt(d, vf_zero()), vf_set1(1.0f), d);
    *by_src = vf_select(vf_lt(d, vf_zero()), vf_set1(-1.0f), not_below);
    *by_target = vf_neg(*by_src);
}

/* With p = sigmoid(x), -log p = softplus(-x) and -log(1 - p) = softplus(x), finite for any x and accurate where they are
 * small: -[pos t log p + (1 - t) log(1 - p)] = pos t softplus(-x) + (1 - t) softplus(x). */
VF_INLINE vf bce_value(const cnn_loss_terms *terms, int64_t i, int lanes)
{
    const vf one = vf_set1(1.0f);
    const vf x = loss_load(terms->src, i, lanes), t = loss_load(terms->targets, i, lanes);
    const vf pos = loss_weight(terms->pos_weights, i, lanes);
    const vf shared = vf_softplus_tail(x);
    const vf above = vf_add(vf_max(x, vf_zero()), shared), below = vf_add(vf_max(vf_neg(x), vf_zero()), shared);
    const vf value = vf_fmadd(vf_sub(one, t), above, vf_mul(vf_mul(pos, t), below));
    return vf_mul(value, loss_weight(terms->weights, i, lanes));
}

VF_INLINE void bce_slope(const cnn_loss_terms *terms, int64_t i, int lanes, vf *by_src, vf *by_target)
{
    const vf one = vf_set1(1.0f);
    const vf x = loss_load(terms->src, i, lanes), t = loss_load(terms->targets, i, lanes);
    const vf weight = loss_weight(terms->weights, i, lanes);
    const vf pos = loss_weight(terms->pos_weights, i, lanes);
    /* p and 1 - p, each from its own exponential: neither loses its small values. */
    const vf p = vf_sigmoid(x), q = vf_sigmoid(vf_neg(x));
    *by_src = vf_mul(weight, vf_fnmadd(vf_mul(pos, t), q, vf_mul(vf_sub(one, t), p)));
    *by_target = vf_mul(weight, vf_sub(vf_mul(vf_sub(pos, one), vf_softplus(vf_neg(x))), x));
}

#define DEFINE_LOSS(name)                                                                                           \
    static void name##_values(int64_t n, const cnn_loss_terms *terms, float *dst)                                   \
    {                                                                                                               \
        for (int64_t i = 0; i < n; i += VF_WIDTH) {                                                                 \
            const int lanes = n - i < VF_WIDTH ? (int)(n - i) : VF_WIDTH;                                           \
            loss_store(dst, i, name##_value(terms, i, lanes), lanes);                                               \
        }                                                                                                           \
    }                                                                                                               \
    static void name##_gradient(int64_t n, const cnn_loss_terms *terms, const float *diff_dst, float scale,         \
                                float *diff_src, float *diff_targets)                                               \
    {                                                                                                               \
        const vf factor = vf_set1(scale);                                                                           \
        for (int64_t i = 0; i < n; i += VF_WIDTH) {                                                                 \
            const int lanes = n - i < VF_WIDTH ? (int)(n - i) : VF_WIDTH;                                           \
            vf by_src, by_target;                                                                                   \
            name##_slope(terms, i, lanes, &by_src, &by_target);                                                     \
            const vf g = diff_dst == NULL ? factor : vf_mul(factor, loss_load(diff_dst, i, lanes));                 \
            if (diff_src != NULL) loss_store(diff_src, i, vf_mul(by_src, g), lanes);                                \
            if (diff_targets != NULL) loss_store(diff_targets, i, vf_mul(by_target, g), lanes);                     \
        }                                                                                                           \
    }

DEFINE_LOSS(mse)
DEFINE_LOSS(l1)
DEFINE_LOSS(bce)

#define CNN_KERNELS_LOSS                                    \
    {                                                       \
        .softmax_parts = softmax_parts,                     \
        .weighted_gap = weighted_gap,                       \
        .softmax_gradient = softmax_gradient,               \
        .values = {mse_values, l1_values, bce_values},      \
        .gradient = {mse_gradient, l1_gradient, bce_gradient}, \
    }
