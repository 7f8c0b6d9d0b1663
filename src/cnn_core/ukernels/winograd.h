/* The transforms of Winograd convolution F(4x4, 3x3): a tile of 4x4 results from 6x6 sources by 36 products in place of
 * 144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, arXiv:1509.09308).
 *
 * Along one axis, with d six sources, g three weights and y four results,
 *
 *     y = A^T ((G g) * (B^T d))
 *
 * and in two dimensions each matrix is applied to columns and rows. The matrices interpolate at the points 0, +-3/4,
 * +-3/2 and infinity: exact in binary as 0, +-1, +-2 are, with half their rounding error, because powers stay near 1.
 *
 * A plane is one of the 36 elements of a transformed tile; planes lie `plane` floats apart. All functions write `=`. */
#ifndef CNN_UKERNELS_WINOGRAD_H
#define CNN_UKERNELS_WINOGRAD_H

#include <stdint.h>

#define CNN_WINOGRAD_PLANES 36

/* What becomes of a tile's results: to = activation(results + bias + addend), where the activation is a clamp to
 * [low, high] that keeps NaN; the infinities where there is none. */
typedef struct cnn_winograd_store {
    int rows, columns;                 /* how many of them are wanted */
    int64_t row_stride, column_stride; /* of `to` and `addend` */
    float *to;
    const float *addend, *bias; /* NULL where there is none */
    float low, high;
} cnn_winograd_store;

struct cnn_winograd_kernels {
    /* B^T d B: to[i * plane + c] from pixel[6 * row + column][c], c < channels. */
    void (*src)(const float *const pixel[36], int64_t channels, float *to, int64_t plane);

    /* A dy A^T: from pixel[4 * row + column][c], for the gradient of the weights. Channels are written in panels of two
     * vectors, `panel` floats apart, zero beyond the channels up to the end of a vector. */
    void (*diff_dst)(const float *const pixel[16], int64_t channels, float *to, int64_t plane, int64_t panel);

    /* A^T m A: from[i * plane + c], c < channels, to store->to[row * row_stride + column * column_stride + c]. */
    void (*dst)(const float *from, int64_t plane, int channels, const cnn_winograd_store *store);

    /* G g G^T for `channels` filters side by side: g[9][channels] dense, to[i * plane + c]. */
    void (*weights)(const float *g, int64_t channels, float *to, int64_t plane);

    /* G^T s G: g[9][channels] dense from from[i * plane + c]: the gradient of the weights from the sums of products. */
    void (*diff_weights)(const float *from, int64_t plane, int64_t channels, float *g);
};

#endif
