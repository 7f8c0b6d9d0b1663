/* Each kernel walks the channels outermost, POOL_VECTORS vectors at a time, and keeps their results in registers while it
 * goes through the window. `vectors` and `lanes` are constants where the blocks are called, but for the lanes of the tail. */
#include "ukernels/pool.h"

#define POOL_VECTORS 4
#define POOL_LINE 16 /* floats of a line of cache */

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
                                    const float *image, bool stream, float *dst)
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
    for (int v = 0; v < vectors; v++) {
        if (stream)
            vf_stream(dst + at + v * VF_WIDTH, best[v]);
        else
            pool_store(dst + at + v * VF_WIDTH, best[v], lanes);
    }
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

/* The window of pixel i of the row, cut to the image. */
VF_INLINE cnn_window max_row_window(const cnn_max_row *row, int64_t i)
{
    const int64_t start = i * row->stride - row->padding, last = start + (row->kernel - 1) * row->dilation;
    const int64_t before = start < 0 ? (row->dilation - 1 - start) / row->dilation : 0;
    const int64_t after = last >= row->size ? (last - row->size) / row->dilation + 1 : 0;
    return (cnn_window){.first = row->first + start + before * row->dilation,
                        .rows = row->rows,
                        .cols = row->kernel - before - after,
                        .row_pitch = row->row_pitch,
                        .col_pitch = row->dilation};
}

/* What the window of column i reads first, `ahead` pixels later. */
VF_INLINE void max_row_fetch(const cnn_max_row *row, const float *image, int64_t i)
{
    const int64_t floats = row->stride * row->c;
    for (int64_t r = 0; r < row->rows; r++) {
        const float *from = image + (row->first + r * row->row_pitch + row->ahead) * row->c + i * floats;
        for (int64_t at = 0; at < floats; at += POOL_LINE) VF_FETCH(from + at);
    }
}

static void max_row(const cnn_max_row *row, const float *image, float *dst, int32_t *index, bool stream)
{
    const int64_t c = row->c;
    for (int64_t i = 0; i < row->width; i++, dst += c) {
        if (row->ahead > 0) max_row_fetch(row, image, i);
        const cnn_window window = max_row_window(row, i);
        if (index == NULL)
            POOL_OVER_CHANNELS(max_window_block, c, &window, image, stream, dst);
        else
            POOL_OVER_CHANNELS(max_window_index_block, c, &window, image, dst, index + i * c);
    }
    if (stream) vf_stream_end();
}

VF_INLINE void max_window_backward_block(int vectors, int lanes, int64_t at, int64_t c, const cnn_window *window,
                                             const float *diff_dst, const int32_t *index, int32_t pixel, bool stream,
                                         float *dst)
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
    for (int v = 0; v < vectors; v++) {
        if (stream)
            vf_stream(dst + at + v * VF_WIDTH, sum[v]);
        else
            pool_store(dst + at + v * VF_WIDTH, sum[v], lanes);
    }
}

/* Windows that may cover a pixel lie between begin and end, every step-th of them; the index tells whether they had it. */
static void max_row_backward(const cnn_max_row *row, const float *diff_dst, const int32_t *index, int32_t pixel,
                             float *diff_src, bool stream)
{
    const int64_t c = row->c, reach = (row->kernel - 1) * row->dilation;
    cnn_window window = {.rows = row->rows, .row_pitch = row->row_pitch, .col_pitch = row->step};
    int64_t begin = 0, end = 0;
    for (int64_t i = 0; i < row->width; i++, diff_src += c) {
        const int64_t x = i + row->padding;
        while (begin * row->stride + reach < x) begin++;
        while (end < row->size && end * row->stride <= x) end++;
        int64_t first = begin;
        if (row->dilation > 1)
            while (first < end && (x - first * row->stride) % row->dilation != 0) first++;
        window.first = row->first + first;
        window.cols = (end - first + row->step - 1) / row->step;
        POOL_OVER_CHANNELS(max_window_backward_block, c, &window, diff_dst, index, pixel + (int32_t)i, stream, diff_src);
    }
    if (stream) vf_stream_end();
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

#define CNN_KERNELS_POOL                                \
    {                                                   \
        .max = max_row,                                 \
        .max_backward = max_row_backward,               \
        .mean = mean_window,                            \
        .weighted = weighted_window,                    \
    }
