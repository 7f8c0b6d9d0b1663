/* The tiles of Winograd convolution, F(4x4, 3x3), as its files share them. */
#ifndef CNN_OPS_CONV_WINOGRAD_H
#define CNN_OPS_CONV_WINOGRAD_H

#include "ops/conv.h"

#define CNN_WINOGRAD_TILE 4   /* results along an axis */
#define CNN_WINOGRAD_WINDOW 6 /* sources of a tile along an axis */

/* The tiles of a pass: a dst image in steps of CNN_WINOGRAD_TILE, and the src pixels that each sees. */
typedef struct cnn_winograd_tiles {
    int64_t rows, cols, count; /* of one image, one row of tiles; of all images */
    int64_t src_h, src_w, dst_h, dst_w;
    int64_t top, left;         /* a tile's window begins so much before its results */
    int64_t ic, oc;            /* of src, of dst */
} cnn_winograd_tiles;

static inline cnn_winograd_tiles cnn_winograd_tiles_of(const cnn_conv *conv, cnn_conv_pass pass)
{
    cnn_winograd_tiles t = {0, 0, 0, conv->ih, conv->iw, conv->oh, conv->ow, conv->padding[0], conv->padding[1],
                            conv->ic, conv->oc};
    if (pass == CNN_CONV_BACKWARD_DATA)
        t = (cnn_winograd_tiles){0, 0, 0, conv->oh, conv->ow, conv->ih, conv->iw, 2 - conv->padding[0],
                                 2 - conv->padding[1], conv->oc, conv->ic};
    t.rows = cnn_ceil_div(t.dst_h, CNN_WINOGRAD_TILE);
    t.cols = cnn_ceil_div(t.dst_w, CNN_WINOGRAD_TILE);
    t.count = conv->n * t.rows * t.cols;
    return t;
}

/* The pixels that a tile's window sees; `zero` outside the image. */
static inline void cnn_winograd_window(const cnn_winograd_tiles *t, const float *src, int64_t channels,
                                       const float *zero, int64_t tile,
                                       const float *pixel[CNN_WINOGRAD_WINDOW * CNN_WINOGRAD_WINDOW])
{
    const int64_t image = tile / (t->rows * t->cols), row = tile / t->cols % t->rows, col = tile % t->cols;
    for (int64_t r = 0; r < CNN_WINOGRAD_WINDOW; r++) {
        const int64_t y = row * CNN_WINOGRAD_TILE + r - t->top;
        for (int64_t s = 0; s < CNN_WINOGRAD_WINDOW; s++) {
            const int64_t x = col * CNN_WINOGRAD_TILE + s - t->left;
            const bool inside = y >= 0 && y < t->src_h && x >= 0 && x < t->src_w;
            pixel[CNN_WINOGRAD_WINDOW * r + s] = inside ? src + ((image * t->src_h + y) * t->src_w + x) * channels : zero;
        }
    }
}

/* Where a tile's results lie. */
typedef struct cnn_winograd_results {
    int64_t first;  /* its first pixel */
    int rows, cols; /* how many of them lie inside the image */
} cnn_winograd_results;

static inline cnn_winograd_results cnn_winograd_results_at(const cnn_winograd_tiles *t, int64_t tile)
{
    const int64_t image = tile / (t->rows * t->cols), row = tile / t->cols % t->rows, col = tile % t->cols;
    return (cnn_winograd_results){
        .first = (image * t->dst_h + row * CNN_WINOGRAD_TILE) * t->dst_w + col * CNN_WINOGRAD_TILE,
        .rows = (int)cnn_min_i64(CNN_WINOGRAD_TILE, t->dst_h - row * CNN_WINOGRAD_TILE),
        .cols = (int)cnn_min_i64(CNN_WINOGRAD_TILE, t->dst_w - col * CNN_WINOGRAD_TILE),
    };
}

/* The pixels of y that are a tile's results; `zero` outside the image. */
static inline void cnn_winograd_result_pixels(const cnn_winograd_tiles *t, const float *y, const float *zero, int64_t tile,
                                              const float *pixel[CNN_WINOGRAD_TILE * CNN_WINOGRAD_TILE])
{
    const cnn_winograd_results results = cnn_winograd_results_at(t, tile);
    for (int r = 0; r < CNN_WINOGRAD_TILE; r++)
        for (int s = 0; s < CNN_WINOGRAD_TILE; s++)
            pixel[CNN_WINOGRAD_TILE * r + s] =
                r < results.rows && s < results.cols ? y + (results.first + r * t->dst_w + s) * t->oc : zero;
}

#endif
