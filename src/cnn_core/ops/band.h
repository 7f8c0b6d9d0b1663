/* Maps that work on rows and columns apart: average pooling, adaptive pooling, interpolation.
 *
 * Each is dst = A src B^T, for every channel of every image, with a matrix A (oh, ih) for rows and B (ow, iw) for columns
 * whose rows are zero outside one short band, and whose bands never step back from one row to the next. So the transpose
 * has bands too, and the gradient A^T diff_dst B is the same gather as the map itself. */
#ifndef CNN_OPS_BAND_H
#define CNN_OPS_BAND_H

#include "ops/op.h"

/* One row of the matrix: input positions first .. first + count - 1 and their weights. */
typedef struct cnn_band {
    int64_t first, count;
    const float *weights;
} cnn_band;

/* The band of each input position in the transpose, begin and count only. `bands` has `out` bands. */
void cnn_band_transpose(int64_t out, const cnn_band *bands, int64_t in, cnn_band *transposed);

/* dst = A src B^T over n images of c channels: rows[] holds the dst.h bands of A, cols[] the dst.w bands of B. */
void cnn_band_apply(const cnn_kernels *kernels, int32_t threads, cnn_image src, cnn_image dst, const cnn_band *rows,
                    const cnn_band *cols, const float *x, float *y);

/* ---- averages: each band is a window whose elements weigh the same ------------------------------------------------ */

/* One axis of an average: band[i] of out windows, each element of window i weighing 1 / divisor[i]. */
typedef struct cnn_average_axis {
    int64_t in, out;
    cnn_band *band;
    float *divisor;
} cnn_average_axis;

/* Bytes of an axis, and of it with its transpose. */
size_t cnn_average_axis_bytes(int64_t in, int64_t out);
/* Takes the axis's memory from *cursor; the caller fills in band[].first, band[].count and divisor[]. */
cnn_average_axis cnn_average_axis_take(int64_t in, int64_t out, char **cursor);

void cnn_average_forward(const cnn_call *call, const cnn_average_axis axis[2]);
/* Overwrites the divisors. */
void cnn_average_backward(const cnn_call *call, const cnn_average_axis axis[2], char **cursor);

#endif
