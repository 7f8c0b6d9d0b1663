/* Exponential, logarithm and their kin in the vector vocabulary: written once, for every ISA.
 *
 * The method is everywhere the classic one: reduce the argument to a short interval (Cody and Waite, "Software Manual for
 * the Elementary Functions", 1980), evaluate a polynomial there, and put the exponent back by integer arithmetic. The
 * polynomials are our own minimax fits (Remez exchange; coefficients rounded to float one after the other, the rest
 * refitted each time). The error beside each function is the largest that tests/math_cases.h finds against double precision,
 * in units of the last place, with or without FMA.
 *
 * All functions give NaN for NaN. Results that would be denormal may come out as zero. */
#ifndef CNN_SIMD_MATH_H
#define CNN_SIMD_MATH_H

#include <float.h>
#include <math.h>

#include "simd/inline.h"

/* x = n ln2 + r with |r| <= ln2 / 2. Adding 1.5 * 2^23 rounds x / ln2 to an integer and leaves n in the low bits of the sum,
 * so nothing is converted and lanes out of range stay harmless. The high part of ln2 has 15 bits: n times it is exact. */
VF_INLINE vf vf_exp_reduce(vf x, vf *r)
{
    const vf magic = vf_set1(0x1.8p23f);
    const vf shifted = vf_fmadd(x, vf_set1(0x1.715476p+0f), magic);
    const vf n = vf_sub(shifted, magic);
    *r = vf_fnmadd(n, vf_set1(0x1.7f7d1cp-20f), vf_fnmadd(n, vf_set1(0x1.62e4p-1f), x));
    return shifted;
}

/* e^r - 1 for |r| <= ln2 / 2, as r + r^2 q(r); error of the fit 3.2e-9 e^r, a twentieth of a unit in the last place. */
VF_INLINE vf vf_expm1_reduced(vf r)
{
    vf q = vf_set1(0x1.6ac73cp-10f);
    q = vf_fmadd(q, r, vf_set1(0x1.123dep-7f));
    q = vf_fmadd(q, r, vf_set1(0x1.555858p-5f));
    q = vf_fmadd(q, r, vf_set1(0x1.55548cp-3f));
    q = vf_fmadd(q, r, vf_set1(0x1.fffffcp-2f));
    return vf_fmadd(vf_mul(r, r), q, r);
}

/* e^x for x in [-88, 88.37] or NaN; zero where it would be below 2^-126.5. The scale is a factor of its own, so that NaN
 * stays what it is, and 0 at n = -127: nothing is compared. Error 1.1 ulp. */
VF_INLINE vf vf_exp_bounded(vf x)
{
    vf r;
    const vi n = vi_bits(vf_exp_reduce(x, &r));
    const vf scale = vf_bits(vi_shl(vi_add(n, vi_set1(127)), 23));
    return vf_fmadd(scale, vf_expm1_reduced(r), scale);
}

/* e^x for x up to 88.37 or NaN: what most users of exponentials need. */
VF_INLINE vf vf_exp_below(vf x, float high)
{
    return vf_exp_bounded(vf_clamp(x, vf_set1(-88.0f), vf_set1(high)));
}

/* e^x - 1 for x up to `high`, at most 88.37, or NaN; beyond, the value at `high`. Error 1.5 ulp. */
VF_INLINE vf vf_expm1_below(vf x, float high)
{
    vf r;
    const vi n = vi_bits(vf_exp_reduce(vf_clamp(x, vf_set1(-87.0f), vf_set1(high)), &r));
    const vf scale = vf_bits(vi_shl(vi_add(n, vi_set1(127)), 23));
    return vf_fmadd(scale, vf_expm1_reduced(r), vf_sub(scale, vf_set1(1.0f)));
}

/* e^x. Infinite above 88.72, zero below -87.33. Error 0.97 ulp. */
VF_INLINE vf vf_exp(vf x)
{
    vf r;
    const vf shifted = vf_exp_reduce(x, &r);
    const vf p = vf_add(vf_set1(1.0f), vf_expm1_reduced(r));
    /* n goes into the exponent field of p, which takes all of -126 .. 128; 2^n as a factor of its own would not. */
    vf y = vf_bits(vi_add(vi_bits(p), vi_shl(vi_bits(shifted), 23)));
    y = vf_select(vf_gt(x, vf_set1(0x1.62e42ep+6f)), vf_set1(INFINITY), y);
    y = vf_select(vf_lt(x, vf_set1(-0x1.5d589ep+6f)), vf_zero(), y);
    return vf_select(vf_isnan(x), x, y);
}

/* e^x - 1, accurate near zero. Error 1.5 ulp. */
VF_INLINE vf vf_expm1(vf x)
{
    /* Beyond these bounds the result is -1 or infinite; within them 2^(n-1) is a normal number. */
    x = vf_select(vf_lt(x, vf_set1(-30.0f)), vf_set1(-30.0f), x);
    x = vf_select(vf_gt(x, vf_set1(89.0f)), vf_set1(89.0f), x);
    vf r;
    const vf shifted = vf_exp_reduce(x, &r);
    const vf half_scale = vf_bits(vi_add(vi_shl(vi_bits(shifted), 23), vi_set1(126 << 23)));
    /* 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)): n = 128 must not overflow before its time. */
    const vf half = vf_fmadd(half_scale, vf_expm1_reduced(r), vf_sub(half_scale, vf_set1(0.5f)));
    return vf_add(half, half);
}

/* log(1 + f) + e ln2 for 1 + f in [sqrt(1/2), sqrt(2)], as f - f^2 / 2 + f^3 p(f) with ln2 in two parts, the high one so
 * short that e times it is exact; relative error of the fit 5.9e-9. */
VF_INLINE vf vf_log_reduced(vf f, vf e)
{
    const vf f2 = vf_mul(f, f);
    vf p = vf_set1(-0x1.38fbaep-4f);
    p = vf_fmadd(p, f, vf_set1(0x1.05713ap-3f));
    p = vf_fmadd(p, f, vf_set1(-0x1.0d81f2p-3f));
    p = vf_fmadd(p, f, vf_set1(0x1.22d684p-3f));
    p = vf_fmadd(p, f, vf_set1(-0x1.547234p-3f));
    p = vf_fmadd(p, f, vf_set1(0x1.99a034p-3f));
    p = vf_fmadd(p, f, vf_set1(-0x1.000228p-2f));
    p = vf_fmadd(p, f, vf_set1(0x1.555554p-2f));
    p = vf_mul(vf_mul(p, f), f2);
    p = vf_fmadd(e, vf_set1(0x1.7f7d1cp-20f), p);
    p = vf_fnmadd(vf_set1(0.5f), f2, p);
    return vf_fmadd(e, vf_set1(0x1.62e4p-1f), vf_add(f, p));
}

/* Splits x > 0 into m 2^e with m in [sqrt(1/2), sqrt(2)): biased holds e + 127, the result is m. */
VF_INLINE vf vf_split(vf x, vi *biased)
{
    const vi lowest = vi_set1(0x3f3504f3); /* the bits of sqrt(1/2) */
    const vi shifted = vi_add(vi_bits(x), vi_sub(vi_set1(0x3f800000), lowest));
    *biased = vi_shr(shifted, 23);
    return vf_bits(vi_add(vi_and(shifted, vi_set1(0x007fffff)), lowest));
}

/* Natural logarithm. Minus infinity at zero, as which denormals count, NaN below. Error 0.83 ulp. */
VF_INLINE vf vf_log(vf x)
{
    vi biased;
    const vf m = vf_split(x, &biased);
    vf y = vf_log_reduced(vf_sub(m, vf_set1(1.0f)), vf_of_vi(vi_sub(biased, vi_set1(127))));
    y = vf_select(vf_lt(x, vf_set1(INFINITY)), y, x);
    y = vf_select(vf_lt(x, vf_set1(FLT_MIN)), vf_set1(-INFINITY), y);
    return vf_select(vf_lt(x, vf_zero()), vf_set1(NAN), y);
}

/* log(1 + x), accurate near zero. Minus infinity at -1, NaN below. Error 1.4 ulp. */
VF_INLINE vf vf_log1p(vf x)
{
    const vf one = vf_set1(1.0f);
    vi biased;
    const vf m = vf_split(vf_add(one, x), &biased);
    /* 1 + f = (1 + x) 2^-e, from x itself so that the bits which rounding 1 + x lost stay; a large x loses none that
     * matter, and 2^-e might be denormal. */
    const vf scale = vf_bits(vi_shl(vi_sub(vi_set1(127 + 127), biased), 23));
    const vf f = vf_select(vf_gt(x, vf_set1(0x1p+30f)), vf_sub(m, one), vf_fmadd(x, scale, vf_sub(scale, one)));
    vf y = vf_log_reduced(f, vf_of_vi(vi_sub(biased, vi_set1(127))));
    y = vf_select(vf_lt(x, vf_set1(INFINITY)), y, x);
    y = vf_select(vf_le(x, vf_set1(-1.0f)), vf_set1(-INFINITY), y);
    return vf_select(vf_lt(x, vf_set1(-1.0f)), vf_set1(NAN), y);
}

/* log(1 + u) for u in [0, 1] or NaN. Error 1.4 ulp. */
VF_INLINE vf vf_log1p_unit(vf u)
{
    const vf one = vf_set1(1.0f);
    const vm halved = vf_gt(u, vf_set1(0x1.a8279ap-2f)); /* sqrt(2) - 1 */
    const vf f = vf_select(halved, vf_mul(vf_set1(0.5f), vf_sub(u, one)), u);
    return vf_log_reduced(f, vf_select(halved, one, vf_zero()));
}

/* Hyperbolic tangent, as (e^2x - 1) / (e^2x + 1). Error 2.5 ulp. */
VF_INLINE vf vf_tanh(vf x)
{
    const vf a = vf_abs(x);
    const vf e = vf_expm1_below(vf_add(a, a), 20.0f); /* where the result has long been 1 */
    return vf_copysign(vf_div(e, vf_add(e, vf_set1(2.0f))), x);
}

/* 1 / (1 + e^-x): its relative accuracy holds down to its smallest values. Error 2.3 ulp. */
VF_INLINE vf vf_sigmoid(vf x)
{
    const vf one = vf_set1(1.0f);
    return vf_div(one, vf_add(one, vf_exp_below(vf_neg(x), 88.37f)));
}

/* log(1 + e^-|x|): what softplus adds to max(x, 0). */
VF_INLINE vf vf_softplus_tail(vf x)
{
    return vf_log1p_unit(vf_exp_below(vf_neg(vf_abs(x)), 0.0f));
}

/* log(1 + e^x), as max(x, 0) + log(1 + e^-|x|). Error 1.7 ulp. */
VF_INLINE vf vf_softplus(vf x)
{
    return vf_add(vf_clamp(x, vf_zero(), vf_set1(INFINITY)), vf_softplus_tail(x));
}

/* The normal distribution: its function Phi(x) = (1 + erf(x / sqrt(2))) / 2, and its density as *density.
 * The tail Phi(-a) is e^(-a^2/2) g(a); g(a) / t is a polynomial in t = 1 / (1 + 0.34 a), for a <= 13.3, relative error of the
 * fit 2.6e-8. So the tail keeps its relative accuracy, but for what rounding the square does to the exponential: error
 * 10 ulp where |x| < 5, 70 ulp at the very end, where Phi(-13) is 6e-39. */
VF_INLINE vf vf_normal(vf x, vf *density)
{
    const vf one = vf_set1(1.0f);
    const vf a = vf_abs(x);
    const vf t = vf_div(one, vf_fmadd(vf_set1(0.34f), a, one));
    vf g = vf_set1(-0x1.b1cc14p-6f);
    g = vf_fmadd(g, t, vf_set1(0x1.211e34p-3f));
    g = vf_fmadd(g, t, vf_set1(-0x1.1b15d8p-2f));
    g = vf_fmadd(g, t, vf_set1(0x1.a580f8p-3f));
    g = vf_fmadd(g, t, vf_set1(-0x1.81e12cp-5f));
    g = vf_fmadd(g, t, vf_set1(0x1.dc7370p-4f));
    g = vf_fmadd(g, t, vf_set1(0x1.d6e6bep-4f));
    g = vf_fmadd(g, t, vf_set1(0x1.16d1e6p-3f));
    g = vf_fmadd(g, t, vf_set1(0x1.15bf56p-3f));
    const vf e = vf_exp_below(vf_mul(vf_set1(-0.5f), vf_mul(x, x)), 0.0f);
    *density = vf_mul(vf_set1(0x1.988454p-2f), e);
    const vf tail = vf_mul(vf_mul(g, t), e);
    return vf_select(vf_gt(x, vf_zero()), vf_sub(one, tail), tail);
}

#endif
