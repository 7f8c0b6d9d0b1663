#include "simd/inline.h"
#include "ukernels/winograd.h"

/* The points +-p, +-q, infinity, 0, and powers. */
#define WINOGRAD_P 0.75f
#define WINOGRAD_Q 1.5f
#define WINOGRAD_PP 0.5625f
#define WINOGRAD_QQ 2.25f
#define WINOGRAD_PP_QQ 2.8125f  /* p^2 + q^2 */
#define WINOGRAD_PPQQ 1.265625f /* p^2 q^2 */
#define WINOGRAD_PPP 0.421875f
#define WINOGRAD_QQQ 3.375f

/* ---- along one axis, for m results, 3 or 4: a constant in every caller ------------------------------------------------ */

/* B^T. Its rows are the coefficients of prod (x - other points), times the point itself where 0 is none of the points:
 * G divides by that factor too. */
VF_INLINE void winograd_b(const int m, const vf *d, vf *t)
{
    const vf p = vf_set1(WINOGRAD_P), q = vf_set1(WINOGRAD_Q), pp = vf_set1(WINOGRAD_PP), qq = vf_set1(WINOGRAD_QQ);
    const vf pp_qq = vf_set1(WINOGRAD_PP_QQ), ppqq = vf_set1(WINOGRAD_PPQQ);
    vf even_p, even_q, odd_p, odd_q;
    if (m == 4) {
        even_p = vf_fnmadd(qq, d[2], d[4]), odd_p = vf_mul(p, vf_fnmadd(qq, d[1], d[3]));
        even_q = vf_fnmadd(pp, d[2], d[4]), odd_q = vf_mul(q, vf_fnmadd(pp, d[1], d[3]));
        t[4] = vf_fmadd(ppqq, d[1], vf_fnmadd(pp_qq, d[3], d[5]));
        t[5] = vf_fmadd(ppqq, d[0], vf_fnmadd(pp_qq, d[2], d[4]));
    } else {
        even_p = vf_mul(pp, vf_fnmadd(qq, d[0], d[2])), odd_p = vf_mul(p, vf_fnmadd(qq, d[1], d[3]));
        even_q = vf_mul(qq, vf_fnmadd(pp, d[0], d[2])), odd_q = vf_mul(q, vf_fnmadd(pp, d[1], d[3]));
        t[4] = vf_fmadd(ppqq, d[0], vf_fnmadd(pp_qq, d[2], d[4]));
    }
    t[0] = vf_add(even_p, odd_p);
    t[1] = vf_sub(even_p, odd_p);
    t[2] = vf_add(even_q, odd_q);
    t[3] = vf_sub(even_q, odd_q);
}

/* A: values at the points of the polynomial with coefficients d. */
VF_INLINE void winograd_a(const int m, const vf *d, vf *t)
{
    const vf even_p = vf_fmadd(vf_set1(WINOGRAD_PP), d[2], d[0]), even_q = vf_fmadd(vf_set1(WINOGRAD_QQ), d[2], d[0]);
    vf odd_p = vf_mul(vf_set1(WINOGRAD_P), d[1]), odd_q = vf_mul(vf_set1(WINOGRAD_Q), d[1]);
    t[4] = d[m - 1];
    if (m == 4) {
        odd_p = vf_fmadd(vf_set1(WINOGRAD_PPP), d[3], odd_p), odd_q = vf_fmadd(vf_set1(WINOGRAD_QQQ), d[3], odd_q);
        t[5] = d[0];
    }
    t[0] = vf_add(even_p, odd_p);
    t[1] = vf_sub(even_p, odd_p);
    t[2] = vf_add(even_q, odd_q);
    t[3] = vf_sub(even_q, odd_q);
}

/* A^T. */
VF_INLINE void winograd_a_transposed(const int m, const vf *t, vf *y)
{
    const vf even_p = vf_add(t[0], t[1]), odd_p = vf_sub(t[0], t[1]);
    const vf even_q = vf_add(t[2], t[3]), odd_q = vf_sub(t[2], t[3]);
    y[0] = vf_add(even_p, even_q);
    y[1] = vf_fmadd(vf_set1(WINOGRAD_Q), odd_q, vf_mul(vf_set1(WINOGRAD_P), odd_p));
    y[2] = vf_fmadd(vf_set1(WINOGRAD_QQ), even_q, vf_mul(vf_set1(WINOGRAD_PP), even_p));
    if (m == 3) y[2] = vf_add(y[2], t[4]);
    if (m == 4) {
        y[0] = vf_add(y[0], t[5]);
        y[3] = vf_fmadd(vf_set1(WINOGRAD_QQQ), odd_q, vf_fmadd(vf_set1(WINOGRAD_PPP), odd_p, t[4]));
    }
}

/* G divides by prod (point - other points): 2 p^2 (p^2 - q^2), 2 q^2 (q^2 - p^2), p^2 q^2. */
#define WINOGRAD_GP (-1.0f / 1.8984375f)
#define WINOGRAD_GQ (1.0f / 7.59375f)
#define WINOGRAD_G0 (1.0f / 1.265625f)

VF_INLINE void winograd_g(const vf g[3], vf t[6])
{
    const vf gp = vf_set1(WINOGRAD_GP), gq = vf_set1(WINOGRAD_GQ);
    const vf even_p = vf_mul(gp, vf_fmadd(vf_set1(WINOGRAD_PP), g[2], g[0]));
    const vf even_q = vf_mul(gq, vf_fmadd(vf_set1(WINOGRAD_QQ), g[2], g[0]));
    const vf odd_p = vf_mul(vf_set1(WINOGRAD_GP * WINOGRAD_P), g[1]);
    const vf odd_q = vf_mul(vf_set1(WINOGRAD_GQ * WINOGRAD_Q), g[1]);
    t[0] = vf_add(even_p, odd_p);
    t[1] = vf_sub(even_p, odd_p);
    t[2] = vf_add(even_q, odd_q);
    t[3] = vf_sub(even_q, odd_q);
    t[4] = g[2];
    t[5] = vf_mul(vf_set1(WINOGRAD_G0), g[0]);
}

/* G by rows. */
static const float winograd_g_rows[6][3] = {
    {WINOGRAD_GP, WINOGRAD_GP * WINOGRAD_P, WINOGRAD_GP * WINOGRAD_PP},
    {WINOGRAD_GP, -WINOGRAD_GP * WINOGRAD_P, WINOGRAD_GP * WINOGRAD_PP},
    {WINOGRAD_GQ, WINOGRAD_GQ * WINOGRAD_Q, WINOGRAD_GQ * WINOGRAD_QQ},
    {WINOGRAD_GQ, -WINOGRAD_GQ * WINOGRAD_Q, WINOGRAD_GQ * WINOGRAD_QQ},
    {0.0f, 0.0f, 1.0f},
    {WINOGRAD_G0, 0.0f, 0.0f},
};

/* G^T. */
VF_INLINE void winograd_g_transposed(const vf s[6], vf g[3])
{
    const vf even_p = vf_mul(vf_set1(WINOGRAD_GP), vf_add(s[0], s[1]));
    const vf even_q = vf_mul(vf_set1(WINOGRAD_GQ), vf_add(s[2], s[3]));
    const vf odd_p = vf_mul(vf_set1(WINOGRAD_GP * WINOGRAD_P), vf_sub(s[0], s[1]));
    const vf odd_q = vf_mul(vf_set1(WINOGRAD_GQ * WINOGRAD_Q), vf_sub(s[2], s[3]));
    g[0] = vf_fmadd(vf_set1(WINOGRAD_G0), s[5], vf_add(even_p, even_q));
    g[1] = vf_add(odd_p, odd_q);
    g[2] = vf_fmadd(vf_set1(WINOGRAD_QQ), even_q, vf_fmadd(vf_set1(WINOGRAD_PP), even_p, s[4]));
}

/* ---- tiles --------------------------------------------------------------------------------------------------------- */

VF_INLINE vf winograd_load(const float *from, int lanes)
{
    return lanes == VF_WIDTH ? vf_load(from) : vf_load_tail(from, lanes);
}

VF_INLINE int winograd_lanes(int64_t channels, int64_t c)
{
    return channels - c < VF_WIDTH ? (int)(channels - c) : VF_WIDTH;
}

/* A tile's vector of channels c on in plane (row, column). */
VF_INLINE float *winograd_plane(const cnn_winograd_planes *planes, int row, int column, int64_t c)
{
    const int last = CNN_WINOGRAD_POINTS - 1;
    float *place = planes->place[2 * (row == last) + (column == last)];
    return place + (row * CNN_WINOGRAD_POINTS + column) * planes->stride + c / (2 * VF_WIDTH) * planes->panel +
           c % (2 * VF_WIDTH);
}

/* Row r of a tile's pixels, channels c on; all of the tile lies `inside` the image, or any part. */
VF_INLINE void winograd_load_row(const bool inside, const int columns, const int lanes, const cnn_winograd_pixels *from,
                                 int r, int64_t c, vf *d)
{
    for (int s = 0; s < columns; s++) {
        const bool there = inside || (from->row[r] != NULL && s >= from->first && s < from->last);
        d[s] = there ? winograd_load(from->row[r] + from->column + s * from->step + c, lanes) : vf_zero();
    }
}

static bool winograd_inside(const cnn_winograd_pixels *from, int rows, int columns)
{
    return from->row[0] != NULL && from->row[rows - 1] != NULL && from->first <= 0 && from->last >= columns;
}

VF_INLINE void winograd_src_tile(const bool inside, const int rows, const int columns, const int lanes,
                                 const cnn_winograd_pixels *from, int64_t c, const cnn_winograd_planes *to)
{
    vf half[6][6]; /* [row of the window][point] */
    for (int r = 0; r < rows + 2; r++) {
        vf d[6];
        winograd_load_row(inside, columns + 2, lanes, from, r, c, d);
        winograd_b(columns, d, half[r]);
    }
    for (int s = 0; s < columns + 2; s++) {
        vf d[6], t[6];
        for (int r = 0; r < rows + 2; r++) d[r] = half[r][s];
        winograd_b(rows, d, t);
        for (int r = 0; r < rows + 2; r++) vf_store(winograd_plane(to, r, s, c), t[r]);
    }
}

VF_INLINE void winograd_src_channels(const int rows, const int columns, const cnn_winograd_pixels *from,
                                     int64_t channels, const cnn_winograd_planes *to)
{
    int64_t c = 0;
    if (winograd_inside(from, rows + 2, columns + 2))
        for (; c + VF_WIDTH <= channels; c += VF_WIDTH) winograd_src_tile(true, rows, columns, VF_WIDTH, from, c, to);
    for (; c < channels; c += VF_WIDTH)
        winograd_src_tile(false, rows, columns, winograd_lanes(channels, c), from, c, to);
}

/* Calls for every size of tile that there is. */
#define WINOGRAD_SIZES(rows, columns, call) \
    switch (10 * (rows) + (columns)) {      \
    case 44: call(4, 4); break;             \
    case 43: call(4, 3); break;             \
    case 34: call(3, 4); break;             \
    default: call(3, 3); break;             \
    }

static void winograd_src(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                         const cnn_winograd_planes *to)
{
#define WINOGRAD_CALL(r, s) winograd_src_channels(r, s, from, channels, to)
    WINOGRAD_SIZES(rows, columns, WINOGRAD_CALL)
#undef WINOGRAD_CALL
}

VF_INLINE void winograd_diff_dst_tile(const bool inside, const int rows, const int columns, const int lanes,
                                      const cnn_winograd_pixels *from, int64_t c, const cnn_winograd_planes *to)
{
    vf half[4][6];
    for (int r = 0; r < rows; r++) {
        vf d[4];
        winograd_load_row(inside, columns, lanes, from, r, c, d);
        winograd_a(columns, d, half[r]);
    }
    for (int s = 0; s < columns + 2; s++) {
        vf d[4], t[6];
        for (int r = 0; r < rows; r++) d[r] = half[r][s];
        winograd_a(rows, d, t);
        for (int r = 0; r < rows + 2; r++) vf_store(winograd_plane(to, r, s, c), t[r]);
    }
}

VF_INLINE void winograd_diff_dst_channels(const int rows, const int columns, const cnn_winograd_pixels *from,
                                          int64_t channels, const cnn_winograd_planes *to)
{
    int64_t c = 0;
    if (winograd_inside(from, rows, columns))
        for (; c + VF_WIDTH <= channels; c += VF_WIDTH)
            winograd_diff_dst_tile(true, rows, columns, VF_WIDTH, from, c, to);
    for (; c < channels; c += VF_WIDTH)
        winograd_diff_dst_tile(false, rows, columns, winograd_lanes(channels, c), from, c, to);
}

static void winograd_diff_dst(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                              const cnn_winograd_planes *to)
{
#define WINOGRAD_CALL(r, s) winograd_diff_dst_channels(r, s, from, channels, to)
    WINOGRAD_SIZES(rows, columns, WINOGRAD_CALL)
#undef WINOGRAD_CALL
}

/* `plain`: the whole tile lies in the image, nothing is added or clamped, and the vectors are full. */
VF_INLINE void winograd_dst_tile(const int rows, const int columns, const bool plain, const int lanes,
                                 const cnn_winograd_planes *from, int64_t c, const cnn_winograd_store *store)
{
    const vf low = vf_set1(store->low), high = vf_set1(store->high);
    const vf bias = store->bias == NULL ? vf_zero() : winograd_load(store->bias + c, lanes);
    vf half[6][4];
    for (int r = 0; r < rows + 2; r++) {
        vf t[6];
        for (int s = 0; s < columns + 2; s++) t[s] = vf_load(winograd_plane(from, r, s, c));
        winograd_a_transposed(columns, t, half[r]);
    }
    for (int s = 0; s < columns && (plain || s < store->columns); s++) {
        vf t[6], y[4];
        for (int r = 0; r < rows + 2; r++) t[r] = half[r][s];
        winograd_a_transposed(rows, t, y);
        for (int r = 0; r < rows && (plain || r < store->rows); r++) {
            const int64_t at = r * store->row_stride + s * store->column_stride + c;
            vf value = vf_add(y[r], bias);
            if (!plain) {
                if (store->addend != NULL) value = vf_add(value, winograd_load(store->addend + at, lanes));
                value = vf_clamp(value, low, high);
            }
            if (lanes == VF_WIDTH)
                vf_store(store->to + at, value);
            else
                vf_store_tail(store->to + at, value, lanes);
        }
    }
}

VF_INLINE void winograd_dst_channels(const int rows, const int columns, const cnn_winograd_planes *from,
                                     int64_t channels, const cnn_winograd_store *store)
{
    const bool plain = store->rows == rows && store->columns == columns && store->addend == NULL && !store->clamps;
    int64_t c = 0;
    if (plain)
        for (; c + VF_WIDTH <= channels; c += VF_WIDTH)
            winograd_dst_tile(rows, columns, true, VF_WIDTH, from, c, store);
    for (; c < channels; c += VF_WIDTH)
        winograd_dst_tile(rows, columns, false, winograd_lanes(channels, c), from, c, store);
}

static void winograd_dst(int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                         const cnn_winograd_store *store)
{
#define WINOGRAD_CALL(r, s) winograd_dst_channels(r, s, from, channels, store)
    WINOGRAD_SIZES(rows, columns, WINOGRAD_CALL)
#undef WINOGRAD_CALL
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* What `weights` and `diff_weights` are, with the matrix of a form along an axis: constants in every caller. */
typedef void winograd_g_fn(const vf g[3], vf t[CNN_WINOGRAD_POINTS]);
typedef void winograd_g_transposed_fn(const vf s[CNN_WINOGRAD_POINTS], vf g[3]);

VF_INLINE void winograd_weight_row(const float row[3], winograd_g_fn *const along, int64_t count, const float *g,
                                   int channels, float *to, int64_t plane)
{
    const vf g0 = vf_set1(row[0]), g1 = vf_set1(row[1]), g2 = vf_set1(row[2]);
    for (int64_t i = 0; i < count; i++, g += 9 * channels, to += channels)
        for (int c = 0; c < channels; c += VF_WIDTH) {
            vf half[3], t[CNN_WINOGRAD_POINTS];
            for (int s = 0; s < 3; s++) {
                const float *from = g + s * channels + c;
                half[s] = vf_fmadd(g2, vf_load(from + 6 * channels),
                                   vf_fmadd(g1, vf_load(from + 3 * channels), vf_mul(g0, vf_load(from))));
            }
            along(half, t);
            for (int s = 0; s < CNN_WINOGRAD_POINTS; s++) vf_store(to + s * plane + c, t[s]);
        }
}

VF_INLINE void winograd_filter(winograd_g_transposed_fn *const along, const float *from, int64_t plane, int64_t channels,
                               float *g)
{
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = winograd_lanes(channels, c);
        vf half[CNN_WINOGRAD_POINTS][3];
        for (int r = 0; r < CNN_WINOGRAD_POINTS; r++) {
            vf s[CNN_WINOGRAD_POINTS];
            for (int i = 0; i < CNN_WINOGRAD_POINTS; i++)
                s[i] = winograd_load(from + (CNN_WINOGRAD_POINTS * r + i) * plane + c, lanes);
            along(s, half[r]);
        }
        for (int s = 0; s < 3; s++) {
            vf column[CNN_WINOGRAD_POINTS], t[3];
            for (int r = 0; r < CNN_WINOGRAD_POINTS; r++) column[r] = half[r][s];
            along(column, t);
            for (int r = 0; r < 3; r++) vf_store_tail(g + (3 * r + s) * channels + c, t[r], lanes);
        }
    }
}

static void winograd_weights(int row, int64_t count, const float *g, int channels, float *to, int64_t plane)
{
    winograd_weight_row(winograd_g_rows[row], winograd_g, count, g, channels, to, plane);
}

static void winograd_diff_weights(const float *from, int64_t plane, int64_t channels, float *g)
{
    winograd_filter(winograd_g_transposed, from, plane, channels, g);
}

/* ---- products ------------------------------------------------------------------------------------------------------ */

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

#define CNN_KERNELS_WINOGRAD                                                                          \
    {                                                                                                 \
        .form = {[CNN_WINOGRAD_UNIT] = CNN_KERNELS_WINOGRAD_UNIT,                                     \
                 [CNN_WINOGRAD_STRIDED] = CNN_KERNELS_WINOGRAD_STRIDED,                               \
                 [CNN_WINOGRAD_SPREAD] = CNN_KERNELS_WINOGRAD_SPREAD},                                \
        .product = winograd_product, .outer = winograd_outer                                          \
    }

#define CNN_KERNELS_WINOGRAD_UNIT                                                                     \
    {                                                                                                 \
        .src = winograd_src, .diff_dst = winograd_diff_dst, .dst = winograd_dst,                      \
        .weights = winograd_weights, .diff_weights = winograd_diff_weights                            \
    }
