/* Chains: steps that run band by band give the bits of the same steps one after the other, at any number of threads. */
#include <stdlib.h>

#include "cnn_core.h"
#include "graph/chain.h"
#include "tests/test.h"

/* An inverted residual: 1x1, depthwise, 1x1, and an addition where the image keeps its size. */
typedef struct geometry {
    int64_t n, size, channels, wide, kernel, stride, padding;
    cnn_activation kind;
    int32_t chains; /* that are expected */
} geometry;

typedef struct block {
    cnn_graph *graph;
    cnn_value x, y, weights[3], bias[3];
    float *data[6];
    int64_t count[6];
    cnn_shape y_shape;
} block;

static float number(int64_t i)
{
    return (float)((i * 7919) % 2003 - 1001) / 1000.0f;
}

static float *numbers(int64_t count, float scale)
{
    float *data = malloc((size_t)count * sizeof *data);
    for (int64_t i = 0; data != NULL && i < count; i++) data[i] = scale * number(i + 5 * count);
    return data;
}

static cnn_value add_conv(block *b, int k, cnn_value src, int64_t out, int64_t in, int64_t kernel, int64_t stride,
                          int64_t padding, int64_t groups)
{
    const cnn_shape filter = {.rank = 4, .dim = {out, in / groups, kernel, kernel}}, row = {.rank = 1, .dim = {out}};
    const cnn_attributes attributes = {.conv = {.stride = {stride, stride},
                                                .dilation = {1, 1},
                                                .padding = {padding, padding, padding, padding},
                                                .groups = groups}};
    b->count[k] = out * (in / groups) * kernel * kernel;
    b->count[3 + k] = out;
    b->data[k] = numbers(b->count[k], 0.3f);
    b->data[3 + k] = numbers(out, 1.0f);
    (void)cnn_graph_parameter(b->graph, &filter, &b->weights[k]);
    (void)cnn_graph_parameter(b->graph, &row, &b->bias[k]);
    const cnn_value sources[] = {src, b->weights[k], b->bias[k]};
    cnn_value result = CNN_NONE;
    (void)cnn_graph_apply(b->graph, CNN_OP_CONV2D, &attributes, 3, sources, &result);
    return result;
}

static cnn_value add_activation(block *b, cnn_value src, cnn_activation kind)
{
    const cnn_attributes attributes = {.activation = {.kind = kind, .alpha = 0.1}};
    cnn_value result = CNN_NONE;
    (void)cnn_graph_apply(b->graph, CNN_OP_ACTIVATION, &attributes, 1, &src, &result);
    return result;
}

static block *build(const geometry *g)
{
    block *b = calloc(1, sizeof *b);
    if (b == NULL) return NULL;
    const cnn_shape image = {.rank = 4, .dim = {g->n, g->channels, g->size, g->size}};
    (void)cnn_graph_create(CNN_FLOAT32, &b->graph);
    (void)cnn_graph_input(b->graph, CNN_FLOAT32, &image, &b->x);
    cnn_value v = add_activation(b, add_conv(b, 0, b->x, g->wide, g->channels, 1, 1, 0, 1), g->kind);
    v = add_activation(b, add_conv(b, 1, v, g->wide, g->wide, g->kernel, g->stride, g->padding, g->wide), g->kind);
    v = add_conv(b, 2, v, g->channels, g->wide, 1, 1, 0, 1);
    (void)cnn_graph_shape(b->graph, v, &b->y_shape);
    if (b->y_shape.dim[2] == g->size) {
        const cnn_attributes plus = {.affine = {.alpha = 1.0}};
        const cnn_value both[] = {v, b->x};
        (void)cnn_graph_apply(b->graph, CNN_OP_ADD, &plus, 2, both, &v);
    }
    b->y = v;
    (void)cnn_graph_output(b->graph, b->y);
    return b;
}

static void demolish(block *b)
{
    if (b == NULL) return;
    cnn_graph_free(b->graph);
    for (int k = 0; k < 6; k++) free(b->data[k]);
    free(b);
}

/* y = the block of x by this plan; parameters are bound unless it is frozen. */
static void run(const block *b, const cnn_plan *plan, bool frozen, float *x, float *y)
{
    cnn_context *context = NULL;
    REQUIRE(cnn_context_create(plan, &context) == CNN_OK);
    for (int k = 0; k < 3 && !frozen; k++) {
        CHECK_INT(cnn_context_bind(context, b->weights[k], b->data[k], NULL), CNN_OK);
        CHECK_INT(cnn_context_bind(context, b->bias[k], b->data[3 + k], NULL), CNN_OK);
    }
    CHECK_INT(cnn_context_bind(context, b->x, x, NULL), CNN_OK);
    CHECK_INT(cnn_context_bind(context, b->y, y, NULL), CNN_OK);
    CHECK_INT(cnn_context_forward(context), CNN_OK);
    CHECK_INT(cnn_context_forward(context), CNN_OK); /* nothing of the first run is left over */
    cnn_context_free(context);
}

static void check(const geometry *g)
{
    block *b = build(g);
    REQUIRE(b != NULL && cnn_graph_num_values(b->graph) <= 16);
    int64_t pixels = g->n * g->size * g->size * g->channels, results = 1;
    for (int i = 0; i < 4; i++) results *= b->y_shape.dim[i];
    float *x = numbers(pixels, 1.0f), *wanted = numbers(results, 0.0f), *got = numbers(results, 0.0f);
    const void *data[16] = {NULL};
    for (int k = 0; k < 3; k++) {
        data[b->weights[k]] = b->data[k];
        data[b->bias[k]] = b->data[3 + k];
    }
    cnn_plan *plan = NULL;
    REQUIRE(cnn_plan_create(b->graph, NULL, &plan) == CNN_OK);
    CHECK_INT(plan->num_chains, 0);
    run(b, plan, false, x, wanted);
    cnn_plan_free(plan);
    for (int32_t threads = 1; threads <= 4; threads++) {
        const cnn_plan_options options = {.threads = threads};
        REQUIRE(cnn_plan_freeze(b->graph, &options, data, &plan) == CNN_OK);
        CHECK_INT(plan->num_chains, g->chains);
        if (g->chains > 0) CHECK_INT(cnn_plan_bytes(plan, CNN_MEMORY_ACTIVATIONS), 0);
        for (int64_t i = 0; i < results; i++) got[i] = NAN;
        run(b, plan, true, x, got);
        CHECK(memcmp(got, wanted, (size_t)results * sizeof *got) == 0);
        cnn_plan_free(plan);
    }
    free(x);
    free(wanted);
    free(got);
    demolish(b);
}

static void gives_the_bits_of_single_steps(void)
{
    static const geometry cases[] = {
        {1, 56, 24, 144, 3, 1, 1, CNN_RELU6, 1},      {3, 56, 24, 144, 3, 2, 1, CNN_RELU6, 1},
        {2, 57, 19, 70, 5, 2, 2, CNN_SILU, 1},        {5, 31, 20, 117, 5, 1, 2, CNN_HARDSWISH, 1},
        {1, 112, 16, 96, 3, 2, 1, CNN_LEAKY_RELU, 1}, {4, 40, 17, 35, 3, 1, 0, CNN_RELU, 1},
        {7, 30, 16, 64, 3, 1, 2, CNN_RELU, 1},        {2, 200, 3, 40, 5, 2, 1, CNN_TANH, 1},
        {1, 8, 24, 144, 3, 1, 1, CNN_RELU6, 0},       {16, 14, 32, 96, 3, 1, 1, CNN_RELU6, 1},
        {0, 56, 24, 144, 3, 1, 1, CNN_RELU6, 0},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) check(&cases[i]);
}

/* A result that somebody else reads, or that is an output, is not passed on in bands. */
static void leaves_what_others_read(void)
{
    const geometry g = {1, 56, 24, 144, 3, 1, 1, CNN_RELU6, 1};
    block *b = build(&g);
    REQUIRE(b != NULL);
    const void *data[16] = {NULL};
    for (int k = 0; k < 3; k++) {
        data[b->weights[k]] = b->data[k];
        data[b->bias[k]] = b->data[3 + k];
    }
    const cnn_value expanded = b->weights[1] - 1; /* the activation before the depthwise convolution */
    cnn_shape shape;
    REQUIRE(cnn_graph_shape(b->graph, expanded, &shape) == CNN_OK && shape.dim[1] == g.wide);
    REQUIRE(cnn_graph_output(b->graph, expanded) == CNN_OK);
    cnn_plan *plan = NULL;
    REQUIRE(cnn_plan_freeze(b->graph, NULL, data, &plan) == CNN_OK);
    CHECK_INT(plan->num_chains, 1);
    CHECK_INT(plan->chains[0].steps, 2);
    cnn_plan_free(plan);
    demolish(b);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(gives_the_bits_of_single_steps), TEST(leaves_what_others_read)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
