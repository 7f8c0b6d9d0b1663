#include "ukernels/probe.h"

static float probe_multiply_adds(int64_t rounds)
{
    vf sum[CNN_PROBE_SUMS];
    const vf factor = vf_set1(0.999f), term = vf_set1(0.001f);
    for (int i = 0; i < CNN_PROBE_SUMS; i++) sum[i] = vf_set1((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CNN_PROBE_SUMS; i++) sum[i] = vf_fmadd(sum[i], factor, term);
    vf all = sum[0];
    for (int i = 1; i < CNN_PROBE_SUMS; i++) all = vf_add(all, sum[i]);
    return vf_sum(all);
}

static void probe_copy(int64_t n, const float *src, float *dst)
{
    for (int64_t i = 0; i < n; i += VF_WIDTH) vf_stream(dst + i, vf_load(src + i));
    vf_stream_end();
}

#define CNN_KERNELS_PROBE {.multiply_adds = probe_multiply_adds, .copy = probe_copy}
