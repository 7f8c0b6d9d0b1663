/* Updates, norms and penalties of float64 parameters: scalar, in the order of operations that the papers have. */
#ifndef CNN_REF_UPDATE_H
#define CNN_REF_UPDATE_H

#include "cnn_core.h"
#include "ukernels/update.h"

/* As cnn_update_fn does, by the rule of `update`. States that the rule does not use are NULL. */
void cnn_ref_update(const cnn_update *update, const struct cnn_update_constants *k, int64_t n, const double *g, double *w,
                    double *state0, double *state1, double *state2);

/* out[0] = sum of |x|, out[1] = sum of x^2 */
void cnn_ref_sums(int64_t n, const double *x, double out[2]);
/* The largest |x|; NaN if any is. */
double cnn_ref_max_abs(int64_t n, const double *x);
/* x *= factor */
void cnn_ref_scale(int64_t n, double factor, double *x);
/* g += l1 sign(w) + l2 w */
void cnn_ref_penalty_gradient(int64_t n, double l1, double l2, const double *w, double *g);
/* w = sign(w) max(|w| - threshold, 0) */
void cnn_ref_soft_threshold(int64_t n, double threshold, double *w);

#endif
