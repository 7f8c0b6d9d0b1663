/* Kernels of the losses: rows of class scores, and pairs of prediction and target. */
#ifndef CNN_UKERNELS_LOSS_H
#define CNN_UKERNELS_LOSS_H

#include <stdint.h>

/* *max = the largest of the c scores x, *sum = the sum of exp(x - max), so that log-sum-exp is max + log(sum). c >= 1. */
typedef void cnn_softmax_parts_fn(int64_t c, const float *x, float *max, float *sum);

/* Returns the sum of weights (x - max); weights NULL: all 1. */
typedef float cnn_weighted_gap_fn(int64_t c, const float *x, const float *weights, float max);

/* dst = scale exp(x - max) - smooth weights; weights NULL: all 1. */
typedef void cnn_softmax_gradient_fn(int64_t c, const float *x, float max, float scale, float smooth,
                                     const float *weights, float *dst);

/* The operands of an elementwise loss, dense. */
typedef struct cnn_loss_terms {
    const float *src, *targets;
    const float *weights, *pos_weights; /* binary cross-entropy; NULL: all 1 */
} cnn_loss_terms;

/* dst = the loss of each element. */
typedef void cnn_loss_values_fn(int64_t n, const cnn_loss_terms *terms, float *dst);

/* The derivative of each element's loss by src and by its target (each unless NULL), times scale and, unless that is NULL,
 * diff_dst. */
typedef void cnn_loss_gradient_fn(int64_t n, const cnn_loss_terms *terms, const float *diff_dst, float scale,
                                  float *diff_src, float *diff_targets);

enum { CNN_LOSS_MSE, CNN_LOSS_L1, CNN_LOSS_BCE, CNN_LOSS_COUNT };

struct cnn_loss_kernels {
    cnn_softmax_parts_fn *softmax_parts;
    cnn_weighted_gap_fn *weighted_gap;
    cnn_softmax_gradient_fn *softmax_gradient;
    cnn_loss_values_fn *values[CNN_LOSS_COUNT];
    cnn_loss_gradient_fn *gradient[CNN_LOSS_COUNT];
};

#endif
