#include "ops/winograd_fetch.h"

#include "simd/inline.h"

#define LINE 16 /* floats in a line of cache */

cnn_winograd_fetcher cnn_winograd_fetch_src(const cnn_winograd_run *run, const float *src)
{
    const cnn_winograd_tiles *t = run->tiles;
    return (cnn_winograd_fetcher){
        .run = run, .h = t->rows.src, .w = t->cols.src, .width = t->ic, .images = src, .channels = t->ic};
}

cnn_winograd_fetcher cnn_winograd_fetch_dst(const cnn_winograd_run *run, const float *dst, int64_t first,
                                            int64_t channels)
{
    const cnn_winograd_tiles *t = run->tiles;
    return (cnn_winograd_fetcher){.run = run,
                                  .h = t->rows.dst,
                                  .w = t->cols.dst,
                                  .width = t->oc,
                                  .images = dst + first,
                                  .channels = channels};
}

void cnn_winograd_fetch(cnn_winograd_fetcher *f, int64_t part, int64_t parts)
{
    if (f->run == NULL) return;
    const int64_t end = f->run->count * CNN_WINOGRAD_MOST * (part + 1) / parts;
    for (; f->done < end; f->done++) {
        const int64_t r = f->done % CNN_WINOGRAD_MOST;
        if (f->done == 0)
            f->walk = cnn_winograd_walk_from(f->run, 0);
        else if (r == 0)
            cnn_winograd_walk_on(&f->walk);
        const cnn_winograd_tile *tile = &f->walk.tile;
        if (r >= tile->rows || tile->y + r >= f->h) continue;
        const float *row = f->images + ((tile->image * f->h + tile->y + r) * f->w + tile->x) * f->width;
        const int64_t pixels = cnn_min_i64(tile->columns, f->w - tile->x);
        for (int64_t s = 0; s < pixels; s++)
            for (int64_t c = 0; c < f->channels; c += LINE) VF_FETCH_SOON(row + s * f->width + c);
    }
}
