/* The transforms of Winograd convolution in two dimensions (ukernels/winograd.h).
 *
 * A matrix is applied to rows and then to columns. Both are loops, each iteration inlined for 3 and for 4 results: what lies
 * between the two, up to nine by nine vectors, is in memory in any case, and unrolled the code would be four times as large and no
 * faster. */
#include "simd/inline.h"
#include "ukernels/winograd.h"

VF_INLINE vf winograd_load(const float *from, int lanes)
{
    return lanes == VF_WIDTH ? vf_load(from) : vf_load_tail(from, lanes);
}

VF_INLINE int winograd_lanes(int64_t channels, int64_t c)
{
    return channels - c < VF_WIDTH ? (int)(channels - c) : VF_WIDTH;
}

/* ---- planes: along an axis, points and, of stride 2, odd sources behind them ------------------------------------------- */

#define WINOGRAD_ODD 5 /* the first of these */
#define WINOGRAD_ALL CNN_WINOGRAD_WINDOW

/* Whether number r of an axis is in use for m results. */
VF_INLINE bool winograd_used(const bool strided, const int m, int r)
{
    return strided ? r <= m || (r >= WINOGRAD_ODD && r < WINOGRAD_ODD + m) : r < m + 2;
}

/* The number behind r of those in use, and the end. */
VF_INLINE int winograd_next(const bool strided, int m, int r) { return strided && r == m ? WINOGRAD_ODD : r + 1; }

VF_INLINE int winograd_end(const bool strided, int m) { return strided ? WINOGRAD_ODD + m : m + 2; }

/* Whether big tiles alone use it. */
VF_INLINE bool winograd_last(const bool strided, int r)
{
    return strided ? r == WINOGRAD_ODD - 1 || r == WINOGRAD_ALL - 1 : r == CNN_WINOGRAD_POINTS - 1;
}

/* A tile's vector of channels c on in plane (row, column), for m results along an axis. */
VF_INLINE float *winograd_plane(const bool strided, const int m, const cnn_winograd_planes *planes, int row, int column,
                                int64_t c)
{
    const int64_t points = m == 2 ? 4 : CNN_WINOGRAD_POINTS;
    const int64_t plane = strided ? cnn_winograd_strided_plane(row, column) : row * points + column;
    return planes->place[2 * winograd_last(strided, row) + winograd_last(strided, column)] + plane * planes->stride +
           c / (2 * VF_WIDTH) * planes->panel + c % (2 * VF_WIDTH);
}

/* ---- from pixels to planes --------------------------------------------------------------------------------------------- */

typedef enum winograd_source {
    WINOGRAD_SRC,        /* B^T of m + 2 pixels */
    WINOGRAD_DIFF_DST,   /* A of m pixels */
    WINOGRAD_STRIDED,    /* of 2 m + 1 pixels, odd ones between the others */
    WINOGRAD_SPREAD,     /* of m + 1 pixels, of which the first m are the odd sources */
    WINOGRAD_STRIDED_DIFF_DST
} winograd_source;

VF_INLINE bool winograd_strided(const winograd_source kind) { return kind >= WINOGRAD_STRIDED; }

VF_INLINE int winograd_pixels(const winograd_source kind, int m)
{
    switch (kind) {
    case WINOGRAD_SRC: return m + 2;
    case WINOGRAD_STRIDED: return 2 * m + 1;
    case WINOGRAD_SPREAD: return m + 1;
    default: return m;
    }
}

VF_INLINE void winograd_points(const winograd_source kind, const int m, const vf *d, vf *t)
{
    switch (kind) {
    case WINOGRAD_SRC: unit_b(m, d, t); break;
    case WINOGRAD_DIFF_DST: unit_a(m, d, t); break;
    case WINOGRAD_STRIDED: strided_b(m, d, 2, t); break;
    case WINOGRAD_SPREAD: strided_b(m, d, 1, t); break;
    default: strided_a(m, d, t); break;
    }
    if (winograd_strided(kind))
        for (int i = 0; i < m; i++) t[WINOGRAD_ODD + i] = kind == WINOGRAD_STRIDED ? d[2 * i + 1] : d[i];
}

#define WINOGRAD_AHEAD 32 /* floats: two lines further are fetched, as so many streams are too many for the processor to foresee */

/* A row of pixels, which are `all` there or [first, last) of them, the others being zero; and a column of planes. */
VF_INLINE void winograd_read_row(const winograd_source kind, const int columns, const bool all, const float *from,
                                 int64_t step, int first, int last, float half[WINOGRAD_ALL][VF_WIDTH])
{
    vf d[WINOGRAD_ALL], t[WINOGRAD_ALL];
    for (int s = 0; s < winograd_pixels(kind, columns); s++) {
        d[s] = vf_zero();
        if (all || (s >= first && s < last)) d[s] = vf_load(from + s * step);
        if (winograd_strided(kind)) VF_FETCH(from + s * step + WINOGRAD_AHEAD);
    }
    winograd_points(kind, columns, d, t);
    for (int s = 0; s < WINOGRAD_ALL; s++)
        if (winograd_used(winograd_strided(kind), columns, s)) vf_store(half[s], t[s]);
}

VF_INLINE void winograd_read_column(const winograd_source kind, const int rows, int column,
                                    float half[WINOGRAD_ALL][WINOGRAD_ALL][VF_WIDTH], int64_t c,
                                    const cnn_winograd_planes *to)
{
    const bool strided = winograd_strided(kind);
    vf d[WINOGRAD_ALL], t[WINOGRAD_ALL];
    for (int r = 0; r < winograd_pixels(kind, rows); r++) d[r] = vf_load(half[r][column]);
    winograd_points(kind, rows, d, t);
    for (int r = 0; r < WINOGRAD_ALL; r++)
        if (winograd_used(strided, rows, r)) vf_store(winograd_plane(strided, rows, to, r, column, c), t[r]);
}

/* What is left of a row's vectors, filled up with zeros. */
static void winograd_copy_row(const cnn_winograd_pixels *from, const float *row, int width, int lanes, float *copy)
{
    for (int s = 0; s < width; s++)
        if (s >= from->first && s < from->last)
            vf_store(copy + s * VF_WIDTH, vf_load_tail(row + s * from->step, lanes));
}

/* `small`: two rows and columns. */
VF_INLINE void winograd_read(const winograd_source kind, const bool small, int rows, int columns, const cnn_winograd_pixels *from,
                             int64_t channels, const cnn_winograd_planes *to)
{
    const bool strided = winograd_strided(kind);
    float half[WINOGRAD_ALL][WINOGRAD_ALL][VF_WIDTH], copy[WINOGRAD_ALL * VF_WIDTH];
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = winograd_lanes(channels, c);
        for (int r = 0; r < winograd_pixels(kind, rows); r++) {
            const bool there = from->row[r] != NULL;
            const float *row = there ? from->row[r] + from->column + c : copy;
            int64_t step = from->step;
            if (there && lanes < VF_WIDTH) {
                winograd_copy_row(from, row, winograd_pixels(kind, columns), lanes, copy);
                row = copy, step = VF_WIDTH;
            }
            const int last = there ? from->last : 0;
            const bool all = from->first <= 0 && last >= winograd_pixels(kind, columns);
            if (small && all)
                winograd_read_row(kind, 2, true, row, step, 0, last, half[r]);
            else if (small)
                winograd_read_row(kind, 2, false, row, step, from->first, last, half[r]);
            else if (columns == 4 && all)
                winograd_read_row(kind, 4, true, row, step, 0, last, half[r]);
            else if (columns == 4)
                winograd_read_row(kind, 4, false, row, step, from->first, last, half[r]);
            else if (all)
                winograd_read_row(kind, 3, true, row, step, 0, last, half[r]);
            else
                winograd_read_row(kind, 3, false, row, step, from->first, last, half[r]);
        }
        for (int s = 0; s < winograd_end(strided, columns); s = winograd_next(strided, columns, s)) {
            if (small)
                winograd_read_column(kind, 2, s, half, c, to);
            else if (rows == 4)
                winograd_read_column(kind, 4, s, half, c, to);
            else
                winograd_read_column(kind, 3, s, half, c, to);
        }
    }
}

static void winograd_src(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                         const cnn_winograd_planes *to)
{
    winograd_read(WINOGRAD_SRC, false, rows, columns, from, channels, to);
}

static void winograd_small_src(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                               const cnn_winograd_planes *to)
{
    (void)rows, (void)columns;
    winograd_read(WINOGRAD_SRC, true, 2, 2, from, channels, to);
}

static void winograd_diff_dst(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                              const cnn_winograd_planes *to)
{
    winograd_read(WINOGRAD_DIFF_DST, false, rows, columns, from, channels, to);
}

static void winograd_strided_src(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                                 const cnn_winograd_planes *to)
{
    winograd_read(WINOGRAD_STRIDED, false, rows, columns, from, channels, to);
}

static void winograd_strided_diff_dst(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                                      const cnn_winograd_planes *to)
{
    winograd_read(WINOGRAD_STRIDED_DIFF_DST, false, rows, columns, from, channels, to);
}

static void winograd_spread_src(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                                const cnn_winograd_planes *to)
{
    winograd_read(WINOGRAD_SPREAD, false, rows, columns, from, channels, to);
}

/* ---- from planes to pixels --------------------------------------------------------------------------------------------- */

VF_INLINE bool winograd_apart(const cnn_winograd_form form)
{
    return form == CNN_WINOGRAD_STRIDED || form == CNN_WINOGRAD_SPREAD;
}

/* Pixels of m results. */
VF_INLINE int winograd_results(const cnn_winograd_form form, int m) { return form == CNN_WINOGRAD_SPREAD ? 2 * m : m; }

/* Of the transpose of stride 2: products of odd sources, each before a result. */
VF_INLINE void winograd_sums(const cnn_winograd_form form, const int m, const vf *t, vf *y)
{
    vf sum[CNN_WINOGRAD_MOST];
    if (!winograd_apart(form)) {
        unit_a_transposed(m, t, y);
        return;
    }
    strided_a_transposed(m, t, sum);
    for (int i = 0; i < m; i++) {
        if (form == CNN_WINOGRAD_SPREAD)
            y[2 * i] = t[WINOGRAD_ODD + i], y[2 * i + 1] = sum[i];
        else
            y[i] = vf_add(sum[i], t[WINOGRAD_ODD + i]);
    }
}

/* All rows of planes, and all columns of pixels. */
VF_INLINE void winograd_write_rows(const cnn_winograd_form form, const int columns, int rows,
                                   const cnn_winograd_planes *from, int64_t c,
                                   float half[WINOGRAD_ALL][2 * CNN_WINOGRAD_MOST][VF_WIDTH])
{
    const bool strided = winograd_apart(form);
    for (int r = 0; r < winograd_end(strided, rows); r = winograd_next(strided, rows, r)) {
        vf t[WINOGRAD_ALL], y[2 * CNN_WINOGRAD_MOST];
        for (int s = 0; s < WINOGRAD_ALL; s++)
            if (winograd_used(strided, columns, s)) t[s] = vf_load(winograd_plane(strided, columns, from, r, s, c));
        winograd_sums(form, columns, t, y);
        for (int s = 0; s < winograd_results(form, columns); s++) vf_store(half[r][s], y[s]);
    }
}

/* `plain`: all rows are wanted, nothing is added or clamped, and the vector is full. */
VF_INLINE void winograd_write_columns(const cnn_winograd_form form, const int rows, const bool plain, const int lanes,
                                      float half[WINOGRAD_ALL][2 * CNN_WINOGRAD_MOST][VF_WIDTH], int64_t c,
                                      const cnn_winograd_store *store)
{
    const vf low = vf_set1(store->low), high = vf_set1(store->high);
    const vf bias = store->bias == NULL ? vf_zero() : winograd_load(store->bias + c, lanes);
    for (int s = 0; s < store->columns; s++) {
        const int64_t first = s * store->column_stride + c;
        vf t[WINOGRAD_ALL], y[2 * CNN_WINOGRAD_MOST];
        for (int r = 0; r < WINOGRAD_ALL; r++)
            if (winograd_used(winograd_apart(form), rows, r)) t[r] = vf_load(half[r][s + store->skip_columns]);
        winograd_sums(form, rows, t, y);
        for (int r = 0; r < winograd_results(form, rows); r++) {
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
}

VF_INLINE void winograd_write(const cnn_winograd_form form, int rows, int columns, const cnn_winograd_planes *from,
                              int64_t channels, const cnn_winograd_store *store)
{
    const bool small = form == CNN_WINOGRAD_SMALL;
    const bool plain = store->rows == winograd_results(form, rows) && store->addend == NULL && !store->clamps;
    float half[WINOGRAD_ALL][2 * CNN_WINOGRAD_MOST][VF_WIDTH];
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = winograd_lanes(channels, c);
        if (small)
            winograd_write_rows(form, 2, 2, from, c, half);
        else if (columns == 4)
            winograd_write_rows(form, 4, rows, from, c, half);
        else
            winograd_write_rows(form, 3, rows, from, c, half);
        if (small && plain && lanes == VF_WIDTH)
            winograd_write_columns(form, 2, true, VF_WIDTH, half, c, store);
        else if (small)
            winograd_write_columns(form, 2, false, lanes, half, c, store);
        else if (plain && lanes == VF_WIDTH && rows == 4)
            winograd_write_columns(form, 4, true, VF_WIDTH, half, c, store);
        else if (plain && lanes == VF_WIDTH)
            winograd_write_columns(form, 3, true, VF_WIDTH, half, c, store);
        else if (rows == 4)
            winograd_write_columns(form, 4, false, lanes, half, c, store);
        else
            winograd_write_columns(form, 3, false, lanes, half, c, store);
    }
}

static void winograd_dst(int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                         const cnn_winograd_store *store)
{
    winograd_write(CNN_WINOGRAD_UNIT, rows, columns, from, channels, store);
}

static void winograd_small_dst(int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                               const cnn_winograd_store *store)
{
    winograd_write(CNN_WINOGRAD_SMALL, rows, columns, from, channels, store);
}

static void winograd_strided_dst(int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                                 const cnn_winograd_store *store)
{
    winograd_write(CNN_WINOGRAD_STRIDED, rows, columns, from, channels, store);
}

static void winograd_spread_dst(int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                                const cnn_winograd_store *store)
{
    winograd_write(CNN_WINOGRAD_SPREAD, rows, columns, from, channels, store);
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

VF_INLINE void winograd_weight_row(const bool strided, const int points, int row, int64_t count, const float *g, int channels, float *to,
                                   int64_t plane)
{
    const float *const factors = strided ? strided_g_rows[row] : unit_g_rows[row];
    const vf g0 = vf_set1(factors[0]), g1 = vf_set1(factors[1]), g2 = vf_set1(factors[2]);
    for (int64_t i = 0; i < count; i++, g += 9 * channels, to += channels)
        for (int c = 0; c < channels; c += VF_WIDTH) {
            vf half[3], t[CNN_WINOGRAD_POINTS];
            for (int s = 0; s < 3; s++) {
                const float *from = g + s * channels + c;
                half[s] = vf_fmadd(g2, vf_load(from + 6 * channels),
                                   vf_fmadd(g1, vf_load(from + 3 * channels), vf_mul(g0, vf_load(from))));
            }
            if (strided)
                strided_g(half, t);
            else
                unit_g(half, t);
            for (int s = 0; s < points; s++) vf_store(to + s * plane + c, t[s]);
        }
}

static void winograd_weights(int row, int64_t count, const float *g, int channels, float *to, int64_t plane)
{
    winograd_weight_row(false, CNN_WINOGRAD_POINTS, row, count, g, channels, to, plane);
}

static void winograd_small_weights(int row, int64_t count, const float *g, int channels, float *to, int64_t plane)
{
    winograd_weight_row(false, 4, row, count, g, channels, to, plane);
}

static void winograd_strided_weights(int row, int64_t count, const float *g, int channels, float *to, int64_t plane)
{
    winograd_weight_row(true, CNN_WINOGRAD_POINTS, row, count, g, channels, to, plane);
}

VF_INLINE void winograd_g_transposed(const bool strided, const vf s[CNN_WINOGRAD_POINTS], vf g[3])
{
    if (strided)
        strided_g_transposed(s, g);
    else
        unit_g_transposed(s, g);
}

VF_INLINE void winograd_filter(const bool strided, const float *from, int64_t plane, int64_t channels, float *g)
{
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = winograd_lanes(channels, c);
        vf half[CNN_WINOGRAD_POINTS][3];
        for (int r = 0; r < CNN_WINOGRAD_POINTS; r++) {
            vf s[CNN_WINOGRAD_POINTS];
            for (int i = 0; i < CNN_WINOGRAD_POINTS; i++)
                s[i] = winograd_load(from + (CNN_WINOGRAD_POINTS * r + i) * plane + c, lanes);
            winograd_g_transposed(strided, s, half[r]);
        }
        for (int s = 0; s < 3; s++) {
            vf column[CNN_WINOGRAD_POINTS], t[3];
            for (int r = 0; r < CNN_WINOGRAD_POINTS; r++) column[r] = half[r][s];
            winograd_g_transposed(strided, column, t);
            for (int r = 0; r < 3; r++) vf_store_tail(g + (3 * r + s) * channels + c, t[r], lanes);
        }
    }
}

static void winograd_diff_weights(const float *from, int64_t plane, int64_t channels, float *g)
{
    winograd_filter(false, from, plane, channels, g);
}

static void winograd_strided_diff_weights(const float *from, int64_t plane, int64_t channels, float *g)
{
    winograd_filter(true, from, plane, channels, g);
}

#define CNN_KERNELS_WINOGRAD                                                                                      \
    {                                                                                                             \
        .form = {[CNN_WINOGRAD_UNIT] = {.src = winograd_src, .diff_dst = winograd_diff_dst, .dst = winograd_dst,  \
                                        .weights = winograd_weights, .diff_weights = winograd_diff_weights},      \
                 [CNN_WINOGRAD_SMALL] = {.src = winograd_small_src, .dst = winograd_small_dst,                    \
                                         .weights = winograd_small_weights},                                      \
                 [CNN_WINOGRAD_STRIDED] = {.src = winograd_strided_src, .diff_dst = winograd_strided_diff_dst,    \
                                           .dst = winograd_strided_dst, .weights = winograd_strided_weights,      \
                                           .diff_weights = winograd_strided_diff_weights},                        \
                 [CNN_WINOGRAD_SPREAD] = {.src = winograd_spread_src, .dst = winograd_spread_dst,                 \
                                          .weights = winograd_strided_weights}},                                  \
        .multiply = winograd_multiply                                                                             \
    }
