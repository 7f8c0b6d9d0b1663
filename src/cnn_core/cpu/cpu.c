/* Which ISAs this CPU and its operating system run, and the kernel table to use. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cpu/kernels.h"

#if defined(CNN_HAVE_AVX2)

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
static void cpuid(uint32_t leaf, uint32_t out[4])
{
    int registers[4] = {0};
    __cpuid(registers, (int)(leaf & 0x80000000u));
    if ((uint32_t)registers[0] >= leaf) __cpuidex(registers, (int)leaf, 0);
    for (int i = 0; i < 4; i++) out[i] = (uint32_t)registers[i];
}
static uint64_t xgetbv0(void)
{
    return _xgetbv(0);
}
#else
#include <cpuid.h>
/* Zeros for a leaf that the CPU does not have. */
static void cpuid(uint32_t leaf, uint32_t out[4])
{
    if (!__get_cpuid_count(leaf, 0, &out[0], &out[1], &out[2], &out[3])) memset(out, 0, 4 * sizeof *out);
}
/* As an instruction, because the intrinsic wants a compiler flag that this file must not have. */
static uint64_t xgetbv0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
#endif

static bool all_set(uint64_t word, uint64_t bits)
{
    return (word & bits) == bits;
}

/* The states that the operating system saves, the bits of XCR0: wide registers that it does not save are not ours to use,
 * whatever CPUID tells. */
#define STATE_AVX 0x06u    /* xmm, ymm */
#define STATE_AVX512 0xe6u /* and opmask, zmm0-15's upper halves, zmm16-31 */

static bool saves(uint64_t state)
{
    uint32_t leaf1[4];
    cpuid(1, leaf1);
    return all_set(leaf1[2], 1u << 27) && all_set(xgetbv0(), state); /* OSXSAVE: xgetbv exists */
}

static bool has_avx2(void)
{
    uint32_t leaf1[4], leaf7[4];
    cpuid(1, leaf1);
    cpuid(7, leaf7);
    const uint32_t avx = 1u << 28, fma = 1u << 12, avx2 = 1u << 5;
    return saves(STATE_AVX) && all_set(leaf1[2], avx | fma) && all_set(leaf7[1], avx2);
}

#if defined(CNN_HAVE_AVX512)
static bool has_avx512(void)
{
    uint32_t leaf7[4];
    cpuid(7, leaf7);
    const uint32_t f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    return has_avx2() && saves(STATE_AVX512) && all_set(leaf7[1], f | dq | bw | vl);
}
#endif

#endif

#define USUAL_CACHE ((size_t)512 << 10)
#define MOST_CACHE ((size_t)2 << 20) /* more is shared by cores */

size_t cnn_core_cache(void)
{
    size_t bytes = 0;
#if defined(CNN_HAVE_AVX2)
    uint32_t leaf[4];
    cpuid(0x80000006u, leaf);
    bytes = (size_t)(leaf[2] >> 16) << 10;
#endif
    return bytes == 0 ? USUAL_CACHE : bytes < MOST_CACHE ? bytes : MOST_CACHE;
}

static bool always(void)
{
    return true;
}

/* Best last. */
static const struct {
    const cnn_kernels *kernels;
    bool (*available)(void);
} candidates[] = {
    {&cnn_kernels_scalar, always},
#if defined(CNN_HAVE_NEON)
    {&cnn_kernels_neon, always},
#endif
#if defined(CNN_HAVE_SSE2)
    {&cnn_kernels_sse2, always},
#endif
#if defined(CNN_HAVE_AVX2)
    {&cnn_kernels_avx2, has_avx2},
#endif
#if defined(CNN_HAVE_AVX512)
    {&cnn_kernels_avx512, has_avx512},
#endif
};
#define NUM_CANDIDATES ((int)(sizeof candidates / sizeof candidates[0]))

const char *cnn_available_isas(void)
{
    static char names[64]; /* the same text whoever writes it */
    char text[64] = "";
    for (int i = 0; i < NUM_CANDIDATES; i++) {
        if (!candidates[i].available()) continue;
        if (text[0] != '\0') strncat(text, " ", sizeof text - strlen(text) - 1);
        strncat(text, candidates[i].kernels->isa, sizeof text - strlen(text) - 1);
    }
    memcpy(names, text, sizeof names);
    return names;
}

static const cnn_kernels *choose(void)
{
    const char *forced = getenv("CNN_FORCE_ISA");
    const bool free_choice = forced == NULL || forced[0] == '\0';
    for (int i = NUM_CANDIDATES - 1; i >= 0; i--)
        if ((free_choice || strcmp(forced, candidates[i].kernels->isa) == 0) && candidates[i].available())
            return candidates[i].kernels;
    (void)cnn_fail(CNN_UNSUPPORTED, "CNN_FORCE_ISA: got \"%s\", this machine and build have: %s", forced,
                   cnn_available_isas());
    return NULL;
}

const cnn_kernels *cnn_kernels_get(void)
{
    static _Atomic(const cnn_kernels *) chosen;
    const cnn_kernels *kernels = atomic_load_explicit(&chosen, memory_order_acquire);
    if (kernels == NULL) {
        kernels = choose();
        atomic_store_explicit(&chosen, kernels, memory_order_release);
    }
    return kernels;
}

cnn_status cnn_initialize(void)
{
    return cnn_kernels_get() == NULL ? CNN_UNSUPPORTED : CNN_OK;
}

const char *cnn_isa(void)
{
    const cnn_kernels *kernels = cnn_kernels_get();
    return kernels == NULL ? "none" : kernels->isa;
}
