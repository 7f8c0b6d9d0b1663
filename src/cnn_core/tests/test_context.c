/* Plans and contexts for those who own the memory: single operations, contexts in the caller's memory, queries, the caller's
 * allocator. */
#include <stdint.h>
#include <stdlib.h>

#include "cnn_core.h"
#include "tests/test.h"

enum { N = 2, IC = 3, OC = 5, SIZE = 6, X = N * IC * SIZE * SIZE, Y = N * OC * SIZE * SIZE, W = OC * IC * 9 };

static const cnn_attributes same = {
    .conv = {.stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1, 1, 1}, .groups = 1}};
static const cnn_shape conv_shapes[] = {{.rank = 4, .dim = {N, IC, SIZE, SIZE}},
                                        {.rank = 4, .dim = {OC, IC, 3, 3}},
                                        {.rank = 1, .dim = {OC}}};

static float number(int64_t i) { return (float)((i * 7919) % 201 - 100) / 100.0f; }

/* A convolution, forward and backward, on the caller's memory alone. */
static cnn_status convolve(const float *src, const float *weights, const float *bias, float *dst, const float *diff_dst,
                           float *diff_src, float *diff_weights, float *diff_bias)
{
    cnn_plan *plan;
    cnn_context *context;
    const cnn_plan_options options = {.backward = 1};
    cnn_status status = cnn_plan_single(CNN_OP_CONV2D, &same, CNN_FLOAT32, 3, conv_shapes, &options, &plan);
    if (status != CNN_OK) return status;
    void *memory = malloc(cnn_plan_context_bytes(plan));
    status = cnn_context_create_in(plan, memory, cnn_plan_context_bytes(plan), &context);
    if (status == CNN_OK) status = cnn_context_bind(context, 0, (void *)(uintptr_t)src, diff_src);
    if (status == CNN_OK) status = cnn_context_bind(context, 1, (void *)(uintptr_t)weights, diff_weights);
    if (status == CNN_OK) status = cnn_context_bind(context, 2, (void *)(uintptr_t)bias, diff_bias);
    if (status == CNN_OK) status = cnn_context_bind(context, 3, dst, (void *)(uintptr_t)diff_dst);
    if (status == CNN_OK) status = cnn_context_forward(context);
    if (status == CNN_OK) status = cnn_context_backward(context);
    cnn_plan_free(plan);
    free(memory);
    return status;
}

/* The definition: every pair of pixels that meet under the kernel. Images are (n, h, w, c). */
static void convolve_by_definition(const float *src, const float *weights, const float *bias, float *dst,
                                   const float *diff_dst, float *diff_src, float *diff_weights, float *diff_bias)
{
    for (int p = 0; p < N * SIZE * SIZE; p++)
        for (int o = 0; o < OC; o++) {
            const float gradient = diff_dst[p * OC + o];
            dst[p * OC + o] = bias[o];
            diff_bias[o] += gradient;
            for (int k = 0; k < 9; k++) {
                const int y = p / SIZE % SIZE + k / 3 - 1, x = p % SIZE + k % 3 - 1;
                if (y < 0 || y >= SIZE || x < 0 || x >= SIZE) continue;
                for (int c = 0; c < IC; c++) {
                    const int from = ((p / (SIZE * SIZE) * SIZE + y) * SIZE + x) * IC + c, tap = (o * IC + c) * 9 + k;
                    dst[p * OC + o] += src[from] * weights[tap];
                    diff_src[from] += gradient * weights[tap];
                    diff_weights[tap] += gradient * src[from];
                }
            }
        }
}

static void one_convolution(void)
{
    static float src[X], weights[W], bias[OC], dst[Y], diff_dst[Y], diff_src[X], diff_weights[W], diff_bias[OC];
    static float dst2[Y], diff_src2[X], diff_weights2[W], diff_bias2[OC];
    for (int i = 0; i < X; i++) src[i] = number(i);
    for (int i = 0; i < W; i++) weights[i] = number(3 * i + 1);
    for (int i = 0; i < OC; i++) bias[i] = number(5 * i);
    for (int i = 0; i < Y; i++) diff_dst[i] = number(7 * i + 2);
    CHECK_INT(convolve(src, weights, bias, dst, diff_dst, diff_src, diff_weights, diff_bias), CNN_OK);
    convolve_by_definition(src, weights, bias, dst2, diff_dst, diff_src2, diff_weights2, diff_bias2);
    for (int i = 0; i < Y; i++) CHECK_NEAR(dst[i], dst2[i], 1e-5);
    for (int i = 0; i < X; i++) CHECK_NEAR(diff_src[i], diff_src2[i], 1e-5);
    for (int i = 0; i < W; i++) CHECK_NEAR(diff_weights[i], diff_weights2[i], 1e-4);
    for (int i = 0; i < OC; i++) CHECK_NEAR(diff_bias[i], diff_bias2[i], 1e-4);
}

static void single_plans_number_by_source(void)
{
    cnn_plan *plan = NULL;
    cnn_shape shape;
    cnn_dtype dtype;
    /* Batch normalization without weights: values 0 to 5 are its sources, two of them absent; 6 is dst. */
    const cnn_shape row = {.rank = 1, .dim = {4}}, absent = {.rank = -1}, scalar = {.rank = 0};
    const cnn_shape shapes[] = {{.rank = 4, .dim = {2, 4, 3, 3}}, absent, absent, row, row, scalar};
    const cnn_attributes norm = {.norm = {.eps = 1e-5, .momentum = 0.1}};
    REQUIRE(cnn_plan_single(CNN_OP_BATCH_NORM, &norm, CNN_FLOAT32, 6, shapes, NULL, &plan) == CNN_OK);
    CHECK_INT(cnn_plan_num_inputs(plan), 1);
    CHECK_INT(cnn_plan_input(plan, 0), 0);
    CHECK_INT(cnn_plan_output(plan, 0), 6);
    CHECK_INT(cnn_plan_shape(plan, 6, &shape), CNN_OK);
    CHECK_INT(shape.dim[1], 4);
    CHECK_INT(cnn_plan_dtype(plan, 5, &dtype), CNN_OK);
    CHECK_INT(dtype, CNN_INT64);
    float x[72], y[72], mean[4] = {0}, variance[4] = {1, 1, 1, 1};
    int64_t batches = 0;
    for (int i = 0; i < 72; i++) x[i] = number(i);
    cnn_context *context = NULL;
    REQUIRE(cnn_context_create(plan, &context) == CNN_OK);
    void *const data[] = {x, NULL, NULL, mean, variance, &batches, y};
    for (int v = 0; v < 7; v++)
        if (data[v] != NULL) CHECK_INT(cnn_context_bind(context, v, data[v], NULL), CNN_OK);
    CHECK_INT(cnn_context_forward(context), CNN_OK);
    for (int i = 0; i < 72; i++) CHECK_NEAR(y[i], x[i], 1e-5);
    cnn_context_free(context);
    cnn_plan_free(plan);

    const cnn_shape logits[] = {{.rank = 2, .dim = {3, 4}}, {.rank = 1, .dim = {3}}};
    const cnn_attributes loss = {.loss = {.reduction = CNN_REDUCE_MEAN, .ignore_index = -100}};
    REQUIRE(cnn_plan_single(CNN_OP_CROSS_ENTROPY, &loss, CNN_FLOAT32, 2, logits, NULL, &plan) == CNN_OK);
    CHECK_INT(cnn_plan_num_inputs(plan), 2);
    CHECK_INT(cnn_plan_dtype(plan, 1, &dtype), CNN_OK);
    CHECK_INT(dtype, CNN_INT64);
    cnn_plan_free(plan);

    CHECK_INT(cnn_plan_single(CNN_OP_CONV2D, &same, CNN_FLOAT32, 1, conv_shapes, NULL, &plan), CNN_INVALID_VALUE);
    CHECK(plan == NULL);
    CHECK_INT(cnn_plan_single(CNN_OP_CONV2D, &same, CNN_FLOAT32, 99, conv_shapes, NULL, &plan), CNN_INVALID_VALUE);
    CHECK_INT(cnn_plan_single((cnn_op)999, &same, CNN_FLOAT32, 1, conv_shapes, NULL, &plan), CNN_INVALID_VALUE);
    CHECK_INT(cnn_plan_single(CNN_OP_CONV2D, &same, CNN_INT64, 3, conv_shapes, NULL, &plan), CNN_INVALID_TYPE);
}

static void contexts_in_the_callers_memory(void)
{
    const int32_t before = cnn_get_num_threads();
    CHECK_INT(cnn_set_num_threads(3), CNN_OK);
    cnn_plan *plan = NULL;
    cnn_context *context = NULL;
    REQUIRE(cnn_plan_single(CNN_OP_CONV2D, &same, CNN_FLOAT32, 3, conv_shapes, NULL, &plan) == CNN_OK);
    const size_t bytes = cnn_plan_context_bytes(plan);
    static float src[X], weights[W], bias[OC], wanted[Y], got[Y];
    for (int i = 0; i < X; i++) src[i] = number(i);
    for (int i = 0; i < W; i++) weights[i] = number(3 * i + 1);

    /* From all that it asks for, at any alignment, down to what one thread needs. */
    char *memory = malloc(bytes + 8);
    REQUIRE(memory != NULL);
    const size_t cuts[] = {0, 1, 64, 1024};
    int made = 0;
    for (int i = 0; i < 4; i++) {
        const size_t given = bytes - cuts[i];
        memset(memory, 0x5A, bytes + 8);
        const cnn_status status = cnn_context_create_in(plan, memory + i, given, &context);
        if (status != CNN_OK) {
            CHECK_INT(status, CNN_INVALID_VALUE);
            CHECK(context == NULL);
            continue;
        }
        made++;
        CHECK_INT(cnn_context_bind(context, 0, src, NULL), CNN_OK);
        CHECK_INT(cnn_context_bind(context, 1, weights, NULL), CNN_OK);
        CHECK_INT(cnn_context_bind(context, 2, bias, NULL), CNN_OK);
        CHECK_INT(cnn_context_bind(context, 3, made == 1 ? wanted : got, NULL), CNN_OK);
        CHECK_INT(cnn_set_num_threads(16), CNN_OK); /* more than there is workspace for */
        CHECK_INT(cnn_context_forward(context), CNN_OK);
        CHECK_INT(cnn_set_num_threads(3), CNN_OK);
        if (made > 1) CHECK(memcmp(wanted, got, sizeof wanted) == 0);
        for (size_t k = given; k < bytes; k++) CHECK_INT(memory[(size_t)i + k], 0x5A);
        cnn_context_free(context); /* nothing to do, but allowed */
    }
    CHECK(made >= 2);
    CHECK_INT(cnn_context_create_in(plan, memory, 100, &context), CNN_INVALID_VALUE);
    CHECK(context == NULL);
    free(memory);
    cnn_plan_free(plan);
    CHECK_INT(cnn_set_num_threads(before), CNN_OK);
}

static void names_and_descriptions(void)
{
    cnn_graph *graph = NULL;
    cnn_plan *plan = NULL;
    cnn_value x, a, b;
    const cnn_shape shape = {.rank = 2, .dim = {1, 4}};
    const cnn_attributes relu = {.activation = {.kind = CNN_RELU}}, tanh = {.activation = {.kind = CNN_TANH}};
    REQUIRE(cnn_graph_create(CNN_FLOAT64, &graph) == CNN_OK);
    REQUIRE(cnn_graph_input(graph, CNN_FLOAT64, &shape, &x) == CNN_OK);
    REQUIRE(cnn_graph_apply(graph, CNN_OP_ACTIVATION, &relu, 1, &x, &a) == CNN_OK);
    REQUIRE(cnn_graph_apply(graph, CNN_OP_ACTIVATION, &tanh, 1, &x, &b) == CNN_OK);
    CHECK_INT(cnn_graph_output(graph, b), CNN_OK); /* the later value first */
    CHECK_INT(cnn_graph_output(graph, a), CNN_OK);
    CHECK_INT(cnn_graph_output(graph, b), CNN_OK); /* it is one already */
    char name[CNN_NAME_BYTES + 1] = {0};
    memset(name, 'n', CNN_NAME_BYTES);
    CHECK_INT(cnn_graph_name(graph, x, name), CNN_INVALID_VALUE);
    CHECK_INT(cnn_graph_name(graph, 77, "x"), CNN_INVALID_VALUE);
    const char *const wrong[] = {"\xff", "a\x80", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"};
    for (size_t i = 0; i < TEST_COUNT(wrong); i++) {
        CHECK_INT(cnn_graph_name(graph, x, wrong[i]), CNN_INVALID_VALUE);
        CHECK_INT(cnn_graph_describe(graph, wrong[i]), CNN_INVALID_VALUE);
    }
    CHECK_INT(cnn_graph_name(graph, x, "\xc3\xa9t\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"), CNN_OK);
    CHECK_INT(cnn_graph_name(graph, b, "tanh"), CNN_OK);
    CHECK_INT(cnn_graph_describe(graph, "first"), CNN_OK);
    CHECK_INT(cnn_graph_describe(graph, "second"), CNN_OK);
    REQUIRE(cnn_plan_create(graph, NULL, &plan) == CNN_OK);
    cnn_graph_free(graph);
    CHECK_INT(cnn_plan_num_outputs(plan), 2);
    CHECK_INT(cnn_plan_output(plan, 0), b);
    CHECK_INT(cnn_plan_output(plan, 1), a);
    CHECK_INT(cnn_plan_output(plan, 2), CNN_NONE);
    CHECK_INT(cnn_plan_input(plan, 1), CNN_NONE);
    CHECK_INT(cnn_plan_input(plan, -1), CNN_NONE);
    CHECK_INT(cnn_plan_find(plan, "tanh"), b);
    CHECK_INT(cnn_plan_find(plan, "x"), CNN_NONE);
    CHECK_STRING(cnn_plan_name(plan, b), "tanh");
    CHECK_STRING(cnn_plan_name(plan, 99), "");
    CHECK_STRING(cnn_plan_description(plan), "second");
    cnn_plan_free(plan);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(one_convolution), TEST(single_plans_number_by_source),
                                      TEST(contexts_in_the_callers_memory), TEST(names_and_descriptions)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
