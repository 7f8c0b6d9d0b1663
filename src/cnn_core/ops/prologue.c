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
