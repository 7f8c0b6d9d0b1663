/* The vector vocabulary in AVX2 and FMA: 8 lanes. What the words mean: scalar.h. */
#ifndef CNN_SIMD_AVX2_H
#define CNN_SIMD_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "simd/inline.h"

#define VF_WIDTH 8
#define VF_REGISTERS 16

typedef __m256 vf;
typedef __m256 vm;
typedef __m256i vi;

static inline __m256i vf_tail_mask(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline void vf_stream(float *p, vf a) { _mm256_stream_ps(p, a); }
static inline void vf_stream_end(void) { _mm_sfence(); }
static inline vf vf_load_tail(const float *p, int n) { return _mm256_maskload_ps(p, vf_tail_mask(n)); }
static inline vf vf_load_tail_or(const float *p, int n, vf rest)
{
    return _mm256_blendv_ps(rest, vf_load_tail(p, n), _mm256_castsi256_ps(vf_tail_mask(n)));
}
/* In pieces: masked stores are microcode on AMD, some forty operations each. */
static inline void vf_store_part(float *p, vf a, int n)
{
    __m128 left = _mm256_castps256_ps128(a);
    if (n & 4) {
        _mm_storeu_ps(p, left);
        left = _mm256_extractf128_ps(a, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)(void *)p, left);
        left = _mm_movehl_ps(left, left);
        p += 2;
    }
    if (n & 1) _mm_store_ss(p, left);
}
/* Once for all, or it would be a hundredth of the wheel. */
VF_OUTLINE void vf_store_tail(float *p, vf a, int n)
{
    if (n == 8)
        _mm256_storeu_ps(p, a);
    else
        vf_store_part(p, a, n);
}

/* Four floats from p on, and four from p + stride on. */
static inline vf vf_load_apart(const float *p, int64_t stride)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1);
}
static inline void vf_turn4(const float *p, int64_t stride, float *to, int64_t row)
{
    const vf a = vf_load_apart(p, 4 * stride), b = vf_load_apart(p + stride, 4 * stride);
    const vf c = vf_load_apart(p + 2 * stride, 4 * stride), d = vf_load_apart(p + 3 * stride, 4 * stride);
    const __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b)), cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
    const __m256d ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b)), cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
    vf_store(to, _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)));
    vf_store(to + row, _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
    vf_store(to + 2 * row, _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high)));
    vf_store(to + 3 * row, _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high)));
}

static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_fmadd(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_fnmadd(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf vf_neg(vf a) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf vf_copysign(vf magnitude, vf sign)
{
    const vf bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}

static inline vm vf_gt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
static inline vm vf_ge(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
static inline vm vf_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm vf_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline vm vf_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vm vf_isnan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline vm vm_and(vm a, vm b) { return _mm256_and_ps(a, b); }
static inline vm vm_or(vm a, vm b) { return _mm256_or_ps(a, b); }
static inline vm vm_not(vm a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
static inline vf vf_select(vm m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }

/* max_ps gives its second operand when either is NaN: that covers a NaN in b, the blend one in a. */
static inline vf vf_max(vf a, vf b) { return vf_select(vf_isnan(a), a, _mm256_max_ps(a, b)); }
static inline vf vf_min(vf a, vf b) { return vf_select(vf_isnan(a), a, _mm256_min_ps(a, b)); }
static inline vf vf_clamp(vf a, vf low, vf high) { return _mm256_min_ps(high, _mm256_max_ps(low, a)); }

static inline float vf_sum(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

static inline float vf_max_lane(vf a)
{
    vf m = vf_max(a, _mm256_permute2f128_ps(a, a, 1));
    m = vf_max(m, _mm256_permute_ps(m, 0x4e));
    m = vf_max(m, _mm256_permute_ps(m, 0xb1));
    return _mm256_cvtss_f32(m);
}

static inline vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline vi vi_load_tail(const int32_t *p, int n) { return _mm256_maskload_epi32(p, vf_tail_mask(n)); }
static inline void vi_store(int32_t *p, vi a) { _mm256_storeu_si256((__m256i *)(void *)p, a); }
static inline void vi_store_tail(int32_t *p, vi a, int n) { _mm256_maskstore_epi32(p, vf_tail_mask(n), a); }
static inline vm vi_eq(vi a, vi b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)); }
static inline vi vi_select(vm m, vi yes, vi no) { return _mm256_blendv_epi8(no, yes, _mm256_castps_si256(m)); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
static inline vi vi_mul_wide(vi a, vi b, vi *high)
{
    const __m256i even = _mm256_mul_epu32(a, b);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
static inline vm vi_below(vi a, vi b)
{
    const vi sign = _mm256_set1_epi32(INT32_MIN); /* signed comparison is all there is */
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(b, sign), _mm256_xor_si256(a, sign)));
}
static inline vi vi_shl(vi a, int bits) { return _mm256_slli_epi32(a, bits); }
static inline vi vi_shr(vi a, int bits) { return _mm256_srli_epi32(a, bits); }
static inline vf vf_of_vi(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vf vf_bits(vi a) { return _mm256_castsi256_ps(a); }
static inline vi vi_bits(vf a) { return _mm256_castps_si256(a); }

#endif
