/* Batch normalization that takes its statistics while a convolution makes its source: against the scalar reference, and the
 * same bits at any number of threads. */
#include <stdlib.h>

#include "cnn_core.h"
#include "graph/plan.h"
#include "tests/distance.h"
#include "tests/test.h"

typedef struct geometry {
    cnn_op op;
    int64_t n, size, ic, oc, kernel, stride, padding, groups;
    bool watches; /* is expected */
} geometry;

enum { X, WEIGHTS, SHIFT, SCALE, OFFSET, MEAN, VAR, Y, TENSORS };

typedef struct net {
    cnn_graph *graph;
    cnn_value value[TENSORS];
    int64_t count[TENSORS];
    float *data[TENSORS];
} net;

static void fill(net *m, int k, float scale, float shift)
{
    for (int64_t i = 0; i < m->count[k]; i++)
        m->data[k][i] = shift + scale * (float)((i * 7919 + 31 * k) % 2003 - 1001) / 1001.0f;
}

static void add_tensor(net *m, int k, cnn_shape shape)
{
    if (k == X)
        (void)cnn_graph_input(m->graph, CNN_FLOAT32, &shape, &m->value[k]);
    else if (k == MEAN || k == VAR)
        (void)cnn_graph_state(m->graph, CNN_FLOAT32, &shape, &m->value[k]);
    else
        (void)cnn_graph_parameter(m->graph, &shape, &m->value[k]);
    m->count[k] = cnn_shape_count(&shape);
}

static bool build(const geometry *g, net *m)
{
    const cnn_attributes conv = {.conv = {.stride = {g->stride, g->stride},
                                          .dilation = {1, 1},
                                          .padding = {g->padding, g->padding, g->padding, g->padding},
                                          .groups = g->groups}};
    const cnn_attributes norm = {.norm = {.eps = 1e-5, .momentum = 0.5, .training = 1}};
    const cnn_attributes relu = {.activation = {.kind = CNN_RELU}};
    const cnn_shape per_channel = {.rank = 1, .dim = {g->oc}};
    cnn_shape filter = {.rank = 4, .dim = {g->oc, g->ic / g->groups, g->kernel, g->kernel}}, y_shape;
    if (g->op == CNN_OP_CONV_TRANSPOSE2D) {
        filter.dim[0] = g->ic;
        filter.dim[1] = g->oc / g->groups;
    }
    cnn_value v;
    *m = (net){0};
    if (cnn_graph_create(CNN_FLOAT32, &m->graph) != CNN_OK) return false;
    add_tensor(m, X, (cnn_shape){.rank = 4, .dim = {g->n, g->ic, g->size, g->size}});
    add_tensor(m, WEIGHTS, filter);
    for (int k = SHIFT; k <= VAR; k++) add_tensor(m, k, per_channel);
    if (cnn_graph_apply(m->graph, g->op, &conv, 3, m->value, &v) != CNN_OK) return false;
    const cnn_value sources[] = {v, m->value[SCALE], m->value[OFFSET], m->value[MEAN], m->value[VAR]};
    if (cnn_graph_apply(m->graph, CNN_OP_BATCH_NORM, &norm, 5, sources, &v) != CNN_OK) return false;
    if (cnn_graph_apply(m->graph, CNN_OP_ACTIVATION, &relu, 1, &v, &m->value[Y]) != CNN_OK) return false;
    if (cnn_graph_output(m->graph, m->value[Y]) != CNN_OK) return false;
    if (cnn_graph_shape(m->graph, m->value[Y], &y_shape) != CNN_OK) return false;
    m->count[Y] = cnn_shape_count(&y_shape);
    for (int k = 0; k < TENSORS; k++)
        if ((m->data[k] = malloc((size_t)m->count[k] * sizeof(float))) == NULL) return false;
    return true;
}

static void demolish(net *m)
{
    cnn_graph_free(m->graph);
    for (int k = 0; k < TENSORS; k++) free(m->data[k]);
}

/* Runs on NaN, which fills the memory of the context, and then on numbers. */
static bool run(net *m, const cnn_plan *plan)
{
    cnn_context *context;
    if (cnn_context_create(plan, &context) != CNN_OK) return false;
    for (int k = 0; k < TENSORS; k++) (void)cnn_context_bind(context, m->value[k], m->data[k], NULL);
    bool good = true;
    for (int real = 0; real < 2; real++) {
        fill(m, X, real ? 1.0f : NAN, 0.0f);
        fill(m, WEIGHTS, 0.5f, 0.0f);
        fill(m, SHIFT, 1.0f, 20.0f);
        fill(m, SCALE, 0.5f, 1.0f);
        fill(m, OFFSET, 1.0f, 0.0f);
        fill(m, MEAN, 0.0f, 0.0f);
        fill(m, VAR, 0.0f, 0.0f);
        good = good && cnn_context_forward(context) == CNN_OK;
    }
    cnn_context_free(context);
    return good;
}

static float *copy_of(const net *m, int k)
{
    float *copy = malloc((size_t)m->count[k] * sizeof *copy);
    if (copy != NULL) memcpy(copy, m->data[k], (size_t)m->count[k] * sizeof *copy);
    return copy;
}

static void check(const geometry *g)
{
    net m;
    float *expected[TENSORS] = {NULL}, *first = NULL;
    REQUIRE(build(g, &m));
    for (int32_t threads = 0; threads <= 4; threads++) { /* 0: the reference, on one */
        const cnn_plan_options options = {.reference = threads == 0, .threads = threads};
        cnn_plan *plan;
        REQUIRE(cnn_plan_create(m.graph, &options, &plan) == CNN_OK);
        CHECK_INT(plan->steps[0].watcher, threads > 0 && g->watches ? 1 : -1);
        REQUIRE(run(&m, plan));
        for (int k = MEAN; k <= Y; k++) {
            if (threads == 0) expected[k] = copy_of(&m, k);
            /* y: sources lie some hundred deviations from zero, and are rounded there */
            CHECK(distance(expected[k], m.data[k], m.count[k]) < (k == Y ? 5e-5 : 2e-6));
        }
        if (threads == 1) first = copy_of(&m, Y);
        if (threads > 1) CHECK(memcmp(first, m.data[Y], (size_t)m.count[Y] * sizeof *first) == 0);
        cnn_plan_free(plan);
    }
    free(first);
    for (int k = 0; k < TENSORS; k++) free(expected[k]);
    demolish(&m);
}

static void takes_statistics_of_blocks(void)
{
    static const geometry cases[] = {
        {CNN_OP_CONV2D, 4, 40, 16, 40, 1, 1, 0, 1, true},
        {CNN_OP_CONV2D, 3, 57, 8, 5, 1, 1, 0, 1, true}, /* few channels: rows are folded */
        {CNN_OP_CONV2D, 4, 81, 20, 36, 3, 2, 1, 1, true},
        {CNN_OP_CONV2D, 4, 80, 3, 24, 7, 2, 3, 1, true}, /* in strips */
        {CNN_OP_CONV2D, 4, 41, 16, 24, 1, 1, 0, 2, true},
        {CNN_OP_CONV_TRANSPOSE2D, 4, 40, 12, 20, 1, 1, 0, 1, true},
        {CNN_OP_CONV2D, 1, 9, 96, 200, 1, 1, 0, 1, false}, /* few pixels: tasks are channels */
        {CNN_OP_CONV_TRANSPOSE2D, 4, 40, 12, 20, 2, 2, 0, 1, false}, /* phases: no task has neighbouring pixels */
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) check(&cases[i]);
}

static void takes_statistics_of_strips(void)
{
    static const geometry cases[] = {
        {CNN_OP_CONV2D, 2, 40, 200, 200, 3, 1, 1, 200, true}, /* of some channels each, rows by rows */
        {CNN_OP_CONV2D, 3, 33, 70, 70, 5, 2, 2, 70, true},
        {CNN_OP_CONV2D, 1, 9, 32, 32, 3, 1, 1, 32, true},
        {CNN_OP_CONV2D, 2, 20, 15, 15, 3, 1, 1, 15, false}, /* by another algorithm */
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) check(&cases[i]);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(takes_statistics_of_blocks), TEST(takes_statistics_of_strips)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
