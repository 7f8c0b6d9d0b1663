/* What the normalizations share: their sources, what forward saves, moments, layout changes. */
#ifndef CNN_OPS_NORM_H
#define CNN_OPS_NORM_H

#include "ops/check.h"

enum { NORM_SRC, NORM_WEIGHTS, NORM_BIAS, NORM_RUNNING_MEAN, NORM_RUNNING_VAR, NORM_NUM_BATCHES };

/* What forward saves for backward: the mean and the biased variance of each set of numbers normalized together, in
 * double whatever the working type, the means of all sets first. */
static inline size_t cnn_norm_saved_bytes(int64_t sets)
{
    return cnn_size_mul((size_t)sets, 2 * sizeof(double));
}

/* The workspace of a normalization whose own kernels need `bytes`. Its reference needs two sums for each set, and two
 * for each of the weights. */
static inline size_t cnn_norm_workspace(size_t bytes, int64_t sets, int64_t weights)
{
    const size_t reference = cnn_size_mul(cnn_size_add((size_t)sets, (size_t)weights), 2 * sizeof(double));
    return bytes > reference ? bytes : reference;
}

/* Fails unless src is an activation of the working type with min_rank to max_rank dimensions, and eps is finite and not
 * negative. */
cnn_status cnn_norm_check(const cnn_node *node, int32_t min_rank, int32_t max_rank);

/* Fails unless weight, bias and running statistics, where present, have one element for each channel of src; the
 * message calls that number `num_channels`. */
cnn_status cnn_norm_check_channels(const cnn_node *node, const char *num_channels);

/* Channels and numbers per channel of src (n, c, ...). */
int64_t cnn_norm_channels(const cnn_node *node);
int64_t cnn_norm_per_channel(const cnn_node *node);

/* Whether a result of `floats` goes past the caches: with `tensors` of its size passing through, none of it would be
 * left there. 32 MiB: a third-level cache. */
static inline bool cnn_norm_streams(int64_t floats, int64_t tensors)
{
    return floats >= (INT64_C(8) << 20) / tensors;
}

/* The number, the mean and the summed squared deviations from the mean of some numbers. */
typedef struct cnn_moments {
    double count, mean, m2;
} cnn_moments;

/* The moments of two sets together: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
 * sample variances", 1979. */
static inline cnn_moments cnn_moments_merge(cnn_moments a, cnn_moments b)
{
    const double count = a.count + b.count, delta = b.mean - a.mean, share = b.count / count;
    return (cnn_moments){count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share};
}

/* The biased variance. Rounding must not make it negative; NaN stays. */
static inline double cnn_moments_var(cnn_moments a)
{
    const double var = a.m2 / a.count;
    return var < 0.0 ? 0.0 : var;
}

/* Element i of a tensor of the node's working type. */
static inline double cnn_norm_number(const cnn_node *node, const void *from, int64_t i)
{
    return node->dtype == CNN_FLOAT64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

/* 1 / sqrt(var + eps) */
double cnn_norm_inverse_std(double var, double eps);

#endif
