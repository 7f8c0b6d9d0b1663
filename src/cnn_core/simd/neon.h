/* The vector vocabulary in NEON, as every AArch64 CPU has it: 4 lanes. What the words mean: scalar.h. */
#ifndef CNN_SIMD_NEON_H
#define CNN_SIMD_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>

#define VF_WIDTH 4
#define VF_REGISTERS 32

typedef float32x4_t vf;
typedef uint32x4_t vm;
typedef int32x4_t vi;

static inline vf vf_zero(void) { return vdupq_n_f32(0.0f); }
static inline vf vf_set1(float x) { return vdupq_n_f32(x); }
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline void vf_store(float *p, vf a) { vst1q_f32(p, a); }
static inline void vf_stream(float *p, vf a) { vst1q_f32(p, a); } /* no intrinsic stores past the caches */
static inline void vf_stream_end(void) {}
static inline vf vf_load_tail_or(const float *p, int n, vf rest)
{
    if (n > 0) rest = vld1q_lane_f32(p, rest, 0);
    if (n > 1) rest = vld1q_lane_f32(p + 1, rest, 1);
    if (n > 2) rest = vld1q_lane_f32(p + 2, rest, 2);
    return n > 3 ? vld1q_lane_f32(p + 3, rest, 3) : rest;
}
static inline vf vf_load_tail(const float *p, int n) { return vf_load_tail_or(p, n, vf_zero()); }
static inline void vf_store_tail(float *p, vf a, int n)
{
    if (n > 0) vst1q_lane_f32(p, a, 0);
    if (n > 1) vst1q_lane_f32(p + 1, a, 1);
    if (n > 2) vst1q_lane_f32(p + 2, a, 2);
    if (n > 3) vst1q_lane_f32(p + 3, a, 3);
}
#define vf_store_part vf_store_tail

static inline void vf_turn4(const float *p, int64_t stride, float *to, int64_t row)
{
    const float32x4_t a = vld1q_f32(p), b = vld1q_f32(p + stride);
    const float32x4_t c = vld1q_f32(p + 2 * stride), d = vld1q_f32(p + 3 * stride);
    const float64x2_t ab = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), cd = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
    const float64x2_t ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
    const float64x2_t cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
    vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(ab, cd)));
    vst1q_f32(to + row, vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd)));
    vst1q_f32(to + 2 * row, vreinterpretq_f32_f64(vtrn2q_f64(ab, cd)));
    vst1q_f32(to + 3 * row, vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd)));
}

static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf vf_fmadd(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf vf_fnmadd(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
static inline vf vf_sqrt(vf a) { return vsqrtq_f32(a); }
static inline vf vf_abs(vf a) { return vabsq_f32(a); }
static inline vf vf_neg(vf a) { return vnegq_f32(a); }
static inline vf vf_copysign(vf magnitude, vf sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
/* These give NaN if either is NaN. */
static inline vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
static inline vf vf_min(vf a, vf b) { return vminq_f32(a, b); }

static inline vf vf_clamp(vf a, vf low, vf high) { return vminq_f32(vmaxq_f32(a, low), high); }

static inline vm vf_gt(vf a, vf b) { return vcgtq_f32(a, b); }
static inline vm vf_ge(vf a, vf b) { return vcgeq_f32(a, b); }
static inline vm vf_lt(vf a, vf b) { return vcltq_f32(a, b); }
static inline vm vf_le(vf a, vf b) { return vcleq_f32(a, b); }
static inline vm vf_eq(vf a, vf b) { return vceqq_f32(a, b); }
static inline vm vf_isnan(vf a) { return vmvnq_u32(vceqq_f32(a, a)); }
static inline vm vm_and(vm a, vm b) { return vandq_u32(a, b); }
static inline vm vm_or(vm a, vm b) { return vorrq_u32(a, b); }
static inline vm vm_not(vm a) { return vmvnq_u32(a); }
static inline vf vf_select(vm m, vf yes, vf no) { return vbslq_f32(m, yes, no); }

static inline float vf_sum(vf a) { return vaddvq_f32(a); }
static inline float vf_max_lane(vf a) { return vmaxvq_f32(a); }

static inline vi vi_set1(int32_t x) { return vdupq_n_s32(x); }
static inline vi vi_load(const int32_t *p) { return vld1q_s32(p); }
static inline vi vi_load_tail(const int32_t *p, int n)
{
    vi a = vdupq_n_s32(0);
    if (n > 0) a = vld1q_lane_s32(p, a, 0);
    if (n > 1) a = vld1q_lane_s32(p + 1, a, 1);
    if (n > 2) a = vld1q_lane_s32(p + 2, a, 2);
    return n > 3 ? vld1q_lane_s32(p + 3, a, 3) : a;
}
static inline void vi_store(int32_t *p, vi a) { vst1q_s32(p, a); }
static inline void vi_store_tail(int32_t *p, vi a, int n)
{
    if (n > 0) vst1q_lane_s32(p, a, 0);
    if (n > 1) vst1q_lane_s32(p + 1, a, 1);
    if (n > 2) vst1q_lane_s32(p + 2, a, 2);
    if (n > 3) vst1q_lane_s32(p + 3, a, 3);
}
static inline vm vi_eq(vi a, vi b) { return vceqq_s32(a, b); }
static inline vi vi_select(vm m, vi yes, vi no) { return vbslq_s32(m, yes, no); }
static inline vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
static inline vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
static inline vi vi_and(vi a, vi b) { return vandq_s32(a, b); }
static inline vi vi_xor(vi a, vi b) { return veorq_s32(a, b); }
static inline vi vi_mul_wide(vi a, vi b, vi *high)
{
    const uint32x4_t ua = vreinterpretq_u32_s32(a), ub = vreinterpretq_u32_s32(b);
    const uint32x4_t low = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(ua), vget_low_u32(ub)));
    const uint32x4_t up = vreinterpretq_u32_u64(vmull_high_u32(ua, ub));
    *high = vreinterpretq_s32_u32(vuzp2q_u32(low, up));
    return vreinterpretq_s32_u32(vuzp1q_u32(low, up));
}
static inline vm vi_below(vi a, vi b) { return vcltq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)); }
static inline vi vi_shl(vi a, int bits) { return vshlq_s32(a, vdupq_n_s32(bits)); }
static inline vi vi_shr(vi a, int bits)
{
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-bits)));
}
static inline vf vf_of_vi(vi a) { return vcvtq_f32_s32(a); }
static inline vf vf_bits(vi a) { return vreinterpretq_f32_s32(a); }
static inline vi vi_bits(vf a) { return vreinterpretq_s32_f32(a); }

#endif
