/* Kernels of softmax and log-softmax. `rows` kernels: each of `rows` contiguous rows of n numbers is a distribution.
 * `columns` kernels: each of `width` columns is one, whose n numbers lie `stride` apart. All write `=`; diff_src may be
 * diff_dst. A NaN or an infinity that is the largest gives NaN. */
#ifndef CNN_UKERNELS_SOFTMAX_H
#define CNN_UKERNELS_SOFTMAX_H

#include <stdint.h>

typedef void cnn_softmax_rows_fn(int64_t rows, int64_t n, const float *src, float *dst);
typedef void cnn_softmax_columns_fn(int64_t width, int64_t n, int64_t stride, const float *src, float *dst);
typedef void cnn_softmax_rows_backward_fn(int64_t rows, int64_t n, const float *dst, const float *diff_dst,
                                          float *diff_src);
typedef void cnn_softmax_columns_backward_fn(int64_t width, int64_t n, int64_t stride, const float *dst,
                                             const float *diff_dst, float *diff_src);

struct cnn_softmax_kernels {
    /* dst = exp(src - max) / sum exp(src - max) */
    cnn_softmax_rows_fn *softmax_rows;
    cnn_softmax_columns_fn *softmax_columns;
    /* diff_src = dst (diff_dst - sum dst diff_dst) */
    cnn_softmax_rows_backward_fn *softmax_rows_backward;
    cnn_softmax_columns_backward_fn *softmax_columns_backward;
    /* dst = src - max - log sum exp(src - max) */
    cnn_softmax_rows_fn *log_softmax_rows;
    cnn_softmax_columns_fn *log_softmax_columns;
    /* diff_src = diff_dst - exp(dst) sum diff_dst */
    cnn_softmax_rows_backward_fn *log_softmax_rows_backward;
    cnn_softmax_columns_backward_fn *log_softmax_columns_backward;
};

#endif
