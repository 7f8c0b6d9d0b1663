/* Which source pixels each destination pixel of a convolution reads.
 *
 * Forward and backward data are one loop, "dst pixel = sum over taps of src pixel times weights", over a grid of dst
 * pixels. Forward has one grid, all of y. Backward data with stride s has s grids along an axis, its phases: every s-th
 * pixel of x sees the same taps of the kernel, and neighbours in the grid see neighbours in y. So nothing is ever
 * scattered or added up in memory. Rows and columns are independent: an axis describes either. */
#ifndef CNN_OPS_CONV_GEOMETRY_H
#define CNN_OPS_CONV_GEOMETRY_H

#include "ops/conv.h"

/* A tap of the kernel in its phase: grid position i reads source position i * src_step + offset, which lies inside the
 * image for begin <= i < end. Taps that never do are not listed. */
typedef struct cnn_conv_tap {
    int64_t k; /* index in the kernel */
    int64_t offset, begin, end;
} cnn_conv_tap;

static inline bool cnn_conv_inside(const cnn_conv_tap *tap, int64_t i) { return tap->begin <= i && i < tap->end; }

/* A grid along one axis: position i is destination position phase + i * dst_step. */
typedef struct cnn_conv_phase {
    int64_t count;
    int64_t first_tap, taps; /* in the axis's list, by rising offset */
} cnn_conv_phase;

typedef struct cnn_conv_axis {
    int64_t phases, dst_step, src_step;
    int64_t taps; /* of all phases */
    cnn_conv_phase *phase;
    cnn_conv_tap *tap;
} cnn_conv_axis;

typedef struct cnn_conv_axes {
    cnn_conv_axis rows, cols;
} cnn_conv_axes;

/* Phases of a pass, and the bytes that its axes take. */
int64_t cnn_conv_phases(const cnn_conv *conv, cnn_conv_pass pass);
size_t cnn_conv_axes_bytes(const cnn_conv *conv, cnn_conv_pass pass);
/* The axes of forward and of backward data; those of backward weights are forward's. */
void cnn_conv_axes_make(const cnn_conv *conv, cnn_conv_pass pass, char **cursor, cnn_conv_axes *axes);

/* True where no tap of the kernel lies outside the image at every position. */
bool cnn_conv_reads_all_taps(const cnn_conv *conv, cnn_conv_pass pass);

/* One phase of both axes; its pixels are numbered over all images, rows and columns of its grid. */
typedef struct cnn_conv_grid {
    int64_t h, w, row_origin, col_origin;
    int64_t row_step, col_step; /* in dst */
    int64_t src_row_step, src_col_step;
    int64_t row_taps, col_taps;
    const cnn_conv_tap *row_tap, *col_tap;
    int64_t first_tap; /* of the grid's taps, where taps are counted over the grids in order */
} cnn_conv_grid;

cnn_conv_grid cnn_conv_grid_at(const cnn_conv_axes *axes, int64_t phase);

/* A row of zeros, as wide as a pixel: what a tap outside the image reads. Takes cnn_float_bytes(channels). */
const float *cnn_conv_zeros(char **cursor, int64_t channels);

/* An image batch, channels-last, seen from some channel on. */
typedef struct cnn_conv_image {
    const float *data;
    int64_t h, w, c; /* c: all channels, the distance of pixels */
} cnn_conv_image;

/* pointers[tap * pixels + p] = the src pixel that tap of pixel first + p reads, or `zero` outside the image. */
void cnn_conv_locate_src(const cnn_conv_grid *grid, const cnn_conv_image *src, const float *zero, int64_t first,
                         int64_t pixels, const float **pointers);
/* pointers[p] = where in dst pixel first + p lies; dst_c is the distance of pixels. */
void cnn_conv_locate_dst(const cnn_conv_grid *grid, int64_t dst_h, int64_t dst_w, float *dst, int64_t dst_c,
                         int64_t first, int64_t pixels, float **pointers);

#endif
