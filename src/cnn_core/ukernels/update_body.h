/* Parameter updates in the vector vocabulary; what each computes: update.h. */
#include "ukernels/update.h"

/* In the steps below, `lanes` is VF_WIDTH, a constant, but at the end of a run. */
VF_INLINE vf update_load(const float *p, int lanes)
{
    return lanes == VF_WIDTH ? vf_load(p) : vf_load_tail(p, lanes);
}

VF_INLINE void update_store(float *p, vf a, int lanes)
{
    if (lanes == VF_WIDTH)
        vf_store(p, a);
    else
        vf_store_tail(p, a, lanes);
}

/* Calls STEP(i, lanes) for every vector of n elements. */
#define UPDATE_FOR_VECTORS(n, STEP)                                      \
    do {                                                                 \
        int64_t i_ = 0;                                                  \
        for (; i_ + VF_WIDTH <= (n); i_ += VF_WIDTH) STEP(i_, VF_WIDTH); \
        if (i_ < (n)) STEP(i_, (int)((n)-i_));                           \
    } while (0)

typedef struct update_vectors {
    vf gradient_scale, l2, shrink, minus_rate, momentum, fresh, beta1, fresh1, beta2, fresh2, root_scale, eps;
} update_vectors;

VF_INLINE update_vectors update_broadcast(const struct cnn_update_constants *k)
{
    const update_vectors v = {
        .gradient_scale = vf_set1((float)k->gradient_scale),
        .l2 = vf_set1((float)k->l2),
        .shrink = vf_set1((float)k->shrink),
        .minus_rate = vf_set1((float)-k->rate),
        .momentum = vf_set1((float)k->momentum),
        .fresh = vf_set1((float)k->fresh),
        .beta1 = vf_set1((float)k->beta1),
        .fresh1 = vf_set1((float)(1 - k->beta1)),
        .beta2 = vf_set1((float)k->beta2),
        .fresh2 = vf_set1((float)(1 - k->beta2)),
        .root_scale = vf_set1((float)k->root_scale),
        .eps = vf_set1((float)k->eps),
    };
    return v;
}

/* The gradient that a rule sees. */
VF_INLINE vf update_gradient(const update_vectors *k, vf g, vf w)
{
    return vf_fmadd(k->l2, w, vf_mul(k->gradient_scale, g));
}

/* average = beta average + (1 - beta) x */
VF_INLINE vf update_average(vf beta, vf fresh, vf average, vf x)
{
    return vf_fmadd(beta, average, vf_mul(fresh, x));
}

/* ---- SGD --------------------------------------------------------------------------------------------------------- */

enum { SGD_PLAIN, SGD_MOMENTUM, SGD_NESTEROV };

VF_INLINE void sgd_step(int kind, const update_vectors *k, const float *g, float *w, float *velocity, int lanes)
{
    const vf weight = update_load(w, lanes);
    const vf gradient = update_gradient(k, update_load(g, lanes), weight);
    vf direction = gradient;
    if (kind != SGD_PLAIN) {
        const vf v = vf_fmadd(k->momentum, update_load(velocity, lanes), vf_mul(k->fresh, gradient));
        update_store(velocity, v, lanes);
        direction = kind == SGD_NESTEROV ? vf_fmadd(k->momentum, v, gradient) : v;
    }
    update_store(w, vf_fmadd(k->minus_rate, direction, weight), lanes);
}

VF_INLINE void sgd_sweep(int kind, int64_t n, const struct cnn_update_constants *constants, const float *g, float *w,
                         float *velocity)
{
    const update_vectors k = update_broadcast(constants);
#define STEP(i, lanes) sgd_step(kind, &k, g + (i), w + (i), kind == SGD_PLAIN ? NULL : velocity + (i), lanes)
    UPDATE_FOR_VECTORS(n, STEP);
#undef STEP
}

#define DEFINE_SGD(name, kind)                                                                                     \
    static void name(int64_t n, const struct cnn_update_constants *constants, const float *g, float *w,            \
                     float *velocity, float *unused1, float *unused2)                                              \
    {                                                                                                              \
        (void)unused1, (void)unused2;                                                                              \
        sgd_sweep(kind, n, constants, g, w, velocity);                                                             \
    }

DEFINE_SGD(update_sgd, SGD_PLAIN)
DEFINE_SGD(update_sgd_momentum, SGD_MOMENTUM)
DEFINE_SGD(update_sgd_nesterov, SGD_NESTEROV)

#undef DEFINE_SGD

/* ---- Adam, AdamW ------------------------------------------------------------------------------------------------- */

VF_INLINE void adam_step(const update_vectors *k, const float *g, float *w, float *mean, float *square, int lanes)
{
    const vf weight = update_load(w, lanes);
    const vf gradient = update_gradient(k, update_load(g, lanes), weight);
    const vf m = update_average(k->beta1, k->fresh1, update_load(mean, lanes), gradient);
    const vf s = update_average(k->beta2, k->fresh2, update_load(square, lanes), vf_mul(gradient, gradient));
    update_store(mean, m, lanes);
    update_store(square, s, lanes);
    const vf denominator = vf_fmadd(vf_sqrt(s), k->root_scale, k->eps);
    const vf shrunk = vf_mul(k->shrink, weight);
    update_store(w, vf_fmadd(k->minus_rate, vf_div(m, denominator), shrunk), lanes);
}

static void update_adam(int64_t n, const struct cnn_update_constants *constants, const float *g, float *w, float *mean,
                        float *square, float *unused)
{
    (void)unused;
    const update_vectors k = update_broadcast(constants);
#define STEP(i, lanes) adam_step(&k, g + (i), w + (i), mean + (i), square + (i), lanes)
    UPDATE_FOR_VECTORS(n, STEP);
#undef STEP
}

/* ---- RMSprop ----------------------------------------------------------------------------------------------------- */

/* velocity and mean are NULL where the flag that uses them is not set. */
VF_INLINE void rmsprop_step(bool centered, bool momentum, const update_vectors *k, const float *g, float *w,
                            float *square, float *velocity, float *mean, int lanes)
{
    const vf weight = update_load(w, lanes);
    const vf gradient = update_gradient(k, update_load(g, lanes), weight);
    const vf s = update_average(k->beta2, k->fresh2, update_load(square, lanes), vf_mul(gradient, gradient));
    update_store(square, s, lanes);
    vf variance = s;
    if (centered) {
        const vf m = update_average(k->beta2, k->fresh2, update_load(mean, lanes), gradient);
        update_store(mean, m, lanes);
        variance = vf_max(vf_fnmadd(m, m, s), vf_zero()); /* rounding must not make it negative */
    }
    vf direction = vf_div(gradient, vf_add(vf_sqrt(variance), k->eps));
    if (momentum) {
        direction = vf_fmadd(k->momentum, update_load(velocity, lanes), direction);
        update_store(velocity, direction, lanes);
    }
    update_store(w, vf_fmadd(k->minus_rate, direction, weight), lanes);
}

VF_INLINE void rmsprop_sweep(bool centered, bool momentum, int64_t n, const struct cnn_update_constants *constants,
                             const float *g, float *w, float *square, float *velocity, float *mean)
{
    const update_vectors k = update_broadcast(constants);
#define STEP(i, lanes)                                                                                       \
    rmsprop_step(centered, momentum, &k, g + (i), w + (i), square + (i), momentum ? velocity + (i) : NULL,   \
                 centered ? mean + (i) : NULL, lanes)
    UPDATE_FOR_VECTORS(n, STEP);
#undef STEP
}

#define DEFINE_RMSPROP(name, centered, momentum)                                                                   \
    static void name(int64_t n, const struct cnn_update_constants *constants, const float *g, float *w,            \
                     float *square, float *velocity, float *mean)                                                  \
    {                                                                                                              \
        rmsprop_sweep(centered, momentum, n, constants, g, w, square, velocity, mean);                             \
    }

DEFINE_RMSPROP(update_rmsprop, false, false)
DEFINE_RMSPROP(update_rmsprop_momentum, false, true)
DEFINE_RMSPROP(update_rmsprop_centered, true, false)
DEFINE_RMSPROP(update_rmsprop_centered_momentum, true, true)

#undef DEFINE_RMSPROP

/* ---- norms, penalties -------------------------------------------------------------------------------------------- */

#define UPDATE_LANES 8

static inline double update_sum_lanes(double sum[UPDATE_LANES])
{
    for (int half = UPDATE_LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0];
}

/* Sums in double, whose squares of floats are exact: in lanes of a fixed number, so that compilers can use vectors of any
 * width and every ISA has the same bits. */
static void update_sums(int64_t n, const float *x, double out[2])
{
    double sum[UPDATE_LANES] = {0.0}, square[UPDATE_LANES] = {0.0};
    int64_t i = 0;
    for (; i + UPDATE_LANES <= n; i += UPDATE_LANES)
        for (int j = 0; j < UPDATE_LANES; j++) {
            const double a = fabs((double)x[i + j]);
            sum[j] += a;
            square[j] += a * a;
        }
    for (int j = 0; i + j < n; j++) {
        const double a = fabs((double)x[i + j]);
        sum[j] += a;
        square[j] += a * a;
    }
    out[0] = update_sum_lanes(sum);
    out[1] = update_sum_lanes(square);
}

static float update_max_abs(int64_t n, const float *x)
{
    vf most = vf_zero();
#define STEP(i, lanes) most = vf_max(most, vf_abs(update_load(x + (i), lanes)))
    UPDATE_FOR_VECTORS(n, STEP);
#undef STEP
    return vf_max_lane(most);
}

static void update_scale(int64_t n, float factor, float *x)
{
    const vf f = vf_set1(factor);
#define STEP(i, lanes) update_store(x + (i), vf_mul(f, update_load(x + (i), lanes)), lanes)
    UPDATE_FOR_VECTORS(n, STEP);
#undef STEP
}

/* At zero, and at NaN, the sign is 0; l2 w keeps the NaN. */
VF_INLINE void penalty_step(vf l1, vf l2, const float *w, float *g, int lanes)
{
    const vf weight = update_load(w, lanes);
    const vf sign = vf_select(vf_gt(vf_abs(weight), vf_zero()), vf_copysign(l1, weight), vf_zero());
    update_store(g, vf_add(update_load(g, lanes), vf_fmadd(l2, weight, sign)), lanes);
}

static void update_penalty_gradient(int64_t n, float l1, float l2, const float *w, float *g)
{
    const vf a = vf_set1(l1), b = vf_set1(l2);
#define STEP(i, lanes) penalty_step(a, b, w + (i), g + (i), lanes)
    UPDATE_FOR_VECTORS(n, STEP);
#undef STEP
}

VF_INLINE void soft_threshold_step(vf threshold, float *w, int lanes)
{
    const vf weight = update_load(w, lanes);
    const vf shrunk = vf_max(vf_sub(vf_abs(weight), threshold), vf_zero());
    update_store(w, vf_copysign(shrunk, weight), lanes);
}

static void update_soft_threshold(int64_t n, float threshold, float *w)
{
    const vf t = vf_set1(threshold);
#define STEP(i, lanes) soft_threshold_step(t, w + (i), lanes)
    UPDATE_FOR_VECTORS(n, STEP);
#undef STEP
}

#undef UPDATE_FOR_VECTORS
#undef UPDATE_LANES

#define CNN_KERNELS_UPDATE                                                                  \
    {                                                                                       \
        .sgd = update_sgd,                                                                  \
        .sgd_momentum = update_sgd_momentum,                                                \
        .sgd_nesterov = update_sgd_nesterov,                                                \
        .adam = update_adam,                                                                \
        .rmsprop = {{update_rmsprop, update_rmsprop_momentum},                              \
                    {update_rmsprop_centered, update_rmsprop_centered_momentum}},           \
        .sums = update_sums,                                                                \
        .max_abs = update_max_abs,                                                          \
        .scale = update_scale,                                                              \
        .penalty_gradient = update_penalty_gradient,                                        \
        .soft_threshold = update_soft_threshold,                                            \
    }
