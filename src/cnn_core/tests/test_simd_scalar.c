/* The scalar vocabulary, and simd/math.h in it. */
#include "simd_main.h"

#include "simd/scalar.h"

#include "simd_cases.h"

int main(int argc, char **argv)
{
    return simd_main("scalar", argc, argv, simd_tests, TEST_COUNT(simd_tests));
}
