/* Activations, PReLU and dropout in the vector vocabulary; what each computes: activation.h.
 *
 * Every function here is stable for large inputs of either sign: exponentials are taken of what is not positive, or their
 * overflow to infinity gives the right limit. A NaN in src makes the result NaN: where one side of a comparison yields a
 * constant, NaN takes the other side. Derivatives at kinks are PyTorch's; a derivative that is constant on both sides of a
 * kink sees NaN where it is not 0, so that a NaN never turns diff_dst into 0. */
#include "ukernels/activation.h"

/* 1 / (1 + e^-x), and its derivative, without the cancellation of s (1 - s). */
VF_INLINE vf sigmoid_and_slope(vf x, vf *slope)
{
    const vf e = vf_exp_below(vf_neg(vf_abs(x)), 0.0f);
    const vf r = vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), e));
    const vf er = vf_mul(e, r);
    *slope = vf_mul(er, r);
    return vf_select(vf_gt(x, vf_zero()), r, er);
}

/* y is sigmoid(x). */
VF_INLINE vf sigmoid_gradient(vf y, vf g)
{
    return vf_mul(g, vf_fnmadd(y, y, y));
}

/* y is tanh(x). */
VF_INLINE vf tanh_gradient(vf y, vf g)
{
    return vf_mul(g, vf_fnmadd(y, y, vf_set1(1.0f)));
}

VF_INLINE vf relu(vf x)
{
    return vf_select(vf_le(x, vf_zero()), vf_zero(), x);
}

VF_INLINE vf relu_gradient(vf x, vf g)
{
    return vf_select(vf_le(x, vf_zero()), vf_zero(), g);
}

VF_INLINE vf clamp(vf x, float low, float high)
{
    return vf_clamp(x, vf_set1(low), vf_set1(high));
}

/* g where x lies inside (low, high) or is NaN, else 0. */
VF_INLINE vf clamp_gradient(vf x, float low, float high, vf g)
{
    return vf_select(vm_or(vf_le(x, vf_set1(low)), vf_ge(x, vf_set1(high))), vf_zero(), g);
}

VF_INLINE vf leaky_relu(vf x, vf slope)
{
    return vf_select(vf_gt(x, vf_zero()), x, vf_mul(slope, x));
}

VF_INLINE vf leaky_relu_gradient(vf x, vf g, vf slope)
{
    return vf_select(vf_gt(x, vf_zero()), g, vf_mul(slope, g));
}

VF_INLINE vf softplus(vf x, vf beta, vf threshold)
{
    const vf z = vf_mul(beta, x), inverse = vf_div(vf_set1(1.0f), beta);
    return vf_select(vf_gt(z, threshold), x, vf_mul(vf_softplus(z), inverse));
}

VF_INLINE vf softplus_gradient(vf x, vf g, vf beta, vf threshold)
{
    const vf z = vf_mul(beta, x);
    return vf_select(vf_gt(z, threshold), g, vf_mul(g, vf_sigmoid(z)));
}

/* With e = e^x and m = e (e + 2), tanh(softplus(x)) is m / (m + 2): one exponential in place of three functions. Above 20 it
 * is 1 to the last bit, and e^2 could overflow. */
VF_INLINE vf mish(vf x)
{
    const vf two = vf_set1(2.0f);
    const vf e = vf_exp_below(x, 20.0f);
    const vf m = vf_mul(e, vf_add(e, two));
    return vf_mul(x, vf_div(m, vf_add(m, two)));
}

/* m / (m + 2) + 4 x e (e + 1) / (m + 2)^2 */
VF_INLINE vf mish_gradient(vf x, vf g)
{
    const vf two = vf_set1(2.0f);
    const vf low = vf_clamp(x, vf_set1(-88.0f), vf_set1(20.0f));
    const vf e = vf_exp_bounded(low);
    const vf m = vf_mul(e, vf_add(e, two));
    const vf r = vf_div(vf_set1(1.0f), vf_add(m, two));
    const vf growth = vf_mul(vf_mul(vf_set1(4.0f), vf_mul(low, e)), vf_add(e, vf_set1(1.0f)));
    return vf_mul(g, vf_mul(r, vf_fmadd(growth, r, m)));
}

VF_INLINE vf silu(vf x)
{
    return vf_mul(x, vf_sigmoid(x));
}

VF_INLINE vf silu_gradient(vf x, vf g)
{
    vf slope;
    const vf s = sigmoid_and_slope(x, &slope);
    return vf_mul(g, vf_fmadd(x, slope, s));
}

VF_INLINE vf gelu(vf x)
{
    vf density;
    return vf_mul(x, vf_normal(x, &density));
}

VF_INLINE vf gelu_gradient(vf x, vf g)
{
    vf density;
    const vf normal = vf_normal(x, &density);
    return vf_mul(g, vf_fmadd(x, density, normal));
}

/* (1 + tanh(u)) / 2 is sigmoid(2 u), here with 2 u = 2 sqrt(2 / pi) (x + 0.044715 x^3). */
VF_INLINE vf gelu_tanh_argument(vf x)
{
    const vf cubic = vf_fmadd(vf_set1(0.044715f), vf_mul(x, x), vf_set1(1.0f));
    return vf_mul(vf_set1(1.5957691216f), vf_mul(x, cubic));
}

VF_INLINE vf gelu_tanh(vf x)
{
    return vf_mul(x, vf_sigmoid(gelu_tanh_argument(x)));
}

VF_INLINE vf gelu_tanh_gradient(vf x, vf g)
{
    vf slope;
    const vf s = sigmoid_and_slope(gelu_tanh_argument(x), &slope);
    /* Far out the slope is 0, and x^2 must not make infinity of what it multiplies. */
    const vf bounded = clamp(x, -30.0f, 30.0f);
    const vf inner = vf_fmadd(vf_set1(3.0f * 0.044715f), vf_mul(bounded, bounded), vf_set1(1.0f));
    const vf outer = vf_mul(vf_set1(1.5957691216f), bounded);
    return vf_mul(g, vf_fmadd(vf_mul(outer, inner), slope, s));
}

/* `scale` x above zero, `scale_alpha` (e^x - 1) below. */
VF_INLINE vf elu(vf x, vf scale, vf scale_alpha)
{
    return vf_select(vf_gt(x, vf_zero()), vf_mul(scale, x), vf_mul(scale_alpha, vf_expm1_below(x, 0.0f)));
}

VF_INLINE vf elu_gradient(vf x, vf g, vf scale, vf scale_alpha)
{
    return vf_mul(g, vf_select(vf_gt(x, vf_zero()), scale, vf_mul(scale_alpha, vf_exp_below(x, 0.0f))));
}

#define SELU_SCALE vf_set1(1.0507009873554805f)
#define SELU_SCALE_ALPHA vf_set1((float)(1.0507009873554805 * 1.6732632423543772))

VF_INLINE vf hardsigmoid(vf x)
{
    return vf_mul(clamp(vf_add(x, vf_set1(3.0f)), 0.0f, 6.0f), vf_set1(1.0f / 6.0f));
}

VF_INLINE vf hardsigmoid_gradient(vf x, vf g)
{
    return clamp_gradient(x, -3.0f, 3.0f, vf_mul(g, vf_set1(1.0f / 6.0f)));
}

VF_INLINE vf hardswish(vf x)
{
    return vf_mul(x, hardsigmoid(x));
}

VF_INLINE vf hardswish_gradient(vf x, vf g)
{
    const vf inner = vf_mul(g, vf_fmadd(x, vf_set1(1.0f / 3.0f), vf_set1(0.5f)));
    const vf left = vf_select(vf_le(x, vf_set1(-3.0f)), vf_zero(), inner);
    return vf_select(vf_ge(x, vf_set1(3.0f)), g, left);
}

VF_INLINE vf activation_load(const float *p, int64_t left)
{
    return left >= VF_WIDTH ? vf_load(p) : vf_load_tail(p, (int)left);
}

VF_INLINE void activation_store(float *p, vf y, int64_t left, bool stream)
{
    if (left < VF_WIDTH)
        vf_store_tail(p, y, (int)left);
    else if (stream)
        vf_stream(p, y);
    else
        vf_store(p, y);
}

/* The two macros below define kind_forward from the value of f at x, and kind_backward from the gradient at x (or y, where
 * backward reads that) where that of dst is g; both may use alpha as a, beta as b. Their last loop does whatever is left: all
 * of it where an exponential makes its branches cheap; only the tail of what is `quick`. */
#define DEFINE_FORWARD(kind, quick, value)                                                                             \
    static void kind##_forward(int64_t n, const float *src, float *dst, float alpha, float beta, bool stream)          \
    {                                                                                                                  \
        const vf a = vf_set1(alpha), b = vf_set1(beta);                                                                \
        (void)a, (void)b;                                                                                              \
        int64_t i = 0;                                                                                                 \
        if (quick && stream)                                                                                           \
            for (; i + VF_WIDTH <= n; i += VF_WIDTH) {                                                                 \
                const vf x = vf_load(src + i);                                                                         \
                vf_stream(dst + i, value);                                                                             \
            }                                                                                                          \
        if (quick)                                                                                                     \
            for (; i + VF_WIDTH <= n; i += VF_WIDTH) {                                                                 \
                const vf x = vf_load(src + i);                                                                         \
                vf_store(dst + i, value);                                                                              \
            }                                                                                                          \
        for (; i < n; i += VF_WIDTH) {                                                                                 \
            const vf x = activation_load(src + i, n - i);                                                              \
            activation_store(dst + i, value, n - i, stream);                                                           \
        }                                                                                                              \
        if (stream) vf_stream_end();                                                                                   \
    }

#define DEFINE_BACKWARD(kind, quick, gradient)                                                                         \
    static void kind##_backward(int64_t n, const float *kept, const float *diff_dst, float *diff_src, float alpha,     \
                                float beta, bool stream)                                                               \
    {                                                                                                                  \
        const vf a = vf_set1(alpha), b = vf_set1(beta);                                                                \
        (void)a, (void)b;                                                                                              \
        int64_t i = 0;                                                                                                 \
        if (quick && stream)                                                                                           \
            for (; i + VF_WIDTH <= n; i += VF_WIDTH) {                                                                 \
                const vf x = vf_load(kept + i), g = vf_load(diff_dst + i);                                             \
                vf_stream(diff_src + i, gradient);                                                                     \
            }                                                                                                          \
        if (quick)                                                                                                     \
            for (; i + VF_WIDTH <= n; i += VF_WIDTH) {                                                                 \
                const vf x = vf_load(kept + i), g = vf_load(diff_dst + i);                                             \
                vf_store(diff_src + i, gradient);                                                                      \
            }                                                                                                          \
        for (; i < n; i += VF_WIDTH) {                                                                                 \
            const vf x = activation_load(kept + i, n - i), g = activation_load(diff_dst + i, n - i);                   \
            activation_store(diff_src + i, gradient, n - i, stream);                                                   \
        }                                                                                                              \
        if (stream) vf_stream_end();                                                                                   \
    }

DEFINE_FORWARD(sigmoid, false, vf_sigmoid(x))
DEFINE_BACKWARD(sigmoid, true, sigmoid_gradient(x, g))
DEFINE_FORWARD(tanh, false, vf_tanh(x))
DEFINE_BACKWARD(tanh, true, tanh_gradient(x, g))
DEFINE_FORWARD(relu, true, relu(x))
DEFINE_BACKWARD(relu, true, relu_gradient(x, g))
DEFINE_FORWARD(relu6, true, clamp(x, 0.0f, 6.0f))
DEFINE_BACKWARD(relu6, true, clamp_gradient(x, 0.0f, 6.0f, g))
DEFINE_FORWARD(leaky_relu, true, leaky_relu(x, a))
DEFINE_BACKWARD(leaky_relu, true, leaky_relu_gradient(x, g, a))
DEFINE_FORWARD(softplus, false, softplus(x, a, b))
DEFINE_BACKWARD(softplus, false, softplus_gradient(x, g, a, b))
DEFINE_FORWARD(mish, false, mish(x))
DEFINE_BACKWARD(mish, false, mish_gradient(x, g))
DEFINE_FORWARD(silu, false, silu(x))
DEFINE_BACKWARD(silu, false, silu_gradient(x, g))
DEFINE_FORWARD(gelu, false, gelu(x))
DEFINE_BACKWARD(gelu, false, gelu_gradient(x, g))
DEFINE_FORWARD(gelu_tanh, false, gelu_tanh(x))
DEFINE_BACKWARD(gelu_tanh, false, gelu_tanh_gradient(x, g))
DEFINE_FORWARD(elu, false, elu(x, vf_set1(1.0f), a))
DEFINE_BACKWARD(elu, false, elu_gradient(x, g, vf_set1(1.0f), a))
DEFINE_FORWARD(selu, false, elu(x, SELU_SCALE, SELU_SCALE_ALPHA))
DEFINE_BACKWARD(selu, false, elu_gradient(x, g, SELU_SCALE, SELU_SCALE_ALPHA))
DEFINE_FORWARD(hardswish, true, hardswish(x))
DEFINE_BACKWARD(hardswish, true, hardswish_gradient(x, g))
DEFINE_FORWARD(hardsigmoid, true, hardsigmoid(x))
DEFINE_BACKWARD(hardsigmoid, true, hardsigmoid_gradient(x, g))

#undef DEFINE_FORWARD
#undef DEFINE_BACKWARD

/* ---- PReLU ------------------------------------------------------------------------------------------------------- */

static void prelu_row_forward(int64_t n, const float *src, const float *slope, float *dst)
{
    int64_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH) vf_store(dst + i, leaky_relu(vf_load(src + i), vf_load(slope + i)));
    if (i < n) {
        const int lanes = (int)(n - i);
        const vf y = leaky_relu(vf_load_tail(src + i, lanes), vf_load_tail(slope + i, lanes));
        vf_store_tail(dst + i, y, lanes);
    }
}

static void prelu_row_backward(int64_t n, const float *src, const float *slope, const float *diff_dst, float *diff_src)
{
    int64_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(diff_src + i, leaky_relu_gradient(vf_load(src + i), vf_load(diff_dst + i), vf_load(slope + i)));
    if (i < n) {
        const int lanes = (int)(n - i);
        const vf x = vf_load_tail(src + i, lanes), g = vf_load_tail(diff_dst + i, lanes);
        vf_store_tail(diff_src + i, leaky_relu_gradient(x, g, vf_load_tail(slope + i, lanes)), lanes);
    }
}

/* sum + the slope's part in the gradient */
VF_INLINE vf prelu_slope_step(vf sum, vf x, vf g)
{
    return vf_add(sum, vf_select(vf_gt(x, vf_zero()), vf_zero(), vf_mul(x, g)));
}

static void prelu_row_backward_slope(int64_t n, const float *src, const float *diff_dst, float *sum)
{
    int64_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(sum + i, prelu_slope_step(vf_load(sum + i), vf_load(src + i), vf_load(diff_dst + i)));
    if (i < n) {
        const int lanes = (int)(n - i);
        const vf x = vf_load_tail(src + i, lanes), g = vf_load_tail(diff_dst + i, lanes);
        vf_store_tail(sum + i, prelu_slope_step(vf_load_tail(sum + i, lanes), x, g), lanes);
    }
}

/* The length of the row that begins at i: the period, or what is left. */
static inline int64_t prelu_row(int64_t n, int64_t period, int64_t i)
{
    return n - i < period ? n - i : period;
}

static void prelu_forward(int64_t n, int64_t period, const float *src, const float *slope, float *dst)
{
    for (int64_t i = 0; i < n; i += period) prelu_row_forward(prelu_row(n, period, i), src + i, slope, dst + i);
}

static void prelu_backward(int64_t n, int64_t period, const float *src, const float *slope, const float *diff_dst,
                           float *diff_src)
{
    for (int64_t i = 0; i < n; i += period)
        prelu_row_backward(prelu_row(n, period, i), src + i, slope, diff_dst + i, diff_src + i);
}

static void prelu_backward_slope(int64_t n, int64_t period, const float *src, const float *diff_dst, float *diff_slope)
{
    for (int64_t j = 0; j < period; j++) diff_slope[j] = 0.0f;
    for (int64_t i = 0; i < n; i += period)
        prelu_row_backward_slope(prelu_row(n, period, i), src + i, diff_dst + i, diff_slope);
}

/* ---- dropout ----------------------------------------------------------------------------------------------------- */

#define PHILOX_VECTORS (CNN_PHILOX_LANES / VF_WIDTH)

/* cnn_random_words in vectors: word[i][v] are the lanes from v VF_WIDTH on of the group's word i. */
VF_INLINE void philox_group(const cnn_random_stream *stream, uint64_t group, vi word[4][PHILOX_VECTORS])
{
    static const int32_t lanes[CNN_PHILOX_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const uint64_t block = group * CNN_PHILOX_LANES;
    for (int v = 0; v < PHILOX_VECTORS; v++) {
        word[0][v] = vi_add(vi_set1((int32_t)(uint32_t)block), vi_load(lanes + v * VF_WIDTH));
        word[1][v] = vi_set1((int32_t)(stream->high + (uint32_t)(block >> 32)));
        word[2][v] = vi_set1((int32_t)(uint32_t)stream->low);
        word[3][v] = vi_set1((int32_t)(uint32_t)(stream->low >> 32));
    }
    uint32_t key0 = (uint32_t)stream->seed, key1 = (uint32_t)(stream->seed >> 32);
    for (int round = 0; round < 10; round++) {
        for (int v = 0; v < PHILOX_VECTORS; v++) {
            vi high0, high1;
            const vi low0 = vi_mul_wide(word[0][v], vi_set1((int32_t)CNN_PHILOX_FACTOR0), &high0);
            const vi low1 = vi_mul_wide(word[2][v], vi_set1((int32_t)CNN_PHILOX_FACTOR1), &high1);
            word[0][v] = vi_xor(vi_xor(high1, word[1][v]), vi_set1((int32_t)key0));
            word[2][v] = vi_xor(vi_xor(high0, word[3][v]), vi_set1((int32_t)key1));
            word[1][v] = low1;
            word[3][v] = low0;
        }
        key0 += CNN_PHILOX_STEP0;
        key1 += CNN_PHILOX_STEP1;
    }
}

static void dropout(int64_t first, int64_t n, const cnn_random_stream *stream, uint32_t threshold, float scale,
                    const float *src, float *dst)
{
    const vi bound = vi_set1((int32_t)threshold);
    int64_t i = 0;
    for (; i + CNN_RANDOM_GROUP <= n; i += CNN_RANDOM_GROUP) {
        vi word[4][PHILOX_VECTORS];
        philox_group(stream, (uint64_t)(first + i) / CNN_RANDOM_GROUP, word);
        for (int w = 0; w < 4; w++)
            for (int v = 0; v < PHILOX_VECTORS; v++) {
                const int64_t at = i + w * CNN_PHILOX_LANES + v * VF_WIDTH;
                const vf factor = vf_select(vi_below(word[w][v], bound), vf_zero(), vf_set1(scale));
                vf_store(dst + at, vf_mul(vf_load(src + at), factor));
            }
    }
    if (i < n) {
        uint32_t words[CNN_RANDOM_GROUP];
        cnn_random_words(stream, (uint64_t)(first + i) / CNN_RANDOM_GROUP, words);
        for (int j = 0; j < (int)(n - i); j++) dst[i + j] = src[i + j] * (words[j] < threshold ? 0.0f : scale);
    }
}

#undef PHILOX_VECTORS

#define ACTIVATION_TABLE(direction)                    \
    {                                                  \
        [CNN_SIGMOID] = sigmoid_##direction,           \
        [CNN_TANH] = tanh_##direction,                 \
        [CNN_RELU] = relu_##direction,                 \
        [CNN_RELU6] = relu6_##direction,               \
        [CNN_LEAKY_RELU] = leaky_relu_##direction,     \
        [CNN_SOFTPLUS] = softplus_##direction,         \
        [CNN_MISH] = mish_##direction,                 \
        [CNN_SILU] = silu_##direction,                 \
        [CNN_GELU] = gelu_##direction,                 \
        [CNN_GELU_TANH] = gelu_tanh_##direction,       \
        [CNN_ELU] = elu_##direction,                   \
        [CNN_SELU] = selu_##direction,                 \
        [CNN_HARDSWISH] = hardswish_##direction,       \
        [CNN_HARDSIGMOID] = hardsigmoid_##direction,   \
    }

#define CNN_KERNELS_ACTIVATION                              \
    {                                                       \
        .forward = ACTIVATION_TABLE(forward),               \
        .backward = ACTIVATION_TABLE(backward),             \
        .prelu_forward = prelu_forward,                     \
        .prelu_backward = prelu_backward,                   \
        .prelu_backward_slope = prelu_backward_slope,       \
        .dropout = dropout,                                 \
    }
