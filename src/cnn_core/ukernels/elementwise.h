/* Sums, products and their reductions over rows of floats. */
#ifndef CNN_UKERNELS_ELEMENTWISE_H
#define CNN_UKERNELS_ELEMENTWISE_H

#include <stdint.h>

/* Rows that lie `pitch` floats apart (0: one row that counts for all). step 1: a row's elements follow one another; step 0:
 * a row is one element that counts for all. */
typedef struct cnn_rows {
    const float *data;
    int64_t pitch, step;
} cnn_rows;

/* dst = a + alpha b, rows x n, dense. Not both steps are 0. */
typedef void cnn_add_rows_fn(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, float alpha, float *dst);

/* dst = a b, rows x n, dense. Not both steps are 0. */
typedef void cnn_multiply_rows_fn(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, float *dst);

/* dst = alpha src + beta. */
typedef void cnn_affine_fn(int64_t n, const float *src, float alpha, float beta, float *dst);

/* dst[i] = the sum over the rows of a b; of a alone where b.data is NULL. a's step is 1. */
typedef void cnn_sum_over_rows_fn(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, float *dst);

/* dst[row] = the sum over each row of a b; of a alone where b.data is NULL. a's step is 1. */
typedef void cnn_sum_each_row_fn(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, float *dst);

struct cnn_elementwise_kernels {
    cnn_add_rows_fn *add;
    cnn_multiply_rows_fn *multiply;
    cnn_affine_fn *affine;
    cnn_sum_over_rows_fn *sum_over_rows;
    cnn_sum_each_row_fn *sum_each_row;
};

#endif
