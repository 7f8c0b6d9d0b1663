/* Softmax and log-softmax: the fast path against the reference, the reference against central differences, extreme
 * numbers, bits against the thread count, and what is refused. */
#include <stdint.h>
#include <stdlib.h>

#include "base/shape.h"
#include "cnn_core.h"
#include "test.h"

typedef struct softmax_case {
    cnn_op op;
    cnn_shape shape;
    int32_t axis;
} softmax_case;

/* A one-node graph with its memory, all of `dtype`. */
typedef struct softmax_run {
    cnn_dtype dtype;
    int64_t count;
    void *src, *dst, *diff_src, *diff_dst;
    cnn_context *context;
    cnn_plan *plan;
} softmax_run;

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static uint64_t random_state = 1;

static uint32_t random_bits(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 33);
}

/* Between -1 and 1. */
static double random_number(void)
{
    return (double)random_bits() / 1073741824.0 - 1.0;
}

static int64_t random_between(int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits() % (uint32_t)(high - low + 1));
}

static double get(const softmax_run *run, const void *from, int64_t i)
{
    return run->dtype == CNN_FLOAT64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

static void set(const softmax_run *run, void *to, int64_t i, double value)
{
    if (run->dtype == CNN_FLOAT64)
        ((double *)to)[i] = value;
    else
        ((float *)to)[i] = (float)value;
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

static cnn_status build(const softmax_case *c, cnn_dtype dtype, bool reference, softmax_run *run)
{
    const cnn_attributes attributes = {.axis = {c->axis}};
    const cnn_plan_options options = {.backward = 1, .repeat = 1, .reference = reference};
    cnn_graph *graph = NULL;
    cnn_value src = CNN_NONE, dst = CNN_NONE;
    *run = (softmax_run){.dtype = dtype};
    cnn_status status = cnn_graph_create(dtype, &graph);
    if (status == CNN_OK) status = cnn_graph_input(graph, dtype, &c->shape, &src);
    if (status == CNN_OK) status = cnn_graph_require_gradient(graph, src);
    if (status == CNN_OK) status = cnn_graph_apply(graph, c->op, &attributes, 1, &src, &dst);
    if (status == CNN_OK) status = cnn_graph_output(graph, dst);
    if (status == CNN_OK) status = cnn_plan_create(graph, &options, &run->plan);
    cnn_graph_free(graph);
    if (status == CNN_OK) status = cnn_context_create(run->plan, &run->context);
    if (status != CNN_OK) return status;
    run->count = cnn_shape_count(&c->shape);
    void **const memory[] = {&run->src, &run->dst, &run->diff_src, &run->diff_dst};
    for (size_t i = 0; i < 4; i++) *memory[i] = malloc((size_t)run->count * sizeof(double) + 1);
    status = cnn_context_bind(run->context, src, run->src, run->diff_src);
    return status == CNN_OK ? cnn_context_bind(run->context, dst, run->dst, run->diff_dst) : status;
}

static void release(softmax_run *run)
{
    cnn_context_free(run->context);
    cnn_plan_free(run->plan);
    free(run->src);
    free(run->dst);
    free(run->diff_src);
    free(run->diff_dst);
}

/* Runs both passes on numbers of `size` drawn from `seed`; what must be written holds NaN before. */
static cnn_status compute(softmax_run *run, uint64_t seed, double size)
{
    random_state = seed;
    for (int64_t i = 0; i < run->count; i++) {
        set(run, run->src, i, (double)(float)(size * random_number()));
        set(run, run->diff_dst, i, (double)(float)random_number());
        set(run, run->dst, i, NAN);
        set(run, run->diff_src, i, NAN);
    }
    const cnn_status status = cnn_context_forward(run->context);
    return status == CNN_OK ? cnn_context_backward(run->context) : status;
}

static void print_case(const softmax_case *c)
{
    char text[CNN_SHAPE_TEXT];
    fprintf(stderr, "  in %s of %s over axis %d\n", c->op == CNN_OP_SOFTMAX ? "softmax" : "log_softmax",
            cnn_shape_text(&c->shape, text), (int)c->axis);
}

/* ---- against the reference --------------------------------------------------------------------------------------- */

/* Off by a share of the wanted number's magnitude, or of 1. */
static bool agree(const char *what, const softmax_run *a, const void *from_a, const softmax_run *b, const void *from_b,
                  double tolerance)
{
    for (int64_t i = 0; i < a->count; i++) {
        const double x = get(a, from_a, i), y = get(b, from_b, i), largest = fabs(y) > 1.0 ? fabs(y) : 1.0;
        if (fabs(x - y) <= tolerance * largest) continue;
        fprintf(stderr, "%s[%lld]: %.9g, wanted %.9g\n", what, (long long)i, x, y);
        return false;
    }
    return true;
}

/* float32 by the kernels against float64 by the reference, on the same numbers. */
static void check_case(const softmax_case *c, double size)
{
    softmax_run fast, wanted;
    const bool built = build(c, CNN_FLOAT32, false, &fast) == CNN_OK;
    bool ok = built && build(c, CNN_FLOAT64, true, &wanted) == CNN_OK;
    if (!ok) fprintf(stderr, "%s\n", cnn_last_error());
    REQUIRE(ok);
    ok = compute(&fast, 7, size) == CNN_OK && compute(&wanted, 7, size) == CNN_OK &&
         agree("dst", &fast, fast.dst, &wanted, wanted.dst, 1e-6) &&
         agree("diff_src", &fast, fast.diff_src, &wanted, wanted.diff_src, 5e-6);
    if (!ok) print_case(c);
    CHECK(ok);
    release(&fast);
    release(&wanted);
}

static const cnn_op operations[] = {CNN_OP_SOFTMAX, CNN_OP_LOG_SOFTMAX};

static void agrees_with_the_reference(void)
{
    static const cnn_shape shapes[] = {
        {1, {1}},          {1, {13}},          {2, {5, 1}},         {2, {1, 70}},           {2, {9, 10}},
        {2, {33, 8}},      {2, {3, 1003}},     {3, {2, 21, 19}},    {3, {4, 3, 3}},         {4, {2, 3, 5, 7}},
        {4, {3, 11, 1, 1}}, {4, {2, 1, 4, 6}}, {4, {2, 19, 6, 5}},  {5, {2, 3, 4, 2, 3}},   {6, {2, 1, 3, 2, 2, 9}},
        {2, {65, 130}},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int32_t axis = -shapes[s].rank; axis < shapes[s].rank; axis++)
            for (size_t o = 0; o < 2; o++) {
                const softmax_case c = {operations[o], shapes[s], axis};
                check_case(&c, 3.0);
                check_case(&c, 60.0);
            }
}

/* Distributions long enough to be summed in two levels, and more of them than one task takes. */
static void agrees_on_large_shapes(void)
{
    static const softmax_case cases[] = {
        {CNN_OP_SOFTMAX, {2, {3, 20011}}, 1},       {CNN_OP_LOG_SOFTMAX, {2, {3, 20011}}, 1},
        {CNN_OP_SOFTMAX, {2, {3001, 21}}, 0},       {CNN_OP_LOG_SOFTMAX, {2, {3001, 21}}, 0},
        {CNN_OP_SOFTMAX, {4, {2, 21, 61, 63}}, 1},  {CNN_OP_LOG_SOFTMAX, {4, {2, 21, 61, 63}}, 1},
        {CNN_OP_SOFTMAX, {4, {2, 21, 61, 63}}, 2},  {CNN_OP_LOG_SOFTMAX, {4, {2, 21, 61, 63}}, 3},
        {CNN_OP_SOFTMAX, {3, {2, 19, 4096}}, 1},    {CNN_OP_LOG_SOFTMAX, {3, {3000, 5, 3}}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(&cases[i], 3.0);
}

static void agrees_on_random_shapes(void)
{
    uint64_t state = 3;
    for (int i = 0; i < 300; i++) {
        random_state = state;
        softmax_case c = {.op = operations[random_between(0, 1)], .shape = {.rank = (int32_t)random_between(1, 5)}};
        for (int32_t axis = 0; axis < c.shape.rank; axis++) c.shape.dim[axis] = random_between(1, 11);
        c.shape.dim[random_between(0, c.shape.rank - 1)] = random_between(1, 70);
        c.axis = (int32_t)random_between(0, c.shape.rank - 1);
        state = random_state;
        check_case(&c, 10.0);
    }
}

static double loss_of(softmax_run *run)
{
    double loss = 0.0;
    if (cnn_context_forward(run->context) != CNN_OK) return NAN;
    for (int64_t i = 0; i < run->count; i++) loss += get(run, run->dst, i) * get(run, run->diff_dst, i);
    return loss;
}

static void has_the_gradients_of_central_differences(void)
{
    static const cnn_shape shape = {4, {2, 3, 2, 4}};
    const double step = 1e-5;
    for (size_t o = 0; o < 2; o++)
        for (int32_t axis = 0; axis < shape.rank; axis++) {
            const softmax_case c = {operations[o], shape, axis};
            softmax_run run;
            REQUIRE(build(&c, CNN_FLOAT64, true, &run) == CNN_OK);
            REQUIRE(compute(&run, 11, 2.0) == CNN_OK);
            for (int64_t i = 0; i < run.count; i++) {
                const double x = get(&run, run.src, i);
                set(&run, run.src, i, x + step);
                const double up = loss_of(&run);
                set(&run, run.src, i, x - step);
                const double down = loss_of(&run);
                set(&run, run.src, i, x);
                CHECK_NEAR(get(&run, run.diff_src, i), (up - down) / (2.0 * step), 1e-8);
            }
            release(&run);
        }
}

/* ---- extreme numbers --------------------------------------------------------------------------------------------- */

/* Both layouts of distributions of three numbers and, by the reference too, what becomes of them. */
static void check_three(const double src[3], const double softmax[3], const double log_softmax[3])
{
    for (int variant = 0; variant < 8; variant++) {
        const bool log = (variant & 1) != 0, columns = (variant & 2) != 0, reference = (variant & 4) != 0;
        const softmax_case c = {operations[log], columns ? (cnn_shape){2, {3, 9}} : (cnn_shape){2, {9, 3}}, !columns};
        softmax_run run;
        REQUIRE(build(&c, CNN_FLOAT32, reference, &run) == CNN_OK);
        for (int64_t i = 0; i < 27; i++) set(&run, run.src, i, src[columns ? i / 9 : i % 3]);
        REQUIRE(cnn_context_forward(run.context) == CNN_OK);
        for (int64_t i = 0; i < 27; i++) {
            const int64_t which = columns ? i / 9 : i % 3;
            const double wanted = log ? log_softmax[which] : softmax[which];
            CHECK_NEAR(get(&run, run.dst, i), wanted, 1e-6 * (isfinite(wanted) ? fabs(wanted) : 0.0) + 1e-7);
        }
        release(&run);
    }
}

static void is_stable_for_extreme_numbers(void)
{
    static const double half = 0.5, log_half = -0.69314718055994531;
    const double nans[] = {NAN, NAN, NAN};
    check_three((double[]){1e4, 1e4, -1e4}, (double[]){half, half, 0.0},
                (double[]){log_half, log_half, -2e4 + log_half});
    check_three((double[]){-1e30, -1e30, -1e30}, (double[]){1.0 / 3, 1.0 / 3, 1.0 / 3},
                (double[]){-1.0986122886681098, -1.0986122886681098, -1.0986122886681098});
    check_three((double[]){3e38, -3e38, 0.0}, (double[]){1.0, 0.0, 0.0}, (double[]){0.0, -INFINITY, -3e38});
    check_three((double[]){-INFINITY, 0.0, 0.0}, (double[]){0.0, half, half},
                (double[]){-INFINITY, log_half, log_half});
    check_three((double[]){-INFINITY, -INFINITY, -INFINITY}, nans, nans);
    check_three((double[]){INFINITY, 0.0, 0.0}, nans, nans);
    check_three((double[]){NAN, 0.0, 0.0}, nans, nans);
    check_three((double[]){0.0, 0.0, NAN}, nans, nans);
}

/* ---- threads, empty sources, refusals ---------------------------------------------------------------------------- */

static void has_the_same_bits_at_any_thread_count(void)
{
    static const softmax_case cases[] = {
        {CNN_OP_SOFTMAX, {2, {700, 131}}, 1},
        {CNN_OP_SOFTMAX, {3, {3, 41, 613}}, 1},
        {CNN_OP_LOG_SOFTMAX, {4, {3, 21, 37, 33}}, 1},
        {CNN_OP_LOG_SOFTMAX, {4, {3, 21, 37, 33}}, 0},
    };
    const int32_t before = cnn_get_num_threads();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        softmax_run alone, together;
        CHECK_INT(cnn_set_num_threads(1), CNN_OK);
        REQUIRE(build(&cases[i], CNN_FLOAT32, false, &alone) == CNN_OK);
        REQUIRE(build(&cases[i], CNN_FLOAT32, false, &together) == CNN_OK);
        REQUIRE(compute(&alone, 21, 4.0) == CNN_OK);
        for (int32_t threads = 2; threads <= 4; threads++) {
            if (cnn_set_num_threads(threads) != CNN_OK) continue; /* a build without threads */
            REQUIRE(compute(&together, 21, 4.0) == CNN_OK);
            const size_t bytes = (size_t)alone.count * sizeof(float);
            CHECK(memcmp(alone.dst, together.dst, bytes) == 0);
            CHECK(memcmp(alone.diff_src, together.diff_src, bytes) == 0);
        }
        release(&alone);
        release(&together);
    }
    CHECK_INT(cnn_set_num_threads(before), CNN_OK);
}

static void takes_empty_sources(void)
{
    static const cnn_shape shapes[] = {{2, {0, 5}}, {2, {5, 0}}, {4, {0, 3, 2, 2}}, {4, {2, 3, 0, 2}}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t o = 0; o < 2; o++) {
            const softmax_case c = {operations[o], shapes[s], 1};
            softmax_run run;
            REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
            CHECK_INT(compute(&run, 1, 1.0), CNN_OK);
            release(&run);
        }
}

static void refuses_bad_arguments(void)
{
    static const struct {
        cnn_shape shape;
        int32_t axis;
        const char *message;
    } cases[] = {
        {{2, {4, 3}}, 2, "softmax: dim: got 2, expected -2 to 1"},
        {{4, {1, 2, 3, 4}}, -5, "softmax: dim: got -5, expected -4 to 3"},
        {{0, {0}}, 0, "softmax: input: got shape (), expected at least 1 dimension"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const softmax_case c = {CNN_OP_SOFTMAX, cases[i].shape, cases[i].axis};
        softmax_run run;
        CHECK_INT(build(&c, CNN_FLOAT32, false, &run), CNN_INVALID_VALUE);
        CHECK(strstr(cnn_last_error(), cases[i].message) != NULL);
        release(&run);
    }
}

static void refuses_integers_and_parameters(void)
{
    const cnn_attributes attributes = {.axis = {1}};
    const cnn_shape shape = {4, {2, 3, 4, 4}};
    cnn_graph *graph;
    cnn_value src, dst;
    REQUIRE(cnn_graph_create(CNN_FLOAT32, &graph) == CNN_OK);
    REQUIRE(cnn_graph_input(graph, CNN_INT64, &shape, &src) == CNN_OK);
    CHECK_INT(cnn_graph_apply(graph, CNN_OP_LOG_SOFTMAX, &attributes, 1, &src, &dst), CNN_INVALID_TYPE);
    CHECK_STRING(cnn_last_error(), "log_softmax: input: got int64, expected float32");
    REQUIRE(cnn_graph_parameter(graph, &shape, &src) == CNN_OK);
    CHECK_INT(cnn_graph_apply(graph, CNN_OP_LOG_SOFTMAX, &attributes, 1, &src, &dst), CNN_UNSUPPORTED);
    cnn_graph_free(graph);
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
        TEST(refuses_integers_and_parameters),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
