#include "simd/inline.h"
#include "ukernels/winograd.h"

/* The points 0, +-p, +-q, infinity, and their powers. */
#define WINOGRAD_P 0.75f
#define WINOGRAD_Q 1.5f
#define WINOGRAD_PP 0.5625f
#define WINOGRAD_QQ 2.25f
#define WINOGRAD_PP_QQ 2.8125f   /* p^2 + q^2 */
#define WINOGRAD_PPQQ 1.265625f  /* p^2 q^2 */
#define WINOGRAD_PPP 0.421875f
#define WINOGRAD_QQQ 3.375f

/* Rows of B^T: the coefficients of prod (x - other points), here as their factors share terms. */
VF_INLINE void winograd_b(const vf d[6], vf t[6])
{
    const vf pp_qq = vf_set1(WINOGRAD_PP_QQ), ppqq = vf_set1(WINOGRAD_PPQQ);
    const vf pp = vf_set1(WINOGRAD_PP), qq = vf_set1(WINOGRAD_QQ);
    const vf even_p = vf_fnmadd(qq, d[2], d[4]), odd_p = vf_mul(vf_set1(WINOGRAD_P), vf_fnmadd(qq, d[1], d[3]));
    const vf even_q = vf_fnmadd(pp, d[2], d[4]), odd_q = vf_mul(vf_set1(WINOGRAD_Q), vf_fnmadd(pp, d[1], d[3]));
    t[0] = vf_fmadd(ppqq, d[0], vf_fnmadd(pp_qq, d[2], d[4]));
    t[1] = vf_add(even_p, odd_p);
    t[2] = vf_sub(even_p, odd_p);
    t[3] = vf_add(even_q, odd_q);
    t[4] = vf_sub(even_q, odd_q);
    t[5] = vf_fmadd(ppqq, d[1], vf_fnmadd(pp_qq, d[3], d[5]));
}

/* A: six values of the cubic with coefficients d. */
VF_INLINE void winograd_a(const vf d[4], vf t[6])
{
    const vf even_p = vf_fmadd(vf_set1(WINOGRAD_PP), d[2], d[0]), even_q = vf_fmadd(vf_set1(WINOGRAD_QQ), d[2], d[0]);
    const vf odd_p = vf_fmadd(vf_set1(WINOGRAD_PPP), d[3], vf_mul(vf_set1(WINOGRAD_P), d[1]));
    const vf odd_q = vf_fmadd(vf_set1(WINOGRAD_QQQ), d[3], vf_mul(vf_set1(WINOGRAD_Q), d[1]));
    t[0] = d[0];
    t[1] = vf_add(even_p, odd_p);
    t[2] = vf_sub(even_p, odd_p);
    t[3] = vf_add(even_q, odd_q);
    t[4] = vf_sub(even_q, odd_q);
    t[5] = d[3];
}

/* A^T. */
VF_INLINE void winograd_a_transposed(const vf m[6], vf y[4])
{
    const vf even_p = vf_add(m[1], m[2]), odd_p = vf_sub(m[1], m[2]);
    const vf even_q = vf_add(m[3], m[4]), odd_q = vf_sub(m[3], m[4]);
    y[0] = vf_add(vf_add(m[0], even_p), even_q);
    y[1] = vf_fmadd(vf_set1(WINOGRAD_Q), odd_q, vf_mul(vf_set1(WINOGRAD_P), odd_p));
    y[2] = vf_fmadd(vf_set1(WINOGRAD_QQ), even_q, vf_mul(vf_set1(WINOGRAD_PP), even_p));
    y[3] = vf_fmadd(vf_set1(WINOGRAD_QQQ), odd_q, vf_fmadd(vf_set1(WINOGRAD_PPP), odd_p, m[5]));
}

/* G divides by prod (point - other points): p^2 q^2, 2 p^2 (p^2 - q^2), 2 q^2 (q^2 - p^2). */
#define WINOGRAD_G0 (1.0f / 1.265625f)
#define WINOGRAD_GP (-1.0f / 1.8984375f)
#define WINOGRAD_GQ (1.0f / 7.59375f)

VF_INLINE void winograd_g(const vf g[3], vf t[6])
{
    const vf gp = vf_set1(WINOGRAD_GP), gq = vf_set1(WINOGRAD_GQ);
    const vf even_p = vf_mul(gp, vf_fmadd(vf_set1(WINOGRAD_PP), g[2], g[0]));
    const vf even_q = vf_mul(gq, vf_fmadd(vf_set1(WINOGRAD_QQ), g[2], g[0]));
    const vf odd_p = vf_mul(vf_set1(WINOGRAD_GP * WINOGRAD_P), g[1]);
    const vf odd_q = vf_mul(vf_set1(WINOGRAD_GQ * WINOGRAD_Q), g[1]);
    t[0] = vf_mul(vf_set1(WINOGRAD_G0), g[0]);
    t[1] = vf_add(even_p, odd_p);
    t[2] = vf_sub(even_p, odd_p);
    t[3] = vf_add(even_q, odd_q);
    t[4] = vf_sub(even_q, odd_q);
    t[5] = g[2];
}

/* G^T. */
VF_INLINE void winograd_g_transposed(const vf s[6], vf g[3])
{
    const vf even_p = vf_mul(vf_set1(WINOGRAD_GP), vf_add(s[1], s[2]));
    const vf even_q = vf_mul(vf_set1(WINOGRAD_GQ), vf_add(s[3], s[4]));
    const vf odd_p = vf_mul(vf_set1(WINOGRAD_GP * WINOGRAD_P), vf_sub(s[1], s[2]));
    const vf odd_q = vf_mul(vf_set1(WINOGRAD_GQ * WINOGRAD_Q), vf_sub(s[3], s[4]));
    g[0] = vf_fmadd(vf_set1(WINOGRAD_G0), s[0], vf_add(even_p, even_q));
    g[1] = vf_add(odd_p, odd_q);
    g[2] = vf_fmadd(vf_set1(WINOGRAD_QQ), even_q, vf_fmadd(vf_set1(WINOGRAD_PP), even_p, s[5]));
}

VF_INLINE void winograd_src_lanes(const float *const pixel[36], int64_t c, int lanes, float *to, int64_t plane)
{
    vf half[6][6]; /* [row of the tile][transformed column] */
    for (int r = 0; r < 6; r++) {
        vf d[6];
        for (int s = 0; s < 6; s++) {
            const float *from = pixel[6 * r + s] + c;
            d[s] = lanes == VF_WIDTH ? vf_load(from) : vf_load_tail(from, lanes);
        }
        winograd_b(d, half[r]);
    }
    for (int s = 0; s < 6; s++) {
        vf d[6], t[6];
        for (int r = 0; r < 6; r++) d[r] = half[r][s];
        winograd_b(d, t);
        for (int r = 0; r < 6; r++) {
            float *at = to + (6 * r + s) * plane + c;
            if (lanes == VF_WIDTH)
                vf_store(at, t[r]);
            else
                vf_store_tail(at, t[r], lanes);
        }
    }
}

static void winograd_src(const float *const pixel[36], int64_t channels, float *to, int64_t plane)
{
    int64_t c = 0;
    for (; c + VF_WIDTH <= channels; c += VF_WIDTH) winograd_src_lanes(pixel, c, VF_WIDTH, to, plane);
    if (c < channels) winograd_src_lanes(pixel, c, (int)(channels - c), to, plane);
}

static void winograd_diff_dst(const float *const pixel[16], int64_t channels, float *to, int64_t plane, int64_t panel)
{
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = channels - c < VF_WIDTH ? (int)(channels - c) : VF_WIDTH;
        float *panel_to = to + c / (2 * VF_WIDTH) * panel + c % (2 * VF_WIDTH);
        vf half[4][6];
        for (int r = 0; r < 4; r++) {
            vf d[4];
            for (int s = 0; s < 4; s++) d[s] = vf_load_tail(pixel[4 * r + s] + c, lanes);
            winograd_a(d, half[r]);
        }
        for (int s = 0; s < 6; s++) {
            vf d[4], t[6];
            for (int r = 0; r < 4; r++) d[r] = half[r][s];
            winograd_a(d, t);
            for (int r = 0; r < 6; r++) vf_store(panel_to + (6 * r + s) * plane, t[r]);
        }
    }
}

static void winograd_dst(const float *from, int64_t plane, int channels, const cnn_winograd_store *store)
{
    const vf low = vf_set1(store->low), high = vf_set1(store->high);
    for (int c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = channels - c < VF_WIDTH ? channels - c : VF_WIDTH;
        const vf bias = store->bias == NULL ? vf_zero() : vf_load_tail(store->bias + c, lanes);
        vf half[6][4];
        for (int r = 0; r < 6; r++) {
            vf m[6];
            for (int s = 0; s < 6; s++) m[s] = vf_load(from + (6 * r + s) * plane + c);
            winograd_a_transposed(m, half[r]);
        }
        for (int s = 0; s < store->columns; s++) {
            vf m[6], y[4];
            for (int r = 0; r < 6; r++) m[r] = half[r][s];
            winograd_a_transposed(m, y);
            for (int r = 0; r < store->rows; r++) {
                const int64_t at = r * store->row_stride + s * store->column_stride + c;
                vf value = vf_add(y[r], bias);
                if (store->addend != NULL) value = vf_add(value, vf_load_tail(store->addend + at, lanes));
                value = vf_select(vf_le(value, low), low, value);
                value = vf_select(vf_gt(value, high), high, value);
                if (lanes == VF_WIDTH)
                    vf_store(store->to + at, value);
                else
                    vf_store_tail(store->to + at, value, lanes);
            }
        }
    }
}

static void winograd_weights(const float *g, int64_t channels, float *to, int64_t plane)
{
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = channels - c < VF_WIDTH ? (int)(channels - c) : VF_WIDTH;
        vf half[3][6];
        for (int r = 0; r < 3; r++) {
            vf d[3];
            for (int s = 0; s < 3; s++) d[s] = vf_load_tail(g + (3 * r + s) * channels + c, lanes);
            winograd_g(d, half[r]);
        }
        for (int s = 0; s < 6; s++) {
            vf d[3], t[6];
            for (int r = 0; r < 3; r++) d[r] = half[r][s];
            winograd_g(d, t);
            for (int r = 0; r < 6; r++) vf_store_tail(to + (6 * r + s) * plane + c, t[r], lanes);
        }
    }
}

static void winograd_diff_weights(const float *from, int64_t plane, int64_t channels, float *g)
{
    for (int64_t c = 0; c < channels; c += VF_WIDTH) {
        const int lanes = channels - c < VF_WIDTH ? (int)(channels - c) : VF_WIDTH;
        vf half[6][3];
        for (int r = 0; r < 6; r++) {
            vf s[6];
            for (int i = 0; i < 6; i++) s[i] = vf_load_tail(from + (6 * r + i) * plane + c, lanes);
            winograd_g_transposed(s, half[r]);
        }
        for (int s = 0; s < 3; s++) {
            vf column[6], t[3];
            for (int r = 0; r < 6; r++) column[r] = half[r][s];
            winograd_g_transposed(column, t);
            for (int r = 0; r < 3; r++) vf_store_tail(g + (3 * r + s) * channels + c, t[r], lanes);
        }
    }
}

#define CNN_KERNELS_WINOGRAD                                                                          \
    {                                                                                                 \
        .src = winograd_src, .diff_dst = winograd_diff_dst, .dst = winograd_dst,                      \
        .weights = winograd_weights, .diff_weights = winograd_diff_weights                            \
    }
