/* The tiles that a Winograd convolution cuts an image into.
 *
 * Tiles of 4x4 results, or, where these would be few, of 2x2. Along an axis that 4 does not divide, some tiles have 3 results
 * and take one product less, or, of stride 2, two: 7 = 4 + 3, 14 = 4 + 4 + 3 + 3. The last may reach beyond the image. In the
 * transpose of stride 2 what is cut are pairs of pixels. */
#ifndef CNN_OPS_WINOGRAD_TILES_H
#define CNN_OPS_WINOGRAD_TILES_H

#include "ops/conv.h"
#include "ukernels/winograd.h"

typedef struct cnn_winograd_axis {
    int most;               /* results of a tile: 4, or 2 */
    int64_t tiles, big;     /* the first `big` tiles have as many, the others 3 */
    int64_t src, dst;       /* pixels */
    int src_step, dst_step; /* pixels from result to result: 1 or 2 */
    int64_t src_before, dst_before; /* a tile's window, and its pixels of dst, begin so much before its results' place */
    int overlap;            /* the window has so many pixels more than src_step times the results */
} cnn_winograd_axis;

/* How a tile's planes lie. */
typedef struct cnn_winograd_layout {
    int planes;
    int points; /* of transformed weights along an axis */
    const uint8_t *first; /* by plane of the transformed weights: the first plane that it multiplies; up to the next one's */
    const uint8_t *place; /* by plane: at which of a tile's places (cnn_winograd_planes) it lies */
} cnn_winograd_layout;

/* Planes of transformed weights. */
static inline int64_t cnn_winograd_filter_planes(const cnn_winograd_layout *layout)
{
    return (int64_t)layout->points * layout->points;
}

/* The tiles of a pass, numbered over images, rows and columns. */
typedef struct cnn_winograd_tiles {
    cnn_winograd_form form;
    const cnn_winograd_layout *layout;
    cnn_winograd_axis rows, cols;
    int64_t count;
    int64_t ic, oc; /* of src and dst */
} cnn_winograd_tiles;

cnn_winograd_tiles cnn_winograd_tiles_of(const cnn_conv *conv, cnn_conv_pass pass);

/* One tile: its results, and the number of the first along each axis. */
typedef struct cnn_winograd_tile {
    int rows, columns;
    int64_t image, y, x;
} cnn_winograd_tile;

/* Pixels of dst along an axis: `count` from `begin` on, which are those of some results but for the first `skip`. */
typedef struct cnn_winograd_span {
    int64_t begin;
    int skip, count;
} cnn_winograd_span;

/* The pixels inside the image of so many results from `first` on. */
static inline cnn_winograd_span cnn_winograd_span_of(const cnn_winograd_axis *axis, int64_t first, int results)
{
    const int64_t from = first * axis->dst_step - axis->dst_before, to = from + results * axis->dst_step;
    const int64_t inside = cnn_max_i64(from, 0);
    return (cnn_winograd_span){inside, (int)(inside - from), (int)(cnn_min_i64(to, axis->dst) - inside)};
}

/* The src pixels that a tile sees. */
cnn_winograd_pixels cnn_winograd_window(const cnn_winograd_tiles *tiles, const cnn_winograd_tile *tile,
                                        const float *src);
/* The pixels of dst that are a tile's results. */
cnn_winograd_pixels cnn_winograd_results(const cnn_winograd_tiles *tiles, const cnn_winograd_tile *tile,
                                         const float *dst);

/* A run of tiles, and how they lie in planes: the last row and column of points, or of odd sources, hold big tiles only,
 * packed. */
typedef struct cnn_winograd_run {
    const cnn_winograd_tiles *tiles;
    int64_t first, count;
    int64_t before[4], held[4]; /* tiles before the run and of it, by place (cnn_winograd_planes) */
} cnn_winograd_run;

/* Goes through a run, tile by tile. */
typedef struct cnn_winograd_walk {
    const cnn_winograd_tiles *tiles;
    cnn_winograd_tile tile;
    int64_t row, col; /* of tiles, in the image */
    int64_t at[4];    /* tiles of the run before this one, by place */
} cnn_winograd_walk;

/* At the run's tile `index`, which may be its end. */
cnn_winograd_walk cnn_winograd_walk_from(const cnn_winograd_run *run, int64_t index);
void cnn_winograd_walk_on(cnn_winograd_walk *walk);

cnn_winograd_run cnn_winograd_run_of(const cnn_winograd_tiles *tiles, int64_t first, int64_t count);

/* The places of the walk's tile in planes whose rows are `row` floats apart. */
static inline cnn_winograd_planes cnn_winograd_walk_planes(const cnn_winograd_walk *walk, float *planes, int64_t row,
                                                           int64_t stride, int64_t panel)
{
    cnn_winograd_planes lie = {.stride = stride, .panel = panel};
    for (int i = 0; i < 4; i++) lie.place[i] = planes + walk->at[i] * row;
    return lie;
}

/* A distance of planes of so many floats: an odd number of cache lines, so that one tile's planes do not all meet in
 * one set of the caches. */
static inline int64_t cnn_winograd_stride(int64_t floats) { return ((floats + 15) / 16 | 1) * 16; }

/* Bytes of so many planes of so many floats each. */
static inline size_t cnn_winograd_bytes(int64_t planes, int64_t floats)
{
    const size_t plane = sizeof(float) * (size_t)cnn_winograd_stride(floats);
    return cnn_size_align(cnn_size_mul((size_t)planes, plane));
}

#endif
