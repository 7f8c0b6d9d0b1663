#include "simd/inline.h"
#include "ukernels/conv.h"
#include "ukernels/tile.h"

#define CONV_LINE 16 /* floats of a line of cache */
#define CONV_CLOSE (256 << 10) /* bytes of weights: half a second-level cache */
#define CONV_PART (512 << 10) /* and a quarter of one of two megabytes */
#define CONV_NEAR 512 /* bytes ahead in weights that come from memory */
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

/* Some panels of a kind: a tile computes one or two after the other, or of one or two it sums over some of the taps. */
typedef struct conv_pass {
    const cnn_conv_block *block;
    const cnn_conv_epilogue *epilogue;
    int kind;
    const float *weights;
    int64_t offset, channels;
    int64_t tap, taps;  /* the first one, and how many */
    const float *soon; /* the next pass's weights, of which a second panel lies as far on as in this one; NULL: near already */
} conv_pass;

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
            if (lanes == VF_WIDTH)
                vf_store(dst[r] + at, sum);
            else
                vf_store_part(dst[r] + at, sum, lanes);
        }
}

/* One register tile of `rows` pixels by `vectors` vectors of output channels, and half a vector more or not, for each panel or
 * two; these and `scattered`, whether the block has offsets, are constants in every caller. The tile is of `count` pixels, from
 * src and dst on; `soon` is where the next one's results go. */
VF_INLINE void conv_forward_tile(const bool scattered, const int rows, const int vectors, const bool half,
                                 const conv_pass *pass, const float *const *src, float *const *dst, float *const *soon,
                                 int64_t count, tile_ahead *ahead)
{
    const cnn_conv_block *block = pass->block;
    const cnn_conv_epilogue *epilogue = pass->epilogue;
    const int64_t ic = block->ic, step = ahead->step, end = pass->offset + pass->channels;
    const char *fetch = ahead->next;
    const int all = vectors + half; /* vectors in a row of dst */
    const int row = all > 2 ? 2 : all; /* and in one of a panel */
    const int64_t panel = block->taps * ic * row * VF_WIDTH; /* floats */
    const int64_t beyond = (all > 2 ? 2 : 1) * panel - pass->taps * ic * row * VF_WIDTH; /* what was read, to the next ones */
    const float *weights = pass->weights, *const bias = epilogue->bias;
    for (int64_t offset = pass->offset; offset < end; offset += (all > 2 ? 4 : 2) * VF_WIDTH) {
        const int64_t left = end - offset - (all - 1) * VF_WIDTH;
        const int whole = half ? VF_HALF : VF_WIDTH, last_lanes = left < whole ? (int)left : whole;
        vf sum[CNN_CONV_ROWS][TILE_WIDEST];
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
                VF_FETCH_WRITE(soon[tile_row(rows, r, count)] + offset + o);
        if (vectors > 1 && !scattered && pass->tap > 0)
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < vectors; v++)
                    sum[r][v] = vf_load(dst[tile_row(rows, r, count)] + offset + v * VF_WIDTH);
        const float *const *from = src + pass->tap * block->pixels;
        for (int64_t taps = pass->taps; taps > 0; taps--, from += block->pixels) {
            const float *x[CNN_CONV_ROWS];
            for (int r = 0; r < rows; r++) x[r] = from[tile_row(rows, r, count)] + block->channel;
            int64_t c = 0;
            /* The loop's own instructions take ports that products wait for: two channels share them where a tile is wide. */
            if (all > 2)
                for (; c + 2 <= ic; c += 2) {
                    for (int i = 0; i < 2; i++, fetch += step) {
                        if (!scattered) VF_FETCH(fetch);
                        const int64_t at = scattered ? block->offset[c + i] : c + i;
                        tile_step(rows, vectors, half, x, at, weights + i * row * VF_WIDTH, panel, sum, rest);
                    }
                    weights += 2 * row * VF_WIDTH;
                }
            for (; c < ic; c++) {
                if (!scattered) VF_FETCH(fetch);
                fetch += step;
                tile_step(rows, vectors, half, x, scattered ? block->offset[c] : c, weights, panel, sum, rest);
                weights += row * VF_WIDTH;
            }
        }
        weights += beyond;
        /* What is rare is left to functions: each branch and each address here lies between two spells of arithmetic. */
        if (epilogue->addend != NULL || last_lanes < whole) {
            float sums[CNN_CONV_ROWS * TILE_WIDEST * VF_WIDTH];
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
        for (int r = 0; r < rows; r++) {
            float *to = dst[tile_row(rows, r, count)] + offset;
            for (int v = 0; v < vectors; v++) vf_store(to + v * VF_WIDTH, sum[r][v]);
            if (half) vh_store(to + vectors * VF_WIDTH, rest[r]);
        }
    }
    ahead->next = fetch;
}

/* Each tile is a function of its own, that begins with few pointers: inlined into the loop over tiles, gcc keeps the address of
 * every row of every table in memory, and moving these took up to 70 cycles between two tiles. */
typedef void conv_tile_fn(const conv_pass *pass, const float *const *src, float *const *dst, float *const *soon,
                          int64_t count, tile_ahead *ahead);

#define CONV_TILE(name, scattered, rows, vectors, half)                                                              \
    static VF_APART void name(const conv_pass *pass, const float *const *src, float *const *dst,                     \
                              float *const *soon, int64_t count, tile_ahead *ahead)                                  \
    {                                                                                                                \
        conv_forward_tile(scattered, rows, vectors, half, pass, src, dst, soon, count, ahead);                       \
    }

CONV_TILE(conv_tile_6x2, false, 6, 2, false)
CONV_TILE(conv_tile_5x2, false, 5, 2, false)
CONV_TILE(conv_tile_4x2, false, TILE_LEAST, 2, false)
CONV_TILE(conv_tile_1x2, false, 1, 2, false)
CONV_TILE(conv_tile_6x1, false, 6, 1, false)
CONV_TILE(conv_tile_5x1, false, 5, 1, false)
CONV_TILE(conv_tile_4x1, false, TILE_LEAST, 1, false)
CONV_TILE(conv_tile_1x1, false, 1, 1, false)
CONV_TILE(conv_scattered_6x2, true, 6, 2, false)
CONV_TILE(conv_scattered_5x2, true, 5, 2, false)
CONV_TILE(conv_scattered_4x2, true, TILE_LEAST, 2, false)
CONV_TILE(conv_scattered_6x1, true, 6, 1, false)
CONV_TILE(conv_scattered_5x1, true, 5, 1, false)
CONV_TILE(conv_scattered_4x1, true, TILE_LEAST, 1, false)
#if TILE_WIDEST > 2
CONV_TILE(conv_tile_6x4, false, 6, 4, false)
CONV_TILE(conv_tile_5x4, false, 5, 4, false)
CONV_TILE(conv_scattered_6x4, true, 6, 4, false)
CONV_TILE(conv_scattered_5x4, true, 5, 4, false)
#endif
#if VF_HALF > 0
CONV_TILE(conv_half_6x1, false, 6, 1, true)
CONV_TILE(conv_half_5x1, false, 5, 1, true)
CONV_TILE(conv_half_4x1, false, TILE_LEAST, 1, true)
#endif

/* A panel of one vector, of half a vector more, of two; two panels. */
enum { CONV_ONE, CONV_HALF, CONV_TWO, CONV_FOUR, CONV_KINDS };
static const int64_t conv_kind_width[CONV_KINDS] = {VF_WIDTH, 2 * VF_WIDTH, 2 * VF_WIDTH, 4 * VF_WIDTH};

/* By whether they are scattered, kind, and pixels. Linear layers take a sample at a time. */
static conv_tile_fn *const conv_tile[2][CONV_KINDS][CNN_CONV_ROWS + 1] = {
    {
        [CONV_ONE] = {NULL, conv_tile_1x1, conv_tile_4x1, conv_tile_4x1, conv_tile_4x1, conv_tile_5x1, conv_tile_6x1},
#if VF_HALF > 0
        [CONV_HALF] = {NULL, conv_half_4x1, conv_half_4x1, conv_half_4x1, conv_half_4x1, conv_half_5x1, conv_half_6x1},
#endif
        [CONV_TWO] = {NULL, conv_tile_1x2, conv_tile_4x2, conv_tile_4x2, conv_tile_4x2, conv_tile_5x2, conv_tile_6x2},
#if TILE_WIDEST > 2
        [CONV_FOUR] = {NULL, conv_tile_1x2, conv_tile_4x2, conv_tile_4x2, conv_tile_4x2, conv_tile_5x4, conv_tile_6x4},
#endif
    },
    {
        [CONV_ONE] = {NULL, conv_scattered_4x1, conv_scattered_4x1, conv_scattered_4x1, conv_scattered_4x1,
                      conv_scattered_5x1, conv_scattered_6x1},
        [CONV_TWO] = {NULL, conv_scattered_4x2, conv_scattered_4x2, conv_scattered_4x2, conv_scattered_4x2,
                      conv_scattered_5x2, conv_scattered_6x2},
#if TILE_WIDEST > 2
        [CONV_FOUR] = {NULL, conv_scattered_4x2, conv_scattered_4x2, conv_scattered_4x2, conv_scattered_4x2,
                       conv_scattered_5x4, conv_scattered_6x4},
#endif
    },
};

/* What a tile brings near of the next pass's weights. */
static void conv_ahead_weights(const conv_pass *pass, int64_t tile, int64_t tiles, tile_ahead *ahead)
{
    const int vectors = pass->kind == CONV_ONE ? 1 : pass->kind == CONV_FOUR ? 4 : 2;
    const int64_t row = (vectors > 1 ? 2 : 1) * VF_WIDTH;
    if (tiles == 1) /* reads them once: what is brought near early is gone again */
        *ahead = (tile_ahead){(const char *)pass->weights + CONV_NEAR, row * (int64_t)sizeof(float)};
    else
        tile_ahead_panels(vectors, pass->soon, pass->block->taps * pass->block->ic * row, tile, tiles, ahead);
}

/* Cuts the pixels into tiles of nearly equal height: full ones, or as many rows less as spreads the rest evenly. Each goes
 * through all passes. */
static void conv_forward_tiles(const conv_pass *pass, int passes)
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
    tile_ahead ahead = {NULL, 0};
    for (int64_t tile = 0, first = 0; tile < tiles; tile++) {
        const int64_t height = rows + (tile < higher), end = first + height;
        const int64_t next = end + height <= pixels ? end : pixels - height;
        if (pass->soon != NULL)
            conv_ahead_weights(pass, tile, tiles, &ahead);
        else if (block->later != NULL)
            ahead = (tile_ahead){block->later + first * (int64_t)pixel, height * (int64_t)sizeof(float)};
        else
            ahead = (tile_ahead){(const char *)(block->src[next] + block->channel), fetches ? height * (int64_t)sizeof(float) : 0};
        for (int i = 0; i < passes; i++)
            conv_tile[block->offset != NULL][pass[i].kind][height](&pass[i], block->src + first, block->dst + first,
                                                                   block->dst + next, height, &ahead);
        first = end;
    }
}

/* Of many weights one pass over some taps after the other, so that what two passes read of them stays in the second-level cache. */
static void conv_forward_taps(const conv_pass *whole)
{
    const cnn_conv_block *block = whole->block;
    const cnn_conv_epilogue *epilogue = whole->epilogue;
    const int64_t row = (whole->kind == CONV_ONE ? 1 : 2) * VF_WIDTH, width = conv_kind_width[whole->kind];
    const int64_t tap_weights = block->ic * row, bytes = block->taps * block->ic * width * (int64_t)sizeof(float);
    const bool splits = whole->channels == width && width > VF_WIDTH && block->offset == NULL &&
                        (epilogue->addend == NULL || epilogue->addend[0] != block->dst[0]);
    const int64_t wanted = splits ? bytes / CONV_PART + 1 : 1; /* one also where no tap sees a pixel */
    const int64_t parts = wanted < block->taps ? wanted : block->taps > 0 ? block->taps : 1;
    const cnn_conv_epilogue start = {.bias = epilogue->bias};
    for (int64_t part = 0; part < parts; part++) {
        const int64_t tap = block->taps * part / parts, end = block->taps * (part + 1) / parts;
        conv_pass pass = *whole;
        pass.tap = tap;
        pass.taps = end - tap;
        pass.weights += tap * tap_weights;
        if (end < block->taps) {
            pass.epilogue = &start;
            if (pass.soon != NULL) pass.soon = whole->weights + end * tap_weights;
        }
        conv_forward_tiles(&pass, 1);
    }
}

/* The widest tile that the first of so many channels fill, and how many of them go through such tiles. */
static int64_t conv_widest(const cnn_conv_block *block, int64_t channels, int *kind)
{
    const int64_t panel = 2 * VF_WIDTH;
    /* So many do with less than two vectors. */
    const int64_t narrow = block->offset == NULL ? VF_WIDTH + VF_HALF : VF_WIDTH;
    const int64_t panels = (channels + panel - 1 - narrow) / panel; /* of two vectors */
    if (panels == 0) {
        *kind = channels <= VF_WIDTH ? CONV_ONE : CONV_HALF;
        return channels;
    }
    const bool pairs = panels > 1 && TILE_WIDEST > 2 && block->pixels > TILE_LEAST;
    *kind = pairs ? CONV_FOUR : CONV_TWO;
    const int64_t wide = (pairs ? panels / 2 * 2 : panels) * panel;
    return wide < channels ? wide : channels;
}

static void conv_forward(const cnn_conv_block *block, const float *weights, const cnn_conv_epilogue *epilogue,
                         int64_t offset, int64_t channels)
{
    static const cnn_conv_epilogue none = {.bias = NULL};
    const int64_t window = block->taps * block->ic;
    /* Weights that stay in the second-level cache are read for each tile, so that pixels are found and read once; of more, or of
     * such as are brought near themselves, each tile's are passed over all pixels. */
    const bool close = block->taps == 1 && block->weights_end == NULL && window * channels * (int64_t)sizeof(float) <= CONV_CLOSE;
    conv_pass pass[CONV_KINDS];
    int passes = 0;
    for (int64_t c = 0, some; c < channels; c += some) {
        int kind;
        some = conv_widest(block, channels - c, &kind);
        if (!close && some > conv_kind_width[kind]) some = conv_kind_width[kind];
        const float *behind = weights + window * (c + some);
        pass[passes++] = (conv_pass){.block = block,
                                     .epilogue = epilogue == NULL ? &none : epilogue,
                                     .kind = kind,
                                     .weights = weights + window * c,
                                     .offset = offset + c,
                                     .channels = some,
                                     .taps = block->taps,
                                     .soon = block->weights_end != NULL && behind < block->weights_end ? behind : NULL};
        if (!close) {
            conv_forward_taps(pass);
            passes = 0;
        }
    }
    if (close) conv_forward_tiles(pass, passes);
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

/* sums = (or, with `add`, +=) what a tile has made, of which the last vector is not full. */
VF_OUTLINE void conv_outer_part(int height, int vectors, int channels, bool add, int64_t stride, const float *made, float *sums)
{
    for (int r = 0; r < height; r++)
        for (int v = 0; v < vectors; v++, made += VF_WIDTH) {
            float *to = sums + r * stride + v * VF_WIDTH;
            const int left = channels - v * VF_WIDTH, lanes = left < VF_WIDTH ? left : VF_WIDTH;
            conv_store(to, add ? vf_add(conv_load(to, lanes), vf_load(made)) : vf_load(made), lanes);
        }
}

/* An outer product for each pixel: `rows` rows by `vectors` vectors of columns. Of block->height rows, the last one is
 * computed more than once if the tile has more. */
VF_INLINE void conv_outer_tile(const int rows, const int vectors, const cnn_conv_outer_block *block, const float *cols,
                               int channels, bool add, int64_t stride, const char *fetch, int64_t step, float *sums)
{
    vf sum[CONV_OUTER_ROWS][2];
    int64_t at[CONV_OUTER_ROWS];
    VF_UNROLL for (int r = 0; r < rows; r++) {
        const int row = r < block->height ? r : block->height - 1;
        at[r] = block->offset[row];
        VF_UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vf_zero();
        for (int o = 0; o < vectors * VF_WIDTH; o += CONV_LINE) VF_FETCH_WRITE(sums + row * stride + o);
    }
    for (int64_t p = 0; p < block->pixels; p++) {
        vf col[2];
        VF_FETCH_SOON(fetch);
        fetch += step;
        VF_UNROLL for (int v = 0; v < vectors; v++) col[v] = vf_load(cols + v * VF_WIDTH);
        VF_UNROLL for (int r = 0; r < rows; r++) {
            const vf value = vf_set1(block->rows[p][at[r]]);
            VF_UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vf_fmadd(value, col[v], sum[r][v]);
        }
        cols += vectors * VF_WIDTH;
    }
    if (channels < vectors * VF_WIDTH) {
        float made[CONV_OUTER_ROWS * 2 * VF_WIDTH];
        VF_UNROLL for (int r = 0; r < rows; r++)
            VF_UNROLL for (int v = 0; v < vectors; v++) vf_store(made + (r * vectors + v) * VF_WIDTH, sum[r][v]);
        conv_outer_part(block->height, vectors, channels, add, stride, made, sums);
        return;
    }
    /* A row that is computed more than once is read before it is written. */
    if (add)
        VF_UNROLL for (int r = 0; r < rows; r++)
            VF_UNROLL for (int v = 0; v < vectors; v++)
                sum[r][v] = vf_add(vf_load(sums + (r < block->height ? r : block->height - 1) * stride + v * VF_WIDTH), sum[r][v]);
    VF_UNROLL for (int r = 0; r < rows; r++)
        VF_UNROLL for (int v = 0; v < vectors; v++)
            vf_store(sums + (r < block->height ? r : block->height - 1) * stride + v * VF_WIDTH, sum[r][v]);
}

VF_INLINE void conv_outer_height(const int vectors, const cnn_conv_outer_block *block, const float *cols, int channels,
                                 bool add, int64_t stride, const char *fetch, int64_t step, float *sums)
{
    if (block->height > CONV_OUTER_MIDDLE)
        conv_outer_tile(CONV_OUTER_ROWS, vectors, block, cols, channels, add, stride, fetch, step, sums);
    else if (block->height > TILE_LEAST)
        conv_outer_tile(CONV_OUTER_MIDDLE, vectors, block, cols, channels, add, stride, fetch, step, sums);
    else
        conv_outer_tile(TILE_LEAST, vectors, block, cols, channels, add, stride, fetch, step, sums);
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
