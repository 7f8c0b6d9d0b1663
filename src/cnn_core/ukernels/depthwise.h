/* The inner loops of depthwise convolution, vectorised over channels. As in conv.h, source pixels are found through one
 * pointer per pixel and tap. */
#ifndef CNN_UKERNELS_DEPTHWISE_H
#define CNN_UKERNELS_DEPTHWISE_H

#include <stdbool.h>
#include <stdint.h>

/* The pixels and channels that one call works on. */
typedef struct cnn_depthwise_block {
    int64_t pixels, taps;
    int64_t first, channels; /* channels first .. first + channels - 1 */
    int64_t stride;          /* of taps in weights, diff_weights; a multiple of the vector */
    const float *const *src; /* [taps][pixels] */
} cnn_depthwise_block;

struct cnn_depthwise_kernels {
    /* dst[p][c] = bias[c] + sum over taps t of src[t][p][c] * weights[t * stride + c]. bias may be NULL. weights can be
     * read up to a whole vector. */
    void (*forward)(const cnn_depthwise_block *block, const float *weights, const float *bias, float *const *dst);

    /* diff_weights[t * stride + c] = (or, with `add`, +=) sum over pixels p of src[t][p][c] * diff_dst[p * pitch + c].
     * diff_weights is written up to a whole vector. */
    void (*backward_weights)(const cnn_depthwise_block *block, const float *diff_dst, int64_t pitch, bool add,
                             float *diff_weights);
};

#endif
