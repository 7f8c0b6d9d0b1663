#include "ops/winograd_tiles.h"

#include "base/memory.h"

#define MOST CNN_WINOGRAD_MOST

static cnn_winograd_axis axis_of(int64_t src, int64_t dst, int64_t before)
{
    const int64_t tiles = cnn_ceil_div(dst, MOST);
    return (cnn_winograd_axis){tiles, cnn_max_i64(0, dst - (MOST - 1) * tiles), src, dst, before};
}

cnn_winograd_tiles cnn_winograd_tiles_of(const cnn_conv *conv, cnn_conv_pass pass)
{
    const int64_t top = conv->padding[0], left = conv->padding[1];
    cnn_winograd_tiles t;
    if (pass == CNN_CONV_BACKWARD_DATA) {
        t.rows = axis_of(conv->oh, conv->ih, 2 - top);
        t.cols = axis_of(conv->ow, conv->iw, 2 - left);
        t.ic = conv->oc;
        t.oc = conv->ic;
    } else {
        t.rows = axis_of(conv->ih, conv->oh, top);
        t.cols = axis_of(conv->iw, conv->ow, left);
        t.ic = conv->ic;
        t.oc = conv->oc;
    }
    t.count = conv->n * t.rows.tiles * t.cols.tiles;
    return t;
}

/* Where tile i of an axis begins. */
static int64_t begin(const cnn_winograd_axis *axis, int64_t i)
{
    return i * (MOST - 1) + cnn_min_i64(i, axis->big);
}

/* The tile in a row and column of tiles. */
static void find(const cnn_winograd_tiles *tiles, int64_t row, int64_t col, cnn_winograd_tile *tile)
{
    tile->rows = MOST - (row >= tiles->rows.big);
    tile->columns = MOST - (col >= tiles->cols.big);
    tile->y = begin(&tiles->rows, row);
    tile->x = begin(&tiles->cols, col);
    tile->inside_rows = (int)cnn_min_i64(tile->rows, tiles->rows.dst - tile->y);
    tile->inside_columns = (int)cnn_min_i64(tile->columns, tiles->cols.dst - tile->x);
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
    return locate(src, tile->image, tiles->rows.src, tiles->cols.src, tiles->ic, tile->y - tiles->rows.before,
                  tile->x - tiles->cols.before, tile->rows + 2, tile->columns + 2);
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
    const bool big_row = walk->tile.rows == MOST, big_col = walk->tile.columns == MOST;
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
