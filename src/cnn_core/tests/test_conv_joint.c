/* Both gradients of a convolution from one reading: against the two passes by themselves, to the bit for x's, on sources as they
 * are and as prologues make them; the same at any number of threads; and what a watch is shown. */
#include <stdlib.h>

#include "base/memory.h"
#include "cnn_core.h"
#include "ops/conv.h"
#include "ops/prologue.h"
#include "tests/distance.h"
#include "tests/test.h"

typedef struct joint_case {
    int64_t n, ic, h, w, oc; /* oc: 0: depthwise */
    int64_t kh, kw, stride, padding;
    bool prologue, back_prologue, adds;
    cnn_norm_activation activation; /* of both prologues */
} joint_case;

#define FOLD 2 /* of prologues */

static cnn_conv conv_of(const joint_case *c)
{
    const int64_t oc = c->oc == 0 ? c->ic : c->oc, groups = c->oc == 0 ? c->ic : 1;
    cnn_conv conv = {.n = c->n,
                     .groups = groups,
                     .ic = c->ic,
                     .ih = c->h,
                     .iw = c->w,
                     .oc = oc,
                     .oh = (c->h + 2 * c->padding - c->kh) / c->stride + 1,
                     .ow = (c->w + 2 * c->padding - c->kw) / c->stride + 1,
                     .kh = c->kh,
                     .kw = c->kw,
                     .stride = {c->stride, c->stride},
                     .dilation = {1, 1},
                     .padding = {c->padding, c->padding},
                     .weights_stride = {c->ic / groups * c->kh * c->kw, c->kh * c->kw, c->kw, 1}};
    cnn_conv_flatten(&conv);
    return conv;
}

static const cnn_conv_algorithm *algorithm_of(const joint_case *c) { return c->oc == 0 ? &cnn_conv_depthwise_rows : &cnn_conv_outer; }

static float *floats(int64_t count, int seed, float scale, float shift)
{
    float *x = cnn_aligned_alloc(cnn_float_bytes(count));
    if (x == NULL) abort();
    for (int64_t i = 0; i < count; i++) x[i] = shift + scale * (float)((i * 7919 + 31 * seed) % 2003 - 1001) / 1001.0f;
    return x;
}

typedef struct problem {
    cnn_conv conv;
    int64_t x_count, y_count, weights_count;
    float *x, *y, *src, *weights, *coefficients; /* src: with y as its diff_dst y's gradient is made of it */
    cnn_prologue prologue;
    cnn_back_prologue back_prologue;
    float *x_read, *y_read; /* what prologues make, or copies */
    float *diff_x, *diff_weights; /* as the two passes give them */
} problem;

/* Numbers of channels, repeated as the prologues want them. */
static float *repeated(float **cursor, int64_t channels, int seed, float scale, float shift)
{
    float *row = *cursor;
    for (int64_t i = 0; i < FOLD * channels; i++)
        row[i] = shift + scale * (float)((i % channels * 7919 + 31 * seed) % 2003 - 1001) / 1001.0f;
    *cursor += FOLD * channels;
    return row;
}

static cnn_prologue prologue_of(const joint_case *c, int64_t channels, float **cursor)
{
    cnn_prologue p = {.channels = channels, .fold = FOLD, .activation = c->activation, .slope = 0.1f};
    p.mean = repeated(cursor, channels, 1, 0.3f, 0.0f);
    p.scale = repeated(cursor, channels, 2, 2.0f, 3.0f);
    p.shift = repeated(cursor, channels, 3, 1.0f, 1.0f);
    return p;
}

static void run(const cnn_conv_call *call, const cnn_conv_algorithm *algorithm)
{

    cnn_conv_call with = *call;
    const size_t bytes = algorithm->workspace(call->conv, call->pass, call->kernels, call->threads);
    with.workspace = cnn_aligned_alloc(bytes + 1);
    if (with.workspace == NULL) abort();
    memset(with.workspace, 0xff, bytes);
    algorithm->run(&with);
    cnn_aligned_free(with.workspace);
}

static float first_diff_x(const joint_case *c, int64_t i) { return c->adds ? (float)(i % 17) - 8.0f : NAN; }

static void make(const joint_case *c, problem *p)
{
    const cnn_kernels *kernels = cnn_kernels_get();
    *p = (problem){.conv = conv_of(c)};
    const cnn_conv *conv = &p->conv;
    p->x_count = conv->n * conv->ih * conv->iw * conv->ic;
    p->y_count = conv->n * conv->oh * conv->ow * conv->oc;
    p->weights_count = conv->oc * (conv->ic / conv->groups) * conv->kh * conv->kw;
    p->x = floats(p->x_count, 1, 1.0f, 0.0f);
    p->y = floats(p->y_count, 2, 1.0f, 0.0f);
    p->src = floats(p->y_count, 3, 1.0f, 0.0f);
    p->weights = floats(p->weights_count, 4, 1.0f, 0.0f);
    p->coefficients = floats(8 * FOLD * (conv->ic + conv->oc), 5, 1.0f, 0.0f);
    p->x_read = floats(p->x_count, 1, 1.0f, 0.0f);
    p->y_read = floats(p->y_count, 2, 1.0f, 0.0f);
    p->diff_x = floats(p->x_count, 0, 0.0f, 0.0f);
    p->diff_weights = floats(p->weights_count, 0, 0.0f, 0.5f);
    float *cursor = p->coefficients;
    p->prologue = prologue_of(c, conv->ic, &cursor);
    p->back_prologue = (cnn_back_prologue){.forward = prologue_of(c, conv->oc, &cursor), .src = p->src, .diff_dst = p->y};
    p->back_prologue.b = repeated(&cursor, conv->oc, 6, 0.5f, 0.0f);
    p->back_prologue.c = repeated(&cursor, conv->oc, 7, 0.5f, 0.0f);
    if (c->prologue) cnn_prologue_apply(&p->prologue, kernels, p->x_count / conv->ic, p->x, p->x_read);
    if (c->back_prologue) cnn_back_prologue_apply(&p->back_prologue, kernels, 0, p->y_count / conv->oc, p->y_read);
    cnn_conv_call call = {.pass = CNN_CONV_BACKWARD_WEIGHTS,
                          .conv = conv,
                          .kernels = kernels,
                          .threads = 1,
                          .x = p->x_read,
                          .y = p->y_read,
                          .weights = p->weights,
                          .out = p->diff_weights};
    run(&call, algorithm_of(c));
    for (int64_t i = 0; i < p->x_count; i++) p->diff_x[i] = first_diff_x(c, i);
    call.pass = CNN_CONV_BACKWARD_DATA;
    call.out = p->diff_x;
    if (c->adds) call.addend = call.out;
    run(&call, c->oc == 0 ? &cnn_conv_depthwise_rows : &cnn_conv_direct);
}

static void release(problem *p)
{
    float *const all[] = {p->x, p->y, p->src, p->weights, p->coefficients, p->x_read, p->y_read, p->diff_x, p->diff_weights};
    for (size_t i = 0; i < TEST_COUNT(all); i++) cnn_aligned_free(all[i]);
}

/* ---- a watch ----------------------------------------------------------------------------------------------------- */

#define MOST_PIECES 64

/* Each piece is one thread's at a time: no two touch the same numbers. */
typedef struct spy {
    const problem *p;
    const float *out;
    int64_t pieces, end[MOST_PIECES], done[MOST_PIECES];
    char *seen; /* [pixels of x] */
    bool wrong[MOST_PIECES];
} spy;

static void see(const cnn_watch *watch, const cnn_sight *sight, int32_t thread)
{
    (void)thread;
    spy *s = watch->state;
    const int64_t ic = s->p->conv.ic, piece = sight->piece, at = sight->first * ic;
    if (piece < 0 || piece >= s->pieces) abort();
    const bool follows = sight->done == s->done[piece] && (sight->done == 0 || sight->first == s->end[piece]);
    const bool all = sight->channel == 0 && sight->channels == ic;
    const bool same = memcmp(s->out + at, s->p->diff_x + at, (size_t)(sight->rows * ic) * sizeof(float)) == 0;
    if (!follows || !all || !same) s->wrong[piece] = true;
    for (int64_t i = sight->first; i < sight->first + sight->rows; i++) s->seen[i]++;
    s->end[piece] = sight->first + sight->rows;
    s->done[piece] += sight->rows;
}

static void check_seen(const spy *s)
{
    const int64_t pixels = s->p->x_count / s->p->conv.ic;
    int64_t once = 0;
    for (int64_t i = 0; i < pixels; i++) once += s->seen[i] == 1;
    CHECK_INT(once, pixels);
    for (int64_t i = 0; i < s->pieces; i++) CHECK(!s->wrong[i]);
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static void check(const joint_case *c)
{
    const cnn_conv_algorithm *algorithm = algorithm_of(c);
    problem p;
    make(c, &p);
    const cnn_conv *conv = &p.conv;
    cnn_conv joint = *conv;
    joint.prologue = c->prologue;
    joint.back_prologue = c->back_prologue;
    float *diff_x = floats(p.x_count, 0, 0.0f, 0.0f), *diff_weights = floats(p.weights_count, 0, 0.0f, 0.0f);
    float *first = floats(p.weights_count, 0, 0.0f, 0.0f);
    for (int32_t threads = 1; threads <= 4; threads++) {
        spy s = {.p = &p, .out = diff_x, .seen = calloc((size_t)(p.x_count / conv->ic), 1)};
        const cnn_watch watch = {see, &s};
        cnn_conv_call call = {.pass = CNN_CONV_BACKWARD,
                              .conv = &joint,
                              .kernels = cnn_kernels_get(),
                              .threads = threads,
                              .x = p.x,
                              .y = p.y,
                              .weights = p.weights,
                              .prologue = c->prologue ? &p.prologue : NULL,
                              .back_prologue = c->back_prologue ? &p.back_prologue : NULL,
                              .watch = threads % 2 == 0 ? &watch : NULL,
                              .out = diff_x,
                              .diff_weights = diff_weights};
        if (c->adds) call.addend = diff_x;
        s.pieces = algorithm->pieces(&joint, CNN_CONV_BACKWARD, call.kernels);
        REQUIRE(s.seen != NULL && s.pieces >= 1 && s.pieces <= MOST_PIECES);
        for (int64_t i = 0; i < p.x_count; i++) diff_x[i] = first_diff_x(c, i);
        for (int64_t i = 0; i < p.weights_count; i++) diff_weights[i] = 0.5f;
        run(&call, algorithm);
        CHECK(memcmp(diff_x, p.diff_x, (size_t)p.x_count * sizeof *diff_x) == 0);
        CHECK_NEAR(distance(p.diff_weights, diff_weights, p.weights_count), 0.0, 2e-6);
        if (call.watch != NULL) check_seen(&s);
        if (threads == 1) memcpy(first, diff_weights, (size_t)p.weights_count * sizeof *first);
        CHECK(memcmp(first, diff_weights, (size_t)p.weights_count * sizeof *first) == 0);
        free(s.seen);
    }
    cnn_aligned_free(first);
    cnn_aligned_free(diff_x);
    cnn_aligned_free(diff_weights);
    release(&p);
}

/* With either prologue and none, and activations of all kinds. */
static void check_all(const joint_case *geometry)
{
    static const cnn_norm_activation activations[] = {CNN_NORM_RELU6, CNN_NORM_LINEAR, CNN_NORM_RELU, CNN_NORM_LEAKY_RELU};
    for (int k = 0; k < 4; k++) {
        joint_case c = *geometry;
        const int before = test_failures;
        c.prologue = k % 2 == 0;
        c.back_prologue = k < 2;
        c.activation = activations[k];
        check(&c);
        if (test_failures > before)
            fprintf(stderr, "  of %d %d %dx%d to %d, %dx%d stride %d padding %d, prologues %d\n", (int)c.n, (int)c.ic, (int)c.h,
                    (int)c.w, (int)c.oc, (int)c.kh, (int)c.kw, (int)c.stride, (int)c.padding, k);
    }
}

static void depthwise(void)
{
    static const joint_case cases[] = {
        {.n = 3, .ic = 36, .h = 13, .w = 11, .kh = 3, .kw = 3, .stride = 1, .padding = 1},
        {.n = 2, .ic = 70, .h = 30, .w = 31, .kh = 3, .kw = 3, .stride = 2, .padding = 1},
        {.n = 2, .ic = 16, .h = 30, .w = 20, .kh = 5, .kw = 5, .stride = 1, .padding = 2},
        {.n = 2, .ic = 20, .h = 27, .w = 20, .kh = 5, .kw = 5, .stride = 2, .padding = 2},
        {.n = 2, .ic = 20, .h = 27, .w = 20, .kh = 3, .kw = 5, .stride = 1, .padding = 0}, /* rows behind the last seen */
        {.n = 2, .ic = 20, .h = 8, .w = 20, .kh = 3, .kw = 3, .stride = 2, .padding = 0},
        {.n = 1, .ic = 32, .h = 5, .w = 9, .kh = 3, .kw = 3, .stride = 1, .padding = 4}, /* more rows of y, some of nothing */
        {.n = 1, .ic = 32, .h = 5, .w = 9, .kh = 3, .kw = 3, .stride = 2, .padding = 4},
        {.n = 1, .ic = 640, .h = 9, .w = 64, .kh = 3, .kw = 3, .stride = 1, .padding = 1}, /* one row at a time */
        {.n = 1, .ic = 640, .h = 12, .w = 64, .kh = 3, .kw = 3, .stride = 2, .padding = 1},
        {.n = 4, .ic = 64, .h = 33, .w = 20, .kh = 1, .kw = 3, .stride = 1, .padding = 1},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) check_all(&cases[i]);
}

static void of_one_pixel(void)
{
    static const joint_case cases[] = {
        {.n = 3, .ic = 16, .h = 31, .w = 29, .oc = 96, .kh = 1, .kw = 1, .stride = 1},
        {.n = 3, .ic = 96, .h = 31, .w = 29, .oc = 24, .kh = 1, .kw = 1, .stride = 1, .adds = true},
        {.n = 2, .ic = 24, .h = 40, .w = 40, .oc = 144, .kh = 1, .kw = 1, .stride = 1},
        {.n = 2, .ic = 32, .h = 40, .w = 40, .oc = 16, .kh = 1, .kw = 1, .stride = 1, .adds = true},
        {.n = 1, .ic = 13, .h = 7, .w = 5, .oc = 21, .kh = 1, .kw = 1, .stride = 1}, /* few pixels: one share, summed in place */
        {.n = 1, .ic = 300, .h = 40, .w = 30, .oc = 130, .kh = 1, .kw = 1, .stride = 1}, /* far rows */
        {.n = 1, .ic = 130, .h = 40, .w = 30, .oc = 300, .kh = 1, .kw = 1, .stride = 1},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) check_all(&cases[i]);
}

/* Where images come from memory. */
static void joins_what_is_large(void)
{
    static const struct {
        joint_case c;
        bool joins;
    } cases[] = {
        {{.n = 16, .ic = 144, .h = 56, .w = 56, .kh = 3, .kw = 3, .stride = 1, .padding = 1}, true},
        {{.n = 1, .ic = 144, .h = 56, .w = 56, .kh = 3, .kw = 3, .stride = 1, .padding = 1}, false},
        {{.n = 16, .ic = 24, .h = 56, .w = 56, .oc = 144, .kh = 1, .kw = 1, .stride = 1}, true},
        {{.n = 1, .ic = 24, .h = 56, .w = 56, .oc = 144, .kh = 1, .kw = 1, .stride = 1}, false},
        {{.n = 16, .ic = 64, .h = 56, .w = 56, .oc = 64, .kh = 3, .kw = 3, .stride = 1, .padding = 1}, false},
        {{.n = 16, .ic = 256, .h = 56, .w = 56, .oc = 512, .kh = 1, .kw = 1, .stride = 2}, false},
        {{.n = 16, .ic = 1024, .h = 28, .w = 28, .oc = 512, .kh = 1, .kw = 1, .stride = 1}, false}, /* sums are large, too */
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        const cnn_conv conv = conv_of(&cases[i].c);
        CHECK_INT(cnn_conv_joins(&conv), cases[i].joins);
    }
}

/* The gradient of the weights of one convolution of an input, which it may be given no memory for. */
static void an_input_without_memory_for_its_gradient(void)
{
    const cnn_attributes conv = {
        .conv = {.stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1, 1, 1}, .groups = 32}};
    const cnn_shape shape = {.rank = 4, .dim = {1, 32, 320, 320}}, filter = {.rank = 4, .dim = {32, 1, 3, 3}};
    const int64_t count = cnn_shape_count(&shape), filter_count = cnn_shape_count(&filter);
    const cnn_plan_options options = {.backward = 1, .threads = 2};
    cnn_graph *graph;
    cnn_plan *plan;
    cnn_value value[2], y;
    float *x = floats(count, 1, 1.0f, 0.0f), *weights = floats(filter_count, 2, 1.0f, 0.0f), *out = floats(count, 0, 0.0f, 0.0f);
    float *diff_y = floats(count, 3, 1.0f, 0.0f), *diff_x = floats(count, 0, 0.0f, 0.0f);
    float *diff_weights[2] = {floats(filter_count, 0, 0.0f, 0.0f), floats(filter_count, 0, 0.0f, 0.0f)};
    REQUIRE(cnn_graph_create(CNN_FLOAT32, &graph) == CNN_OK);
    REQUIRE(cnn_graph_input(graph, CNN_FLOAT32, &shape, &value[0]) == CNN_OK);
    REQUIRE(cnn_graph_parameter(graph, &filter, &value[1]) == CNN_OK);
    for (int i = 0; i < 2; i++) REQUIRE(cnn_graph_require_gradient(graph, value[i]) == CNN_OK);
    REQUIRE(cnn_graph_apply(graph, CNN_OP_CONV2D, &conv, 2, value, &y) == CNN_OK && cnn_graph_output(graph, y) == CNN_OK);
    REQUIRE(cnn_plan_create(graph, &options, &plan) == CNN_OK);
    for (int with = 0; with < 2; with++) {
        cnn_context *context;
        REQUIRE(cnn_context_create(plan, &context) == CNN_OK);
        (void)cnn_context_bind(context, value[0], x, with ? diff_x : NULL);
        (void)cnn_context_bind(context, value[1], weights, diff_weights[with]);
        (void)cnn_context_bind(context, y, out, diff_y);
        CHECK(cnn_context_forward(context) == CNN_OK && cnn_context_backward(context) == CNN_OK);
        cnn_context_free(context);
    }
    CHECK(fabsf(diff_weights[1][4]) > 1.0f);
    CHECK_NEAR(distance(diff_weights[1], diff_weights[0], filter_count), 0.0, 2e-6);
    float *const all[] = {x, weights, out, diff_y, diff_x, diff_weights[0], diff_weights[1]};
    for (size_t i = 0; i < TEST_COUNT(all); i++) cnn_aligned_free(all[i]);
    cnn_plan_free(plan);
    cnn_graph_free(graph);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(depthwise), TEST(of_one_pixel), TEST(joins_what_is_large),
                                      TEST(an_input_without_memory_for_its_gradient)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
