#include "simd/inline.h"
#include "ukernels/depthwise_rows.h"

/* Columns are counted by u = column + left on the side that is padded, so that column j of the other side meets
 * u = j * step + s. An iteration takes the `step` columns u from m * step on, and completes column m - lag of dst. At the
 * ends of a row an iteration checks what lies inside; between them, in a loop of its own with offsets that run along, it does
 * not. (One loop for both ends makes two copies of an iteration in place of three: these are a fifth of all kernels.) */
#define DEPTHWISE_WIDEST 5
#define DEPTHWISE_LAG(kw, step) (((kw) - 1) / (step))

/* Channels whose floats fill a cache line: all of it is used before the next row is. */
#define DEPTHWISE_LINE (VF_WIDTH > 16 ? VF_WIDTH : 16)

/* Rows are fetched ahead, into the next row at their end: a line of channels of each pixel is all that is read, and some ten pixels
 * fill a page, so the hardware does not see far enough. Only rows that were not read for the row of dst before; not at the ends,
 * where an iteration checks; and for whole kernels of 3 columns alone, since code is space in four ISAs: what does not fetch as well
 * is there only forward, where it is a fifth faster. */

/* Weights that stay in registers; of more, each is read where it is used. */
#define DEPTHWISE_HELD (VF_WIDTH == 16 ? 25 : 9)

VF_INLINE int64_t depthwise_min(int64_t a, int64_t b) { return a < b ? a : b; }
VF_INLINE int64_t depthwise_max(int64_t a, int64_t b) { return a > b ? a : b; }

VF_INLINE bool depthwise_fetches(const int kw, const int rows, int64_t ahead) { return kw == 3 && rows == 3 && ahead != 0; }

/* What the iterations along one row share. */
typedef struct depthwise_line {
    const float *src[DEPTHWISE_WIDEST]; /* channel c of the first pixel of each row */
    const float *weights, *addend;
    float *dst;
    int64_t src_w, dst_w, left, pitch;
    int64_t src_ahead, dst_ahead; /* floats by which they are fetched ahead */
    bool clamps;
    vf start, low, high;
    vf held[DEPTHWISE_WIDEST][DEPTHWISE_WIDEST];
} depthwise_line;

VF_INLINE vf depthwise_weight(const int kw, const int rows, const depthwise_line *line, const int r, const int s)
{
    return rows * kw <= DEPTHWISE_HELD ? line->held[r][s] : vf_load(line->weights + (r * kw + s) * VF_WIDTH);
}

/* sum[(s - e) / step] += a column of src, `at` floats from where the rows begin, by the weights of every step-th column s from e. */
VF_INLINE void depthwise_column(const int kw, const int step, const int rows, const int e, const bool fetches,
                                const depthwise_line *line, const float *const *src, int64_t at, vf *sum)
{
    for (int r = 0; r < rows; r++) {
        if (fetches && r + step >= rows) VF_FETCH(src[r] + at + line->src_ahead);
        const vf x = vf_load(src[r] + at);
        for (int s = e; s < kw; s += step)
            sum[(s - e) / step] = vf_fmadd(x, depthwise_weight(kw, rows, line, r, s), sum[(s - e) / step]);
    }
}

VF_INLINE void depthwise_store(const depthwise_line *line, vf y, const float *addend, float *dst)
{
    if (addend != NULL) y = vf_add(y, vf_load(addend));
    if (line->clamps) y = vf_clamp(y, line->low, line->high);
    vf_store(dst, y);
}

VF_INLINE const float *depthwise_addend(const depthwise_line *line, int64_t at)
{
    return line->addend == NULL ? NULL : line->addend + at;
}

/* Forward. Before iteration m, sum[d] is that of column m - 1 - d of dst. */
VF_INLINE void depthwise_shift(const int lag, const depthwise_line *line, vf *sum)
{
    for (int d = lag; d > 0; d--) sum[d] = sum[d - 1];
    sum[0] = line->start;
}

/* Iteration m. */
VF_INLINE void depthwise_checked(const int kw, const int step, const int rows, const depthwise_line *line, int64_t m, vf *sum)
{
    const int lag = DEPTHWISE_LAG(kw, step);
    depthwise_shift(lag, line, sum);
    for (int e = 0; e < step; e++) {
        const int64_t column = m * step + e - line->left;
        if (column >= 0 && column < line->src_w)
            depthwise_column(kw, step, rows, e, false, line, line->src, column * line->pitch, sum);
    }
    const int64_t at = (m - lag) * line->pitch;
    if (m >= lag) depthwise_store(line, sum[lag], depthwise_addend(line, at), line->dst + at);
}

/* Iterations m .. end - 1, all inside. */
VF_INLINE void depthwise_run(const int kw, const int step, const int rows, const bool fetches, const depthwise_line *line,
                             int64_t m, int64_t end, vf *sum)
{
    const int lag = DEPTHWISE_LAG(kw, step);
    const int64_t pitch = line->pitch, ahead = lag * pitch + line->dst_ahead;
    const float *src[DEPTHWISE_WIDEST], *addend = depthwise_addend(line, (m - lag) * pitch);
    float *dst = line->dst + (m - lag) * pitch;
    for (int r = 0; r < rows; r++) src[r] = line->src[r] + (m * step - line->left) * pitch;
    int64_t at = 0;
    for (int64_t count = end - m; count > 0; count--) {
        depthwise_shift(lag, line, sum);
        for (int e = 0; e < step; e++) depthwise_column(kw, step, rows, e, fetches, line, src, at + e * pitch, sum);
        at += step * pitch;
        if (fetches) VF_FETCH_WRITE(dst + ahead);
        depthwise_store(line, sum[lag], addend, dst);
        if (addend != NULL) addend += pitch;
        dst += pitch;
    }
}

VF_INLINE void depthwise_forward_line(const int kw, const int step, const int rows, const bool fetches,
                                      const depthwise_line *line)
{
    const int lag = DEPTHWISE_LAG(kw, step);
    vf sum[DEPTHWISE_WIDEST];
    for (int d = 0; d <= lag; d++) sum[d] = line->start;
    const int64_t end = line->dst_w + lag;
    const int64_t inner = depthwise_min(depthwise_max(lag, (line->left + step - 1) / step), end);
    const int64_t outer = depthwise_min((line->src_w + line->left) / step, end);
    for (int64_t m = 0; m < end; m++) {
        if (m == inner && inner < outer) {
            depthwise_run(kw, step, rows, fetches, line, m, outer, sum);
            m = outer;
        }
        if (m < end) depthwise_checked(kw, step, rows, line, m, sum);
    }
}

/* The transpose of step 2. Before column m of src, sum[s] is that of u = 2 m + s. */
VF_INLINE void depthwise_spread_shift(const int kw, const depthwise_line *line, vf *sum)
{
    for (int s = 0; s < kw; s++) sum[s] = s + 2 < kw ? sum[s + 2] : line->start;
}

VF_INLINE void depthwise_spread_checked(const int kw, const int rows, const depthwise_line *line, int64_t m, vf *sum)
{
    if (m < line->src_w) depthwise_column(kw, 1, rows, 0, false, line, line->src, m * line->pitch, sum);
    for (int e = 0; e < 2; e++) {
        const int64_t column = 2 * m + e - line->left, at = column * line->pitch;
        if (column >= 0 && column < line->dst_w) depthwise_store(line, sum[e], depthwise_addend(line, at), line->dst + at);
    }
    depthwise_spread_shift(kw, line, sum);
}

/* Columns m .. end - 1 of src; all that they meet lies inside. */
VF_INLINE void depthwise_spread_run(const int kw, const int rows, const bool fetches, const depthwise_line *line, int64_t m,
                                    int64_t end, vf *sum)
{
    const int64_t pitch = line->pitch;
    int64_t src_at = m * pitch, dst_at = (2 * m - line->left) * pitch;
    for (; m < end; m++, src_at += pitch) {
        depthwise_column(kw, 1, rows, 0, fetches, line, line->src, src_at, sum);
        for (int e = 0; e < 2; e++, dst_at += pitch) {
            if (fetches) VF_FETCH_WRITE(line->dst + dst_at + line->dst_ahead);
            depthwise_store(line, sum[e], depthwise_addend(line, dst_at), line->dst + dst_at);
        }
        depthwise_spread_shift(kw, line, sum);
    }
}

VF_INLINE void depthwise_spread_line(const int kw, const int rows, const bool fetches, const depthwise_line *line)
{
    vf sum[DEPTHWISE_WIDEST];
    for (int s = 0; s < kw; s++) sum[s] = line->start;
    const int64_t end = (line->dst_w + line->left + 1) / 2;
    const int64_t inner = depthwise_min((line->left + 1) / 2, end);
    const int64_t outer = depthwise_min(line->src_w, (line->dst_w + line->left) / 2);
    for (int64_t m = 0; m < end; m++) {
        if (m == inner && inner < outer) {
            depthwise_spread_run(kw, rows, fetches, line, m, outer, sum);
            m = outer;
        }
        if (m < end) depthwise_spread_checked(kw, rows, line, m, sum);
    }
}

/* step 0: the transpose of step 2 */
VF_INLINE void depthwise_row(const int kw, const int step, const int rows, const cnn_depthwise_band *band,
                             const cnn_depthwise_row *row, int64_t c, const float *weights)
{
    depthwise_line line = {
        .weights = weights,
        .addend = row->addend == NULL ? NULL : row->addend + c,
        .dst = row->dst + c,
        .src_w = band->src_w,
        .dst_w = band->dst_w,
        .left = band->left,
        .pitch = band->pitch,
        .src_ahead = band->ahead * (step == 2 ? 2 : 1) * band->pitch,
        .dst_ahead = band->ahead * (step == 0 ? 2 : 1) * band->pitch,
        .clamps = band->clamps,
        .start = band->bias == NULL ? vf_zero() : vf_load(band->bias + c),
        .low = vf_set1(band->low),
        .high = vf_set1(band->high),
    };
    for (int r = 0; r < rows; r++) {
        line.src[r] = row->src + r * row->src_step + c;
        if (rows * kw <= DEPTHWISE_HELD)
            for (int s = 0; s < kw; s++) line.held[r][s] = vf_load(weights + (r * kw + s) * VF_WIDTH);
    }
    if (step == 0)
        depthwise_spread_line(kw, rows, kw == 3, &line);
    else if (depthwise_fetches(kw, rows, band->ahead))
        depthwise_forward_line(kw, step, rows, true, &line);
    else
        depthwise_forward_line(kw, step, rows, false, &line);
}

/* Channels outermost: what one row of dst has read, the next finds in the first-level cache. */
VF_INLINE void depthwise_rows(const int kw, const int step, const cnn_depthwise_band *band)
{
    const int64_t end = band->first + band->channels;
    for (int64_t line = band->first; line < end; line += DEPTHWISE_LINE)
        for (const cnn_depthwise_row *row = band->row; row < band->row + band->rows; row++)
            for (int64_t from = line; from < depthwise_min(line + DEPTHWISE_LINE, end); from += VF_WIDTH) {
                const int64_t c = depthwise_min(from, end - VF_WIDTH);
                const float *weights = row->taps == 0 ? NULL : row->weights + from / VF_WIDTH * band->weights_stride;
                switch (row->taps) {
                case 0: depthwise_row(kw, step, 0, band, row, c, weights); break;
                case 1: depthwise_row(kw, step, 1, band, row, c, weights); break;
                case 2: depthwise_row(kw, step, 2, band, row, c, weights); break;
                case 3: depthwise_row(kw, step, 3, band, row, c, weights); break;
                case 4:
                    if (kw > 3) depthwise_row(kw, step, 4, band, row, c, weights);
                    break;
                default:
                    if (kw > 3) depthwise_row(kw, step, 5, band, row, c, weights);
                    break;
                }
            }
}

static void depthwise_3_by_1(const cnn_depthwise_band *band) { depthwise_rows(3, 1, band); }
static void depthwise_3_by_2(const cnn_depthwise_band *band) { depthwise_rows(3, 2, band); }
static void depthwise_5_by_1(const cnn_depthwise_band *band) { depthwise_rows(5, 1, band); }
static void depthwise_5_by_2(const cnn_depthwise_band *band) { depthwise_rows(5, 2, band); }
static void depthwise_spread_3(const cnn_depthwise_band *band) { depthwise_rows(3, 0, band); }
static void depthwise_spread_5(const cnn_depthwise_band *band) { depthwise_rows(5, 0, band); }

/* ---- backward weights -------------------------------------------------------------------------------------------- */

#define DEPTHWISE_SUMMED 512 /* pixels whose products are summed in one go */

/* Rows of the kernel that are summed together. 3 rows of 3 make 9 sums, with 3 columns of diff_dst and one of src 13 of
 * 16 registers. */
#define DEPTHWISE_SUMMED_ROWS(kw) ((kw) == 3 ? 3 : 2)

/* Where the sums of some kernel rows come from: rows of src, and a row of diff_dst. */
typedef struct depthwise_pair {
    const float *src[DEPTHWISE_SUMMED_ROWS(3)], *diff_dst;
    int64_t src_w, dst_w, left, pitch;
    int64_t ahead; /* floats by which diff_dst is fetched ahead */
} depthwise_pair;

/* sum[r][s] += a column of src by the columns of diff_dst that see it by every step-th column s of the kernel from e. dy[d] is
 * column m - d of diff_dst. */
VF_INLINE void depthwise_sum_column(const int kw, const int step, const int rows, const int e, const bool fetches,
                                    const depthwise_pair *pair, int64_t at, const vf *dy, vf (*sum)[DEPTHWISE_WIDEST])
{
    for (int r = 0; r < rows; r++) {
        const float *src = pair->src[r] + at;
        if (fetches && r + step >= rows) VF_FETCH(src + step * pair->ahead);
        const vf x = vf_load(src);
        for (int s = e; s < kw; s += step) sum[r][s] = vf_fmadd(x, dy[(s - e) / step], sum[r][s]);
    }
}

VF_INLINE void depthwise_sum_checked(const int kw, const int step, const int rows, const depthwise_pair *pair, int64_t m,
                                     vf *dy, vf (*sum)[DEPTHWISE_WIDEST])
{
    for (int d = DEPTHWISE_LAG(kw, step); d > 0; d--) dy[d] = dy[d - 1];
    dy[0] = m < pair->dst_w ? vf_load(pair->diff_dst + m * pair->pitch) : vf_zero();
    for (int e = 0; e < step; e++) {
        const int64_t column = m * step + e - pair->left;
        if (column >= 0 && column < pair->src_w)
            depthwise_sum_column(kw, step, rows, e, false, pair, column * pair->pitch, dy, sum);
    }
}

/* Iterations m .. end - 1, all inside. */
VF_INLINE void depthwise_sum_run(const int kw, const int step, const int rows, const bool fetches, const depthwise_pair *pair,
                                 int64_t m, int64_t end, vf *dy, vf (*sum)[DEPTHWISE_WIDEST])
{
    const int64_t pitch = pair->pitch;
    int64_t src_at = (m * step - pair->left) * pitch, dst_at = m * pitch;
    for (; m < end; m++, src_at += step * pitch, dst_at += pitch) {
        for (int d = DEPTHWISE_LAG(kw, step); d > 0; d--) dy[d] = dy[d - 1];
        if (fetches) VF_FETCH(pair->diff_dst + dst_at + pair->ahead);
        dy[0] = vf_load(pair->diff_dst + dst_at);
        for (int e = 0; e < step; e++)
            depthwise_sum_column(kw, step, rows, e, fetches, pair, src_at + e * pitch, dy, sum);
    }
}

/* sums += over rows begin .. end - 1 of diff_dst, for `rows` rows of the kernel, all of which see rows inside. */
VF_INLINE void depthwise_sum_rows(const int kw, const int step, const int rows, const bool fetches,
                                  const cnn_depthwise_image *image, const cnn_depthwise_tap *tap, int64_t begin, int64_t end,
                                  int64_t c, float *sums)
{
    const int lag = DEPTHWISE_LAG(kw, step);
    vf sum[DEPTHWISE_SUMMED_ROWS(3)][DEPTHWISE_WIDEST];
    for (int r = 0; r < rows; r++)
        for (int s = 0; s < kw; s++) sum[r][s] = vf_zero();
    const int64_t pitch = image->pitch, row = image->src_w * pitch, last = image->dst_w + lag;
    depthwise_pair pair = {.src_w = image->src_w,
                           .dst_w = image->dst_w,
                           .left = image->left,
                           .pitch = pitch,
                           .ahead = image->ahead * pitch};
    const int64_t inner = depthwise_min((image->left + step - 1) / step, last);
    const int64_t outer = depthwise_min((image->src_w + image->left) / step, image->dst_w);
    for (int64_t i = begin; i < end; i++) {
        for (int r = 0; r < rows; r++) pair.src[r] = image->src + (i * image->row_step + tap[r].offset) * row + c;
        pair.diff_dst = image->diff_dst + i * image->dst_w * pitch + c;
        vf dy[DEPTHWISE_WIDEST];
        for (int d = 0; d <= lag; d++) dy[d] = vf_zero();
        for (int64_t m = 0; m < last; m++) {
            if (m == inner && inner < outer) {
                depthwise_sum_run(kw, step, rows, fetches, &pair, m, outer, dy, sum);
                m = outer;
            }
            if (m < last) depthwise_sum_checked(kw, step, rows, &pair, m, dy, sum);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int s = 0; s < kw; s++) {
            float *to = sums + ((tap->k + r) * kw + s) * VF_WIDTH;
            vf_store(to, vf_add(vf_load(to), sum[r][s]));
        }
}

/* Which taps see rows inside from row i of diff_dst on: begin .. end - 1, up to the row before the one returned. */
VF_INLINE int64_t depthwise_taps_at(const cnn_depthwise_image *image, int64_t i, int64_t *begin, int64_t *end)
{
    int64_t until = image->end;
    *begin = *end = 0;
    for (int64_t r = 0; r < image->taps; r++) {
        const cnn_depthwise_tap *tap = &image->tap[r];
        if (i < tap->begin) {
            until = depthwise_min(until, tap->begin);
        } else if (i < tap->end) {
            if (*end == 0) *begin = r;
            *end = r + 1;
            until = depthwise_min(until, tap->end);
        }
    }
    return until;
}

VF_INLINE void depthwise_sums(const int kw, const int step, const cnn_depthwise_image *image, float *sums)
{
    const int most = DEPTHWISE_SUMMED_ROWS(kw);
    const int64_t rows = DEPTHWISE_SUMMED / image->dst_w + 1, channels_end = image->first + image->channels;
    for (int64_t from = image->first; from < channels_end; from += VF_WIDTH) {
        const int64_t c = depthwise_min(from, channels_end - VF_WIDTH);
        float *to = sums + from / VF_WIDTH * image->sums_stride;
        for (int64_t i = image->begin, next; i < image->end; i = next) {
            int64_t r, end;
            next = depthwise_min(depthwise_taps_at(image, i, &r, &end), i + rows);
            for (; r + most <= end; r += most)
                depthwise_sum_rows(kw, step, most, kw == 3, image, image->tap + r, i, next, c, to);
            if (most == 3 && end - r == 2) depthwise_sum_rows(kw, step, 2, false, image, image->tap + r, i, next, c, to);
            if (end - r == 1) depthwise_sum_rows(kw, step, 1, false, image, image->tap + r, i, next, c, to);
        }
    }
}

static void depthwise_sums_3_by_1(const cnn_depthwise_image *image, float *sums) { depthwise_sums(3, 1, image, sums); }
static void depthwise_sums_3_by_2(const cnn_depthwise_image *image, float *sums) { depthwise_sums(3, 2, image, sums); }
static void depthwise_sums_5_by_1(const cnn_depthwise_image *image, float *sums) { depthwise_sums(5, 1, image, sums); }
static void depthwise_sums_5_by_2(const cnn_depthwise_image *image, float *sums) { depthwise_sums(5, 2, image, sums); }

#define CNN_KERNELS_DEPTHWISE_ROWS                                                            \
    {                                                                                         \
        .forward = {{depthwise_3_by_1, depthwise_3_by_2}, {depthwise_5_by_1, depthwise_5_by_2}}, \
        .spread = {depthwise_spread_3, depthwise_spread_5},                                   \
        .backward_weights = {{depthwise_sums_3_by_1, depthwise_sums_3_by_2},                  \
                             {depthwise_sums_5_by_1, depthwise_sums_5_by_2}},                 \
    }
