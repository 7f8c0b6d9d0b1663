/* simd/math.h in the scalar vocabulary. */
#include "simd/scalar.h"

#include "math_cases.h"

int main(int argc, char **argv)
{
    return test_main(argc, argv, math_tests, TEST_COUNT(math_tests));
}
