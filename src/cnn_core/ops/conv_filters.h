/* A gradient of weights from its sums, which lie out channel by out channel, to where the weights lie. */
#ifndef CNN_OPS_CONV_FILTERS_H
#define CNN_OPS_CONV_FILTERS_H

#include "ops/conv.h"

/* Filters of `in` in channels and at most `out` out channels are added at a time, from sums [in][taps][row], row <= out.
 * `turned` is room for them. */
typedef struct cnn_conv_filters {
    int64_t taps, in, out;
    size_t sums_bytes, turned_bytes;
} cnn_conv_filters;

cnn_conv_filters cnn_conv_filters_of(const cnn_conv *conv, int64_t out);

/* Fetches what will be added to: the first filter's gradient is at `to`. */
void cnn_conv_fetch_filters(const cnn_conv *conv, const float *to, int64_t in, int64_t out);
/* to += sums. */
void cnn_conv_add_filters(const cnn_conv_call *call, float *to, int64_t in, int64_t out, const float *sums, int64_t row,
                          float *turned);

#endif
