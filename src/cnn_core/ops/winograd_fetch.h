/* Fetches pixels of a run of tiles that will soon be read or written into the second-level cache, little by little
 * while others are multiplied. Images of less than a megabyte are near without. */
#ifndef CNN_OPS_WINOGRAD_FETCH_H
#define CNN_OPS_WINOGRAD_FETCH_H

#include "ops/winograd_tiles.h"

typedef struct cnn_winograd_fetcher {
    const cnn_winograd_run *run; /* NULL: nothing */
    int64_t h, w, width;         /* of the images; their channels */
    const float *images;         /* from the first of the channels */
    int64_t channels;
    int step_rows, step_columns; /* pixels for each result */
    int64_t done, row;           /* rows of pixels: of all tiles, and of the one that the walk is at */
    cnn_winograd_walk walk;
} cnn_winograd_fetcher;

/* What the run's transforms will read of src, but for the border that they share with other tiles. */
cnn_winograd_fetcher cnn_winograd_fetch_src(const cnn_winograd_run *run, const float *src);
/* Some channels of its results. */
cnn_winograd_fetcher cnn_winograd_fetch_dst(const cnn_winograd_run *run, const float *dst, int64_t first,
                                            int64_t channels);
/* Part number `part` of `parts`. */
void cnn_winograd_fetch(cnn_winograd_fetcher *f, int64_t part, int64_t parts);

#endif
