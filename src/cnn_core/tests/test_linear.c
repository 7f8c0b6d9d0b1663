/* Linear layers: every path against the float64 reference, the reference against central differences, bits against the
 * thread count, and what is refused. */
#include "one_node.h"

typedef struct linear_case {
    cnn_shape src;
    int64_t out;
    bool bias;
    bool src_is_parameter; /* then it lies row-major at rank 4 too */
} linear_case;

static node_case node_of(const linear_case *c)
{
    return (node_case){
        .op = CNN_OP_LINEAR,
        .num_sources = 3,
        .src = {{.kind = c->src_is_parameter ? NODE_PARAMETER : NODE_INPUT, .shape = c->src},
                {.kind = NODE_PARAMETER, .shape = {2, {c->out, c->src.dim[c->src.rank - 1]}}},
                {.kind = c->bias ? NODE_PARAMETER : NODE_ABSENT, .shape = {1, {c->out}}}},
    };
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
    {.src = {2, {130, 520}}, .out = 530, .bias = true},
    {.src = {2, {1100, 30}}, .out = 20, .bias = true},
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
        const node_case node = node_of(&cases[i]);
        node_check(&node, 5e-5);
    }
}

static void agrees_on_random_shapes(void)
{
    uint64_t state = 1;
    for (int i = 0; i < 300; i++) {
        node_random_state = state;
        linear_case c = {.bias = node_between(0, 1) == 0, .out = node_between(1, 70)};
        c.src.rank = (int32_t)node_between(1, 5);
        for (int32_t axis = 0; axis < c.src.rank; axis++) c.src.dim[axis] = node_between(1, 6);
        c.src.dim[node_between(0, c.src.rank - 1)] = node_between(1, 70);
        state = node_random_state;
        const node_case node = node_of(&c);
        node_check(&node, 5e-5);
    }
}

static void has_the_same_bits_at_any_thread_count(void)
{
    for (size_t i = 0; i < CASES; i++) {
        const node_case node = node_of(&cases[i]);
        node_check_threads(&node);
    }
}

static void has_the_gradients_of_central_differences(void)
{
    static const linear_case small[] = {
        {.src = {2, {3, 5}}, .out = 4, .bias = true},
        {.src = {4, {2, 3, 2, 4}}, .out = 3, .bias = true},
    };
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        const node_case node = node_of(&small[i]);
        node_check_gradient(&node);
    }
}

/* At rank 4 memory is channels-last, but the layer still acts on the last logical axis. */
static void acts_on_the_last_axis(void)
{
    const linear_case c = {.src = {4, {1, 2, 1, 3}}, .out = 1};
    const float src[] = {1, 10, 2, 20, 3, 30}; /* (w, c): channel 0 is 1 2 3, channel 1 is 10 20 30 */
    const float weights[] = {1, 100, 10000};
    const node_case node = node_of(&c);
    for (int reference = 0; reference < 2; reference++) {
        node_run run;
        REQUIRE(node_build(&node, CNN_FLOAT32, reference == 1, &run) == CNN_OK);
        memcpy(run.src[0].data, src, sizeof src);
        memcpy(run.src[1].data, weights, sizeof weights);
        CHECK_INT(cnn_context_forward(run.context), CNN_OK);
        CHECK_NEAR(node_get(CNN_FLOAT32, run.dst.data, 0), 30201.0, 0.0);
        CHECK_NEAR(node_get(CNN_FLOAT32, run.dst.data, 1), 302010.0, 0.0);
        node_release(&run);
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
        const node_case node = node_of(&empty[i]);
        node_run run;
        REQUIRE(node_build(&node, CNN_FLOAT32, false, &run) == CNN_OK);
        CHECK_INT(run.dst.count, 0);
        CHECK_INT(node_compute(&node, &run, 1), CNN_OK);
        for (int64_t j = 0; j < run.src[1].count; j++) CHECK_NEAR(node_get(CNN_FLOAT32, run.src[1].diff, j), 0.5, 0.0);
        for (int64_t j = 0; j < run.src[0].count; j++) CHECK_NEAR(node_get(CNN_FLOAT32, run.src[0].diff, j), 0.0, 0.0);
        node_release(&run);
    }
}

static void refuses_sources_that_do_not_fit(void)
{
    static const struct {
        cnn_shape x, weight, bias;
        const char *message;
    } bad[] = {
        {{0, {0}}, {2, {3, 4}}, {1, {3}}, "x: got shape (), expected at least one dimension"},
        {{2, {2, 5}}, {2, {3, 4}}, {1, {3}}, "in_features: got 5 in x (2, 5), expected 4 for weight (3, 4)"},
        {{2, {2, 4}}, {3, {3, 4, 1}}, {1, {3}}, "weight: got shape (3, 4, 1), expected 2 dimensions"},
        {{2, {2, 4}}, {2, {3, 4}}, {1, {4}}, "bias: got shape (4,), expected (3,)"},
        {{2, {2, 4}}, {2, {3, 4}}, {2, {1, 3}}, "bias: got shape (1, 3), expected (3,)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const node_case node = {
            .op = CNN_OP_LINEAR,
            .num_sources = 3,
            .src = {{.kind = NODE_INPUT, .shape = bad[i].x},
                    {.kind = NODE_PARAMETER, .shape = bad[i].weight},
                    {.kind = NODE_PARAMETER, .shape = bad[i].bias}},
        };
        node_check_refused(&node, CNN_INVALID_VALUE, bad[i].message);
    }
}

static void refuses_integers(void)
{
    const node_case node = {
        .op = CNN_OP_LINEAR,
        .num_sources = 2,
        .src = {{.kind = NODE_CLASSES, .shape = {2, {2, 4}}}, {.kind = NODE_PARAMETER, .shape = {2, {3, 4}}}},
    };
    node_check_refused(&node, CNN_INVALID_TYPE, "x: got int64, expected float32");
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(agrees_with_the_reference),
        TEST(agrees_on_random_shapes),
        TEST(has_the_same_bits_at_any_thread_count),
        TEST(has_the_gradients_of_central_differences),
        TEST(acts_on_the_last_axis),
        TEST(takes_empty_tensors),
        TEST(refuses_sources_that_do_not_fit),
        TEST(refuses_integers),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
