/* Layer normalization: Ba, Kiros and Hinton, "Layer Normalization", 2016.
 *
 * Memory is taken as rows of contiguous numbers that are normalized together. A rank-4 src lies channels-last. Where
 * its c, h, w are normalized, or all axes, a row is contiguous there, too, if in another order: weights and bias are
 * brought to that order. Where h, w or w alone are, src is brought to row-major, and dst back.
 *
 * Tasks are blocks of rows by segments of a row. Rows of one segment are reduced and normalized in one task, as many
 * at a time as the nearest cache holds; longer rows are reduced in a pass of their own. */
#include <string.h>

#include "ops/norm.h"
#include "ops/transpose.h"
#include "ref/ref.h"

enum {
    SEGMENT = 16384,    /* numbers of a row that are worth a task */
    SUM_FLOATS = 2048,  /* numbers that are summed in float, and read twice while in the first-level cache */
    MAX_BLOCKS = 64,    /* bounds the partial results, too */
    MIN_BLOCK_ROWS = 8, /* keeps the partial results smaller than src */
    FLOAT_ROWS = 64,    /* rows whose share in the gradient of weights is summed in float; a piece has no more */
    PIECE_FLOATS = 2048, /* numbers taken at a time, if that is more than a row */
    BAND_FLOATS = 256,   /* weights whose shares are added at a time */
    LINES = 32           /* two cache lines of floats */
};

/* How the work is cut; depends on the shape alone. */
typedef struct cut {
    int64_t rows, width; /* rows of `width` numbers */
    int64_t segments;    /* of a row */
    int64_t blocks, block_rows;
    int64_t piece; /* rows taken at a time, at most FLOAT_ROWS */
} cut;

static cut cut_of(const cnn_node *node)
{
    const cnn_shape *src = &node->src_shape[NORM_SRC];
    const int32_t outer = src->rank - node->attributes.norm.axes;
    cut c = {.rows = 1, .width = 1};
    for (int32_t i = 0; i < src->rank; i++) *(i < outer ? &c.rows : &c.width) *= src->dim[i];
    if (c.rows * c.width == 0) return c;
    c.segments = cnn_ceil_div(c.width, SEGMENT);
    c.block_rows = cnn_max_i64(cnn_ceil_div(c.rows, MAX_BLOCKS), SEGMENT / c.width);
    c.block_rows = cnn_max_i64(c.block_rows, MIN_BLOCK_ROWS);
    c.blocks = cnn_ceil_div(c.rows, c.block_rows);
    c.piece = cnn_min_i64(cnn_max_i64(PIECE_FLOATS / c.width, 1), FLOAT_ROWS);
    return c;
}

/* src is channels-last where its rows must be contiguous. */
static bool is_transposed(const cnn_node *node)
{
    return node->src_shape[NORM_SRC].rank == 4 && node->attributes.norm.axes < 3;
}

/* How weights or bias lie, [matrices][channels][length], where a row has [matrices][length][channels]. */
typedef struct order {
    int64_t matrices, channels, length;
} order;

static order order_of(const cnn_node *node, int32_t source)
{
    const cnn_shape *src = &node->src_shape[NORM_SRC];
    const int32_t axes = node->attributes.norm.axes;
    if (src->rank != 4 || axes < 3 || (axes == 4 && !node->row_major[source])) return (order){1, 1, cut_of(node).width};
    return (order){axes == 4 ? src->dim[0] : 1, src->dim[1], src->dim[2] * src->dim[3]};
}

typedef struct run {
    const struct cnn_norm_kernels *kernels;
    cut cut;
    double eps;
    double *mean, *var;          /* [rows]: what is saved */
    const float *weights, *bias; /* [width], in the order of a row; bias: forward only */
    const float *src, *diff_dst;
    float *dst;              /* backward: diff_src; NULL where not wanted */
    double *partial;         /* [rows][segments][2], of rows longer than a segment; forward: mean, m2; backward: dots */
    float *scratch;          /* [threads][2][segment] */
    double *diff_parameters; /* [blocks][2][width]: weights, bias; NULL where not wanted */
    bool stream;             /* dst is too large to stay in the caches, and its rows are aligned */
} run;

/* ---- workspace --------------------------------------------------------------------------------------------------- */

static size_t double_bytes(int64_t n)
{
    return cnn_size_align(cnn_size_mul((size_t)n, sizeof(double)));
}

static size_t partial_bytes(const cut *c)
{
    return c->segments > 1 ? double_bytes(c->rows * c->segments * 2) : 0;
}

static size_t scratch_bytes(const cut *c, int32_t threads)
{
    return cnn_float_bytes(threads * 2 * cnn_min_i64(c->width, SEGMENT));
}

static size_t diff_parameters_bytes(const cnn_node *node, const cut *c)
{
    const bool any = node->present[NORM_WEIGHTS] || node->present[NORM_BIAS];
    return any ? cnn_size_mul((size_t)c->blocks, double_bytes(2 * c->width)) : 0;
}

static size_t workspace(const cnn_node *node, bool backward, int32_t threads)
{
    const cut c = cut_of(node);
    const size_t copy = is_transposed(node) ? cnn_float_bytes(c.rows * c.width) : 0;
    size_t bytes = cnn_size_add(cnn_size_mul(2, cnn_float_bytes(c.width)), cnn_size_add(partial_bytes(&c), copy));
    if (backward) {
        bytes = cnn_size_add(bytes, cnn_size_add(scratch_bytes(&c, threads), diff_parameters_bytes(node, &c)));
        bytes = cnn_size_add(bytes, copy);
    }
    return cnn_norm_workspace(bytes, c.rows, c.width);
}

static size_t saved(const cnn_node *node)
{
    return cnn_norm_saved_bytes(cut_of(node).rows);
}

/* Weights or bias in the order of a row; absent ones are all `otherwise`. */
static const float *parameter(const cnn_call *call, int32_t source, float otherwise, char **cursor)
{
    const order o = order_of(call->node, source);
    const int64_t width = cut_of(call->node).width;
    if (call->src[source] != NULL && o.channels == 1) return call->src[source];
    float *made = cnn_take(cursor, cnn_float_bytes(width));
    if (call->src[source] == NULL)
        for (int64_t i = 0; i < width; i++) made[i] = otherwise;
    else
        cnn_transpose(call->threads, o.matrices, o.channels, o.length, call->src[source], made);
    return made;
}

/* src or diff_dst with contiguous rows. */
static float *take_rows(const cnn_call *call, const void *memory, char **cursor)
{
    const cnn_image i = cnn_image_of(&call->node->src_shape[NORM_SRC]);
    float *rows = cnn_take(cursor, cnn_float_bytes(i.n * i.c * i.h * i.w));
    cnn_transpose(call->threads, i.n, i.h * i.w, i.c, memory, rows);
    return rows;
}

static void put_rows(const cnn_call *call, const float *rows, void *memory)
{
    const cnn_image i = cnn_image_of(&call->node->src_shape[NORM_SRC]);
    cnn_transpose(call->threads, i.n, i.c, i.h * i.w, rows, memory);
}

static run run_of(const cnn_call *call, char **cursor)
{
    run r = {.kernels = &call->node->kernels->norm,
             .cut = cut_of(call->node),
             .eps = call->node->attributes.norm.eps,
             .mean = call->saved,
             .src = call->src[NORM_SRC]};
    r.var = r.mean + r.cut.rows;
    r.weights = parameter(call, NORM_WEIGHTS, 1.0f, cursor);
    r.partial = cnn_take(cursor, partial_bytes(&r.cut));
    return r;
}

static bool streams(const run *r, int64_t tensors)
{
    const size_t vector = (size_t)CNN_ALIGNMENT;
    return cnn_norm_streams(r->cut.rows * r->cut.width, tensors) && (size_t)r->cut.width * sizeof(float) % vector == 0 &&
           (uintptr_t)r->dst % vector == 0;
}

static int32_t threads_for(const cnn_call *call, double ns_per_element)
{
    return cnn_useful_threads(call->threads, ns_per_element * (double)cnn_shape_count(&call->node->dst_shape));
}

/* ---- the cut ----------------------------------------------------------------------------------------------------- */

/* The numbers in a segment of a row and, in *offset, where they start in src. */
static int64_t segment_of(const run *r, int64_t row, int64_t segment, int64_t *offset)
{
    *offset = row * r->cut.width + segment * SEGMENT;
    return cnn_min_i64(SEGMENT, r->cut.width - segment * SEGMENT);
}

static double *partial_of(const run *r, int64_t row, int64_t segment)
{
    return r->partial + (row * r->cut.segments + segment) * 2;
}

/* Rows that are taken at a time, and what they have. */
typedef struct piece {
    int64_t row, rows;
    float mean[FLOAT_ROWS], scale[FLOAT_ROWS], shift[FLOAT_ROWS]; /* xhat = scale (x - mean) + shift */
    float b[FLOAT_ROWS], c[FLOAT_ROWS];                           /* of struct cnn_norm_row_backward */
    double inverse_std[FLOAT_ROWS];
} piece;

/* Shift makes up for the rounding of the mean to float. */
static void set_xhat(piece *p, int64_t i, double mean, double inverse_std)
{
    p->inverse_std[i] = inverse_std;
    p->mean[i] = (float)mean;
    p->scale[i] = (float)inverse_std;
    p->shift[i] = (float)(((double)p->mean[i] - mean) * inverse_std);
}

/* As many rows as the piece has lie behind it, and are the next. */
static bool next_piece_follows(const run *r, const piece *p, int64_t end)
{
    return r->cut.segments == 1 && p->row + 2 * p->rows <= end;
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

/* The pivot is the mean but for rounding; the first moment about it says how far off it is. */
static cnn_moments moments_about(double count, float pivot, float first, float second)
{
    const double off = (double)first / count;
    return (cnn_moments){count, (double)pivot + off, (double)second - off * (double)first};
}

static cnn_moments segment_moments(const run *r, int64_t row, int64_t segment)
{
    cnn_moments all = {0.0, 0.0, 0.0};
    int64_t offset;
    const int64_t n = segment_of(r, row, segment, &offset);
    for (int64_t done = 0; done < n; done += SUM_FLOATS) {
        const int64_t count = cnn_min_i64(SUM_FLOATS, n - done);
        float pivot, first, second;
        r->kernels->row_moments(1, count, r->src + offset + done, &pivot, &first, &second);
        all = cnn_moments_merge(all, moments_about((double)count, pivot, first, second));
    }
    return all;
}

static void moments_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const run *r = arg;
    const int64_t row = task / r->cut.segments, segment = task % r->cut.segments;
    const cnn_moments moments = segment_moments(r, row, segment);
    double *partial = partial_of(r, row, segment);
    partial[0] = moments.mean;
    partial[1] = moments.m2;
}

static cnn_moments row_moments(const run *r, int64_t row)
{
    if (r->cut.segments == 1) return segment_moments(r, row, 0);
    cnn_moments all = {0.0, 0.0, 0.0};
    for (int64_t segment = 0; segment < r->cut.segments; segment++) {
        int64_t offset;
        const double *partial = partial_of(r, row, segment);
        const double count = (double)segment_of(r, row, segment, &offset);
        all = cnn_moments_merge(all, (cnn_moments){count, partial[0], partial[1]});
    }
    return all;
}

/* Saves the statistics of a piece's rows and brings them into the form that the kernel takes. */
static void reduce_piece(const run *r, piece *p)
{
    float first[FLOAT_ROWS], second[FLOAT_ROWS];
    const bool together = p->rows > 1;
    if (together)
        r->kernels->row_moments(p->rows, r->cut.width, r->src + p->row * r->cut.width, p->mean, first, second);
    for (int64_t i = 0; i < p->rows; i++) {
        const int64_t row = p->row + i;
        const cnn_moments moments = together
                                        ? moments_about((double)r->cut.width, p->mean[i], first[i], second[i])
                                        : row_moments(r, row);
        r->mean[row] = moments.mean;
        r->var[row] = cnn_moments_var(moments);
        set_xhat(p, i, moments.mean, cnn_norm_inverse_std(r->var[row], r->eps));
    }
}

static void forward_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const run *r = arg;
    const int64_t segment = task % r->cut.segments, begin = task / r->cut.segments * r->cut.block_rows;
    const int64_t end = cnn_min_i64(begin + r->cut.block_rows, r->cut.rows);
    piece p;
    for (p.row = begin; p.row < end; p.row += p.rows) {
        p.rows = cnn_min_i64(r->cut.piece, end - p.row);
        reduce_piece(r, &p);
        int64_t offset;
        const int64_t n = segment_of(r, p.row, segment, &offset), column = segment * SEGMENT;
        const struct cnn_norm_row_forward f = {.rows = p.rows,
                                               .n = n,
                                               .src = r->src + offset,
                                               .mean = p.mean,
                                               .scale = p.scale,
                                               .shift = p.shift,
                                               .weights = r->weights + column,
                                               .bias = r->bias + column,
                                               .stream = r->stream,
                                               .fetch = next_piece_follows(r, &p, end),
                                               .dst = r->dst + offset};
        r->kernels->row_forward(&f);
    }
}

static cnn_status forward(const cnn_call *call)
{
    char *cursor = call->workspace;
    run r = run_of(call, &cursor);
    r.bias = parameter(call, NORM_BIAS, 0.0f, &cursor);
    r.dst = call->dst;
    if (is_transposed(call->node)) r.src = r.dst = take_rows(call, r.src, &cursor);
    r.stream = streams(&r, 2);
    const int32_t threads = threads_for(call, 0.5);
    if (r.cut.segments > 1) cnn_parallel(threads, r.cut.rows * r.cut.segments, moments_task, &r);
    cnn_parallel(threads, r.cut.blocks * r.cut.segments, forward_task, &r);
    if (is_transposed(call->node)) put_rows(call, r.dst, call->dst);
    return CNN_OK;
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* sum w dy and sum w dy (x - mean) */
typedef struct dots {
    double constant, deviation;
} dots;

static dots segment_dots(const run *r, int64_t row, int64_t segment)
{
    dots all = {0.0, 0.0};
    int64_t offset;
    const int64_t n = segment_of(r, row, segment, &offset);
    const float *weights = r->weights + segment * SEGMENT, mean = (float)r->mean[row];
    for (int64_t done = 0; done < n; done += SUM_FLOATS) {
        float sum, dot;
        r->kernels->row_dots(1, cnn_min_i64(SUM_FLOATS, n - done), r->src + offset + done,
                             r->diff_dst + offset + done, weights + done, &mean, &sum, &dot);
        all.constant += (double)sum;
        all.deviation += (double)dot;
    }
    return all;
}

static void dots_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const run *r = arg;
    const int64_t row = task / r->cut.segments, segment = task % r->cut.segments;
    const dots d = segment_dots(r, row, segment);
    double *partial = partial_of(r, row, segment);
    partial[0] = d.constant;
    partial[1] = d.deviation;
}

static dots row_dots(const run *r, int64_t row)
{
    if (r->cut.segments == 1) return segment_dots(r, row, 0);
    dots all = {0.0, 0.0};
    for (int64_t segment = 0; segment < r->cut.segments; segment++) {
        all.constant += partial_of(r, row, segment)[0];
        all.deviation += partial_of(r, row, segment)[1];
    }
    return all;
}

/* b and c of
 *
 *   diff_src = 1/std (w dy - E[w dy] - xhat E[w dy xhat]),   xhat = (x - mean) / std,   expectations over the row */
static void reduce_gradient(const run *r, piece *p)
{
    float sum[FLOAT_ROWS], dot[FLOAT_ROWS];
    const bool together = p->rows > 1;
    const int64_t offset = p->row * r->cut.width;
    const double width = (double)r->cut.width;
    if (together)
        r->kernels->row_dots(p->rows, r->cut.width, r->src + offset, r->diff_dst + offset, r->weights, p->mean, sum,
                             dot);
    for (int64_t i = 0; i < p->rows; i++) {
        const dots d = together ? (dots){(double)sum[i], (double)dot[i]} : row_dots(r, p->row + i);
        const double inverse_std = p->inverse_std[i];
        /* The kernel's mean was rounded. */
        const double deviation = d.deviation - (r->mean[p->row + i] - (double)p->mean[i]) * d.constant;
        p->b[i] = (float)(-inverse_std * inverse_std * deviation / width);
        p->c[i] = (float)(-inverse_std * d.constant / width);
    }
}

/* total += sums, sums = 0 */
static void flush(int64_t n, float *sums, double *total)
{
    for (int64_t i = 0; i < n; i++) {
        total[i] += (double)sums[i];
        sums[i] = 0.0f;
    }
}

static void backward_task(void *arg, int64_t task, int32_t thread)
{
    const run *r = arg;
    const int64_t block = task / r->cut.segments, segment = task % r->cut.segments;
    const int64_t begin = block * r->cut.block_rows, end = cnn_min_i64(begin + r->cut.block_rows, r->cut.rows);
    int64_t offset;
    const int64_t n = segment_of(r, begin, segment, &offset);
    float *dw = r->scratch + thread * 2 * cnn_min_i64(r->cut.width, SEGMENT), *db = dw + n;
    double *total_dw = NULL, *total_db = NULL;
    if (r->diff_parameters != NULL) {
        total_dw = r->diff_parameters + block * 2 * r->cut.width + segment * SEGMENT;
        total_db = total_dw + r->cut.width;
        memset(dw, 0, (size_t)(2 * n) * sizeof *dw);
        memset(total_dw, 0, (size_t)n * sizeof *total_dw);
        memset(total_db, 0, (size_t)n * sizeof *total_db);
    }
    int64_t summed = 0; /* rows in dw and db */
    piece p;
    for (p.row = begin; p.row < end; p.row += p.rows) {
        p.rows = cnn_min_i64(r->cut.piece, end - p.row);
        for (int64_t i = 0; i < p.rows; i++)
            set_xhat(&p, i, r->mean[p.row + i], cnn_norm_inverse_std(r->var[p.row + i], r->eps));
        if (r->dst != NULL) reduce_gradient(r, &p);
        (void)segment_of(r, p.row, segment, &offset);
        const struct cnn_norm_row_backward f = {.rows = p.rows,
                                                .n = n,
                                                .src = r->src + offset,
                                                .diff_dst = r->diff_dst + offset,
                                                .mean = p.mean,
                                                .scale = p.scale,
                                                .shift = p.shift,
                                                .b = p.b,
                                                .c = p.c,
                                                .weights = r->weights + segment * SEGMENT,
                                                .stream = r->stream,
                                                .fetch = next_piece_follows(r, &p, end),
                                                .diff_src = r->dst == NULL ? NULL : r->dst + offset,
                                                .diff_weights = r->diff_parameters == NULL ? NULL : dw,
                                                .diff_bias = r->diff_parameters == NULL ? NULL : db};
        r->kernels->row_backward(&f);
        summed += p.rows;
        if (r->diff_parameters != NULL && (summed + r->cut.piece > FLOAT_ROWS || p.row + p.rows == end)) {
            flush(n, dw, total_dw);
            flush(n, db, total_db);
            summed = 0;
        }
    }
}

/* The blocks' shares in the gradient of weights or bias, to be added in the order of the blocks. */
typedef struct addition {
    const run *run;
    const double *shares; /* of the first block */
    order order;
    int64_t band, bands; /* of a matrix's length */
    float *diff;
} addition;

static void add_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const addition *a = arg;
    const order o = a->order;
    const int64_t matrix = task / a->bands, begin = task % a->bands * a->band;
    const int64_t end = cnn_min_i64(begin + a->band, o.length);
    float *diff = a->diff + matrix * o.channels * o.length;
    int64_t i = begin, c = 0;
    for (int64_t done = begin * o.channels; done < end * o.channels; done += BAND_FLOATS) {
        const int64_t count = cnn_min_i64(BAND_FLOATS, end * o.channels - done);
        const double *share = a->shares + matrix * o.length * o.channels + done;
        double total[BAND_FLOATS] = {0.0};
        for (int64_t block = 0; block < a->run->cut.blocks; block++, share += 2 * a->run->cut.width)
            for (int64_t k = 0; k < count; k++) total[k] += share[k];
        for (int64_t k = 0; k < count; k++) {
            diff[c * o.length + i] += (float)total[k];
            if (++c < o.channels) continue;
            c = 0;
            i++;
        }
    }
}

/* diff += the gradient of source `source`. */
static void add_shares(const run *r, const cnn_call *call, int32_t source)
{
    if (call->diff_src[source] == NULL) return;
    addition a = {.run = r,
                  .shares = r->diff_parameters + (source == NORM_BIAS ? r->cut.width : 0),
                  .order = order_of(call->node, source),
                  .diff = call->diff_src[source]};
    a.band = cnn_max_i64(BAND_FLOATS / a.order.channels, LINES); /* no two tasks write into one cache line, or few */
    a.bands = cnn_ceil_div(a.order.length, a.band);
    const double work = (double)r->cut.width * (double)r->cut.blocks;
    cnn_parallel(cnn_useful_threads(call->threads, work), a.order.matrices * a.bands, add_task, &a);
}

static cnn_status backward(const cnn_call *call)
{
    char *cursor = call->workspace;
    run r = run_of(call, &cursor);
    r.scratch = cnn_take(&cursor, scratch_bytes(&r.cut, call->threads));
    if (call->diff_src[NORM_WEIGHTS] != NULL || call->diff_src[NORM_BIAS] != NULL)
        r.diff_parameters = cnn_take(&cursor, diff_parameters_bytes(call->node, &r.cut));
    r.diff_dst = call->diff_dst;
    r.dst = call->diff_src[NORM_SRC];
    if (is_transposed(call->node)) {
        float *diff = take_rows(call, r.diff_dst, &cursor);
        r.src = take_rows(call, r.src, &cursor);
        r.diff_dst = diff;
        if (r.dst != NULL) r.dst = diff;
    }
    r.stream = r.dst != NULL && streams(&r, 3);
    const int32_t threads = threads_for(call, 1.0);
    if (r.cut.segments > 1 && r.dst != NULL) cnn_parallel(threads, r.cut.rows * r.cut.segments, dots_task, &r);
    cnn_parallel(threads, r.cut.blocks * r.cut.segments, backward_task, &r);
    if (r.dst != NULL && is_transposed(call->node)) put_rows(call, r.dst, call->diff_src[NORM_SRC]);
    add_shares(&r, call, NORM_WEIGHTS);
    add_shares(&r, call, NORM_BIAS);
    return CNN_OK;
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

static cnn_status infer(cnn_node *node)
{
    const int32_t axes = node->attributes.norm.axes;
    const cnn_shape *src = &node->src_shape[NORM_SRC];
    char got[CNN_SHAPE_TEXT], wanted[CNN_SHAPE_TEXT];
    CNN_TRY(cnn_norm_check(node, 1, CNN_MAX_RANK));
    if (axes < 1 || axes > src->rank)
        return cnn_fail(CNN_INVALID_VALUE, "normalized_shape: got %d dimensions, expected 1 to %d, as x %s has", axes,
                        src->rank, cnn_shape_text(src, got));
    cnn_shape normalized = {.rank = axes};
    for (int32_t i = 0; i < axes; i++) normalized.dim[i] = src->dim[src->rank - axes + i];
    const cnn_shape *weight = &node->src_shape[NORM_WEIGHTS];
    /* The weight came with the layer, so it is x that does not fit it. */
    if (node->present[NORM_WEIGHTS] && weight->rank == axes && !cnn_shape_equal(weight, &normalized))
        return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s, expected its last dimensions to be normalized_shape %s",
                        cnn_shape_text(src, got), cnn_shape_text(weight, wanted));
    CNN_TRY(cnn_check_working_type(node, NORM_WEIGHTS, "weight"));
    CNN_TRY(cnn_check_working_type(node, NORM_BIAS, "bias"));
    CNN_TRY(cnn_check_shape(node, NORM_WEIGHTS, "weight", &normalized));
    CNN_TRY(cnn_check_shape(node, NORM_BIAS, "bias", &normalized));
    node->dst_shape = *src;
    return CNN_OK;
}

const cnn_op_row cnn_op_layer_norm = {
    .name = "layer_norm",
    .fields = cnn_fields_norm,
    .min_sources = 1,
    .max_sources = 3,
    .optional = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .keeps_src = SRC(NORM_SRC) | SRC(NORM_WEIGHTS),
    .accumulates = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .in_place = SRC(NORM_SRC),
    .parameters = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .infer = infer,
    .saved = saved,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .reference_forward = cnn_ref_layer_norm_forward,
    .reference_backward = cnn_ref_layer_norm_backward,
};
