/* The vector vocabulary, one lane wide: what runs where no ISA of ours does, and what the words mean.
 *
 * vf is a vector of VF_WIDTH floats, vm a lane mask, vi a vector of VF_WIDTH int32. Loads and stores take any alignment of
 * float. A `_tail` word touches only the first n lanes' memory, 0 <= n <= VF_WIDTH; the other lanes load as zero. */
#ifndef CNN_SIMD_SCALAR_H
#define CNN_SIMD_SCALAR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define VF_WIDTH 1
#define VF_REGISTERS 16 /* how many vf the ISA holds at once: for kernels that choose the size of their tiles */

typedef float vf;
typedef bool vm;
typedef int32_t vi;

static inline vf vf_zero(void) { return 0.0f; }
static inline vf vf_set1(float x) { return x; }
static inline vf vf_load(const float *p) { return *p; }
static inline void vf_store(float *p, vf a) { *p = a; }
static inline void vf_stream(float *p, vf a) { *p = a; } /* past the caches where possible; p aligned to the vector */
static inline void vf_stream_end(void) {}                /* after the last vf_stream of a task */
static inline vf vf_load_tail(const float *p, int n) { return n > 0 ? *p : 0.0f; }
static inline vf vf_load_tail_or(const float *p, int n, vf rest) { return n > 0 ? *p : rest; } /* rest past the end */
static inline void vf_store_tail(float *p, vf a, int n)
{
    if (n > 0) *p = a;
}
/* The same for less than a vector, inlined. */
#define vf_store_part vf_store_tail

/* to[r * row + c] = p[c * stride + r], r < 4, c < VF_WIDTH: four rows of a matrix turned around. */
static inline void vf_turn4(const float *p, int64_t stride, float *to, int64_t row)
{
    (void)stride;
    for (int r = 0; r < 4; r++) to[r * row] = p[r];
}

static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
static inline vf vf_fmadd(vf a, vf b, vf c) { return a * b + c; }  /* a b + c, rounded once where the ISA can */
static inline vf vf_fnmadd(vf a, vf b, vf c) { return c - a * b; } /* c - a b */
static inline vf vf_sqrt(vf a) { return sqrtf(a); }
static inline vf vf_abs(vf a) { return fabsf(a); }
static inline vf vf_neg(vf a) { return -a; }
static inline vf vf_copysign(vf magnitude, vf sign) { return copysignf(magnitude, sign); }
/* NaN if either is NaN, on every ISA. */
static inline vf vf_max(vf a, vf b) { return a > b || a != a ? a : b; }
static inline vf vf_min(vf a, vf b) { return a < b || a != a ? a : b; }
/* a within [low, high]; NaN stays NaN. */
static inline vf vf_clamp(vf a, vf low, vf high) { return a < low ? low : (a > high ? high : a); }

/* Comparisons with NaN are false. */
static inline vm vf_gt(vf a, vf b) { return a > b; }
static inline vm vf_ge(vf a, vf b) { return a >= b; }
static inline vm vf_lt(vf a, vf b) { return a < b; }
static inline vm vf_le(vf a, vf b) { return a <= b; }
static inline vm vf_eq(vf a, vf b) { return a == b; }
static inline vm vf_isnan(vf a) { return a != a; }
static inline vm vm_and(vm a, vm b) { return a && b; }
static inline vm vm_or(vm a, vm b) { return a || b; }
static inline vm vm_not(vm a) { return !a; }
static inline vf vf_select(vm m, vf yes, vf no) { return m ? yes : no; }

static inline float vf_sum(vf a) { return a; } /* the lanes' sum, in one fixed order */
static inline float vf_max_lane(vf a) { return a; } /* the largest lane; NaN if any is */

static inline vi vi_set1(int32_t x) { return x; }
static inline vi vi_load(const int32_t *p) { return *p; }
static inline vi vi_load_tail(const int32_t *p, int n) { return n > 0 ? *p : 0; }
static inline void vi_store(int32_t *p, vi a) { *p = a; }
static inline void vi_store_tail(int32_t *p, vi a, int n)
{
    if (n > 0) *p = a;
}
static inline vm vi_eq(vi a, vi b) { return a == b; }
static inline vi vi_select(vm m, vi yes, vi no) { return m ? yes : no; }
static inline vi vi_add(vi a, vi b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
static inline vi vi_sub(vi a, vi b) { return (int32_t)((uint32_t)a - (uint32_t)b); }
static inline vi vi_and(vi a, vi b) { return a & b; }
static inline vi vi_xor(vi a, vi b) { return a ^ b; }
/* The lower halves of the 64-bit products of unsigned lanes; *high gets the upper ones. */
static inline vi vi_mul_wide(vi a, vi b, vi *high)
{
    const uint64_t product = (uint64_t)(uint32_t)a * (uint32_t)b;
    *high = (vi)(uint32_t)(product >> 32);
    return (vi)(uint32_t)product;
}
static inline vm vi_below(vi a, vi b) { return (uint32_t)a < (uint32_t)b; } /* unsigned */
static inline vi vi_shl(vi a, int bits) { return (int32_t)((uint32_t)a << bits); }
static inline vi vi_shr(vi a, int bits) { return (int32_t)((uint32_t)a >> bits); } /* zeros come in */
static inline vf vf_of_vi(vi a) { return (float)a; }
static inline vf vf_bits(vi a)
{
    float f;
    memcpy(&f, &a, sizeof f);
    return f;
}
static inline vi vi_bits(vf a)
{
    int32_t i;
    memcpy(&i, &a, sizeof i);
    return i;
}

#endif
