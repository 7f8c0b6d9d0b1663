#include "ops/conv_spread.h"

cnn_conv_spread cnn_conv_spread_begin(const cnn_conv_call *call, void *packed)
{
    cnn_conv_call pack = *call;
    pack.pass = CNN_CONV_BACKWARD_DATA;
    cnn_conv_pack(&pack, packed);
    return (cnn_conv_spread){call, packed};
}

void cnn_conv_spread_pixels(const cnn_conv_spread *spread, int64_t first, int64_t pixels, const float *const *y, float **dst,
                            const void *later)
{
    const cnn_conv_call *call = spread->call;
    const int64_t ic = call->conv->ic;
    for (int64_t p = 0; p < pixels; p++) dst[p] = call->out + (first + p) * ic;
    const cnn_conv_block block = {
        .pixels = pixels, .taps = 1, .ic = call->conv->oc, .src = y, .dst = dst, .later = later};
    /* An addend is `out` itself. */
    const cnn_conv_epilogue epilogue = {.addend = call->addend == NULL ? NULL : (const float *const *)dst};
    call->kernels->conv.forward(&block, spread->packed, &epilogue, 0, ic);
}
