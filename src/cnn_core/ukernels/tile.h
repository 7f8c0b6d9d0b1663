/* A step of a register tile: what matrix products, whatever they are for, have in common. */
#ifndef CNN_UKERNELS_TILE_H
#define CNN_UKERNELS_TILE_H

#include <stdbool.h>
#include <stdint.h>

#include "simd/inline.h"

/* With 32 registers two panels make a tile, which then broadcasts each number of x for four products: 24 sums, 4 weights and a
 * broadcast are 29. */
#if VF_REGISTERS >= 32
#define TILE_WIDEST 4
#else
#define TILE_WIDEST 2
#endif

/* Tiles of 2 or 3 rows would wait for their own sums as long as those of 4: they compute the last of their rows more than
 * once, and need no code of their own. */
#define TILE_LEAST 4

/* Row r of a tile of which `count` rows are wanted. */
VF_INLINE int tile_row(const int rows, int r, int64_t count)
{
    return rows == TILE_LEAST && r >= count ? (int)count - 1 : r;
}

/* Other ISAs have no halves: there this is never used. */
#ifndef VF_HALF
#define VF_HALF 0
typedef vf vh;
#define vh_low(a) (a)
#define vh_load vf_load
#define vh_store vf_store
#define vh_fmadd vf_fmadd
#define vh_clamp vf_clamp
#endif

/* What a tile brings near while it computes: so many bytes on after each term of its sums. Evenly, as in a burst memory would be
 * waited for between two spells of arithmetic. */
typedef struct tile_ahead {
    const char *next;
    int64_t step;
} tile_ahead;

/* For tile number `tile` of `tiles`, which go over all terms each: where the first of a panel's begins, so much that the last one
 * ends with it. `soon` are rows of one or two vectors, those of a second panel, with four, `panel` floats on. */
VF_INLINE void tile_ahead_panels(int vectors, const float *soon, int64_t panel, int64_t tile, int64_t tiles, tile_ahead *ahead)
{
    const int64_t row = (vectors > 1 ? 2 : 1) * VF_WIDTH * (int64_t)sizeof(float);
    const int64_t second = vectors > 2 && tiles > 1 ? tiles / 2 : tiles; /* the first tile that fetches of a second panel */
    if (tile != 0 && tile != second) return;
    ahead->next = (const char *)(soon + (tile < second ? 0 : panel));
    ahead->step = row / (tile < second ? second : tiles - second) + 1;
}

/* sum += (of one input channel) the pixels' values, x[row][at], times the weights of all vectors; those of a second panel lie
 * `panel` floats on. */
VF_INLINE void tile_step(const int rows, const int vectors, const bool half, const float *const *x, int64_t at,
                         const float *weights, int64_t panel, vf (*sum)[TILE_WIDEST], vh *rest)
{
    vf w[TILE_WIDEST];
    for (int v = 0; v < vectors; v++) w[v] = vf_load(weights + v / 2 * panel + v % 2 * VF_WIDTH);
    const vh narrow = vh_load(weights + (half ? vectors * VF_WIDTH : 0));
    for (int r = 0; r < rows; r++) {
        const vf value = vf_set1(x[r][at]);
        for (int v = 0; v < vectors; v++) sum[r][v] = vf_fmadd(value, w[v], sum[r][v]);
        if (half) rest[r] = vh_fmadd(vh_low(value), narrow, rest[r]);
    }
}

#endif
