/* Kernels over windows of one NHWC image: each makes one pixel of c channels, or a row of pixels. */
#ifndef CNN_UKERNELS_POOL_H
#define CNN_UKERNELS_POOL_H

#include <stdbool.h>
#include <stdint.h>

/* A regular grid of rows x cols pixels. A pixel's number is y w + x; `first` is that of the upper left one. */
typedef struct cnn_window {
    int64_t first, rows, cols;
    int64_t row_pitch, col_pitch; /* between neighbours, in pixels */
} cnn_window;

/* Max pooling makes whole rows of `width` pixels: a call for each pixel would cost as much as its few channels. */
typedef struct cnn_max_row {
    int64_t c, width;
    int64_t first;           /* the pixel at column 0 of the first row that is read */
    int64_t rows, row_pitch; /* how many are, and how far apart they lie, in pixels */
    int64_t size;            /* the columns of the image that is read */
    int64_t kernel, stride, padding, dilation; /* of the windows, along the columns */
    int64_t ahead; /* forward: pixels by which rows are fetched ahead, or 0 */
    int64_t step; /* backward: how far apart the windows lie, along the columns, that cover one pixel */
} cnn_max_row;

/* For each pixel of dst and channel: the largest value of its window, NaN if it holds one, -infinity if it is empty. index,
 * unless NULL, = the number of the pixel that it came from, the first such in row order; -1 if the window is empty. `stream`, where
 * index is NULL: stores past the caches, where dst is aligned to CNN_ALIGNMENT and c is a multiple of the vector. */
typedef void cnn_max_row_fn(const cnn_max_row *row, const float *image, float *dst, int32_t *index, bool stream);

/* For each pixel of diff_src, the first of which has the number `pixel`: the sum of diff_dst over those windows that may
 * cover it whose index is its number. `stream`: as above, of diff_src. */
typedef void cnn_max_row_backward_fn(const cnn_max_row *row, const float *diff_dst, const int32_t *index, int32_t pixel,
                                     float *diff_src, bool stream);

/* dst[c] = the sum over the window, divided by `divisor`. */
typedef void cnn_mean_window_fn(int64_t c, const cnn_window *window, const float *image, float divisor, float *dst);

/* dst[c] = the sum over the window, pixel (row, col) weighted by row_weights[row] col_weights[col]. */
typedef void cnn_weighted_window_fn(int64_t c, const cnn_window *window, const float *row_weights,
                                    const float *col_weights, const float *image, float *dst);

struct cnn_pool_kernels {
    cnn_max_row_fn *max;
    cnn_max_row_backward_fn *max_backward;
    cnn_mean_window_fn *mean;
    cnn_weighted_window_fn *weighted;
};

#endif
