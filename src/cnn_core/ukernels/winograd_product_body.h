/* The products of Winograd convolution (ukernels/winograd.h). */
#include "simd/inline.h"
#include "ukernels/tile.h"
#include "ukernels/winograd.h"

#define WINOGRAD_ROWS 6 /* 6 x 2 accumulators, 2 of b, 1 broadcast: 15 of 16 registers; of 32, 6 x 4 */

/* One register tile of rows from `a` and `to` on, of which `count` are wanted. `rows`, `vectors` and `turned`, whether a is, are
 * constants in every caller. */
VF_INLINE void winograd_tile(const bool turned, const int rows, const int vectors, const cnn_winograd_product *p,
                             const float *a, const float *b, int64_t count, tile_ahead *ahead, float *to)
{
    const int64_t a_row = turned ? 1 : p->a_row, a_step = turned ? 2 * VF_WIDTH : 1, panel = p->b_panel;
    const int64_t b_step = turned || vectors > 1 ? 2 * VF_WIDTH : VF_WIDTH, step = ahead->step;
    const char *next = ahead->next;
    vf sum[WINOGRAD_ROWS][TILE_WIDEST];
    const float *x[WINOGRAD_ROWS];
    VF_UNROLL for (int r = 0; r < rows; r++) {
        const int64_t row = tile_row(rows, r, count);
        x[r] = a + row * a_row;
        VF_UNROLL for (int v = 0; v < vectors; v++)
            sum[r][v] = p->add && !turned ? vf_load(to + row * p->to_row + v * VF_WIDTH) : vf_zero();
    }
    int64_t k = 0;
    if (vectors > 2) /* as in conv_forward_tile */
        for (; k + 2 <= p->terms; k += 2, b += 2 * b_step)
            for (int i = 0; i < 2; i++, next += step) {
                VF_FETCH_SOON(next);
                tile_step(rows, vectors, false, x, (k + i) * a_step, b + i * b_step, panel, sum, NULL);
            }
    for (; k < p->terms; k++, next += step, b += b_step) {
        VF_FETCH_SOON(next);
        tile_step(rows, vectors, false, x, k * a_step, b, panel, sum, NULL);
    }
    ahead->next = next;
    /* Sums over many tiles are more exact in parts. A row that is computed more than once is read before it is written. */
    if (p->add && turned)
        VF_UNROLL for (int r = 0; r < rows; r++)
            VF_UNROLL for (int v = 0; v < vectors; v++)
                sum[r][v] = vf_add(vf_load(to + tile_row(rows, r, count) * p->to_row + v * VF_WIDTH), sum[r][v]);
    VF_UNROLL for (int r = 0; r < rows; r++)
        VF_UNROLL for (int v = 0; v < vectors; v++)
            vf_store(to + tile_row(rows, r, count) * p->to_row + v * VF_WIDTH, sum[r][v]);
}

typedef void winograd_tile_fn(const cnn_winograd_product *p, const float *a, const float *b, int64_t count,
                              tile_ahead *ahead, float *to);

#define WINOGRAD_TILE(name, turned, rows, vectors)                                                                   \
    static VF_APART void name(const cnn_winograd_product *p, const float *a, const float *b, int64_t count,          \
                              tile_ahead *ahead, float *to)                                                      \
    {                                                                                                                \
        winograd_tile(turned, rows, vectors, p, a, b, count, ahead, to);                                             \
    }

WINOGRAD_TILE(winograd_tile_6x2, false, 6, 2)
WINOGRAD_TILE(winograd_tile_5x2, false, 5, 2)
WINOGRAD_TILE(winograd_tile_4x2, false, TILE_LEAST, 2)
WINOGRAD_TILE(winograd_tile_6x1, false, 6, 1)
WINOGRAD_TILE(winograd_tile_5x1, false, 5, 1)
WINOGRAD_TILE(winograd_tile_4x1, false, TILE_LEAST, 1)
WINOGRAD_TILE(winograd_turned_6x2, true, 6, 2)
WINOGRAD_TILE(winograd_turned_5x2, true, 5, 2)
WINOGRAD_TILE(winograd_turned_4x2, true, TILE_LEAST, 2)
WINOGRAD_TILE(winograd_turned_6x1, true, 6, 1)
WINOGRAD_TILE(winograd_turned_5x1, true, 5, 1)
WINOGRAD_TILE(winograd_turned_4x1, true, TILE_LEAST, 1)
#if TILE_WIDEST > 2
WINOGRAD_TILE(winograd_tile_6x4, false, 6, 4)
WINOGRAD_TILE(winograd_tile_5x4, false, 5, 4)
WINOGRAD_TILE(winograd_turned_6x4, true, 6, 4)
WINOGRAD_TILE(winograd_turned_5x4, true, 5, 4)
#endif

/* By whether a is turned, vectors (1, 2, 4), and rows: up to 4, 5, 6. */
static winograd_tile_fn *const winograd_tile_of[2][3][3] = {
    {
        {winograd_tile_4x1, winograd_tile_5x1, winograd_tile_6x1},
        {winograd_tile_4x2, winograd_tile_5x2, winograd_tile_6x2},
#if TILE_WIDEST > 2
        {NULL, winograd_tile_5x4, winograd_tile_6x4},
#endif
    },
    {
        {winograd_turned_4x1, winograd_turned_5x1, winograd_turned_6x1},
        {winograd_turned_4x2, winograd_turned_5x2, winograd_turned_6x2},
#if TILE_WIDEST > 2
        {NULL, winograd_turned_5x4, winograd_turned_6x4},
#endif
    },
};

/* Rows in register tiles of nearly equal height: one of few rows would wait for its own sums. */
static void winograd_multiply(const cnn_winograd_product *p)
{
    const int64_t tiles = (p->rows + WINOGRAD_ROWS - 1) / WINOGRAD_ROWS;
    tile_ahead ahead = {(const char *)p->b, 0};
    for (int64_t tile = 0, row = 0, count; tile < tiles; tile++, row += count) {
        count = p->rows / tiles + (tile < p->rows % tiles);
        if (p->next != NULL) tile_ahead_panels(p->vectors, p->next, p->b_panel, tile, tiles, &ahead);
        const float *a = p->a + row * (p->turned ? 1 : p->a_row);
        float *to = p->to + row * p->to_row;
        winograd_tile_fn *const *const of = winograd_tile_of[p->turned][p->vectors / 2];
        const int64_t height = count > TILE_LEAST ? count - TILE_LEAST : 0;
        if (of[height] != NULL) {
            of[height](p, a, p->b, count, &ahead, to);
        } else { /* of few rows one panel after the other */
            winograd_tile_of[p->turned][1][height](p, a, p->b, count, &ahead, to);
            winograd_tile_of[p->turned][1][height](p, a, p->b + p->b_panel, count, &ahead, to + 2 * VF_WIDTH);
        }
    }
}
