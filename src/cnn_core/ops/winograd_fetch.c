#include "ops/winograd_fetch.h"

#include "simd/inline.h"

#define LINE 16 /* floats in a line of cache */

#define LEAST_BYTES (1 << 20)

static cnn_winograd_fetcher fetch_pixels(const cnn_winograd_run *run, int64_t h, int64_t w, int64_t width, int step_rows,
                                         int step_columns, const float *images, int64_t channels)
{
    const cnn_winograd_tiles *t = run->tiles;
    const int64_t count = t->count / (t->rows.tiles * t->cols.tiles);
    const bool far = count * h * w * width * (int64_t)sizeof(float) >= LEAST_BYTES;
    return (cnn_winograd_fetcher){.run = far ? run : NULL,
                                  .h = h,
                                  .w = w,
                                  .width = width,
                                  .images = images,
                                  .channels = channels,
                                  .step_rows = step_rows,
                                  .step_columns = step_columns};
}

cnn_winograd_fetcher cnn_winograd_fetch_src(const cnn_winograd_run *run, const float *src)
{
    const cnn_winograd_tiles *t = run->tiles;
    return fetch_pixels(run, t->rows.src, t->cols.src, t->ic, t->rows.src_step, t->cols.src_step, src, t->ic);
}

cnn_winograd_fetcher cnn_winograd_fetch_dst(const cnn_winograd_run *run, const float *dst, int64_t first,
                                            int64_t channels)
{
    const cnn_winograd_tiles *t = run->tiles;
    return fetch_pixels(run, t->rows.dst, t->cols.dst, t->oc, t->rows.dst_step, t->cols.dst_step, dst + first, channels);
}

void cnn_winograd_fetch(cnn_winograd_fetcher *f, int64_t part, int64_t parts)
{
    if (f->run == NULL) return;
    const int64_t rows = f->run->tiles->rows.most * f->step_rows, end = f->run->count * rows * (part + 1) / parts;
    if (f->done == 0) f->walk = cnn_winograd_walk_from(f->run, 0);
    for (; f->done < end; f->done++, f->row++) {
        if (f->row == rows) {
            f->row = 0;
            cnn_winograd_walk_on(&f->walk);
        }
        const cnn_winograd_tile *tile = &f->walk.tile;
        const int64_t y = tile->y * f->step_rows + f->row, x = tile->x * f->step_columns;
        if (f->row >= tile->rows * f->step_rows || y >= f->h) continue;
        const float *row = f->images + ((tile->image * f->h + y) * f->w + x) * f->width;
        const int64_t pixels = cnn_min_i64(tile->columns * f->step_columns, f->w - x);
        for (int64_t s = 0; s < pixels; s++)
            for (int64_t c = 0; c < f->channels; c += LINE) VF_FETCH_SOON(row + s * f->width + c);
    }
}
