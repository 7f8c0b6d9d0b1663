/* The machine's peak and bandwidth, for benchmarks to give shares of. Not a part of the public interface. */
#ifndef CNN_OPS_PROBE_H
#define CNN_OPS_PROBE_H

#include <stdint.h>

/* Multiply-adds in registers on all threads, a fraction of a millisecond of them; returns how many operations that were. */
double cnn_probe_multiply_adds(void);
/* dst = src on all threads; both aligned to 64 bytes, n a multiple of 16. */
void cnn_probe_copy(int64_t n, const float *src, float *dst);

#endif
