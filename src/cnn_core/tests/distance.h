#ifndef CNN_TESTS_DISTANCE_H
#define CNN_TESTS_DISTANCE_H

#include <math.h>
#include <stdint.h>

/* The largest difference, as a share of the largest number. */
static inline double distance(const float *a, const float *b, int64_t count)
{
    double most = 0.0, largest = 1e-30;
    for (int64_t i = 0; i < count; i++) {
        const double off = fabs((double)a[i] - (double)b[i]);
        if (!(off <= most)) most = off;
        largest = fmax(largest, fabs((double)a[i]));
    }
    return most / largest;
}

#endif
