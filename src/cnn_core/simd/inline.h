/* What kernels ask of the compiler.
 *
 * VF_INLINE: a function that is inlined into every caller, so that its arguments which are constants there unroll its loops
 * and its small arrays of vectors live in registers.
 * VF_OUTLINE: a function of some length that is called where speed does not count, and is there once.
 * VF_APART: not inlined, so that the registers are all its own.
 * VF_UNROLL: before a short loop of constant length, which is unrolled before gcc looks for arrays that can live in registers:
 * loops that no other one holds it would unroll too late, and keep the array in memory beside them. Not where code is to be small.
 * VF_FETCH, VF_FETCH_WRITE: p's line of cache will be read, or written, in a moment: into the first-level cache with it.
 * VF_FETCH_SOON: it will be read later: into the second-level cache. p may be any address. */
#ifndef CNN_SIMD_INLINE_H
#define CNN_SIMD_INLINE_H

#if defined(__GNUC__)
#define VF_INLINE static inline __attribute__((always_inline))
#define VF_APART __attribute__((noinline))
#define VF_OUTLINE static VF_APART __attribute__((unused))
#if defined(__OPTIMIZE_SIZE__)
#define VF_UNROLL
#elif defined(__clang__)
#define VF_UNROLL _Pragma("unroll")
#else
#define VF_UNROLL _Pragma("GCC unroll 16")
#endif
#define VF_FETCH(p) __builtin_prefetch((p), 0, 3)
#define VF_FETCH_WRITE(p) __builtin_prefetch((p), 1, 3)
#define VF_FETCH_SOON(p) __builtin_prefetch((p), 0, 2)
#else
#define VF_APART
#define VF_UNROLL
#define VF_OUTLINE static inline
#if defined(_MSC_VER)
#define VF_INLINE static __forceinline
#else
#define VF_INLINE static inline
#endif
#define VF_FETCH(p) ((void)(p))
#define VF_FETCH_WRITE(p) ((void)(p))
#define VF_FETCH_SOON(p) ((void)(p))
#endif

#endif
