/* Random initial values: a pure function of (seed, stream, element), the same on every ISA and at any number of threads. A
 * float32 number is the rounded float64 number. */
#include <math.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/status.h"
#include "thread/thread.h"

#define FILL_BLOCK 4096 /* a multiple of CNN_RANDOM_GROUP */

typedef struct fill_work {
    cnn_dtype dtype;
    int64_t n;
    void *dst;
    double a, b; /* low and high, or mean and std */
    cnn_random_stream stream;
    void (*group)(const struct fill_work *work, const uint32_t words[CNN_RANDOM_GROUP],
                  double value[CNN_RANDOM_GROUP]);
} fill_work;

static const double per_word = 1.0 / 4294967296.0;

/* The largest number of the dtype below `high`; rounding may otherwise reach it. */
static double below(cnn_dtype dtype, double high)
{
    if (dtype == CNN_FLOAT64) return nextafter(high, -(double)INFINITY);
    const float rounded = (float)high;
    return (double)((double)rounded < high ? rounded : nextafterf(rounded, -INFINITY));
}

static void uniform_group(const fill_work *work, const uint32_t words[CNN_RANDOM_GROUP],
                          double value[CNN_RANDOM_GROUP])
{
    const double last = work->a < work->b ? below(work->dtype, work->b) : work->a;
    for (int i = 0; i < CNN_RANDOM_GROUP; i++) {
        value[i] = work->a + (work->b - work->a) * ((double)words[i] * per_word);
        if (!(value[i] <= last)) value[i] = last;
    }
}

/* Box and Muller, "A note on the generation of random normal deviates", Annals of Mathematical Statistics 29 (1958): two
 * uniform numbers, the first in (0, 1), give two normal ones. */
static void normal_group(const fill_work *work, const uint32_t words[CNN_RANDOM_GROUP], double value[CNN_RANDOM_GROUP])
{
    const double two_pi = 6.283185307179586477;
    for (int i = 0; i < CNN_RANDOM_GROUP / 2; i++) {
        const double radius = sqrt(-2 * log(((double)words[i] + 0.5) * per_word));
        const double angle = two_pi * ((double)words[i + CNN_RANDOM_GROUP / 2] * per_word);
        value[i] = work->a + work->b * (radius * cos(angle));
        value[i + CNN_RANDOM_GROUP / 2] = work->a + work->b * (radius * sin(angle));
    }
}

static void fill_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const fill_work *work = arg;
    const int64_t end = cnn_min_i64((task + 1) * FILL_BLOCK, work->n);
    for (int64_t i = task * FILL_BLOCK; i < end; i += CNN_RANDOM_GROUP) {
        uint32_t words[CNN_RANDOM_GROUP];
        double value[CNN_RANDOM_GROUP];
        cnn_random_words(&work->stream, (uint64_t)i / CNN_RANDOM_GROUP, words);
        work->group(work, words, value);
        const int64_t count = cnn_min_i64(CNN_RANDOM_GROUP, end - i);
        if (work->dtype == CNN_FLOAT64)
            for (int64_t j = 0; j < count; j++) ((double *)work->dst)[i + j] = value[j];
        else
            for (int64_t j = 0; j < count; j++) ((float *)work->dst)[i + j] = (float)value[j];
    }
}

static cnn_status fill(fill_work *work)
{
    if (work->dtype != CNN_FLOAT32 && work->dtype != CNN_FLOAT64)
        return cnn_fail(CNN_INVALID_TYPE, "dtype: got %s, expected float32 or float64", cnn_dtype_name(work->dtype));
    if (work->n < 0) return cnn_fail(CNN_INVALID_VALUE, "n: got %lld, expected >= 0", (long long)work->n);
    if (work->n > 0 && work->dst == NULL) return cnn_fail(CNN_INVALID_VALUE, "dst: got NULL");
    const int32_t threads = cnn_useful_threads(cnn_get_num_threads(), 20.0 * (double)work->n);
    cnn_parallel(threads, cnn_ceil_div(work->n, FILL_BLOCK), fill_task, work);
    return CNN_OK;
}

static cnn_status check_finite(const char *name, double value)
{
    if (isfinite(value)) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "%s: got %g, expected a finite number", name, value);
}

cnn_status cnn_fill_uniform(cnn_dtype dtype, int64_t n, void *dst, double low, double high, uint64_t seed,
                            uint64_t stream)
{
    CNN_TRY(check_finite("low", low));
    CNN_TRY(check_finite("high", high));
    if (low > high) return cnn_fail(CNN_INVALID_VALUE, "high: got %g, expected at least low, %g", high, low);
    CNN_TRY(check_finite("high - low", high - low));
    fill_work work = {dtype, n, dst, low, high, {.seed = seed, .low = stream}, uniform_group};
    return fill(&work);
}

cnn_status cnn_fill_normal(cnn_dtype dtype, int64_t n, void *dst, double mean, double std, uint64_t seed,
                           uint64_t stream)
{
    CNN_TRY(check_finite("mean", mean));
    CNN_TRY(check_finite("std", std));
    if (std < 0) return cnn_fail(CNN_INVALID_VALUE, "std: got %g, expected >= 0", std);
    fill_work work = {dtype, n, dst, mean, std, {.seed = seed, .low = stream}, normal_group};
    return fill(&work);
}
