/* The epilogue of a convolution: out = activation(sums + bias + addend), while the sums are in registers or cache. */
#ifndef CNN_OPS_CONV_EPILOGUE_H
#define CNN_OPS_CONV_EPILOGUE_H

#include "ops/conv.h"

/* The call's epilogue as the micro-kernel takes it, but for the addend, which differs from block to block. It clamps
 * where the activation does no more than that. */
cnn_conv_epilogue cnn_conv_epilogue_of(const cnn_conv_call *call);

/* rows = activation(rows), if the call has one. */
void cnn_conv_activate(const cnn_conv_call *call, int64_t count, float *rows);
/* The same for `channels` channels from `channel` on of pixels `width` channels wide, unless the micro-kernel clamps. */
void cnn_conv_activate_pixels(const cnn_conv_call *call, int64_t pixels, float *const *dst, int64_t width,
                              int64_t channel, int64_t channels);

#endif
