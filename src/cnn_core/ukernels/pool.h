/* Kernels over windows of one NHWC image: each makes one pixel of c channels. */
#ifndef CNN_UKERNELS_POOL_H
#define CNN_UKERNELS_POOL_H

#include <stdint.h>

/* A regular grid of rows x cols pixels. A pixel's number is y w + x; `first` is that of the upper left one. */
typedef struct cnn_window {
    int64_t first, rows, cols;
    int64_t row_pitch, col_pitch; /* between neighbours, in pixels */
} cnn_window;

/* dst[c] = the largest value of the window: NaN if it holds one, -infinity if it is empty. index[c], unless index is NULL,
 * = the number of the pixel that it came from, the first such in row order; -1 if the window is empty. */
typedef void cnn_max_window_fn(int64_t c, const cnn_window *window, const float *image, float *dst, int32_t *index);

/* dst[c] = the sum of diff_dst over those pixels of the window whose index is `pixel`. */
typedef void cnn_max_window_backward_fn(int64_t c, const cnn_window *window, const float *diff_dst,
                                        const int32_t *index, int32_t pixel, float *dst);

/* dst[c] = the sum over the window, divided by `divisor`. */
typedef void cnn_mean_window_fn(int64_t c, const cnn_window *window, const float *image, float divisor, float *dst);

/* dst[c] = the sum over the window, pixel (row, col) weighted by row_weights[row] col_weights[col]. */
typedef void cnn_weighted_window_fn(int64_t c, const cnn_window *window, const float *row_weights,
                                    const float *col_weights, const float *image, float *dst);

struct cnn_pool_kernels {
    cnn_max_window_fn *max;
    cnn_max_window_backward_fn *max_backward;
    cnn_mean_window_fn *mean;
    cnn_weighted_window_fn *weighted;
};

#endif
