/* Normalization by channel over memory [samples][rows][channels].
 *
 * A sample is cut into chunks of rows, a chunk into blocks that stay in cache while they are read twice: once for the
 * mean, once for the squared deviations from it. Blocks, then chunks, are merged in double and in order
 * (cnn_moments_merge). After that a normalization and its gradient are, with coefficients of each column,
 *
 *   dst = scale (src - mean) + shift,   diff_src = a diff_dst + b (src - mean) + c,
 *
 * where mean is rounded to float, and shift and c make up for it: src may lie far from zero.
 *
 * Small samples are one chunk each and finish in one task, while they are in cache; large ones take two parallel passes
 * with the merging between them.
 *
 * With few channels a row would not fill vectors: `fold` rows are then taken as one row of `width` columns, and the
 * copies of a channel in it are merged like blocks. */
#include "ops/norm_columns.h"
#include "ops/transpose.h"

#include <string.h>

enum {
    WIDE = 64,            /* columns from which on nothing is folded */
    BLOCK_FLOATS = 32768, /* a block, 128 KiB: fits a second-level cache beside what streams through it */
    MIN_BLOCK = 32,       /* folded rows: fewer would merge too often */
    MAX_BLOCK = 256,      /* folded rows: more would lose accuracy in float sums */
    CHUNK_FLOATS = 65536, /* work worth a task */
    MAX_TASKS = 64,       /* bounds the partial results, too */
    MANY_SAMPLES = 16     /* samples from which on they are tasks enough */
};

/* How the work is cut; depends on the shape alone. */
typedef struct cut {
    int64_t fold, width;
    int64_t block_rows;         /* a multiple of fold */
    int64_t chunks, chunk_rows; /* of a sample; a multiple of block_rows */
    int64_t parts, part_samples;
    bool fused; /* a task does all of part_samples samples; else chunks of them */
} cut;

static cut cut_of(const cnn_norm_columns *view)
{
    cut c = {.fold = 1, .part_samples = 1};
    const int64_t sample_floats = cnn_max_i64(view->rows * view->channels, 1);
    while (c.fold * view->channels < WIDE) c.fold *= 2;
    c.width = c.fold * view->channels;
    c.block_rows = c.fold * cnn_min_i64(cnn_max_i64(BLOCK_FLOATS / c.width, MIN_BLOCK), MAX_BLOCK);
    int64_t chunks = 1;
    if (view->samples < MANY_SAMPLES)
        chunks = cnn_max_i64(cnn_min_i64(sample_floats / CHUNK_FLOATS, MAX_TASKS / view->samples), 1);
    c.chunk_rows = cnn_ceil_div(cnn_ceil_div(view->rows, chunks), c.block_rows) * c.block_rows;
    c.chunks = cnn_ceil_div(view->rows, c.chunk_rows);
    c.fused = c.chunks == 1 && !view->constant;
    if (c.fused)
        c.part_samples = cnn_max_i64(cnn_ceil_div(view->samples, MAX_TASKS),
                                     cnn_min_i64(cnn_max_i64(CHUNK_FLOATS / sample_floats, 1), view->samples));
    c.parts = cnn_ceil_div(view->samples, c.part_samples);
    return c;
}

typedef struct run run;

/* The steps of a pass. Offsets and rows say where a chunk lies in src, diff_dst and dst. */
typedef struct pass {
    /* sums = those of a chunk; NULL: the pass needs none. */
    void (*reduce)(const run *r, int64_t sample, int64_t offset, int64_t rows, float *scratch, double *sums);
    /* total, of `count` rows so far, += part, of `rows` rows. */
    void (*merge)(const run *r, int64_t count, double *total, int64_t rows, const double *part);
    /* coefficients = those that a sample's sums lead to. */
    void (*finish)(const run *r, int64_t sample, const double *sums, double *diff_parameters, float *coefficients);
    /* dst = what the coefficients make of a chunk. */
    void (*apply)(const run *r, int64_t offset, int64_t rows, const float *coefficients);
} pass;

/* A pass at work. Fused, sums and coefficients have a slot for each thread; else for each chunk and each sample. */
struct run {
    const cnn_norm_columns *view;
    const pass *pass;
    const struct cnn_norm_kernels *kernels;
    cut cut;
    double eps;
    const float *weights, *bias; /* NULL: ones, zeros */
    double *mean, *var;          /* [samples][groups]: what is saved */
    const float *src, *diff_dst;
    float *dst;              /* backward: diff_src; NULL where not wanted */
    float *scratch;          /* [threads][3][width] */
    double *sums;            /* [slots][2][channels] */
    float *coefficients;     /* [slots][4][width] */
    double *diff_parameters; /* [parts][2][channels]: weights, bias; backward only */
};

cnn_norm_columns cnn_norm_columns_of(const cnn_node *node, bool per_image, int64_t groups)
{
    const int64_t images = node->src_shape[NORM_SRC].dim[0], rows = cnn_norm_per_channel(node);
    return (cnn_norm_columns){
        .samples = per_image ? images : 1,
        .rows = per_image && images > 0 ? rows / images : rows,
        .channels = cnn_norm_channels(node),
        .groups = groups,
        .matrices = node->src_shape[NORM_SRC].rank == 3 ? images : 0,
    };
}

/* ---- workspace --------------------------------------------------------------------------------------------------- */

static size_t double_bytes(int64_t n)
{
    return cnn_size_align(cnn_size_mul((size_t)n, sizeof(double)));
}

static size_t scratch_bytes(const cut *c, int32_t threads)
{
    return cnn_float_bytes(threads * 3 * c->width);
}

static size_t sums_bytes(const cnn_norm_columns *view, const cut *c, int32_t threads)
{
    return double_bytes((c->fused ? threads : view->samples * c->chunks) * 2 * view->channels);
}

static size_t coefficients_bytes(const cnn_norm_columns *view, const cut *c, int32_t threads)
{
    return cnn_float_bytes((c->fused ? threads : view->samples) * 4 * c->width);
}

static size_t columns_bytes(const cnn_norm_columns *view)
{
    return view->matrices == 0 ? 0 : cnn_float_bytes(view->samples * view->rows * view->channels);
}

size_t cnn_norm_columns_workspace(const cnn_norm_columns *view, bool backward, int32_t threads)
{
    if (view->samples * view->rows * view->channels == 0) return 0;
    const cut c = cut_of(view);
    size_t bytes = cnn_size_add(scratch_bytes(&c, threads), sums_bytes(view, &c, threads));
    bytes = cnn_size_add(bytes, coefficients_bytes(view, &c, threads));
    bytes = cnn_size_add(bytes, columns_bytes(view));
    if (!backward) return bytes;
    bytes = cnn_size_add(bytes, double_bytes(c.parts * 2 * view->channels));
    return cnn_size_add(bytes, columns_bytes(view));
}

static run run_of(const cnn_norm_columns *view, const pass *steps, const cnn_call *call, char **workspace)
{
    run r = {.view = view,
             .pass = steps,
             .kernels = &call->node->kernels->norm,
             .cut = cut_of(view),
             .eps = call->node->attributes.norm.eps,
             .weights = call->src[NORM_WEIGHTS],
             .bias = call->src[NORM_BIAS],
             .mean = call->saved,
             .src = call->src[NORM_SRC]};
    r.var = r.mean + view->samples * view->groups;
    r.scratch = cnn_take(workspace, scratch_bytes(&r.cut, call->threads));
    r.sums = cnn_take(workspace, sums_bytes(view, &r.cut, call->threads));
    r.coefficients = cnn_take(workspace, coefficients_bytes(view, &r.cut, call->threads));
    return r;
}

/* The columns of memory [matrices][channels][length], made in the workspace. */
static float *take_columns(const cnn_norm_columns *view, const float *memory, int32_t threads, char **workspace)
{
    float *columns = cnn_take(workspace, columns_bytes(view));
    const int64_t length = view->samples * view->rows / view->matrices;
    cnn_transpose(threads, view->matrices, view->channels, length, memory, columns);
    return columns;
}

static void put_columns(const cnn_norm_columns *view, const float *columns, int32_t threads, float *memory)
{
    const int64_t length = view->samples * view->rows / view->matrices;
    cnn_transpose(threads, view->matrices, length, view->channels, columns, memory);
}

/* ---- running a pass ---------------------------------------------------------------------------------------------- */

static float *scratch_of(const run *r, int32_t thread)
{
    return r->scratch + thread * 3 * r->cut.width;
}

static double *sums_of(const run *r, int64_t slot)
{
    return r->sums + slot * 2 * r->view->channels;
}

static float *coefficients_of(const run *r, int64_t slot)
{
    return r->coefficients + slot * 4 * r->cut.width;
}

static double *diff_parameters_of(const run *r, int64_t part)
{
    return r->diff_parameters == NULL ? NULL : r->diff_parameters + part * 2 * r->view->channels;
}

static void part_task(void *arg, int64_t part, int32_t thread)
{
    const run *r = arg;
    const int64_t rows = r->view->rows, begin = part * r->cut.part_samples;
    const int64_t end = cnn_min_i64(begin + r->cut.part_samples, r->view->samples);
    double *sums = sums_of(r, thread);
    float *coefficients = coefficients_of(r, thread);
    for (int64_t sample = begin; sample < end; sample++) {
        const int64_t offset = sample * rows * r->view->channels;
        r->pass->reduce(r, sample, offset, rows, scratch_of(r, thread), sums);
        r->pass->finish(r, sample, sums, diff_parameters_of(r, part), coefficients);
        if (r->dst != NULL) r->pass->apply(r, offset, rows, coefficients);
    }
}

/* The rows of a chunk and, in *offset, where they start. */
static int64_t chunk_of(const run *r, int64_t sample, int64_t chunk, int64_t *offset)
{
    const int64_t begin = chunk * r->cut.chunk_rows;
    *offset = (sample * r->view->rows + begin) * r->view->channels;
    return cnn_min_i64(r->cut.chunk_rows, r->view->rows - begin);
}

static void reduce_task(void *arg, int64_t task, int32_t thread)
{
    const run *r = arg;
    const int64_t sample = task / r->cut.chunks;
    int64_t offset;
    const int64_t rows = chunk_of(r, sample, task % r->cut.chunks, &offset);
    r->pass->reduce(r, sample, offset, rows, scratch_of(r, thread), sums_of(r, task));
}

static void apply_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const run *r = arg;
    const int64_t sample = task / r->cut.chunks;
    int64_t offset;
    const int64_t rows = chunk_of(r, sample, task % r->cut.chunks, &offset);
    r->pass->apply(r, offset, rows, coefficients_of(r, sample));
}

/* Merges the chunks of a sample into its first. */
static double *merged_sums(const run *r, int64_t sample)
{
    double *total = sums_of(r, sample * r->cut.chunks);
    if (r->pass->reduce == NULL) return total;
    int64_t count = cnn_min_i64(r->cut.chunk_rows, r->view->rows);
    for (int64_t chunk = 1; chunk < r->cut.chunks; chunk++) {
        int64_t offset;
        const int64_t rows = chunk_of(r, sample, chunk, &offset);
        r->pass->merge(r, count, total, rows, sums_of(r, sample * r->cut.chunks + chunk));
        count += rows;
    }
    return total;
}

static void run_pass(const run *r, int32_t threads)
{
    const int64_t samples = r->view->samples, tasks = samples * r->cut.chunks;
    const double elements = (double)samples * (double)r->view->rows * (double)r->view->channels;
    const int32_t useful = cnn_useful_threads(threads, 0.5 * elements);
    if (r->cut.fused) {
        cnn_parallel(useful, r->cut.parts, part_task, (void *)r);
        return;
    }
    if (r->pass->reduce != NULL) cnn_parallel(useful, tasks, reduce_task, (void *)r);
    for (int64_t sample = 0; sample < samples; sample++)
        r->pass->finish(r, sample, merged_sums(r, sample), diff_parameters_of(r, sample), coefficients_of(r, sample));
    if (r->dst != NULL) cnn_parallel(useful, tasks, apply_task, (void *)r);
}

/* ---- what both directions need ----------------------------------------------------------------------------------- */

static double weight_of(const run *r, int64_t channel)
{
    return r->weights == NULL ? 1.0 : (double)r->weights[channel];
}

/* Copies a row's first `channels` elements to the rest of its `width`. */
static void repeat(const run *r, float *row)
{
    const int64_t channels = r->view->channels;
    for (int64_t copy = 1; copy < r->cut.fold; copy++)
        memcpy(row + copy * channels, row, (size_t)channels * sizeof *row);
}

/* The next block of a chunk with `left` rows to go: its rows, each of *copies of src's. */
static int64_t next_block(const run *r, int64_t left, int64_t *copies)
{
    *copies = cnn_min_i64(r->cut.fold, left); /* the last rows may be too few for a folded one */
    return cnn_min_i64(r->cut.block_rows, left) / *copies;
}

/* dst = scale (from - mean) + shift. The last rows may be too few for a folded one. */
static void affine(const run *r, const float *from, int64_t offset, int64_t rows, const float *mean)
{
    const int64_t width = r->cut.width, folded = rows / r->cut.fold, left = rows % r->cut.fold;
    const int64_t rest = offset + folded * width;
    const float *scale = mean + width, *shift = scale + width;
    r->kernels->column_affine(folded, width, from + offset, mean, scale, shift, r->dst + offset);
    if (left > 0)
        r->kernels->column_affine(1, left * r->view->channels, from + rest, mean, scale, shift, r->dst + rest);
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

/* Merges a block, `rows` rows of `copies` times the channels, into mean and m2, which are of `count` rows. */
static void merge_block(const run *r, int64_t rows, int64_t copies, const float *x, float *scratch, int64_t count,
                        double *mean, double *m2)
{
    const int64_t channels = r->view->channels, width = copies * channels;
    float *pivot = scratch, *first = pivot + r->cut.width, *second = first + r->cut.width;
    const double inverse = 1.0 / (double)rows;
    r->kernels->column_sums(rows, width, x, pivot);
    for (int64_t j = 0; j < width; j++) pivot[j] *= (float)inverse;
    r->kernels->column_moments(rows, width, x, pivot, first, second);
    for (int64_t copy = 0; copy < copies; copy++, count += rows) {
        const double share = (double)rows / (double)(count + rows), between = (double)count * share;
        for (int64_t c = 0; c < channels; c++, pivot++, first++, second++) {
            /* The pivot is the block's mean but for rounding; the first moment about it says how far off it is. */
            const double offset = (double)*first * inverse, delta = (double)*pivot + offset - mean[c];
            mean[c] += delta * share;
            m2[c] += (double)*second - offset * (double)*first + delta * delta * between;
        }
    }
}

/* sums: mean and m2 of each channel. */
static void reduce_moments(const run *r, int64_t sample, int64_t offset, int64_t rows, float *scratch, double *sums)
{
    (void)sample;
    const int64_t channels = r->view->channels;
    memset(sums, 0, (size_t)(2 * channels) * sizeof *sums);
    for (int64_t done = 0; done < rows;) {
        int64_t copies;
        const int64_t folded = next_block(r, rows - done, &copies);
        const float *x = r->src + offset + done * channels;
        merge_block(r, folded, copies, x, scratch, done, sums, sums + channels);
        done += folded * copies;
    }
}

static void merge_moments(const run *r, int64_t count, double *total, int64_t rows, const double *part)
{
    const int64_t channels = r->view->channels;
    for (int64_t c = 0; c < channels; c++) {
        const cnn_moments merged = cnn_moments_merge((cnn_moments){(double)count, total[c], total[channels + c]},
                                                     (cnn_moments){(double)rows, part[c], part[channels + c]});
        total[c] = merged.mean;
        total[channels + c] = merged.m2;
    }
}

/* coefficients: mean, scale and shift, from the statistics saved. */
static void set_affine(const run *r, int64_t sample, const double *sums, double *diff_parameters, float *mean)
{
    (void)sums, (void)diff_parameters;
    const int64_t groups = r->view->groups, size = r->view->channels / groups;
    float *scale = mean + r->cut.width, *shift = scale + r->cut.width;
    for (int64_t g = 0; g < groups; g++) {
        const double exact = r->mean[sample * groups + g];
        const double inverse_std = cnn_norm_inverse_std(r->var[sample * groups + g], r->eps);
        for (int64_t c = g * size; c < (g + 1) * size; c++) {
            mean[c] = (float)exact;
            scale[c] = (float)(weight_of(r, c) * inverse_std);
            shift[c] = (float)((r->bias == NULL ? 0.0 : (double)r->bias[c]) -
                               (exact - (double)mean[c]) * weight_of(r, c) * inverse_std);
        }
    }
    repeat(r, mean);
    repeat(r, scale);
    repeat(r, shift);
}

/* Saves the statistics of a sample's groups, from those of its channels. */
static void finish_moments(const run *r, int64_t sample, const double *sums, double *diff_parameters, float *mean)
{
    const int64_t channels = r->view->channels, groups = r->view->groups, size = channels / groups;
    const double rows = (double)r->view->rows;
    for (int64_t g = 0; g < groups; g++) {
        cnn_moments group = {rows, sums[g * size], sums[channels + g * size]};
        for (int64_t c = g * size + 1; c < (g + 1) * size; c++)
            group = cnn_moments_merge(group, (cnn_moments){rows, sums[c], sums[channels + c]});
        r->mean[sample * groups + g] = group.mean;
        r->var[sample * groups + g] = cnn_moments_var(group);
    }
    set_affine(r, sample, sums, diff_parameters, mean);
}

static void apply_affine(const run *r, int64_t offset, int64_t rows, const float *mean)
{
    affine(r, r->src, offset, rows, mean);
}

void cnn_norm_columns_forward(const cnn_norm_columns *view, const cnn_call *call)
{
    static const pass normalize = {reduce_moments, merge_moments, finish_moments, apply_affine};
    static const pass normalize_by_constants = {NULL, NULL, set_affine, apply_affine};
    char *workspace = call->workspace;
    run r = run_of(view, view->constant ? &normalize_by_constants : &normalize, call, &workspace);
    r.dst = call->dst;
    if (view->matrices > 0) r.src = r.dst = take_columns(view, r.src, call->threads, &workspace);
    run_pass(&r, call->threads);
    if (view->matrices > 0) put_columns(view, r.dst, call->threads, call->dst);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

static double saved_mean(const run *r, int64_t sample, int64_t channel)
{
    const int64_t groups = r->view->groups;
    return r->mean[sample * groups + channel / (r->view->channels / groups)];
}

/* sums: sum dy and sum dy (x - mean) of each channel, with the mean as rounded to float. */
static void reduce_dots(const run *r, int64_t sample, int64_t offset, int64_t rows, float *scratch, double *sums)
{
    const int64_t channels = r->view->channels, width = r->cut.width;
    float *sum = scratch, *dot = sum + width, *mean = dot + width;
    for (int64_t c = 0; c < channels; c++) mean[c] = (float)saved_mean(r, sample, c);
    repeat(r, mean);
    memset(sums, 0, (size_t)(2 * channels) * sizeof *sums);
    for (int64_t done = 0; done < rows;) {
        int64_t copies;
        const int64_t folded = next_block(r, rows - done, &copies), at = offset + done * channels;
        r->kernels->column_dots(folded, copies * channels, r->src + at, r->diff_dst + at, mean, sum, dot);
        for (int64_t copy = 0; copy < copies; copy++)
            for (int64_t c = 0; c < channels; c++) {
                sums[c] += (double)sum[copy * channels + c];
                sums[channels + c] += (double)dot[copy * channels + c];
            }
        done += folded * copies;
    }
}

static void merge_dots(const run *r, int64_t count, double *total, int64_t rows, const double *part)
{
    (void)count, (void)rows;
    for (int64_t i = 0; i < 2 * r->view->channels; i++) total[i] += part[i];
}

/* From a channel's sums: sum dy and sum dy xhat, its share in the gradients of bias and weights. */
typedef struct dots {
    double constant, xhat;
} dots;

static dots dots_of(const run *r, const double *sums, int64_t channel, double mean, double inverse_std)
{
    const double sum = sums[channel], off = mean - (double)(float)mean;
    return (dots){sum, (sums[r->view->channels + channel] - off * sum) * inverse_std};
}

/* Adds a sample's share and gives, as coefficients, mean, a, b and c of
 *
 *   diff_src = 1/std (w dy - E[w dy] - xhat E[w dy xhat]),   xhat = (x - mean) / std,   expectations over the group. */
static void finish_dots(const run *r, int64_t sample, const double *sums, double *diff_parameters, float *mean)
{
    const int64_t channels = r->view->channels, groups = r->view->groups, size = channels / groups;
    float *a = mean + r->cut.width, *b = a + r->cut.width, *c = b + r->cut.width;
    const double count = (double)r->view->rows * (double)size;
    for (int64_t g = 0; g < groups; g++) {
        const double exact = r->mean[sample * groups + g];
        const double inverse_std = cnn_norm_inverse_std(r->var[sample * groups + g], r->eps);
        double along_constant = 0.0, along_xhat = 0.0;
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            const dots d = dots_of(r, sums, i, exact, inverse_std);
            diff_parameters[i] += d.xhat;
            diff_parameters[channels + i] += d.constant;
            along_constant += weight_of(r, i) * d.constant / count;
            along_xhat += weight_of(r, i) * d.xhat / count;
        }
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            const double slope = -inverse_std * inverse_std * along_xhat;
            mean[i] = (float)exact;
            a[i] = (float)(weight_of(r, i) * inverse_std);
            b[i] = (float)slope;
            c[i] = (float)(-inverse_std * along_constant - (exact - (double)mean[i]) * slope);
        }
    }
    repeat(r, mean);
    repeat(r, a);
    repeat(r, b);
    repeat(r, c);
}

static void apply_gradient(const run *r, int64_t offset, int64_t rows, const float *mean)
{
    const int64_t width = r->cut.width, folded = rows / r->cut.fold, left = rows % r->cut.fold;
    const int64_t rest = offset + folded * width;
    const float *a = mean + width, *b = a + width, *c = b + width;
    r->kernels->column_gradient(folded, width, r->src + offset, r->diff_dst + offset, mean, a, b, c, r->dst + offset);
    if (left > 0)
        r->kernels->column_gradient(1, left * r->view->channels, r->src + rest, r->diff_dst + rest, mean, a, b, c,
                                    r->dst + rest);
}

/* The same when the statistics are constant: diff_src = w dy / std, an affine map of dy. */
static void finish_scale(const run *r, int64_t sample, const double *sums, double *diff_parameters, float *zero)
{
    (void)sample; /* there is but one */
    const int64_t channels = r->view->channels;
    float *scale = zero + r->cut.width, *shift = scale + r->cut.width;
    for (int64_t i = 0; i < channels; i++) {
        const double inverse_std = cnn_norm_inverse_std(r->var[i], r->eps);
        scale[i] = (float)(weight_of(r, i) * inverse_std);
        zero[i] = shift[i] = 0.0f;
        if (r->pass->reduce == NULL) continue;
        const dots d = dots_of(r, sums, i, r->mean[i], inverse_std);
        diff_parameters[i] += d.xhat;
        diff_parameters[channels + i] += d.constant;
    }
    repeat(r, zero);
    repeat(r, scale);
    repeat(r, shift);
}

static void apply_scale(const run *r, int64_t offset, int64_t rows, const float *zero)
{
    affine(r, r->diff_dst, offset, rows, zero);
}

/* diff += what the parts found, in their order. */
static void add_parts(const run *r, int64_t first, float *diff)
{
    const int64_t channels = r->view->channels;
    for (int64_t c = 0; diff != NULL && c < channels; c++) {
        double total = 0.0;
        for (int64_t part = 0; part < r->cut.parts; part++)
            total += r->diff_parameters[part * 2 * channels + first + c];
        diff[c] += (float)total;
    }
}

void cnn_norm_columns_backward(const cnn_norm_columns *view, const cnn_call *call)
{
    static const pass gradient = {reduce_dots, merge_dots, finish_dots, apply_gradient};
    static const pass constant_gradient = {reduce_dots, merge_dots, finish_scale, apply_scale};
    static const pass constant_gradient_of_src = {NULL, NULL, finish_scale, apply_scale};
    float *diff_weights = call->diff_src[NORM_WEIGHTS], *diff_bias = call->diff_src[NORM_BIAS];
    const pass *steps = &gradient;
    if (view->constant)
        steps = diff_weights == NULL && diff_bias == NULL ? &constant_gradient_of_src : &constant_gradient;
    char *workspace = call->workspace;
    run r = run_of(view, steps, call, &workspace);
    const int64_t shares = r.cut.parts * 2 * view->channels;
    r.diff_parameters = cnn_take(&workspace, double_bytes(shares));
    memset(r.diff_parameters, 0, (size_t)shares * sizeof *r.diff_parameters);
    r.diff_dst = call->diff_dst;
    r.dst = call->diff_src[NORM_SRC];
    if (view->matrices > 0) {
        float *diff = take_columns(view, r.diff_dst, call->threads, &workspace);
        r.src = take_columns(view, r.src, call->threads, &workspace);
        r.diff_dst = diff;
        if (r.dst != NULL) r.dst = diff;
    }
    run_pass(&r, call->threads);
    if (r.dst != NULL && view->matrices > 0) put_columns(view, r.dst, call->threads, call->diff_src[NORM_SRC]);
    add_parts(&r, 0, diff_weights);
    add_parts(&r, view->channels, diff_bias);
}
