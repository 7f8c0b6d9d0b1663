/* VF_INLINE: a function that is inlined into every caller, so that its arguments which are constants there unroll
 * its loops and its small arrays of vectors live in registers.
 * VF_FETCH(p): p's cache line will be read soon: into the second-level cache with it. No line need be there. */
#ifndef CNN_SIMD_INLINE_H
#define CNN_SIMD_INLINE_H

#if defined(__GNUC__)
#define VF_INLINE static inline __attribute__((always_inline))
#define VF_FETCH(p) __builtin_prefetch((p), 0, 2)
#elif defined(_MSC_VER)
#define VF_INLINE static __forceinline
#define VF_FETCH(p) ((void)(p))
#else
#define VF_INLINE static inline
#define VF_FETCH(p) ((void)(p))
#endif

/* Fetches the line of cache at p, which may be any address, to be read or to be written. */
#if defined(__GNUC__)
#define VF_PREFETCH(p) __builtin_prefetch((p), 0, 3)
#define VF_PREFETCH_WRITE(p) __builtin_prefetch((p), 1, 3)
#else
#define VF_PREFETCH(p) ((void)(p))
#define VF_PREFETCH_WRITE(p) ((void)(p))
#endif

/* Fetches the line of cache at p into the second-level cache; p may be any address. */
#if defined(__GNUC__)
#define VF_PREFETCH(p) __builtin_prefetch((p), 0, 2)
#else
#define VF_PREFETCH(p) ((void)(p))
#endif

#endif
