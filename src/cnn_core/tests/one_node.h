/* Runs one operation as a graph of its own, through the public API, and holds what a family's tests have in common: the
 * fast path against the float64 reference, the reference against central differences, and bits against thread counts.
 *
 * Sources are filled with numbers that float holds exactly, so that both precisions compute from the same ones. Before a
 * run that counts, one on NaN fills the context's memory with it, and so is all that the passes must write. */
#ifndef CNN_TESTS_ONE_NODE_H
#define CNN_TESTS_ONE_NODE_H

#include <stdint.h>
#include <stdlib.h>

#include "base/shape.h"
#include "cnn_core.h"
#include "test.h"

#define NODE_SOURCES 4

typedef enum node_kind { NODE_ABSENT, NODE_INPUT, NODE_CONSTANT, NODE_PARAMETER, NODE_CLASSES } node_kind;

typedef struct node_source {
    node_kind kind; /* CONSTANT: an input without gradient; CLASSES: int64 */
    cnn_shape shape;
    int64_t classes; /* numbers in 0 .. classes - 1, and ignore_index now and then */
    int levels;      /* if not 0: only so many different numbers, so that there are ties */
} node_source;

typedef struct node_case {
    cnn_op op;
    cnn_attributes attributes;
    int num_sources;
    node_source src[NODE_SOURCES];
} node_case;

typedef struct node_tensor {
    cnn_shape shape;
    int64_t count;
    void *data, *diff; /* diff: NULL where none is wanted */
} node_tensor;

typedef struct node_run {
    cnn_dtype dtype;
    cnn_plan *plan;
    cnn_context *context;
    node_tensor src[NODE_SOURCES], dst;
} node_run;

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static uint64_t node_random_state = 1;

static inline uint32_t node_random(void)
{
    node_random_state = node_random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(node_random_state >> 33);
}

static inline int64_t node_between(int64_t low, int64_t high)
{
    return low + (int64_t)(node_random() % (uint32_t)(high - low + 1));
}

static inline double node_get(cnn_dtype dtype, const void *from, int64_t i)
{
    return dtype == CNN_FLOAT64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

static inline void node_set(cnn_dtype dtype, void *to, int64_t i, double value)
{
    if (dtype == CNN_FLOAT64)
        ((double *)to)[i] = value;
    else
        ((float *)to)[i] = (float)value;
}

static inline void node_fill(cnn_dtype dtype, void *to, int64_t count, double value)
{
    for (int64_t i = 0; to != NULL && i < count; i++) node_set(dtype, to, i, value);
}

/* Multiples of 2^-14 in -2 .. 2, or of one in a few levels. */
static inline void node_fill_random(cnn_dtype dtype, void *to, int64_t count, int levels)
{
    for (int64_t i = 0; to != NULL && i < count; i++)
        node_set(dtype, to, i,
                 levels > 0 ? (double)node_between(0, levels - 1) : (double)node_between(-32768, 32767) / 16384.0);
}

/* ---- one run ------------------------------------------------------------------------------------------------------ */

static inline cnn_status node_add_source(cnn_graph *graph, cnn_dtype dtype, const node_source *source, cnn_value *value)
{
    *value = CNN_NONE;
    switch (source->kind) {
    case NODE_ABSENT: return CNN_OK;
    case NODE_CLASSES: return cnn_graph_input(graph, CNN_INT64, &source->shape, value);
    case NODE_CONSTANT: return cnn_graph_input(graph, dtype, &source->shape, value);
    case NODE_PARAMETER: CNN_TRY(cnn_graph_parameter(graph, &source->shape, value)); break;
    case NODE_INPUT: CNN_TRY(cnn_graph_input(graph, dtype, &source->shape, value)); break;
    }
    return cnn_graph_require_gradient(graph, *value);
}

static inline cnn_status node_make_plan(const node_case *c, cnn_dtype dtype, bool reference, cnn_value *value,
                                        node_run *run)
{
    cnn_graph *graph = NULL;
    cnn_status status = cnn_graph_create(dtype, &graph);
    for (int i = 0; status == CNN_OK && i < c->num_sources; i++)
        status = node_add_source(graph, dtype, &c->src[i], &value[i]);
    if (status == CNN_OK)
        status = cnn_graph_apply(graph, c->op, &c->attributes, c->num_sources, value, &value[NODE_SOURCES]);
    if (status == CNN_OK) status = cnn_graph_shape(graph, value[NODE_SOURCES], &run->dst.shape);
    if (status == CNN_OK) status = cnn_graph_output(graph, value[NODE_SOURCES]);
    const cnn_plan_options options = {.backward = 1, .repeat = 1, .reference = reference};
    if (status == CNN_OK) status = cnn_plan_create(graph, &options, &run->plan);
    cnn_graph_free(graph);
    return status;
}

static inline void node_allocate(node_tensor *tensor, const cnn_shape *shape, size_t element, bool diff)
{
    tensor->shape = *shape;
    tensor->count = cnn_shape_count(shape);
    tensor->data = malloc((size_t)tensor->count * element + 1);
    if (diff) tensor->diff = malloc((size_t)tensor->count * element + 1);
}

/* Leaves what is there to node_release, also on failure. */
static inline cnn_status node_build(const node_case *c, cnn_dtype dtype, bool reference, node_run *run)
{
    memset(run, 0, sizeof *run);
    run->dtype = dtype;
    cnn_value value[NODE_SOURCES + 1];
    CNN_TRY(node_make_plan(c, dtype, reference, value, run));
    CNN_TRY(cnn_context_create(run->plan, &run->context));
    for (int i = 0; i < c->num_sources; i++) {
        const node_kind kind = c->src[i].kind;
        if (kind == NODE_ABSENT) continue;
        node_allocate(&run->src[i], &c->src[i].shape, kind == NODE_CLASSES ? 8 : cnn_dtype_bytes(dtype),
                      kind == NODE_INPUT || kind == NODE_PARAMETER);
        CNN_TRY(cnn_context_bind(run->context, value[i], run->src[i].data, run->src[i].diff));
    }
    const cnn_shape shape = run->dst.shape;
    node_allocate(&run->dst, &shape, cnn_dtype_bytes(dtype), true);
    return cnn_context_bind(run->context, value[NODE_SOURCES], run->dst.data, run->dst.diff);
}

static inline void node_release(node_run *run)
{
    cnn_context_free(run->context);
    cnn_plan_free(run->plan);
    for (int i = 0; i < NODE_SOURCES; i++) {
        free(run->src[i].data);
        free(run->src[i].diff);
    }
    free(run->dst.data);
    free(run->dst.diff);
}

static inline void node_fill_classes(const node_case *c, const node_source *source, int64_t *targets, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        targets[i] = node_random() % 7 == 0 ? c->attributes.loss.ignore_index : node_between(0, source->classes - 1);
}

/* Fills sources and diff_dst with the numbers of `seed`, what must be written with NaN, what must be added to with 1/2. */
static inline void node_prepare(const node_case *c, node_run *run, uint64_t seed)
{
    node_random_state = seed;
    for (int i = 0; i < c->num_sources; i++) {
        node_tensor *tensor = &run->src[i];
        if (c->src[i].kind == NODE_CLASSES)
            node_fill_classes(c, &c->src[i], tensor->data, tensor->count);
        else
            node_fill_random(run->dtype, tensor->data, tensor->count, c->src[i].levels);
        node_fill(run->dtype, tensor->diff, tensor->count, c->src[i].kind == NODE_PARAMETER ? 0.5 : (double)NAN);
    }
    node_fill(run->dtype, run->dst.data, run->dst.count, (double)NAN);
    node_fill_random(run->dtype, run->dst.diff, run->dst.count, 0);
}

/* Leaves NaN in the context's memory. */
static inline cnn_status node_poison(const node_case *c, node_run *run)
{
    node_prepare(c, run, 1);
    for (int i = 0; i < c->num_sources; i++)
        if (c->src[i].kind != NODE_CLASSES) node_fill(run->dtype, run->src[i].data, run->src[i].count, (double)NAN);
    CNN_TRY(cnn_context_forward(run->context));
    return cnn_context_backward(run->context);
}

/* Runs both passes on what the sources hold. */
static inline cnn_status node_run_both(node_run *run)
{
    CNN_TRY(cnn_context_forward(run->context));
    return cnn_context_backward(run->context);
}

static inline cnn_status node_compute(const node_case *c, node_run *run, uint64_t seed)
{
    CNN_TRY(node_poison(c, run));
    node_prepare(c, run, seed);
    return node_run_both(run);
}

/* ---- comparisons -------------------------------------------------------------------------------------------------- */

static inline void node_print(const node_case *c)
{
    fprintf(stderr, "  operation %d", (int)c->op);
    for (int i = 0; i < c->num_sources; i++) {
        char text[CNN_SHAPE_TEXT];
        if (c->src[i].kind != NODE_ABSENT)
            fprintf(stderr, "%s %s%s", i == 0 ? " of" : ",", cnn_shape_text(&c->src[i].shape, text),
                    c->src[i].kind == NODE_PARAMETER ? " parameter" : "");
    }
    fprintf(stderr, "\n");
}

/* |a - b| <= tolerance (1 + |b|), or both NaN or the same infinity. */
static inline bool node_agree(const char *what, cnn_dtype dtype_a, const void *a, cnn_dtype dtype_b, const void *b,
                              int64_t count, double tolerance)
{
    for (int64_t i = 0; a != NULL && i < count; i++) {
        const double x = node_get(dtype_a, a, i), y = node_get(dtype_b, b, i);
        if (isnan(y) ? isnan(x) : x == y || fabs(x - y) <= tolerance * (1.0 + fabs(y))) continue;
        fprintf(stderr, "%s[%lld] is %.9g, reference %.9g\n", what, (long long)i, x, y);
        return false;
    }
    return true;
}

static inline bool node_runs_agree(const node_case *c, const node_run *a, const node_run *b, double tolerance)
{
    bool ok = node_agree("dst", a->dtype, a->dst.data, b->dtype, b->dst.data, a->dst.count, tolerance);
    for (int i = 0; i < c->num_sources; i++)
        ok = node_agree("diff_src", a->dtype, a->src[i].diff, b->dtype, b->src[i].diff, a->src[i].count, tolerance) && ok;
    return ok;
}

/* Both float32 paths against the float64 reference. */
static inline void node_check(const node_case *c, double tolerance)
{
    node_run fast, slow, exact;
    bool ok = node_build(c, CNN_FLOAT32, false, &fast) == CNN_OK;
    ok = node_build(c, CNN_FLOAT32, true, &slow) == CNN_OK && ok;
    ok = node_build(c, CNN_FLOAT64, false, &exact) == CNN_OK && ok;
    ok = ok && node_compute(c, &fast, 7) == CNN_OK && node_compute(c, &slow, 7) == CNN_OK &&
         node_compute(c, &exact, 7) == CNN_OK;
    if (!ok) fprintf(stderr, "%s\n", cnn_last_error());
    ok = ok && node_runs_agree(c, &slow, &exact, tolerance) && node_runs_agree(c, &fast, &exact, tolerance);
    if (!ok) node_print(c);
    CHECK(ok);
    node_release(&fast);
    node_release(&slow);
    node_release(&exact);
}

/* The sum of diff_dst dst: what backward differentiates. */
static inline double node_objective(node_run *run)
{
    if (cnn_context_forward(run->context) != CNN_OK) return (double)NAN;
    double sum = 0.0;
    for (int64_t i = 0; i < run->dst.count; i++)
        sum += node_get(run->dtype, run->dst.diff, i) * node_get(run->dtype, run->dst.data, i);
    return sum;
}

/* The float64 reference's gradients against central differences. */
static inline void node_check_gradient(const node_case *c)
{
    const double step = 1e-5, tolerance = 1e-6;
    node_run run;
    bool ok = node_build(c, CNN_FLOAT64, false, &run) == CNN_OK && node_compute(c, &run, 11) == CNN_OK;
    if (!ok) fprintf(stderr, "%s\n", cnn_last_error());
    for (int s = 0; ok && s < c->num_sources; s++) {
        const node_tensor *tensor = &run.src[s];
        double *data = tensor->data;
        for (int64_t i = 0; ok && tensor->diff != NULL && i < tensor->count; i++) {
            const double before = data[i], added = c->src[s].kind == NODE_PARAMETER ? 0.5 : 0.0;
            data[i] = before + step;
            const double above = node_objective(&run);
            data[i] = before - step;
            const double below = node_objective(&run);
            data[i] = before;
            const double slope = (above - below) / (2.0 * step), diff = ((const double *)tensor->diff)[i] - added;
            ok = fabs(slope - diff) <= tolerance * (1.0 + fabs(slope));
            if (!ok) fprintf(stderr, "diff_src[%lld] is %.12g, central difference %.12g\n", (long long)i, diff, slope);
        }
    }
    if (!ok) node_print(c);
    CHECK(ok);
    node_release(&run);
}

/* The same bits at 1, 2, 3 and 4 threads. */
static inline void node_check_threads(const node_case *c)
{
    const int32_t before = cnn_get_num_threads();
    node_run one, many;
    bool ok = node_build(c, CNN_FLOAT32, false, &one) == CNN_OK && cnn_set_num_threads(1) == CNN_OK &&
              node_compute(c, &one, 5) == CNN_OK;
    for (int32_t threads = 2; ok && threads <= 4; threads++) {
        if (cnn_set_num_threads(threads) != CNN_OK) break; /* a build without threads */
        ok = node_build(c, CNN_FLOAT32, false, &many) == CNN_OK && node_compute(c, &many, 5) == CNN_OK &&
             memcmp(one.dst.data, many.dst.data, (size_t)one.dst.count * sizeof(float)) == 0;
        for (int s = 0; ok && s < c->num_sources; s++)
            ok = one.src[s].diff == NULL ||
                 memcmp(one.src[s].diff, many.src[s].diff, (size_t)one.src[s].count * sizeof(float)) == 0;
        node_release(&many);
    }
    if (!ok) node_print(c);
    CHECK(ok);
    node_release(&one);
    (void)cnn_set_num_threads(before);
}

/* The operation is refused with this status, and a message that holds `text`. */
static inline void node_check_refused(const node_case *c, cnn_status status, const char *text)
{
    node_run run;
    CHECK_INT(node_build(c, CNN_FLOAT32, false, &run), status);
    const bool told = strstr(cnn_last_error(), text) != NULL;
    if (!told) fprintf(stderr, "\"%s\" does not say \"%s\"\n", cnn_last_error(), text);
    CHECK(told);
    node_release(&run);
}

#endif
