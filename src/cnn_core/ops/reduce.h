/* Sums over the middle one of three axes, of a tensor or of the product of two. Same bits at any thread count: the axis is
 * cut into blocks by its length alone, blocks are summed in float and their sums, in order, in double. */
#ifndef CNN_OPS_REDUCE_H
#define CNN_OPS_REDUCE_H

#include "ops/op.h"

typedef struct cnn_reduction_space {
    int64_t outer, length, inner;
} cnn_reduction_space;

/* A factor of the summands: element (o, r, i) is data[o outer + r length + i inner]. */
typedef struct cnn_factor {
    const float *data;
    int64_t outer, length, inner; /* strides */
} cnn_factor;

size_t cnn_reduce_workspace(cnn_reduction_space space);

/* dst[o inner + i] = scale times the sum over r of a b, or of a alone where b.data is NULL. The innermost axis that is not
 * of length 1 (inner, or length where inner is 1) has stride 1 in a, and stride 1 or 0 in b. */
void cnn_reduce(const cnn_kernels *kernels, int32_t threads, cnn_reduction_space space, cnn_factor a, cnn_factor b,
                double scale, void *workspace, float *dst);

#endif
