#include "ops/winograd_tiles.h"

#include "base/memory.h"

#define MOST CNN_WINOGRAD_MOST
#define POINTS CNN_WINOGRAD_WINDOW

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

cnn_winograd_tile cnn_winograd_tile_at(const cnn_winograd_tiles *tiles, int64_t index)
{
    const int64_t col = index % tiles->cols.tiles, rest = index / tiles->cols.tiles;
    const int64_t row = rest % tiles->rows.tiles;
    cnn_winograd_tile tile = {.rows = MOST - (row >= tiles->rows.big),
                              .columns = MOST - (col >= tiles->cols.big),
                              .image = rest / tiles->rows.tiles,
                              .y = begin(&tiles->rows, row),
                              .x = begin(&tiles->cols, col)};
    tile.inside_rows = (int)cnn_min_i64(tile.rows, tiles->rows.dst - tile.y);
    tile.inside_columns = (int)cnn_min_i64(tile.columns, tiles->cols.dst - tile.x);
    return tile;
}

/* Pixels of `height` by `width` at (y, x) of an image batch. */
static void locate(const float *images, int64_t image, int64_t h, int64_t w, int64_t channels, int64_t y, int64_t x,
                   int height, int width, const float *zero, const float **pixel)
{
    for (int64_t r = y; r < y + height; r++) {
        const float *row = images + (image * h + r) * w * channels;
        for (int64_t s = x; s < x + width; s++)
            *pixel++ = r >= 0 && r < h && s >= 0 && s < w ? row + s * channels : zero;
    }
}

void cnn_winograd_window(const cnn_winograd_tiles *tiles, const cnn_winograd_tile *tile, const float *src,
                         const float *zero, const float *pixel[CNN_WINOGRAD_PLANES])
{
    locate(src, tile->image, tiles->rows.src, tiles->cols.src, tiles->ic, tile->y - tiles->rows.before,
           tile->x - tiles->cols.before, tile->rows + 2, tile->columns + 2, zero, pixel);
}

void cnn_winograd_results(const cnn_winograd_tiles *tiles, const cnn_winograd_tile *tile, const float *dst,
                          const float *zero, const float *pixel[CNN_WINOGRAD_PLANES])
{
    locate(dst, tile->image, tiles->rows.dst, tiles->cols.dst, tiles->oc, tile->y, tile->x, tile->rows, tile->columns,
           zero, pixel);
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
    cnn_winograd_run run = {tiles, first, count, {0}};
    count_before(tiles, first, run.before);
    return run;
}

int64_t cnn_winograd_run_tiles(const cnn_winograd_run *run, int64_t plane)
{
    const int place = cnn_winograd_place(plane);
    int64_t end[4];
    count_before(run->tiles, run->first + run->count, end);
    return end[place] - run->before[place];
}

cnn_winograd_planes cnn_winograd_run_planes(const cnn_winograd_run *run, int64_t index, float *planes, int64_t row,
                                            int64_t stride, int64_t panel)
{
    cnn_winograd_planes lie = {.stride = stride, .panel = panel};
    int64_t before[4];
    count_before(run->tiles, run->first + index, before);
    for (int i = 0; i < 4; i++) lie.place[i] = planes + (before[i] - run->before[i]) * row;
    return lie;
}
