/* The vector vocabulary in SSE2, as every x86-64 CPU has it: 4 lanes, no fused multiply-add. What the words mean: scalar.h. */
#ifndef CNN_SIMD_SSE2_H
#define CNN_SIMD_SSE2_H

#include <emmintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "simd/inline.h"

#define VF_WIDTH 4
#define VF_REGISTERS 16

typedef __m128 vf;
typedef __m128 vm;
typedef __m128i vi;

static inline vf vf_zero(void) { return _mm_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm_storeu_ps(p, a); }
static inline void vf_stream(float *p, vf a) { _mm_stream_ps(p, a); }
static inline void vf_stream_end(void) { _mm_sfence(); }
/* There are no masked loads and stores, and what stands for them is too long to be everywhere. */
VF_OUTLINE vf vf_load_tail(const float *p, int n)
{
    switch (n) {
    case 0: return _mm_setzero_ps();
    case 1: return _mm_load_ss(p);
    case 2: return _mm_setr_ps(p[0], p[1], 0.0f, 0.0f);
    case 3: return _mm_setr_ps(p[0], p[1], p[2], 0.0f);
    default: return _mm_loadu_ps(p);
    }
}
VF_OUTLINE void vf_store_tail(float *p, vf a, int n)
{
    if (n > 3) {
        _mm_storeu_ps(p, a);
        return;
    }
    if (n > 0) _mm_store_ss(p, a);
    if (n > 1) _mm_store_ss(p + 1, _mm_shuffle_ps(a, a, 1));
    if (n > 2) _mm_store_ss(p + 2, _mm_shuffle_ps(a, a, 2));
}
#define vf_store_part vf_store_tail

static inline void vf_turn4(const float *p, int64_t stride, float *to, int64_t row)
{
    const __m128 a = _mm_loadu_ps(p), b = _mm_loadu_ps(p + stride);
    const __m128 c = _mm_loadu_ps(p + 2 * stride), d = _mm_loadu_ps(p + 3 * stride);
    const __m128 ab = _mm_unpacklo_ps(a, b), cd = _mm_unpacklo_ps(c, d);
    const __m128 ab_high = _mm_unpackhi_ps(a, b), cd_high = _mm_unpackhi_ps(c, d);
    _mm_storeu_ps(to, _mm_movelh_ps(ab, cd));
    _mm_storeu_ps(to + row, _mm_movehl_ps(cd, ab));
    _mm_storeu_ps(to + 2 * row, _mm_movelh_ps(ab_high, cd_high));
    _mm_storeu_ps(to + 3 * row, _mm_movehl_ps(cd_high, ab_high));
}

static inline vf vf_add(vf a, vf b) { return _mm_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm_div_ps(a, b); }
static inline vf vf_fmadd(vf a, vf b, vf c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
static inline vf vf_fnmadd(vf a, vf b, vf c) { return _mm_sub_ps(c, _mm_mul_ps(a, b)); }
static inline vf vf_sqrt(vf a) { return _mm_sqrt_ps(a); }
static inline vf vf_abs(vf a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
static inline vf vf_neg(vf a) { return _mm_xor_ps(_mm_set1_ps(-0.0f), a); }

static inline vm vf_gt(vf a, vf b) { return _mm_cmpgt_ps(a, b); }
static inline vm vf_ge(vf a, vf b) { return _mm_cmpge_ps(a, b); }
static inline vm vf_lt(vf a, vf b) { return _mm_cmplt_ps(a, b); }
static inline vm vf_le(vf a, vf b) { return _mm_cmple_ps(a, b); }
static inline vm vf_eq(vf a, vf b) { return _mm_cmpeq_ps(a, b); }
static inline vm vf_isnan(vf a) { return _mm_cmpunord_ps(a, a); }
static inline vm vm_and(vm a, vm b) { return _mm_and_ps(a, b); }
static inline vm vm_or(vm a, vm b) { return _mm_or_ps(a, b); }
static inline vm vm_not(vm a) { return _mm_xor_ps(a, _mm_castsi128_ps(_mm_set1_epi32(-1))); }
static inline vf vf_select(vm m, vf yes, vf no) { return _mm_or_ps(_mm_and_ps(m, yes), _mm_andnot_ps(m, no)); }

static inline vf vf_copysign(vf magnitude, vf sign) { return vf_select(_mm_set1_ps(-0.0f), sign, magnitude); }
VF_OUTLINE vf vf_load_tail_or(const float *p, int n, vf rest)
{
    const __m128i inside = _mm_cmpgt_epi32(_mm_set1_epi32(n), _mm_setr_epi32(0, 1, 2, 3));
    return vf_select(_mm_castsi128_ps(inside), vf_load_tail(p, n), rest);
}

/* max_ps gives its second operand when either is NaN: that covers a NaN in b, the selection one in a. */
static inline vf vf_max(vf a, vf b) { return vf_select(vf_isnan(a), a, _mm_max_ps(a, b)); }
static inline vf vf_min(vf a, vf b) { return vf_select(vf_isnan(a), a, _mm_min_ps(a, b)); }
/* The second operand is the one that may be NaN. */
static inline vf vf_clamp(vf a, vf low, vf high) { return _mm_min_ps(high, _mm_max_ps(low, a)); }

static inline float vf_sum(vf a)
{
    vf s = _mm_add_ps(a, _mm_movehl_ps(a, a));
    s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

static inline float vf_max_lane(vf a)
{
    vf m = vf_max(a, _mm_shuffle_ps(a, a, 0x4e));
    m = vf_max(m, _mm_shuffle_ps(m, m, 0xb1));
    return _mm_cvtss_f32(m);
}

static inline vf vf_bits(vi a) { return _mm_castsi128_ps(a); }
static inline vi vi_bits(vf a) { return _mm_castps_si128(a); }
static inline vi vi_set1(int32_t x) { return _mm_set1_epi32(x); }
static inline vi vi_load(const int32_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
VF_OUTLINE vi vi_load_tail(const int32_t *p, int n)
{
    switch (n) {
    case 0: return _mm_setzero_si128();
    case 1: return _mm_cvtsi32_si128(p[0]);
    case 2: return _mm_setr_epi32(p[0], p[1], 0, 0);
    case 3: return _mm_setr_epi32(p[0], p[1], p[2], 0);
    default: return vi_load(p);
    }
}
static inline void vi_store(int32_t *p, vi a) { _mm_storeu_si128((__m128i *)(void *)p, a); }
VF_OUTLINE void vi_store_tail(int32_t *p, vi a, int n)
{
    if (n > 3) {
        vi_store(p, a);
        return;
    }
    if (n > 0) p[0] = _mm_cvtsi128_si32(a);
    if (n > 1) p[1] = _mm_cvtsi128_si32(_mm_shuffle_epi32(a, 1));
    if (n > 2) p[2] = _mm_cvtsi128_si32(_mm_shuffle_epi32(a, 2));
}
static inline vm vi_eq(vi a, vi b) { return vf_bits(_mm_cmpeq_epi32(a, b)); }
static inline vi vi_select(vm m, vi yes, vi no) { return vi_bits(vf_select(m, vf_bits(yes), vf_bits(no))); }
static inline vi vi_add(vi a, vi b) { return _mm_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm_and_si128(a, b); }
static inline vi vi_xor(vi a, vi b) { return _mm_xor_si128(a, b); }
static inline vi vi_mul_wide(vi a, vi b, vi *high)
{
    const __m128i even = _mm_mul_epu32(a, b);
    const __m128i odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), _mm_srli_epi64(b, 32));
    const __m128i upper = _mm_setr_epi32(0, -1, 0, -1);
    *high = _mm_or_si128(_mm_srli_epi64(even, 32), _mm_and_si128(odd, upper));
    return _mm_or_si128(_mm_andnot_si128(upper, even), _mm_slli_epi64(odd, 32));
}
static inline vm vi_below(vi a, vi b)
{
    const vi sign = _mm_set1_epi32(INT32_MIN); /* signed comparison is all there is */
    return _mm_castsi128_ps(_mm_cmpgt_epi32(_mm_xor_si128(b, sign), _mm_xor_si128(a, sign)));
}
static inline vi vi_shl(vi a, int bits) { return _mm_slli_epi32(a, bits); }
static inline vi vi_shr(vi a, int bits) { return _mm_srli_epi32(a, bits); }
static inline vf vf_of_vi(vi a) { return _mm_cvtepi32_ps(a); }

#endif
