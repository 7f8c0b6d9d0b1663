/* Kernels of the normalizations. Two shapes of work:
 *   columns: a dense matrix of rows x width whose columns each have numbers of their own (batch, instance, group);
 *   row:     n contiguous numbers that share theirs, with weights and bias that differ from element to element (layer).
 * Everything is taken about a mean before it is multiplied: src may lie far from zero.
 * Sums are float: callers pass at most a few hundred rows, or a few thousand elements, and add the results in double.
 * Outputs get `=` unless the text says `+=`; elementwise kernels may work in place. */
#ifndef CNN_UKERNELS_NORM_H
#define CNN_UKERNELS_NORM_H

#include <stdint.h>

struct cnn_norm_kernels {
    /* sum[j] = sum over i of x[i][j] */
    void (*column_sums)(int64_t rows, int64_t width, const float *x, float *sum);
    /* first[j] = sum over i of x[i][j] - pivot[j], second[j] = sum over i of its square */
    void (*column_moments)(int64_t rows, int64_t width, const float *x, const float *pivot, float *first,
                           float *second);
    /* dst[i][j] = scale[j] (src[i][j] - mean[j]) + shift[j] */
    void (*column_affine)(int64_t rows, int64_t width, const float *src, const float *mean, const float *scale,
                          const float *shift, float *dst);
    /* sum[j] = sum over i of dy[i][j], dot[j] = sum over i of dy[i][j] (x[i][j] - mean[j]) */
    void (*column_dots)(int64_t rows, int64_t width, const float *x, const float *dy, const float *mean, float *sum,
                        float *dot);
    /* dx[i][j] = a[j] dy[i][j] + b[j] (x[i][j] - mean[j]) + c[j] */
    void (*column_gradient)(int64_t rows, int64_t width, const float *x, const float *dy, const float *mean,
                            const float *a, const float *b, const float *c, float *dx);

    float (*row_sum)(int64_t n, const float *x);
    /* out[0] = sum of x - pivot, out[1] = sum of its square */
    void (*row_moments)(int64_t n, const float *x, float pivot, float out[2]);
    /* dst = (scale (src - mean) + shift) weights + bias */
    void (*row_affine)(int64_t n, const float *src, float mean, float scale, float shift, const float *weights,
                       const float *bias, float *dst);
    /* out[0] = sum of w dy, out[1] = sum of w dy (x - mean) */
    void (*row_dots)(int64_t n, const float *x, const float *dy, const float *weights, float mean, float out[2]);
    /* dx = a w dy + b (x - mean) + c */
    void (*row_gradient)(int64_t n, const float *x, const float *dy, const float *weights, float mean, float a, float b,
                         float c, float *dx);
    /* dw[j] += dy[j] (scale (x[j] - mean) + shift), db[j] += dy[j] */
    void (*row_accumulate)(int64_t n, const float *x, const float *dy, float mean, float scale, float shift, float *dw,
                           float *db);
};

#endif
