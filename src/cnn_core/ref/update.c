#include "ref/update.h"

#include <math.h>
#include <stddef.h>

static double sgd(const cnn_update *update, const struct cnn_update_constants *k, double gradient, double *velocity)
{
    if (velocity == NULL) return gradient;
    *velocity = k->momentum * *velocity + k->fresh * gradient;
    return update->nesterov ? gradient + k->momentum * *velocity : *velocity;
}

static double adam(const struct cnn_update_constants *k, double gradient, double *mean, double *square)
{
    *mean = k->beta1 * *mean + (1 - k->beta1) * gradient;
    *square = k->beta2 * *square + (1 - k->beta2) * gradient * gradient;
    return *mean / (sqrt(*square) * k->root_scale + k->eps);
}

static double rmsprop(const struct cnn_update_constants *k, double gradient, double *square, double *velocity,
                      double *mean)
{
    *square = k->beta2 * *square + (1 - k->beta2) * gradient * gradient;
    double variance = *square;
    if (mean != NULL) {
        *mean = k->beta2 * *mean + (1 - k->beta2) * gradient;
        variance -= *mean * *mean;
        if (variance < 0) variance = 0; /* by rounding */
    }
    const double step = gradient / (sqrt(variance) + k->eps);
    if (velocity == NULL) return step;
    return *velocity = k->momentum * *velocity + step;
}

/* Element i of a state, or NULL of one that is not used. */
static double *element(double *state, int64_t i)
{
    return state == NULL ? NULL : state + i;
}

void cnn_ref_update(const cnn_update *update, const struct cnn_update_constants *k, int64_t n, const double *g, double *w,
                    double *state0, double *state1, double *state2)
{
    for (int64_t i = 0; i < n; i++) {
        const double gradient = k->gradient_scale * g[i] + k->l2 * w[i];
        double direction = 0;
        switch (update->rule) {
        case CNN_SGD: direction = sgd(update, k, gradient, element(state0, i)); break;
        case CNN_ADAM:
        case CNN_ADAMW: direction = adam(k, gradient, state0 + i, state1 + i); break;
        case CNN_RMSPROP:
            direction = rmsprop(k, gradient, state0 + i, element(state1, i), element(state2, i));
            break;
        }
        w[i] = k->shrink * w[i] - k->rate * direction;
    }
}

void cnn_ref_sums(int64_t n, const double *x, double out[2])
{
    out[0] = out[1] = 0;
    for (int64_t i = 0; i < n; i++) {
        out[0] += fabs(x[i]);
        out[1] += x[i] * x[i];
    }
}

double cnn_ref_max_abs(int64_t n, const double *x)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(x[i]) <= most)) most = isnan(most) ? most : fabs(x[i]);
    return most;
}

void cnn_ref_scale(int64_t n, double factor, double *x)
{
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

void cnn_ref_penalty_gradient(int64_t n, double l1, double l2, const double *w, double *g)
{
    for (int64_t i = 0; i < n; i++) g[i] += (w[i] > 0 ? l1 : w[i] < 0 ? -l1 : 0) + l2 * w[i];
}

void cnn_ref_soft_threshold(int64_t n, double threshold, double *w)
{
    for (int64_t i = 0; i < n; i++) {
        const double shrunk = fabs(w[i]) - threshold;
        w[i] = copysign(shrunk < 0 ? 0 : shrunk, w[i]);
    }
}
