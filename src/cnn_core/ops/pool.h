/* What max and average pooling share: the geometry of their windows. */
#ifndef CNN_OPS_POOL_H
#define CNN_OPS_POOL_H

#include "ops/op.h"

/* Checks the source and the attributes `pool` and sets dst_shape, by PyTorch's rules: the padding is at most half a
 * window; with ceil_mode the last window may hang over the edge, but begins inside the image or its left padding. */
cnn_status cnn_pool_infer(cnn_node *node);

/* The part of one window, along one axis, that lies inside the image. */
typedef struct cnn_span {
    int64_t first, count; /* positions first, first + dilation, ... */
} cnn_span;

static inline cnn_span cnn_pool_span(int64_t start, int64_t kernel, int64_t dilation, int64_t size)
{
    const int64_t before = start < 0 ? cnn_ceil_div(-start, dilation) : 0; /* taps outside, on either side */
    const int64_t last = start + (kernel - 1) * dilation;
    const int64_t after = last >= size ? (last - size) / dilation + 1 : 0;
    return (cnn_span){start + before * dilation, cnn_max_i64(kernel - before - after, 0)};
}

/* How many rows of dst go to one task, when one costs `work`, about nanoseconds. */
static inline int64_t cnn_pool_rows(double work)
{
    const double wanted = 8192.0 / (work + 1.0);
    return wanted < 1.0 ? 1 : (int64_t)wanted;
}

#endif
