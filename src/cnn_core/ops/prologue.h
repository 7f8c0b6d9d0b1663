/* Reading through a prologue (ops/op.h). */
#ifndef CNN_OPS_PROLOGUE_H
#define CNN_OPS_PROLOGUE_H

#include "ops/op.h"

/* dst = `pixels` pixels of src, which lie one behind the other, all their channels, as the prologue makes them. */
void cnn_prologue_apply(const cnn_prologue *prologue, const cnn_kernels *kernels, int64_t pixels, const float *src,
                        float *dst);

/* dst = the gradient of `pixels` pixels from `first` on. */
void cnn_back_prologue_apply(const cnn_back_prologue *prologue, const cnn_kernels *kernels, int64_t first, int64_t pixels,
                             float *dst);

#endif
