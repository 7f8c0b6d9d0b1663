/* Activations and PReLU: values and gradients against the reference and against what is known, kinks, NaN, extremes. */
#include <float.h>

#include "one_node.h"

static const struct {
    cnn_activation kind;
    double alpha, beta;
} kinds[] = {
    {CNN_SIGMOID, 0, 0},      {CNN_TANH, 0, 0},      {CNN_RELU, 0, 0},       {CNN_RELU6, 0, 0},
    {CNN_LEAKY_RELU, 0.01, 0}, {CNN_LEAKY_RELU, -0.5, 0}, {CNN_SOFTPLUS, 1, 20}, {CNN_SOFTPLUS, 2.5, 1.5},
    {CNN_MISH, 0, 0},         {CNN_SILU, 0, 0},      {CNN_GELU, 0, 0},       {CNN_GELU_TANH, 0, 0},
    {CNN_ELU, 1, 0},          {CNN_ELU, 0.3, 0},     {CNN_SELU, 0, 0},       {CNN_HARDSWISH, 0, 0},
    {CNN_HARDSIGMOID, 0, 0},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static node_case activation_case(size_t k, int32_t rank, const int64_t *dim)
{
    node_case c = {.op = CNN_OP_ACTIVATION, .num_sources = 1, .src = {{.kind = NODE_INPUT, .shape = {.rank = rank}}}};
    c.attributes.activation.kind = kinds[k].kind;
    c.attributes.activation.alpha = kinds[k].alpha;
    c.attributes.activation.beta = kinds[k].beta;
    for (int32_t i = 0; i < rank; i++) c.src[0].shape.dim[i] = dim[i];
    return c;
}

static node_case vector_case(size_t k, int64_t n)
{
    return activation_case(k, 1, &n);
}

static void agree_with_the_reference(void)
{
    static const int64_t dims[][5] = {
        {1, 1, 1, 1, 1}, {2, 3, 5, 7, 1}, {17, 1, 1, 1, 2}, {0, 4, 2, 2, 1}, {2, 70, 3, 3, 1}, {2, 2, 0, 3, 1}};
    for (size_t k = 0; k < KINDS; k++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
            for (int32_t rank = 0; rank <= 5; rank++) {
                const node_case c = activation_case(k, rank, dims[d]);
                node_check(&c, 1e-6);
            }
}

/* Lengths around the vector's width, and past one block. */
static void agree_at_every_length(void)
{
    for (size_t k = 0; k < KINDS; k++) {
        for (int64_t n = 0; n <= 40; n++) {
            const node_case c = vector_case(k, n);
            node_check(&c, 1e-6);
        }
        const node_case c = vector_case(k, 3 * 16384 + 5);
        node_check(&c, 1e-6);
    }
}

static void gradients_are_those_of_the_values(void)
{
    for (size_t k = 0; k < KINDS; k++) {
        const node_case c = vector_case(k, 50);
        node_check_gradient(&c);
    }
}

static void have_the_same_bits_on_any_threads(void)
{
    for (size_t k = 0; k < KINDS; k++) {
        const node_case c = vector_case(k, 200003);
        node_check_threads(&c);
    }
}

/* ---- chosen arguments ---------------------------------------------------------------------------------------------- */

/* y = f(x) and dx = dy f'(x) for float32 or float64 numbers; false, with the message, where that fails. */
static bool evaluate(size_t k, cnn_dtype dtype, bool reference, int64_t n, const double *x, const double *dy, double *y,
                     double *dx)
{
    const node_case c = vector_case(k, n);
    node_run run;
    bool ok = node_build(&c, dtype, reference, &run) == CNN_OK;
    for (int64_t i = 0; ok && i < n; i++) {
        node_set(dtype, run.src[0].data, i, x[i]);
        node_set(dtype, run.dst.diff, i, dy[i]);
    }
    ok = ok && node_run_both(&run) == CNN_OK;
    for (int64_t i = 0; ok && i < n; i++) {
        y[i] = node_get(dtype, run.dst.data, i);
        dx[i] = node_get(dtype, run.src[0].diff, i);
    }
    if (!ok) fprintf(stderr, "%s\n", cnn_last_error());
    node_release(&run);
    return ok;
}

/* PyTorch's choices: ReLU'(0) = 0, clamps are flat at their ends, the others take the left side's slope at zero. */
static void kinks_are_pytorchs(void)
{
    static const struct {
        cnn_activation kind;
        double alpha, x, y, slope;
    } kinks[] = {
        {CNN_RELU, 0, 0, 0, 0},
        {CNN_RELU, 0, -0.0, 0, 0},
        {CNN_RELU6, 0, 0, 0, 0},
        {CNN_RELU6, 0, 6, 6, 0},
        {CNN_LEAKY_RELU, 0.01, 0, 0, 0.01},
        {CNN_ELU, 0.3, 0, 0, 0.3},
        {CNN_SELU, 0, 0, 0, 1.0507009873554805 * 1.6732632423543772},
        {CNN_HARDSWISH, 0, -3, 0, 0},
        {CNN_HARDSWISH, 0, 3, 3, 1},
        {CNN_HARDSWISH, 0, 0, 0, 0.5},
        {CNN_HARDSIGMOID, 0, -3, 0, 0},
        {CNN_HARDSIGMOID, 0, 3, 1, 0},
        {CNN_HARDSIGMOID, 0, 0, 0.5, 1.0 / 6.0},
    };
    for (size_t i = 0; i < sizeof kinks / sizeof *kinks; i++)
        for (size_t k = 0; k < KINDS; k++) {
            if (kinds[k].kind != kinks[i].kind) continue;
            if (kinks[i].alpha != 0 && kinds[k].alpha != kinks[i].alpha) continue;
            for (int path = 0; path < 3; path++) {
                const double dy = 1;
                double y, dx;
                REQUIRE(evaluate(k, path == 2 ? CNN_FLOAT64 : CNN_FLOAT32, path == 1, 1, &kinks[i].x, &dy, &y, &dx));
                if (kinds[k].alpha == kinks[i].alpha) CHECK_NEAR(dx, kinks[i].slope, 1e-6);
                CHECK_NEAR(y, kinks[i].y, 1e-6);
            }
        }
}

/* Large and tiny numbers of either sign: finite where the function is, and right. */
static void extremes_are_stable(void)
{
    static const double x[] = {0,     -0.0,   2e-38, -2e-38, 1e-20, -1e-20, 1e-4,  -1e-4, 5,      -5,     8.5,  -8.5,
                               12.9,  -12.9,  13.5,  -13.5,  19.99, 20.01,  20.5,  -20.5, 30,     -30,    50,   -50,
                               88.5,  -88.5,  100,   -100,   1e3,   -1e3,   1e10,  -1e10, 1.9e19, -1.9e19, 1e30, -1e30,
                               1.7e38, -1.7e38};
    enum { N = sizeof x / sizeof *x };
    double dy[N], y[2][N], dx[2][N], rounded[N];
    for (int i = 0; i < N; i++) {
        dy[i] = 1;
        rounded[i] = (double)(float)x[i];
    }
    for (size_t k = 0; k < KINDS; k++) {
        REQUIRE(evaluate(k, CNN_FLOAT32, false, N, rounded, dy, y[0], dx[0]));
        REQUIRE(evaluate(k, CNN_FLOAT64, false, N, rounded, dy, y[1], dx[1]));
        for (int i = 0; i < N; i++) {
            CHECK_NEAR(y[0][i], y[1][i], 2e-6 * fabs(y[1][i]) + 1e-30);
            CHECK_NEAR(dx[0][i], dx[1][i], 1e-6 * fabs(dx[1][i]) + 1e-7);
        }
    }
}

static void infinities_have_their_limits(void)
{
    static const struct {
        cnn_activation kind;
        float low, high; /* the limits */
    } limits[] = {
        {CNN_SIGMOID, 0, 1},        {CNN_TANH, -1, 1},       {CNN_RELU, 0, INFINITY},
        {CNN_RELU6, 0, 6},          {CNN_SOFTPLUS, 0, INFINITY}, {CNN_LEAKY_RELU, -INFINITY, INFINITY},
        {CNN_HARDSIGMOID, 0, 1},    {CNN_ELU, -1, INFINITY},
    };
    const double x[2] = {(double)-INFINITY, (double)INFINITY}, dy[2] = {1, 1};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        for (size_t k = 0; k < KINDS; k++) {
            if (kinds[k].kind != limits[i].kind) continue;
            for (int path = 0; path < 3; path++) {
                double y[2], dx[2];
                REQUIRE(evaluate(k, path == 2 ? CNN_FLOAT64 : CNN_FLOAT32, path == 1, 2, x, dy, y, dx));
                if (kinds[k].kind == CNN_LEAKY_RELU && kinds[k].alpha < 0) y[0] = -y[0];
                if (kinds[k].kind == CNN_ELU) y[0] /= kinds[k].alpha;
                CHECK_NEAR(y[0], limits[i].low, 1e-6);
                CHECK_NEAR(y[1], limits[i].high, 1e-6);
            }
            break;
        }
}

/* In every lane and every place of a tail: NaN comes out where it went in, and nowhere else. */
static void nan_propagates(void)
{
    double x[19], dy[19], y[19], dx[19];
    for (size_t k = 0; k < KINDS; k++)
        for (int64_t n = 1; n <= 19; n++)
            for (int64_t at = 0; at < n; at++) {
                for (int64_t i = 0; i < n; i++) x[i] = dy[i] = 1;
                x[at] = (double)NAN;
                REQUIRE(evaluate(k, CNN_FLOAT32, false, n, x, dy, y, dx));
                for (int64_t i = 0; i < n; i++) CHECK(isnan(y[i]) == (i == at));
                x[at] = 1;
                dy[at] = (double)NAN;
                REQUIRE(evaluate(k, CNN_FLOAT32, false, n, x, dy, y, dx));
                for (int64_t i = 0; i < n; i++) CHECK(isnan(dx[i]) == (i == at));
            }
}

/* Where a smooth function has NaN, so has its derivative; piecewise linear ones pass diff_dst on or give NaN, never 0. */
static void nan_is_not_swallowed_by_gradients(void)
{
    const double x = (double)NAN, dy = 3;
    for (size_t k = 0; k < KINDS; k++)
        for (int path = 0; path < 3; path++) {
            double y, dx;
            REQUIRE(evaluate(k, path == 2 ? CNN_FLOAT64 : CNN_FLOAT32, path == 1, 1, &x, &dy, &y, &dx));
            CHECK(isnan(y));
            CHECK(dx != 0);
        }
}

static void bad_activations_are_refused(void)
{
    static const struct {
        cnn_activation kind;
        double alpha, beta;
        const char *message;
    } bad[] = {
        {CNN_LEAKY_RELU, (double)NAN, 0, "negative_slope: got nan"},   {CNN_ELU, (double)INFINITY, 0, "alpha: got inf"},
        {CNN_SOFTPLUS, 0, 20, "beta: got 0, expected a positive"}, {CNN_SOFTPLUS, -1, 20, "beta: got -1"},
        {CNN_SOFTPLUS, 1, (double)NAN, "threshold: got nan"},          {CNN_ACTIVATION_COUNT, 0, 0, "kind: got 14"},
        {(cnn_activation)-1, 0, 0, "kind: got -1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        node_case c = vector_case(0, 4);
        c.attributes.activation.kind = bad[i].kind;
        c.attributes.activation.alpha = bad[i].alpha;
        c.attributes.activation.beta = bad[i].beta;
        node_check_refused(&c, CNN_INVALID_VALUE, bad[i].message);
    }
    node_case c = vector_case(0, 4);
    c.src[0].kind = NODE_CLASSES;
    node_check_refused(&c, CNN_INVALID_TYPE, "x: got int64, expected float32");
    c = activation_case(0, 4, (int64_t[]){2, 3, 4, 5});
    c.src[0].kind = NODE_PARAMETER;
    node_check_refused(&c, CNN_UNSUPPORTED, "x: got a parameter");
}

/* ---- PReLU --------------------------------------------------------------------------------------------------------- */

static node_case prelu_case(int32_t rank, const int64_t *dim, int64_t slopes)
{
    node_case c = {.op = CNN_OP_PRELU,
                   .num_sources = 2,
                   .src = {{.kind = NODE_INPUT, .shape = {.rank = rank}},
                           {.kind = NODE_PARAMETER, .shape = {.rank = 1, .dim = {slopes}}}}};
    for (int32_t i = 0; i < rank; i++) c.src[0].shape.dim[i] = dim[i];
    return c;
}

static void prelu_agrees_with_the_reference(void)
{
    static const int64_t channels[] = {1, 2, 3, 7, 8, 16, 33, 64, 70, 130};
    static const int64_t images[][4] = {{1, 0, 1, 1}, {2, 0, 5, 3}, {3, 0, 17, 19}, {0, 0, 4, 4}, {2, 0, 0, 4}};
    for (size_t c = 0; c < sizeof channels / sizeof *channels; c++)
        for (size_t i = 0; i < sizeof images / sizeof *images; i++)
            for (int32_t rank = 0; rank <= 5; rank++) {
                const int64_t dim[] = {images[i][0], channels[c], images[i][2], images[i][3], 2};
                const node_case one = prelu_case(rank, dim, 1);
                node_check(&one, 1e-5);
                if (rank < 2) continue;
                const node_case each = prelu_case(rank, dim, channels[c]);
                node_check(&each, 1e-5);
            }
}

static void prelu_gradients_are_those_of_the_values(void)
{
    const int64_t dim[] = {2, 5, 3, 4};
    for (int32_t rank = 2; rank <= 4; rank++) {
        const node_case one = prelu_case(rank, dim, 1), each = prelu_case(rank, dim, 5);
        node_check_gradient(&one);
        node_check_gradient(&each);
    }
}

/* One of the two gradients may not be wanted. */
static void prelu_gives_only_what_is_wanted(void)
{
    node_case c = prelu_case(4, (int64_t[]){2, 7, 9, 11}, 7);
    c.src[0].kind = NODE_CONSTANT;
    node_check(&c, 1e-5);
    c.src[0].kind = NODE_INPUT;
    c.src[1].kind = NODE_CONSTANT;
    node_check(&c, 1e-5);
}

static void prelu_has_the_same_bits_on_any_threads(void)
{
    const node_case each = prelu_case(4, (int64_t[]){5, 37, 41, 29}, 37), one = prelu_case(2, (int64_t[]){401, 517}, 1);
    node_check_threads(&each);
    node_check_threads(&one);
}

/* A NaN reaches its own element and its own channel's slope. */
static void prelu_propagates_nan(void)
{
    const node_case c = prelu_case(4, (int64_t[]){2, 3, 5, 5}, 3);
    node_run run;
    REQUIRE(node_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    for (int64_t at = 0; at < run.dst.count; at++) {
        node_prepare(&c, &run, 3);
        ((float *)run.src[0].data)[at] = NAN;
        REQUIRE(node_run_both(&run) == CNN_OK);
        for (int64_t i = 0; i < run.dst.count; i++) CHECK(isnan(((float *)run.dst.data)[i]) == (i == at));
        for (int64_t j = 0; j < 3; j++) CHECK(isnan(((float *)run.src[1].diff)[j]) == (j == at % 3));
    }
    node_release(&run);
}

static void bad_prelu_is_refused(void)
{
    node_case c = prelu_case(4, (int64_t[]){2, 3, 5, 5}, 4);
    node_check_refused(&c, CNN_INVALID_VALUE, "prelu: weight: got shape (4,), expected (1,) or one slope for each of the 3 channels");
    c = prelu_case(1, (int64_t[]){4}, 4);
    node_check_refused(&c, CNN_INVALID_VALUE, "weight: got shape (4,)");
    c = prelu_case(2, (int64_t[]){4, 3}, 3);
    c.src[1].kind = NODE_CLASSES;
    node_check_refused(&c, CNN_INVALID_TYPE, "weight: got int64");
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(agree_with_the_reference),
        TEST(agree_at_every_length),
        TEST(gradients_are_those_of_the_values),
        TEST(have_the_same_bits_on_any_threads),
        TEST(kinks_are_pytorchs),
        TEST(extremes_are_stable),
        TEST(infinities_have_their_limits),
        TEST(nan_propagates),
        TEST(nan_is_not_swallowed_by_gradients),
        TEST(bad_activations_are_refused),
        TEST(prelu_agrees_with_the_reference),
        TEST(prelu_gradients_are_those_of_the_values),
        TEST(prelu_gives_only_what_is_wanted),
        TEST(prelu_has_the_same_bits_on_any_threads),
        TEST(prelu_propagates_nan),
        TEST(bad_prelu_is_refused),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
