#include "graph/chain.h"

#include <string.h>

#include "cpu/kernels.h"
#include "graph/passes.h"

/* A result that is smaller than this, all images together, stays in the second-level caches anyway. */
#define LEAST_LINK (256 << 10)
/* What is kept by a thread fills its second-level cache, but of a larger one this much: the rest serves what is read beside it. */
#define MOST_KEPT (1280 << 10)
/* Bytes of the parameters of a step: they are read anew for each band. */
#define MOST_PARAMETERS (512 << 10)
/* Where a chain's images are cut between threads, both sides compute the rows that both see. */
#define LEAST_ROWS 14
/* Planning goes over all rows. */
#define MOST_ROWS (1 << 14)

/* ---- which steps ------------------------------------------------------------------------------------------------- */

static const cnn_shape *result_shape(const cnn_step *step)
{
    return &step->node.dst_shape;
}

/* Floats of a row of an image (n, c, h, w). */
static int64_t row_floats(const cnn_shape *shape) { return shape->dim[1] * shape->dim[3]; }

static size_t result_bytes(const cnn_node *node, int64_t rows)
{
    return cnn_float_bytes(rows * row_floats(&node->dst_shape));
}

static bool has_bands(const cnn_plan *plan, const cnn_step *step)
{
    const cnn_node *node = &step->node;
    int64_t first, rows;
    if (node->row->band == NULL || cnn_shape_count(&node->dst_shape) == 0 || node->dst_shape.dim[2] > MOST_ROWS ||
        !node->row->band(node, 0, 1, NULL, &first, &rows))
        return false;
    size_t parameters = 0;
    for (int32_t i = 1; i < node->num_sources; i++)
        if (node->present[i] && plan->graph.values[step->source[i]].kind != CNN_VALUE_RESULT)
            parameters = cnn_size_add(parameters, cnn_tensor_bytes(&node->src_shape[i], node->src_dtype[i]));
    return parameters <= MOST_PARAMETERS;
}

/* Whether step s + 1 can and should take the result of step s band by band. */
static bool links(const cnn_plan *plan, const int32_t *uses, int32_t s)
{
    const cnn_step *step = &plan->graph.steps[s], *next = step + 1;
    if (s + 1 >= plan->graph.num_steps || next->source[0] != step->result || uses[step->result] != 1) return false;
    return has_bands(plan, next) &&
           cnn_tensor_bytes(result_shape(step), plan->graph.dtype) >= LEAST_LINK;
}

/* The most rows of its source that any `rows` rows of the step's result see. */
static int64_t rows_seen(const cnn_step *step, int64_t rows)
{
    const int64_t height = result_shape(step)->dim[2];
    int64_t most = 0, first, seen;
    for (int64_t at = 0; at + rows <= height; at++) {
        (void)step->node.row->band(&step->node, at, rows, NULL, &first, &seen);
        most = cnn_max_i64(most, seen);
    }
    return most;
}

/* Lets the chain work in bands of so many rows. */
static void cut(const cnn_plan *plan, cnn_chain *chain, int64_t band)
{
    const cnn_step *step = &plan->graph.steps[chain->first];
    chain->band = chain->rows[chain->steps - 1] = band;
    chain->kept_bytes = 0;
    for (int32_t k = chain->steps - 2; k >= 0; k--) {
        chain->rows[k] = rows_seen(&step[k + 1], chain->rows[k + 1]);
        chain->kept_bytes = cnn_size_add(chain->kept_bytes, result_bytes(&step[k].node, chain->rows[k]));
    }
}

/* Of any part of the step that has up to `most` rows: fewer may need more. */
static size_t step_workspace(const cnn_step *step, int64_t most)
{
    size_t bytes = 0;
    cnn_node part;
    int64_t first, seen;
    if (step->node.row->workspace == NULL) return 0;
    for (int64_t rows = 1; rows <= most; rows++) {
        (void)step->node.row->band(&step->node, 0, rows, &part, &first, &seen);
        const size_t wanted = cnn_size_align(step->node.row->workspace(&part, false, 1));
        if (wanted > bytes) bytes = wanted;
    }
    return bytes;
}

static bool make_chain(const cnn_plan *plan, const int32_t *uses, size_t cache, int32_t s, cnn_chain *chain)
{
    if (!has_bands(plan, &plan->graph.steps[s])) return false;
    *chain = (cnn_chain){.first = s, .steps = 1};
    while (chain->steps < CNN_CHAIN_STEPS && links(plan, uses, s + chain->steps - 1)) chain->steps++;
    const cnn_shape *last = result_shape(&plan->graph.steps[s + chain->steps - 1]);
    if (chain->steps < 2 || last->dim[0] * last->dim[2] < LEAST_ROWS) return false;
    /* The highest bands with which all that lies between the steps stays in the second-level cache. */
    int64_t low = 1, high = last->dim[2];
    while (low < high) {
        const int64_t band = low + cnn_ceil_div(high - low, 2);
        cut(plan, chain, band);
        if (chain->kept_bytes <= cache)
            low = band;
        else
            high = band - 1;
    }
    cut(plan, chain, low);
    for (int32_t k = 0; k < chain->steps; k++) {
        const size_t bytes = step_workspace(&plan->graph.steps[s + k], chain->rows[k]);
        if (bytes > chain->step_bytes) chain->step_bytes = bytes;
    }
    return true;
}

cnn_status cnn_plan_chains(cnn_plan *plan)
{
    const cnn_graph *graph = &plan->graph;
    if (cnn_plan_uses_reference(plan)) return CNN_OK;
    const size_t cache = cnn_core_cache() < MOST_KEPT ? cnn_core_cache() : MOST_KEPT;
    int32_t *uses = cnn_graph_uses(graph);
    plan->chains = cnn_allocate(&graph->allocator, (size_t)graph->num_steps * sizeof *plan->chains);
    if (uses == NULL || plan->chains == NULL) {
        cnn_release(&graph->allocator, uses);
        return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    }
    for (int32_t s = 0; s < graph->num_steps; s++) {
        cnn_chain *chain = &plan->chains[plan->num_chains];
        if (!make_chain(plan, uses, cache, s, chain)) continue;
        for (int32_t k = 0; k < chain->steps; k++) plan->steps[s + k].chain = plan->num_chains;
        s += chain->steps - 1;
        plan->num_chains++;
    }
    cnn_release(&graph->allocator, uses);
    return CNN_OK;
}

int32_t cnn_plan_run_end(const cnn_plan *plan, int32_t s)
{
    if (plan->steps[s].chain < 0) return s;
    const cnn_chain *chain = &plan->chains[plan->steps[s].chain];
    return chain->first + chain->steps - 1;
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

/* Threads' memory lies alike in its pages: whether what is read and what is written crowd the same sets of a first-level cache
 * is then the same for all. */
#define PAGE ((size_t)4096)

size_t cnn_chain_workspace(const cnn_chain *chain, int32_t threads)
{
    const size_t pages = cnn_size_add(cnn_size_add(chain->kept_bytes, chain->step_bytes), PAGE - 1) / PAGE;
    return cnn_size_mul(cnn_size_mul(pages, PAGE), (size_t)threads);
}

typedef struct chain_job {
    const cnn_chain *chain;
    const cnn_call *call;
    int64_t parts;       /* of an image */
    size_t thread_bytes; /* of the workspace */
} chain_job;

/* Rows begin .. end - 1 of one image of a result. */
typedef struct kept_rows {
    float *data;
    int64_t begin, end;
} kept_rows;

/* One thread at work on one image. */
typedef struct worker {
    const chain_job *job;
    int64_t image;
    char *workspace;
    kept_rows kept[CNN_CHAIN_STEPS];
} worker;

static const float *rows_at(const void *data, const cnn_shape *shape, int64_t image, int64_t row)
{
    return (const float *)data + (image * shape->dim[2] + row) * row_floats(shape);
}

static const float *source_rows(worker *w, int32_t k, int64_t first, int64_t rows);

/* dst = rows first .. first + rows - 1 of what step k makes of the image. */
static void compute(worker *w, int32_t k, int64_t first, int64_t rows, float *dst)
{
    const cnn_call *whole = &w->job->call[k];
    const cnn_op_row *row = whole->node->row;
    cnn_node part;
    int64_t src_first, src_rows;
    (void)row->band(whole->node, first, rows, &part, &src_first, &src_rows);
    void *src[CNN_MAX_SOURCES];
    for (int32_t i = 1; i <= row->max_sources; i++) src[i] = whole->src[i];
    src[0] = (void *)(uintptr_t)source_rows(w, k, src_first, src_rows);
    if (part.epilogue.adds) {
        const void *addend = whole->src[row->max_sources];
        src[row->max_sources] = (void *)(uintptr_t)rows_at(addend, &whole->node->dst_shape, w->image, first);
    }
    cnn_call call = *whole;
    call.node = &part;
    call.src = src;
    call.dst = dst;
    call.workspace = w->workspace;
    call.threads = 1;
    (void)row->forward(&call);
}

/* What step k reads: given, or computed now as far as it is not there yet. Bands go down the image, and rows that the
 * next one sees again stay. */
static const float *source_rows(worker *w, int32_t k, int64_t first, int64_t rows)
{
    const cnn_call *whole = &w->job->call[k];
    const cnn_shape *shape = &whole->node->src_shape[0];
    if (k == 0) return rows_at(whole->src[0], shape, w->image, first);
    kept_rows *kept = &w->kept[k - 1];
    const int64_t row = row_floats(shape), end = first + rows;
    if (first >= kept->end) {
        kept->begin = kept->end = first;
    } else if (first > kept->begin) {
        memmove(kept->data, kept->data + (first - kept->begin) * row, (size_t)((kept->end - first) * row) * sizeof(float));
        kept->begin = first;
    }
    if (end > kept->end) {
        compute(w, k - 1, kept->end, end - kept->end, kept->data + (kept->end - first) * row);
        kept->end = end;
    }
    return kept->data;
}

static void run_part(void *arg, int64_t task, int32_t thread)
{
    const chain_job *job = arg;
    const cnn_chain *chain = job->chain;
    const int32_t last = chain->steps - 1;
    const cnn_call *call = &job->call[last];
    const cnn_shape *shape = &call->node->dst_shape;
    const int64_t part = task % job->parts, height = shape->dim[2];
    worker w = {.job = job, .image = task / job->parts};
    char *cursor = (char *)call->workspace + (size_t)thread * job->thread_bytes;
    for (int32_t k = 0; k < last; k++) w.kept[k].data = cnn_take(&cursor, result_bytes(job->call[k].node, chain->rows[k]));
    w.workspace = cursor;

    const int64_t begin = cnn_split(height, job->parts, part), end = cnn_split(height, job->parts, part + 1);
    const int64_t bands = cnn_ceil_div(end - begin, chain->band);
    for (int64_t band = 0; band < bands; band++) {
        const int64_t first = begin + cnn_split(end - begin, bands, band);
        const int64_t rows = begin + cnn_split(end - begin, bands, band + 1) - first;
        compute(&w, last, first, rows, (float *)(uintptr_t)rows_at(call->dst, shape, w.image, first));
    }
}

/* How a run is cut changes what is computed twice, but no result: here, threads may count. */
cnn_status cnn_chain_run(const cnn_chain *chain, const cnn_call *call, size_t workspace_bytes)
{
    const cnn_shape *shape = &call[chain->steps - 1].node->dst_shape;
    const int64_t images = shape->dim[0], threads = call->threads;
    /* A thread's memory lies in one place for all chains: where it was another's, its lines would be fetched from there. */
    const size_t thread_bytes = workspace_bytes / (size_t)threads / PAGE * PAGE;
    chain_job job = {.chain = chain, .call = call, .parts = 1, .thread_bytes = thread_bytes};
    if (images % threads != 0)
        job.parts = cnn_min_i64(images == 1 ? threads : cnn_ceil_div(4 * threads, images), shape->dim[2]);
    cnn_parallel(call->threads, images * job.parts, run_part, &job);
    return CNN_OK;
}
