/* Convolution and transposed convolution: every path against the float64 reference, the reference against central
 * differences, bits against the thread count, and what is refused. */
#include "one_node.h"

typedef struct conv_case {
    bool transposed;
    int64_t n, ic, ih, iw, oc, kh, kw;
    int64_t stride[2], dilation[2], padding[4], output_padding[2], groups;
    bool bias;
    bool weights_are_input; /* then they lie channels-last */
} conv_case;

static node_case node_of(const conv_case *c)
{
    node_case node = {.op = c->transposed ? CNN_OP_CONV_TRANSPOSE2D : CNN_OP_CONV2D, .num_sources = 3};
    for (int i = 0; i < 2; i++) {
        node.attributes.conv.stride[i] = c->stride[i];
        node.attributes.conv.dilation[i] = c->dilation[i];
        node.attributes.conv.output_padding[i] = c->output_padding[i];
    }
    for (int i = 0; i < 4; i++) node.attributes.conv.padding[i] = c->padding[i];
    node.attributes.conv.groups = c->groups;
    node.src[0] = (node_source){.kind = NODE_INPUT, .shape = {4, {c->n, c->ic, c->ih, c->iw}}};
    node.src[1] = (node_source){.kind = c->weights_are_input ? NODE_INPUT : NODE_PARAMETER};
    node.src[1].shape = c->transposed ? (cnn_shape){4, {c->ic, c->oc / c->groups, c->kh, c->kw}}
                                      : (cnn_shape){4, {c->oc, c->ic / c->groups, c->kh, c->kw}};
    node.src[2] = (node_source){.kind = c->bias ? NODE_PARAMETER : NODE_ABSENT, .shape = {1, {c->oc}}};
    return node;
}

/* ---- against the reference --------------------------------------------------------------------------------------- */

static void print_case(const conv_case *c)
{
    fprintf(stderr, "  kernel %dx%d stride %d,%d dilation %d,%d padding %d,%d,%d,%d output_padding %d,%d groups %d\n",
            (int)c->kh, (int)c->kw, (int)c->stride[0], (int)c->stride[1], (int)c->dilation[0], (int)c->dilation[1],
            (int)c->padding[0], (int)c->padding[1], (int)c->padding[2], (int)c->padding[3], (int)c->output_padding[0],
            (int)c->output_padding[1], (int)c->groups);
}

/* The tolerance grows as the rounding error of the longest sum does: of diff_weights, over all pixels. */
static void check_case(const conv_case *c)
{
    const node_case node = node_of(c);
    const double taps = (double)(c->kh * c->kw * (c->ic + c->oc)) / (double)c->groups;
    const double pixels = (double)(c->n * c->ih * c->iw * (c->transposed ? c->stride[0] * c->stride[1] : 1));
    const int before = test_failures;
    node_check(&node, 4e-6 * sqrt(taps > pixels ? taps : pixels));
    if (test_failures != before) print_case(c);
}

/* Rows or columns of the result. */
static int64_t result_size(const conv_case *c, int axis)
{
    const int64_t size = axis == 0 ? c->ih : c->iw, padding = c->padding[axis] + c->padding[2 + axis];
    const int64_t window = c->dilation[axis] * ((axis == 0 ? c->kh : c->kw) - 1) + 1;
    if (c->transposed) return (size - 1) * c->stride[axis] + window + c->output_padding[axis] - padding;
    return size + padding < window ? 0 : (size + padding - window) / c->stride[axis] + 1;
}

static int64_t sometimes(int64_t low, int64_t high) { return node_between(0, 1) == 0 ? low : node_between(low, high); }

static conv_case draw(bool transposed)
{
    for (;;) {
        static const int64_t most[] = {3, 20, 70};
        conv_case c = {.transposed = transposed, .bias = node_between(0, 1) == 0, .groups = 1};
        const int64_t channels = most[node_between(0, 2)];
        c.n = node_between(1, 3);
        c.ic = node_between(1, channels);
        c.oc = node_between(1, channels);
        if (node_between(0, 2) == 0) {
            c.groups = node_between(1, 6);
            c.ic = c.groups * node_between(1, 1 + 12 / c.groups);
            c.oc = c.groups * node_between(1, 1 + 24 / c.groups);
        }
        if (node_between(0, 5) == 0) c.groups = c.oc = c.ic; /* depthwise */
        c.ih = node_between(1, 12);
        c.iw = node_between(1, 12);
        c.kh = node_between(1, sometimes(3, 7));
        c.kw = node_between(1, sometimes(3, 7));
        for (int i = 0; i < 2; i++) {
            c.stride[i] = sometimes(1, 4);
            c.dilation[i] = sometimes(1, 3);
            const int64_t limit = c.stride[i] > c.dilation[i] ? c.stride[i] : c.dilation[i];
            if (transposed) c.output_padding[i] = sometimes(0, limit - 1);
        }
        for (int i = 0; i < 4; i++) c.padding[i] = sometimes(0, 7);
        const int64_t oh = result_size(&c, 0), ow = result_size(&c, 1);
        if (oh < 1 || ow < 1) continue;
        const int64_t placements = c.n * (transposed ? c.ih * c.iw : oh * ow);
        if (placements * c.kh * c.kw * c.ic * c.oc / c.groups < 300000) return c;
    }
}

static void agrees_on_random_shapes(void)
{
    uint64_t state = 1;
    for (int i = 0; i < 400; i++) {
        node_random_state = state;
        const conv_case c = draw(i % 2 == 1);
        state = node_random_state;
        check_case(&c);
    }
}

/* Shapes that the draw does not reach: whole panels and blocks, several tasks, pointwise, large windows. */
/* clang-format off */
static const conv_case large_cases[] = {
    {.n = 2, .ic = 32, .ih = 28, .iw = 28, .oc = 32, .kh = 3, .kw = 3, .stride = {1, 1}, .dilation = {1, 1},
     .padding = {1, 1, 1, 1}, .groups = 1, .bias = true},
    {.n = 1, .ic = 48, .ih = 14, .iw = 14, .oc = 100, .kh = 1, .kw = 1, .stride = {1, 1}, .dilation = {1, 1},
     .groups = 1},
    {.n = 3, .ic = 18, .ih = 20, .iw = 20, .oc = 21, .kh = 1, .kw = 1, .stride = {1, 1}, .dilation = {1, 1},
     .groups = 3},
    {.n = 2, .ic = 5, .ih = 3, .iw = 3, .oc = 4, .kh = 1, .kw = 1, .stride = {2, 2}, .dilation = {1, 1},
     .padding = {0, 0, 2, 2}, .groups = 1, .bias = true}, /* strided, but as many pixels as before */
    {.n = 3, .ic = 3, .ih = 32, .iw = 40, .oc = 24, .kh = 7, .kw = 7, .stride = {2, 2}, .dilation = {1, 1},
     .padding = {3, 3, 3, 3}, .groups = 1, .bias = true},
    {.n = 2, .ic = 72, .ih = 20, .iw = 24, .oc = 72, .kh = 3, .kw = 3, .stride = {1, 1}, .dilation = {1, 1},
     .padding = {1, 1, 1, 1}, .groups = 72, .bias = true},
    {.n = 2, .ic = 130, .ih = 15, .iw = 17, .oc = 130, .kh = 5, .kw = 5, .stride = {2, 2}, .dilation = {1, 1},
     .padding = {2, 2, 2, 2}, .groups = 130, .bias = true},
    {.n = 2, .ic = 8, .ih = 5, .iw = 4, .oc = 16, .kh = 9, .kw = 11, .stride = {1, 1}, .dilation = {1, 1},
     .padding = {4, 5, 4, 5}, .groups = 1, .bias = true},
    {.n = 1, .ic = 20, .ih = 9, .iw = 9, .oc = 18, .kh = 2, .kw = 2, .stride = {50, 3}, .dilation = {1, 1},
     .padding = {0, 0, 0, 0}, .groups = 1, .bias = true},
    {.n = 1, .ic = 256, .ih = 7, .iw = 7, .oc = 300, .kh = 1, .kw = 1, .stride = {1, 1}, .dilation = {1, 1},
     .groups = 1, .bias = true},
    {.n = 2, .ic = 16, .ih = 21, .iw = 30, .oc = 101, .kh = 1, .kw = 1, .stride = {1, 1}, .dilation = {1, 1},
     .groups = 1, .bias = true}, /* weights that stay near */
    {.n = 1, .ic = 1024, .ih = 4, .iw = 5, .oc = 40, .kh = 1, .kw = 1, .stride = {1, 1}, .dilation = {1, 1},
     .groups = 1}, /* pixels in one set of the cache */
    {.n = 1, .ic = 16, .ih = 440, .iw = 450, .oc = 16, .kh = 3, .kw = 3, .stride = {1, 1}, .dilation = {1, 1},
     .padding = {1, 1, 1, 1}, .groups = 16}, /* more than the caches hold */
    {.n = 1, .ic = 200, .ih = 5, .iw = 6, .oc = 150, .kh = 3, .kw = 3, .stride = {2, 2}, .dilation = {1, 1},
     .padding = {1, 1, 1, 1}, .groups = 1, .bias = true}, /* more weights than pixels */
    {.transposed = true, .n = 2, .ic = 40, .ih = 14, .iw = 14, .oc = 24, .kh = 4, .kw = 4, .stride = {2, 2},
     .dilation = {1, 1}, .padding = {1, 1, 1, 1}, .groups = 1, .bias = true},
    {.transposed = true, .n = 1, .ic = 6, .ih = 5, .iw = 5, .oc = 9, .kh = 2, .kw = 3, .stride = {5, 4},
     .dilation = {1, 1}, .output_padding = {4, 3}, .groups = 3, .bias = true},
    {.transposed = true, .n = 1, .ic = 5, .ih = 4, .iw = 4, .oc = 4, .kh = 3, .kw = 3, .stride = {2, 2},
     .dilation = {3, 3}, .output_padding = {2, 2}, .groups = 1},
    {.n = 1, .ic = 18, .ih = 6, .iw = 5, .oc = 20, .kh = 3, .kw = 2, .stride = {1, 2}, .dilation = {2, 1},
     .padding = {1, 0, 2, 3}, .groups = 2, .bias = true, .weights_are_input = true},
    {.transposed = true, .n = 1, .ic = 18, .ih = 6, .iw = 5, .oc = 20, .kh = 3, .kw = 2, .stride = {1, 2},
     .dilation = {2, 1}, .padding = {1, 0, 2, 3}, .groups = 2, .bias = true, .weights_are_input = true},
};
/* clang-format on */

#define LARGE_CASES (sizeof large_cases / sizeof large_cases[0])

static void agrees_on_large_shapes(void)
{
    for (size_t i = 0; i < LARGE_CASES; i++) check_case(&large_cases[i]);
}

static void has_the_same_bits_at_any_thread_count(void)
{
    for (size_t i = 0; i < LARGE_CASES; i++) {
        const node_case node = node_of(&large_cases[i]);
        node_check_threads(&node);
    }
}

static void has_the_gradients_of_central_differences(void)
{
    /* clang-format off */
    static const conv_case cases[] = {
        {.n = 2, .ic = 4, .ih = 5, .iw = 6, .oc = 6, .kh = 3, .kw = 2, .stride = {2, 1}, .dilation = {1, 2},
         .padding = {1, 0, 2, 1}, .groups = 2, .bias = true},
        {.n = 1, .ic = 3, .ih = 4, .iw = 4, .oc = 3, .kh = 3, .kw = 3, .stride = {1, 1}, .dilation = {1, 1},
         .padding = {1, 1, 1, 1}, .groups = 3, .bias = true},
        {.transposed = true, .n = 2, .ic = 4, .ih = 3, .iw = 4, .oc = 6, .kh = 3, .kw = 2, .stride = {2, 3},
         .dilation = {1, 2}, .padding = {1, 0, 0, 1}, .output_padding = {1, 2}, .groups = 2, .bias = true},
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const node_case node = node_of(&cases[i]);
        node_check_gradient(&node);
    }
}

/* A sum by hand: one channel, 2x2 kernel, one pixel of padding at the top only. */
static void computes_a_known_result(void)
{
    const conv_case c = {.n = 1,
                         .ic = 1,
                         .ih = 2,
                         .iw = 3,
                         .oc = 1,
                         .kh = 2,
                         .kw = 2,
                         .stride = {1, 1},
                         .dilation = {1, 1},
                         .padding = {1, 0, 0, 0},
                         .groups = 1,
                         .bias = true};
    const float x[] = {1, 2, 3, 4, 5, 6}, w[] = {1, 10, 100, 1000}, b[] = {0.5f};
    const double y[] = {2100.5, 3200.5, 5421.5, 6532.5};
    const node_case node = node_of(&c);
    for (int reference = 0; reference < 2; reference++) {
        node_run run;
        REQUIRE(node_build(&node, CNN_FLOAT32, reference == 1, &run) == CNN_OK);
        memcpy(run.src[0].data, x, sizeof x);
        memcpy(run.src[1].data, w, sizeof w);
        memcpy(run.src[2].data, b, sizeof b);
        CHECK_INT(cnn_context_forward(run.context), CNN_OK);
        for (int i = 0; i < 4; i++) CHECK_NEAR(node_get(CNN_FLOAT32, run.dst.data, i), y[i], 0.0);
        node_release(&run);
    }
}

/* ---- corners ----------------------------------------------------------------------------------------------------- */

static void takes_an_empty_batch(void)
{
    conv_case c = {.n = 0,
                   .ic = 3,
                   .ih = 5,
                   .iw = 5,
                   .oc = 4,
                   .kh = 3,
                   .kw = 3,
                   .stride = {2, 2},
                   .dilation = {1, 1},
                   .groups = 1,
                   .bias = true};
    for (int direction = 0; direction < 2; direction++) {
        c.transposed = direction == 1;
        const node_case node = node_of(&c);
        node_run run;
        REQUIRE(node_build(&node, CNN_FLOAT32, false, &run) == CNN_OK);
        CHECK_INT(run.dst.shape.dim[0], 0);
        CHECK_INT(run.dst.shape.dim[2], c.transposed ? 11 : 2);
        CHECK_INT(node_compute(&node, &run, 1), CNN_OK);
        for (int64_t i = 0; i < run.src[1].count; i++) CHECK_NEAR(node_get(CNN_FLOAT32, run.src[1].diff, i), 0.5, 0.0);
        node_release(&run);
    }
}

static void passes_nan_on(void)
{
    const conv_case c = {.n = 1,
                         .ic = 17,
                         .ih = 3,
                         .iw = 3,
                         .oc = 19,
                         .kh = 3,
                         .kw = 3,
                         .stride = {1, 1},
                         .dilation = {1, 1},
                         .padding = {1, 1, 1, 1},
                         .groups = 1,
                         .bias = true};
    const node_case node = node_of(&c);
    node_run run;
    REQUIRE(node_build(&node, CNN_FLOAT32, false, &run) == CNN_OK);
    node_prepare(&node, &run, 1);
    ((float *)run.src[0].data)[4 * 17 + 16] = NAN; /* the middle pixel's last channel */
    CHECK_INT(cnn_context_forward(run.context), CNN_OK);
    for (int64_t i = 0; i < run.dst.count; i++) CHECK(isnan(node_get(CNN_FLOAT32, run.dst.data, i)));
    node_release(&run);
}

static void check_refused(const conv_case *c, const char *message)
{
    const node_case node = node_of(c);
    node_check_refused(&node, CNN_INVALID_VALUE, message);
}

static void refuses_bad_arguments(void)
{
    const conv_case good = {.n = 1,
                            .ic = 4,
                            .ih = 5,
                            .iw = 5,
                            .oc = 6,
                            .kh = 3,
                            .kw = 3,
                            .stride = {1, 1},
                            .dilation = {1, 1},
                            .groups = 1,
                            .bias = true};
    for (int direction = 0; direction < 2; direction++) {
        conv_case c = good;
        c.transposed = direction == 1;
        const conv_case base = c;
        c.stride[1] = 0;
        check_refused(&c, "stride: got 0");
        c.stride[1] = INT64_MAX;
        check_refused(&c, "stride: got 9223372036854775807");
        c = base;
        c.dilation[0] = -1;
        check_refused(&c, "dilation: got -1");
        c = base;
        c.padding[3] = -1;
        check_refused(&c, "padding: got -1");
        c.padding[3] = INT64_MAX;
        check_refused(&c, "padding: got 9223372036854775807");
        c = base;
        c.kh = 0;
        check_refused(&c, "kernel_size: got 0");
        c = base;
        c.ih = 0;
        check_refused(&c, "x: got shape (1, 4, 0, 5)");
        c = base;
        c.padding[0] = c.padding[2] = INT32_MAX;
        c.padding[1] = c.padding[3] = INT32_MAX;
        if (!c.transposed) check_refused(&c, "too large");
    }
    conv_case c = good;
    c.kh = 6;
    check_refused(
        &c, "kernel_size: got (6, 3), with dilation a window of (6, 3), expected at most the padded input's (5, 5)");
    c = good;
    c.dilation[1] = INT32_MAX;
    check_refused(&c, "window of (3, 4294967295)");
    c = good;
    c.transposed = true;
    c.output_padding[0] = 1;
    check_refused(&c, "output_padding: got 1, expected less than the larger of stride 1 and dilation 1");
    c.output_padding[0] = 0;
    c.padding[0] = 7;
    check_refused(&c, "padding: got (7, 0, 0, 0), which leaves an output of (0, 7)");
    c = good;
    c.transposed = true;
    c.stride[0] = c.stride[1] = c.dilation[0] = c.dilation[1] = INT32_MAX;
    check_refused(&c, "too large");
}

/* Shapes that a case cannot express: sources that do not fit each other. */
static void refuses_sources_that_do_not_fit(void)
{
    static const struct {
        cnn_op op;
        cnn_shape x, weight, bias;
        int64_t groups;
        const char *message;
    } cases[] = {
        {CNN_OP_CONV2D, {3, {4, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {6}}, 1, "x: got shape (4, 5, 5), expected 4"},
        {CNN_OP_CONV2D, {4, {1, 4, 5, 5}}, {3, {6, 4, 3}}, {1, {6}}, 1, "weight: got shape (6, 4, 3), expected 4"},
        {CNN_OP_CONV2D, {4, {1, 5, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {6}}, 1, "in_channels: got 5"},
        {CNN_OP_CONV2D, {4, {1, 8, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {6}}, 0, "groups: got 0"},
        {CNN_OP_CONV2D,
         {4, {1, 16, 5, 5}},
         {4, {6, 4, 3, 3}},
         {1, {6}},
         4,
         "groups: got 4, expected a divisor of out_channels = 6"},
        {CNN_OP_CONV2D, {4, {1, 4, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {5}}, 1, "bias: got shape (5,), expected (6,)"},
        {CNN_OP_CONV2D, {4, {1, 4, 5, 5}}, {4, {0, 4, 3, 3}}, {1, {0}}, 1, "weight: got shape (0, 4, 3, 3)"},
        {CNN_OP_CONV_TRANSPOSE2D, {4, {1, 5, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {4}}, 1, "in_channels: got 5"},
        {CNN_OP_CONV_TRANSPOSE2D,
         {4, {1, 6, 5, 5}},
         {4, {6, 4, 3, 3}},
         {1, {6}},
         2,
         "bias: got shape (6,), expected (8,)"},
        {CNN_OP_CONV_TRANSPOSE2D,
         {4, {1, 6, 5, 5}},
         {4, {6, 4, 3, 3}},
         {1, {4}},
         4,
         "groups: got 4, expected a divisor of in_channels = 6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const node_case node = {
            .op = cases[i].op,
            .attributes = {.conv = {.stride = {1, 1}, .dilation = {1, 1}, .groups = cases[i].groups}},
            .num_sources = 3,
            .src = {{.kind = NODE_INPUT, .shape = cases[i].x},
                    {.kind = NODE_PARAMETER, .shape = cases[i].weight},
                    {.kind = NODE_PARAMETER, .shape = cases[i].bias}},
        };
        node_check_refused(&node, CNN_INVALID_VALUE, cases[i].message);
    }
}

static void refuses_what_is_no_activation(void)
{
    const cnn_shape shape = {4, {1, 1, 3, 3}};
    node_case node = {
        .op = CNN_OP_CONV2D,
        .attributes = {.conv = {.stride = {1, 1}, .dilation = {1, 1}, .groups = 1}},
        .num_sources = 2,
        .src = {{.kind = NODE_CLASSES, .shape = shape}, {.kind = NODE_PARAMETER, .shape = shape}},
    };
    node_check_refused(&node, CNN_INVALID_TYPE, "x: got int64, expected float32");
    node.src[0].kind = NODE_PARAMETER;
    node_check_refused(&node, CNN_UNSUPPORTED, "x: got a parameter");
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(computes_a_known_result),
        TEST(agrees_on_random_shapes),
        TEST(agrees_on_large_shapes),
        TEST(has_the_same_bits_at_any_thread_count),
        TEST(has_the_gradients_of_central_differences),
        TEST(takes_an_empty_batch),
        TEST(passes_nan_on),
        TEST(refuses_bad_arguments),
        TEST(refuses_sources_that_do_not_fit),
        TEST(refuses_what_is_no_activation),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
