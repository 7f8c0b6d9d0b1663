/* Depthwise convolution, all three passes, against sums written out in double: by rows and of any geometry; packed
 * weights and epilogues against the operations one by one; bits against thread counts. */
#include <stdlib.h>

#include "base/memory.h"
#include "ops/conv.h"
#include "tests/test.h"

typedef struct depthwise_case {
    int64_t n, channels, ih, iw, kh, kw, stride[2], dilation[2], padding[4];
    bool by_rows; /* which algorithm is to take it */
} depthwise_case;

/* clang-format off */
static const depthwise_case cases[] = {
    {2, 32, 20, 22, 3, 3, {1, 1}, {1, 1}, {1, 1, 1, 1}, true},
    {1, 144, 28, 28, 3, 3, {2, 2}, {1, 1}, {1, 1, 1, 1}, true},
    {3, 100, 7, 7, 3, 3, {1, 1}, {1, 1}, {1, 1, 1, 1}, true}, /* channels that no vector divides */
    {1, 17, 9, 10, 3, 3, {2, 2}, {1, 1}, {0, 1, 1, 0}, true},
    {2, 31, 8, 11, 5, 5, {1, 1}, {1, 1}, {2, 2, 2, 2}, true},
    {1, 72, 15, 14, 5, 5, {2, 2}, {1, 1}, {2, 2, 2, 2}, true},
    {1, 48, 12, 13, 5, 5, {2, 2}, {1, 1}, {1, 2, 2, 1}, true},
    {2, 960, 7, 7, 5, 5, {1, 1}, {1, 1}, {2, 2, 2, 2}, true},
    {1, 16, 1, 1, 3, 3, {1, 1}, {1, 1}, {1, 1, 1, 1}, true},
    {1, 20, 2, 1, 5, 5, {2, 2}, {1, 1}, {2, 2, 2, 2}, true},
    {1, 24, 6, 7, 3, 3, {1, 1}, {1, 1}, {0, 0, 0, 0}, true},
    {1, 24, 3, 3, 3, 3, {1, 1}, {1, 1}, {5, 6, 7, 8}, true}, /* padding past the kernel */
    {1, 24, 4, 5, 3, 3, {2, 2}, {1, 1}, {6, 5, 4, 7}, true},
    {1, 24, 3, 2, 5, 5, {2, 2}, {1, 1}, {7, 8, 9, 6}, true},
    {2, 40, 10, 9, 2, 3, {3, 1}, {1, 1}, {1, 1, 0, 1}, true}, /* rows otherwise than columns */
    {2, 40, 10, 9, 1, 5, {1, 2}, {1, 1}, {0, 2, 0, 2}, true},
    {1, 40, 11, 9, 3, 5, {4, 1}, {1, 1}, {1, 2, 1, 2}, true}, /* rows of x that nothing sees */
    {1, 64, 70, 61, 3, 3, {1, 1}, {1, 1}, {1, 1, 1, 1}, true},
    {6, 312, 15, 16, 3, 3, {1, 1}, {1, 1}, {1, 1, 1, 1}, true}, /* beyond the second-level caches: wide strips */
    {9, 330, 15, 17, 5, 5, {2, 2}, {1, 1}, {2, 2, 2, 2}, true},
    {2, 33, 9, 8, 7, 7, {1, 1}, {1, 1}, {3, 3, 3, 3}, false},
    {1, 600, 6, 7, 4, 2, {2, 3}, {1, 1}, {1, 1, 2, 0}, false},
    {2, 18, 11, 12, 3, 3, {1, 2}, {2, 3}, {2, 3, 2, 3}, false},
    {2, 5, 9, 8, 3, 3, {1, 1}, {1, 1}, {1, 1, 1, 1}, false}, /* less than a vector */
};
/* clang-format on */

#define CASES (sizeof cases / sizeof cases[0])

static uint32_t random_state = 1;

static float random_float(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / 4194304.0f - 2.0f;
}

static float *random_floats(int64_t count)
{
    float *numbers = cnn_aligned_alloc((size_t)count * sizeof *numbers);
    if (numbers == NULL) abort();
    for (int64_t i = 0; i < count; i++) numbers[i] = random_float();
    return numbers;
}

static float *zeros(int64_t count)
{
    float *numbers = random_floats(count);
    for (int64_t i = 0; i < count; i++) numbers[i] = 0.0f;
    return numbers;
}

static cnn_conv conv_of(const depthwise_case *c)
{
    cnn_conv conv = {.n = c->n, .groups = c->channels, .ic = c->channels, .oc = c->channels, .ih = c->ih, .iw = c->iw,
                     .kh = c->kh, .kw = c->kw, .weights_stride = {c->kh * c->kw, c->kh * c->kw, c->kw, 1}};
    for (int i = 0; i < 2; i++) {
        conv.stride[i] = c->stride[i];
        conv.dilation[i] = c->dilation[i];
        conv.padding[i] = c->padding[i];
    }
    conv.oh = (c->ih + c->padding[0] + c->padding[2] - c->dilation[0] * (c->kh - 1) - 1) / c->stride[0] + 1;
    conv.ow = (c->iw + c->padding[1] + c->padding[3] - c->dilation[1] * (c->kw - 1) - 1) / c->stride[1] + 1;
    return conv;
}

typedef struct counts {
    int64_t x, y, weights;
} counts;

static counts counts_of(const cnn_conv *conv)
{
    return (counts){.x = conv->n * conv->ih * conv->iw * conv->ic,
                    .y = conv->n * conv->oh * conv->ow * conv->oc,
                    .weights = conv->oc * conv->kh * conv->kw};
}

static int64_t out_count(const cnn_conv *conv, cnn_conv_pass pass)
{
    const counts count = counts_of(conv);
    return pass == CNN_CONV_FORWARD ? count.y : pass == CNN_CONV_BACKWARD_DATA ? count.x : count.weights;
}

/* All passes are the same sum over what x, y and a weight have to do with each other. */
static double *exact(const cnn_conv_call *call)
{
    const cnn_conv *conv = call->conv;
    const int64_t channels = conv->ic, count = out_count(conv, call->pass);
    double *out = malloc((size_t)count * sizeof *out);
    if (out == NULL) abort();
    for (int64_t i = 0; i < count; i++) out[i] = call->bias == NULL ? 0.0 : (double)call->bias[i % channels];
    for (int64_t p = 0; p < conv->n * conv->oh * conv->ow; p++)
        for (int64_t t = 0; t < conv->kh * conv->kw; t++) {
            const int64_t i = p / conv->ow % conv->oh * conv->stride[0] + t / conv->kw * conv->dilation[0] - conv->padding[0];
            const int64_t j = p % conv->ow * conv->stride[1] + t % conv->kw * conv->dilation[1] - conv->padding[1];
            if (i < 0 || i >= conv->ih || j < 0 || j >= conv->iw) continue;
            const int64_t x = ((p / conv->ow / conv->oh * conv->ih + i) * conv->iw + j) * channels, y = p * channels;
            for (int64_t c = 0; c < channels; c++) {
                const int64_t w = c * conv->kh * conv->kw + t;
                if (call->pass == CNN_CONV_FORWARD) out[y + c] += (double)call->x[x + c] * (double)call->weights[w];
                if (call->pass == CNN_CONV_BACKWARD_DATA) out[x + c] += (double)call->y[y + c] * (double)call->weights[w];
                if (call->pass == CNN_CONV_BACKWARD_WEIGHTS) out[w] += (double)call->x[x + c] * (double)call->y[y + c];
            }
        }
    return out;
}

/* Runs with a workspace that holds NaN. */
static void run(cnn_conv_call call, float *out)
{
    const size_t bytes = cnn_conv_workspace(call.conv, call.pass, call.kernels, call.threads);
    call.workspace = cnn_aligned_alloc(bytes);
    if (call.workspace == NULL) abort();
    memset(call.workspace, 0xff, bytes);
    call.out = out;
    cnn_conv_run(&call);
    cnn_aligned_free(call.workspace);
}

typedef struct problem {
    cnn_conv conv;
    cnn_conv_call call;
    float *x, *y, *weights, *bias;
} problem;

/* In place: the call points into the problem. */
static void make(problem *p, const depthwise_case *c)
{
    p->conv = conv_of(c);
    const counts count = counts_of(&p->conv);
    p->x = random_floats(count.x);
    p->y = random_floats(count.y);
    p->weights = random_floats(count.weights);
    p->bias = random_floats(p->conv.ic);
    p->call = (cnn_conv_call){
        .conv = &p->conv, .kernels = cnn_kernels_get(), .threads = 1, .x = p->x, .y = p->y, .weights = p->weights};
}

static void release(problem *p)
{
    cnn_aligned_free(p->x);
    cnn_aligned_free(p->y);
    cnn_aligned_free(p->weights);
    cnn_aligned_free(p->bias);
}

static bool equal(const depthwise_case *c, const char *what, const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (isnan(b[i]) ? isnan(a[i]) : a[i] == b[i]) continue;
        fprintf(stderr, "case %d, %s: [%lld] is %.9g, expected %.9g\n", (int)(c - cases), what, (long long)i, (double)a[i],
                (double)b[i]);
        return false;
    }
    return true;
}

/* ---- the three passes -------------------------------------------------------------------------------------------- */

static void takes_what_it_should(void)
{
    for (size_t i = 0; i < CASES; i++)
        for (int pass = CNN_CONV_FORWARD; pass <= CNN_CONV_BACKWARD_WEIGHTS; pass++) {
            const cnn_conv conv = conv_of(&cases[i]);
            CHECK(cnn_conv_depthwise_rows.suits(&conv, (cnn_conv_pass)pass) == cases[i].by_rows);
            CHECK(cnn_conv_depthwise.suits(&conv, (cnn_conv_pass)pass));
        }
}

static void agrees_with_sums_in_double(void)
{
    for (size_t i = 0; i < CASES; i++) {
        problem p;
        make(&p, &cases[i]);
        const double terms = (double)(p.conv.n * p.conv.oh * p.conv.ow + p.conv.kh * p.conv.kw);
        for (int pass = CNN_CONV_FORWARD; pass <= CNN_CONV_BACKWARD_WEIGHTS; pass++) {
            const bool summing = pass == CNN_CONV_BACKWARD_WEIGHTS;
            const int64_t count = out_count(&p.conv, (cnn_conv_pass)pass);
            cnn_conv_call call = p.call;
            call.pass = (cnn_conv_pass)pass;
            if (!summing) call.bias = p.bias;
            double *expected = exact(&call);
            float *out = zeros(count);
            for (int64_t k = 0; k < count; k++) out[k] = summing ? 0.5f : NAN;
            run(call, out);
            const double allowed = 4e-6 * sqrt(summing ? terms : (double)(p.conv.kh * p.conv.kw));
            bool ok = true;
            for (int64_t k = 0; ok && k < count; k++) {
                const double value = expected[k] + (summing ? 0.5 : 0.0);
                ok = fabs((double)out[k] - value) <= allowed * (1.0 + fabs(value));
                if (!ok)
                    fprintf(stderr, "case %d, pass %d: [%lld] is %.9g, expected %.9g\n", (int)i, pass, (long long)k,
                            (double)out[k], value);
            }
            CHECK(ok);
            free(expected);
            cnn_aligned_free(out);
        }
        release(&p);
    }
}

static void gives_the_same_bits_on_any_threads(void)
{
    for (size_t i = 0; i < CASES; i++) {
        problem p;
        make(&p, &cases[i]);
        for (int pass = CNN_CONV_FORWARD; pass <= CNN_CONV_BACKWARD_WEIGHTS; pass++) {
            const int64_t count = out_count(&p.conv, (cnn_conv_pass)pass);
            cnn_conv_call call = p.call;
            call.pass = (cnn_conv_pass)pass;
            float *first = zeros(count), *other = zeros(count);
            run(call, first);
            for (call.threads = 2; call.threads <= 4; call.threads++) {
                for (int64_t k = 0; k < count; k++) other[k] = 0.0f;
                run(call, other);
                CHECK(memcmp(first, other, (size_t)count * sizeof(float)) == 0);
            }
            cnn_aligned_free(first);
            cnn_aligned_free(other);
        }
        release(&p);
    }
}

/* A NaN of x reaches the results that see it and no others, above a clamp too. */
static void passes_nan_on(void)
{
    const depthwise_case c = {1, 20, 5, 6, 3, 3, {1, 1}, {1, 1}, {1, 1, 1, 1}, true};
    const struct cnn_activation_attributes relu6 = {.kind = CNN_RELU6};
    problem p;
    make(&p, &c);
    p.x[(2 * 6 + 3) * 20 + 19] = NAN;
    p.call.activation = &relu6;
    float *out = zeros(5 * 6 * 20);
    run(p.call, out);
    for (int64_t i = 0; i < 5; i++)
        for (int64_t j = 0; j < 6; j++)
            for (int64_t k = 0; k < 20; k++) {
                const bool sees = i >= 1 && i <= 3 && j >= 2 && j <= 4 && k == 19;
                CHECK((isnan(out[(i * 6 + j) * 20 + k]) != 0) == sees);
            }
    cnn_aligned_free(out);
    release(&p);
}

/* ---- packed weights, epilogues ----------------------------------------------------------------------------------- */

/* The same numbers as plain sums, an addition and an activation one after the other. */
static void check_epilogue(const depthwise_case *c, cnn_conv_pass pass)
{
    problem p;
    make(&p, c);
    const int64_t count = out_count(&p.conv, pass);
    float *plain = zeros(count), *out = zeros(count), *expected = zeros(count), *addend = random_floats(count);
    addend[count / 2] = NAN;
    cnn_conv_call call = p.call;
    call.pass = pass;
    call.bias = p.bias;
    run(call, plain);

    const size_t unpacked = cnn_conv_workspace(&p.conv, pass, call.kernels, 1);
    void *packed = cnn_aligned_alloc(cnn_conv_packed(&p.conv, pass, call.kernels));
    if (packed == NULL) abort();
    cnn_conv_pack(&call, packed);
    cnn_conv conv = p.conv;
    conv.packed = true;
    CHECK(cnn_conv_workspace(&conv, pass, call.kernels, 1) < unpacked);
    cnn_conv_call packed_call = call;
    packed_call.conv = &conv;
    packed_call.packed = packed;
    packed_call.weights = NULL;
    run(packed_call, out);
    CHECK(equal(c, "packed", out, plain, count));

    for (int64_t i = 0; i < count; i++) plain[i] += addend[i];
    packed_call.addend = call.addend = addend;
    run(packed_call, out);
    CHECK(equal(c, "added", out, plain, count));

    static const cnn_activation kinds[] = {CNN_RELU, CNN_RELU6, CNN_LEAKY_RELU, CNN_SILU};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct cnn_activation_attributes activation = {.kind = kinds[i], .alpha = 0.1};
        call.kernels->activation.forward[kinds[i]](count, plain, expected, 0.1f, 0.0f, false);
        packed_call.activation = call.activation = &activation;
        for (int32_t threads = 1; threads <= 4; threads++) {
            packed_call.threads = threads;
            run(packed_call, out);
            CHECK(equal(c, "activated", out, expected, count));
        }
        run(call, out);
        CHECK(equal(c, "activated, not packed", out, expected, count));
    }
    cnn_aligned_free(packed);
    cnn_aligned_free(plain);
    cnn_aligned_free(out);
    cnn_aligned_free(expected);
    cnn_aligned_free(addend);
    release(&p);
}

static void has_the_epilogues_of_single_operations(void)
{
    for (size_t i = 0; i < CASES; i++) {
        check_epilogue(&cases[i], CNN_CONV_FORWARD);
        check_epilogue(&cases[i], CNN_CONV_BACKWARD_DATA);
    }
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(takes_what_it_should),
        TEST(agrees_with_sums_in_double),
        TEST(gives_the_same_bits_on_any_threads),
        TEST(passes_nan_on),
        TEST(has_the_epilogues_of_single_operations),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
