/* Winograd convolution: its error bound against float64, beside direct's; that it is what runs; edges of every kind. */
#include <stdlib.h>

#include "base/memory.h"
#include "ops/winograd.h"
#include "tests/test.h"

typedef struct shape_case {
    int64_t n, ic, h, w, oc, padding[4], stride;
} shape_case;

/* x, weights, bias, dy; then y, dx, dweights. Float or double. */
enum { X, WEIGHTS, BIAS, DY, Y, DX, DWEIGHTS, TENSORS };

typedef struct problem {
    cnn_dtype dtype;
    size_t count[TENSORS];
    void *data[TENSORS];
    cnn_shape x, weights, bias;
    cnn_attributes attributes;
} problem;

static double get(const problem *p, int tensor, size_t i)
{
    return p->dtype == CNN_FLOAT64 ? ((double *)p->data[tensor])[i] : (double)((float *)p->data[tensor])[i];
}

static void set(problem *p, int tensor, size_t i, double value)
{
    if (p->dtype == CNN_FLOAT64)
        ((double *)p->data[tensor])[i] = value;
    else
        ((float *)p->data[tensor])[i] = (float)value;
}

static void release(problem *p)
{
    for (int t = 0; t < TENSORS; t++) free(p->data[t]);
}

static problem make(cnn_dtype dtype, const shape_case *c)
{
    const int64_t oh = (c->h + c->padding[0] + c->padding[2] - 3) / c->stride + 1;
    const int64_t ow = (c->w + c->padding[1] + c->padding[3] - 3) / c->stride + 1;
    problem p = {.dtype = dtype,
                 .x = {4, {c->n, c->ic, c->h, c->w}},
                 .weights = {4, {c->oc, c->ic, 3, 3}},
                 .bias = {1, {c->oc}},
                 .attributes = {.conv = {.stride = {c->stride, c->stride}, .dilation = {1, 1}, .groups = 1}}};
    for (int i = 0; i < 4; i++) p.attributes.conv.padding[i] = c->padding[i];
    const size_t x = (size_t)cnn_shape_count(&p.x), w = (size_t)cnn_shape_count(&p.weights);
    const size_t y = (size_t)(c->n * c->oc * oh * ow);
    const size_t count[TENSORS] = {x, w, (size_t)c->oc, y, y, x, w};
    static const uint64_t stream[TENSORS] = {1, 2, 3, 4, 0, 0, 0};
    for (int t = 0; t < TENSORS; t++) {
        p.count[t] = count[t];
        p.data[t] = malloc(count[t] * cnn_dtype_bytes(dtype));
        if (p.data[t] == NULL) abort();
        /* The same numbers in both types: made in float. What is written is poisoned, what is added to is zero. */
        float *numbers = malloc(count[t] * sizeof *numbers);
        const int64_t elements = (int64_t)count[t];
        if (numbers == NULL || cnn_fill_normal(CNN_FLOAT32, elements, numbers, 0.0, 1.0, 7, stream[t]) != CNN_OK) abort();
        const double other = t == DWEIGHTS ? 0.0 : (double)NAN;
        for (size_t i = 0; i < count[t]; i++) set(&p, t, i, t < Y ? (double)numbers[i] : other);
        free(numbers);
    }
    return p;
}

static bool run(problem *p, bool direct)
{
    cnn_graph *graph = NULL;
    cnn_plan *plan = NULL;
    cnn_context *context = NULL;
    cnn_value source[3], y;
    const cnn_plan_options options = {.backward = 1, .direct = direct};
    const bool ok =
        cnn_graph_create(p->dtype, &graph) == CNN_OK &&
        cnn_graph_input(graph, p->dtype, &p->x, &source[0]) == CNN_OK &&
        cnn_graph_parameter(graph, &p->weights, &source[1]) == CNN_OK &&
        cnn_graph_parameter(graph, &p->bias, &source[2]) == CNN_OK &&
        cnn_graph_require_gradient(graph, source[0]) == CNN_OK &&
        cnn_graph_require_gradient(graph, source[1]) == CNN_OK &&
        cnn_graph_apply(graph, CNN_OP_CONV2D, &p->attributes, 3, source, &y) == CNN_OK &&
        cnn_graph_output(graph, y) == CNN_OK && cnn_plan_create(graph, &options, &plan) == CNN_OK &&
        cnn_context_create(plan, &context) == CNN_OK &&
        cnn_context_bind(context, source[0], p->data[X], p->data[DX]) == CNN_OK &&
        cnn_context_bind(context, source[1], p->data[WEIGHTS], p->data[DWEIGHTS]) == CNN_OK &&
        cnn_context_bind(context, source[2], p->data[BIAS], NULL) == CNN_OK &&
        cnn_context_bind(context, y, p->data[Y], p->data[DY]) == CNN_OK && cnn_context_forward(context) == CNN_OK &&
        cnn_context_backward(context) == CNN_OK;
    cnn_context_free(context);
    cnn_plan_free(plan);
    cnn_graph_free(graph);
    return ok;
}

/* ||a - b|| / ||b||; NaN in a gives NaN. */
static double relative_error(const problem *a, const problem *b, int tensor)
{
    double error = 0.0, norm = 0.0;
    for (size_t i = 0; i < a->count[tensor]; i++) {
        const double difference = get(a, tensor, i) - get(b, tensor, i);
        error += difference * difference;
        norm += get(b, tensor, i) * get(b, tensor, i);
    }
    return sqrt(error / norm);
}

/* Random normal data: at most 3e-6 up to 512 channels by Winograd, of stride 2 2e-6, and 1.5e-6 direct. All passes are by
 * Winograd where that is wanted: they round otherwise than direct. */
static void check_error(const shape_case *c)
{
    problem exact = make(CNN_FLOAT64, c), direct = make(CNN_FLOAT32, c), winograd = make(CNN_FLOAT32, c);
    CHECK(run(&exact, false) && run(&direct, true) && run(&winograd, false));
    for (int t = Y; t < TENSORS; t++) {
        CHECK(relative_error(&direct, &exact, t) <= 1.5e-6);
        CHECK(relative_error(&winograd, &exact, t) <= (c->stride == 1 ? 3e-6 : 2e-6));
        CHECK(relative_error(&winograd, &direct, t) > 0.0);
    }
    release(&exact), release(&direct), release(&winograd);
}

static void stays_within_its_error_bound(void)
{
    static const shape_case cases[] = {
        {2, 64, 20, 20, 64, {1, 1, 1, 1}, 1},  {1, 16, 40, 40, 24, {1, 1, 1, 1}, 1}, {1, 256, 14, 14, 64, {1, 1, 1, 1}, 1},
        {2, 512, 7, 7, 32, {1, 1, 1, 1}, 1},   {2, 32, 8, 8, 512, {1, 1, 1, 1}, 1},  {2, 64, 40, 40, 64, {1, 1, 1, 1}, 2},
        {1, 512, 14, 14, 32, {1, 1, 1, 1}, 1}, /* forward in tiles of 2x2 */
        {9, 512, 14, 14, 64, {1, 1, 1, 1}, 2}, {9, 64, 16, 16, 512, {1, 1, 1, 1}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_error(&cases[i]);
}

/* Channels that are no multiple of a vector, images that are no multiple of a tile, padding of one side or too much. */
static void covers_every_edge(void)
{
    static const shape_case cases[] = {
        {3, 17, 23, 30, 19, {0, 0, 0, 0}, 1}, {2, 33, 33, 9, 41, {1, 0, 0, 2}, 1},  {1, 70, 21, 26, 25, {2, 2, 2, 2}, 1},
        {2, 24, 16, 17, 30, {3, 0, 1, 5}, 1}, {4, 31, 13, 13, 47, {0, 1, 2, 0}, 1}, {5, 18, 41, 40, 37, {1, 1, 1, 1}, 1},
        {1, 131, 13, 15, 127, {1, 0, 2, 1}, 1}, {1, 129, 14, 13, 130, {0, 1, 2, 0}, 1}, /* the same */
        {2, 97, 56, 29, 95, {1, 1, 1, 1}, 2}, {2, 83, 42, 47, 91, {1, 0, 0, 2}, 2}, {2, 90, 27, 35, 99, {2, 2, 2, 2}, 2},
        {4, 84, 26, 34, 90, {3, 0, 1, 4}, 2}, {3, 99, 26, 29, 87, {0, 1, 2, 0}, 2}, {4, 90, 29, 33, 87, {0, 0, 0, 0}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_error(&cases[i]);
}

/* What is asked for is what runs: the two round differently. */
static void is_what_runs(void)
{
    for (int64_t stride = 1; stride <= 2; stride++) {
        const cnn_conv conv = {.n = 2, .groups = 1, .ic = 64, .ih = 56, .iw = 56, .oc = 64, .oh = 56 / stride,
                               .ow = 56 / stride, .kh = 3, .kw = 3, .stride = {stride, stride}, .dilation = {1, 1},
                               .padding = {1, 1}};
        for (int pass = CNN_CONV_FORWARD; pass <= CNN_CONV_BACKWARD_WEIGHTS; pass++) {
            CHECK(cnn_conv_winograd.suits(&conv, (cnn_conv_pass)pass));
            cnn_conv other = conv;
            other.direct = true;
            CHECK(!cnn_conv_winograd.suits(&other, (cnn_conv_pass)pass));
            other = conv;
            other.stride[1] = 3 - stride;
            CHECK(!cnn_conv_winograd.suits(&other, (cnn_conv_pass)pass));
            other = conv;
            other.stride[0] = other.stride[1] = 3;
            CHECK(!cnn_conv_winograd.suits(&other, (cnn_conv_pass)pass));
        }
        const shape_case c = {1, 64, 48, 48, 64, {1, 1, 1, 1}, stride};
        problem winograd = make(CNN_FLOAT32, &c), direct = make(CNN_FLOAT32, &c);
        CHECK(run(&winograd, false) && run(&direct, true));
        for (int t = Y; t < TENSORS; t++) CHECK(relative_error(&winograd, &direct, t) > 0.0);
        release(&winograd);
        release(&direct);
    }
}

/* Few tiles of many channels are of 2x2 results, with 16 planes of weights. */
static void has_small_tiles_where_weights_are_many(void)
{
    cnn_conv conv = {.n = 1, .groups = 1, .ic = 256, .ih = 14, .iw = 14, .oc = 256, .oh = 14, .ow = 14, .kh = 3, .kw = 3,
                     .stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1}};
    CHECK(cnn_conv_winograd.suits(&conv, CNN_CONV_FORWARD));
    CHECK(cnn_winograd_tiles_of(&conv, CNN_CONV_FORWARD).form == CNN_WINOGRAD_SMALL);
    CHECK(cnn_winograd_tiles_of(&conv, CNN_CONV_BACKWARD_DATA).form == CNN_WINOGRAD_UNIT);
    CHECK(cnn_winograd_tiles_of(&conv, CNN_CONV_BACKWARD_WEIGHTS).form == CNN_WINOGRAD_UNIT);
    const cnn_kernels *kernels = cnn_kernels_get();
    CHECK(cnn_conv_winograd.packed(&conv, CNN_CONV_FORWARD, kernels) < (size_t)(17 * 4) * 256 * 256);
    conv.n = 2;
    CHECK(cnn_winograd_tiles_of(&conv, CNN_CONV_FORWARD).form == CNN_WINOGRAD_UNIT);
    conv.n = 1, conv.ic = conv.oc = 64;
    CHECK(cnn_winograd_tiles_of(&conv, CNN_CONV_FORWARD).form == CNN_WINOGRAD_UNIT);
}

/* ---- epilogue and packed weights ----------------------------------------------------------------------------------- */

static float *normal_floats(int64_t count, uint64_t stream)
{
    float *numbers = malloc((size_t)count * sizeof *numbers);
    if (numbers == NULL || cnn_fill_normal(CNN_FLOAT32, count, numbers, 0.0, 1.0, 9, stream) != CNN_OK) abort();
    return numbers;
}

/* Memory that holds no numbers; free it with cnn_aligned_free. */
static void *poisoned(size_t bytes)
{
    void *memory = cnn_aligned_alloc(bytes);
    if (memory == NULL) abort();
    memset(memory, 0xff, bytes);
    return memory;
}

/* Runs the call with a poisoned workspace; with packed weights if asked. */
static void run_call(cnn_conv_call call, bool packed)
{
    cnn_conv conv = *call.conv;
    call.conv = &conv;
    void *weights = NULL;
    if (packed) {
        weights = poisoned(cnn_conv_winograd.packed(&conv, call.pass, call.kernels));
        cnn_conv_winograd.pack(&call, weights);
        call.packed = weights;
        call.weights = NULL;
        conv.packed = true;
    }
    call.workspace = poisoned(cnn_conv_winograd.workspace(&conv, call.pass, call.kernels, call.threads));
    cnn_conv_winograd.run(&call);
    cnn_aligned_free(call.workspace);
    cnn_aligned_free(weights);
}

/* Forward or backward data: packed weights change no bit, and the epilogue is activation(result + addend). */
static void check_epilogue(const cnn_conv *conv, cnn_conv_pass pass)
{
    const cnn_kernels *kernels = cnn_kernels_get();
    const int64_t x = conv->n * conv->ih * conv->iw * conv->ic, y = conv->n * conv->oh * conv->ow * conv->oc;
    const bool back = pass == CNN_CONV_BACKWARD_DATA;
    const int64_t count = back ? x : y, channels = back ? conv->ic : conv->oc;
    float *src = normal_floats(back ? y : x, 1), *weights = normal_floats(9 * conv->ic * conv->oc, 2);
    float *bias = normal_floats(channels, 3), *addend = normal_floats(count, 4);
    float *plain = poisoned((size_t)count * 4), *out = poisoned((size_t)count * 4), *want = poisoned((size_t)count * 4);
    src[5] = NAN;
    /* Results from which SiLU makes no denormals: a pass flushes them, the test does not. */
    for (int64_t i = 0; i < 9 * conv->ic * conv->oc; i++) weights[i] *= 0.25f;
    cnn_conv_call call = {.pass = pass, .conv = conv, .kernels = kernels, .threads = 2, .weights = weights, .out = plain};
    *(back ? &call.y : &call.x) = src;
    run_call(call, false);
    static const cnn_activation kinds[] = {CNN_ACTIVATION_COUNT, CNN_RELU, CNN_RELU6, CNN_LEAKY_RELU, CNN_SILU};
    call.out = out;
    for (int adds = 0; adds < 2; adds++)
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            const struct cnn_activation_attributes activation = {kinds[k], 0.1, 0.0};
            call.bias = adds ? bias : NULL;
            call.addend = adds ? addend : NULL;
            call.activation = k == 0 ? NULL : &activation;
            for (int64_t i = 0; i < count; i++) want[i] = adds ? plain[i] + bias[i % channels] + addend[i] : plain[i];
            if (k > 0) kernels->activation.forward[kinds[k]](count, want, want, 0.1f, 0.0f, false);
            for (int packed = 0; packed < 2; packed++) {
                memset(out, 0xff, (size_t)count * 4);
                run_call(call, packed);
                int64_t wrong = 0;
                for (int64_t i = 0; i < count; i++) wrong += !(out[i] == want[i] || (isnan(out[i]) && isnan(want[i])));
                CHECK(wrong == 0);
            }
        }
    CHECK(isnan(out[0]));
    free(src), free(weights), free(bias), free(addend);
    cnn_aligned_free(plain), cnn_aligned_free(out), cnn_aligned_free(want);
}

static void takes_epilogues_and_packed_weights(void)
{
    static const cnn_conv convs[] = {
        {.n = 2, .groups = 1, .ic = 19, .ih = 15, .iw = 18, .oc = 37, .oh = 15, .ow = 18, .kh = 3, .kw = 3,
         .stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1}, .weights_stride = {19 * 9, 9, 3, 1}},
        {.n = 3, .groups = 1, .ic = 64, .ih = 7, .iw = 7, .oc = 48, .oh = 7, .ow = 7, .kh = 3, .kw = 3,
         .stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1}, .weights_stride = {64 * 9, 1, 64 * 3, 64}},
        {.n = 1, .groups = 1, .ic = 122, .ih = 13, .iw = 14, .oc = 137, .oh = 13, .ow = 14, .kh = 3, .kw = 3,
         .stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1}, .weights_stride = {122 * 9, 9, 3, 1}},
        {.n = 2, .groups = 1, .ic = 19, .ih = 29, .iw = 34, .oc = 37, .oh = 15, .ow = 17, .kh = 3, .kw = 3,
         .stride = {2, 2}, .dilation = {1, 1}, .padding = {1, 1}, .weights_stride = {19 * 9, 9, 3, 1}},
        {.n = 3, .groups = 1, .ic = 64, .ih = 14, .iw = 13, .oc = 48, .oh = 7, .ow = 6, .kh = 3, .kw = 3,
         .stride = {2, 2}, .dilation = {1, 1}, .padding = {0, 0}, .weights_stride = {64 * 9, 1, 64 * 3, 64}},
    };
    for (size_t i = 0; i < sizeof convs / sizeof convs[0]; i++) {
        check_epilogue(&convs[i], CNN_CONV_FORWARD);
        check_epilogue(&convs[i], CNN_CONV_BACKWARD_DATA);
    }
}

static void check_threads(const shape_case *c)
{
    const int32_t before = cnn_get_num_threads();
    problem first = make(CNN_FLOAT32, c);
    (void)cnn_set_num_threads(1);
    CHECK(run(&first, false));
    for (int32_t threads = 2; threads <= 4; threads++) {
        problem p = make(CNN_FLOAT32, c);
        (void)cnn_set_num_threads(threads);
        CHECK(run(&p, false));
        for (int t = Y; t < TENSORS; t++) CHECK(memcmp(p.data[t], first.data[t], p.count[t] * sizeof(float)) == 0);
        release(&p);
    }
    (void)cnn_set_num_threads(before);
    release(&first);
}

/* Of the second, few tiles with many channels, whether tasks share the sources hangs on how many threads there are. */
static void gives_the_same_bits_on_any_threads(void)
{
    if (strcmp(cnn_thread_backend(), "serial") == 0) return;
    const shape_case cases[] = {{5, 48, 30, 31, 40, {1, 1, 1, 1}, 1}, {1, 70, 14, 14, 150, {1, 1, 1, 1}, 1},
                                {1, 130, 14, 14, 150, {1, 1, 1, 1}, 1}, {5, 48, 30, 31, 40, {1, 1, 1, 1}, 2},
                                {5, 70, 28, 28, 150, {1, 1, 1, 1}, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_threads(&cases[i]);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(stays_within_its_error_bound), TEST(covers_every_edge), TEST(is_what_runs),
                                      TEST(has_small_tiles_where_weights_are_many),
                                      TEST(takes_epilogues_and_packed_weights),
                                      TEST(gives_the_same_bits_on_any_threads)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
