/* Plans with constant parameters: what they refuse, and that folding, fusing and packing change rounding alone. */
#include <stdlib.h>

#include "cnn_core.h"
#include "tests/test.h"

enum { CHANNELS = 20, SIZE = 11, WEIGHTS = CHANNELS * CHANNELS * 9, PIXELS = CHANNELS * SIZE * SIZE };

/* y = relu(batch_norm(conv(x)) + x) */
typedef struct network {
    cnn_graph *graph;
    cnn_value x, y, weights, bn[5];
    float weights_data[WEIGHTS], bn_data[4][CHANNELS];
    int64_t batches;
} network;

static const cnn_shape image = {.rank = 4, .dim = {1, CHANNELS, SIZE, SIZE}};

static float number(int64_t i)
{
    return (float)((i * 7919) % 201 - 100) / 100.0f;
}

static network *build(int32_t training)
{
    network *n = calloc(1, sizeof *n);
    if (n == NULL) return NULL;
    const cnn_shape filter = {.rank = 4, .dim = {CHANNELS, CHANNELS, 3, 3}}, row = {.rank = 1, .dim = {CHANNELS}};
    const cnn_shape scalar = {.rank = 0};
    for (int64_t i = 0; i < WEIGHTS; i++) n->weights_data[i] = 0.1f * number(i);
    for (int64_t i = 0; i < CHANNELS; i++) {
        n->bn_data[0][i] = 1.0f + 0.5f * number(i);
        n->bn_data[1][i] = number(i + 1);
        n->bn_data[2][i] = number(i + 2);
        n->bn_data[3][i] = 1.5f + number(i + 3);
    }
    (void)cnn_graph_create(CNN_FLOAT32, &n->graph);
    (void)cnn_graph_input(n->graph, CNN_FLOAT32, &image, &n->x);
    (void)cnn_graph_parameter(n->graph, &filter, &n->weights);
    (void)cnn_graph_parameter(n->graph, &row, &n->bn[0]);
    (void)cnn_graph_parameter(n->graph, &row, &n->bn[1]);
    (void)cnn_graph_state(n->graph, CNN_FLOAT32, &row, &n->bn[2]);
    (void)cnn_graph_state(n->graph, CNN_FLOAT32, &row, &n->bn[3]);
    (void)cnn_graph_state(n->graph, CNN_INT64, &scalar, &n->bn[4]);

    cnn_value conv, norm, sum;
    const cnn_attributes same = {
        .conv = {.stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1, 1, 1}, .groups = 1}};
    const cnn_attributes statistics = {.norm = {.eps = 1e-5, .momentum = 0.1, .training = training}};
    const cnn_attributes plus = {.affine = {.alpha = 1.0}}, relu = {.activation = {.kind = CNN_RELU}};
    const cnn_value conv_sources[] = {n->x, n->weights};
    (void)cnn_graph_apply(n->graph, CNN_OP_CONV2D, &same, 2, conv_sources, &conv);
    const cnn_value norm_sources[] = {conv, n->bn[0], n->bn[1], n->bn[2], n->bn[3], n->bn[4]};
    (void)cnn_graph_apply(n->graph, CNN_OP_BATCH_NORM, &statistics, 6, norm_sources, &norm);
    const cnn_value sum_sources[] = {norm, n->x};
    (void)cnn_graph_apply(n->graph, CNN_OP_ADD, &plus, 2, sum_sources, &sum);
    (void)cnn_graph_apply(n->graph, CNN_OP_ACTIVATION, &relu, 1, &sum, &n->y);
    (void)cnn_graph_output(n->graph, n->y);
    return n;
}

static void demolish(network *n)
{
    if (n == NULL) return;
    cnn_graph_free(n->graph);
    free(n);
}

/* Memory of parameters and states by value; 16 are more than there are values. */
static void list_data(network *n, const void *data[16])
{
    for (int i = 0; i < 16; i++) data[i] = NULL;
    data[n->weights] = n->weights_data;
    for (int i = 0; i < 4; i++) data[n->bn[i]] = n->bn_data[i];
    data[n->bn[4]] = &n->batches;
}

static void gives_what_the_reference_gives(void)
{
    network *n = build(0);
    REQUIRE(n != NULL && cnn_graph_num_values(n->graph) <= 16);
    const void *data[16];
    list_data(n, data);
    static float x[PIXELS], wanted[PIXELS], got[PIXELS];
    for (int64_t i = 0; i < PIXELS; i++) x[i] = number(3 * i);

    cnn_plan *plan = NULL;
    cnn_context *context = NULL;
    const cnn_plan_options reference = {.reference = 1};
    REQUIRE(cnn_plan_create(n->graph, &reference, &plan) == CNN_OK);
    REQUIRE(cnn_context_create(plan, &context) == CNN_OK);
    for (int v = 0; v < cnn_graph_num_values(n->graph); v++)
        if (data[v] != NULL) CHECK_INT(cnn_context_bind(context, v, (void *)(uintptr_t)data[v], NULL), CNN_OK);
    CHECK_INT(cnn_context_bind(context, n->x, x, NULL), CNN_OK);
    CHECK_INT(cnn_context_bind(context, n->y, wanted, NULL), CNN_OK);
    CHECK_INT(cnn_context_forward(context), CNN_OK);
    cnn_context_free(context);
    cnn_plan_free(plan);

    for (int32_t direct = 0; direct < 2; direct++) {
        const cnn_plan_options options = {.direct = direct, .threads = 2};
        REQUIRE(cnn_plan_freeze(n->graph, &options, data, &plan) == CNN_OK);
        CHECK_INT(cnn_plan_bytes(plan, CNN_MEMORY_ACTIVATIONS), 0); /* all in one step, from input to output */
        CHECK(cnn_plan_bytes(plan, CNN_MEMORY_CONSTANTS) >= sizeof n->weights_data);
        REQUIRE(cnn_context_create(plan, &context) == CNN_OK);
        CHECK_INT(cnn_context_bind(context, n->weights, n->weights_data, NULL), CNN_INVALID_VALUE);
        CHECK_INT(cnn_context_forward(context), CNN_INVALID_STATE); /* nothing bound yet */
        CHECK_INT(cnn_context_bind(context, n->x, x, NULL), CNN_OK);
        CHECK_INT(cnn_context_bind(context, n->y, got, NULL), CNN_OK);
        for (int64_t i = 0; i < PIXELS; i++) got[i] = NAN;
        CHECK_INT(cnn_context_forward(context), CNN_OK);
        for (int64_t i = 0; i < PIXELS; i++) CHECK_NEAR(got[i], wanted[i], 1e-5);
        cnn_context_free(context);
        cnn_plan_free(plan);
    }
    demolish(n);
}

static void refuses(void)
{
    network *n = build(1), *fixed = build(0);
    REQUIRE(n != NULL && fixed != NULL);
    const void *data[16];
    cnn_plan *plan = NULL;
    list_data(n, data);
    CHECK_INT(cnn_plan_freeze(n->graph, NULL, data, &plan), CNN_INVALID_VALUE); /* it would update its statistics */
    CHECK(plan == NULL);
    list_data(fixed, data);
    const cnn_plan_options backward = {.backward = 1}, threads = {.threads = -1};
    CHECK_INT(cnn_plan_freeze(fixed->graph, &backward, data, &plan), CNN_INVALID_VALUE);
    CHECK_INT(cnn_plan_freeze(fixed->graph, &threads, data, &plan), CNN_INVALID_VALUE);
    data[fixed->weights] = NULL;
    CHECK_INT(cnn_plan_freeze(fixed->graph, NULL, data, &plan), CNN_INVALID_VALUE);
    demolish(n);
    demolish(fixed);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(gives_what_the_reference_gives), TEST(refuses)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
