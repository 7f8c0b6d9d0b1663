/* simd/math.h in the AVX2 vocabulary, where build and CPU have it. */
#include <stdio.h>
#include <string.h>

#include "cnn_core.h"

#if defined(CNN_HAVE_AVX2)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#include "simd/avx2.h"

#include "math_cases.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

int main(int argc, char **argv)
{
    if (strstr(cnn_available_isas(), "avx2") == NULL) {
        puts("this CPU has no AVX2");
        return 0;
    }
    return test_main(argc, argv, math_tests, TEST_COUNT(math_tests));
}

#else

int main(void)
{
    puts("this build has no AVX2");
    return 0;
}

#endif
