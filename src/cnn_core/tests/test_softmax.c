/* Softmax and log-softmax against the reference, central differences and known values, extreme numbers included. */
#include "one_node.h"

static const cnn_op operations[] = {CNN_OP_SOFTMAX, CNN_OP_LOG_SOFTMAX};

/* levels: see node_source; 0: numbers in -2 .. 2. */
static node_case softmax_case(cnn_op op, cnn_shape shape, int32_t axis, int levels)
{
    return (node_case){.op = op,
                       .attributes = {.axis = {axis}},
                       .num_sources = 1,
                       .src = {{.kind = NODE_INPUT, .shape = shape, .levels = levels}}};
}

static void agrees_with_the_reference(void)
{
    static const cnn_shape shapes[] = {
        {1, {1}},           {1, {13}},         {2, {5, 1}},       {2, {1, 70}},         {2, {9, 10}},
        {2, {33, 8}},       {2, {3, 1003}},    {3, {2, 21, 19}},  {3, {4, 3, 3}},       {4, {2, 3, 5, 7}},
        {4, {3, 11, 1, 1}}, {4, {2, 1, 4, 6}}, {4, {2, 19, 6, 5}}, {5, {2, 3, 4, 2, 3}}, {6, {2, 1, 3, 2, 2, 9}},
        {2, {65, 130}},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int32_t axis = -shapes[s].rank; axis < shapes[s].rank; axis++)
            for (size_t o = 0; o < 2; o++) {
                const node_case small = softmax_case(operations[o], shapes[s], axis, 0);
                const node_case wide = softmax_case(operations[o], shapes[s], axis, 130);
                node_check(&small, 2e-6);
                node_check(&wide, 5e-6);
            }
}

/* Distributions long enough to be summed in two levels, and more of them than one task takes. */
static void agrees_on_large_shapes(void)
{
    static const struct {
        cnn_shape shape;
        int32_t axis;
    } cases[] = {
        {{2, {3, 20011}}, 1},       {{2, {3001, 21}}, 0},     {{4, {2, 21, 61, 63}}, 1}, {{4, {2, 21, 61, 63}}, 2},
        {{4, {2, 21, 61, 63}}, 3}, {{3, {2, 19, 4096}}, 1}, {{3, {3000, 5, 3}}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t o = 0; o < 2; o++) {
            const node_case c = softmax_case(operations[o], cases[i].shape, cases[i].axis, 0);
            node_check(&c, 1e-5);
        }
}

static void agrees_on_random_shapes(void)
{
    uint64_t state = 3;
    for (int i = 0; i < 300; i++) {
        node_random_state = state;
        cnn_shape shape = {.rank = (int32_t)node_between(1, 5)};
        for (int32_t axis = 0; axis < shape.rank; axis++) shape.dim[axis] = node_between(1, 11);
        shape.dim[node_between(0, shape.rank - 1)] = node_between(1, 70);
        const int32_t axis = (int32_t)node_between(0, shape.rank - 1);
        const node_case c = softmax_case(operations[node_between(0, 1)], shape, axis, (int)node_between(0, 1) * 20);
        state = node_random_state;
        node_check(&c, 5e-6);
    }
}

static void has_the_gradients_of_central_differences(void)
{
    const cnn_shape shape = {4, {2, 3, 2, 4}};
    for (size_t o = 0; o < 2; o++)
        for (int32_t axis = 0; axis < shape.rank; axis++) {
            const node_case c = softmax_case(operations[o], shape, axis, 0);
            node_check_gradient(&c);
        }
}

/* ---- extreme numbers --------------------------------------------------------------------------------------------- */

/* Distributions of the three numbers `src`, along rows or columns: nine, so that there are vectors and tails. */
static void check_three(cnn_op op, bool columns, bool reference, const double src[3], const double wanted[3])
{
    const node_case c = softmax_case(op, columns ? (cnn_shape){2, {3, 9}} : (cnn_shape){2, {9, 3}}, !columns, 0);
    node_run run;
    REQUIRE(node_build(&c, CNN_FLOAT32, reference, &run) == CNN_OK);
    for (int64_t i = 0; i < 27; i++) node_set(CNN_FLOAT32, run.src[0].data, i, src[columns ? i / 9 : i % 3]);
    REQUIRE(cnn_context_forward(run.context) == CNN_OK);
    for (int64_t i = 0; i < 27; i++) {
        const double value = wanted[columns ? i / 9 : i % 3];
        CHECK_NEAR(node_get(CNN_FLOAT32, run.dst.data, i), value, isfinite(value) ? 1e-6 * fabs(value) + 1e-7 : 0.0);
    }
    node_release(&run);
}

static void is_stable_for_extreme_numbers(void)
{
    const double half = 0.5, log_half = -0.69314718055994531, third = 1.0 / 3.0, log_third = -1.0986122886681098;
    const double nan = (double)NAN, inf = (double)INFINITY;
    const struct {
        double src[3], softmax[3], log_softmax[3];
    } cases[] = {
        {{1e4, 1e4, -1e4}, {half, half, 0.0}, {log_half, log_half, -2e4 + log_half}},
        {{-1e30, -1e30, -1e30}, {third, third, third}, {log_third, log_third, log_third}},
        {{3e38, -3e38, 0.0}, {1.0, 0.0, 0.0}, {0.0, -inf, -3e38}},
        {{-inf, 0.0, 0.0}, {0.0, half, half}, {-inf, log_half, log_half}},
        {{-inf, -inf, -inf}, {nan, nan, nan}, {nan, nan, nan}},
        {{inf, 0.0, 0.0}, {nan, nan, nan}, {nan, nan, nan}},
        {{nan, 0.0, 0.0}, {nan, nan, nan}, {nan, nan, nan}},
        {{0.0, 0.0, nan}, {nan, nan, nan}, {nan, nan, nan}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int variant = 0; variant < 4; variant++) {
            const bool columns = (variant & 1) != 0, reference = (variant & 2) != 0;
            check_three(CNN_OP_SOFTMAX, columns, reference, cases[i].src, cases[i].softmax);
            check_three(CNN_OP_LOG_SOFTMAX, columns, reference, cases[i].src, cases[i].log_softmax);
        }
}

/* ---- threads, empty sources, refusals ---------------------------------------------------------------------------- */

static void has_the_same_bits_at_any_thread_count(void)
{
    const node_case cases[] = {
        softmax_case(CNN_OP_SOFTMAX, (cnn_shape){2, {700, 131}}, 1, 0),
        softmax_case(CNN_OP_SOFTMAX, (cnn_shape){3, {3, 41, 613}}, 1, 0),
        softmax_case(CNN_OP_LOG_SOFTMAX, (cnn_shape){4, {3, 21, 37, 33}}, 1, 0),
        softmax_case(CNN_OP_LOG_SOFTMAX, (cnn_shape){4, {3, 21, 37, 33}}, 0, 0),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) node_check_threads(&cases[i]);
}

static void takes_empty_sources(void)
{
    static const cnn_shape shapes[] = {{2, {0, 5}}, {2, {5, 0}}, {4, {0, 3, 2, 2}}, {4, {2, 3, 0, 2}}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t o = 0; o < 2; o++) {
            const node_case c = softmax_case(operations[o], shapes[s], 1, 0);
            node_check(&c, 0.0);
        }
}

static void refuses_bad_arguments(void)
{
    node_case c = softmax_case(CNN_OP_SOFTMAX, (cnn_shape){2, {4, 3}}, 2, 0);
    node_check_refused(&c, CNN_INVALID_VALUE, "softmax: dim: got 2, expected -2 to 1");
    c = softmax_case(CNN_OP_LOG_SOFTMAX, (cnn_shape){4, {1, 2, 3, 4}}, -5, 0);
    node_check_refused(&c, CNN_INVALID_VALUE, "log_softmax: dim: got -5, expected -4 to 3");
    c = softmax_case(CNN_OP_SOFTMAX, (cnn_shape){.rank = 0}, 0, 0);
    node_check_refused(&c, CNN_INVALID_VALUE, "softmax: x: got shape (), expected at least 1 dimension");
    c = softmax_case(CNN_OP_SOFTMAX, (cnn_shape){2, {4, 3}}, 1, 0);
    c.src[0].kind = NODE_CLASSES;
    node_check_refused(&c, CNN_INVALID_TYPE, "softmax: x: got int64, expected float32");
    c = softmax_case(CNN_OP_SOFTMAX, (cnn_shape){4, {1, 2, 3, 4}}, 1, 0);
    c.src[0].kind = NODE_PARAMETER;
    node_check_refused(&c, CNN_UNSUPPORTED, "softmax: x: got a parameter or state");
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(agrees_with_the_reference),
        TEST(agrees_on_large_shapes),
        TEST(agrees_on_random_shapes),
        TEST(has_the_gradients_of_central_differences),
        TEST(is_stable_for_extreme_numbers),
        TEST(has_the_same_bits_at_any_thread_count),
        TEST(takes_empty_sources),
        TEST(refuses_bad_arguments),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
