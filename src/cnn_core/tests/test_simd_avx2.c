/* The AVX2 vocabulary, and simd/math.h in it. */
#include "simd_main.h"

#if defined(CNN_HAVE_AVX2)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#include "simd/avx2.h"

#include "simd_cases.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

int main(int argc, char **argv)
{
    return simd_main("avx2", argc, argv, simd_tests, TEST_COUNT(simd_tests));
}

#else

int main(void)
{
    puts("this build has no AVX2");
    return 0;
}

#endif
