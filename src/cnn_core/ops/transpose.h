/* Row-major matrices turned over: how channels-last images become row-major ones, and back. */
#ifndef CNN_OPS_TRANSPOSE_H
#define CNN_OPS_TRANSPOSE_H

#include <stdint.h>

/* dst[i][c][r] = src[i][r][c] for n matrices of rows x cols. */
void cnn_transpose(int32_t threads, int64_t n, int64_t rows, int64_t cols, const float *src, float *dst);

#endif
