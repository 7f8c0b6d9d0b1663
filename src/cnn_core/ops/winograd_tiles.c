#include "ops/winograd_tiles.h"

#include "base/memory.h"

/* Tiles of 2x2 results: docs/winograd.md. */
#define MOST_LARGE 16           /* where those of 4x4 are so few, */
#define LEAST_SMALL 32          /* those of 2x2 so many, */
#define MANY_PAIRS (128 * 128) /* of channels, and 36 planes of their weights do not stay near */

static const uint8_t unit_first[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18,
                                     19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36};
static const uint8_t unit_place[] = {
    0, 0, 0, 0, 0, 1, /* row by row of points */
    0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 3,
};
static const uint8_t strided_first[] = {
    0,  1,  2,  3,  4,  5, /* five points, and the odd sources, which share weights */
    9,  10, 11, 12, 13, 14, 18, 19, 20, 21, 22, 23, 27, 28, 29, 30, 31, 32, 36, 37, 38, 39, 40, 41,
    45, 49, 53, 57, 61, 65, /* the row of the odd sources */
    81,
};
static const uint8_t strided_place[] = {
    0, 0, 0, 0, 1, 0, 0, 0, 1, /* row by row: five points, four odd sources */
    0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 2, 2, 2, 3, 2, 2, 2, 3,
    0, 0, 0, 2, /* odd sources of a row, column by column of points */
    0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 1, 1, 3,
    0, 0, 0, 1, /* odd sources of both, row by row */
    0, 0, 0, 1, 0, 0, 0, 1, 2, 2, 2, 3,
};
static const uint8_t small_place[16] = {0};
static const cnn_winograd_layout unit = {CNN_WINOGRAD_FILTER, CNN_WINOGRAD_POINTS, unit_first, unit_place};
static const cnn_winograd_layout small = {16, 4, unit_first, small_place}; /* a plane for each point, too */
static const cnn_winograd_layout strided = {CNN_WINOGRAD_WINDOW * CNN_WINOGRAD_WINDOW, CNN_WINOGRAD_POINTS,
                                            strided_first, strided_place};

/* Of so many pixels of each side. A pass of stride 2 has its source two pixels apart, its transpose its results, in pairs of
 * an odd one, which one tap sees, and the even one behind it. With even padding the first pair begins outside the image. */
static cnn_winograd_axis axis_of(cnn_winograd_form form, bool back, int64_t src, int64_t dst, int64_t padding)
{
    cnn_winograd_axis axis = {.src = src, .dst = dst, .src_step = 1, .dst_step = 1, .overlap = 2, .src_before = padding};
    int64_t results = dst;
    if (form == CNN_WINOGRAD_STRIDED) {
        axis.src_step = 2;
        axis.overlap = 1;
    } else if (form == CNN_WINOGRAD_SPREAD) {
        axis.dst_step = 2;
        axis.overlap = 1;
        axis.src_before = 1 - (padding + 1) / 2;
        axis.dst_before = padding % 2 == 0;
        results = cnn_ceil_div(dst + axis.dst_before, 2);
    } else if (back) {
        axis.src_before = 2 - padding;
    }
    axis.most = form == CNN_WINOGRAD_SMALL ? 2 : CNN_WINOGRAD_MOST;
    axis.tiles = cnn_ceil_div(results, axis.most);
    axis.big = form == CNN_WINOGRAD_SMALL ? axis.tiles : cnn_max_i64(0, results - (axis.most - 1) * axis.tiles);
    return axis;
}

static int64_t tiles_with(const cnn_conv *conv, int64_t results)
{
    return conv->n * cnn_ceil_div(conv->oh, results) * cnn_ceil_div(conv->ow, results);
}

static bool small_suits(const cnn_conv *conv)
{
    return tiles_with(conv, CNN_WINOGRAD_MOST) <= MOST_LARGE && tiles_with(conv, 2) >= LEAST_SMALL &&
           conv->ic * conv->oc >= MANY_PAIRS;
}

cnn_winograd_tiles cnn_winograd_tiles_of(const cnn_conv *conv, cnn_conv_pass pass)
{
    const bool back = pass == CNN_CONV_BACKWARD_DATA;
    cnn_winograd_tiles t = {.form = CNN_WINOGRAD_UNIT, .layout = &unit};
    if (conv->stride[0] == 2) {
        t.form = back ? CNN_WINOGRAD_SPREAD : CNN_WINOGRAD_STRIDED;
        t.layout = &strided;
    } else if (pass == CNN_CONV_FORWARD && small_suits(conv)) {
        t.form = CNN_WINOGRAD_SMALL;
        t.layout = &small;
    }
    t.rows = axis_of(t.form, back, back ? conv->oh : conv->ih, back ? conv->ih : conv->oh, conv->padding[0]);
    t.cols = axis_of(t.form, back, back ? conv->ow : conv->iw, back ? conv->iw : conv->ow, conv->padding[1]);
    t.ic = back ? conv->oc : conv->ic;
    t.oc = back ? conv->ic : conv->oc;
    t.count = conv->n * t.rows.tiles * t.cols.tiles;
    return t;
}

/* Where tile i of an axis begins. */
static int64_t begin(const cnn_winograd_axis *axis, int64_t i)
{
    return i * (axis->most - 1) + cnn_min_i64(i, axis->big);
}

/* The tile in a row and column of tiles. */
static void find(const cnn_winograd_tiles *tiles, int64_t row, int64_t col, cnn_winograd_tile *tile)
{
    tile->rows = tiles->rows.most - (row >= tiles->rows.big);
    tile->columns = tiles->cols.most - (col >= tiles->cols.big);
    tile->y = begin(&tiles->rows, row);
    tile->x = begin(&tiles->cols, col);
}

/* height x width pixels at (y, x) of an image. */
static cnn_winograd_pixels locate(const float *images, int64_t image, int64_t h, int64_t w, int64_t channels, int64_t y,
                                  int64_t x, int height, int width)
{
    cnn_winograd_pixels p = {.column = x * channels,
                             .step = channels,
                             .first = (int)cnn_min_i64(cnn_max_i64(0, -x), width),
                             .last = (int)cnn_max_i64(0, cnn_min_i64(width, w - x))};
    for (int r = 0; r < height; r++)
        p.row[r] = y + r >= 0 && y + r < h ? images + (image * h + y + r) * w * channels : NULL;
    return p;
}

cnn_winograd_pixels cnn_winograd_window(const cnn_winograd_tiles *tiles, const cnn_winograd_tile *tile, const float *src)
{
    const cnn_winograd_axis *rows = &tiles->rows, *cols = &tiles->cols;
    return locate(src, tile->image, rows->src, cols->src, tiles->ic, tile->y * rows->src_step - rows->src_before,
                  tile->x * cols->src_step - cols->src_before, tile->rows * rows->src_step + rows->overlap,
                  tile->columns * cols->src_step + cols->overlap);
}

cnn_winograd_pixels cnn_winograd_results(const cnn_winograd_tiles *tiles, const cnn_winograd_tile *tile,
                                         const float *dst)
{
    return locate(dst, tile->image, tiles->rows.dst, tiles->cols.dst, tiles->oc, tile->y, tile->x, tile->rows,
                  tile->columns);
}

/* How many tiles before this one have big rows, big columns, both. */
static void count_before(const cnn_winograd_tiles *tiles, int64_t index, int64_t before[4])
{
    const cnn_winograd_axis *rows = &tiles->rows, *cols = &tiles->cols;
    const int64_t col = index % cols->tiles, row = index / cols->tiles % rows->tiles;
    const int64_t image = index / cols->tiles / rows->tiles;
    const int64_t big_rows = image * rows->big + cnn_min_i64(row, rows->big); /* rows of tiles */
    const int64_t big_cols = cnn_min_i64(col, cols->big);
    const bool inside = row < rows->big;
    before[0] = index;
    before[1] = (image * rows->tiles + row) * cols->big + big_cols;
    before[2] = big_rows * cols->tiles + (inside ? col : 0);
    before[3] = big_rows * cols->big + (inside ? big_cols : 0);
}

cnn_winograd_run cnn_winograd_run_of(const cnn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    cnn_winograd_run run = {.tiles = tiles, .first = first, .count = count};
    count_before(tiles, first, run.before);
    count_before(tiles, first + count, run.held);
    for (int i = 0; i < 4; i++) run.held[i] -= run.before[i];
    return run;
}

cnn_winograd_walk cnn_winograd_walk_from(const cnn_winograd_run *run, int64_t index)
{
    const cnn_winograd_tiles *tiles = run->tiles;
    const int64_t first = run->first + index, rest = first / tiles->cols.tiles;
    cnn_winograd_walk walk = {.tiles = tiles,
                              .tile.image = rest / tiles->rows.tiles,
                              .row = rest % tiles->rows.tiles,
                              .col = first % tiles->cols.tiles};
    count_before(tiles, first, walk.at);
    for (int i = 0; i < 4; i++) walk.at[i] -= run->before[i];
    find(tiles, walk.row, walk.col, &walk.tile);
    return walk;
}

void cnn_winograd_walk_on(cnn_winograd_walk *walk)
{
    const cnn_winograd_tiles *tiles = walk->tiles;
    const bool big_row = walk->tile.rows == tiles->rows.most, big_col = walk->tile.columns == tiles->cols.most;
    walk->at[0]++;
    walk->at[1] += big_col;
    walk->at[2] += big_row;
    walk->at[3] += big_row && big_col;
    if (++walk->col == tiles->cols.tiles) {
        walk->col = 0;
        if (++walk->row == tiles->rows.tiles) {
            walk->row = 0;
            walk->tile.image++;
        }
    }
    find(tiles, walk->row, walk->col, &walk->tile);
}
