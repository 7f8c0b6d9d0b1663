/* Convolution and transposed convolution: every path against the reference, the reference against central differences,
 * bits against the thread count, and what is refused. */
#include <stdint.h>
#include <stdlib.h>

#include "base/shape.h"
#include "cnn_core.h"
#include "test.h"

typedef struct conv_case {
    bool transposed;
    int64_t n, ic, ih, iw, oc, kh, kw;
    int64_t stride[2], dilation[2], padding[4], output_padding[2], groups;
    bool bias;
    bool weights_are_input; /* then they lie channels-last */
} conv_case;

enum { SRC_TENSOR, WEIGHTS, BIAS, DST, TENSORS };

/* A one-node graph with its memory. All numbers are of `dtype`. */
typedef struct conv_run {
    cnn_dtype dtype;
    cnn_shape shape[TENSORS];
    int64_t count[TENSORS]; /* 0 for a bias that is not there */
    void *data[TENSORS], *diff[TENSORS];
    cnn_context *context;
    cnn_plan *plan;
    bool ready;
} conv_run;

/* ---- numbers ---------------------------------------------------------------------------------------------------------- */

static uint64_t random_state = 1;

static uint32_t random_bits(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 33);
}

static int64_t random_between(int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits() % (uint32_t)(high - low + 1));
}

static double get(const conv_run *run, const void *from, int64_t i)
{
    return run->dtype == CNN_FLOAT64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

static void set(const conv_run *run, void *to, int64_t i, double value)
{
    if (run->dtype == CNN_FLOAT64)
        ((double *)to)[i] = value;
    else
        ((float *)to)[i] = (float)value;
}

static void fill(const conv_run *run, int tensor, void *to, double value)
{
    for (int64_t i = 0; i < run->count[tensor]; i++) set(run, to, i, value);
}

static void fill_random(const conv_run *run, int tensor, void *to)
{
    for (int64_t i = 0; i < run->count[tensor]; i++) set(run, to, i, (double)random_bits() / 1073741824.0 - 1.0);
}

/* ---- one run ----------------------------------------------------------------------------------------------------------- */

static cnn_status build(const conv_case *c, cnn_dtype dtype, bool reference, conv_run *run)
{
    memset(run, 0, sizeof *run);
    run->dtype = dtype;
    run->shape[SRC_TENSOR] = (cnn_shape){4, {c->n, c->ic, c->ih, c->iw}};
    run->shape[WEIGHTS] = c->transposed ? (cnn_shape){4, {c->ic, c->oc / c->groups, c->kh, c->kw}}
                                        : (cnn_shape){4, {c->oc, c->ic / c->groups, c->kh, c->kw}};
    run->shape[BIAS] = (cnn_shape){1, {c->oc}};
    cnn_attributes attributes = {0};
    for (int i = 0; i < 2; i++) {
        attributes.conv.stride[i] = c->stride[i];
        attributes.conv.dilation[i] = c->dilation[i];
        attributes.conv.output_padding[i] = c->output_padding[i];
    }
    for (int i = 0; i < 4; i++) attributes.conv.padding[i] = c->padding[i];
    attributes.conv.groups = c->groups;

    cnn_graph *graph = NULL;
    cnn_value value[TENSORS] = {CNN_NONE, CNN_NONE, CNN_NONE, CNN_NONE};
    const cnn_plan_options options = {.backward = 1, .repeat = 1, .reference = reference};
    cnn_status status = cnn_graph_create(dtype, &graph);
    if (status == CNN_OK) status = cnn_graph_input(graph, dtype, &run->shape[SRC_TENSOR], &value[SRC_TENSOR]);
    if (status == CNN_OK)
        status = c->weights_are_input ? cnn_graph_input(graph, dtype, &run->shape[WEIGHTS], &value[WEIGHTS])
                                      : cnn_graph_parameter(graph, &run->shape[WEIGHTS], &value[WEIGHTS]);
    if (status == CNN_OK && c->bias) status = cnn_graph_parameter(graph, &run->shape[BIAS], &value[BIAS]);
    if (status == CNN_OK)
        status = cnn_graph_apply(graph, c->transposed ? CNN_OP_CONV_TRANSPOSE2D : CNN_OP_CONV2D, &attributes, 3, value,
                                 &value[DST]);
    if (status == CNN_OK) status = cnn_graph_shape(graph, value[DST], &run->shape[DST]);
    if (status == CNN_OK) status = cnn_graph_output(graph, value[DST]);
    for (int t = SRC_TENSOR; t <= BIAS; t++)
        if (status == CNN_OK && value[t] != CNN_NONE) status = cnn_graph_require_gradient(graph, value[t]);
    if (status == CNN_OK) status = cnn_plan_create(graph, &options, &run->plan);
    cnn_graph_free(graph);
    if (status != CNN_OK) return status;
    status = cnn_context_create(run->plan, &run->context);
    if (status != CNN_OK) return status;

    for (int t = 0; t < TENSORS; t++) {
        if (value[t] == CNN_NONE) continue;
        run->count[t] = cnn_shape_count(&run->shape[t]);
        const size_t bytes = cnn_tensor_bytes(&run->shape[t], dtype);
        run->data[t] = malloc(bytes + 1);
        run->diff[t] = malloc(bytes + 1);
        status = cnn_context_bind(run->context, value[t], run->data[t], run->diff[t]);
        if (status != CNN_OK) return status;
    }
    run->ready = true;
    return CNN_OK;
}

static void release(conv_run *run)
{
    cnn_context_free(run->context);
    cnn_plan_free(run->plan);
    for (int t = 0; t < TENSORS; t++) {
        free(run->data[t]);
        free(run->diff[t]);
    }
}

static cnn_status run_once(conv_run *run)
{
    const cnn_status status = cnn_context_forward(run->context);
    return status == CNN_OK ? cnn_context_backward(run->context) : status;
}

/* Runs both passes on numbers drawn from `seed`. Before, the context's memory is filled with NaN by a run on NaN, and so
 * is everything that the passes must write; what they must add to starts at `before`. */
static cnn_status compute(conv_run *run, uint64_t seed, double before)
{
    for (int t = 0; t < TENSORS; t++) {
        fill(run, t, run->data[t], NAN);
        fill(run, t, run->diff[t], NAN);
    }
    cnn_status status = run_once(run);
    random_state = seed;
    for (int t = SRC_TENSOR; t <= BIAS; t++) fill_random(run, t, run->data[t]);
    fill_random(run, DST, run->diff[DST]);
    fill(run, WEIGHTS, run->diff[WEIGHTS], before);
    fill(run, BIAS, run->diff[BIAS], before);
    fill(run, SRC_TENSOR, run->diff[SRC_TENSOR], NAN);
    fill(run, DST, run->data[DST], NAN);
    if (status == CNN_OK) status = run_once(run);
    return status;
}

/* ---- against the reference ---------------------------------------------------------------------------------------------- */

static void print_case(const conv_case *c)
{
    fprintf(stderr,
            "  in %s n=%d %dx%dx%d -> %d, kernel %dx%d stride %d,%d dilation %d,%d padding %d,%d,%d,%d "
            "output_padding %d,%d groups %d bias %d\n",
            c->transposed ? "conv_transpose2d" : "conv2d", (int)c->n, (int)c->ic, (int)c->ih, (int)c->iw, (int)c->oc,
            (int)c->kh, (int)c->kw, (int)c->stride[0], (int)c->stride[1], (int)c->dilation[0], (int)c->dilation[1],
            (int)c->padding[0], (int)c->padding[1], (int)c->padding[2], (int)c->padding[3], (int)c->output_padding[0],
            (int)c->output_padding[1], (int)c->groups, c->bias);
}

/* Within the rounding error that a sum of `terms` products of numbers below 1 may have. */
static bool agree(const char *what, const conv_run *a, const void *from_a, const void *from_b, int tensor, double terms)
{
    const double tolerance = 4e-6 * sqrt(terms + 1.0);
    for (int64_t i = 0; i < a->count[tensor]; i++) {
        const double x = get(a, from_a, i), y = get(a, from_b, i);
        if (fabs(x - y) <= tolerance) continue;
        fprintf(stderr, "%s[%lld]: %g, reference %g, tolerance %g\n", what, (long long)i, x, y, tolerance);
        return false;
    }
    return true;
}

static void check_case(const conv_case *c)
{
    conv_run fast, reference;
    bool ok = build(c, CNN_FLOAT32, false, &fast) == CNN_OK && build(c, CNN_FLOAT32, true, &reference) == CNN_OK;
    if (!ok) fprintf(stderr, "%s\n", cnn_last_error());
    if (ok) {
        const cnn_image src = cnn_image_of(&fast.shape[SRC_TENSOR]), dst = cnn_image_of(&fast.shape[DST]);
        const double taps = (double)(c->kh * c->kw * (c->ic + c->oc)) / (double)c->groups;
        const double pixels = (double)(src.n * (src.h * src.w + dst.h * dst.w));
        ok = compute(&fast, 7, 0.5) == CNN_OK && compute(&reference, 7, 0.5) == CNN_OK &&
             agree("dst", &fast, fast.data[DST], reference.data[DST], DST, taps) &&
             agree("diff_src", &fast, fast.diff[SRC_TENSOR], reference.diff[SRC_TENSOR], SRC_TENSOR, taps) &&
             agree("diff_weights", &fast, fast.diff[WEIGHTS], reference.diff[WEIGHTS], WEIGHTS, pixels) &&
             agree("diff_bias", &fast, fast.diff[BIAS], reference.diff[BIAS], BIAS, pixels);
        release(&reference);
        release(&fast);
    }
    if (!ok) print_case(c);
    CHECK(ok);
}

static double macs(const conv_case *c, int64_t pixels)
{
    return (double)(c->n * pixels) * (double)(c->oc * c->ic / c->groups) * (double)(c->kh * c->kw);
}

static conv_case draw(bool transposed)
{
    for (;;) {
        conv_case c = {.transposed = transposed, .bias = random_bits() % 2 == 0};
        const int64_t most[] = {3, 20, 70};
        const int64_t channels = most[random_between(0, 2)];
        c.n = random_between(1, 3);
        c.ic = random_between(1, channels);
        c.oc = random_between(1, channels);
        c.groups = 1;
        if (random_bits() % 3 == 0) {
            c.groups = random_between(1, 6);
            c.ic = c.groups * random_between(1, 1 + 12 / c.groups);
            c.oc = c.groups * random_between(1, 1 + 24 / c.groups);
        }
        if (random_bits() % 6 == 0) c.groups = c.oc = c.ic; /* depthwise */
        c.ih = random_between(1, 12);
        c.iw = random_between(1, 12);
        c.kh = random_between(1, random_bits() % 2 ? 3 : 7);
        c.kw = random_between(1, random_bits() % 2 ? 3 : 7);
        for (int i = 0; i < 2; i++) {
            c.stride[i] = random_between(1, random_bits() % 2 ? 1 : 4);
            c.dilation[i] = random_between(1, random_bits() % 2 ? 1 : 3);
            const int64_t limit = c.stride[i] > c.dilation[i] ? c.stride[i] : c.dilation[i];
            c.output_padding[i] = transposed ? random_between(0, limit - 1) : 0;
        }
        for (int i = 0; i < 4; i++) c.padding[i] = random_bits() % 2 ? 0 : random_between(0, 7);
        int64_t size[2];
        for (int i = 0; i < 2; i++) {
            const int64_t in = i == 0 ? c.ih : c.iw, window = c.dilation[i] * ((i == 0 ? c.kh : c.kw) - 1) + 1;
            const int64_t pad = c.padding[i] + c.padding[2 + i];
            size[i] = transposed ? (in - 1) * c.stride[i] + window + c.output_padding[i] - pad
                                 : (in + pad - window < 0 ? 0 : (in + pad - window) / c.stride[i] + 1);
        }
        if (size[0] < 1 || size[1] < 1) continue;
        if (macs(&c, transposed ? c.ih * c.iw : size[0] * size[1]) < 3e5) return c;
    }
}

static void agrees_with_the_reference(void)
{
    for (int i = 0; i < 400; i++) {
        random_state = (uint64_t)(i + 1) * 977;
        const conv_case c = draw(i % 2 == 1);
        check_case(&c);
    }
}

/* Shapes that the draw does not reach: whole panels and blocks, several tasks, pointwise, large windows. */
static const conv_case large_cases[] = {
    {.n = 2, .ic = 32, .ih = 28, .iw = 28, .oc = 32, .kh = 3, .kw = 3, .stride = {1, 1}, .dilation = {1, 1},
     .padding = {1, 1, 1, 1}, .groups = 1, .bias = true},
    {.n = 1, .ic = 48, .ih = 14, .iw = 14, .oc = 100, .kh = 1, .kw = 1, .stride = {1, 1}, .dilation = {1, 1}, .groups = 1},
    {.n = 3, .ic = 18, .ih = 20, .iw = 20, .oc = 21, .kh = 1, .kw = 1, .stride = {1, 1}, .dilation = {1, 1}, .groups = 3},
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
    {.n = 1, .ic = 256, .ih = 7, .iw = 7, .oc = 300, .kh = 1, .kw = 1, .stride = {1, 1}, .dilation = {1, 1}, .groups = 1,
     .bias = true},
    {.n = 1, .ic = 200, .ih = 5, .iw = 6, .oc = 150, .kh = 3, .kw = 3, .stride = {2, 2}, .dilation = {1, 1},
     .padding = {1, 1, 1, 1}, .groups = 1, .bias = true}, /* more weights than pixels */
    {.transposed = true, .n = 2, .ic = 40, .ih = 14, .iw = 14, .oc = 24, .kh = 4, .kw = 4, .stride = {2, 2},
     .dilation = {1, 1}, .padding = {1, 1, 1, 1}, .groups = 1, .bias = true},
    {.transposed = true, .n = 1, .ic = 6, .ih = 5, .iw = 5, .oc = 9, .kh = 2, .kw = 3, .stride = {5, 4}, .dilation = {1, 1},
     .output_padding = {4, 3}, .groups = 3, .bias = true},
    {.transposed = true, .n = 1, .ic = 5, .ih = 4, .iw = 4, .oc = 4, .kh = 3, .kw = 3, .stride = {2, 2},
     .dilation = {3, 3}, .output_padding = {2, 2}, .groups = 1},
    {.n = 1, .ic = 18, .ih = 6, .iw = 5, .oc = 20, .kh = 3, .kw = 2, .stride = {1, 2}, .dilation = {2, 1},
     .padding = {1, 0, 2, 3}, .groups = 2, .bias = true, .weights_are_input = true},
    {.transposed = true, .n = 1, .ic = 18, .ih = 6, .iw = 5, .oc = 20, .kh = 3, .kw = 2, .stride = {1, 2},
     .dilation = {2, 1}, .padding = {1, 0, 2, 3}, .groups = 2, .bias = true, .weights_are_input = true},
};

#define LARGE_CASES (sizeof large_cases / sizeof large_cases[0])

static void agrees_on_large_shapes(void)
{
    for (size_t i = 0; i < LARGE_CASES; i++) check_case(&large_cases[i]);
}

static void has_the_same_bits_at_any_thread_count(void)
{
    const int32_t threads = cnn_get_num_threads();
    for (size_t i = 0; i < LARGE_CASES; i++) {
        conv_run one, other;
        REQUIRE(build(&large_cases[i], CNN_FLOAT32, false, &one) == CNN_OK);
        REQUIRE(build(&large_cases[i], CNN_FLOAT32, false, &other) == CNN_OK);
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

/* ---- the reference itself ------------------------------------------------------------------------------------------------ */

/* The derivative of sum(dst * diff_dst), by central differences: exact but for rounding, since dst is linear in each. */
static double difference(conv_run *run, int tensor, int64_t i)
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
    static const conv_case cases[] = {
        {.n = 2, .ic = 4, .ih = 5, .iw = 6, .oc = 6, .kh = 3, .kw = 2, .stride = {2, 1}, .dilation = {1, 2},
         .padding = {1, 0, 2, 1}, .groups = 2, .bias = true},
        {.n = 1, .ic = 3, .ih = 4, .iw = 4, .oc = 3, .kh = 3, .kw = 3, .stride = {1, 1}, .dilation = {1, 1},
         .padding = {1, 1, 1, 1}, .groups = 3, .bias = true},
        {.transposed = true, .n = 2, .ic = 4, .ih = 3, .iw = 4, .oc = 6, .kh = 3, .kw = 2, .stride = {2, 3},
         .dilation = {1, 2}, .padding = {1, 0, 0, 1}, .output_padding = {1, 2}, .groups = 2, .bias = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        conv_run run;
        REQUIRE(build(&cases[i], CNN_FLOAT64, false, &run) == CNN_OK);
        CHECK_INT(compute(&run, 5, 0.0), CNN_OK);
        for (int tensor = SRC_TENSOR; tensor <= BIAS; tensor++)
            for (int64_t j = 0; j < run.count[tensor]; j++)
                CHECK_NEAR(get(&run, run.diff[tensor], j), difference(&run, tensor, j), 1e-11);
        release(&run);
    }
}

/* A sum by hand: one channel, 2x2 kernel, one pixel of padding at the top only. */
static void computes_a_known_result(void)
{
    const conv_case c = {.n = 1, .ic = 1, .ih = 2, .iw = 3, .oc = 1, .kh = 2, .kw = 2, .stride = {1, 1},
                         .dilation = {1, 1}, .padding = {1, 0, 0, 0}, .groups = 1, .bias = true};
    const float x[] = {1, 2, 3, 4, 5, 6}, w[] = {1, 10, 100, 1000}, b[] = {0.5f};
    const float y[] = {2100.5f, 3200.5f, 5421.5f, 6532.5f};
    for (int reference = 0; reference < 2; reference++) {
        conv_run run;
        REQUIRE(build(&c, CNN_FLOAT32, reference, &run) == CNN_OK);
        memcpy(run.data[SRC_TENSOR], x, sizeof x);
        memcpy(run.data[WEIGHTS], w, sizeof w);
        memcpy(run.data[BIAS], b, sizeof b);
        CHECK_INT(cnn_context_forward(run.context), CNN_OK);
        for (int i = 0; i < 4; i++) CHECK_NEAR(((float *)run.data[DST])[i], y[i], 0.0);
        release(&run);
    }
}

/* ---- corners -------------------------------------------------------------------------------------------------------------- */

static void takes_an_empty_batch(void)
{
    conv_case c = {.n = 0, .ic = 3, .ih = 5, .iw = 5, .oc = 4, .kh = 3, .kw = 3, .stride = {2, 2}, .dilation = {1, 1},
                   .groups = 1, .bias = true};
    for (int direction = 0; direction < 2; direction++) {
        c.transposed = direction == 1;
        conv_run run;
        REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
        CHECK_INT(run.shape[DST].dim[0], 0);
        CHECK_INT(run.shape[DST].dim[2], c.transposed ? 11 : 2);
        CHECK_INT(compute(&run, 1, 0.5), CNN_OK);
        for (int64_t i = 0; i < run.count[WEIGHTS]; i++) CHECK_NEAR(get(&run, run.diff[WEIGHTS], i), 0.5, 0.0);
        release(&run);
    }
}

static void passes_nan_on(void)
{
    const conv_case c = {.n = 1, .ic = 17, .ih = 3, .iw = 3, .oc = 19, .kh = 3, .kw = 3, .stride = {1, 1},
                         .dilation = {1, 1}, .padding = {1, 1, 1, 1}, .groups = 1, .bias = true};
    conv_run run;
    REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    CHECK_INT(compute(&run, 1, 0.0), CNN_OK);
    ((float *)run.data[SRC_TENSOR])[4 * 17 + 16] = NAN; /* the middle pixel's last channel */
    CHECK_INT(cnn_context_forward(run.context), CNN_OK);
    for (int64_t i = 0; i < run.count[DST]; i++) CHECK(isnan(get(&run, run.data[DST], i)));
    release(&run);
}

static void check_refused(const conv_case *c, const char *message)
{
    conv_run run;
    CHECK_INT(build(c, CNN_FLOAT32, false, &run), CNN_INVALID_VALUE);
    if (strstr(cnn_last_error(), message) == NULL) fprintf(stderr, "message: %s\n", cnn_last_error());
    CHECK(strstr(cnn_last_error(), message) != NULL);
    release(&run);
}

static void refuses_bad_arguments(void)
{
    const conv_case good = {.n = 1, .ic = 4, .ih = 5, .iw = 5, .oc = 6, .kh = 3, .kw = 3, .stride = {1, 1},
                            .dilation = {1, 1}, .groups = 1, .bias = true};
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
    check_refused(&c, "kernel_size: got (6, 3), with dilation a window of (6, 3), expected at most the padded input's (5, 5)");
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
        cnn_shape input, weight, bias;
        int64_t groups;
        const char *message;
    } cases[] = {
        {CNN_OP_CONV2D, {3, {4, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {6}}, 1, "x: got shape (4, 5, 5), expected 4"},
        {CNN_OP_CONV2D, {4, {1, 4, 5, 5}}, {3, {6, 4, 3}}, {1, {6}}, 1, "weight: got shape (6, 4, 3), expected 4"},
        {CNN_OP_CONV2D, {4, {1, 5, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {6}}, 1, "in_channels: got 5"},
        {CNN_OP_CONV2D, {4, {1, 8, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {6}}, 0, "groups: got 0"},
        {CNN_OP_CONV2D, {4, {1, 16, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {6}}, 4, "groups: got 4, expected a divisor of the 6"},
        {CNN_OP_CONV2D, {4, {1, 4, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {5}}, 1, "bias: got shape (5,), expected (6,)"},
        {CNN_OP_CONV2D, {4, {1, 4, 5, 5}}, {4, {0, 4, 3, 3}}, {1, {0}}, 1, "weight: got shape (0, 4, 3, 3)"},
        {CNN_OP_CONV_TRANSPOSE2D, {4, {1, 5, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {4}}, 1, "in_channels: got 5"},
        {CNN_OP_CONV_TRANSPOSE2D, {4, {1, 6, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {6}}, 2, "bias: got shape (6,), expected (8,)"},
        {CNN_OP_CONV_TRANSPOSE2D, {4, {1, 6, 5, 5}}, {4, {6, 4, 3, 3}}, {1, {4}}, 4, "groups: got 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const cnn_attributes attributes = {.conv = {.stride = {1, 1}, .dilation = {1, 1}, .groups = cases[i].groups}};
        cnn_graph *graph;
        cnn_value sources[3], dst;
        REQUIRE(cnn_graph_create(CNN_FLOAT32, &graph) == CNN_OK);
        REQUIRE(cnn_graph_input(graph, CNN_FLOAT32, &cases[i].input, &sources[0]) == CNN_OK);
        REQUIRE(cnn_graph_parameter(graph, &cases[i].weight, &sources[1]) == CNN_OK);
        REQUIRE(cnn_graph_parameter(graph, &cases[i].bias, &sources[2]) == CNN_OK);
        CHECK_INT(cnn_graph_apply(graph, cases[i].op, &attributes, 3, sources, &dst), CNN_INVALID_VALUE);
        if (strstr(cnn_last_error(), cases[i].message) == NULL) fprintf(stderr, "message: %s\n", cnn_last_error());
        CHECK(strstr(cnn_last_error(), cases[i].message) != NULL);
        cnn_graph_free(graph);
    }
}

static void refuses_integers(void)
{
    const cnn_attributes attributes = {.conv = {.stride = {1, 1}, .dilation = {1, 1}, .groups = 1}};
    const cnn_shape shape = {4, {1, 1, 3, 3}};
    cnn_graph *graph;
    cnn_value sources[2], dst;
    REQUIRE(cnn_graph_create(CNN_FLOAT32, &graph) == CNN_OK);
    REQUIRE(cnn_graph_input(graph, CNN_INT64, &shape, &sources[0]) == CNN_OK);
    REQUIRE(cnn_graph_parameter(graph, &shape, &sources[1]) == CNN_OK);
    CHECK_INT(cnn_graph_apply(graph, CNN_OP_CONV2D, &attributes, 2, sources, &dst), CNN_INVALID_TYPE);
    CHECK(strstr(cnn_last_error(), "x: got int64, expected float32") != NULL);
    cnn_graph_free(graph);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(computes_a_known_result),
        TEST(agrees_with_the_reference),
        TEST(agrees_on_large_shapes),
        TEST(has_the_same_bits_at_any_thread_count),
        TEST(has_the_gradients_of_central_differences),
        TEST(takes_an_empty_batch),
        TEST(passes_nan_on),
        TEST(refuses_bad_arguments),
        TEST(refuses_sources_that_do_not_fit),
        TEST(refuses_integers),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
