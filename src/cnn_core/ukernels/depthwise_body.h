#include "simd/inline.h"
#include "ukernels/depthwise.h"

#define DEPTHWISE_TILE 4 /* pixels, or taps, by two vectors of channels: 8 sums in flight */

/* The last vector may have fewer lanes than a whole one: then `lanes` is not VF_WIDTH, a constant elsewhere. */
VF_INLINE vf depthwise_load(const float *p, const int lanes)
{
    return lanes == VF_WIDTH ? vf_load(p) : vf_load_tail(p, lanes);
}

VF_INLINE void depthwise_forward_tile(const int rows, const int vectors, const int lanes,
                                      const cnn_depthwise_block *block, int64_t pixel, int64_t c, const float *weights,
                                      const float *bias, float *const *dst)
{
    vf sum[DEPTHWISE_TILE][2];
    for (int v = 0; v < vectors; v++) {
        const vf start = bias == NULL ? vf_zero() : depthwise_load(bias + c + v * VF_WIDTH, lanes);
        for (int r = 0; r < rows; r++) sum[r][v] = start;
    }
    const float *const *src = block->src + pixel;
    for (int64_t t = 0; t < block->taps; t++) {
        vf w[2];
        for (int v = 0; v < vectors; v++) w[v] = vf_load(weights + c + v * VF_WIDTH);
        for (int r = 0; r < rows; r++) {
            const float *x = src[r] + c;
            for (int v = 0; v < vectors; v++)
                sum[r][v] = vf_fmadd(depthwise_load(x + v * VF_WIDTH, lanes), w[v], sum[r][v]);
        }
        weights += block->stride;
        src += block->pixels;
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            float *to = dst[pixel + r] + c + v * VF_WIDTH;
            if (lanes == VF_WIDTH)
                vf_store(to, sum[r][v]);
            else
                vf_store_tail(to, sum[r][v], lanes);
        }
}

VF_INLINE void depthwise_forward_rows(const int rows, const cnn_depthwise_block *block, int64_t pixel,
                                      const float *weights, const float *bias, float *const *dst)
{
    int64_t c = block->first;
    const int64_t end = c + block->channels;
    for (; c + 2 * VF_WIDTH <= end; c += 2 * VF_WIDTH)
        depthwise_forward_tile(rows, 2, VF_WIDTH, block, pixel, c, weights, bias, dst);
    if (c + VF_WIDTH <= end) {
        depthwise_forward_tile(rows, 1, VF_WIDTH, block, pixel, c, weights, bias, dst);
        c += VF_WIDTH;
    }
    if (c < end) depthwise_forward_tile(rows, 1, (int)(end - c), block, pixel, c, weights, bias, dst);
}

static void depthwise_forward(const cnn_depthwise_block *block, const float *weights, const float *bias,
                              float *const *dst)
{
    int64_t pixel = 0;
    for (; pixel + DEPTHWISE_TILE <= block->pixels; pixel += DEPTHWISE_TILE)
        depthwise_forward_rows(DEPTHWISE_TILE, block, pixel, weights, bias, dst);
    switch (block->pixels - pixel) {
    case 3: depthwise_forward_rows(3, block, pixel, weights, bias, dst); break;
    case 2: depthwise_forward_rows(2, block, pixel, weights, bias, dst); break;
    case 1: depthwise_forward_rows(1, block, pixel, weights, bias, dst); break;
    default: break;
    }
}

VF_INLINE void depthwise_weights_tile(const int taps, const int vectors, const int lanes,
                                      const cnn_depthwise_block *block, int64_t tap, int64_t c, const float *diff_dst,
                                      int64_t pitch, bool add, float *diff_weights)
{
    vf sum[DEPTHWISE_TILE][2];
    for (int t = 0; t < taps; t++)
        for (int v = 0; v < vectors; v++) sum[t][v] = vf_zero();
    const float *const *src = block->src + tap * block->pixels;
    diff_dst += c;
    for (int64_t p = 0; p < block->pixels; p++) {
        vf dy[2];
        for (int v = 0; v < vectors; v++) dy[v] = depthwise_load(diff_dst + v * VF_WIDTH, lanes);
        for (int t = 0; t < taps; t++) {
            const float *x = src[t * block->pixels + p] + c;
            for (int v = 0; v < vectors; v++)
                sum[t][v] = vf_fmadd(depthwise_load(x + v * VF_WIDTH, lanes), dy[v], sum[t][v]);
        }
        diff_dst += pitch;
    }
    for (int t = 0; t < taps; t++)
        for (int v = 0; v < vectors; v++) {
            float *dw = diff_weights + (tap + t) * block->stride + c + v * VF_WIDTH;
            vf_store(dw, add ? vf_add(vf_load(dw), sum[t][v]) : sum[t][v]);
        }
}

VF_INLINE void depthwise_weights_taps(const int taps, const cnn_depthwise_block *block, int64_t tap,
                                      const float *diff_dst, int64_t pitch, bool add, float *diff_weights)
{
    int64_t c = block->first;
    const int64_t end = c + block->channels;
    for (; c + 2 * VF_WIDTH <= end; c += 2 * VF_WIDTH)
        depthwise_weights_tile(taps, 2, VF_WIDTH, block, tap, c, diff_dst, pitch, add, diff_weights);
    if (c + VF_WIDTH <= end) {
        depthwise_weights_tile(taps, 1, VF_WIDTH, block, tap, c, diff_dst, pitch, add, diff_weights);
        c += VF_WIDTH;
    }
    if (c < end) depthwise_weights_tile(taps, 1, (int)(end - c), block, tap, c, diff_dst, pitch, add, diff_weights);
}

/* Taps by threes: a 3x3 kernel's nine without remainder, and enough sums in flight. */
static void depthwise_backward_weights(const cnn_depthwise_block *block, const float *diff_dst, int64_t pitch, bool add,
                                       float *diff_weights)
{
    int64_t tap = 0;
    for (; tap + 3 <= block->taps; tap += 3) depthwise_weights_taps(3, block, tap, diff_dst, pitch, add, diff_weights);
    switch (block->taps - tap) {
    case 2: depthwise_weights_taps(2, block, tap, diff_dst, pitch, add, diff_weights); break;
    case 1: depthwise_weights_taps(1, block, tap, diff_dst, pitch, add, diff_weights); break;
    default: break;
    }
}

#define CNN_KERNELS_DEPTHWISE {.forward = depthwise_forward, .backward_weights = depthwise_backward_weights}
