/* VF_INLINE: a function that is inlined into every caller, so that its arguments which are constants there unroll
 * its loops and its small arrays of vectors live in registers. */
#ifndef CNN_SIMD_INLINE_H
#define CNN_SIMD_INLINE_H

#if defined(__GNUC__)
#define VF_INLINE static inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define VF_INLINE static __forceinline
#else
#define VF_INLINE static inline
#endif

#endif
