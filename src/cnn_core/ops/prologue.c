#include "ops/prologue.h"

void cnn_prologue_apply(const cnn_prologue *prologue, const cnn_kernels *kernels, int64_t pixels, const float *src,
                        float *dst)
{
    const int64_t folded = pixels / prologue->fold, left = pixels % prologue->fold * prologue->channels;
    struct cnn_norm_forward f = {.rows = folded,
                                 .width = prologue->fold * prologue->channels,
                                 .src = src,
                                 .mean = prologue->mean,
                                 .scale = prologue->scale,
                                 .shift = prologue->shift,
                                 .activation = prologue->activation,
                                 .slope = prologue->slope,
                                 .dst = dst};
    if (folded > 0) kernels->norm.column_forward(&f);
    if (left == 0) return;
    f.src += folded * f.width;
    f.dst += folded * f.width;
    f.rows = 1;
    f.width = left;
    kernels->norm.column_forward(&f);
}

void cnn_back_prologue_apply(const cnn_back_prologue *prologue, const cnn_kernels *kernels, int64_t first, int64_t pixels,
                             float *dst)
{
    const cnn_prologue *forward = &prologue->forward;
    const int64_t channels = forward->channels, folded = pixels / forward->fold, left = pixels % forward->fold * channels;
    struct cnn_norm_backward f = {.rows = folded,
                                  .width = forward->fold * channels,
                                  .src = prologue->src + first * channels,
                                  .diff_dst = prologue->diff_dst + first * channels,
                                  .mean = forward->mean,
                                  .scale = forward->scale,
                                  .shift = forward->shift,
                                  .activation = forward->activation,
                                  .slope = forward->slope,
                                   .b = prologue->b,
                                  .c = prologue->c,
                                  .diff_src = dst};
    if (folded > 0) kernels->norm.column_gradient(&f);
    if (left == 0) return;
    f.src += folded * f.width;
    f.diff_dst += folded * f.width;
    f.diff_src += folded * f.width;
    f.rows = 1;
    f.width = left;
    kernels->norm.column_gradient(&f);
}
