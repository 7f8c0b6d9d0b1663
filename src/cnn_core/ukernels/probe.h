/* What the machine can do at best: the yardsticks of the benchmarks. */
#ifndef CNN_UKERNELS_PROBE_H
#define CNN_UKERNELS_PROBE_H

#include <stdint.h>

struct cnn_probe_kernels {
    /* Rounds of multiply-adds on as many independent sums as hide their latency; returns a number that depends on all.
     * A round is CNN_PROBE_SUMS vectors, two operations a lane. */
    float (*multiply_adds)(int64_t rounds);
    /* dst[i] = src[i], past the caches where the ISA can; both aligned to the vector, n a multiple of it. */
    void (*copy)(int64_t n, const float *src, float *dst);
};

#define CNN_PROBE_SUMS 12

#endif
