/* A small test harness. A test program is one file:
 *
 *     static void adds(void) { CHECK_INT(1 + 1, 2); }
 *
 *     int main(int argc, char **argv)
 *     {
 *         static const test_case tests[] = {TEST(adds)};
 *         return test_main(argc, argv, tests, TEST_COUNT(tests));
 *     }
 *
 * A failed CHECK reports and goes on, a failed REQUIRE leaves the test: for what the lines after it stand on. Arguments
 * are evaluated once. Command-line arguments select the tests whose names contain one of them.
 */
#ifndef CNN_TESTS_TEST_H
#define CNN_TESTS_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct test_case {
    const char *name;
    void (*run)(void);
} test_case;

#define TEST(function) {#function, function}
#define TEST_COUNT(tests) (sizeof(tests) / sizeof((tests)[0]))

#define CHECK(condition) ((void)test_true(__FILE__, __LINE__, #condition, (condition)))
#define CHECK_INT(actual, expected) test_int(__FILE__, __LINE__, #actual, (long long)(actual), (long long)(expected))
#define CHECK_STRING(actual, expected) test_string(__FILE__, __LINE__, #actual, (actual), (expected))
/* |actual - expected| <= tolerance; two NaNs and equal infinities agree. */
#define CHECK_NEAR(actual, expected, tolerance)                                                                        \
    test_near(__FILE__, __LINE__, #actual, (double)(actual), (double)(expected), (double)(tolerance))
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!test_true(__FILE__, __LINE__, #condition, (condition))) return;                                           \
    } while (0)

/* Failed checks of the test that runs. Checks belong on the main thread. */
static int test_failures;

static inline void test_fail(const char *file, int line)
{
    test_failures++;
    fprintf(stderr, "%s:%d: ", file, line);
}

static inline bool test_true(const char *file, int line, const char *text, bool condition)
{
    if (!condition) {
        test_fail(file, line);
        fprintf(stderr, "%s does not hold\n", text);
    }
    return condition;
}

static inline void test_int(const char *file, int line, const char *text, long long actual, long long expected)
{
    if (actual == expected) return;
    test_fail(file, line);
    fprintf(stderr, "%s is %lld, not %lld\n", text, actual, expected);
}

static inline void test_string(const char *file, int line, const char *text, const char *actual, const char *expected)
{
    if (actual != NULL && strcmp(actual, expected) == 0) return;
    test_fail(file, line);
    fprintf(stderr, "%s is \"%s\", not \"%s\"\n", text, actual == NULL ? "(null)" : actual, expected);
}

static inline void test_near(const char *file, int line, const char *text, double actual, double expected,
                             double tolerance)
{
    if (isnan(expected) ? isnan(actual) : actual == expected || fabs(actual - expected) <= tolerance) return;
    test_fail(file, line);
    fprintf(stderr, "%s is %.9g, not %.9g: off by %.3g, allowed %.3g\n", text, actual, expected,
            fabs(actual - expected), tolerance);
}

static inline bool test_selected(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i]) != NULL) return true;
    return argc < 2;
}

/* Runs the tests, prints "N passed, N failed", and returns main's exit status. */
static inline int test_main(int argc, char **argv, const test_case *tests, size_t count)
{
    int passed = 0, failed = 0;
    for (size_t i = 0; i < count; i++) {
        if (!test_selected(argc, argv, tests[i].name)) continue;
        test_failures = 0;
        tests[i].run();
        if (test_failures != 0) fprintf(stderr, "FAILED %s\n", tests[i].name);
        *(test_failures == 0 ? &passed : &failed) += 1;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 && passed != 0 ? 0 : 1;
}

#endif
