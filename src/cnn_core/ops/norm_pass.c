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
#include "ops/norm_pass.h"

enum {
    WIDE = 64,             /* columns from which on rows are folded only to fill vectors */
    WIDEST = 1024,         /* columns that folding may make */
    VECTOR = 16,           /* the widest vector */
    MIN_CHUNK = 96,        /* folded rows: fewer would merge too often */
    CHUNK_FLOATS = 65536,  /* work worth a task */
    MAX_TASKS = 64,        /* bounds the partial results, too */
    MANY_SAMPLES = 16,     /* samples from which on they are tasks enough */
    APPLY_FLOATS = 65536   /* what is applied at a time */
};

static int64_t fold_of(int64_t channels)
{
    int64_t fold = 1;
    while (fold * channels < WIDE || (fold * channels % VECTOR != 0 && 2 * fold * channels <= WIDEST)) fold *= 2;
    return fold;
}

cnn_norm_cut cnn_norm_cut_of(const cnn_norm_columns *view, int64_t pieces)
{
    cnn_norm_cut c = {.fold = fold_of(view->channels), .part_samples = 1};
    const int64_t sample_floats = cnn_max_i64(view->rows * view->channels, 1);
    c.width = c.fold * view->channels;
    c.stride = c.width + VECTOR;
    int64_t chunks = 1;
    if (view->samples < MANY_SAMPLES)
        chunks = cnn_max_i64(cnn_min_i64(sample_floats / CHUNK_FLOATS, MAX_TASKS / view->samples), 1);
    c.chunk_rows = cnn_max_i64(cnn_ceil_div(cnn_ceil_div(view->rows, chunks), c.fold), MIN_CHUNK) * c.fold;
    c.chunks = cnn_ceil_div(view->rows, c.chunk_rows);
    c.pieces = view->constant ? 0 : pieces;
    c.fused = c.chunks == 1 && !view->constant && c.pieces == 0;
    if (c.fused)
        c.part_samples = cnn_max_i64(cnn_ceil_div(view->samples, MAX_TASKS),
                                     cnn_min_i64(cnn_max_i64(CHUNK_FLOATS / sample_floats, 1), view->samples));
    c.parts = cnn_ceil_div(view->samples, c.part_samples);
    return c;
}

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

static size_t scratch_bytes(const cnn_norm_cut *c, int32_t threads)
{
    return cnn_float_bytes(threads * 3 * c->width);
}

static size_t sums_bytes(const cnn_norm_columns *view, const cnn_norm_cut *c, int32_t threads)
{
    const int64_t reduced = c->pieces > 0 ? c->pieces : view->samples * c->chunks;
    return double_bytes((c->fused ? threads : reduced) * 2 * view->channels);
}

static size_t coefficients_bytes(const cnn_norm_columns *view, const cnn_norm_cut *c, int32_t threads)
{
    return cnn_float_bytes((c->fused ? threads : view->samples) * NORM_COEFFICIENTS * c->stride);
}

static size_t columns_bytes(const cnn_norm_columns *view)
{
    return view->matrices == 0 ? 0 : cnn_float_bytes(view->samples * view->rows * view->channels);
}

/* A run that is kept while others make its pieces, and where its view lies. */
typedef struct watching {
    cnn_norm_run run;
    cnn_norm_columns view;
} watching;

static size_t piece_rows_bytes(const cnn_norm_cut *c)
{
    return cnn_size_align(cnn_size_mul((size_t)c->pieces, sizeof(int64_t)));
}

size_t cnn_norm_columns_workspace(const cnn_norm_columns *view, int64_t pieces, bool backward, int32_t threads)
{
    if (view->samples * view->rows * view->channels == 0) return 0;
    const cnn_norm_cut c = cnn_norm_cut_of(view, pieces);
    size_t bytes = cnn_size_add(scratch_bytes(&c, threads), sums_bytes(view, &c, threads));
    bytes = cnn_size_add(bytes, coefficients_bytes(view, &c, threads));
    bytes = cnn_size_add(bytes, columns_bytes(view));
    if (c.pieces > 0) bytes = cnn_size_add(bytes, cnn_size_add(piece_rows_bytes(&c), cnn_size_align(sizeof(watching))));
    if (!backward) return bytes;
    bytes = cnn_size_add(bytes, double_bytes(c.parts * 2 * view->channels));
    return cnn_size_add(bytes, columns_bytes(view));
}

cnn_norm_run cnn_norm_run_of(const cnn_norm_columns *view, const cnn_norm_pass *pass, const cnn_call *call,
                             int64_t pieces, char **workspace)
{
    cnn_norm_run r = {.view = view,
                      .pass = pass,
                      .kernels = call->node->kernels,
                      .cut = cnn_norm_cut_of(view, pieces),
                      .eps = call->node->attributes.norm.eps,
                      .weights = call->src[NORM_WEIGHTS],
                      .mean = call->saved,
                      .src = call->src[NORM_SRC]};
    r.var = r.mean + view->samples * view->groups;
    r.scratch = cnn_take(workspace, scratch_bytes(&r.cut, call->threads));
    r.sums = cnn_take(workspace, sums_bytes(view, &r.cut, call->threads));
    r.coefficients = cnn_take(workspace, coefficients_bytes(view, &r.cut, call->threads));
    r.piece_rows = cnn_take(workspace, piece_rows_bytes(&r.cut));
    return r;
}

void cnn_norm_set_stream(cnn_norm_run *r, int64_t tensors)
{
    const int64_t floats = r->view->samples * r->view->rows * r->view->channels;
    r->far = cnn_norm_streams(floats, tensors);
    r->stream = r->far && r->cut.width % VECTOR == 0;
}

/* ---- running a pass ---------------------------------------------------------------------------------------------- */

static float *scratch_of(const cnn_norm_run *r, int32_t thread)
{
    return r->scratch + thread * 3 * r->cut.width;
}

static double *sums_of(const cnn_norm_run *r, int64_t slot)
{
    return r->sums + slot * 2 * r->view->channels;
}

static float *coefficients_of(const cnn_norm_run *r, int64_t slot)
{
    return r->coefficients + slot * NORM_COEFFICIENTS * r->cut.stride;
}

static double *diff_parameters_of(const cnn_norm_run *r, int64_t part)
{
    return r->diff_parameters == NULL ? NULL : r->diff_parameters + part * 2 * r->view->channels;
}

/* Applies the coefficients to a chunk. Streaming wants aligned vectors, and a row may start before one: the elements up
 * to it are a row of their own, and all others begin as many columns later. */
static void apply(const cnn_norm_run *r, int64_t offset, int64_t rows, const float *coefficients)
{
    const int64_t width = r->cut.width, folded = rows / r->cut.fold, left = rows % r->cut.fold * r->view->channels;
    if (r->stream && r->any == NULL && folded > 1) {
        const int64_t vector = r->kernels->width;
        const int64_t past = (int64_t)((uintptr_t)(r->out + offset) / sizeof(float)) % vector;
        const int64_t lead = past == 0 ? 0 : vector - past, last = offset + lead + (folded - 1) * width;
        if (lead > 0) r->pass->apply(r, offset, 1, lead, coefficients, false);
        r->pass->apply(r, offset + lead, folded - 1, width, coefficients + lead, true);
        r->pass->apply(r, last, 1, width - lead, coefficients + lead, false);
    } else if (folded > 0) {
        r->pass->apply(r, offset, folded, width, coefficients, false);
    }
    if (left > 0) r->pass->apply(r, offset + folded * width, 1, left, coefficients, false);
}

/* Piece by piece and backwards: what was reduced last may be in a near cache. */
static void apply_backwards(const cnn_norm_run *r, int64_t offset, int64_t rows, const float *coefficients)
{
    const int64_t piece = cnn_max_i64(APPLY_FLOATS / r->cut.width, 1) * r->cut.fold;
    for (int64_t begin = (rows - 1) / piece * piece; begin >= 0; begin -= piece)
        apply(r, offset + begin * r->view->channels, cnn_min_i64(piece, rows - begin), coefficients);
}

static void part_task(void *arg, int64_t part, int32_t thread)
{
    const cnn_norm_run *r = arg;
    const int64_t rows = r->view->rows, begin = part * r->cut.part_samples;
    const int64_t end = cnn_min_i64(begin + r->cut.part_samples, r->view->samples);
    double *sums = sums_of(r, thread);
    float *coefficients = coefficients_of(r, thread);
    for (int64_t sample = begin; sample < end; sample++) {
        const int64_t offset = sample * rows * r->view->channels;
        if (r->pass->prepare != NULL) r->pass->prepare(r, sample, coefficients);
        const cnn_norm_rows all = {offset, rows, 0, 0, r->view->channels};
        r->pass->reduce(r, &all, coefficients, scratch_of(r, thread), sums);
        r->pass->finish(r, sample, sums, diff_parameters_of(r, part), coefficients);
        if (r->out != NULL) apply_backwards(r, offset, rows, coefficients);
    }
}

/* The rows of a chunk and, in *offset, where they start. */
static int64_t chunk_of(const cnn_norm_run *r, int64_t sample, int64_t chunk, int64_t *offset)
{
    const int64_t begin = chunk * r->cut.chunk_rows;
    *offset = (sample * r->view->rows + begin) * r->view->channels;
    return cnn_min_i64(r->cut.chunk_rows, r->view->rows - begin);
}

static void reduce_task(void *arg, int64_t task, int32_t thread)
{
    const cnn_norm_run *r = arg;
    const int64_t sample = task / r->cut.chunks;
    int64_t offset;
    const int64_t rows = chunk_of(r, sample, task % r->cut.chunks, &offset);
    const cnn_norm_rows chunk = {offset, rows, 0, 0, r->view->channels};
    r->pass->reduce(r, &chunk, coefficients_of(r, sample), scratch_of(r, thread), sums_of(r, task));
}

static void apply_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const cnn_norm_run *r = arg;
    task = r->view->samples * r->cut.chunks - 1 - task;
    const int64_t sample = task / r->cut.chunks;
    int64_t offset;
    const int64_t rows = chunk_of(r, sample, task % r->cut.chunks, &offset);
    apply_backwards(r, offset, rows, coefficients_of(r, sample));
}

/* How many rows the sums of a sample's chunk, or piece, are of. */
static int64_t reduced_rows(const cnn_norm_run *r, int64_t sample, int64_t chunk)
{
    int64_t offset;
    return r->cut.pieces > 0 ? r->piece_rows[chunk] : chunk_of(r, sample, chunk, &offset);
}

/* Merges the chunks, or pieces, of a sample into its first. */
static double *merged_sums(const cnn_norm_run *r, int64_t sample)
{
    const int64_t chunks = r->cut.pieces > 0 ? r->cut.pieces : r->cut.chunks;
    double *total = sums_of(r, sample * chunks);
    int64_t count = reduced_rows(r, sample, 0);
    for (int64_t chunk = 1; chunk < chunks; chunk++) {
        const int64_t rows = reduced_rows(r, sample, chunk);
        r->pass->merge(r, count, total, rows, sums_of(r, sample * chunks + chunk));
        count += rows;
    }
    return total;
}

void cnn_norm_run_pass(const cnn_norm_run *r, int32_t threads)
{
    const int64_t samples = r->view->samples, tasks = samples * r->cut.chunks;
    const double elements = (double)samples * (double)r->view->rows * (double)r->view->channels;
    const int32_t useful = cnn_useful_threads(threads, 0.5 * elements);
    if (r->cut.fused) {
        cnn_parallel(useful, r->cut.parts, part_task, (void *)r);
        return;
    }
    for (int64_t sample = 0; r->pass->prepare != NULL && sample < samples; sample++)
        r->pass->prepare(r, sample, coefficients_of(r, sample));
    if (r->pass->reduce != NULL) {
        if (r->cut.pieces == 0) cnn_parallel(useful, tasks, reduce_task, (void *)r);
        for (int64_t sample = 0; sample < samples; sample++)
            r->pass->finish(r, sample, merged_sums(r, sample), diff_parameters_of(r, sample),
                            coefficients_of(r, sample));
    }
    if (r->out != NULL) cnn_parallel(useful, tasks, apply_task, (void *)r);
}

/* Rows of which some columns are to be reduced are not folded. */
int64_t cnn_norm_next_block(const cnn_norm_run *r, const cnn_norm_rows *at, int64_t done, int64_t most, int64_t *copies)
{
    const int64_t left = at->rows - done, fold = at->channels == r->view->channels ? r->cut.fold : 1;
    *copies = cnn_min_i64(fold, left); /* the last rows may be too few for a folded one */
    return cnn_min_i64(most, left / *copies);
}

/* ---- in pieces ---------------------------------------------------------------------------------------------------- */

static void see(const cnn_watch *watch, const cnn_sight *sight, int32_t thread)
{
    const cnn_norm_run *r = &((const watching *)watch->state)->run;
    const cnn_norm_rows rows = {sight->first * r->view->channels, sight->rows, sight->done, sight->channel,
                                sight->channels};
    r->pass->reduce(r, &rows, coefficients_of(r, 0), scratch_of(r, thread), sums_of(r, sight->piece));
    if (sight->channel == 0) r->piece_rows[sight->piece] = sight->done + sight->rows;
}

void cnn_norm_run_watch(const cnn_norm_run *r, char **workspace, cnn_watch *watch)
{
    watching *kept = cnn_take(workspace, sizeof *kept);
    *kept = (watching){.run = *r, .view = *r->view};
    kept->run.view = &kept->view;
    *watch = (cnn_watch){.see = see, .state = kept};
}
