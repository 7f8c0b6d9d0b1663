/* Kernels of softmax and log-softmax in the vector vocabulary; what each computes: softmax.h.
 *
 * Taking the largest number off leaves exponents of zero and below: nothing overflows, and the sum is at least 1. */
#include "ukernels/softmax.h"

#define SOFTMAX_SUM 64 /* terms of a lane that are summed before they join the total: long sums stay accurate */

/* ---- a row ------------------------------------------------------------------------------------------------------- */

/* The lanes past the end hold minus infinity: never the largest, and e to it is zero. */
static inline vf softmax_load(const float *p, int64_t left)
{
    return left >= VF_WIDTH ? vf_load(p) : vf_load_tail_or(p, (int)left, vf_set1(-INFINITY));
}

static inline void softmax_store(float *p, vf a, int64_t left)
{
    if (left >= VF_WIDTH)
        vf_store(p, a);
    else
        vf_store_tail(p, a, (int)left);
}

static inline float softmax_row_max(int64_t n, const float *x)
{
    vf max = vf_set1(-INFINITY);
    for (int64_t j = 0; j < n; j += VF_WIDTH) max = vf_max(max, softmax_load(x + j, n - j));
    return vf_max_lane(max);
}

/* The sum of exp(x - max), whose terms go to dst unless that is NULL. */
static inline float softmax_row_exp(int64_t n, const float *x, vf max, float *dst)
{
    vf total = vf_zero();
    for (int64_t begin = 0; begin < n; begin += SOFTMAX_SUM * VF_WIDTH) {
        vf sum = vf_zero();
        for (int64_t j = begin; j < n && j < begin + SOFTMAX_SUM * VF_WIDTH; j += VF_WIDTH) {
            const vf e = vf_exp(vf_sub(softmax_load(x + j, n - j), max));
            if (dst != NULL) softmax_store(dst + j, e, n - j);
            sum = vf_add(sum, e);
        }
        total = vf_add(total, sum);
    }
    return vf_sum(total);
}

static void softmax_rows(int64_t rows, int64_t n, const float *src, float *dst)
{
    for (int64_t i = 0; i < rows; i++, src += n, dst += n) {
        const vf max = vf_set1(softmax_row_max(n, src));
        const vf scale = vf_set1(1.0f / softmax_row_exp(n, src, max, dst));
        for (int64_t j = 0; j < n; j += VF_WIDTH)
            softmax_store(dst + j, vf_mul(softmax_load(dst + j, n - j), scale), n - j);
    }
}

static void softmax_log_rows(int64_t rows, int64_t n, const float *src, float *dst)
{
    for (int64_t i = 0; i < rows; i++, src += n, dst += n) {
        const vf max = vf_set1(softmax_row_max(n, src));
        const vf log_sum = vf_log(vf_set1(softmax_row_exp(n, src, max, NULL)));
        for (int64_t j = 0; j < n; j += VF_WIDTH)
            softmax_store(dst + j, vf_sub(vf_sub(softmax_load(src + j, n - j), max), log_sum), n - j);
    }
}

/* Here the lanes past the end are zero and add nothing. */
static inline vf softmax_load_or_zero(const float *p, int64_t left)
{
    return left >= VF_WIDTH ? vf_load(p) : vf_load_tail(p, (int)left);
}

/* The sum of a b, of a alone where b is NULL. */
static inline float softmax_row_dot(int64_t n, const float *a, const float *b)
{
    vf total = vf_zero();
    for (int64_t begin = 0; begin < n; begin += SOFTMAX_SUM * VF_WIDTH) {
        vf sum = vf_zero();
        for (int64_t j = begin; j < n && j < begin + SOFTMAX_SUM * VF_WIDTH; j += VF_WIDTH) {
            const vf x = softmax_load_or_zero(a + j, n - j);
            sum = b == NULL ? vf_add(sum, x) : vf_fmadd(x, softmax_load_or_zero(b + j, n - j), sum);
        }
        total = vf_add(total, sum);
    }
    return vf_sum(total);
}

static void softmax_rows_backward(int64_t rows, int64_t n, const float *dst, const float *diff_dst, float *diff_src)
{
    for (int64_t i = 0; i < rows; i++, dst += n, diff_dst += n, diff_src += n) {
        const vf dot = vf_set1(softmax_row_dot(n, diff_dst, dst));
        for (int64_t j = 0; j < n; j += VF_WIDTH) {
            const vf g = vf_sub(softmax_load_or_zero(diff_dst + j, n - j), dot);
            softmax_store(diff_src + j, vf_mul(softmax_load_or_zero(dst + j, n - j), g), n - j);
        }
    }
}

static void softmax_log_rows_backward(int64_t rows, int64_t n, const float *dst, const float *diff_dst, float *diff_src)
{
    for (int64_t i = 0; i < rows; i++, dst += n, diff_dst += n, diff_src += n) {
        const vf sum = vf_set1(softmax_row_dot(n, diff_dst, NULL));
        for (int64_t j = 0; j < n; j += VF_WIDTH) {
            const vf y = vf_exp(softmax_load_or_zero(dst + j, n - j));
            softmax_store(diff_src + j, vf_fnmadd(y, sum, softmax_load_or_zero(diff_dst + j, n - j)), n - j);
        }
    }
}

/* ---- columns ------------------------------------------------------------------------------------------------------
 * A band of them at a time, along whole cache lines, with a vector of maxima or sums for each vector of the band. */

#define SOFTMAX_BAND 8 /* vectors */

typedef struct softmax_band {
    vf at[SOFTMAX_BAND];
} softmax_band;

/* Vectors of the band that begins with `left` columns to go. */
static inline int softmax_vectors(int64_t left)
{
    return left >= SOFTMAX_BAND * VF_WIDTH ? SOFTMAX_BAND : (int)((left + VF_WIDTH - 1) / VF_WIDTH);
}

static inline void softmax_band_max(int64_t n, int64_t stride, const float *x, int64_t left, softmax_band *max)
{
    const int vectors = softmax_vectors(left);
    for (int k = 0; k < vectors; k++) max->at[k] = vf_set1(-INFINITY);
    for (int64_t i = 0; i < n; i++, x += stride)
        for (int k = 0; k < vectors; k++)
            max->at[k] = vf_max(max->at[k], softmax_load_or_zero(x + k * VF_WIDTH, left - k * VF_WIDTH));
}

/* total = the sums of exp(x - max), whose terms go to dst unless that is NULL. */
static inline void softmax_band_exp(int64_t n, int64_t stride, const float *x, const softmax_band *max, float *dst,
                                    int64_t left, softmax_band *total)
{
    const int vectors = softmax_vectors(left);
    for (int k = 0; k < vectors; k++) total->at[k] = vf_zero();
    for (int64_t begin = 0; begin < n; begin += SOFTMAX_SUM) {
        softmax_band sum;
        for (int k = 0; k < vectors; k++) sum.at[k] = vf_zero();
        for (int64_t i = begin; i < n && i < begin + SOFTMAX_SUM; i++)
            for (int k = 0; k < vectors; k++) {
                const int64_t at = i * stride + k * VF_WIDTH, lanes = left - k * VF_WIDTH;
                const vf e = vf_exp(vf_sub(softmax_load_or_zero(x + at, lanes), max->at[k]));
                if (dst != NULL) softmax_store(dst + at, e, lanes);
                sum.at[k] = vf_add(sum.at[k], e);
            }
        for (int k = 0; k < vectors; k++) total->at[k] = vf_add(total->at[k], sum.at[k]);
    }
}

static void softmax_columns(int64_t width, int64_t n, int64_t stride, const float *src, float *dst)
{
    for (int64_t j = 0; j < width; j += SOFTMAX_BAND * VF_WIDTH) {
        softmax_band max, sum;
        softmax_band_max(n, stride, src + j, width - j, &max);
        softmax_band_exp(n, stride, src + j, &max, dst + j, width - j, &sum);
        const int vectors = softmax_vectors(width - j);
        for (int k = 0; k < vectors; k++) sum.at[k] = vf_div(vf_set1(1.0f), sum.at[k]);
        for (int64_t i = 0; i < n; i++)
            for (int k = 0; k < vectors; k++) {
                const int64_t column = j + k * VF_WIDTH;
                float *p = dst + i * stride + column;
                softmax_store(p, vf_mul(softmax_load_or_zero(p, width - column), sum.at[k]), width - column);
            }
    }
}

static void softmax_log_columns(int64_t width, int64_t n, int64_t stride, const float *src, float *dst)
{
    for (int64_t j = 0; j < width; j += SOFTMAX_BAND * VF_WIDTH) {
        softmax_band max, sum;
        softmax_band_max(n, stride, src + j, width - j, &max);
        softmax_band_exp(n, stride, src + j, &max, NULL, width - j, &sum);
        const int vectors = softmax_vectors(width - j);
        for (int k = 0; k < vectors; k++) sum.at[k] = vf_log(sum.at[k]);
        for (int64_t i = 0; i < n; i++)
            for (int k = 0; k < vectors; k++) {
                const int64_t column = j + k * VF_WIDTH, at = i * stride + column;
                const vf x = softmax_load_or_zero(src + at, width - column);
                softmax_store(dst + at, vf_sub(vf_sub(x, max.at[k]), sum.at[k]), width - column);
            }
    }
}

/* total = the sums of a b, of a alone where b is NULL. */
static inline void softmax_band_dot(int64_t n, int64_t stride, const float *a, const float *b, int64_t left,
                                    softmax_band *total)
{
    const int vectors = softmax_vectors(left);
    for (int k = 0; k < vectors; k++) total->at[k] = vf_zero();
    for (int64_t begin = 0; begin < n; begin += SOFTMAX_SUM) {
        softmax_band sum;
        for (int k = 0; k < vectors; k++) sum.at[k] = vf_zero();
        for (int64_t i = begin; i < n && i < begin + SOFTMAX_SUM; i++)
            for (int k = 0; k < vectors; k++) {
                const int64_t at = i * stride + k * VF_WIDTH, lanes = left - k * VF_WIDTH;
                const vf x = softmax_load_or_zero(a + at, lanes);
                sum.at[k] = b == NULL ? vf_add(sum.at[k], x)
                                      : vf_fmadd(x, softmax_load_or_zero(b + at, lanes), sum.at[k]);
            }
        for (int k = 0; k < vectors; k++) total->at[k] = vf_add(total->at[k], sum.at[k]);
    }
}

static void softmax_columns_backward(int64_t width, int64_t n, int64_t stride, const float *dst, const float *diff_dst,
                                     float *diff_src)
{
    for (int64_t j = 0; j < width; j += SOFTMAX_BAND * VF_WIDTH) {
        softmax_band dot;
        softmax_band_dot(n, stride, diff_dst + j, dst + j, width - j, &dot);
        const int vectors = softmax_vectors(width - j);
        for (int64_t i = 0; i < n; i++)
            for (int k = 0; k < vectors; k++) {
                const int64_t column = j + k * VF_WIDTH, at = i * stride + column, left = width - column;
                const vf g = vf_sub(softmax_load_or_zero(diff_dst + at, left), dot.at[k]);
                softmax_store(diff_src + at, vf_mul(softmax_load_or_zero(dst + at, left), g), left);
            }
    }
}

static void softmax_log_columns_backward(int64_t width, int64_t n, int64_t stride, const float *dst,
                                         const float *diff_dst, float *diff_src)
{
    for (int64_t j = 0; j < width; j += SOFTMAX_BAND * VF_WIDTH) {
        softmax_band sum;
        softmax_band_dot(n, stride, diff_dst + j, NULL, width - j, &sum);
        const int vectors = softmax_vectors(width - j);
        for (int64_t i = 0; i < n; i++)
            for (int k = 0; k < vectors; k++) {
                const int64_t column = j + k * VF_WIDTH, at = i * stride + column, left = width - column;
                const vf y = vf_exp(softmax_load_or_zero(dst + at, left));
                softmax_store(diff_src + at, vf_fnmadd(y, sum.at[k], softmax_load_or_zero(diff_dst + at, left)), left);
            }
    }
}

#define CNN_KERNELS_SOFTMAX                                           \
    {                                                                 \
        .softmax_rows = softmax_rows,                                 \
        .softmax_columns = softmax_columns,                           \
        .softmax_rows_backward = softmax_rows_backward,               \
        .softmax_columns_backward = softmax_columns_backward,         \
        .log_softmax_rows = softmax_log_rows,                         \
        .log_softmax_columns = softmax_log_columns,                   \
        .log_softmax_rows_backward = softmax_log_rows_backward,       \
        .log_softmax_columns_backward = softmax_log_columns_backward, \
    }
