/* Linear layers: every path against the reference, the reference against central differences, bits against the thread
 * count, and what is refused. */
#include <stdint.h>
#include <stdlib.h>

#include "base/shape.h"
#include "cnn_core.h"
#include "test.h"

typedef struct linear_case {
    cnn_shape src;
    int64_t out;
    bool bias;
    bool src_is_parameter; /* then it lies row-major at rank 4 too */
} linear_case;

enum { SRC_TENSOR, WEIGHTS, BIAS, DST, TENSORS };

/* A one-node graph with its memory. All numbers are of `dtype`. */
typedef struct linear_run {
    cnn_dtype dtype;
    bool adds_diff_src;
    cnn_shape shape[TENSORS];
    int64_t count[TENSORS]; /* 0 for a bias that is not there */
    void *data[TENSORS], *diff[TENSORS];
    cnn_context *context;
    cnn_plan *plan;
} linear_run;

static uint64_t random_state;

static double random_number(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(uint32_t)(random_state >> 33) / 1073741824.0 - 1.0;
}

static double get(const linear_run *run, const void *from, int64_t i)
{
    return run->dtype == CNN_FLOAT64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

static void set(const linear_run *run, void *to, int64_t i, double value)
{
    if (run->dtype == CNN_FLOAT64)
        ((double *)to)[i] = value;
    else
        ((float *)to)[i] = (float)value;
}

static void fill(const linear_run *run, int tensor, void *to, double value)
{
    for (int64_t i = 0; i < run->count[tensor]; i++) set(run, to, i, value);
}

static void fill_random(const linear_run *run, int tensor, void *to)
{
    for (int64_t i = 0; i < run->count[tensor]; i++) set(run, to, i, random_number());
}

static cnn_status build(const linear_case *c, cnn_dtype dtype, bool reference, linear_run *run)
{
    memset(run, 0, sizeof *run);
    run->dtype = dtype;
    run->adds_diff_src = c->src_is_parameter;
    run->shape[SRC_TENSOR] = c->src;
    run->shape[WEIGHTS] = (cnn_shape){2, {c->out, c->src.dim[c->src.rank - 1]}};
    run->shape[BIAS] = (cnn_shape){1, {c->out}};
    cnn_graph *graph = NULL;
    cnn_value value[TENSORS] = {CNN_NONE, CNN_NONE, CNN_NONE, CNN_NONE};
    const cnn_plan_options options = {.backward = 1, .repeat = 1, .reference = reference};
    cnn_status status = cnn_graph_create(dtype, &graph);
    if (status == CNN_OK)
        status = c->src_is_parameter ? cnn_graph_parameter(graph, &c->src, &value[SRC_TENSOR])
                                     : cnn_graph_input(graph, dtype, &c->src, &value[SRC_TENSOR]);
    if (status == CNN_OK) status = cnn_graph_parameter(graph, &run->shape[WEIGHTS], &value[WEIGHTS]);
    if (status == CNN_OK && c->bias) status = cnn_graph_parameter(graph, &run->shape[BIAS], &value[BIAS]);
    if (status == CNN_OK) status = cnn_graph_apply(graph, CNN_OP_LINEAR, NULL, 3, value, &value[DST]);
    if (status == CNN_OK) status = cnn_graph_shape(graph, value[DST], &run->shape[DST]);
    if (status == CNN_OK) status = cnn_graph_output(graph, value[DST]);
    for (int t = SRC_TENSOR; t <= BIAS; t++)
        if (status == CNN_OK && value[t] != CNN_NONE) status = cnn_graph_require_gradient(graph, value[t]);
    if (status == CNN_OK) status = cnn_plan_create(graph, &options, &run->plan);
    cnn_graph_free(graph);
    if (status == CNN_OK) status = cnn_context_create(run->plan, &run->context);
    for (int t = 0; t < TENSORS; t++) {
        if (status != CNN_OK || value[t] == CNN_NONE) continue;
        run->count[t] = cnn_shape_count(&run->shape[t]);
        const size_t bytes = cnn_tensor_bytes(&run->shape[t], dtype);
        run->data[t] = malloc(bytes + 1);
        run->diff[t] = malloc(bytes + 1);
        status = cnn_context_bind(run->context, value[t], run->data[t], run->diff[t]);
    }
    return status;
}

static void release(linear_run *run)
{
    cnn_context_free(run->context);
    cnn_plan_free(run->plan);
    for (int t = 0; t < TENSORS; t++) {
        free(run->data[t]);
        free(run->diff[t]);
    }
}

static cnn_status run_once(linear_run *run)
{
    const cnn_status status = cnn_context_forward(run->context);
    return status == CNN_OK ? cnn_context_backward(run->context) : status;
}

/* Runs both passes on numbers drawn from `seed`, after a run on NaN that dirties the context's memory. What the passes
 * write starts as NaN, what they add to as `before`. */
static cnn_status compute(linear_run *run, uint64_t seed, double before)
{
    for (int t = 0; t < TENSORS; t++) {
        fill(run, t, run->data[t], NAN);
        fill(run, t, run->diff[t], NAN);
    }
    cnn_status status = run_once(run);
    random_state = seed;
    for (int t = SRC_TENSOR; t <= BIAS; t++) fill_random(run, t, run->data[t]);
    fill_random(run, DST, run->diff[DST]);
    fill(run, SRC_TENSOR, run->diff[SRC_TENSOR], run->adds_diff_src ? before : (double)NAN);
    fill(run, WEIGHTS, run->diff[WEIGHTS], before);
    fill(run, BIAS, run->diff[BIAS], before);
    fill(run, DST, run->data[DST], NAN);
    if (status == CNN_OK) status = run_once(run);
    return status;
}

/* Within the rounding error that a sum of `terms` products of numbers below 1 may have. */
static bool agree(const char *what, const linear_run *a, const void *from_a, const void *from_b, int tensor, int64_t terms)
{
    const double tolerance = 4e-6 * sqrt((double)terms + 1.0);
    for (int64_t i = 0; i < a->count[tensor]; i++) {
        const double x = get(a, from_a, i), y = get(a, from_b, i);
        if (fabs(x - y) <= tolerance) continue;
        fprintf(stderr, "%s[%lld]: %g, reference %g, tolerance %g\n", what, (long long)i, x, y, tolerance);
        return false;
    }
    return true;
}

static const linear_case cases[] = {
    {.src = {1, {5}}, .out = 3, .bias = true},
    {.src = {2, {1, 70}}, .out = 130, .bias = true},
    {.src = {2, {1, 1}}, .out = 1},
    {.src = {2, {7, 33}}, .out = 9, .bias = true},
    {.src = {2, {9, 33}}, .out = 7, .bias = true},
    {.src = {2, {40, 17}}, .out = 41},
    {.src = {2, {128, 300}}, .out = 128, .bias = true},
    {.src = {2, {128, 300}}, .out = 10, .bias = true},
    {.src = {2, {33, 500}}, .out = 257, .bias = true},
    {.src = {2, {5, 520}}, .out = 530, .bias = true},
    {.src = {2, {3, 0}}, .out = 4, .bias = true},
    {.src = {3, {2, 5, 11}}, .out = 6, .bias = true},
    {.src = {4, {2, 3, 5, 7}}, .out = 4, .bias = true},
    {.src = {4, {2, 30, 5, 7}}, .out = 20, .bias = true},
    {.src = {4, {2, 3, 1, 1}}, .out = 4, .bias = true},
    {.src = {4, {2, 3, 1, 4}}, .out = 1, .bias = true},
    {.src = {4, {2, 1, 5, 7}}, .out = 4},
    {.src = {4, {2, 3, 5, 7}}, .out = 4, .bias = true, .src_is_parameter = true},
    {.src = {6, {2, 1, 3, 2, 1, 5}}, .out = 3, .bias = true},
};

#define CASES (sizeof cases / sizeof cases[0])

static void agrees_with_the_reference(void)
{
    for (size_t i = 0; i < CASES; i++) {
        linear_run fast, reference;
        REQUIRE(build(&cases[i], CNN_FLOAT32, false, &fast) == CNN_OK);
        REQUIRE(build(&cases[i], CNN_FLOAT32, true, &reference) == CNN_OK);
        CHECK_INT(fast.shape[DST].dim[fast.shape[DST].rank - 1], cases[i].out);
        CHECK_INT(compute(&fast, 7, 0.5), CNN_OK);
        CHECK_INT(compute(&reference, 7, 0.5), CNN_OK);
        const int64_t in = fast.shape[WEIGHTS].dim[1], rows = fast.count[DST] / cases[i].out;
        CHECK(agree("dst", &fast, fast.data[DST], reference.data[DST], DST, in));
        CHECK(agree("diff_src", &fast, fast.diff[SRC_TENSOR], reference.diff[SRC_TENSOR], SRC_TENSOR, cases[i].out));
        CHECK(agree("diff_weights", &fast, fast.diff[WEIGHTS], reference.diff[WEIGHTS], WEIGHTS, rows));
        CHECK(agree("diff_bias", &fast, fast.diff[BIAS], reference.diff[BIAS], BIAS, rows));
        release(&reference);
        release(&fast);
    }
}

static void has_the_same_bits_at_any_thread_count(void)
{
    const int32_t threads = cnn_get_num_threads();
    for (size_t i = 0; i < CASES; i++) {
        linear_run one, other;
        REQUIRE(build(&cases[i], CNN_FLOAT32, false, &one) == CNN_OK);
        REQUIRE(build(&cases[i], CNN_FLOAT32, false, &other) == CNN_OK);
        CHECK_INT(cnn_set_num_threads(1), CNN_OK);
        CHECK_INT(compute(&one, 3, 0.25), CNN_OK);
        for (int32_t t = 2; t <= 4; t++) {
            if (cnn_set_num_threads(t) != CNN_OK) continue; /* a build for one thread */
            CHECK_INT(compute(&other, 3, 0.25), CNN_OK);
            CHECK(memcmp(one.data[DST], other.data[DST], (size_t)one.count[DST] * sizeof(float)) == 0);
            for (int tensor = SRC_TENSOR; tensor <= BIAS; tensor++)
                CHECK(one.count[tensor] == 0 || memcmp(one.diff[tensor], other.diff[tensor],
                                                       (size_t)one.count[tensor] * sizeof(float)) == 0);
        }
        release(&other);
        release(&one);
    }
    CHECK_INT(cnn_set_num_threads(threads), CNN_OK);
}

/* The derivative of sum(dst * diff_dst), by central differences: exact but for rounding, since dst is linear in each. */
static double difference(linear_run *run, int tensor, int64_t i)
{
    const double x = get(run, run->data[tensor], i), h = 0.5;
    double value[2] = {0.0, 0.0};
    for (int side = 0; side < 2; side++) {
        set(run, run->data[tensor], i, side == 0 ? x - h : x + h);
        CHECK_INT(cnn_context_forward(run->context), CNN_OK);
        for (int64_t j = 0; j < run->count[DST]; j++)
            value[side] += get(run, run->data[DST], j) * get(run, run->diff[DST], j);
    }
    set(run, run->data[tensor], i, x);
    return (value[1] - value[0]) / (2.0 * h);
}

static void has_the_gradients_of_central_differences(void)
{
    static const linear_case small[] = {
        {.src = {2, {3, 5}}, .out = 4, .bias = true},
        {.src = {4, {2, 3, 2, 4}}, .out = 3, .bias = true},
    };
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        linear_run run;
        REQUIRE(build(&small[i], CNN_FLOAT64, false, &run) == CNN_OK);
        CHECK_INT(compute(&run, 5, 0.0), CNN_OK);
        for (int tensor = SRC_TENSOR; tensor <= BIAS; tensor++)
            for (int64_t j = 0; j < run.count[tensor]; j++)
                CHECK_NEAR(get(&run, run.diff[tensor], j), difference(&run, tensor, j), 1e-11);
        release(&run);
    }
}

/* At rank 4 memory is channels-last, but the layer still acts on the last logical axis. */
static void acts_on_the_last_axis(void)
{
    const linear_case c = {.src = {4, {1, 2, 1, 3}}, .out = 1};
    const float src[] = {1, 10, 2, 20, 3, 30}; /* (w, c): channel 0 is 1 2 3, channel 1 is 10 20 30 */
    const float weights[] = {1, 100, 10000};
    for (int reference = 0; reference < 2; reference++) {
        linear_run run;
        REQUIRE(build(&c, CNN_FLOAT32, reference, &run) == CNN_OK);
        memcpy(run.data[SRC_TENSOR], src, sizeof src);
        memcpy(run.data[WEIGHTS], weights, sizeof weights);
        CHECK_INT(cnn_context_forward(run.context), CNN_OK);
        CHECK_NEAR(((float *)run.data[DST])[0], 30201.0, 0.0);
        CHECK_NEAR(((float *)run.data[DST])[1], 302010.0, 0.0);
        release(&run);
    }
}

static void takes_empty_tensors(void)
{
    static const linear_case empty[] = {
        {.src = {2, {0, 5}}, .out = 3, .bias = true},
        {.src = {2, {4, 5}}, .out = 0, .bias = true},
        {.src = {4, {2, 0, 3, 5}}, .out = 3, .bias = true},
    };
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        linear_run run;
        REQUIRE(build(&empty[i], CNN_FLOAT32, false, &run) == CNN_OK);
        CHECK_INT(run.count[DST], 0);
        CHECK_INT(compute(&run, 1, 0.5), CNN_OK);
        for (int64_t j = 0; j < run.count[WEIGHTS]; j++) CHECK_NEAR(get(&run, run.diff[WEIGHTS], j), 0.5, 0.0);
        for (int64_t j = 0; j < run.count[SRC_TENSOR]; j++) CHECK_NEAR(get(&run, run.diff[SRC_TENSOR], j), 0.0, 0.0);
        release(&run);
    }
}

static void refuses_sources_that_do_not_fit(void)
{
    static const struct {
        cnn_shape input, weight, bias;
        const char *message;
    } bad[] = {
        {{0, {0}}, {2, {3, 4}}, {1, {3}}, "x: got shape (), expected at least one dimension"},
        {{2, {2, 5}}, {2, {3, 4}}, {1, {3}}, "in_features: got 5 in x (2, 5), expected 4 for weight (3, 4)"},
        {{2, {2, 4}}, {3, {3, 4, 1}}, {1, {3}}, "weight: got shape (3, 4, 1), expected 2 dimensions"},
        {{2, {2, 4}}, {2, {3, 4}}, {1, {4}}, "bias: got shape (4,), expected (3,)"},
        {{2, {2, 4}}, {2, {3, 4}}, {2, {1, 3}}, "bias: got shape (1, 3), expected (3,)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cnn_graph *graph;
        cnn_value sources[3], dst;
        REQUIRE(cnn_graph_create(CNN_FLOAT32, &graph) == CNN_OK);
        REQUIRE(cnn_graph_input(graph, CNN_FLOAT32, &bad[i].input, &sources[0]) == CNN_OK);
        REQUIRE(cnn_graph_parameter(graph, &bad[i].weight, &sources[1]) == CNN_OK);
        REQUIRE(cnn_graph_parameter(graph, &bad[i].bias, &sources[2]) == CNN_OK);
        CHECK_INT(cnn_graph_apply(graph, CNN_OP_LINEAR, NULL, 3, sources, &dst), CNN_INVALID_VALUE);
        if (strstr(cnn_last_error(), bad[i].message) == NULL) fprintf(stderr, "message: %s\n", cnn_last_error());
        CHECK(strstr(cnn_last_error(), bad[i].message) != NULL);
        cnn_graph_free(graph);
    }
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(agrees_with_the_reference),
        TEST(has_the_same_bits_at_any_thread_count),
        TEST(has_the_gradients_of_central_differences),
        TEST(acts_on_the_last_axis),
        TEST(takes_empty_tensors),
        TEST(refuses_sources_that_do_not_fit),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
