/* How the matrices of a convolution are cut into panels, blocks and tasks: by shape alone. */
#ifndef CNN_OPS_CONV_TILING_H
#define CNN_OPS_CONV_TILING_H

#include "ops/op.h"

static inline int64_t cnn_round_up(int64_t a, int64_t unit) { return cnn_ceil_div(a, unit) * unit; }

/* Output channels of a group, cut into the panels of ukernels/conv.h. Matrices are packed panel by panel, zero
 * beyond the channels; the last panel's rows are one vector long if that holds its channels. */
typedef struct cnn_conv_panels {
    int64_t oc, lanes, width, count;
    int64_t tile;   /* panels of a register tile, where there are so many */
    int64_t padded; /* floats in one row of all panels */
} cnn_conv_panels;

static inline cnn_conv_panels cnn_conv_panels_of(int64_t oc, const cnn_kernels *kernels)
{
    const int64_t lanes = kernels->width, width = 2 * lanes;
    return (cnn_conv_panels){oc, lanes, width, cnn_ceil_div(oc, width), kernels->panels, cnn_round_up(oc, lanes)};
}

static inline int64_t cnn_conv_panel_channels(const cnn_conv_panels *panels, int64_t panel)
{
    return cnn_min_i64(panels->width, panels->oc - panel * panels->width);
}

static inline int64_t cnn_conv_panel_row(const cnn_conv_panels *panels, int64_t panel)
{
    return cnn_conv_panel_channels(panels, panel) > panels->lanes ? panels->width : panels->lanes;
}

/* How many of the panels [panel, end) a register tile takes: full ones, or one. */
static inline int64_t cnn_conv_panels_of_tile(const cnn_conv_panels *panels, int64_t panel, int64_t end)
{
    const int64_t last = panel + panels->tile - 1;
    return last < end && cnn_conv_panel_row(panels, last) == panels->width ? panels->tile : 1;
}

/* The vectors in a row of so many panels. */
static inline int cnn_conv_panel_vectors(const cnn_conv_panels *panels, int64_t panel, int64_t count)
{
    return (int)(((count - 1) * panels->width + cnn_conv_panel_row(panels, panel + count - 1)) / panels->lanes);
}

/* Blocks of pixels whose sources, `floats` for each pixel, fill a quarter of a megabyte: a share of the second-level
 * cache. Many taps mean many pointers. Of few pixels a block may hold some more, rather than be halved. */
static inline int64_t cnn_conv_blocks(int64_t pixels, int64_t floats, int64_t taps)
{
    const int64_t fitting = (256 << 10) / (int64_t)sizeof(float) / cnn_max_i64(floats, 1);
    const int64_t close = cnn_min_i64(cnn_max_i64(fitting, 48), 192);
    const int64_t most = cnn_min_i64(close, cnn_max_i64((64 << 10) / taps, CNN_CONV_ROWS));
    return pixels <= most + most / 4 ? 1 : cnn_ceil_div(pixels, most);
}

#define CNN_CONV_TASKS 32 /* enough to keep some sixteen threads evenly busy */

#endif
