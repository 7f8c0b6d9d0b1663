/* Denormals cost a hundred cycles each and say nothing: flush them to zero while kernels run. */
#ifndef CNN_THREAD_DENORMALS_H
#define CNN_THREAD_DENORMALS_H

#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>

typedef uint32_t cnn_float_control;

static inline cnn_float_control cnn_flush_denormals(void)
{
    const uint32_t before = _mm_getcsr();
    _mm_setcsr(before | 0x8040); /* flush-to-zero, denormals-are-zero */
    return before;
}

static inline void cnn_restore_denormals(cnn_float_control before)
{
    /* The exception flags raised meanwhile stay raised, as after any arithmetic. */
    _mm_setcsr(before | (_mm_getcsr() & 0x3f));
}

#elif defined(__aarch64__) && defined(__GNUC__)

typedef uint64_t cnn_float_control;

static inline cnn_float_control cnn_flush_denormals(void)
{
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (UINT64_C(1) << 24)));
    return before;
}

static inline void cnn_restore_denormals(cnn_float_control before)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
}

#else

typedef int cnn_float_control;

static inline cnn_float_control cnn_flush_denormals(void)
{
    return 0;
}

static inline void cnn_restore_denormals(cnn_float_control before)
{
    (void)before;
}

#endif
#endif
