/* Kernels of the normalizations. Two shapes of work:
 *   columns: a dense matrix of rows x width whose columns each have numbers of their own (batch, instance, group);
 *   rows:    n contiguous numbers share theirs, while weights and bias differ from element to element (layer).
 * Everything is taken about a mean before it is multiplied: src may lie far from zero.
 * Sums are float: callers pass at most a few hundred rows, or a few thousand elements, and add the results in double.
 * Outputs get `=` unless the text says `+=`; elementwise kernels may work in place. */
#ifndef CNN_UKERNELS_NORM_H
#define CNN_UKERNELS_NORM_H

#include <stdbool.h>
#include <stdint.h>

/* What may follow a normalization by columns. */
typedef enum cnn_norm_activation {
    CNN_NORM_LINEAR = 0,
    CNN_NORM_RELU,
    CNN_NORM_RELU6,
    CNN_NORM_LEAKY_RELU
} cnn_norm_activation;

/* dst[i][j] = activation(y[i][j] + addend[i][j]), y[i][j] = scale[j] (src[i][j] - mean[j]) + shift[j] */
struct cnn_norm_forward {
    int64_t rows, width;
    const float *src, *addend; /* addend: NULL: none */
    const float *mean, *scale, *shift;
    cnn_norm_activation activation;
    float slope; /* of CNN_NORM_LEAKY_RELU, not negative */
    bool stream; /* past the caches: dst lies aligned to a vector, and rows are whole vectors or there is but one */
    float *dst;
};

/* The way back starts with g[i][j] = activation'(dst[i][j]) diff_dst[i][j]. Where the activation is constant g is 0,
 * and NaN in dst leaves diff_dst. */
struct cnn_norm_backward {
    int64_t rows, width;
    int64_t stride; /* column_dots: between rows; elsewhere they follow each other */
    bool far;       /* column_dots: sources come from memory, and are fetched ahead where dst is not read */
    const float *src, *diff_dst;
    const float *dst; /* NULL: y is computed again: there was no addend */
    const float *mean, *scale, *shift;
    cnn_norm_activation activation;
    float slope;
    float *sum, *dot, *gated;  /* column_dots; gated: NULL, or where g is written */
    const float *b, *c;        /* column_gradient; both NULL: zeros, and src does not matter */
    bool stream;               /* as above, of diff_src */
    float *diff_src;
};

/* xhat = scale[i] (src[i][j] - mean[i]) + shift[i], dst[i][j] = xhat weights[j] + bias[j] */
struct cnn_norm_row_forward {
    int64_t rows, n;
    const float *src, *mean, *scale, *shift, *weights, *bias;
    bool stream; /* past the caches: dst lies aligned to a vector, and so does each row */
    bool fetch;  /* into a near cache what follows src, as much: it is read next */
    float *dst;
};

/* diff_src[i][j] = scale[i] weights[j] diff_dst[i][j] + b[i] xhat + c[i]
 * diff_weights[j] += sum over i of diff_dst[i][j] xhat, diff_bias[j] += sum over i of diff_dst[i][j] */
struct cnn_norm_row_backward {
    int64_t rows, n;
    const float *src, *diff_dst, *mean, *scale, *shift, *b, *c, *weights;
    bool stream;                     /* as above, of diff_src */
    bool fetch;                      /* as above, what follows src and diff_dst */
    float *diff_src;                 /* NULL: not wanted */
    float *diff_weights, *diff_bias; /* both NULL: not wanted */
};

struct cnn_norm_kernels {
    /* sum[j] = sum over i of x[i][j]; rows are `stride` apart */
    void (*column_sums)(int64_t rows, int64_t width, int64_t stride, const float *x, float *sum);
    /* first[j] = sum over i of x[i][j] - pivot[j], second[j] = sum over i of its square; rows are `stride` apart */
    void (*column_moments)(int64_t rows, int64_t width, int64_t stride, const float *x, const float *pivot,
                           float *first, float *second);
    /* The same to the bit, faster where x comes from memory: it is fetched ahead. */
    void (*column_moments_far)(int64_t rows, int64_t width, int64_t stride, const float *x, const float *pivot,
                               float *first, float *second);
    /* The same to the bit, faster where x lies in a near cache, slower where it comes from memory. */
    void (*column_moments_near)(int64_t rows, int64_t width, int64_t stride, const float *x, const float *pivot,
                                float *first, float *second);
    /* Chan's formula, in double: mean and m2, of `count` rows, take in what column_moments found of `rows` more. */
    void (*column_merge)(int64_t width, int64_t rows, const float *pivot, const float *first, const float *second,
                         int64_t count, double *mean, double *m2);
    void (*column_forward)(const struct cnn_norm_forward *f);
    /* sum[j] = sum over i of g[i][j], dot[j] = sum over i of g[i][j] (src[i][j] - mean[j]) */
    void (*column_dots)(const struct cnn_norm_backward *f);
    /* diff_src[i][j] = scale[j] g[i][j] + b[j] (src[i][j] - mean[j]) + c[j] */
    void (*column_gradient)(const struct cnn_norm_backward *f);

    /* first[i] = sum of x[i] - pivot[i], second[i] = sum of its square; pivot[i] is the mean of x[i], rounded */
    void (*row_moments)(int64_t rows, int64_t n, const float *x, float *pivot, float *first, float *second);
    /* dst = (scale (src - mean) + shift) weights + bias */
    void (*row_forward)(const struct cnn_norm_row_forward *f);
    /* sum[i] = sum of w dy, dot[i] = sum of w dy (x - mean) */
    void (*row_dots)(int64_t rows, int64_t n, const float *x, const float *dy, const float *weights, const float *mean,
                     float *sum, float *dot);
    void (*row_backward)(const struct cnn_norm_row_backward *f);
};

#endif
