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

/* A result's way to memory. Whole vectors may go past the caches. */
VF_INLINE void norm_put(float *p, vf a, int lanes, bool stream)
{
    if (stream && lanes == VF_WIDTH)
        vf_stream(p, a);
    else
        norm_store(p, a, lanes);
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

VF_INLINE float norm_total(const vf s[NORM_SUMS])
{
    return vf_sum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

VF_INLINE void norm_clear_sums(vf s[NORM_SUMS])
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

VF_INLINE float norm_row_mean(int64_t n, const float *x)
{
    vf s[NORM_SUMS];
    norm_clear_sums(s);
#define STEP(k, j, lanes) s[k] = vf_add(s[k], norm_load(x + (j), lanes))
    NORM_FOR_SUMS(n, STEP);
#undef STEP
    return norm_total(s) / (float)n;
}

VF_INLINE void norm_row_moments_step(const float *x, vf pivot, vf *first, vf *second, int lanes)
{
    const vf d = vf_sub(lanes == VF_WIDTH ? vf_load(x) : vf_load_tail_or(x, lanes, pivot), pivot);
    *first = vf_add(*first, d);
    *second = vf_fmadd(d, d, *second);
}

static void norm_row_moments(int64_t rows, int64_t n, const float *x, float *pivot, float *first, float *second)
{
    for (int64_t i = 0; i < rows; i++, x += n) {
        pivot[i] = norm_row_mean(n, x);
        const vf center = vf_set1(pivot[i]);
        vf s1[NORM_SUMS], s2[NORM_SUMS];
        norm_clear_sums(s1);
        norm_clear_sums(s2);
#define STEP(k, j, lanes) norm_row_moments_step(x + (j), center, &s1[k], &s2[k], lanes)
        NORM_FOR_SUMS(n, STEP);
#undef STEP
        first[i] = norm_total(s1);
        second[i] = norm_total(s2);
    }
}

static void norm_row_forward(const struct cnn_norm_row_forward *arguments)
{
    const struct cnn_norm_row_forward f = *arguments;
    const int64_t ahead = f.rows * f.n;
    for (int64_t i = 0; i < f.rows; i++) {
        const float *src = f.src + i * f.n;
        float *dst = f.dst + i * f.n;
        const vf mean = vf_set1(f.mean[i]), scale = vf_set1(f.scale[i]), shift = vf_set1(f.shift[i]);
#define STEP(j, lanes)                                                                               \
    do {                                                                                             \
        const vf xhat = vf_fmadd(vf_sub(norm_load(src + (j), lanes), mean), scale, shift);           \
        const vf y = vf_fmadd(xhat, norm_load(f.weights + (j), lanes), norm_load(f.bias + (j), lanes)); \
        norm_put(dst + (j), y, lanes, f.stream);                                                     \
        if (f.fetch) VF_FETCH_SOON(src + ahead + (j));                                                    \
    } while (0)
        NORM_FOR_VECTORS(f.n, STEP);
#undef STEP
    }
    if (f.stream) vf_stream_end();
}

/* Lanes past the end have dy = 0 and add nothing. */
VF_INLINE void norm_row_dots_step(const float *x, const float *dy, const float *weights, vf mean, vf *sum, vf *dot,
                                  int lanes)
{
    const vf g = vf_mul(norm_load(dy, lanes), norm_load(weights, lanes));
    *sum = vf_add(*sum, g);
    *dot = vf_fmadd(g, vf_sub(norm_load(x, lanes), mean), *dot);
}

static void norm_row_dots(int64_t rows, int64_t n, const float *x, const float *dy, const float *weights,
                          const float *mean, float *sum, float *dot)
{
    for (int64_t i = 0; i < rows; i++, x += n, dy += n) {
        const vf center = vf_set1(mean[i]);
        vf s[NORM_SUMS], d[NORM_SUMS];
        norm_clear_sums(s);
        norm_clear_sums(d);
#define STEP(k, j, lanes) norm_row_dots_step(x + (j), dy + (j), weights + (j), center, &s[k], &d[k], lanes)
        NORM_FOR_SUMS(n, STEP);
#undef STEP
        sum[i] = norm_total(s);
        dot[i] = norm_total(d);
    }
}

#define NORM_PAIR 2 /* rows side by side: the gradients of weights and bias are read and written half as often */

/* The numbers of a row, in all lanes. */
typedef struct norm_row_numbers {
    vf mean, scale, shift, b, c;
} norm_row_numbers;

/* `rows` rows, from row i on, at a vector of columns; `rows` is a constant where this is inlined. */
VF_INLINE void norm_row_backward_step(struct cnn_norm_row_backward f, const norm_row_numbers *numbers, bool data,
                                      bool parameters, int rows, int64_t i, int64_t j, int lanes)
{
    const vf w = norm_load(f.weights + j, lanes);
    vf dw = parameters ? norm_load(f.diff_weights + j, lanes) : vf_zero();
    vf db = parameters ? norm_load(f.diff_bias + j, lanes) : vf_zero();
    for (int k = 0; k < rows; k++) {
        const int64_t at = (i + k) * f.n + j;
        const norm_row_numbers row = numbers[k];
        const vf dy = norm_load(f.diff_dst + at, lanes);
        if (f.fetch) {
            VF_FETCH_SOON(f.src + f.rows * f.n + at);
            VF_FETCH_SOON(f.diff_dst + f.rows * f.n + at);
        }
        const vf xhat = vf_fmadd(vf_sub(norm_load(f.src + at, lanes), row.mean), row.scale, row.shift);
        if (parameters) {
            dw = vf_fmadd(dy, xhat, dw);
            db = vf_add(db, dy);
        }
        if (data) {
            const vf dx = vf_fmadd(vf_mul(dy, w), row.scale, vf_fmadd(xhat, row.b, row.c));
            norm_put(f.diff_src + at, dx, lanes, f.stream);
        }
    }
    if (!parameters) return;
    norm_store(f.diff_weights + j, dw, lanes);
    norm_store(f.diff_bias + j, db, lanes);
}

VF_INLINE void norm_row_backward_rows(struct cnn_norm_row_backward f, bool data, bool parameters, int rows, int64_t i)
{
    norm_row_numbers numbers[NORM_PAIR];
    for (int k = 0; k < rows; k++)
        numbers[k] = (norm_row_numbers){vf_set1(f.mean[i + k]), vf_set1(f.scale[i + k]), vf_set1(f.shift[i + k]),
                                        data ? vf_set1(f.b[i + k]) : vf_zero(), data ? vf_set1(f.c[i + k]) : vf_zero()};
#define STEP(j, lanes) norm_row_backward_step(f, numbers, data, parameters, rows, i, j, lanes)
    NORM_FOR_VECTORS(f.n, STEP);
#undef STEP
}

VF_INLINE void norm_row_backward_as(struct cnn_norm_row_backward f, bool data, bool parameters)
{
    int64_t i = 0;
    for (; i + NORM_PAIR <= f.rows; i += NORM_PAIR) norm_row_backward_rows(f, data, parameters, NORM_PAIR, i);
    for (; i < f.rows; i++) norm_row_backward_rows(f, data, parameters, 1, i);
}

static void norm_row_backward(const struct cnn_norm_row_backward *f)
{
    if (f->diff_src != NULL && f->diff_weights != NULL)
        norm_row_backward_as(*f, true, true);
    else if (f->diff_src != NULL)
        norm_row_backward_as(*f, true, false);
    else
        norm_row_backward_as(*f, false, true);
    if (f->stream) vf_stream_end();
}

#define CNN_KERNELS_NORM                                 \
    {                                                    \
        .column_sums = norm_column_sums,                 \
        .column_moments = norm_column_moments,           \
        .column_moments_far = norm_column_moments_far,   \
        .column_moments_near = norm_column_moments_near, \
        .column_merge = norm_column_merge,               \
        .column_forward = norm_column_forward,           \
        .column_dots = norm_column_dots,                 \
        .column_gradient = norm_column_gradient,         \
        .row_moments = norm_row_moments,                 \
        .row_forward = norm_row_forward,                 \
        .row_dots = norm_row_dots,                       \
        .row_backward = norm_row_backward,               \
    }
