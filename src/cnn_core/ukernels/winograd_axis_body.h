/* The matrices of Winograd convolution along one axis, for m results, 3 or 4, of stride 1 also 2: a constant in every caller
 * (ukernels/winograd.h). */
#include "simd/inline.h"
#include "ukernels/winograd.h"

/* ---- what both have: the points +-p, +-q ------------------------------------------------------------------------------- */

/* The first four of A: values at them of the polynomial with coefficients d. */
VF_INLINE void winograd_values(const float p, const float q, const int m, const vf *d, vf *t)
{
    const vf even_p = vf_fmadd(vf_set1(p * p), d[2], d[0]), even_q = vf_fmadd(vf_set1(q * q), d[2], d[0]);
    vf odd_p = vf_mul(vf_set1(p), d[1]), odd_q = vf_mul(vf_set1(q), d[1]);
    if (m == 4)
        odd_p = vf_fmadd(vf_set1(p * p * p), d[3], odd_p), odd_q = vf_fmadd(vf_set1(q * q * q), d[3], odd_q);
    t[0] = vf_add(even_p, odd_p);
    t[1] = vf_sub(even_p, odd_p);
    t[2] = vf_add(even_q, odd_q);
    t[3] = vf_sub(even_q, odd_q);
}

/* A^T of them, and of four results with infinity, t[4]. */
VF_INLINE void winograd_values_transposed(const float p, const float q, const int m, const vf *t, vf *y)
{
    const vf even_p = vf_add(t[0], t[1]), odd_p = vf_sub(t[0], t[1]);
    const vf even_q = vf_add(t[2], t[3]), odd_q = vf_sub(t[2], t[3]);
    y[0] = vf_add(even_p, even_q);
    y[1] = vf_fmadd(vf_set1(q), odd_q, vf_mul(vf_set1(p), odd_p));
    if (m > 2) y[2] = vf_fmadd(vf_set1(q * q), even_q, vf_mul(vf_set1(p * p), even_p));
    if (m == 4) y[3] = vf_fmadd(vf_set1(q * q * q), odd_q, vf_fmadd(vf_set1(p * p * p), odd_p, t[4]));
}

/* ---- stride 1: the points +-p, +-q, infinity, 0, and powers ---------------------------------------------------------- */

#define UNIT_P 0.75f
#define UNIT_Q 1.5f
#define UNIT_PP 0.5625f
#define UNIT_QQ 2.25f
#define UNIT_PP_QQ 2.8125f  /* p^2 + q^2 */
#define UNIT_PPQQ 1.265625f /* p^2 q^2 */
/* G divides by prod (point - other points): 2 p^2 (p^2 - q^2), 2 q^2 (q^2 - p^2), p^2 q^2. */
#define UNIT_GP (-1.0f / 1.8984375f)
#define UNIT_GQ (1.0f / 7.59375f)
#define UNIT_G0 (1.0f / 1.265625f)

/* B^T. Its rows are the coefficients of prod (x - other points), times the point itself where 0 is none of the points:
 * G divides by that factor too. */
VF_INLINE void unit_b(const int m, const vf *d, vf *t)
{
    const vf p = vf_set1(UNIT_P), q = vf_set1(UNIT_Q), pp = vf_set1(UNIT_PP), qq = vf_set1(UNIT_QQ);
    const vf pp_qq = vf_set1(UNIT_PP_QQ), ppqq = vf_set1(UNIT_PPQQ);
    vf even_p, even_q, odd_p, odd_q;
    if (m == 4) {
        even_p = vf_fnmadd(qq, d[2], d[4]), odd_p = vf_mul(p, vf_fnmadd(qq, d[1], d[3]));
        even_q = vf_fnmadd(pp, d[2], d[4]), odd_q = vf_mul(q, vf_fnmadd(pp, d[1], d[3]));
        t[4] = vf_fmadd(ppqq, d[1], vf_fnmadd(pp_qq, d[3], d[5]));
        t[5] = vf_fmadd(ppqq, d[0], vf_fnmadd(pp_qq, d[2], d[4]));
    } else {
        even_p = vf_mul(pp, vf_fnmadd(qq, d[0], d[2])), odd_p = vf_mul(p, vf_fnmadd(qq, d[1], d[3]));
        even_q = vf_mul(qq, vf_fnmadd(pp, d[0], d[2])), odd_q = vf_mul(q, vf_fnmadd(pp, d[1], d[3]));
        if (m == 3) t[4] = vf_fmadd(ppqq, d[0], vf_fnmadd(pp_qq, d[2], d[4]));
    }
    t[0] = vf_add(even_p, odd_p);
    t[1] = vf_sub(even_p, odd_p);
    t[2] = vf_add(even_q, odd_q);
    t[3] = vf_sub(even_q, odd_q);
}

/* A. */
VF_INLINE void unit_a(const int m, const vf *d, vf *t)
{
    winograd_values(UNIT_P, UNIT_Q, m, d, t);
    t[4] = d[m - 1];
    if (m == 4) t[5] = d[0];
}

/* A^T. */
VF_INLINE void unit_a_transposed(const int m, const vf *t, vf *y)
{
    winograd_values_transposed(UNIT_P, UNIT_Q, m, t, y);
    if (m == 3) y[2] = vf_add(y[2], t[4]);
    if (m == 4) y[0] = vf_add(y[0], t[5]);
}

VF_INLINE void unit_g(const vf g[3], vf t[CNN_WINOGRAD_POINTS])
{
    const vf gp = vf_set1(UNIT_GP), gq = vf_set1(UNIT_GQ);
    const vf even_p = vf_mul(gp, vf_fmadd(vf_set1(UNIT_PP), g[2], g[0]));
    const vf even_q = vf_mul(gq, vf_fmadd(vf_set1(UNIT_QQ), g[2], g[0]));
    const vf odd_p = vf_mul(vf_set1(UNIT_GP * UNIT_P), g[1]);
    const vf odd_q = vf_mul(vf_set1(UNIT_GQ * UNIT_Q), g[1]);
    t[0] = vf_add(even_p, odd_p);
    t[1] = vf_sub(even_p, odd_p);
    t[2] = vf_add(even_q, odd_q);
    t[3] = vf_sub(even_q, odd_q);
    t[4] = g[2];
    t[5] = vf_mul(vf_set1(UNIT_G0), g[0]);
}

/* G by rows. */
static const float unit_g_rows[CNN_WINOGRAD_POINTS][3] = {
    {UNIT_GP, UNIT_GP * UNIT_P, UNIT_GP * UNIT_PP},
    {UNIT_GP, -UNIT_GP * UNIT_P, UNIT_GP * UNIT_PP},
    {UNIT_GQ, UNIT_GQ * UNIT_Q, UNIT_GQ * UNIT_QQ},
    {UNIT_GQ, -UNIT_GQ * UNIT_Q, UNIT_GQ * UNIT_QQ},
    {0.0f, 0.0f, 1.0f},
    {UNIT_G0, 0.0f, 0.0f},
};

/* G^T. */
VF_INLINE void unit_g_transposed(const vf s[CNN_WINOGRAD_POINTS], vf g[3])
{
    const vf even_p = vf_mul(vf_set1(UNIT_GP), vf_add(s[0], s[1]));
    const vf even_q = vf_mul(vf_set1(UNIT_GQ), vf_add(s[2], s[3]));
    const vf odd_p = vf_mul(vf_set1(UNIT_GP * UNIT_P), vf_sub(s[0], s[1]));
    const vf odd_q = vf_mul(vf_set1(UNIT_GQ * UNIT_Q), vf_sub(s[2], s[3]));
    g[0] = vf_fmadd(vf_set1(UNIT_G0), s[5], vf_add(even_p, even_q));
    g[1] = vf_add(odd_p, odd_q);
    g[2] = vf_fmadd(vf_set1(UNIT_QQ), even_q, vf_fmadd(vf_set1(UNIT_PP), even_p, s[4]));
}

/* ---- stride 2: the points +-p, +-q, infinity, and powers ------------------------------------------------------------- */

#define STRIDED_P 0.5f
#define STRIDED_Q 1.5f
#define STRIDED_PP 0.25f
#define STRIDED_QQ 2.25f
#define STRIDED_PP_QQ 2.5f  /* p^2 + q^2 */
#define STRIDED_PPQQ 0.5625f /* p^2 q^2 */
/* What G divides by: 2 p (p^2 - q^2), 2 q (q^2 - p^2). */
#define STRIDED_GP (-1.0f / 2.0f)
#define STRIDED_GQ (1.0f / 6.0f)

/* B^T of the sources d[0], d[step], ... */
VF_INLINE void strided_b(const int m, const vf *d, const int step, vf *t)
{
    const vf d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
    const vf pp = vf_set1(STRIDED_PP), qq = vf_set1(STRIDED_QQ);
    const vf even_p = vf_mul(vf_set1(STRIDED_P), vf_fnmadd(qq, d0, d2)), odd_p = vf_fnmadd(qq, d1, d3);
    const vf even_q = vf_mul(vf_set1(STRIDED_Q), vf_fnmadd(pp, d0, d2)), odd_q = vf_fnmadd(pp, d1, d3);
    t[0] = vf_add(odd_p, even_p);
    t[1] = vf_sub(odd_p, even_p);
    t[2] = vf_add(odd_q, even_q);
    t[3] = vf_sub(odd_q, even_q);
    if (m == 4) t[4] = vf_fmadd(vf_set1(STRIDED_PPQQ), d0, vf_fnmadd(vf_set1(STRIDED_PP_QQ), d2, d[4 * step]));
}

/* A. */
VF_INLINE void strided_a(const int m, const vf *d, vf *t)
{
    winograd_values(STRIDED_P, STRIDED_Q, m, d, t);
    if (m == 4) t[4] = d[3];
}

/* A^T. */
VF_INLINE void strided_a_transposed(const int m, const vf *t, vf *y)
{
    winograd_values_transposed(STRIDED_P, STRIDED_Q, m, t, y);
}

/* G by rows, the last for the middle tap. */
static const float strided_g_rows[CNN_WINOGRAD_POINTS][3] = {
    {STRIDED_GP, 0.0f, STRIDED_GP * STRIDED_P}, {-STRIDED_GP, 0.0f, STRIDED_GP * STRIDED_P},
    {STRIDED_GQ, 0.0f, STRIDED_GQ * STRIDED_Q}, {-STRIDED_GQ, 0.0f, STRIDED_GQ * STRIDED_Q},
    {0.0f, 0.0f, 1.0f},                         {0.0f, 1.0f, 0.0f},
};

VF_INLINE void strided_g(const vf g[3], vf t[CNN_WINOGRAD_POINTS])
{
    const vf first_p = vf_mul(vf_set1(STRIDED_GP), g[0]), last_p = vf_mul(vf_set1(STRIDED_GP * STRIDED_P), g[2]);
    const vf first_q = vf_mul(vf_set1(STRIDED_GQ), g[0]), last_q = vf_mul(vf_set1(STRIDED_GQ * STRIDED_Q), g[2]);
    t[0] = vf_add(last_p, first_p);
    t[1] = vf_sub(last_p, first_p);
    t[2] = vf_add(last_q, first_q);
    t[3] = vf_sub(last_q, first_q);
    t[4] = g[2];
    t[5] = g[1];
}

/* G^T. */
VF_INLINE void strided_g_transposed(const vf s[CNN_WINOGRAD_POINTS], vf g[3])
{
    g[0] = vf_fmadd(vf_set1(STRIDED_GQ), vf_sub(s[2], s[3]), vf_mul(vf_set1(STRIDED_GP), vf_sub(s[0], s[1])));
    g[1] = s[5];
    g[2] = vf_fmadd(vf_set1(STRIDED_GQ * STRIDED_Q), vf_add(s[2], s[3]),
                    vf_fmadd(vf_set1(STRIDED_GP * STRIDED_P), vf_add(s[0], s[1]), s[4]));
}
