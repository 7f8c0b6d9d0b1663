/* Each kernel walks the channels outermost, POOL_VECTORS vectors at a time, and keeps their results in registers while it
 * goes through the window. `vectors` and `lanes` are constants where the blocks are called, but for the lanes of the tail. */
#include "ukernels/pool.h"

#define POOL_VECTORS 4

VF_INLINE vf pool_load(const float *p, int lanes)
{
    return lanes == VF_WIDTH ? vf_load(p) : vf_load_tail(p, lanes);
}

VF_INLINE void pool_store(float *p, vf a, int lanes)
{
    if (lanes == VF_WIDTH)
        vf_store(p, a);
    else
        vf_store_tail(p, a, lanes);
}

/* Calls block(vectors, lanes, at, ...) for the channels from 0 to c, `at` being its first one. */
#define POOL_OVER_CHANNELS(block, c, ...)                                                       \
    do {                                                                                        \
        int64_t at = 0;                                                                         \
        for (; at + POOL_VECTORS * VF_WIDTH <= (c); at += POOL_VECTORS * VF_WIDTH)              \
            block(POOL_VECTORS, VF_WIDTH, at, c, __VA_ARGS__);                                  \
        for (; at + VF_WIDTH <= (c); at += VF_WIDTH) block(1, VF_WIDTH, at, c, __VA_ARGS__);    \
        if (at < (c)) block(1, (int)((c) - at), at, c, __VA_ARGS__);                            \
    } while (0)

VF_INLINE void max_window_block(int vectors, int lanes, int64_t at, int64_t c, const cnn_window *window,
                                    const float *image, float *dst)
{
    vf best[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) best[v] = vf_set1(-INFINITY);
    for (int64_t row = 0; row < window->rows; row++) {
        for (int64_t col = 0; col < window->cols; col++) {
            const int64_t pixel = window->first + row * window->row_pitch + col * window->col_pitch;
            const float *src = image + pixel * c + at;
            for (int v = 0; v < vectors; v++) best[v] = vf_max(best[v], pool_load(src + v * VF_WIDTH, lanes));
        }
    }
    for (int v = 0; v < vectors; v++) pool_store(dst + at + v * VF_WIDTH, best[v], lanes);
}

VF_INLINE void max_window_index_block(int vectors, int lanes, int64_t at, int64_t c, const cnn_window *window,
                                          const float *image, float *dst, int32_t *index)
{
    const bool empty = window->rows <= 0 || window->cols <= 0;
    vf best[POOL_VECTORS];
    vi from[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) {
        best[v] = vf_set1(-INFINITY);
        from[v] = vi_set1(empty ? -1 : (int32_t)window->first);
    }
    for (int64_t row = 0; row < window->rows; row++) {
        for (int64_t col = 0; col < window->cols; col++) {
            const int64_t pixel = window->first + row * window->row_pitch + col * window->col_pitch;
            const float *src = image + pixel * c + at;
            const vi number = vi_set1((int32_t)pixel);
            for (int v = 0; v < vectors; v++) {
                const vf x = pool_load(src + v * VF_WIDTH, lanes);
                /* Greater, or the first NaN: "not less or equal" is true for NaN on either side. */
                const vm better = vm_and(vm_not(vf_le(x, best[v])), vf_eq(best[v], best[v]));
                best[v] = vf_select(better, x, best[v]);
                from[v] = vi_select(better, number, from[v]);
            }
        }
    }
    for (int v = 0; v < vectors; v++) {
        pool_store(dst + at + v * VF_WIDTH, best[v], lanes);
        if (lanes == VF_WIDTH)
            vi_store(index + at + v * VF_WIDTH, from[v]);
        else
            vi_store_tail(index + at + v * VF_WIDTH, from[v], lanes);
    }
}

static void max_window(int64_t c, const cnn_window *window, const float *image, float *dst, int32_t *index)
{
    if (index == NULL)
        POOL_OVER_CHANNELS(max_window_block, c, window, image, dst);
    else
        POOL_OVER_CHANNELS(max_window_index_block, c, window, image, dst, index);
}

VF_INLINE void max_window_backward_block(int vectors, int lanes, int64_t at, int64_t c, const cnn_window *window,
                                             const float *diff_dst, const int32_t *index, int32_t pixel, float *dst)
{
    const vi number = vi_set1(pixel);
    vf sum[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t row = 0; row < window->rows; row++) {
        for (int64_t col = 0; col < window->cols; col++) {
            const int64_t offset =
                (window->first + row * window->row_pitch + col * window->col_pitch) * c + at;
            for (int v = 0; v < vectors; v++) {
                const int32_t *p = index + offset + v * VF_WIDTH;
                const vi from = lanes == VF_WIDTH ? vi_load(p) : vi_load_tail(p, lanes);
                const vf diff = pool_load(diff_dst + offset + v * VF_WIDTH, lanes);
                sum[v] = vf_add(sum[v], vf_select(vi_eq(from, number), diff, vf_zero()));
            }
        }
    }
    for (int v = 0; v < vectors; v++) pool_store(dst + at + v * VF_WIDTH, sum[v], lanes);
}

static void max_window_backward(int64_t c, const cnn_window *window, const float *diff_dst, const int32_t *index,
                                int32_t pixel, float *dst)
{
    POOL_OVER_CHANNELS(max_window_backward_block, c, window, diff_dst, index, pixel, dst);
}

/* Row by row, so that rounding errors grow with rows + cols, not with rows cols. */
VF_INLINE void mean_window_block(int vectors, int lanes, int64_t at, int64_t c, const cnn_window *window,
                                     const float *image, float divisor, float *dst)
{
    vf sum[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t row = 0; row < window->rows; row++) {
        const float *src = image + (window->first + row * window->row_pitch) * c + at;
        vf row_sum[POOL_VECTORS];
        for (int v = 0; v < vectors; v++) row_sum[v] = vf_zero();
        for (int64_t col = 0; col < window->cols; col++, src += window->col_pitch * c)
            for (int v = 0; v < vectors; v++)
                row_sum[v] = vf_add(row_sum[v], pool_load(src + v * VF_WIDTH, lanes));
        for (int v = 0; v < vectors; v++) sum[v] = vf_add(sum[v], row_sum[v]);
    }
    for (int v = 0; v < vectors; v++)
        pool_store(dst + at + v * VF_WIDTH, vf_div(sum[v], vf_set1(divisor)), lanes);
}

static void mean_window(int64_t c, const cnn_window *window, const float *image, float divisor, float *dst)
{
    POOL_OVER_CHANNELS(mean_window_block, c, window, image, divisor, dst);
}

VF_INLINE void weighted_window_block(int vectors, int lanes, int64_t at, int64_t c, const cnn_window *window,
                                         const float *row_weights, const float *col_weights, const float *image,
                                         float *dst)
{
    vf sum[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t row = 0; row < window->rows; row++) {
        const float *src = image + (window->first + row * window->row_pitch) * c + at;
        vf row_sum[POOL_VECTORS];
        for (int v = 0; v < vectors; v++) row_sum[v] = vf_zero();
        for (int64_t col = 0; col < window->cols; col++, src += window->col_pitch * c) {
            const vf weight = vf_set1(col_weights[col]);
            for (int v = 0; v < vectors; v++)
                row_sum[v] = vf_fmadd(pool_load(src + v * VF_WIDTH, lanes), weight, row_sum[v]);
        }
        const vf weight = vf_set1(row_weights[row]);
        for (int v = 0; v < vectors; v++) sum[v] = vf_fmadd(row_sum[v], weight, sum[v]);
    }
    for (int v = 0; v < vectors; v++) pool_store(dst + at + v * VF_WIDTH, sum[v], lanes);
}

static void weighted_window(int64_t c, const cnn_window *window, const float *row_weights, const float *col_weights,
                            const float *image, float *dst)
{
    POOL_OVER_CHANNELS(weighted_window_block, c, window, row_weights, col_weights, image, dst);
}

#define CNN_KERNELS_POOL \
    {.max = max_window, .max_backward = max_window_backward, .mean = mean_window, .weighted = weighted_window}
