/* The NEON vocabulary, and simd/math.h in it. */
#include "simd_main.h"

#if defined(CNN_HAVE_NEON)

#include "simd/neon.h"

#include "simd_cases.h"

int main(int argc, char **argv)
{
    return simd_main("neon", argc, argv, simd_tests, TEST_COUNT(simd_tests));
}

#else

int main(void)
{
    puts("this build has no NEON");
    return 0;
}

#endif
