/* Batch, instance, group and layer normalization: the fast path against the reference, the reference against central
 * differences, accuracy, and bits against the thread count. */
#include "norm_run.h"

static const char *name_of(cnn_op op)
{
    static const char *const names[] = {"batch_norm", "instance_norm", "group_norm", "layer_norm"};
    return names[op - CNN_OP_BATCH_NORM];
}

static void print_case(const norm_case *c)
{
    char text[CNN_SHAPE_TEXT];
    fprintf(stderr, "  in %s of %s, groups %d, axes %d, affine %d, running %d, evaluation %d, momentum %g\n",
            name_of(c->op), cnn_shape_text(&c->src, text), (int)c->groups, (int)c->axes, c->affine, c->running,
            c->evaluation, c->momentum);
}

/* ---- against the reference --------------------------------------------------------------------------------------- */

/* Largest difference, as a share of the largest magnitude (and of 1). */
static double difference(const norm_run *a, const void *from_a, const norm_run *b, const void *from_b, int tensor)
{
    double largest = 1.0, worst = 0.0;
    for (int64_t i = 0; i < a->count[tensor]; i++) {
        const double x = norm_get(a, from_a, i), y = norm_get(b, from_b, i), off = fabs(x - y);
        if (fabs(y) > largest) largest = fabs(y);
        if (isnan(off)) return off;
        if (off > worst) worst = off;
    }
    return worst / largest;
}

static bool agree(const char *what, const norm_run *a, const void *from_a, const norm_run *b, const void *from_b,
                  int tensor, double tolerance)
{
    const double off = difference(a, from_a, b, from_b, tensor);
    if (off <= tolerance) return true;
    fprintf(stderr, "%s: off by %.3g, allowed %.3g\n", what, off, tolerance);
    return false;
}

/* float32 by the kernels against float64 by the reference, on the same numbers. */
static void check_case(const norm_case *c, double mean, double std, double tolerance)
{
    norm_run fast, wanted;
    const bool built = norm_build(c, CNN_FLOAT32, false, &fast) == CNN_OK;
    bool ok = built && norm_build(c, CNN_FLOAT64, true, &wanted) == CNN_OK;
    if (!ok) fprintf(stderr, "%s\n", cnn_last_error());
    REQUIRE(ok);
    ok = norm_compute(&fast, 7, mean, std, 0.5) == CNN_OK && norm_compute(&wanted, 7, mean, std, 0.5) == CNN_OK &&
         agree("dst", &fast, fast.data[DST], &wanted, wanted.data[DST], DST, tolerance);
    for (int t = SRC_TENSOR; t <= BIAS; t++)
        if (t != SRC_TENSOR || !c->no_diff_src)
            ok = ok && agree("gradient", &fast, fast.diff[t], &wanted, wanted.diff[t], t, tolerance);
    for (int t = RUNNING_MEAN; t <= RUNNING_VAR; t++)
        ok = ok && agree("running statistics", &fast, fast.data[t], &wanted, wanted.data[t], t, 1e-6);
    if (ok && c->running) ok = norm_num_batches(&fast) == norm_num_batches(&wanted);
    if (!ok) print_case(c);
    CHECK(ok);
    norm_release(&fast);
    norm_release(&wanted);
}

static void agrees_with_the_reference(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {1, 5, 1, 1}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .running = true, .momentum = -1.0},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {2, 1, 9, 7}}, .affine = true},
        {CNN_OP_BATCH_NORM, {4, {2, 3, 17, 13}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {2, 70, 1, 1}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {2, {9, 13}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {2, {9, 13}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {3, {4, 5, 7}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {3, {4, 5, 7}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .no_diff_src = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .no_diff_weights = true, .no_diff_bias = true},
        {CNN_OP_BATCH_NORM, {2, {9, 13}}, .affine = true, .running = true, .evaluation = true, .no_diff_src = true},
        {CNN_OP_BATCH_NORM,
         {4, {3, 5, 4, 6}},
         .affine = true,
         .running = true,
         .evaluation = true,
         .no_diff_weights = true,
         .no_diff_bias = true},
        {CNN_OP_BATCH_NORM, {3, {4, 5, 7}}, .affine = true, .no_diff_src = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 5, 4, 6}}, .affine = false},
        {CNN_OP_INSTANCE_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true, .momentum = -1.0},
        {CNN_OP_INSTANCE_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_INSTANCE_NORM, {4, {20, 3, 5, 5}}, .affine = true, .evaluation = true},
        {CNN_OP_INSTANCE_NORM, {3, {4, 5, 7}}, .affine = true, .running = true},
        {CNN_OP_GROUP_NORM, {4, {3, 6, 4, 5}}, .groups = 1, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {3, 6, 4, 5}}, .groups = 3, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {3, 6, 4, 5}}, .groups = 6},
        {CNN_OP_GROUP_NORM, {2, {5, 12}}, .groups = 4, .affine = true},
        {CNN_OP_GROUP_NORM, {3, {2, 8, 5}}, .groups = 2, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {3, 6, 4, 5}}, .groups = 2, .affine = true, .no_diff_src = true},
        {CNN_OP_LAYER_NORM, {1, {11}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {70, 19}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {7, 19}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {3, {4, 5, 33}}, .axes = 1},
        {CNN_OP_LAYER_NORM, {3, {4, 5, 6}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 3},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 4, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 4, .affine = true, .weights_are_inputs = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 2, .affine = true, .no_diff_src = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 2, .affine = true, .no_diff_weights = true},
        {CNN_OP_LAYER_NORM, {3, {4, 5, 6}}, .axes = 2, .affine = true, .no_diff_weights = true, .no_diff_bias = true},
        {CNN_OP_LAYER_NORM, {5, {2, 3, 2, 3, 7}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {6, {2, 1, 2, 2, 3, 3}}, .axes = 2, .affine = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_case(&cases[i], 0.3, 1.0, 1e-5); /* what is left of the gradient of two close numbers is rounding */
        check_case(&cases[i], -40.0, 3.0, 1e-5);
    }
}

/* Shapes that take blocks, chunks, segments, more than one of each, and their remainders. */
static void agrees_on_large_shapes(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {2, 3, 210, 211}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {1, 1, 400, 401}}, .affine = true},
        {CNN_OP_BATCH_NORM, {4, {4, 37, 41, 43}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {4, 37, 41, 43}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {3, 515, 11, 11}}, .affine = true},
        {CNN_OP_BATCH_NORM, {2, {301, 2049}}, .affine = true},
        {CNN_OP_BATCH_NORM, {3, {5, 70, 517}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 19, 91, 92}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {130, 5, 7, 9}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {130, 5, 7, 9}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_GROUP_NORM, {4, {2, 96, 33, 35}}, .groups = 8, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {17, 24, 19, 21}}, .groups = 4, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {700, 65}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {5000, 3}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {23, 17003}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {9, 7, 61, 43}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 3, 131, 127}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 33, 35, 37}}, .axes = 4, .affine = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(&cases[i], 0.3, 1.0, 3e-6);
}

static norm_case random_case(void)
{
    norm_case c = {.op = (cnn_op)norm_random_between(CNN_OP_BATCH_NORM, CNN_OP_LAYER_NORM)};
    c.affine = norm_random_between(0, 3) > 0;
    const bool running_kind = c.op == CNN_OP_BATCH_NORM || c.op == CNN_OP_INSTANCE_NORM;
    const int64_t lowest = c.op == CNN_OP_LAYER_NORM ? 1 : c.op == CNN_OP_INSTANCE_NORM ? 3 : 2;
    c.src.rank = (int32_t)norm_random_between(lowest, 4);
    c.groups = norm_random_between(1, 4);
    for (int32_t i = 0; i < c.src.rank; i++) c.src.dim[i] = norm_random_between(1, 9);
    c.src.dim[0] = norm_random_between(2, 20);
    if (c.op != CNN_OP_LAYER_NORM) c.src.dim[1] = c.groups * norm_random_between(1, 18);
    if (c.op == CNN_OP_INSTANCE_NORM) c.src.dim[2] = norm_random_between(2, 9);
    c.axes = (int32_t)norm_random_between(1, c.src.rank);
    c.running = running_kind && norm_random_between(0, 1) == 1;
    c.evaluation = norm_random_between(0, 2) == 0;
    c.momentum = norm_random_between(0, 3) == 0 ? -1.0 : 0.3;
    c.eps = 1e-3; /* a set of few numbers may have hardly any variance */
    return c;
}

static void agrees_on_random_shapes(void)
{
    uint64_t state = 5;
    for (int i = 0; i < 400; i++) {
        norm_random_state = state;
        const norm_case c = random_case();
        state = norm_random_state;
        check_case(&c, 0.5, 2.0, 1e-5);
    }
}

/* ---- numerics ---------------------------------------------------------------------------------------------------- */

/* src with a mean of 1000 standard deviations: naive sums of squares would have no digit of the variance right. */
static void stays_accurate_far_from_zero(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {4, 37, 41, 43}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {4, 3, 41, 43}}, .affine = true},
        {CNN_OP_BATCH_NORM, {2, {6, 5}}, .affine = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 19, 33, 35}}, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {3, 32, 33, 35}}, .groups = 4, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {30, 1000}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {30, 7}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 32, 33, 35}}, .axes = 3, .affine = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(&cases[i], 1000.0, 1.0, 1e-6);
}

/* Loss = sum of dst times diff_dst. */
static double loss_of(norm_run *run)
{
    double loss = 0.0;
    if (cnn_context_forward(run->context) != CNN_OK) return (double)NAN;
    for (int64_t i = 0; i < run->count[DST]; i++)
        loss += norm_get(run, run->data[DST], i) * norm_get(run, run->diff[DST], i);
    return loss;
}

static void check_gradients(const norm_case *c)
{
    const double step = 1e-5;
    norm_run run;
    REQUIRE(norm_build(c, CNN_FLOAT64, true, &run) == CNN_OK);
    REQUIRE(norm_compute(&run, 11, 0.2, 1.0, 0.0) == CNN_OK);
    for (int t = SRC_TENSOR; t <= BIAS; t++)
        for (int64_t i = 0; i < run.count[t]; i++) {
            const double x = norm_get(&run, run.data[t], i);
            norm_set(&run, run.data[t], i, x + step);
            const double up = loss_of(&run);
            norm_set(&run, run.data[t], i, x - step);
            const double down = loss_of(&run);
            norm_set(&run, run.data[t], i, x);
            CHECK_NEAR(norm_get(&run, run.diff[t], i), (up - down) / (2.0 * step), 1e-7);
        }
    norm_release(&run);
}

static void has_the_gradients_of_central_differences(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {2, 3, 2, 3}}, .affine = true},
        {CNN_OP_BATCH_NORM, {3, {3, 2, 4}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_INSTANCE_NORM, {4, {2, 3, 2, 3}}, .affine = true},
        {CNN_OP_INSTANCE_NORM, {4, {2, 3, 2, 3}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_GROUP_NORM, {4, {2, 4, 2, 3}}, .groups = 2, .affine = true},
        {CNN_OP_GROUP_NORM, {2, {3, 6}}, .groups = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {3, {2, 3, 4}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 2, 3, 2}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 2, 3, 2}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 2, 3, 2}}, .axes = 4, .affine = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_gradients(&cases[i]);
}

static void passes_nan_on(void)
{
    const norm_case c = {CNN_OP_BATCH_NORM, {4, {2, 11, 3, 3}}, .affine = true};
    norm_run run;
    REQUIRE(norm_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    norm_draw(&run, 3, 0.0, 1.0, 0.0);
    norm_set(&run, run.data[SRC_TENSOR], 11 * 5 + 9, (double)NAN); /* a pixel of channel 9 */
    REQUIRE(norm_run_once(&run) == CNN_OK);
    for (int64_t i = 0; i < run.count[DST]; i++) {
        CHECK_INT(isnan(norm_get(&run, run.data[DST], i)), i % 11 == 9);
        CHECK_INT(isnan(norm_get(&run, run.diff[SRC_TENSOR], i)), i % 11 == 9);
    }
    norm_release(&run);
}

/* A channel of one value everywhere has no variance: only eps keeps it from infinity. */
static void gives_the_bias_for_a_constant(void)
{
    static const double values[] = {0.0, 1.0, -3.7e4, 1e-30};
    const norm_case c = {CNN_OP_BATCH_NORM, {4, {2, 3, 19, 21}}, .affine = true};
    norm_run run;
    REQUIRE(norm_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
        norm_draw(&run, 5, 0.0, 1.0, 0.0);
        norm_fill(&run, SRC_TENSOR, run.data[SRC_TENSOR], values[v]);
        REQUIRE(norm_run_once(&run) == CNN_OK);
        for (int64_t i = 0; i < run.count[DST]; i++)
            CHECK_NEAR(norm_get(&run, run.data[DST], i), norm_get(&run, run.data[BIAS], i % 3), 1e-6);
    }
    norm_release(&run);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static bool same_bits(const norm_run *a, const norm_run *b)
{
    for (int t = 0; t < TENSORS; t++) {
        const size_t bytes = (size_t)a->count[t] * sizeof(float);
        if (a->count[t] == 0 || t == NUM_BATCHES) continue;
        if (t >= RUNNING_MEAN && memcmp(a->data[t], b->data[t], bytes) != 0) return false;
        if (t <= BIAS && memcmp(a->diff[t], b->diff[t], bytes) != 0) return false;
    }
    return true;
}

static void has_the_same_bits_at_any_thread_count(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {4, 37, 61, 63}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {4, 37, 61, 63}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {3, {6, 70, 517}}, .affine = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 19, 91, 92}}, .affine = true, .running = true},
        {CNN_OP_GROUP_NORM, {4, {35, 24, 19, 21}}, .groups = 4, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {3000, 65}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {9, 7, 61, 43}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {9, 7, 61, 43}}, .axes = 1, .affine = true},
    };
    const int32_t before = cnn_get_num_threads();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        norm_run alone;
        CHECK_INT(cnn_set_num_threads(1), CNN_OK);
        REQUIRE(norm_build(&cases[i], CNN_FLOAT32, false, &alone) == CNN_OK);
        REQUIRE(norm_compute(&alone, 21, 0.5, 1.0, 0.5) == CNN_OK);
        for (int32_t threads = 2; threads <= 4; threads++) {
            norm_run together;
            if (cnn_set_num_threads(threads) != CNN_OK) continue; /* a build without threads */
            REQUIRE(norm_build(&cases[i], CNN_FLOAT32, false, &together) == CNN_OK);
            REQUIRE(norm_compute(&together, 21, 0.5, 1.0, 0.5) == CNN_OK);
            CHECK(same_bits(&alone, &together));
            norm_release(&together);
        }
        norm_release(&alone);
    }
    CHECK_INT(cnn_set_num_threads(before), CNN_OK);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(agrees_with_the_reference),
        TEST(agrees_on_large_shapes),
        TEST(agrees_on_random_shapes),
        TEST(stays_accurate_far_from_zero),
        TEST(has_the_gradients_of_central_differences),
        TEST(passes_nan_on),
        TEST(gives_the_bias_for_a_constant),
        TEST(has_the_same_bits_at_any_thread_count),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
