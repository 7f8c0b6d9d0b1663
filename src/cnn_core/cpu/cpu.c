/* Which ISAs this CPU and its operating system run, and the kernel table to use. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cpu/kernels.h"

#if defined(CNN_HAVE_AVX2)
#if defined(_MSC_VER)
#include <intrin.h>
static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    int registers[4];
    __cpuidex(registers, (int)leaf, (int)subleaf);
    for (int i = 0; i < 4; i++) out[i] = (uint32_t)registers[i];
}
static uint64_t xgetbv0(void)
{
    return _xgetbv(0);
}
#else
#include <cpuid.h>
static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    if (!__get_cpuid_count(leaf, subleaf, &out[0], &out[1], &out[2], &out[3])) memset(out, 0, 4 * sizeof *out);
}
/* As an instruction, because the intrinsic wants a compiler flag that this file must not have. */
static uint64_t xgetbv0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
#endif

/* AVX needs the operating system to save the wide registers: CPUID alone does not tell. */
static bool has_avx2(void)
{
    uint32_t leaf1[4], leaf7[4];
    cpuid(1, 0, leaf1);
    const uint32_t osxsave = 1u << 27, avx = 1u << 28, fma = 1u << 12;
    if ((leaf1[2] & (osxsave | avx | fma)) != (osxsave | avx | fma)) return false;
    if ((xgetbv0() & 0x6) != 0x6) return false; /* SSE and AVX state */
    cpuid(7, 0, leaf7);
    return (leaf7[1] & (1u << 5)) != 0;
}
#endif

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
#if defined(CNN_HAVE_AVX2)
    {&cnn_kernels_avx2, has_avx2},
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
