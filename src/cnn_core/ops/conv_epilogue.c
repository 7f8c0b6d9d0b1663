#include "ops/conv_epilogue.h"

#include <math.h>

static bool clamps(const cnn_conv_call *call)
{
    return call->activation != NULL && (call->activation->kind == CNN_RELU || call->activation->kind == CNN_RELU6);
}

cnn_conv_epilogue cnn_conv_epilogue_of(const cnn_conv_call *call)
{
    cnn_conv_epilogue epilogue = {.bias = call->bias, .clamps = clamps(call)};
    if (epilogue.clamps) epilogue.high = call->activation->kind == CNN_RELU6 ? 6.0f : INFINITY;
    return epilogue;
}

void cnn_conv_activate(const cnn_conv_call *call, int64_t count, float *rows)
{
    if (call->activation == NULL) return;
    call->kernels->activation.forward[call->activation->kind](count, rows, rows, (float)call->activation->alpha,
                                                              (float)call->activation->beta, false);
}

void cnn_conv_activate_pixels(const cnn_conv_call *call, int64_t pixels, float *const *dst, int64_t width,
                              int64_t channel, int64_t channels)
{
    if (call->activation == NULL || clamps(call)) return;
    for (int64_t p = 0, run; p < pixels; p += run) {
        run = 1;
        if (channels == width) /* neighbours in one sweep */
            while (p + run < pixels && dst[p + run] == dst[p] + run * width) run++;
        cnn_conv_activate(call, run * channels, dst[p] + channel);
    }
}
