/* Kernels of the normalizations in the vector vocabulary; what each computes: norm.h. */
#include "ukernels/norm.h"

/* In the steps below `lanes` is VF_WIDTH but in the last vector of a row. */
static inline vf norm_load(const float *p, int lanes)
{
    return lanes == VF_WIDTH ? vf_load(p) : vf_load_tail(p, lanes);
}

static inline void norm_store(float *p, vf a, int lanes)
{
    if (lanes == VF_WIDTH)
        vf_store(p, a);
    else
        vf_store_tail(p, a, lanes);
}

/* *p += a */
static inline void norm_add(float *p, vf a, int lanes)
{
    norm_store(p, vf_add(norm_load(p, lanes), a), lanes);
}

/* Calls STEP(j, lanes) for every vector of n elements. */
#define NORM_FOR_VECTORS(n, STEP)                                          \
    do {                                                                   \
        int64_t j_ = 0;                                                    \
        for (; j_ + VF_WIDTH <= (n); j_ += VF_WIDTH) STEP(j_, VF_WIDTH);   \
        if (j_ < (n)) STEP(j_, (int)((n)-j_));                             \
    } while (0)

#include "ukernels/norm_columns_body.h"

/* ---- rows -------------------------------------------------------------------------------------------------------- */

#define NORM_SUMS 4 /* vectors added up side by side, to hide the latency of an addition */

static inline float norm_total(const vf s[NORM_SUMS])
{
    return vf_sum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

static inline void norm_clear_sums(vf s[NORM_SUMS])
{
    for (int k = 0; k < NORM_SUMS; k++) s[k] = vf_zero();
}

/* Calls STEP(k, j, lanes) for every vector of n elements, where k = 0 .. NORM_SUMS - 1 takes turns. */
#define NORM_FOR_SUMS(n, STEP)                                                              \
    do {                                                                                    \
        int64_t j_ = 0;                                                                     \
        for (; j_ + NORM_SUMS * VF_WIDTH <= (n); j_ += NORM_SUMS * VF_WIDTH)                \
            for (int k_ = 0; k_ < NORM_SUMS; k_++) STEP(k_, j_ + k_ * VF_WIDTH, VF_WIDTH);  \
        for (; j_ + VF_WIDTH <= (n); j_ += VF_WIDTH) STEP(0, j_, VF_WIDTH);                 \
        if (j_ < (n)) STEP(1, j_, (int)((n)-j_));                                           \
    } while (0)

static float norm_row_sum(int64_t n, const float *x)
{
    vf s[NORM_SUMS];
    norm_clear_sums(s);
#define STEP(k, j, lanes) s[k] = vf_add(s[k], norm_load(x + (j), lanes))
    NORM_FOR_SUMS(n, STEP);
#undef STEP
    return norm_total(s);
}

static inline void norm_row_moments_step(const float *x, vf pivot, vf *first, vf *second, int lanes)
{
    const vf d = vf_sub(lanes == VF_WIDTH ? vf_load(x) : vf_load_tail_or(x, lanes, pivot), pivot);
    *first = vf_add(*first, d);
    *second = vf_fmadd(d, d, *second);
}

static void norm_row_moments(int64_t n, const float *x, float pivot, float out[2])
{
    const vf center = vf_set1(pivot);
    vf first[NORM_SUMS], second[NORM_SUMS];
    norm_clear_sums(first);
    norm_clear_sums(second);
#define STEP(k, j, lanes) norm_row_moments_step(x + (j), center, &first[k], &second[k], lanes)
    NORM_FOR_SUMS(n, STEP);
#undef STEP
    out[0] = norm_total(first);
    out[1] = norm_total(second);
}

static inline void norm_row_affine_step(const float *src, vf mean, vf scale, vf shift, const float *weights,
                                        const float *bias, float *dst, int lanes)
{
    const vf xhat = vf_fmadd(vf_sub(norm_load(src, lanes), mean), scale, shift);
    norm_store(dst, vf_fmadd(xhat, norm_load(weights, lanes), norm_load(bias, lanes)), lanes);
}

static void norm_row_affine(int64_t n, const float *src, float mean, float scale, float shift, const float *weights,
                            const float *bias, float *dst)
{
    const vf m = vf_set1(mean), a = vf_set1(scale), b = vf_set1(shift);
#define STEP(j, lanes) norm_row_affine_step(src + (j), m, a, b, weights + (j), bias + (j), dst + (j), lanes)
    NORM_FOR_VECTORS(n, STEP);
#undef STEP
}

/* Lanes past the end have dy = 0 and add nothing. */
static inline void norm_row_dots_step(const float *x, const float *dy, const float *weights, vf mean, vf *sum, vf *dot,
                                      int lanes)
{
    const vf g = vf_mul(norm_load(dy, lanes), norm_load(weights, lanes));
    *sum = vf_add(*sum, g);
    *dot = vf_fmadd(g, vf_sub(norm_load(x, lanes), mean), *dot);
}

static void norm_row_dots(int64_t n, const float *x, const float *dy, const float *weights, float mean, float out[2])
{
    const vf center = vf_set1(mean);
    vf sum[NORM_SUMS], dot[NORM_SUMS];
    norm_clear_sums(sum);
    norm_clear_sums(dot);
#define STEP(k, j, lanes) norm_row_dots_step(x + (j), dy + (j), weights + (j), center, &sum[k], &dot[k], lanes)
    NORM_FOR_SUMS(n, STEP);
#undef STEP
    out[0] = norm_total(sum);
    out[1] = norm_total(dot);
}

static inline void norm_row_gradient_step(const float *x, const float *dy, const float *weights, vf mean, vf a, vf b,
                                          vf c, float *dx, int lanes)
{
    const vf g = vf_mul(norm_load(dy, lanes), norm_load(weights, lanes));
    norm_store(dx, vf_fmadd(g, a, vf_fmadd(vf_sub(norm_load(x, lanes), mean), b, c)), lanes);
}

static void norm_row_gradient(int64_t n, const float *x, const float *dy, const float *weights, float mean, float a,
                              float b, float c, float *dx)
{
    const vf m = vf_set1(mean), va = vf_set1(a), vb = vf_set1(b), vc = vf_set1(c);
#define STEP(j, lanes) norm_row_gradient_step(x + (j), dy + (j), weights + (j), m, va, vb, vc, dx + (j), lanes)
    NORM_FOR_VECTORS(n, STEP);
#undef STEP
}

static inline void norm_row_accumulate_step(const float *x, const float *dy, vf mean, vf scale, vf shift, float *dw,
                                            float *db, int lanes)
{
    const vf g = norm_load(dy, lanes);
    const vf xhat = vf_fmadd(vf_sub(norm_load(x, lanes), mean), scale, shift);
    norm_store(dw, vf_fmadd(g, xhat, norm_load(dw, lanes)), lanes);
    norm_add(db, g, lanes);
}

static void norm_row_accumulate(int64_t n, const float *x, const float *dy, float mean, float scale, float shift,
                                float *dw, float *db)
{
    const vf m = vf_set1(mean), a = vf_set1(scale), b = vf_set1(shift);
#define STEP(j, lanes) norm_row_accumulate_step(x + (j), dy + (j), m, a, b, dw + (j), db + (j), lanes)
    NORM_FOR_VECTORS(n, STEP);
#undef STEP
}

#define CNN_KERNELS_NORM                         \
    {                                            \
        .column_sums = norm_column_sums,         \
        .column_moments = norm_column_moments,   \
        .column_merge = norm_column_merge,     \
        .column_forward = norm_column_forward,     \
        .column_dots = norm_column_dots,         \
        .column_gradient = norm_column_gradient, \
        .row_sum = norm_row_sum,                 \
        .row_moments = norm_row_moments,         \
        .row_affine = norm_row_affine,           \
        .row_dots = norm_row_dots,               \
        .row_gradient = norm_row_gradient,       \
        .row_accumulate = norm_row_accumulate,   \
    }
