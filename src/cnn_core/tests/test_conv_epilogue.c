/* Epilogues and packed weights of direct convolution: the same numbers as plain sums, an addition and an activation
 * one after the other, at any thread count. */
#include <stdlib.h>

#include "base/memory.h"
#include "ops/conv.h"
#include "test.h"

typedef struct epilogue_case {
    cnn_conv_pass pass;
    int64_t n, groups, ic, oc, ih, iw, k, stride, dilation, padding;
} epilogue_case;

/* Blocks and panels with tails, groups, phases (some without a tap), few pixels with many weights. */
static const epilogue_case cases[] = {
    {CNN_CONV_FORWARD, 2, 1, 5, 21, 9, 11, 3, 1, 1, 1},   {CNN_CONV_FORWARD, 1, 1, 64, 48, 20, 20, 1, 1, 1, 0},
    {CNN_CONV_FORWARD, 1, 1, 3, 24, 30, 22, 7, 2, 1, 3},  {CNN_CONV_FORWARD, 2, 3, 12, 30, 8, 8, 3, 2, 2, 2},
    {CNN_CONV_FORWARD, 1, 1, 512, 600, 3, 3, 1, 1, 1, 0}, {CNN_CONV_FORWARD, 1, 1, 1200, 300, 1, 1, 1, 1, 1, 0},
    {CNN_CONV_BACKWARD_DATA, 2, 1, 20, 7, 9, 9, 3, 2, 1, 1}, {CNN_CONV_BACKWARD_DATA, 1, 2, 34, 6, 9, 8, 2, 3, 1, 0},
    {CNN_CONV_BACKWARD_DATA, 1, 1, 300, 180, 7, 7, 3, 2, 1, 1},
    {CNN_CONV_FORWARD, 1, 1, 940, 150, 7, 7, 3, 1, 1, 1}, /* weights of which a pass reads some taps, */
    {CNN_CONV_FORWARD, 2, 1, 940, 150, 2, 2, 3, 1, 1, 1}, {CNN_CONV_FORWARD, 1, 1, 940, 80, 3, 3, 3, 1, 1, 1}, /* low tiles */
};

#define CASES (sizeof cases / sizeof cases[0])

static uint32_t random_state = 1;

static float *random_floats(int64_t count)
{
    float *numbers = cnn_aligned_alloc((size_t)count * sizeof *numbers);
    if (numbers == NULL) abort();
    for (int64_t i = 0; i < count; i++) {
        random_state = random_state * 1664525u + 1013904223u;
        numbers[i] = (float)(random_state >> 8) / 4194304.0f - 2.0f;
    }
    return numbers;
}

static cnn_conv conv_of(const epilogue_case *c)
{
    cnn_conv conv = {.n = c->n, .groups = c->groups, .ic = c->ic, .ih = c->ih, .iw = c->iw, .oc = c->oc};
    conv.kh = conv.kw = c->k;
    for (int i = 0; i < 2; i++) {
        conv.stride[i] = c->stride;
        conv.dilation[i] = c->dilation;
        conv.padding[i] = c->padding;
    }
    const int64_t window = c->dilation * (c->k - 1) + 1;
    conv.oh = (c->ih + 2 * c->padding - window) / c->stride + 1;
    conv.ow = (c->iw + 2 * c->padding - window) / c->stride + 1;
    conv.weights_stride[3] = 1;
    conv.weights_stride[2] = c->k;
    conv.weights_stride[1] = c->k * c->k;
    conv.weights_stride[0] = c->ic / c->groups * c->k * c->k;
    cnn_conv_flatten(&conv);
    return conv;
}

/* Runs with a workspace that holds NaN. */
static void run(cnn_conv_call call, float *out)
{
    const size_t bytes = cnn_conv_direct.workspace(call.conv, call.pass, call.kernels, call.threads);
    call.workspace = cnn_aligned_alloc(bytes);
    REQUIRE(call.workspace != NULL);
    memset(call.workspace, 0xff, bytes);
    call.out = out;
    cnn_conv_direct.run(&call);
    cnn_aligned_free(call.workspace);
}

/* A pass flushes denormals, as they arise inside SiLU; the test does not. */
static bool are_same(const epilogue_case *c, const char *what, const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (isnan(a[i]) ? isnan(b[i]) : a[i] == b[i] || fabsf(a[i] - b[i]) < 1e-35f) continue;
        fprintf(stderr, "case %d, %s: [%lld] is %.9g, expected %.9g\n", (int)(c - cases), what, (long long)i,
                (double)a[i], (double)b[i]);
        return false;
    }
    return true;
}

static void check_case(const epilogue_case *c)
{
    cnn_conv conv = conv_of(c);
    const bool back = c->pass == CNN_CONV_BACKWARD_DATA;
    const int64_t x_count = conv.n * conv.ih * conv.iw * conv.ic, y_count = conv.n * conv.oh * conv.ow * conv.oc;
    const int64_t count = back ? x_count : y_count;
    float *src = random_floats(back ? y_count : x_count), *weights = random_floats(conv.oc * conv.weights_stride[0]);
    float *bias = random_floats(back ? conv.ic : conv.oc), *addend = random_floats(count);
    float *plain = random_floats(count), *out = random_floats(count);
    addend[count / 2] = NAN;
    const cnn_kernels *kernels = cnn_kernels_get();
    cnn_conv_call call = {
        .pass = c->pass, .conv = &conv, .kernels = kernels, .threads = 1, .weights = weights, .bias = bias};
    *(back ? &call.y : &call.x) = src;
    run(call, plain);

    conv.packed = true;
    void *packed = cnn_aligned_alloc(cnn_conv_direct.packed(&conv, c->pass, kernels));
    REQUIRE(packed != NULL);
    cnn_conv_direct.pack(&call, packed);
    cnn_conv_call packed_call = call;
    packed_call.weights = NULL;
    packed_call.packed = packed;
    run(packed_call, out);
    CHECK(are_same(c, "packed", out, plain, count));

    packed_call.addend = addend;
    for (int64_t i = 0; i < count; i++) plain[i] += addend[i];
    run(packed_call, out);
    CHECK(are_same(c, "added", out, plain, count));
    memcpy(out, addend, (size_t)count * sizeof *out);
    packed_call.addend = out;
    run(packed_call, out);
    CHECK(are_same(c, "added in place", out, plain, count));
    packed_call.addend = addend;

    float *expected = random_floats(count);
    static const cnn_activation kinds[] = {CNN_RELU, CNN_RELU6, CNN_LEAKY_RELU, CNN_SILU};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct cnn_activation_attributes activation = {.kind = kinds[i], .alpha = 0.1};
        packed_call.activation = &activation;
        kernels->activation.forward[kinds[i]](count, plain, expected, 0.1f, 0.0f, false);
        for (int32_t threads = 1; threads <= 4; threads++) {
            packed_call.threads = threads;
            run(packed_call, out);
            CHECK(are_same(c, "activated", out, expected, count));
        }
        call.addend = addend;
        call.activation = &activation;
        conv.packed = false;
        run(call, out);
        conv.packed = true;
        CHECK(are_same(c, "activated, not packed", out, expected, count));
    }
    cnn_aligned_free(src);
    cnn_aligned_free(weights);
    cnn_aligned_free(bias);
    cnn_aligned_free(addend);
    cnn_aligned_free(plain);
    cnn_aligned_free(out);
    cnn_aligned_free(expected);
    cnn_aligned_free(packed);
}

static void matches_the_operations_one_by_one(void)
{
    for (size_t i = 0; i < CASES; i++) check_case(&cases[i]);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(matches_the_operations_one_by_one)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
