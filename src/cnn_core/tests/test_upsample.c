/* Nearest and bilinear upsampling. */
#include "one_node.h"

static node_case resizing(cnn_op op, int64_t n, int64_t c, int64_t h, int64_t w, int64_t oh, int64_t ow)
{
    return (node_case){.op = op,
                       .attributes.resize.size = {oh, ow},
                       .num_sources = 1,
                       .src = {{.kind = NODE_INPUT, .shape = {4, {n, c, h, w}}}}};
}

static node_case draw(cnn_op op)
{
    node_case c = resizing(op, node_between(1, 3), node_between(1, 40), node_between(1, 9), node_between(1, 9),
                           node_between(1, 20), node_between(1, 20));
    c.attributes.resize.align_corners = node_random() % 3 == 0;
    if (node_random() % 3 == 0) { /* the size that a scale factor gives, and its step */
        const double factor[2] = {0.3 + 0.1 * (double)node_between(0, 30), 0.3 + 0.1 * (double)node_between(0, 30)};
        for (int k = 0; k < 2; k++) {
            c.attributes.resize.size[k] = (int64_t)fmax(floor((double)c.src[0].shape.dim[2 + k] * factor[k]), 1.0);
            c.attributes.resize.scale[k] = 1.0 / factor[k];
        }
    }
    return c;
}

static void random_shapes(cnn_op op, double tolerance)
{
    for (int i = 0; i < 150; i++) {
        node_random_state = (uint64_t)(1000 + i);
        const node_case c = draw(op);
        node_check(&c, tolerance);
    }
}

static void nearest_agrees_with_reference(void)
{
    random_shapes(CNN_OP_UPSAMPLE_NEAREST, 2e-6);
}

static void bilinear_agrees_with_reference(void)
{
    random_shapes(CNN_OP_UPSAMPLE_BILINEAR, 5e-6); /* hundreds of gradients may meet in one source */
}

static void gradients_match_central_differences(void)
{
    for (int i = 0; i < 10; i++) {
        node_random_state = (uint64_t)(3000 + i);
        node_case c = draw(i % 2 == 0 ? CNN_OP_UPSAMPLE_NEAREST : CNN_OP_UPSAMPLE_BILINEAR);
        c.src[0].shape.dim[1] = 2;
        node_check_gradient(&c);
    }
}

static void bits_do_not_depend_on_threads(void)
{
    for (int align = 0; align < 2; align++) {
        node_case c = resizing(CNN_OP_UPSAMPLE_BILINEAR, 2, 37, 23, 29, 61, 64);
        c.attributes.resize.align_corners = align;
        node_check_threads(&c);
        c.op = CNN_OP_UPSAMPLE_NEAREST;
        node_check_threads(&c);
    }
}

/* Runs one row of `in` pixels 0, 1, 2, ... to `out` pixels and compares. */
static void check_row(cnn_op op, int64_t in, int64_t out, double scale, int align, const double *expected)
{
    node_case c = resizing(op, 1, 1, 1, in, 1, out);
    c.attributes.resize.scale[1] = scale;
    c.attributes.resize.align_corners = align;
    for (int reference = 0; reference < 2; reference++) {
        node_run run;
        REQUIRE(node_build(&c, CNN_FLOAT32, reference != 0, &run) == CNN_OK);
        node_prepare(&c, &run, 1);
        for (int64_t i = 0; i < in; i++) ((float *)run.src[0].data)[i] = (float)i;
        CHECK_INT(node_run_both(&run), CNN_OK);
        for (int64_t i = 0; i < out; i++) CHECK_NEAR(((const float *)run.dst.data)[i], expected[i], 1e-6);
        node_release(&run);
    }
}

/* What torch.nn.functional.interpolate gives. */
static void rows_are_torchs(void)
{
    check_row(CNN_OP_UPSAMPLE_NEAREST, 3, 6, 0, 0, (const double[]){0, 0, 1, 1, 2, 2});
    check_row(CNN_OP_UPSAMPLE_NEAREST, 5, 3, 0, 0, (const double[]){0, 1, 3});
    check_row(CNN_OP_UPSAMPLE_NEAREST, 3, 7, 1 / 2.5, 0, (const double[]){0, 0, 0, 1, 1, 2, 2});
    check_row(CNN_OP_UPSAMPLE_NEAREST, 3, 7, 0, 0, (const double[]){0, 0, 0, 1, 1, 2, 2});
    check_row(CNN_OP_UPSAMPLE_BILINEAR, 3, 6, 0, 0, (const double[]){0, 0.25, 0.75, 1.25, 1.75, 2});
    check_row(CNN_OP_UPSAMPLE_BILINEAR, 3, 5, 0, 1, (const double[]){0, 0.5, 1, 1.5, 2});
    check_row(CNN_OP_UPSAMPLE_BILINEAR, 3, 7, 1 / 2.5, 0, (const double[]){0, 0.1, 0.5, 0.9, 1.3, 1.7, 2});
    check_row(CNN_OP_UPSAMPLE_BILINEAR, 4, 1, 0, 1, (const double[]){0});
    check_row(CNN_OP_UPSAMPLE_BILINEAR, 4, 2, 0, 0, (const double[]){0.5, 2.5});
    check_row(CNN_OP_UPSAMPLE_NEAREST, 3, 3, 1 / 1.3, 0, (const double[]){0, 1, 2});
    check_row(CNN_OP_UPSAMPLE_BILINEAR, 3, 3, 1 / 1.3, 0, (const double[]){0, 1, 2});
    /* 49 * (2 / 98) is 1 in float, as in torch, but less in double. */
    double doubled[98];
    for (int i = 0; i < 98; i++) doubled[i] = i / 49;
    check_row(CNN_OP_UPSAMPLE_NEAREST, 2, 98, 0, 0, doubled);
}

/* A pixel that an output lies on exactly lets nothing of its neighbours through. */
static void infinity_stays_where_it_is(void)
{
    node_case c = resizing(CNN_OP_UPSAMPLE_BILINEAR, 1, 9, 1, 3, 1, 5);
    c.attributes.resize.align_corners = 1;
    for (int reference = 0; reference < 2; reference++) {
        node_run run;
        REQUIRE(node_build(&c, CNN_FLOAT32, reference != 0, &run) == CNN_OK);
        node_prepare(&c, &run, 1);
        float *src = run.src[0].data;
        const float *dst = run.dst.data;
        for (int i = 0; i < 9; i++) src[9 + i] = INFINITY;
        CHECK_INT(node_run_both(&run), CNN_OK);
        for (int i = 0; i < 9; i++) {
            CHECK_NEAR(dst[i], src[i], 0);
            CHECK_NEAR(dst[18 + i], (double)INFINITY, 0);
            CHECK_NEAR(dst[36 + i], src[18 + i], 0);
        }
        node_release(&run);
    }
}

static void empty_batches_give_nothing(void)
{
    const node_case nearest = resizing(CNN_OP_UPSAMPLE_NEAREST, 0, 3, 4, 4, 8, 8);
    const node_case bilinear = resizing(CNN_OP_UPSAMPLE_BILINEAR, 2, 0, 4, 4, 8, 8);
    node_check(&nearest, 0);
    node_check(&bilinear, 0);
}

static void bad_arguments_are_named(void)
{
    node_case c = resizing(CNN_OP_UPSAMPLE_NEAREST, 1, 3, 4, 4, 0, 8);
    node_check_refused(&c, CNN_INVALID_VALUE, "upsample_nearest: size: got (0, 8)");
    c = resizing(CNN_OP_UPSAMPLE_BILINEAR, 1, 3, 0, 4, 8, 8);
    node_check_refused(&c, CNN_INVALID_VALUE, "upsample_bilinear: x: got shape (1, 3, 0, 4)");
    c = resizing(CNN_OP_UPSAMPLE_BILINEAR, 1, 3, 4, 4, 8, 8);
    c.attributes.resize.scale[1] = -0.5;
    node_check_refused(&c, CNN_INVALID_VALUE, "upsample_bilinear: scale_factor: got a step of -0.5");
    c.attributes.resize.scale[1] = (double)NAN;
    node_check_refused(&c, CNN_INVALID_VALUE, "upsample_bilinear: scale_factor: got a step of");
    c = resizing(CNN_OP_UPSAMPLE_NEAREST, 1, INT64_C(1) << 40, 1, 1, 1 << 30, 1 << 30);
    node_check_refused(&c, CNN_INVALID_VALUE, "too large");
    c = resizing(CNN_OP_UPSAMPLE_NEAREST, 1, 3, 4, 4, 8, 8);
    c.src[0].shape.rank = 3;
    node_check_refused(&c, CNN_INVALID_VALUE, "upsample_nearest: x: got shape (1, 3, 4), expected 4 dimensions");
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(nearest_agrees_with_reference),       TEST(bilinear_agrees_with_reference),
        TEST(gradients_match_central_differences), TEST(bits_do_not_depend_on_threads),
        TEST(rows_are_torchs),                     TEST(infinity_stays_where_it_is),
        TEST(empty_batches_give_nothing),          TEST(bad_arguments_are_named),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
