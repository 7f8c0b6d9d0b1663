/* The products of Winograd convolution (ukernels/winograd.h). */
#include "simd/inline.h"
#include "ukernels/winograd.h"

#define WINOGRAD_ROWS 6 /* 6 x 2 accumulators, 2 weights, 1 broadcast: 15 of 16 registers */

#define WINOGRAD_LINE 16 /* floats in a line of cache */

/* What the next product reads, fetched evenly while this one computes, a line after each `step` in channels: in a burst, memory
 * would be waited for between two spells of arithmetic. NULL: it is near already, and not worth breaking the loop. */
typedef struct winograd_ahead {
    const float *next;
    int64_t step;
} winograd_ahead;

/* One register tile: `rows` and `vectors` are constants in every caller. */
VF_INLINE void winograd_product_tile(const int rows, const int vectors, int64_t ic, const float *v, int64_t v_stride,
                                     const float *u, bool add, float *m, int64_t m_stride, winograd_ahead *ahead)
{
    vf sum[WINOGRAD_ROWS][2];
    const float *x[WINOGRAD_ROWS];
    for (int r = 0; r < rows; r++) {
        x[r] = v + r * v_stride;
        for (int i = 0; i < vectors; i++) sum[r][i] = add ? vf_load(m + r * m_stride + i * VF_WIDTH) : vf_zero();
    }
    for (int64_t begin = 0, end; begin < ic; begin = end) {
        end = ic;
        if (ahead->next != NULL) {
            end = begin + ahead->step < ic ? begin + ahead->step : ic;
            VF_FETCH_SOON(ahead->next);
            ahead->next += WINOGRAD_LINE;
        }
        for (int64_t c = begin; c < end; c++) {
            vf w[2];
            for (int i = 0; i < vectors; i++) w[i] = vf_load(u + i * VF_WIDTH);
            for (int r = 0; r < rows; r++) {
                const vf value = vf_set1(x[r][c]);
                for (int i = 0; i < vectors; i++) sum[r][i] = vf_fmadd(value, w[i], sum[r][i]);
            }
            u += vectors * VF_WIDTH;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < vectors; i++) vf_store(m + r * m_stride + i * VF_WIDTH, sum[r][i]);
}

/* Tiles in register tiles of nearly equal height: one of few rows would wait for its own sums. */
VF_INLINE void winograd_product_tiles(const int vectors, int64_t tiles, int64_t ic, const float *v, int64_t v_stride,
                                      const float *u, bool add, float *m, int64_t m_stride, const float *next)
{
    const int64_t parts = (tiles + WINOGRAD_ROWS - 1) / WINOGRAD_ROWS;
    const int64_t step = parts * WINOGRAD_LINE / (2 * VF_WIDTH);
    winograd_ahead ahead = {next, step < 1 ? 1 : step};
    for (int64_t part = 0; part < parts; part++) {
        const int64_t rows = tiles / parts + (part < tiles % parts);
        switch (rows) {
        case 6: winograd_product_tile(6, vectors, ic, v, v_stride, u, add, m, m_stride, &ahead); break;
        case 5: winograd_product_tile(5, vectors, ic, v, v_stride, u, add, m, m_stride, &ahead); break;
        case 4: winograd_product_tile(4, vectors, ic, v, v_stride, u, add, m, m_stride, &ahead); break;
        case 3: winograd_product_tile(3, vectors, ic, v, v_stride, u, add, m, m_stride, &ahead); break;
        case 2: winograd_product_tile(2, vectors, ic, v, v_stride, u, add, m, m_stride, &ahead); break;
        default: winograd_product_tile(1, vectors, ic, v, v_stride, u, add, m, m_stride, &ahead); break;
        }
        v += rows * v_stride;
        m += rows * m_stride;
    }
}

static void winograd_product(int64_t tiles, int64_t ic, const float *v, int64_t v_stride, const float *u, int vectors,
                             bool add, float *m, int64_t m_stride, const float *next)
{
    if (vectors == 2)
        winograd_product_tiles(2, tiles, ic, v, v_stride, u, add, m, m_stride, next);
    else
        winograd_product_tiles(1, tiles, ic, v, v_stride, u, add, m, m_stride, next);
}

VF_INLINE void winograd_outer_tile(const int height, const int vectors, int64_t tiles, const float *v, const float *d,
                                   bool add, int64_t stride, float *sums)
{
    vf sum[WINOGRAD_ROWS][2];
    for (int r = 0; r < height; r++)
        for (int i = 0; i < vectors; i++) sum[r][i] = vf_zero();
    for (int64_t t = 0; t < tiles; t++) {
        vf col[2];
        for (int i = 0; i < vectors; i++) col[i] = vf_load(d + i * VF_WIDTH);
        for (int r = 0; r < height; r++) {
            const vf value = vf_set1(v[r]);
            for (int i = 0; i < vectors; i++) sum[r][i] = vf_fmadd(value, col[i], sum[r][i]);
        }
        v += 2 * VF_WIDTH;
        d += 2 * VF_WIDTH;
    }
    for (int r = 0; r < height; r++)
        for (int i = 0; i < vectors; i++) {
            float *to = sums + r * stride + i * VF_WIDTH;
            vf_store(to, add ? vf_add(vf_load(to), sum[r][i]) : sum[r][i]);
        }
}

VF_INLINE void winograd_outer_tiles(const int vectors, int64_t tiles, int height, const float *v, const float *d,
                                    bool add, int64_t stride, float *sums)
{
    const int parts = (height + WINOGRAD_ROWS - 1) / WINOGRAD_ROWS;
    for (int part = 0; part < parts; part++) {
        const int rows = height / parts + (part < height % parts);
        switch (rows) {
        case 6: winograd_outer_tile(6, vectors, tiles, v, d, add, stride, sums); break;
        case 5: winograd_outer_tile(5, vectors, tiles, v, d, add, stride, sums); break;
        case 4: winograd_outer_tile(4, vectors, tiles, v, d, add, stride, sums); break;
        case 3: winograd_outer_tile(3, vectors, tiles, v, d, add, stride, sums); break;
        case 2: winograd_outer_tile(2, vectors, tiles, v, d, add, stride, sums); break;
        default: winograd_outer_tile(1, vectors, tiles, v, d, add, stride, sums); break;
        }
        v += rows;
        sums += rows * stride;
    }
}

static void winograd_outer(int64_t tiles, int height, const float *v, const float *d, int vectors, bool add,
                           int64_t stride, float *sums)
{
    if (vectors == 2)
        winograd_outer_tiles(2, tiles, height, v, d, add, stride, sums);
    else
        winograd_outer_tiles(1, tiles, height, v, d, add, stride, sums);
}
