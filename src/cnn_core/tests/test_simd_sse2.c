/* The SSE2 vocabulary, and simd/math.h in it. */
#include "simd_main.h"

#if defined(CNN_HAVE_SSE2)

#include "simd/sse2.h"

#include "simd_cases.h"

int main(int argc, char **argv)
{
    return simd_main("sse2", argc, argv, simd_tests, TEST_COUNT(simd_tests));
}

#else

int main(void)
{
    puts("this build has no SSE2");
    return 0;
}

#endif
