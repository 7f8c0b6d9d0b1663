/* Convolution as the files ops/conv_*.c share it.
 *
 * A convolution maps an image x of (ih, iw) pixels and ic channels to an image y of (oh, ow) pixels and oc channels; both
 * lie channels-last. There are three passes:
 *
 *     forward            y  = bias + x * weights         reads the pixels i * stride + k * dilation - padding of x
 *     backward data      x  = bias + y * weights         the transpose of that map
 *     backward weights   weights += x * y
 *
 * A transposed convolution swaps the roles: its source is y, its destination x; its forward is the pass "backward data"
 * and the other way round. A linear layer is a convolution of 1x1 pixels. */
#ifndef CNN_OPS_CONV_H
#define CNN_OPS_CONV_H

#include "ops/op.h"

typedef struct cnn_conv {
    int64_t n, groups;
    int64_t ic, ih, iw; /* x; channels of all groups */
    int64_t oc, oh, ow; /* y */
    int64_t kh, kw;
    int64_t stride[2], dilation[2], padding[2]; /* rows, columns; top, left */
    int64_t weights_stride[4];                  /* in elements, of (oc, ic / groups, kh, kw) */
} cnn_conv;

typedef enum cnn_conv_pass { CNN_CONV_FORWARD, CNN_CONV_BACKWARD_DATA, CNN_CONV_BACKWARD_WEIGHTS } cnn_conv_pass;

/* One pass of a convolution. */
typedef struct cnn_conv_call {
    cnn_conv_pass pass;
    const cnn_conv *conv;
    const cnn_kernels *kernels;
    int32_t threads;
    char *workspace;
    const float *x, *y, *weights, *bias; /* those that the pass reads; bias may be NULL */
    float *out; /* y (`=`) of forward, x (`=`) of backward data, diff_weights (`+=`) of backward weights */
} cnn_conv_call;

/* One way to compute a pass, or several. */
typedef struct cnn_conv_algorithm {
    const char *name;
    bool (*suits)(const cnn_conv *conv, cnn_conv_pass pass);
    size_t (*workspace)(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads);
    void (*run)(const cnn_conv_call *call);
} cnn_conv_algorithm;

extern const cnn_conv_algorithm cnn_conv_depthwise; /* one filter a channel; all passes (conv_depthwise.c) */
extern const cnn_conv_algorithm cnn_conv_direct;    /* any forward or backward data (conv_direct.c) */
extern const cnn_conv_algorithm cnn_conv_outer;     /* any backward weights (conv_outer.c) */

/* A 1x1 convolution that moves no pixels, as one long row of them. */
void cnn_conv_flatten(cnn_conv *conv);

/* Runs the first algorithm of the list that suits; cnn_conv_workspace tells its bytes. (conv.c) */
size_t cnn_conv_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads);
void cnn_conv_run(const cnn_conv_call *call);

/* Roughly the nanoseconds that one core takes for a pass. */
static inline double cnn_conv_work(const cnn_conv *conv, const cnn_kernels *kernels)
{
    const double y = (double)conv->n * (double)conv->oh * (double)conv->ow * (double)conv->oc;
    return y * (double)(conv->ic / conv->groups) * (double)(conv->kh * conv->kw) / (3.0 * kernels->width);
}

/* `total` things in `parts` parts of nearly equal size: where part i begins. */
static inline int64_t cnn_split(int64_t total, int64_t parts, int64_t i)
{
    return total / parts * i + cnn_min_i64(i, total % parts);
}

static inline int64_t cnn_round_up(int64_t a, int64_t unit)
{
    return cnn_ceil_div(a, unit) * unit;
}

/* Output channels of a group, cut into the panels of ukernels/conv.h. Matrices are packed panel by panel, zero beyond the
 * channels; the last panel's rows are one vector long if that holds its channels. */
typedef struct cnn_conv_panels {
    int64_t oc, lanes, width, count;
    int64_t padded; /* floats in one row of all panels */
} cnn_conv_panels;

static inline cnn_conv_panels cnn_conv_panels_of(int64_t oc, const cnn_kernels *kernels)
{
    const int64_t lanes = kernels->width, width = 2 * lanes;
    return (cnn_conv_panels){oc, lanes, width, cnn_ceil_div(oc, width), cnn_round_up(oc, lanes)};
}

static inline int64_t cnn_conv_panel_channels(const cnn_conv_panels *panels, int64_t panel)
{
    return cnn_min_i64(panels->width, panels->oc - panel * panels->width);
}

static inline int64_t cnn_conv_panel_row(const cnn_conv_panels *panels, int64_t panel)
{
    return cnn_conv_panel_channels(panels, panel) > panels->lanes ? panels->width : panels->lanes;
}

/* Few source channels make short inner loops: then all taps of a pixel are gathered into one row first. */
static inline bool cnn_conv_gathers(int64_t taps, int64_t ic)
{
    return taps > 1 && ic < 16 && taps * ic <= 4096;
}

/* Pixels of a block whose sources, `floats` for each pixel, fill a quarter of a megabyte: a share of the second-level
 * cache. Many taps mean many pointers. */
static inline int64_t cnn_conv_block_pixels(int64_t floats, int64_t taps)
{
    const int64_t fitting = (256 << 10) / (int64_t)sizeof(float) / cnn_max_i64(floats, 1);
    const int64_t pixels = cnn_min_i64(cnn_max_i64(fitting, 48), 192);
    return cnn_min_i64(pixels, cnn_max_i64((64 << 10) / taps, CNN_CONV_ROWS));
}

#define CNN_CONV_TASKS 32 /* enough to keep some sixteen threads evenly busy */

/* diff_bias[c] += the sum of diff_dst over rows, (rows, channels) row-major. (conv_bias.c) */
size_t cnn_conv_bias_workspace(int64_t rows, int64_t channels);
void cnn_conv_bias_backward(const cnn_kernels *kernels, int32_t threads, int64_t rows, int64_t channels,
                            const float *diff_dst, void *workspace, float *diff_bias);

/* dst[i][c][r] = src[i][r][c] for n matrices: row-major images from channels-last ones and back. (conv_layout.c) */
void cnn_conv_transpose_images(int32_t threads, int64_t n, int64_t rows, int64_t cols, const float *src, float *dst);

/* ---- geometry: conv_geometry.c -------------------------------------------------------------------------------------
 *
 * Forward and backward data are one loop, "dst pixel = sum over taps of src pixel times weights", over a grid of dst
 * pixels. Forward has one grid, all of y. Backward data with stride s has s grids along an axis, its phases: every s-th
 * pixel of x sees the same taps of the kernel, and neighbours in the grid see neighbours in y. So nothing is ever
 * scattered or added up in memory. Rows and columns are independent: an axis describes either. */

/* A tap of the kernel in its phase: grid position i reads source position i * src_step + offset, which lies inside the
 * image for begin <= i < end. Taps that never do are not listed. */
typedef struct cnn_conv_tap {
    int64_t k; /* index in the kernel */
    int64_t offset, begin, end;
} cnn_conv_tap;

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

/* One phase of both axes; its pixels are numbered over all images, rows and columns of its grid. */
typedef struct cnn_conv_grid {
    int64_t h, w, row_origin, col_origin;
    int64_t row_step, col_step;         /* in dst */
    int64_t src_row_step, src_col_step;
    int64_t row_taps, col_taps;
    const cnn_conv_tap *row_tap, *col_tap;
    int64_t first_tap; /* of the grid's taps, where taps are counted over the grids in order */
    bool dense_cols;   /* neighbouring taps read neighbouring pixels */
} cnn_conv_grid;

cnn_conv_grid cnn_conv_grid_at(const cnn_conv_axes *axes, int64_t phase);

/* An image batch, channels-last, seen from some channel on. */
typedef struct cnn_conv_image {
    const float *data;
    int64_t h, w, c; /* c: all channels, the distance of pixels */
} cnn_conv_image;

/* pointers[tap * pixels + p] = the src pixel that tap of pixel first + p reads, or `zero` outside the image. */
void cnn_conv_locate_src(const cnn_conv_grid *grid, const cnn_conv_image *src, const float *zero, int64_t first,
                         int64_t pixels, const float **pointers);
/* patches[p][tap][c] = ic channels of the same, zero outside the image. */
void cnn_conv_gather_src(const cnn_conv_grid *grid, const cnn_conv_image *src, int64_t ic, int64_t first,
                         int64_t pixels, float *patches);
/* offsets[p] = where in dst pixel first + p lies, in pixels. */
void cnn_conv_locate_dst(const cnn_conv_grid *grid, int64_t dst_h, int64_t dst_w, float *dst, int64_t dst_c,
                         int64_t first, int64_t pixels, float **pointers);

#endif
