/* The vector vocabulary in AVX-512 (F, VL, BW, DQ): 16 lanes, masks in registers of their own. What the words mean: scalar.h. */
#ifndef CNN_SIMD_AVX512_H
#define CNN_SIMD_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define VF_WIDTH 16
#define VF_REGISTERS 32

typedef __m512 vf;
typedef __mmask16 vm;
typedef __m512i vi;

static inline vm vf_tail_mask(int n) { return (vm)((1u << n) - 1u); }

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline void vf_stream(float *p, vf a) { _mm512_stream_ps(p, a); }
static inline void vf_stream_end(void) { _mm_sfence(); }
static inline vf vf_load_tail(const float *p, int n) { return _mm512_maskz_loadu_ps(vf_tail_mask(n), p); }
static inline vf vf_load_tail_or(const float *p, int n, vf rest) { return _mm512_mask_loadu_ps(rest, vf_tail_mask(n), p); }
static inline void vf_store_tail(float *p, vf a, int n) { _mm512_mask_storeu_ps(p, vf_tail_mask(n), a); }
#define vf_store_part vf_store_tail

/* Half a vector, for a last one that is no fuller: processors that run a vector as two halves need half the time. */
#define VF_HALF 8
typedef __m256 vh;
static inline vh vh_low(vf a) { return _mm512_castps512_ps256(a); }
static inline vh vh_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vh_store(float *p, vh a) { _mm256_storeu_ps(p, a); }
static inline vh vh_fmadd(vh a, vh b, vh c) { return _mm256_fmadd_ps(a, b, c); }
static inline vh vh_clamp(vh a, vh low, vh high) { return _mm256_min_ps(high, _mm256_max_ps(low, a)); }

/* Four floats each from p, p + stride, p + 2 stride, p + 3 stride on. */
static inline vf vf_load_apart(const float *p, int64_t stride)
{
    vf a = _mm512_castps128_ps512(_mm_loadu_ps(p));
    a = _mm512_mask_broadcast_f32x4(a, 0x00f0, _mm_loadu_ps(p + stride));
    a = _mm512_mask_broadcast_f32x4(a, 0x0f00, _mm_loadu_ps(p + 2 * stride));
    return _mm512_mask_broadcast_f32x4(a, 0xf000, _mm_loadu_ps(p + 3 * stride));
}
static inline void vf_turn4(const float *p, int64_t stride, float *to, int64_t row)
{
    const vf a = vf_load_apart(p, 4 * stride), b = vf_load_apart(p + stride, 4 * stride);
    const vf c = vf_load_apart(p + 2 * stride, 4 * stride), d = vf_load_apart(p + 3 * stride, 4 * stride);
    const __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)), cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
    const __m512d ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b)), cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
    vf_store(to, _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)));
    vf_store(to + row, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    vf_store(to + 2 * row, _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high)));
    vf_store(to + 3 * row, _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high)));
}

static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fmadd(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_fnmadd(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf vf_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
static inline vf vf_neg(vf a) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), a); }
static inline vf vf_copysign(vf magnitude, vf sign)
{
    const vf bit = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(bit, magnitude), _mm512_and_ps(bit, sign));
}

static inline vm vf_gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline vm vf_ge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
static inline vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm vf_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vm vf_isnan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline vm vm_and(vm a, vm b) { return (vm)(a & b); }
static inline vm vm_or(vm a, vm b) { return (vm)(a | b); }
static inline vm vm_not(vm a) { return (vm)~a; }
static inline vf vf_select(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }

/* max_ps gives its second operand when either is NaN: that covers a NaN in b, the blend one in a. */
static inline vf vf_max(vf a, vf b) { return vf_select(vf_isnan(a), a, _mm512_max_ps(a, b)); }
static inline vf vf_min(vf a, vf b) { return vf_select(vf_isnan(a), a, _mm512_min_ps(a, b)); }
static inline vf vf_clamp(vf a, vf low, vf high) { return _mm512_min_ps(high, _mm512_max_ps(low, a)); }

static inline float vf_sum(vf a)
{
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

static inline float vf_max_lane(vf a)
{
    vf m = vf_max(a, _mm512_shuffle_f32x4(a, a, 0x4e));
    m = vf_max(m, _mm512_shuffle_f32x4(m, m, 0xb1));
    m = vf_max(m, _mm512_permute_ps(m, 0x4e));
    m = vf_max(m, _mm512_permute_ps(m, 0xb1));
    return _mm512_cvtss_f32(m);
}

static inline vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
static inline vi vi_load_tail(const int32_t *p, int n) { return _mm512_maskz_loadu_epi32(vf_tail_mask(n), p); }
static inline void vi_store(int32_t *p, vi a) { _mm512_storeu_si512(p, a); }
static inline void vi_store_tail(int32_t *p, vi a, int n) { _mm512_mask_storeu_epi32(p, vf_tail_mask(n), a); }
static inline vm vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a, b); }
static inline vi vi_select(vm m, vi yes, vi no) { return _mm512_mask_blend_epi32(m, no, yes); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
static inline vi vi_mul_wide(vi a, vi b, vi *high)
{
    const __m512i even = _mm512_mul_epu32(a, b);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    *high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    return _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
static inline vm vi_below(vi a, vi b) { return _mm512_cmplt_epu32_mask(a, b); }
static inline vi vi_shl(vi a, int bits) { return _mm512_slli_epi32(a, (unsigned)bits); }
static inline vi vi_shr(vi a, int bits) { return _mm512_srli_epi32(a, (unsigned)bits); }
static inline vf vf_of_vi(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vf vf_bits(vi a) { return _mm512_castsi512_ps(a); }
static inline vi vi_bits(vf a) { return _mm512_castps_si512(a); }

#endif
