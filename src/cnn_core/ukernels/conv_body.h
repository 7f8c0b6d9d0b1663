#include "simd/inline.h"
#include "ukernels/conv.h"

#define CONV_LINE 16 /* floats of a line of cache */
#define CONV_CLOSE (256 << 10) /* bytes of weights: half a second-level cache */
#define CONV_WAY 4096 /* bytes of a way of a first-level cache: lines that lie so far apart crowd one set */

VF_INLINE vf conv_load(const float *from, int lanes)
{
    return lanes == VF_WIDTH ? vf_load(from) : vf_load_tail(from, lanes);
}

VF_INLINE void conv_store(float *to, vf a, int lanes)
{
    if (lanes == VF_WIDTH)
        vf_store(to, a);
    else
        vf_store_tail(to, a, lanes);
}

/* Tiles of 2 or 3 rows would wait for their own sums as long as those of 4: they compute the last of their rows more than
 * once, and need no code of their own. */
#define CONV_LEAST 4

/* Row r of a tile of which `count` rows are wanted. */
VF_INLINE int conv_tile_row(const int rows, int r, int64_t count)
{
    return rows == CONV_LEAST && r >= count ? (int)count - 1 : r;
}

/* What the tiles of one pass over a block share. */
typedef struct conv_pass {
    const cnn_conv_block *block;
    const cnn_conv_epilogue *epilogue;
    const float *weights;     /* of some panels: a tile computes one after the other */
    int64_t offset, channels; /* of theirs */
    const char *ahead;        /* the next weights, or NULL */
    int64_t step;             /* bytes that the tile fetches for each channel: of them, or of the next pixels */
} conv_pass;

/* dst = the first lanes of a vector for each of `count` rows. */
VF_OUTLINE void conv_store_part(float *const *dst, int64_t offset, int64_t count, int lanes, const float *sums)
{
    for (int64_t r = 0; r < count; r++, sums += VF_WIDTH) vf_store_part(dst[r] + offset, vf_load(sums), lanes);
}

/* dst = clamp(sums + addend) for a panel of a tile of `count` rows. */
VF_OUTLINE void conv_finish(const conv_pass *pass, float *const *dst, int64_t count, int vectors, int64_t offset,
                            const float *sums)
{
    const cnn_conv_epilogue *epilogue = pass->epilogue;
    const float *const *addend = epilogue->addend == NULL ? NULL : epilogue->addend + (dst - pass->block->dst);
    const int64_t end = pass->offset + pass->channels;
    const vf low = vf_set1(epilogue->low), high = vf_set1(epilogue->high);
    for (int64_t r = 0; r < count; r++)
        for (int v = 0; v < vectors; v++, sums += VF_WIDTH) {
            const int64_t at = offset + v * VF_WIDTH;
            const int lanes = end - at < VF_WIDTH ? (int)(end - at) : VF_WIDTH;
            vf sum = vf_load(sums);
            if (addend != NULL) sum = vf_add(sum, conv_load(addend[r] + at, lanes));
            if (epilogue->clamps) sum = vf_clamp(sum, low, high);
            conv_store(dst[r] + at, sum, lanes);
        }
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

/* One register tile of `rows` pixels by `vectors` vectors of output channels, and half a vector more or not, for each panel;
 * these and `scattered`, whether the block has offsets, are constants in every caller. The tile is of `count` pixels, from src
 * and dst on; `soon` is where the next one's results go, and `fetch` what will be read next. */
VF_INLINE void conv_forward_tile(const bool scattered, const int rows, const int vectors, const bool half, conv_pass *pass,
                                 const float *const *src, float *const *dst, float *const *soon, int64_t count,
                                 const char *fetch)
{
    const cnn_conv_block *block = pass->block;
    const cnn_conv_epilogue *epilogue = pass->epilogue;
    const int64_t ic = block->ic, step = pass->step, end = pass->offset + pass->channels;
    const int all = vectors + half; /* vectors in a row of the panel */
    const float *weights = pass->weights, *const bias = epilogue->bias;
    for (int64_t offset = pass->offset; offset < end; offset += 2 * VF_WIDTH) {
        const int64_t left = end - offset - (all - 1) * VF_WIDTH;
        const int whole = half ? VF_HALF : VF_WIDTH, last_lanes = left < whole ? (int)left : whole;
        vf sum[CNN_CONV_ROWS][2];
        vh rest[CNN_CONV_ROWS];
        for (int v = 0; v < all; v++) {
            const int lanes = v + 1 < all ? VF_WIDTH : last_lanes;
            const vf start = bias == NULL ? vf_zero() : conv_load(bias + offset + v * VF_WIDTH, lanes);
            for (int r = 0; r < rows; r++)
                if (v < vectors)
                    sum[r][v] = start;
                else
                    rest[r] = vh_low(start);
        }
        for (int r = 0; r < rows; r++)
            for (int o = 0; o < all * VF_WIDTH; o += CONV_LINE)
                VF_FETCH_WRITE(soon[conv_tile_row(rows, r, count)] + offset + o);
        const float *const *from = src;
        for (int64_t taps = block->taps; taps > 0; taps--, from += block->pixels) {
            const float *x[CNN_CONV_ROWS];
            for (int r = 0; r < rows; r++) x[r] = from[conv_tile_row(rows, r, count)] + block->channel;
            for (int64_t c = 0; c < ic; c++) {
                const int64_t at = scattered ? block->offset[c] : c;
                vf w[2];
                if (!scattered) VF_FETCH(fetch);
                fetch += step;
                for (int v = 0; v < vectors; v++) w[v] = vf_load(weights + v * VF_WIDTH);
                const vh narrow = vh_load(weights + (half ? vectors * VF_WIDTH : 0));
                for (int r = 0; r < rows; r++) {
                    const vf value = vf_set1(x[r][at]);
                    for (int v = 0; v < vectors; v++) sum[r][v] = vf_fmadd(value, w[v], sum[r][v]);
                    if (half) rest[r] = vh_fmadd(vh_low(value), narrow, rest[r]);
                }
                weights += all * VF_WIDTH;
            }
        }
        /* What is rare is left to functions: each branch and each address here lies between two spells of arithmetic. */
        if (epilogue->addend != NULL) {
            float sums[CNN_CONV_ROWS * 2 * VF_WIDTH];
            for (int r = 0; r < rows; r++) {
                float *to = sums + r * all * VF_WIDTH;
                for (int v = 0; v < all; v++) vf_store(to + v * VF_WIDTH, v < vectors ? sum[r][v] : vf_zero());
                if (half) vh_store(to + vectors * VF_WIDTH, rest[r]);
            }
            conv_finish(pass, dst, count, all, offset, sums);
            continue;
        }
        if (epilogue->clamps) {
            const vf low = vf_set1(epilogue->low), high = vf_set1(epilogue->high);
            for (int r = 0; r < rows; r++) {
                for (int v = 0; v < vectors; v++) sum[r][v] = vf_clamp(sum[r][v], low, high);
                if (half) rest[r] = vh_clamp(rest[r], vh_low(low), vh_low(high));
            }
        }
        if (last_lanes < whole) {
            float last[CNN_CONV_ROWS * VF_WIDTH];
            for (int r = 0; r < rows; r++) {
                float *to = dst[conv_tile_row(rows, r, count)] + offset;
                for (int v = 0; v < all - 1; v++) vf_store(to + v * VF_WIDTH, sum[r][v]);
                vf_store(last + r * VF_WIDTH, half ? vf_zero() : sum[r][vectors - 1]);
                if (half) vh_store(last + r * VF_WIDTH, rest[r]);
            }
            conv_store_part(dst, offset + (all - 1) * VF_WIDTH, count, last_lanes, last);
            continue;
        }
        for (int r = 0; r < rows; r++) {
            float *to = dst[conv_tile_row(rows, r, count)] + offset;
            for (int v = 0; v < vectors; v++) vf_store(to + v * VF_WIDTH, sum[r][v]);
            if (half) vh_store(to + vectors * VF_WIDTH, rest[r]);
        }
    }
    if (pass->ahead != NULL) pass->ahead = fetch;
}

/* Each tile is a function of its own, that begins with few pointers: inlined into the loop over tiles, gcc keeps the address of
 * every row of every table in memory, and moving these took up to 70 cycles between two tiles. */
typedef void conv_tile_fn(conv_pass *pass, const float *const *src, float *const *dst, float *const *soon, int64_t count,
                          const char *fetch);

#define CONV_TILE(name, scattered, rows, vectors, half)                                                              \
    static VF_APART void name(conv_pass *pass, const float *const *src, float *const *dst, float *const *soon,      \
                              int64_t count, const char *fetch)                                                      \
    {                                                                                                                \
        conv_forward_tile(scattered, rows, vectors, half, pass, src, dst, soon, count, fetch);                       \
    }

CONV_TILE(conv_tile_6x2, false, 6, 2, false)
CONV_TILE(conv_tile_5x2, false, 5, 2, false)
CONV_TILE(conv_tile_4x2, false, CONV_LEAST, 2, false)
CONV_TILE(conv_tile_1x2, false, 1, 2, false)
CONV_TILE(conv_tile_6x1, false, 6, 1, false)
CONV_TILE(conv_tile_5x1, false, 5, 1, false)
CONV_TILE(conv_tile_4x1, false, CONV_LEAST, 1, false)
CONV_TILE(conv_tile_1x1, false, 1, 1, false)
CONV_TILE(conv_scattered_6x2, true, 6, 2, false)
CONV_TILE(conv_scattered_5x2, true, 5, 2, false)
CONV_TILE(conv_scattered_4x2, true, CONV_LEAST, 2, false)
CONV_TILE(conv_scattered_6x1, true, 6, 1, false)
CONV_TILE(conv_scattered_5x1, true, 5, 1, false)
CONV_TILE(conv_scattered_4x1, true, CONV_LEAST, 1, false)
#if VF_HALF > 0
CONV_TILE(conv_half_6x1, false, 6, 1, true)
CONV_TILE(conv_half_5x1, false, 5, 1, true)
CONV_TILE(conv_half_4x1, false, CONV_LEAST, 1, true)
#endif

enum { CONV_ONE, CONV_HALF, CONV_TWO, CONV_KINDS }; /* a panel of one vector, of half a vector more, of two */

/* By whether they are scattered, kind, and pixels. Linear layers take a sample at a time. */
static conv_tile_fn *const conv_tile[2][CONV_KINDS][CNN_CONV_ROWS + 1] = {
    {
        [CONV_ONE] = {NULL, conv_tile_1x1, conv_tile_4x1, conv_tile_4x1, conv_tile_4x1, conv_tile_5x1, conv_tile_6x1},
#if VF_HALF > 0
        [CONV_HALF] = {NULL, conv_half_4x1, conv_half_4x1, conv_half_4x1, conv_half_4x1, conv_half_5x1, conv_half_6x1},
#endif
        [CONV_TWO] = {NULL, conv_tile_1x2, conv_tile_4x2, conv_tile_4x2, conv_tile_4x2, conv_tile_5x2, conv_tile_6x2},
    },
    {
        [CONV_ONE] = {NULL, conv_scattered_4x1, conv_scattered_4x1, conv_scattered_4x1, conv_scattered_4x1,
                      conv_scattered_5x1, conv_scattered_6x1},
        [CONV_TWO] = {NULL, conv_scattered_4x2, conv_scattered_4x2, conv_scattered_4x2, conv_scattered_4x2,
                      conv_scattered_5x2, conv_scattered_6x2},
    },
};

/* Cuts the pixels into tiles of nearly equal height: full ones, or as many rows less as spreads the rest evenly. */
static void conv_forward_tiles(int kind, conv_pass *pass)
{
    const cnn_conv_block *block = pass->block;
    const int64_t pixels = block->pixels, tiles = (pixels + CNN_CONV_ROWS - 1) / CNN_CONV_ROWS;
    const int64_t rows = pixels / tiles, higher = pixels % tiles;
    /* What is read next is fetched evenly, some bytes for each channel: in a burst, memory would be waited for between two
     * spells of arithmetic. It is the next weights, or what the block asks for, or the next tile, if pixels lie side by side, but
     * not where the lines of two tiles would drive each other out of one set of the cache. */
    const uintptr_t pixel = (uintptr_t)block->ic * sizeof(float);
    const uintptr_t pitch = pixels == 1 ? pixel : (uintptr_t)block->src[1] - (uintptr_t)block->src[0];
    const bool fetches = block->taps == 1 && pitch == pixel && pixel % CONV_WAY != 0;
    for (int64_t tile = 0, first = 0; tile < tiles; tile++) {
        const int64_t height = rows + (tile < higher), behind = first + height;
        const int64_t next = behind + height <= pixels ? behind : pixels - height;
        const char *fetch = pass->ahead;
        if (fetch != NULL) {
            pass->step = (kind == CONV_ONE ? 1 : 2) * VF_WIDTH * (int64_t)sizeof(float) / tiles + 1;
        } else if (block->later != NULL) {
            pass->step = height * (int64_t)sizeof(float);
            fetch = block->later + first * (int64_t)pixel;
        } else {
            pass->step = fetches ? height * (int64_t)sizeof(float) : 0;
            fetch = (const char *)(block->src[next] + block->channel);
        }
        conv_tile[block->offset != NULL][kind][height](pass, block->src + first, block->dst + first, block->dst + next, height,
                                                       fetch);
        first = behind;
    }
}

static void conv_forward(const cnn_conv_block *block, const float *weights, const cnn_conv_epilogue *epilogue,
                         int64_t offset, int64_t channels)
{
    static const cnn_conv_epilogue none = {.bias = NULL};
    const int64_t window = block->taps * block->ic;
    /* Weights that stay in the second-level cache are read for each tile, so that pixels are found and read once; of more, or of
     * such as are brought near themselves, each panel is passed over all tiles. */
    const bool close = block->taps == 1 && block->weights_end == NULL && window * channels * (int64_t)sizeof(float) <= CONV_CLOSE;
    /* A panel of so many channels does with less than two vectors. */
    const int64_t narrow = block->offset == NULL ? VF_WIDTH + VF_HALF : VF_WIDTH;
    for (int64_t c = 0, some; c < channels; c += some) {
        const int64_t left = channels - c, wide = (left + 2 * VF_WIDTH - 1 - narrow) / (2 * VF_WIDTH); /* panels of two */
        const int64_t panels = close && wide > 1 ? wide : 1;
        some = panels * 2 * VF_WIDTH < left ? panels * 2 * VF_WIDTH : left;
        conv_pass pass = {.block = block,
                          .epilogue = epilogue == NULL ? &none : epilogue,
                          .weights = weights + window * c,
                          .offset = offset + c,
                          .channels = some};
        const float *behind = weights + window * (c + some);
        if (block->weights_end != NULL && behind < block->weights_end) pass.ahead = (const char *)behind;
        conv_forward_tiles(left <= VF_WIDTH ? CONV_ONE : left <= narrow ? CONV_HALF : CONV_TWO, &pass);
    }
}

/* Rows of a tile of outer products: 12 x 2 sums, 2 columns and a broadcast are 27 of 32 registers, 6 x 2 of them 15 of 16. */
#if VF_REGISTERS >= 32
#define CONV_OUTER_ROWS 12
#define CONV_OUTER_UNIT 4
#define CONV_OUTER_MIDDLE 8
#else
#define CONV_OUTER_ROWS CNN_CONV_ROWS
#define CONV_OUTER_UNIT 1
#define CONV_OUTER_MIDDLE 5
#endif

/* An outer product for each pixel: `rows` rows by `vectors` vectors of columns. Of block->height rows, the last one is
 * computed more than once if the tile has more. */
VF_INLINE void conv_outer_tile(const int rows, const int vectors, const cnn_conv_outer_block *block, const float *cols,
                               int channels, bool add, int64_t stride, const char *fetch, int64_t step, float *sums)
{
    vf sum[CONV_OUTER_ROWS][2];
    int64_t at[CONV_OUTER_ROWS];
    for (int r = 0; r < rows; r++) {
        const int row = r < block->height ? r : block->height - 1;
        at[r] = block->offset[row];
        for (int v = 0; v < vectors; v++) sum[r][v] = vf_zero();
        for (int o = 0; o < vectors * VF_WIDTH; o += CONV_LINE) VF_FETCH_WRITE(sums + row * stride + o);
    }
    for (int64_t p = 0; p < block->pixels; p++) {
        vf col[2];
        VF_FETCH_SOON(fetch);
        fetch += step;
        for (int v = 0; v < vectors; v++) col[v] = vf_load(cols + v * VF_WIDTH);
        for (int r = 0; r < rows; r++) {
            const vf value = vf_set1(block->rows[p][at[r]]);
            for (int v = 0; v < vectors; v++) sum[r][v] = vf_fmadd(value, col[v], sum[r][v]);
        }
        cols += vectors * VF_WIDTH;
    }
    const int last_lanes = channels - (vectors - 1) * VF_WIDTH;
    for (int r = 0; r < rows && r < block->height; r++)
        for (int v = 0; v < vectors; v++) {
            float *to = sums + r * stride + v * VF_WIDTH;
            const int lanes = v + 1 < vectors ? VF_WIDTH : last_lanes;
            conv_store(to, add ? vf_add(conv_load(to, lanes), sum[r][v]) : sum[r][v], lanes);
        }
}

VF_INLINE void conv_outer_height(const int vectors, const cnn_conv_outer_block *block, const float *cols, int channels,
                                 bool add, int64_t stride, const char *fetch, int64_t step, float *sums)
{
    if (block->height > CONV_OUTER_MIDDLE)
        conv_outer_tile(CONV_OUTER_ROWS, vectors, block, cols, channels, add, stride, fetch, step, sums);
    else if (block->height > CONV_LEAST)
        conv_outer_tile(CONV_OUTER_MIDDLE, vectors, block, cols, channels, add, stride, fetch, step, sums);
    else
        conv_outer_tile(CONV_LEAST, vectors, block, cols, channels, add, stride, fetch, step, sums);
}

static void conv_outer(const cnn_conv_outer_block *block, const float *cols, int channels, bool add, int64_t stride,
                       const char *fetch, int64_t step, float *sums)
{
    if (channels > VF_WIDTH)
        conv_outer_height(2, block, cols, channels, add, stride, fetch, step, sums);
    else
        conv_outer_height(1, block, cols, channels, add, stride, fetch, step, sums);
}

/* Four vectors of channels at a time: as many sums in flight, and every cache line is read whole. */
VF_INLINE void conv_sum_columns(const int vectors, int lanes, int64_t rows, const float *src, int64_t stride,
                                float *dst)
{
    vf sum[4];
    for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t r = 0; r < rows; r++) {
        for (int v = 0; v < vectors - 1; v++) sum[v] = vf_add(sum[v], vf_load(src + v * VF_WIDTH));
        sum[vectors - 1] = vf_add(sum[vectors - 1], vf_load_tail(src + (vectors - 1) * VF_WIDTH, lanes));
        src += stride;
    }
    for (int v = 0; v < vectors - 1; v++) vf_store(dst + v * VF_WIDTH, sum[v]);
    vf_store_tail(dst + (vectors - 1) * VF_WIDTH, sum[vectors - 1], lanes);
}

static void conv_column_sums(int64_t rows, int64_t channels, const float *src, int64_t stride, float *dst)
{
    int64_t c = 0;
    for (; c + 4 * VF_WIDTH <= channels; c += 4 * VF_WIDTH)
        conv_sum_columns(4, VF_WIDTH, rows, src + c, stride, dst + c);
    for (; c < channels; c += VF_WIDTH) {
        const int lanes = channels - c < VF_WIDTH ? (int)(channels - c) : VF_WIDTH;
        conv_sum_columns(1, lanes, rows, src + c, stride, dst + c);
    }
}

/* Rows [first, last) of one column, or of some at a time, read in the order of their rows. */
VF_INLINE void conv_turn(const int columns, int64_t first, int64_t last, int64_t row_stride, const float *from,
                         int64_t column_stride, int64_t row, float *restrict to)
{
    for (int64_t r = first; r < last; r++)
        for (int c = 0; c < columns; c++) to[r * row + c] = from[r * row_stride + c * column_stride];
}

/* Rows that lie side by side, in either direction, in vectors of columns. */
static int64_t conv_turn_vectors(const float *from, int64_t rows, bool back, int64_t columns, int64_t column_stride,
                                 int64_t row, float *to)
{
    const int64_t fours = rows & ~(int64_t)3, step = back ? -1 : 1, fourth = back ? 3 : 0;
    int64_t c = 0;
    for (; c + VF_WIDTH <= columns; c += VF_WIDTH, from += VF_WIDTH * column_stride, to += VF_WIDTH) {
        for (int64_t r = 0; r < fours; r += 4)
            vf_turn4(from + step * r - fourth, column_stride, to + (r + fourth) * row, step * row);
        conv_turn(VF_WIDTH, fours, rows, step, from, column_stride, row, to);
    }
    return c;
}

static void conv_pack(const float *from, int64_t rows, int64_t row_stride, int64_t columns, int64_t column_stride,
                      int64_t row, float *to)
{
    if (column_stride == 1) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < row; c += VF_WIDTH) {
                const int64_t left = columns - c;
                vf_store(to + r * row + c, conv_load(from + r * row_stride + c, left < VF_WIDTH ? (int)left : VF_WIDTH));
            }
        return;
    }
    int64_t c = 0;
    if (row_stride == 1 || row_stride == -1)
        c = conv_turn_vectors(from, rows, row_stride < 0, columns, column_stride, row, to);
    for (; c + 4 <= columns; c += 4)
        conv_turn(4, 0, rows, row_stride, from + c * column_stride, column_stride, row, to + c);
    for (; c < columns; c++) conv_turn(1, 0, rows, row_stride, from + c * column_stride, column_stride, row, to + c);
    for (; c < row; c++)
        for (int64_t r = 0; r < rows; r++) to[r * row + c] = 0.0f;
}

#define CNN_KERNELS_CONV                                                                                               \
    {.forward = conv_forward,                                                                                          \
     .outer = conv_outer,                                                                                              \
     .outer_rows = CONV_OUTER_ROWS,                                                                                    \
     .outer_narrow_rows = VF_REGISTERS >= 32 ? CONV_OUTER_MIDDLE : CONV_OUTER_ROWS,                                    \
     .outer_unit = CONV_OUTER_UNIT,                                                                                    \
     .column_sums = conv_column_sums,                                                                                   \
     .pack = conv_pack}
