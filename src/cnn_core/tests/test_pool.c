/* Max, average and adaptive average pooling. */
#include "one_node.h"

static node_case pooling(cnn_op op, int64_t n, int64_t c, int64_t h, int64_t w, int64_t kernel, int64_t stride,
                         int64_t padding, int64_t dilation)
{
    node_case made = {.op = op, .num_sources = 1, .src = {{.kind = NODE_INPUT, .shape = {4, {n, c, h, w}}}}};
    for (int k = 0; k < 2; k++) {
        made.attributes.pool.kernel[k] = kernel;
        made.attributes.pool.stride[k] = stride;
        made.attributes.pool.padding[k] = padding;
        made.attributes.pool.dilation[k] = dilation;
    }
    return made;
}

/* A random pooling that has an output. */
static node_case draw(cnn_op op)
{
    for (;;) {
        node_case c = pooling(op, node_between(1, 3), node_between(1, 70), node_between(1, 12), node_between(1, 12), 1, 1,
                              0, 1);
        c.attributes.pool.ceil_mode = node_random() % 2 == 0;
        c.attributes.pool.count_include_pad = node_random() % 2 == 0;
        for (int k = 0; k < 2; k++) {
            c.attributes.pool.kernel[k] = node_between(1, 7);
            c.attributes.pool.stride[k] = node_between(1, 5);
            c.attributes.pool.padding[k] = node_between(0, c.attributes.pool.kernel[k] / 2);
            if (op == CNN_OP_MAX_POOL2D) c.attributes.pool.dilation[k] = node_between(1, 3);
        }
        if (op == CNN_OP_AVG_POOL2D && node_random() % 4 == 0) c.attributes.pool.divisor = node_between(1, 9);
        if (op == CNN_OP_MAX_POOL2D && node_random() % 2 == 0) c.src[0].levels = 3;
        node_run run;
        const bool fits = node_build(&c, CNN_FLOAT32, false, &run) == CNN_OK;
        node_release(&run);
        if (fits) return c;
    }
}

static void random_shapes(cnn_op op, int times, double tolerance)
{
    for (int i = 0; i < times; i++) {
        node_random_state = (uint64_t)(1000 + i);
        const node_case c = draw(op);
        node_check(&c, tolerance);
    }
}

static void max_pool_agrees_with_reference(void)
{
    random_shapes(CNN_OP_MAX_POOL2D, 150, 1e-6);
}

static void avg_pool_agrees_with_reference(void)
{
    random_shapes(CNN_OP_AVG_POOL2D, 150, 2e-6);
}

static node_case adaptive(int64_t n, int64_t c, int64_t h, int64_t w, int64_t oh, int64_t ow)
{
    return (node_case){.op = CNN_OP_ADAPTIVE_AVG_POOL2D,
                       .attributes.resize.size = {oh, ow},
                       .num_sources = 1,
                       .src = {{.kind = NODE_INPUT, .shape = {4, {n, c, h, w}}}}};
}

static void adaptive_pool_agrees_with_reference(void)
{
    for (int i = 0; i < 100; i++) {
        node_random_state = (uint64_t)(2000 + i);
        node_case c = adaptive(node_between(1, 3), node_between(1, 70), node_between(1, 12), node_between(1, 12),
                               node_between(1, 13), node_between(1, 13));
        if (i % 3 == 0) c.attributes.resize.size[0] = c.attributes.resize.size[1] = 1;
        node_check(&c, 2e-6);
    }
    const node_case large = adaptive(2, 19, 61, 47, 1, 1); /* several blocks of rows */
    node_check(&large, 2e-6);
}

static void gradients_match_central_differences(void)
{
    for (int i = 0; i < 10; i++) {
        node_random_state = (uint64_t)(3000 + i);
        node_case c = draw(i % 2 == 0 ? CNN_OP_MAX_POOL2D : CNN_OP_AVG_POOL2D);
        c.src[0].levels = 0;
        c.src[0].shape.dim[1] = 3;
        node_check_gradient(&c);
    }
    const node_case bins = adaptive(2, 3, 7, 5, 3, 4), global = adaptive(2, 3, 7, 5, 1, 1);
    node_check_gradient(&bins);
    node_check_gradient(&global);
}

static void bits_do_not_depend_on_threads(void)
{
    const node_case max = pooling(CNN_OP_MAX_POOL2D, 2, 21, 41, 39, 3, 2, 1, 1);
    const node_case avg = pooling(CNN_OP_AVG_POOL2D, 2, 21, 41, 39, 3, 2, 1, 1);
    const node_case bins = adaptive(2, 21, 41, 39, 7, 6), global = adaptive(1, 67, 61, 53, 1, 1);
    node_check_threads(&max);
    node_check_threads(&avg);
    node_check_threads(&bins);
    node_check_threads(&global);
}

/* Fills the source with `value` everywhere and runs. */
static bool run_on(const node_case *c, node_run *run, bool reference, double value)
{
    if (node_build(c, CNN_FLOAT32, reference, run) != CNN_OK) return false;
    node_prepare(c, run, 1);
    node_fill(run->dtype, run->src[0].data, run->src[0].count, value);
    node_fill(run->dtype, run->dst.diff, run->dst.count, 1.0);
    return true;
}

/* NaN is the largest of a window, the first NaN gets the gradient, on every lane and in tails. */
static void max_pool_passes_nan_on(void)
{
    const node_case c = pooling(CNN_OP_MAX_POOL2D, 1, 11, 4, 4, 4, 4, 0, 1);
    for (int reference = 0; reference < 2; reference++) {
        for (int64_t channel = 0; channel < 11; channel++) {
            node_run run;
            REQUIRE(run_on(&c, &run, reference != 0, -1.0));
            float *src = run.src[0].data;
            const float *dst = run.dst.data, *diff_src = run.src[0].diff;
            src[3 * 11 + channel] = INFINITY;
            src[5 * 11 + channel] = NAN;
            src[9 * 11 + channel] = NAN;
            CHECK_INT(node_run_both(&run), CNN_OK);
            for (int64_t i = 0; i < 11; i++) CHECK_NEAR(dst[i], i == channel ? (double)NAN : -1.0, 0);
            for (int64_t pixel = 0; pixel < 16; pixel++)
                for (int64_t i = 0; i < 11; i++)
                    CHECK_NEAR(diff_src[pixel * 11 + i], pixel == (i == channel ? 5 : 0) ? 1.0 : 0.0, 0);
            node_release(&run);
        }
    }
}

/* Of equal maxima, -infinity included, the first in row order gets the gradient. */
static void max_pool_ties_go_to_the_first(void)
{
    const node_case c = pooling(CNN_OP_MAX_POOL2D, 1, 9, 3, 3, 3, 1, 1, 1);
    const double values[] = {(double)-INFINITY, 0.0};
    for (int reference = 0; reference < 2; reference++) {
        for (int k = 0; k < 2; k++) {
            node_run run;
            REQUIRE(run_on(&c, &run, reference != 0, values[k]));
            CHECK_INT(node_run_both(&run), CNN_OK);
            const float *dst = run.dst.data, *diff_src = run.src[0].diff;
            /* The nine windows begin at pixels 0 0 1 / 0 0 1 / 3 3 4. */
            const double won[9] = {4, 2, 0, 2, 1, 0, 0, 0, 0};
            for (int64_t i = 0; i < run.dst.count; i++) CHECK_NEAR(dst[i], values[k], 0);
            for (int64_t i = 0; i < run.src[0].count; i++) CHECK_NEAR(diff_src[i], won[i / 9], 0);
            node_release(&run);
        }
    }
}

/* With dilation a window may miss the image altogether. */
static void max_pool_of_nothing_is_minus_infinity(void)
{
    const node_case c = pooling(CNN_OP_MAX_POOL2D, 1, 10, 3, 3, 2, 1, 1, 4);
    for (int reference = 0; reference < 2; reference++) {
        node_run run;
        REQUIRE(run_on(&c, &run, reference != 0, 1.0));
        CHECK_INT(node_run_both(&run), CNN_OK);
        const float *dst = run.dst.data, *diff_src = run.src[0].diff;
        CHECK_INT(run.dst.count, 10);
        for (int64_t i = 0; i < run.dst.count; i++) CHECK_NEAR(dst[i], (double)-INFINITY, 0);
        for (int64_t i = 0; i < run.src[0].count; i++) CHECK_NEAR(diff_src[i], 0, 0);
        node_release(&run);
    }
}

/* What divides a window's sum, at each corner: the numbers are torch.nn.functional.avg_pool2d's for ones. */
static void avg_pool_divisors(void)
{
    node_case c = pooling(CNN_OP_AVG_POOL2D, 1, 1, 4, 4, 3, 2, 1, 1);
    c.attributes.pool.ceil_mode = 1;
    const struct {
        int include, divisor;
        double corner, edge, centre, last;
    } expected[] = {
        {1, 0, 4.0 / 9.0, 6.0 / 9.0, 1.0, 0.25},
        {0, 0, 1.0, 1.0, 1.0, 1.0},
        {0, 2, 2.0, 3.0, 4.5, 0.5},
    };
    for (int i = 0; i < 3; i++) {
        c.attributes.pool.count_include_pad = expected[i].include;
        c.attributes.pool.divisor = expected[i].divisor;
        node_run run;
        REQUIRE(run_on(&c, &run, false, 1.0));
        CHECK_INT(node_run_both(&run), CNN_OK);
        CHECK_INT(run.dst.count, 9);
        const float *dst = run.dst.data;
        CHECK_NEAR(dst[0], expected[i].corner, 1e-7);
        CHECK_NEAR(dst[1], expected[i].edge, 1e-7);
        CHECK_NEAR(dst[4], expected[i].centre, 1e-7);
        CHECK_NEAR(dst[8], expected[i].last, 1e-7);
        node_release(&run);
    }
}

static void averages_of_ones_are_one(void)
{
    const node_case cases[] = {pooling(CNN_OP_AVG_POOL2D, 1, 9, 14, 14, 7, 1, 0, 1), adaptive(1, 9, 11, 13, 1, 1),
                               adaptive(1, 9, 11, 13, 4, 6)};
    for (int i = 0; i < 3; i++) {
        node_run run;
        REQUIRE(run_on(&cases[i], &run, false, 1.0));
        CHECK_INT(node_run_both(&run), CNN_OK);
        for (int64_t k = 0; k < run.dst.count; k++) CHECK_NEAR(((const float *)run.dst.data)[k], 1.0, 0);
        node_release(&run);
    }
}

static void empty_batches_give_nothing(void)
{
    const node_case cases[] = {pooling(CNN_OP_MAX_POOL2D, 0, 5, 6, 6, 2, 2, 0, 1),
                               pooling(CNN_OP_AVG_POOL2D, 0, 5, 6, 6, 2, 2, 0, 1), adaptive(0, 5, 6, 6, 1, 1),
                               adaptive(2, 0, 6, 6, 2, 2), pooling(CNN_OP_MAX_POOL2D, 2, 0, 6, 6, 2, 2, 0, 1)};
    for (int i = 0; i < 5; i++) node_check(&cases[i], 0);
    /* Outputs of no size: a gradient of zeros. */
    const node_case none = adaptive(2, 3, 4, 4, 0, 2);
    node_run run;
    REQUIRE(run_on(&none, &run, false, 1.0));
    CHECK_INT(node_run_both(&run), CNN_OK);
    for (int64_t i = 0; i < run.src[0].count; i++) CHECK_NEAR(((const float *)run.src[0].diff)[i], 0, 0);
    node_release(&run);
}

static void bad_arguments_are_named(void)
{
    const cnn_op op = CNN_OP_MAX_POOL2D;
    const struct {
        node_case c;
        const char *text;
    } bad[] = {
        {pooling(op, 1, 3, 8, 8, 0, 1, 0, 1), "max_pool2d: kernel_size: got (0, 0)"},
        {pooling(op, 1, 3, 8, 8, 2, 0, 0, 1), "max_pool2d: stride: got (0, 0)"},
        {pooling(op, 1, 3, 8, 8, 2, 2, -1, 1), "max_pool2d: padding: got (-1, -1)"},
        {pooling(op, 1, 3, 8, 8, 3, 2, 2, 1), "max_pool2d: padding: got (2, 2), expected at most half"},
        {pooling(op, 1, 3, 8, 8, 2, 2, 0, 0), "max_pool2d: dilation: got (0, 0)"},
        {pooling(op, 1, 3, 4, 4, 5, 1, 0, 1), "max_pool2d: kernel_size: got (5, 5)"},
        {pooling(op, 1, 3, 4, 4, 3, 1, 0, 2147483647), "max_pool2d: kernel_size: got (3, 3) with dilation"},
        {pooling(op, 1, 3, 0, 4, 1, 1, 0, 1), "max_pool2d: x: got shape (1, 3, 0, 4)"},
        {pooling(CNN_OP_AVG_POOL2D, 1, 3, 4, 4, 5, 1, 0, 1), "avg_pool2d: kernel_size: got (5, 5)"},
        {pooling(op, 0, 1, INT64_C(1) << 17, INT64_C(1) << 17, 1, 1, 0, 1), "max_pool2d: x: got images of"},
        {adaptive(1, 3, 4, 4, -1, 2), "adaptive_avg_pool2d: output_size: got (-1, 2)"},
        {adaptive(1, 3, 0, 4, 2, 2), "adaptive_avg_pool2d: x: got shape (1, 3, 0, 4)"},
        {adaptive(1, INT64_C(1) << 40, 1, 1, 1 << 30, 1 << 30), "too large"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        node_check_refused(&bad[i].c, CNN_INVALID_VALUE, bad[i].text);
    node_case rank = pooling(op, 1, 3, 8, 8, 2, 2, 0, 1);
    rank.src[0].shape.rank = 3;
    node_check_refused(&rank, CNN_INVALID_VALUE, "max_pool2d: x: got shape (1, 3, 8), expected 4 dimensions");
    node_case parameter = pooling(op, 1, 3, 8, 8, 2, 2, 0, 1);
    parameter.src[0].kind = NODE_PARAMETER;
    node_check_refused(&parameter, CNN_UNSUPPORTED, "max_pool2d: x: got a parameter");
    node_case integers = pooling(op, 1, 3, 8, 8, 2, 2, 0, 1);
    integers.src[0].kind = NODE_CLASSES;
    node_check_refused(&integers, CNN_INVALID_TYPE, "max_pool2d: x: got int64, expected float32");
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(max_pool_agrees_with_reference),
        TEST(avg_pool_agrees_with_reference),
        TEST(adaptive_pool_agrees_with_reference),
        TEST(gradients_match_central_differences),
        TEST(bits_do_not_depend_on_threads),
        TEST(max_pool_passes_nan_on),
        TEST(max_pool_ties_go_to_the_first),
        TEST(max_pool_of_nothing_is_minus_infinity),
        TEST(avg_pool_divisors),
        TEST(averages_of_ones_are_one),
        TEST(empty_batches_give_nothing),
        TEST(bad_arguments_are_named),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
