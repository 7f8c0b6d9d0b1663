/* The transforms of stride 2 (ukernels/winograd.h).
 *
 * They are loops over rows and over columns of a tile, where those of stride 1 are unrolled: nine by nine vectors lie in memory
 * between the two in any case, and unrolled the code would fill the cache of instructions. */
#include "simd/inline.h"
#include "ukernels/winograd.h"

/* The points +-p, +-q, infinity, and powers. */
#define STRIDED_P 0.5f
#define STRIDED_Q 1.5f
#define STRIDED_PP 0.25f
#define STRIDED_QQ 2.25f
#define STRIDED_PP_QQ 2.5f  /* p^2 + q^2 */
#define STRIDED_PPQQ 0.5625f /* p^2 q^2 */
#define STRIDED_PPP 0.125f
#define STRIDED_QQQ 3.375f
/* What G divides by: 2 p (p^2 - q^2), 2 q (q^2 - p^2). */
#define STRIDED_GP (-1.0f / 2.0f)
#define STRIDED_GQ (1.0f / 6.0f)

#define STRIDED_POINTS 5 /* of F(4, 2); in a plane's number the odd sources come behind */
#define STRIDED_ALL 9

/* ---- along one axis, for m results, 3 or 4: a constant in every caller ------------------------------------------------ */

/* B^T of the sources d[0], d[step], ... */
VF_INLINE void strided_b(const int m, const vf *d, const int step, vf *t)
{
    const vf d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
    const vf pp = vf_set1(STRIDED_PP), qq = vf_set1(STRIDED_QQ);
    const vf even_p = vf_mul(vf_set1(STRIDED_P), vf_fnmadd(qq, d0, d2)), odd_p = vf_fnmadd(qq, d1, d3);
    const vf even_q = vf_mul(vf_set1(STRIDED_Q), vf_fnmadd(pp, d0, d2)), odd_q = vf_fnmadd(pp, d1, d3);
    t[0] = vf_add(odd_p, even_p);
    t[1] = vf_sub(odd_p, even_p);
    t[2] = vf_add(odd_q, even_q);
    t[3] = vf_sub(odd_q, even_q);
    if (m == 4) t[4] = vf_fmadd(vf_set1(STRIDED_PPQQ), d0, vf_fnmadd(vf_set1(STRIDED_PP_QQ), d2, d[4 * step]));
}

/* A: values at the points of the polynomial with coefficients d. */
VF_INLINE void strided_a(const int m, const vf *d, vf *t)
{
    const vf even_p = vf_fmadd(vf_set1(STRIDED_PP), d[2], d[0]), even_q = vf_fmadd(vf_set1(STRIDED_QQ), d[2], d[0]);
    vf odd_p = vf_mul(vf_set1(STRIDED_P), d[1]), odd_q = vf_mul(vf_set1(STRIDED_Q), d[1]);
    if (m == 4) {
        odd_p = vf_fmadd(vf_set1(STRIDED_PPP), d[3], odd_p), odd_q = vf_fmadd(vf_set1(STRIDED_QQQ), d[3], odd_q);
        t[4] = d[3];
    }
    t[0] = vf_add(even_p, odd_p);
    t[1] = vf_sub(even_p, odd_p);
    t[2] = vf_add(even_q, odd_q);
    t[3] = vf_sub(even_q, odd_q);
}

/* A^T. */
VF_INLINE void strided_a_transposed(const int m, const vf *t, vf *y)
{
    const vf even_p = vf_add(t[0], t[1]), odd_p = vf_sub(t[0], t[1]);
    const vf even_q = vf_add(t[2], t[3]), odd_q = vf_sub(t[2], t[3]);
    y[0] = vf_add(even_p, even_q);
    y[1] = vf_fmadd(vf_set1(STRIDED_Q), odd_q, vf_mul(vf_set1(STRIDED_P), odd_p));
    y[2] = vf_fmadd(vf_set1(STRIDED_QQ), even_q, vf_mul(vf_set1(STRIDED_PP), even_p));
    if (m == 4) y[3] = vf_fmadd(vf_set1(STRIDED_QQQ), odd_q, vf_fmadd(vf_set1(STRIDED_PPP), odd_p, t[4]));
}

/* The points' values and, behind them, the odd sources of a tile. */
typedef enum strided_source {
    STRIDED_SRC,     /* of 2 m + 1 pixels, odd ones between the others */
    STRIDED_SPREAD,  /* of m + 1 pixels, of which the first m are the odd sources */
    STRIDED_DIFF_DST /* of m pixels, as gradients of results: by A */
} strided_source;

VF_INLINE int strided_pixels(const strided_source kind, int m)
{
    return kind == STRIDED_SRC ? 2 * m + 1 : kind == STRIDED_SPREAD ? m + 1 : m;
}

VF_INLINE void strided_points(const strided_source kind, const int m, const vf *d, vf *t)
{
    if (kind == STRIDED_DIFF_DST)
        strided_a(m, d, t);
    else
        strided_b(m, d, kind == STRIDED_SRC ? 2 : 1, t);
    for (int i = 0; i < m; i++) t[STRIDED_POINTS + i] = kind == STRIDED_SRC ? d[2 * i + 1] : d[i];
}

/* m results or, of the transpose, 2 m pixels: products of odd sources, each before a result. */
VF_INLINE void strided_results(const bool spread, const int m, const vf *t, vf *y)
{
    vf sum[4];
    strided_a_transposed(m, t, sum);
    for (int i = 0; i < m; i++) {
        if (spread)
            y[2 * i] = t[STRIDED_POINTS + i], y[2 * i + 1] = sum[i];
        else
            y[i] = vf_add(sum[i], t[STRIDED_POINTS + i]);
    }
}

/* ---- tiles --------------------------------------------------------------------------------------------------------- */

/* The row or column behind r of the planes in use, of a tile of m results. */
VF_INLINE int strided_next(int m, int r) { return r == m ? STRIDED_POINTS : r + 1; }

/* Whether number r of an axis is in use for m results. */
VF_INLINE bool strided_used(const int m, int r) { return r <= m || (r >= STRIDED_POINTS && r < STRIDED_POINTS + m); }

/* Whether big tiles alone use it. */
VF_INLINE bool strided_last(int r) { return r == STRIDED_POINTS - 1 || r == STRIDED_ALL - 1; }

VF_INLINE float *strided_plane(const cnn_winograd_planes *planes, int row, int column, int64_t c)
{
    return planes->place[2 * strided_last(row) + strided_last(column)] +
           cnn_winograd_strided_plane(row, column) * planes->stride + c / (2 * VF_WIDTH) * planes->panel +
           c % (2 * VF_WIDTH);
}

#define STRIDED_AHEAD 32 /* floats: two lines further are fetched, as so many streams are too many for the processor to foresee */

/* From pixels to planes: a row of pixels, and a column of planes. */
VF_INLINE void strided_read_row(const strided_source kind, const int columns, const float *from, int64_t step,
                                float half[STRIDED_ALL][VF_WIDTH])
{
    vf d[STRIDED_ALL], t[STRIDED_ALL];
    for (int s = 0; s < strided_pixels(kind, columns); s++) {
        d[s] = vf_load(from + s * step);
        VF_FETCH(from + s * step + STRIDED_AHEAD);
    }
    strided_points(kind, columns, d, t);
    for (int s = 0; s < STRIDED_ALL; s++)
        if (strided_used(columns, s)) vf_store(half[s], t[s]);
}

VF_INLINE void strided_read_column(const strided_source kind, const int rows, int column,
                                   float half[STRIDED_ALL][STRIDED_ALL][VF_WIDTH], int64_t c,
                                   const cnn_winograd_planes *to)
{
    vf d[STRIDED_ALL], t[STRIDED_ALL];
    for (int r = 0; r < strided_pixels(kind, rows); r++) d[r] = vf_load(half[r][column]);
    strided_points(kind, rows, d, t);
    for (int r = 0; r < STRIDED_ALL; r++)
        if (strided_used(rows, r)) vf_store(strided_plane(to, r, column, c), t[r]);
}

/* Row r of a tile's pixels, of which any may lie outside the image. */
static void strided_copy_row(const cnn_winograd_pixels *from, int r, int width, int64_t c, int lanes, float *row)
{
    for (int s = 0; s < width; s++, row += VF_WIDTH) {
        const bool there = from->row[r] != NULL && s >= from->first && s < from->last;
        vf_store(row, there ? winograd_load(from->row[r] + from->column + s * from->step + c, lanes) : vf_zero());
    }
}

VF_INLINE void strided_read(const strided_source kind, int rows, int columns, const cnn_winograd_pixels *from,
                            int64_t channels, const cnn_winograd_planes *to)
{
    const int height = strided_pixels(kind, rows), width = strided_pixels(kind, columns);
    const bool inside = winograd_inside(from, height, width);
    float half[STRIDED_ALL][STRIDED_ALL][VF_WIDTH], copy[STRIDED_ALL * VF_WIDTH];
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = winograd_lanes(channels, c);
        for (int r = 0; r < height; r++) {
            const float *row = copy;
            int64_t step = VF_WIDTH;
            if (inside && lanes == VF_WIDTH)
                row = from->row[r] + from->column + c, step = from->step;
            else
                strided_copy_row(from, r, width, c, lanes, copy);
            if (columns == 4)
                strided_read_row(kind, 4, row, step, half[r]);
            else
                strided_read_row(kind, 3, row, step, half[r]);
        }
        for (int s = 0; s < STRIDED_POINTS + columns; s = strided_next(columns, s)) {
            if (rows == 4)
                strided_read_column(kind, 4, s, half, c, to);
            else
                strided_read_column(kind, 3, s, half, c, to);
        }
    }
}

static void strided_src(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                        const cnn_winograd_planes *to)
{
    strided_read(STRIDED_SRC, rows, columns, from, channels, to);
}

static void spread_src(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                       const cnn_winograd_planes *to)
{
    strided_read(STRIDED_SPREAD, rows, columns, from, channels, to);
}

static void strided_diff_dst(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                             const cnn_winograd_planes *to)
{
    strided_read(STRIDED_DIFF_DST, rows, columns, from, channels, to);
}

/* From planes to pixels: a row of planes, and a column of pixels. */
VF_INLINE void strided_write_row(const bool spread, const int columns, const cnn_winograd_planes *from, int row,
                                 int64_t c, float half[2 * CNN_WINOGRAD_MOST][VF_WIDTH])
{
    vf t[STRIDED_ALL], y[2 * CNN_WINOGRAD_MOST];
    for (int s = 0; s < STRIDED_ALL; s++)
        if (strided_used(columns, s)) t[s] = vf_load(strided_plane(from, row, s, c));
    strided_results(spread, columns, t, y);
    for (int s = 0; s < columns * (spread ? 2 : 1); s++) vf_store(half[s], y[s]);
}

/* `plain`: all rows are wanted, nothing is added or clamped, and the vector is full. */
VF_INLINE void strided_write_column(const bool spread, const int rows, const bool plain, int column, const int lanes,
                                    float half[STRIDED_ALL][2 * CNN_WINOGRAD_MOST][VF_WIDTH], int64_t c,
                                    const cnn_winograd_store *store)
{
    const vf low = vf_set1(store->low), high = vf_set1(store->high);
    const vf bias = store->bias == NULL ? vf_zero() : winograd_load(store->bias + c, lanes);
    const int64_t first = column * store->column_stride + c;
    vf t[STRIDED_ALL], y[2 * CNN_WINOGRAD_MOST];
    for (int r = 0; r < STRIDED_ALL; r++)
        if (strided_used(rows, r)) t[r] = vf_load(half[r][column + store->skip_columns]);
    strided_results(spread, rows, t, y);
    for (int r = 0; r < rows * (spread ? 2 : 1); r++) {
        vf value = vf_add(y[r], bias);
        if (plain) {
            vf_store(store->to + r * store->row_stride + first, value);
            continue;
        }
        const int row = r - store->skip_rows;
        if (row < 0 || row >= store->rows) continue;
        const int64_t at = row * store->row_stride + first;
        if (store->addend != NULL) value = vf_add(value, winograd_load(store->addend + at, lanes));
        value = vf_clamp(value, low, high);
        if (lanes == VF_WIDTH)
            vf_store(store->to + at, value);
        else
            vf_store_tail(store->to + at, value, lanes);
    }
}

VF_INLINE void strided_write_columns(const bool spread, const int rows, const bool plain, const int lanes,
                                     float half[STRIDED_ALL][2 * CNN_WINOGRAD_MOST][VF_WIDTH], int64_t c,
                                     const cnn_winograd_store *store)
{
    for (int s = 0; s < store->columns; s++) strided_write_column(spread, rows, plain, s, lanes, half, c, store);
}

VF_INLINE void strided_write(const bool spread, int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                             const cnn_winograd_store *store)
{
    const bool plain = store->rows == rows * (spread ? 2 : 1) && store->addend == NULL && !store->clamps;
    float half[STRIDED_ALL][2 * CNN_WINOGRAD_MOST][VF_WIDTH];
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = winograd_lanes(channels, c);
        for (int r = 0; r < STRIDED_POINTS + rows; r = strided_next(rows, r)) {
            if (columns == 4)
                strided_write_row(spread, 4, from, r, c, half[r]);
            else
                strided_write_row(spread, 3, from, r, c, half[r]);
        }
        if (plain && lanes == VF_WIDTH && rows == 4)
            strided_write_columns(spread, 4, true, VF_WIDTH, half, c, store);
        else if (plain && lanes == VF_WIDTH)
            strided_write_columns(spread, 3, true, VF_WIDTH, half, c, store);
        else if (rows == 4)
            strided_write_columns(spread, 4, false, lanes, half, c, store);
        else
            strided_write_columns(spread, 3, false, lanes, half, c, store);
    }
}

static void strided_dst(int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                        const cnn_winograd_store *store)
{
    strided_write(false, rows, columns, from, channels, store);
}

static void spread_dst(int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                       const cnn_winograd_store *store)
{
    strided_write(true, rows, columns, from, channels, store);
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* G by rows, the last for the middle tap. */
static const float strided_g_rows[CNN_WINOGRAD_POINTS][3] = {
    {STRIDED_GP, 0.0f, STRIDED_GP * STRIDED_P}, {-STRIDED_GP, 0.0f, STRIDED_GP * STRIDED_P},
    {STRIDED_GQ, 0.0f, STRIDED_GQ * STRIDED_Q}, {-STRIDED_GQ, 0.0f, STRIDED_GQ * STRIDED_Q},
    {0.0f, 0.0f, 1.0f},                         {0.0f, 1.0f, 0.0f},
};

VF_INLINE void strided_g(const vf g[3], vf t[CNN_WINOGRAD_POINTS])
{
    const vf first_p = vf_mul(vf_set1(STRIDED_GP), g[0]), last_p = vf_mul(vf_set1(STRIDED_GP * STRIDED_P), g[2]);
    const vf first_q = vf_mul(vf_set1(STRIDED_GQ), g[0]), last_q = vf_mul(vf_set1(STRIDED_GQ * STRIDED_Q), g[2]);
    t[0] = vf_add(last_p, first_p);
    t[1] = vf_sub(last_p, first_p);
    t[2] = vf_add(last_q, first_q);
    t[3] = vf_sub(last_q, first_q);
    t[4] = g[2];
    t[5] = g[1];
}

/* G^T. */
VF_INLINE void strided_g_transposed(const vf s[CNN_WINOGRAD_POINTS], vf g[3])
{
    g[0] = vf_fmadd(vf_set1(STRIDED_GQ), vf_sub(s[2], s[3]), vf_mul(vf_set1(STRIDED_GP), vf_sub(s[0], s[1])));
    g[1] = s[5];
    g[2] = vf_fmadd(vf_set1(STRIDED_GQ * STRIDED_Q), vf_add(s[2], s[3]),
                    vf_fmadd(vf_set1(STRIDED_GP * STRIDED_P), vf_add(s[0], s[1]), s[4]));
}

static void strided_weights(int row, int64_t count, const float *g, int channels, float *to, int64_t plane)
{
    winograd_weight_row(strided_g_rows[row], strided_g, count, g, channels, to, plane);
}

static void strided_diff_weights(const float *from, int64_t plane, int64_t channels, float *g)
{
    winograd_filter(strided_g_transposed, from, plane, channels, g);
}

#define CNN_KERNELS_WINOGRAD_STRIDED                                                                  \
    {                                                                                                 \
        .src = strided_src, .diff_dst = strided_diff_dst, .dst = strided_dst,                         \
        .weights = strided_weights, .diff_weights = strided_diff_weights                              \
    }

#define CNN_KERNELS_WINOGRAD_SPREAD                                           \
    {                                                                         \
        .src = spread_src, .dst = spread_dst, .weights = strided_weights      \
    }
