/* The AVX-512 vocabulary, and simd/math.h in it. */
#include "simd_main.h"

#if defined(CNN_HAVE_AVX512)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma")
#endif

#include "simd/avx512.h"

#include "simd_cases.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

int main(int argc, char **argv)
{
    return simd_main("avx512", argc, argv, simd_tests, TEST_COUNT(simd_tests));
}

#else

int main(void)
{
    puts("this build has no AVX-512");
    return 0;
}

#endif
