/* Kernels of elementwise functions over dense memory: activations, PReLU and dropout. They may work in place. */
#ifndef CNN_UKERNELS_ACTIVATION_H
#define CNN_UKERNELS_ACTIVATION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"
#include "cnn_core.h"

/* dst = f(src); alpha and beta as in cnn_attributes.activation. `stream`: stores past the caches, where dst is aligned to
 * CNN_ALIGNMENT and lies apart from src. */
typedef void cnn_activation_forward_fn(int64_t n, const float *src, float *dst, float alpha, float beta, bool stream);
/* diff_src = diff_dst f'(src). kept: dst for sigmoid and tanh, src for the others. */
typedef void cnn_activation_backward_fn(int64_t n, const float *kept, const float *diff_dst, float *diff_src, float alpha,
                                        float beta, bool stream);

struct cnn_activation_kernels {
    /* Indexed by cnn_activation. */
    cnn_activation_forward_fn *forward[CNN_ACTIVATION_COUNT];
    cnn_activation_backward_fn *backward[CNN_ACTIVATION_COUNT];

    /* PReLU, where element i has the slope slope[i % period]. */
    void (*prelu_forward)(int64_t n, int64_t period, const float *src, const float *slope, float *dst);
    void (*prelu_backward)(int64_t n, int64_t period, const float *src, const float *slope, const float *diff_dst,
                           float *diff_src);
    /* diff_slope[j] = sum over the elements i with i % period == j; in float: callers pass a few hundred periods. */
    void (*prelu_backward_slope)(int64_t n, int64_t period, const float *src, const float *diff_dst,
                                 float *diff_slope);

    /* dst[i] = src[i] times scale, or times 0 where the stream's word first + i is below `threshold`; `first` is a multiple of
     * CNN_RANDOM_GROUP. */
    void (*dropout)(int64_t first, int64_t n, const cnn_random_stream *stream, uint32_t threshold, float scale,
                    const float *src, float *dst);
};

#endif
