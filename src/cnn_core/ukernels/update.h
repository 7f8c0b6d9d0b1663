/* Kernels of parameter updates, norms and penalties over a run of parameters. */
#ifndef CNN_UKERNELS_UPDATE_H
#define CNN_UKERNELS_UPDATE_H

#include <stdint.h>

/* What an update computes with, derived once per run of parameters. */
struct cnn_update_constants {
    double gradient_scale; /* negative when maximizing */
    double l2;             /* decay that is added to the gradient, times the weight */
    double shrink;         /* factor of the weight: decay that bypasses the gradient */
    double rate;           /* the weight moves by minus this times the direction; Adam: bias correction included */
    double momentum, fresh; /* velocity = momentum velocity + fresh gradient */
    double beta1, beta2;
    double root_scale;     /* Adam: 1 / sqrt(1 - beta2^step) */
    double eps;
};

/* Updates w and what it uses of the three states in one sweep, g being the gradient. */
typedef void cnn_update_fn(int64_t n, const struct cnn_update_constants *k, const float *g, float *w, float *state0,
                           float *state1, float *state2);

struct cnn_update_kernels {
    cnn_update_fn *sgd, *sgd_momentum, *sgd_nesterov;
    cnn_update_fn *adam; /* AdamW too */
    cnn_update_fn *rmsprop[2][2]; /* [centered][with momentum] */

    /* out[0] = sum of |x|, out[1] = sum of x^2; the same bits on every ISA */
    void (*sums)(int64_t n, const float *x, double out[2]);
    float (*max_abs)(int64_t n, const float *x);
    /* x *= factor */
    void (*scale)(int64_t n, float factor, float *x);
    /* g += l1 sign(w) + l2 w */
    void (*penalty_gradient)(int64_t n, float l1, float l2, const float *w, float *g);
    /* w = sign(w) max(|w| - threshold, 0) */
    void (*soft_threshold)(int64_t n, float threshold, float *w);
};

#endif
