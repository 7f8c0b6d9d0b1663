#include "ops/conv_filters.h"

#include "simd/inline.h"

/* Floats of an out channel that are added at a time: some lines of cache in one run, for which the sums of 32 out channels
 * take half of the first-level cache. */
#define RUN 144

cnn_conv_filters cnn_conv_filters_of(const cnn_conv *conv, int64_t out)
{
    const int64_t taps = conv->kh * conv->kw;
    cnn_conv_filters filters = {.taps = taps, .in = cnn_max_i64(RUN / taps, 1), .out = out};
    filters.sums_bytes = filters.turned_bytes =
        cnn_size_align(cnn_size_mul((size_t)filters.in * (size_t)out, (size_t)taps * sizeof(float)));
    return filters;
}

/* Taps of a filter lie side by side, and filters along one of the two axes; along the other they are far, each in another
 * page where channels are many. The processor foresees no such runs. */
static bool dense(const cnn_conv *conv) { return conv->weights_stride[3] == 1 && conv->weights_stride[2] == conv->kw; }

void cnn_conv_fetch_filters(const cnn_conv *conv, const float *to, int64_t in, int64_t out)
{
    if (!dense(conv)) return;
    const int64_t *stride = conv->weights_stride, taps = conv->kh * conv->kw;
    const bool far_out = stride[0] > stride[1];
    const int64_t runs = far_out ? out : in, floats = taps * (far_out ? in : out);
    for (int64_t i = 0; i < runs; i++)
        for (int64_t k = 0; k < floats; k += CNN_ALIGNMENT / (int64_t)sizeof(float))
            VF_FETCH_WRITE(to + i * stride[far_out ? 0 : 1] + k);
}

void cnn_conv_add_filters(const cnn_conv_call *call, float *to, int64_t in, int64_t out, const float *sums, int64_t row,
                          float *turned)
{
    const cnn_conv *conv = call->conv;
    const int64_t *stride = conv->weights_stride, taps = conv->kh * conv->kw;
    if (row == 1) { /* one out channel: it lies as it should */
        for (int64_t i = 0; i < in * taps; i++) turned[i] = sums[i];
    } else {
        call->kernels->conv.pack(sums, out, 1, in * taps, row, in * taps, turned);
    }
    const bool side_by_side = dense(conv) && stride[1] == taps;
    const int64_t runs = side_by_side ? 1 : in, floats = taps * (in / runs);
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < runs; i++, turned += floats) {
            float *at = to + o * stride[0] + i * stride[1];
            if (dense(conv))
                call->kernels->elementwise.add(1, floats, (cnn_rows){at, 0, 1}, (cnn_rows){turned, 0, 1}, 1.0f, at);
            else
                for (int64_t k = 0; k < taps; k++) at[k / conv->kw * stride[2] + k % conv->kw * stride[3]] += turned[k];
        }
}
