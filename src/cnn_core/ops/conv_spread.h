/* Backward data of a 1x1 convolution of stride 1, for some pixels at a time: of whoever has the pixels of y at hand. */
#ifndef CNN_OPS_CONV_SPREAD_H
#define CNN_OPS_CONV_SPREAD_H

#include "ops/conv.h"

typedef struct cnn_conv_spread {
    const cnn_conv_call *call;
    const float *packed; /* weights */
} cnn_conv_spread;

/* Packs the weights into memory of cnn_conv_packed(conv, CNN_CONV_BACKWARD_DATA, kernels) bytes. */
cnn_conv_spread cnn_conv_spread_begin(const cnn_conv_call *call, void *packed);

/* call->out = its pixels from `first` on, by the same of y; `dst` has room for as many pointers. On the way as much is brought near
 * from `later` on as all pixels of y are. */
void cnn_conv_spread_pixels(const cnn_conv_spread *spread, int64_t first, int64_t pixels, const float *const *y, float **dst,
                            const void *later);

#endif
