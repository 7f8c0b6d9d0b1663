/* Where the tests of a vector vocabulary begin: in code that every CPU runs. */
#ifndef CNN_TESTS_SIMD_MAIN_H
#define CNN_TESTS_SIMD_MAIN_H

#include <stdio.h>
#include <string.h>

#include "cnn_core.h"
#include "test.h"

/* Runs the tests where `isa` is what the kernels run on: `make test` goes through all that there are. */
static inline int simd_main(const char *isa, int argc, char **argv, const test_case *tests, size_t count)
{
    if (strcmp(cnn_isa(), isa) != 0) {
        printf("only with CNN_FORCE_ISA=%s\n", isa);
        return 0;
    }
    return test_main(argc, argv, tests, count);
}

#endif
