#include <stddef.h>

#include "ukernels/elementwise.h"

#define ELEMENTWISE_VECTORS 4

/* One operand's vector: a load, or the row's one element. */
VF_INLINE vf elementwise_load(const float *row, int64_t step, int64_t i, int lanes)
{
    if (step == 0) return vf_set1(*row);
    return lanes == VF_WIDTH ? vf_load(row + i) : vf_load_tail(row + i, lanes);
}

/* The steps are constants where these are called, so each combination gets a loop of its own. */
VF_INLINE void add_rows_stepped(int64_t rows, int64_t n, cnn_rows a, int64_t a_step, cnn_rows b, int64_t b_step,
                                    float alpha, float *dst)
{
    const vf scale = vf_set1(alpha);
    for (int64_t row = 0; row < rows; row++, dst += n) {
        const float *x = a.data + row * a.pitch, *y = b.data + row * b.pitch;
        int64_t i = 0;
        for (; i + VF_WIDTH <= n; i += VF_WIDTH)
            vf_store(dst + i, vf_fmadd(elementwise_load(y, b_step, i, VF_WIDTH), scale,
                                       elementwise_load(x, a_step, i, VF_WIDTH)));
        const int tail = (int)(n - i);
        if (tail > 0)
            vf_store_tail(dst + i, vf_fmadd(elementwise_load(y, b_step, i, tail), scale,
                                            elementwise_load(x, a_step, i, tail)), tail);
    }
}

static void add_rows(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, float alpha, float *dst)
{
    if (a.step == 0)
        add_rows_stepped(rows, n, a, 0, b, 1, alpha, dst);
    else if (b.step == 0)
        add_rows_stepped(rows, n, a, 1, b, 0, alpha, dst);
    else
        add_rows_stepped(rows, n, a, 1, b, 1, alpha, dst);
}

VF_INLINE void multiply_rows_stepped(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, int64_t b_step, float *dst)
{
    for (int64_t row = 0; row < rows; row++, dst += n) {
        const float *x = a.data + row * a.pitch, *y = b.data + row * b.pitch;
        int64_t i = 0;
        for (; i + VF_WIDTH <= n; i += VF_WIDTH)
            vf_store(dst + i, vf_mul(vf_load(x + i), elementwise_load(y, b_step, i, VF_WIDTH)));
        const int tail = (int)(n - i);
        if (tail > 0)
            vf_store_tail(dst + i, vf_mul(vf_load_tail(x + i, tail), elementwise_load(y, b_step, i, tail)), tail);
    }
}

static void multiply_rows(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, float *dst)
{
    if (a.step == 0)
        multiply_rows_stepped(rows, n, b, a, 0, dst);
    else if (b.step == 0)
        multiply_rows_stepped(rows, n, a, b, 0, dst);
    else
        multiply_rows_stepped(rows, n, a, b, 1, dst);
}

static void elementwise_affine(int64_t n, const float *src, float alpha, float beta, float *dst)
{
    const vf scale = vf_set1(alpha), shift = vf_set1(beta);
    int64_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH) vf_store(dst + i, vf_fmadd(vf_load(src + i), scale, shift));
    const int tail = (int)(n - i);
    if (tail > 0) vf_store_tail(dst + i, vf_fmadd(vf_load_tail(src + i, tail), scale, shift), tail);
}

/* sum + a b, or sum + a. */
VF_INLINE vf elementwise_accumulate(vf sum, vf a, const float *b, int64_t b_step, int64_t i, int lanes)
{
    return b == NULL ? vf_add(sum, a) : vf_fmadd(a, elementwise_load(b, b_step, i, lanes), sum);
}

VF_INLINE void sum_over_rows_block(int vectors, int lanes, int64_t at, int64_t rows, cnn_rows a, cnn_rows b,
                                       int64_t b_step, float *dst)
{
    vf sum[ELEMENTWISE_VECTORS];
    for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t row = 0; row < rows; row++) {
        const float *x = a.data + row * a.pitch + at, *y = b.data == NULL ? NULL : b.data + row * b.pitch;
        for (int v = 0; v < vectors; v++) {
            const vf value = elementwise_load(x, 1, v * VF_WIDTH, lanes);
            sum[v] = elementwise_accumulate(sum[v], value, y, b_step, at + v * VF_WIDTH, lanes);
        }
    }
    for (int v = 0; v < vectors; v++) {
        if (lanes == VF_WIDTH)
            vf_store(dst + at + v * VF_WIDTH, sum[v]);
        else
            vf_store_tail(dst + at + v * VF_WIDTH, sum[v], lanes);
    }
}

VF_INLINE void sum_over_rows_stepped(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, int64_t b_step, float *dst)
{
    int64_t at = 0;
    for (; at + ELEMENTWISE_VECTORS * VF_WIDTH <= n; at += ELEMENTWISE_VECTORS * VF_WIDTH)
        sum_over_rows_block(ELEMENTWISE_VECTORS, VF_WIDTH, at, rows, a, b, b_step, dst);
    for (; at + VF_WIDTH <= n; at += VF_WIDTH) sum_over_rows_block(1, VF_WIDTH, at, rows, a, b, b_step, dst);
    if (at < n) sum_over_rows_block(1, (int)(n - at), at, rows, a, b, b_step, dst);
}

static void sum_over_rows(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, float *dst)
{
    const cnn_rows none = {NULL, 0, 0};
    if (b.data == NULL)
        sum_over_rows_stepped(rows, n, a, none, 0, dst);
    else if (b.step == 0)
        sum_over_rows_stepped(rows, n, a, b, 0, dst);
    else
        sum_over_rows_stepped(rows, n, a, b, 1, dst);
}

/* The sum of a b; of a alone where b is NULL. */
VF_INLINE float elementwise_sum_row(int64_t n, const float *a, const float *b)
{
    vf sum[ELEMENTWISE_VECTORS];
    for (int v = 0; v < ELEMENTWISE_VECTORS; v++) sum[v] = vf_zero();
    int64_t i = 0;
    for (; i + ELEMENTWISE_VECTORS * VF_WIDTH <= n; i += ELEMENTWISE_VECTORS * VF_WIDTH)
        for (int v = 0; v < ELEMENTWISE_VECTORS; v++)
            sum[v] = elementwise_accumulate(sum[v], vf_load(a + i + v * VF_WIDTH), b, 1, i + v * VF_WIDTH, VF_WIDTH);
    for (; i < n; i += VF_WIDTH) {
        const int lanes = n - i < VF_WIDTH ? (int)(n - i) : VF_WIDTH;
        sum[0] = elementwise_accumulate(sum[0], vf_load_tail(a + i, lanes), b, 1, i, lanes);
    }
    return vf_sum(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3])));
}

static void sum_each_row(int64_t rows, int64_t n, cnn_rows a, cnn_rows b, float *dst)
{
    for (int64_t row = 0; row < rows; row++) {
        const float *x = a.data + row * a.pitch;
        if (b.data == NULL)
            dst[row] = elementwise_sum_row(n, x, NULL);
        else if (b.step == 0)
            dst[row] = elementwise_sum_row(n, x, NULL) * b.data[row * b.pitch];
        else
            dst[row] = elementwise_sum_row(n, x, b.data + row * b.pitch);
    }
}

#define CNN_KERNELS_ELEMENTWISE                       \
    {                                                 \
        .add = add_rows,                              \
        .multiply = multiply_rows,                    \
        .affine = elementwise_affine,                             \
        .sum_over_rows = sum_over_rows,               \
        .sum_each_row = sum_each_row,                 \
    }
