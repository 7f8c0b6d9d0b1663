/* Normalizations that leave their results to the convolution behind them, and gradients to the one before: against the scalar reference, with the same bits at
 * any number of threads, and without memory for what is nowhere. */
#include <stdlib.h>

#include "cnn_core.h"
#include "graph/plan.h"
#include "tests/distance.h"
#include "tests/test.h"

/* JOINT: deferred, and both convolutions make their gradients from one reading. */
typedef enum expectation { KEPT, DEFERRED, JOINT } expectation;

typedef struct geometry {
    int64_t n, h, w, channels, oc; /* oc: 0: depthwise */
    int64_t kh, kw, stride, padding;
    cnn_activation activation;
    expectation expected;
} geometry;

enum { X, WEIGHTS, SCALE, OFFSET, FILTER, BIAS, MEAN, VAR, Y, TENSORS, GRADIENTS = MEAN };

enum { FIRST = 1, NORM }; /* steps: the first convolution, and what stands behind it */

#define NO_ACTIVATION ((cnn_activation)-1)

typedef struct net {
    cnn_graph *graph;
    cnn_value value[TENSORS];
    int64_t count[TENSORS];
    float *data[TENSORS], *diff[TENSORS];
} net;

static void fill(float *x, int64_t count, int k, float scale, float shift)
{
    for (int64_t i = 0; i < count; i++) x[i] = shift + scale * (float)((i * 7919 + 31 * k) % 2003 - 1001) / 1001.0f;
}

static void add_tensor(net *m, int k, cnn_shape shape)
{
    if (k == X) {
        (void)cnn_graph_input(m->graph, CNN_FLOAT32, &shape, &m->value[k]);
        (void)cnn_graph_require_gradient(m->graph, m->value[k]);
    } else if (k == MEAN || k == VAR) {
        (void)cnn_graph_state(m->graph, CNN_FLOAT32, &shape, &m->value[k]);
    } else {
        (void)cnn_graph_parameter(m->graph, &shape, &m->value[k]);
        (void)cnn_graph_require_gradient(m->graph, m->value[k]);
    }
    m->count[k] = cnn_shape_count(&shape);
}

static bool build(const geometry *g, net *m)
{
    const int64_t groups = g->oc == 0 ? g->channels : 1, oc = g->oc == 0 ? g->channels : g->oc;
    const cnn_attributes first = {.conv = {.stride = {1, 1}, .dilation = {1, 1}, .groups = 1}};
    const cnn_attributes second = {.conv = {.stride = {g->stride, g->stride},
                                            .dilation = {1, 1},
                                            .padding = {g->padding, g->padding, g->padding, g->padding},
                                            .groups = groups}};
    const cnn_attributes norm = {.norm = {.eps = 1e-5, .momentum = 0.5, .training = 1}};
    const cnn_attributes bent = {.activation = {.kind = CNN_LEAKY_RELU, .alpha = 0.5}};
    const cnn_attributes activation = {.activation = {.kind = g->activation, .alpha = 0.1}};
    const cnn_shape per_channel = {.rank = 1, .dim = {g->channels}};
    cnn_shape y_shape;
    cnn_value v;
    *m = (net){0};
    if (cnn_graph_create(CNN_FLOAT32, &m->graph) != CNN_OK) return false;
    add_tensor(m, X, (cnn_shape){.rank = 4, .dim = {g->n, 12, g->h, g->w}});
    add_tensor(m, WEIGHTS, (cnn_shape){.rank = 4, .dim = {g->channels, 12, 1, 1}});
    add_tensor(m, SCALE, per_channel);
    add_tensor(m, OFFSET, per_channel);
    add_tensor(m, FILTER, (cnn_shape){.rank = 4, .dim = {oc, g->channels / groups, g->kh, g->kw}});
    add_tensor(m, BIAS, (cnn_shape){.rank = 1, .dim = {oc}});
    add_tensor(m, MEAN, per_channel);
    add_tensor(m, VAR, per_channel);
    /* The source of the first convolution is no input: an input's gradient may have no memory. */
    if (cnn_graph_apply(m->graph, CNN_OP_ACTIVATION, &bent, 1, m->value, &v) != CNN_OK) return false;
    const cnn_value begin[] = {v, m->value[WEIGHTS]};
    if (cnn_graph_apply(m->graph, CNN_OP_CONV2D, &first, 2, begin, &v) != CNN_OK) return false;
    const cnn_value sources[] = {v, m->value[SCALE], m->value[OFFSET], m->value[MEAN], m->value[VAR]};
    if (cnn_graph_apply(m->graph, CNN_OP_BATCH_NORM, &norm, 5, sources, &v) != CNN_OK) return false;
    if (g->activation != NO_ACTIVATION && cnn_graph_apply(m->graph, CNN_OP_ACTIVATION, &activation, 1, &v, &v) != CNN_OK)
        return false;
    const cnn_value last[] = {v, m->value[FILTER], m->value[BIAS]};
    if (cnn_graph_apply(m->graph, CNN_OP_CONV2D, &second, 3, last, &m->value[Y]) != CNN_OK) return false;
    if (cnn_graph_output(m->graph, m->value[Y]) != CNN_OK) return false;
    if (cnn_graph_shape(m->graph, m->value[Y], &y_shape) != CNN_OK) return false;
    m->count[Y] = cnn_shape_count(&y_shape);
    for (int k = 0; k < TENSORS; k++) {
        m->data[k] = malloc((size_t)m->count[k] * sizeof(float));
        m->diff[k] = malloc((size_t)m->count[k] * sizeof(float));
        if (m->data[k] == NULL || m->diff[k] == NULL) return false;
    }
    return true;
}

static void demolish(net *m)
{
    cnn_graph_free(m->graph);
    for (int k = 0; k < TENSORS; k++) {
        free(m->data[k]);
        free(m->diff[k]);
    }
}

/* Runs on NaN, which fills the memory of the context, and then on numbers; the slow reference on these alone. */
static bool run(net *m, const cnn_plan *plan)
{
    cnn_context *context;
    if (cnn_context_create(plan, &context) != CNN_OK) return false;
    for (int k = 0; k < TENSORS; k++) (void)cnn_context_bind(context, m->value[k], m->data[k], m->diff[k]);
    bool good = true;
    for (int real = cnn_plan_uses_reference(plan); real < 2; real++) {
        fill(m->data[X], m->count[X], X, real ? 1.0f : NAN, 0.0f);
        fill(m->data[WEIGHTS], m->count[WEIGHTS], WEIGHTS, 0.5f, 0.1f);
        fill(m->data[SCALE], m->count[SCALE], SCALE, 0.5f, 1.0f);
        fill(m->data[OFFSET], m->count[OFFSET], OFFSET, 1.0f, 0.3f);
        fill(m->data[FILTER], m->count[FILTER], FILTER, 0.5f, 0.0f);
        fill(m->data[BIAS], m->count[BIAS], BIAS, 1.0f, 0.0f);
        fill(m->data[MEAN], m->count[MEAN], MEAN, 0.0f, 0.0f);
        fill(m->data[VAR], m->count[VAR], VAR, 0.0f, 0.0f);
        for (int k = 0; k < TENSORS; k++) fill(m->diff[k], m->count[k], k, k == Y ? 1.0f : 0.0f, 0.0f);
        good = good && cnn_context_forward(context) == CNN_OK && cnn_context_backward(context) == CNN_OK;
    }
    cnn_context_free(context);
    return good;
}

static float *copy_of(const float *from, int64_t count)
{
    float *copy = malloc((size_t)count * sizeof *copy);
    if (copy != NULL) memcpy(copy, from, (size_t)count * sizeof *copy);
    return copy;
}

/* What a run leaves: results, running statistics and all gradients. */
static float *left_by(net *m, int k) { return k < GRADIENTS ? m->diff[k] : m->data[k]; }

static void check(const geometry *g)
{
    net m;
    float *expected[TENSORS] = {NULL}, *first[TENSORS] = {NULL};
    REQUIRE(build(g, &m));
    for (int32_t threads = 0; threads <= 4; threads++) { /* 0: the reference, on one */
        const cnn_plan_options options = {.backward = 1, .reference = threads == 0, .threads = threads};
        cnn_plan *plan;
        REQUIRE(cnn_plan_create(m.graph, &options, &plan) == CNN_OK);
        const bool deferred = threads > 0 && g->expected != KEPT;
        CHECK_INT(plan->graph.steps[NORM].node.deferred, deferred);
        CHECK_INT(plan->graph.steps[plan->graph.num_steps - 1].node.prologue, deferred);
        if (deferred) CHECK(plan->values[plan->graph.steps[NORM].result].data == CNN_NO_BUFFER);
        const bool joint = threads > 0 && g->expected == JOINT;
        CHECK_INT(plan->steps[plan->graph.num_steps - 1].back_watcher, joint ? NORM : -1);
        CHECK_INT(plan->steps[FIRST].made_of, joint ? NORM : -1);
        if (joint) CHECK(plan->values[plan->graph.steps[FIRST].result].diff == CNN_NO_BUFFER);
        REQUIRE(run(&m, plan));
        for (int k = 0; k < TENSORS; k++) {
            if (threads == 0) expected[k] = copy_of(left_by(&m, k), m.count[k]);
            CHECK_NEAR(distance(expected[k], left_by(&m, k), m.count[k]), 0.0, joint ? 3e-4 : 1e-4); /* over more pixels */
            if (threads == 1) first[k] = copy_of(left_by(&m, k), m.count[k]);
            if (threads > 1) CHECK(memcmp(first[k], left_by(&m, k), (size_t)m.count[k] * sizeof(float)) == 0);
        }
        cnn_plan_free(plan);
    }
    for (int k = 0; k < TENSORS; k++) {
        free(expected[k]);
        free(first[k]);
    }
    demolish(&m);
}

static void convolutions_of_one_pixel_make_their_sources(void)
{
    static const geometry cases[] = {
        {4, 32, 32, 40, 24, 1, 1, 1, 0, CNN_RELU6, DEFERRED},
        {4, 33, 31, 40, 70, 1, 1, 1, 0, NO_ACTIVATION, DEFERRED},
        {3, 57, 57, 16, 20, 1, 1, 1, 0, CNN_RELU, DEFERRED}, /* few channels: rows of coefficients are folded */
        {2, 23, 19, 300, 130, 1, 1, 1, 0, CNN_LEAKY_RELU, DEFERRED}, /* rows of weight gradients are copied */
        {2, 19, 19, 320, 20, 1, 1, 1, 0, CNN_RELU, DEFERRED},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) check(&cases[i]);
}

static void depthwise_convolutions_make_their_sources(void)
{
    static const geometry cases[] = {
        {4, 32, 32, 40, 0, 3, 3, 1, 1, CNN_RELU6, DEFERRED},
        {4, 33, 47, 36, 0, 3, 3, 2, 1, CNN_RELU, DEFERRED},
        {2, 45, 40, 70, 0, 5, 5, 2, 2, CNN_LEAKY_RELU, DEFERRED},
        {2, 45, 40, 70, 0, 3, 5, 1, 0, CNN_RELU, DEFERRED},
        {2, 30, 128, 96, 0, 3, 3, 1, 4, NO_ACTIVATION, DEFERRED}, /* some rows see nothing; few fit at a time */
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) check(&cases[i]);
}

/* Where images come from memory: the normalization's sums are taken of the second convolution's gradient as it is made, and the
 * first one makes its own of that. */
static void gradients_are_left_to_their_readers(void)
{
    static const geometry large = {12, 98, 98, 44, 0, 3, 3, 1, 1, CNN_RELU6, JOINT};
    check(&large);
}

static void others_read_results(void)
{
    static const geometry cases[] = {
        {4, 32, 32, 40, 24, 1, 1, 1, 0, CNN_SIGMOID, KEPT}, /* its derivative is not to be seen in its value */
        {4, 32, 32, 40, 24, 3, 3, 1, 1, CNN_RELU, KEPT},
        {4, 32, 32, 40, 24, 1, 1, 2, 0, CNN_RELU, KEPT},
        {4, 32, 32, 40, 24, 1, 1, 1, 1, CNN_RELU, KEPT},
        {4, 32, 32, 40, 0, 7, 7, 1, 3, CNN_RELU, KEPT},
        {1, 16, 16, 40, 24, 1, 1, 1, 0, CNN_RELU, KEPT}, /* small */
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) check(&cases[i]);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(convolutions_of_one_pixel_make_their_sources),
                                      TEST(depthwise_convolutions_make_their_sources),
                                      TEST(gradients_are_left_to_their_readers), TEST(others_read_results)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
