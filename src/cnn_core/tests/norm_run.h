/* Runs a normalization as a graph of its own, with all that it may read and write, in memory that the tests see. */
#ifndef CNN_TESTS_NORM_RUN_H
#define CNN_TESTS_NORM_RUN_H

#include <stdint.h>
#include <stdlib.h>

#include "base/shape.h"
#include "cnn_core.h"
#include "test.h"

enum { SRC_TENSOR, WEIGHTS, BIAS, RUNNING_MEAN, RUNNING_VAR, NUM_BATCHES, DST, TENSORS };

typedef struct norm_case {
    cnn_op op;
    cnn_shape src;
    int64_t groups;
    int32_t axes;
    bool affine, running, evaluation;
    double momentum; /* 0: 0.1 */
    double eps;      /* 0: 1e-5 */
    bool weights_are_inputs; /* then those of rank 4 lie channels-last */
    bool no_diff_src, no_diff_weights, no_diff_bias;
} norm_case;

/* A one-node graph with its memory. All numbers but the count of batches are of `dtype`. */
typedef struct norm_run {
    cnn_dtype dtype;
    cnn_shape shape[TENSORS];
    int64_t count[TENSORS]; /* 0: not there */
    void *data[TENSORS], *diff[TENSORS];
    cnn_context *context;
    cnn_plan *plan;
} norm_run;

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static uint64_t norm_random_state = 1;

static inline uint32_t norm_random_bits(void)
{
    norm_random_state = norm_random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(norm_random_state >> 33);
}

static inline int64_t norm_random_between(int64_t low, int64_t high)
{
    return low + (int64_t)(norm_random_bits() % (uint32_t)(high - low + 1));
}

/* Of mean 0 and standard deviation 1, nearly normal. */
static inline double norm_random_number(void)
{
    double sum = 0.0;
    for (int i = 0; i < 4; i++) sum += (double)norm_random_bits() / 2147483648.0 - 0.5;
    return sum * sqrt(3.0);
}

static inline double norm_get(const norm_run *run, const void *from, int64_t i)
{
    return run->dtype == CNN_FLOAT64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

static inline void norm_set(const norm_run *run, void *to, int64_t i, double value)
{
    if (run->dtype == CNN_FLOAT64)
        ((double *)to)[i] = value;
    else
        ((float *)to)[i] = (float)value;
}

static inline void norm_fill(const norm_run *run, int tensor, void *to, double value)
{
    for (int64_t i = 0; i < run->count[tensor]; i++) norm_set(run, to, i, value);
}

/* Rounded to float, so that both types see the same numbers. */
static inline void norm_fill_random(const norm_run *run, int tensor, void *to, double mean, double std)
{
    for (int64_t i = 0; i < run->count[tensor]; i++)
        norm_set(run, to, i, (double)(float)(mean + std * norm_random_number()));
}

static inline int64_t norm_num_batches(const norm_run *run)
{
    return *(const int64_t *)run->data[NUM_BATCHES];
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

static inline cnn_shape norm_parameter_shape(const norm_case *c)
{
    cnn_shape shape = {.rank = 1, .dim = {c->src.rank > 1 ? c->src.dim[1] : 0}};
    if (c->op != CNN_OP_LAYER_NORM) return shape;
    shape.rank = c->axes;
    for (int32_t i = 0; i < c->axes; i++) shape.dim[i] = c->src.dim[c->src.rank - c->axes + i];
    return shape;
}

static inline bool norm_is_present(const norm_case *c, int tensor)
{
    if (tensor == WEIGHTS || tensor == BIAS) return c->affine;
    if (tensor >= RUNNING_MEAN && tensor <= NUM_BATCHES) return c->running;
    return true;
}

static inline cnn_status norm_add_value(const norm_case *c, cnn_graph *graph, cnn_dtype dtype, int tensor,
                                        const cnn_shape *shape, cnn_value *value)
{
    if (tensor == SRC_TENSOR || (tensor <= BIAS && c->weights_are_inputs))
        return cnn_graph_input(graph, dtype, shape, value);
    if (tensor <= BIAS) return cnn_graph_parameter(graph, shape, value);
    return cnn_graph_state(graph, tensor == NUM_BATCHES ? CNN_INT64 : dtype, shape, value);
}

static inline cnn_status norm_build(const norm_case *c, cnn_dtype dtype, bool reference, norm_run *run)
{
    memset(run, 0, sizeof *run);
    run->dtype = dtype;
    run->shape[SRC_TENSOR] = run->shape[DST] = c->src;
    run->shape[WEIGHTS] = run->shape[BIAS] = norm_parameter_shape(c);
    run->shape[RUNNING_MEAN] = run->shape[RUNNING_VAR] = norm_parameter_shape(c);
    run->shape[NUM_BATCHES] = (cnn_shape){.rank = 0};
    const cnn_attributes attributes = {.norm = {.eps = c->eps == 0.0 ? 1e-5 : c->eps,
                                                .momentum = c->momentum == 0.0 ? 0.1 : c->momentum,
                                                .groups = c->groups,
                                                .axes = c->axes,
                                                .training = !c->evaluation}};
    const bool wanted[TENSORS] = {!c->no_diff_src, c->affine && !c->no_diff_weights, c->affine && !c->no_diff_bias};
    const cnn_plan_options options = {.backward = 1, .repeat = 1, .reference = reference};
    const int32_t num_sources = c->op == CNN_OP_BATCH_NORM || c->op == CNN_OP_INSTANCE_NORM ? 6 : 3;
    cnn_graph *graph = NULL;
    cnn_value value[TENSORS];
    cnn_status status = cnn_graph_create(dtype, &graph);
    for (int t = 0; t < TENSORS; t++) {
        value[t] = CNN_NONE;
        if (t == DST || !norm_is_present(c, t)) continue;
        if (status == CNN_OK) status = norm_add_value(c, graph, dtype, t, &run->shape[t], &value[t]);
        if (status == CNN_OK && wanted[t]) status = cnn_graph_require_gradient(graph, value[t]);
    }
    if (status == CNN_OK) status = cnn_graph_apply(graph, c->op, &attributes, num_sources, value, &value[DST]);
    if (status == CNN_OK) status = cnn_graph_output(graph, value[DST]);
    if (status == CNN_OK) status = cnn_plan_create(graph, &options, &run->plan);
    cnn_graph_free(graph);
    if (status == CNN_OK) status = cnn_context_create(run->plan, &run->context);
    for (int t = 0; t < TENSORS && status == CNN_OK; t++) {
        if (value[t] == CNN_NONE) continue;
        run->count[t] = cnn_shape_count(&run->shape[t]);
        run->data[t] = malloc((size_t)run->count[t] * sizeof(double) + 1);
        run->diff[t] = malloc((size_t)run->count[t] * sizeof(double) + 1);
        status = cnn_context_bind(run->context, value[t], run->data[t], run->diff[t]);
    }
    return status;
}

static inline void norm_release(norm_run *run)
{
    cnn_context_free(run->context);
    cnn_plan_free(run->plan);
    for (int t = 0; t < TENSORS; t++) {
        free(run->data[t]);
        free(run->diff[t]);
    }
}

static inline cnn_status norm_run_once(norm_run *run)
{
    const cnn_status status = cnn_context_forward(run->context);
    return status == CNN_OK ? cnn_context_backward(run->context) : status;
}

/* Puts numbers drawn from `seed` into everything read, NaN into everything that must be written, and `before` into what
 * gradients of weights are added to. */
static inline void norm_draw(norm_run *run, uint64_t seed, double mean, double std, double before)
{
    norm_random_state = seed;
    norm_fill_random(run, SRC_TENSOR, run->data[SRC_TENSOR], mean, std);
    norm_fill_random(run, WEIGHTS, run->data[WEIGHTS], 1.0, 0.5);
    norm_fill_random(run, BIAS, run->data[BIAS], 0.0, 1.0);
    norm_fill_random(run, RUNNING_MEAN, run->data[RUNNING_MEAN], mean, std);
    for (int64_t i = 0; i < run->count[RUNNING_VAR]; i++)
        norm_set(run, run->data[RUNNING_VAR], i, (double)(float)(std * std * (1.0 + fabs(norm_random_number()))));
    if (run->count[NUM_BATCHES] != 0) *(int64_t *)run->data[NUM_BATCHES] = 3;
    norm_fill_random(run, DST, run->diff[DST], 0.0, 1.0);
    norm_fill(run, DST, run->data[DST], (double)NAN);
    norm_fill(run, SRC_TENSOR, run->diff[SRC_TENSOR], (double)NAN);
    norm_fill(run, WEIGHTS, run->diff[WEIGHTS], before);
    norm_fill(run, BIAS, run->diff[BIAS], before);
}

/* Runs both passes. A run on NaN first fills the context's own memory with it. */
static inline cnn_status norm_compute(norm_run *run, uint64_t seed, double mean, double std, double before)
{
    norm_draw(run, seed, mean, std, before);
    norm_fill(run, SRC_TENSOR, run->data[SRC_TENSOR], (double)NAN);
    norm_fill(run, DST, run->diff[DST], (double)NAN);
    cnn_status status = norm_run_once(run);
    norm_draw(run, seed, mean, std, before);
    if (status == CNN_OK) status = norm_run_once(run);
    return status;
}

#endif
