/* Each word of a vector vocabulary against its meaning, lane by lane. The includer has chosen the vocabulary. */
#ifndef CNN_TESTS_SIMD_CASES_H
#define CNN_TESTS_SIMD_CASES_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "math_cases.h"
#include "test.h"

static const float simd_values[] = {0.0f, -0.0f, 1.0f,  -1.5f,   3.25f,    -7.0f,    INFINITY,
                                    NAN,  0.1f,  1e30f, FLT_MAX, -FLT_MAX, FLT_MIN, -INFINITY};
#define SIMD_VALUES (sizeof simd_values / sizeof *simd_values)

static uint32_t simd_bits(float a)
{
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}

/* Equal to the bit; two NaNs are equal, whatever their payload. */
static bool simd_same(float a, float b)
{
    return (isnan(a) && isnan(b)) || simd_bits(a) == simd_bits(b);
}

/* Lane i of the pair number `pair`: every value meets every other in some pair. */
static void simd_operands(size_t pair, float a[VF_WIDTH], float b[VF_WIDTH])
{
    for (size_t i = 0; i < VF_WIDTH; i++) {
        a[i] = simd_values[(pair + i) % SIMD_VALUES];
        b[i] = simd_values[(pair / SIMD_VALUES + 2 * i) % SIMD_VALUES];
    }
}

/* `vector` of the vectors x and y must give `scalar` of their lanes p and q. */
#define SIMD_CHECK(vector, scalar)                                                                            \
    do {                                                                                                      \
        for (size_t pair = 0; pair < SIMD_VALUES * SIMD_VALUES; pair++) {                                     \
            float a[VF_WIDTH], b[VF_WIDTH], result[VF_WIDTH];                                                 \
            simd_operands(pair, a, b);                                                                        \
            const vf x = vf_load(a), y = vf_load(b);                                                          \
            (void)x, (void)y;                                                                                 \
            vf_store(result, vector);                                                                         \
            for (int i = 0; i < VF_WIDTH; i++) {                                                              \
                const float p = a[i], q = b[i];                                                               \
                (void)p, (void)q;                                                                             \
                const bool same = simd_same(result[i], (scalar));                                             \
                if (!same)                                                                                    \
                    fprintf(stderr, #vector " of %g, %g: %g\n", (double)p, (double)q, (double)result[i]);     \
                REQUIRE(same);                                                                                \
            }                                                                                                 \
        }                                                                                                     \
    } while (0)

static void test_arithmetic(void)
{
    SIMD_CHECK(vf_zero(), 0.0f);
    SIMD_CHECK(vf_set1(2.5f), 2.5f);
    SIMD_CHECK(vf_add(x, y), p + q);
    SIMD_CHECK(vf_sub(x, y), p - q);
    SIMD_CHECK(vf_mul(x, y), p * q);
    SIMD_CHECK(vf_div(x, y), p / q);
    SIMD_CHECK(vf_sqrt(x), sqrtf(p));
    SIMD_CHECK(vf_abs(x), fabsf(p));
    SIMD_CHECK(vf_neg(x), -p);
    SIMD_CHECK(vf_copysign(x, y), copysignf(p, q));
    /* These products are exact: rounded once or twice, the result is the same. */
    SIMD_CHECK(vf_fmadd(vf_set1(0.5f), x, y), 0.5f * p + q);
    SIMD_CHECK(vf_fnmadd(vf_set1(0.5f), x, y), q - 0.5f * p);
}

/* Either operand may be the zero that comes out of max(0, -0). */
#define SIMD_MAX(p, q) (isnan(p) || isnan(q) ? NAN : fmaxf(p, q))
#define SIMD_MIN(p, q) (isnan(p) || isnan(q) ? NAN : fminf(p, q))

static void test_comparison(void)
{
    const vf yes = vf_set1(1.0f), no = vf_set1(2.0f);
    SIMD_CHECK(vf_select(vf_gt(x, y), yes, no), p > q ? 1.0f : 2.0f);
    SIMD_CHECK(vf_select(vf_ge(x, y), yes, no), p >= q ? 1.0f : 2.0f);
    SIMD_CHECK(vf_select(vf_lt(x, y), yes, no), p < q ? 1.0f : 2.0f);
    SIMD_CHECK(vf_select(vf_le(x, y), yes, no), p <= q ? 1.0f : 2.0f);
    SIMD_CHECK(vf_select(vf_eq(x, y), yes, no), p == q ? 1.0f : 2.0f);
    SIMD_CHECK(vf_select(vf_isnan(x), yes, no), isnan(p) ? 1.0f : 2.0f);
    SIMD_CHECK(vf_select(vm_and(vf_gt(x, no), vf_lt(y, no)), yes, no), p > 2.0f && q < 2.0f ? 1.0f : 2.0f);
    SIMD_CHECK(vf_select(vm_or(vf_gt(x, no), vf_lt(y, no)), yes, no), p > 2.0f || q < 2.0f ? 1.0f : 2.0f);
    SIMD_CHECK(vf_select(vm_not(vf_gt(x, y)), yes, no), p > q ? 2.0f : 1.0f);
    SIMD_CHECK(vf_add(vf_max(x, y), vf_zero()), SIMD_MAX(p, q) + 0.0f);
    SIMD_CHECK(vf_add(vf_min(x, y), vf_zero()), SIMD_MIN(p, q) + 0.0f);
    SIMD_CHECK(vf_clamp(x, vf_set1(-1.0f), vf_set1(3.0f)), p < -1.0f ? -1.0f : (p > 3.0f ? 3.0f : p));
}

/* Memory that ends where a tail ends, so that a sanitizer sees what reads or writes beyond it. */
static void test_tails(void)
{
    for (int n = 0; n <= VF_WIDTH; n++) {
        const size_t bytes = (size_t)n * sizeof(float);
        float *from = malloc(bytes + 1), *to = malloc(bytes + 1);
        int32_t *counts = malloc(bytes + 1);
        REQUIRE(from != NULL && to != NULL && counts != NULL);
        for (int i = 0; i < n; i++) from[i] = (float)(i + 1);
        float loaded[VF_WIDTH], filled[VF_WIDTH], stored[VF_WIDTH + 1];
        vf_store(loaded, vf_load_tail(from, n));
        vf_store(filled, vf_load_tail_or(from, n, vf_set1(-9.0f)));
        for (int i = 0; i <= VF_WIDTH; i++) stored[i] = -5.0f;
        vf_store_tail(stored, vf_set1(7.0f), n);
        vf_store_tail(to, vf_set1(7.0f), n);
        int32_t integers[VF_WIDTH], kept[VF_WIDTH + 1];
        vi_store_tail(counts, vi_set1(n), n);
        vi_store(integers, vi_load_tail(counts, n));
        for (int i = 0; i <= VF_WIDTH; i++) kept[i] = -5;
        vi_store_tail(kept, vi_set1(7), n);
        for (int i = 0; i < VF_WIDTH; i++) {
            CHECK(loaded[i] == (i < n ? (float)(i + 1) : 0.0f));
            CHECK(filled[i] == (i < n ? (float)(i + 1) : -9.0f));
            CHECK(stored[i] == (i < n ? 7.0f : -5.0f));
            CHECK_INT(integers[i], i < n ? n : 0);
            CHECK_INT(kept[i], i < n ? 7 : -5);
            if (i < n) CHECK(to[i] == 7.0f);
        }
        CHECK(stored[VF_WIDTH] == -5.0f);
        CHECK_INT(kept[VF_WIDTH], -5);
        free(from);
        free(to);
        free(counts);
    }
}

static void test_stream(void)
{
    float memory[VF_WIDTH + 16];
    float *aligned = memory + (64 - (uintptr_t)memory % 64) % 64 / sizeof(float);
    vf_stream(aligned, vf_set1(3.0f));
    vf_stream_end();
    for (int i = 0; i < VF_WIDTH; i++) CHECK(aligned[i] == 3.0f);
}

static void test_lanes_together(void)
{
    float x[VF_WIDTH];
    for (int i = 0; i < VF_WIDTH; i++) x[i] = (float)(1 << i);
    CHECK(vf_sum(vf_load(x)) == (float)((1 << VF_WIDTH) - 1));
    for (int i = 0; i < VF_WIDTH; i++) {
        for (int j = 0; j < VF_WIDTH; j++) x[j] = -3.0f - (float)j;
        x[i] = -2.0f;
        CHECK(vf_max_lane(vf_load(x)) == -2.0f);
        x[i] = NAN;
        CHECK(isnan(vf_max_lane(vf_load(x))));
    }
}

/* `vector` of the vectors x and y must give `scalar` of their lanes p and q. */
#define SIMD_CHECK_INT(vector, scalar)                                                             \
    do {                                                                                           \
        int32_t a[VF_WIDTH], b[VF_WIDTH], result[VF_WIDTH];                                        \
        for (int i = 0; i < VF_WIDTH; i++) {                                                       \
            a[i] = (int32_t)(0x9e3779b9u * (uint32_t)(i + 1));                                     \
            b[i] = i % 3 == 0 ? a[i] : (int32_t)(0x85ebca6bu * (uint32_t)(i + 1));                 \
        }                                                                                          \
        const vi x = vi_load(a), y = vi_load(b);                                                   \
        (void)x, (void)y;                                                                          \
        vi_store(result, vector);                                                                  \
        for (int i = 0; i < VF_WIDTH; i++) {                                                       \
            const uint32_t p = (uint32_t)a[i], q = (uint32_t)b[i];                                 \
            (void)p, (void)q;                                                                      \
            CHECK_INT(result[i], (int32_t)(scalar));                                               \
        }                                                                                          \
    } while (0)

/* A row longer than the four, and a place to either side of what is written. */
static void test_turn4(void)
{
    enum { STRIDE = 9, ROW = VF_WIDTH + 3 };
    float from[VF_WIDTH * STRIDE], to[4 * ROW];
    for (int i = 0; i < VF_WIDTH * STRIDE; i++) from[i] = (float)(i + 1);
    for (int i = 0; i < 4 * ROW; i++) to[i] = -1.0f;
    vf_turn4(from + 2, STRIDE, to + 1, ROW);
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < ROW; c++)
            REQUIRE(to[r * ROW + c] == (c < 1 || c > VF_WIDTH ? -1.0f : from[(c - 1) * STRIDE + 2 + r]));
}

static void test_integers(void)
{
    vi high;
    SIMD_CHECK_INT(vi_set1(-3), -3);
    SIMD_CHECK_INT(vi_add(x, y), p + q);
    SIMD_CHECK_INT(vi_sub(x, y), p - q);
    SIMD_CHECK_INT(vi_and(x, y), p & q);
    SIMD_CHECK_INT(vi_xor(x, y), p ^ q);
    SIMD_CHECK_INT(vi_mul_wide(x, y, &high), (uint64_t)p * q & UINT32_MAX);
    SIMD_CHECK_INT((vi_mul_wide(x, y, &high), high), (uint64_t)p * q >> 32);
    SIMD_CHECK_INT(vi_select(vi_below(x, y), x, y), p < q ? p : q);
    SIMD_CHECK_INT(vi_select(vi_below(x, x), x, y), q);
    SIMD_CHECK_INT(vi_shl(x, 9), p << 9);
    SIMD_CHECK_INT(vi_shr(x, 9), p >> 9);
    SIMD_CHECK_INT(vi_select(vi_eq(x, y), x, vi_set1(1)), p == q ? p : 1u);
    SIMD_CHECK_INT(vi_bits(vf_of_vi(vi_shr(x, 9))), simd_bits((float)(p >> 9)));
    SIMD_CHECK_INT(vi_bits(vf_neg(vf_bits(vi_shr(x, 9)))), (p >> 9) ^ 0x80000000u);
}

static const test_case simd_tests[] = {
    TEST(test_arithmetic),     TEST(test_comparison), TEST(test_tails),       TEST(test_stream),
    TEST(test_lanes_together), TEST(test_integers),   TEST(test_turn4),       TEST(test_exp),         TEST(test_expm1),
    TEST(test_exp_below),      TEST(test_expm1_below), TEST(test_log1p_unit),
    TEST(test_log),            TEST(test_log1p),      TEST(test_tanh),        TEST(test_sigmoid),
    TEST(test_softplus),       TEST(test_normal),     TEST(test_normal_near), TEST(test_density),
};

#endif
