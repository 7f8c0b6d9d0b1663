/* The functions of simd/math.h against double precision, over floats of every sign and exponent. The includer has chosen a
 * vector vocabulary. */
#ifndef CNN_TESTS_MATH_CASES_H
#define CNN_TESTS_MATH_CASES_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "simd/math.h"
#include "test.h"

typedef vf vector_fn(vf x);
typedef double scalar_fn(double x);

#define BLOCK 16 /* a multiple of every vector's width */

/* The distance in units of the last place of `expected`; 0 where the functions need not agree: denormal arguments, and
 * denormal results that may be zero. */
static double distance(float x, float actual, double expected)
{
    if (fabsf(x) < FLT_MIN && x != 0.0f) return 0.0;
    if (isnan(expected)) return isnan(actual) ? 0.0 : (double)INFINITY;
    if (fabs(expected) > (double)FLT_MAX) return isinf(actual) && (actual > 0.0f) == (expected > 0.0) ? 0.0 : (double)INFINITY;
    if (fabs(expected) < (double)FLT_MIN) return fabsf(actual) <= FLT_MIN ? 0.0 : (double)INFINITY;
    if (!isfinite(actual)) return (double)INFINITY;
    int exponent;
    frexp(expected, &exponent);
    return fabs((double)actual - expected) / ldexp(1.0, exponent - FLT_MANT_DIG);
}

/* The largest distance over every `step`-th float with |x| <= limit. */
static void sweep(const char *name, vector_fn *function, scalar_fn *exact, float limit, double allowed)
{
    const uint32_t step = 4099;
    double worst = 0.0;
    float where = 0.0f;
    for (uint32_t first = 0; first < UINT32_MAX - BLOCK * step; first += BLOCK * step) {
        float x[BLOCK], y[BLOCK];
        for (uint32_t i = 0; i < BLOCK; i++) {
            const uint32_t bits = first + i * step;
            memcpy(&x[i], &bits, sizeof bits);
            if (fabsf(x[i]) > limit) x[i] = 0.0f;
        }
        for (int i = 0; i < BLOCK; i += VF_WIDTH) vf_store(y + i, function(vf_load(x + i)));
        for (int i = 0; i < BLOCK; i++) {
            const double error = distance(x[i], y[i], exact((double)x[i]));
            if (error > worst) worst = error, where = x[i];
        }
    }
    CHECK(worst <= allowed);
    if (!(worst <= allowed))
        fprintf(stderr, "%s: off by %.2f units in the last place at %.9g\n", name, worst, (double)where);
}

/* Every special value, in every lane. */
static void specials(vector_fn *function, scalar_fn *exact)
{
    const float special[] = {0.0f,   -0.0f,   1.0f,   -1.0f,    INFINITY,       -INFINITY,  NAN,
                             88.8f,  -88.8f,  1e10f,  -1e10f,   FLT_MAX,        -FLT_MAX,   FLT_MIN,
                             103.0f, -103.0f, 104.0f, 1.8e19f,  -1.8e19f,       1.7e38f,    -FLT_MIN};
    for (size_t s = 0; s < sizeof special / sizeof *special; s++)
        for (int lane = 0; lane < VF_WIDTH; lane++) {
            float x[VF_WIDTH] = {0.0f}, y[VF_WIDTH];
            x[lane] = special[s];
            vf_store(y, function(vf_load(x)));
            const bool ok = distance(x[lane], y[lane], exact((double)x[lane])) <= 65.0;
            if (!ok) fprintf(stderr, "at %g: %g\n", (double)x[lane], (double)y[lane]);
            CHECK(ok);
        }
}

static double exact_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static double exact_softplus(double x) { return fmax(x, 0.0) + log1p(exp(-fabs(x))); }
static double exact_normal(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }
static double exact_density(double x) { return exp(-0.5 * x * x) * 0.39894228040143268; }

static vf normal(vf x)
{
    vf density;
    return vf_normal(x, &density);
}

static vf density(vf x)
{
    vf result;
    vf_normal(x, &result);
    return result;
}

#define MATH_TEST(name, function, exact, allowed)            \
    static vf name##_of(vf x) { return function(x); }        \
    static void name(void)                                   \
    {                                                        \
        specials(name##_of, exact);                          \
        sweep(#name, name##_of, exact, FLT_MAX, allowed);    \
    }

MATH_TEST(test_exp, vf_exp, exp, 0.97)
static vf exp_below(vf x) { return vf_exp_below(x, 88.37f); }
static vf expm1_below(vf x) { return vf_expm1_below(x, 88.37f); }
static vf log1p_unit(vf x) { return vf_log1p_unit(vf_clamp(x, vf_zero(), vf_set1(1.0f))); }
static double exact_exp_below(double x) { return exp(x > (double)88.37f ? (double)88.37f : x); }
static double exact_expm1_below(double x) { return expm1(x > (double)88.37f ? (double)88.37f : x); }
static double exact_log1p_unit(double x) { return log1p(x < 0.0 ? 0.0 : (x > 1.0 ? 1.0 : x)); }

MATH_TEST(test_exp_below, exp_below, exact_exp_below, 1.1)
MATH_TEST(test_expm1_below, expm1_below, exact_expm1_below, 1.5)
MATH_TEST(test_log1p_unit, log1p_unit, exact_log1p_unit, 1.4)
MATH_TEST(test_expm1, vf_expm1, expm1, 1.5)
MATH_TEST(test_log, vf_log, log, 0.83)
MATH_TEST(test_log1p, vf_log1p, log1p, 1.4)
MATH_TEST(test_tanh, vf_tanh, tanh, 2.5)
MATH_TEST(test_sigmoid, vf_sigmoid, exact_sigmoid, 2.3)
MATH_TEST(test_softplus, vf_softplus, exact_softplus, 1.7)
MATH_TEST(test_normal, normal, exact_normal, 70.0)
MATH_TEST(test_density, density, exact_density, 70.0)

static void test_normal_near(void)
{
    sweep("normal", normal, exact_normal, 5.0f, 10.0);
    sweep("density", density, exact_density, 5.0f, 10.0);
}

#endif
