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
    const vf e = vf_exp(vf_neg(vf_abs(x)));
    const vf r = vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), e));
    const vf er = vf_mul(e, r);
    *slope = vf_mul(er, r);
    return vf_select(vf_gt(x, vf_zero()), r, er);
}

VF_INLINE vf sigmoid_gradient(vf x, vf g)
{
    vf slope;
    sigmoid_and_slope(x, &slope);
    return vf_mul(g, slope);
}

/* tanh(x) = 2 sigmoid(2x) - 1 */
VF_INLINE vf tanh_gradient(vf x, vf g)
{
    vf slope;
    sigmoid_and_slope(vf_add(x, x), &slope);
    return vf_mul(g, vf_mul(vf_set1(4.0f), slope));
}

VF_INLINE vf relu(vf x)
{
    return vf_select(vf_le(x, vf_zero()), vf_zero(), x);
}

VF_INLINE vf relu_gradient(vf x, vf g)
{
    return vf_select(vf_le(x, vf_zero()), vf_zero(), g);
}

/* x within [low, high], NaN kept. */
VF_INLINE vf clamp(vf x, float low, float high)
{
    x = vf_select(vf_lt(x, vf_set1(low)), vf_set1(low), x);
    return vf_select(vf_gt(x, vf_set1(high)), vf_set1(high), x);
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
    const vf z = vf_mul(beta, x);
    return vf_select(vf_gt(z, threshold), x, vf_div(vf_softplus(z), beta));
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
    const vf e = vf_exp(vf_min(x, vf_set1(20.0f)));
    const vf m = vf_mul(e, vf_add(e, two));
    return vf_mul(x, vf_div(m, vf_add(m, two)));
}

/* m / (m + 2) + 4 x e (e + 1) / (m + 2)^2 */
VF_INLINE vf mish_gradient(vf x, vf g)
{
    const vf two = vf_set1(2.0f);
    const vf low = vf_min(x, vf_set1(20.0f));
    const vf e = vf_exp(low);
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
    return vf_select(vf_gt(x, vf_zero()), vf_mul(scale, x), vf_mul(scale_alpha, vf_expm1(x)));
}

VF_INLINE vf elu_gradient(vf x, vf g, vf scale, vf scale_alpha)
{
    return vf_mul(g, vf_select(vf_gt(x, vf_zero()), scale, vf_mul(scale_alpha, vf_exp(x))));
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

/* Defines kind_forward and kind_backward from the value of f at x, and the gradient at x where that of dst is g; both may
 * use alpha as a, beta as b. */
#define DEFINE_ACTIVATION(kind, value, gradient)                                                                       \
    static void kind##_forward(int64_t n, const float *src, float *dst, float alpha, float beta)                       \
    {                                                                                                                  \
        const vf a = vf_set1(alpha), b = vf_set1(beta);                                                                \
        (void)a, (void)b;                                                                                              \
        int64_t i = 0;                                                                                                 \
        for (; i + VF_WIDTH <= n; i += VF_WIDTH) {                                                                     \
            const vf x = vf_load(src + i);                                                                             \
            vf_store(dst + i, value);                                                                                  \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            const int lanes = (int)(n - i);                                                                            \
            const vf x = vf_load_tail(src + i, lanes);                                                                 \
            vf_store_tail(dst + i, value, lanes);                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static void kind##_backward(int64_t n, const float *src, const float *diff_dst, float *diff_src, float alpha,      \
                                float beta)                                                                            \
    {                                                                                                                  \
        const vf a = vf_set1(alpha), b = vf_set1(beta);                                                                \
        (void)a, (void)b;                                                                                              \
        int64_t i = 0;                                                                                                 \
        for (; i + VF_WIDTH <= n; i += VF_WIDTH) {                                                                     \
            const vf x = vf_load(src + i), g = vf_load(diff_dst + i);                                                  \
            vf_store(diff_src + i, gradient);                                                                          \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            const int lanes = (int)(n - i);                                                                            \
            const vf x = vf_load_tail(src + i, lanes), g = vf_load_tail(diff_dst + i, lanes);                          \
            vf_store_tail(diff_src + i, gradient, lanes);                                                              \
        }                                                                                                              \
    }

DEFINE_ACTIVATION(sigmoid, vf_sigmoid(x), sigmoid_gradient(x, g))
DEFINE_ACTIVATION(tanh, vf_tanh(x), tanh_gradient(x, g))
DEFINE_ACTIVATION(relu, relu(x), relu_gradient(x, g))
DEFINE_ACTIVATION(relu6, clamp(x, 0.0f, 6.0f), clamp_gradient(x, 0.0f, 6.0f, g))
DEFINE_ACTIVATION(leaky_relu, leaky_relu(x, a), leaky_relu_gradient(x, g, a))
DEFINE_ACTIVATION(softplus, softplus(x, a, b), softplus_gradient(x, g, a, b))
DEFINE_ACTIVATION(mish, mish(x), mish_gradient(x, g))
DEFINE_ACTIVATION(silu, silu(x), silu_gradient(x, g))
DEFINE_ACTIVATION(gelu, gelu(x), gelu_gradient(x, g))
DEFINE_ACTIVATION(gelu_tanh, gelu_tanh(x), gelu_tanh_gradient(x, g))
DEFINE_ACTIVATION(elu, elu(x, vf_set1(1.0f), a), elu_gradient(x, g, vf_set1(1.0f), a))
DEFINE_ACTIVATION(selu, elu(x, SELU_SCALE, SELU_SCALE_ALPHA), elu_gradient(x, g, SELU_SCALE, SELU_SCALE_ALPHA))
DEFINE_ACTIVATION(hardswish, hardswish(x), hardswish_gradient(x, g))
DEFINE_ACTIVATION(hardsigmoid, hardsigmoid(x), hardsigmoid_gradient(x, g))

#undef DEFINE_ACTIVATION

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

/* Plain loops, for compilers to turn into vector code. */
static void dropout(int64_t first, int64_t n, const cnn_random_stream *stream, uint32_t threshold, float scale,
                    const float *src, float *dst)
{
    uint32_t words[CNN_RANDOM_GROUP];
    int64_t i = 0;
    for (; i + CNN_RANDOM_GROUP <= n; i += CNN_RANDOM_GROUP) {
        cnn_random_words(stream, (uint64_t)(first + i) / CNN_RANDOM_GROUP, words);
        for (int j = 0; j < CNN_RANDOM_GROUP; j++) dst[i + j] = src[i + j] * (words[j] < threshold ? 0.0f : scale);
    }
    if (i < n) {
        cnn_random_words(stream, (uint64_t)(first + i) / CNN_RANDOM_GROUP, words);
        for (int j = 0; j < (int)(n - i); j++) dst[i + j] = src[i + j] * (words[j] < threshold ? 0.0f : scale);
    }
}

#define CNN_KERNELS_ACTIVATION                       \
    {                                                \
        .forward = {                                 \
            [CNN_SIGMOID] = sigmoid_forward,         \
            [CNN_TANH] = tanh_forward,               \
            [CNN_RELU] = relu_forward,               \
            [CNN_RELU6] = relu6_forward,             \
            [CNN_LEAKY_RELU] = leaky_relu_forward,   \
            [CNN_SOFTPLUS] = softplus_forward,       \
            [CNN_MISH] = mish_forward,               \
            [CNN_SILU] = silu_forward,               \
            [CNN_GELU] = gelu_forward,               \
            [CNN_GELU_TANH] = gelu_tanh_forward,     \
            [CNN_ELU] = elu_forward,                 \
            [CNN_SELU] = selu_forward,               \
            [CNN_HARDSWISH] = hardswish_forward,     \
            [CNN_HARDSIGMOID] = hardsigmoid_forward, \
        },                                           \
        .backward = {                                \
            [CNN_SIGMOID] = sigmoid_backward,        \
            [CNN_TANH] = tanh_backward,              \
            [CNN_RELU] = relu_backward,              \
            [CNN_RELU6] = relu6_backward,            \
            [CNN_LEAKY_RELU] = leaky_relu_backward,  \
            [CNN_SOFTPLUS] = softplus_backward,      \
            [CNN_MISH] = mish_backward,              \
            [CNN_SILU] = silu_backward,              \
            [CNN_GELU] = gelu_backward,              \
            [CNN_GELU_TANH] = gelu_tanh_backward,    \
            [CNN_ELU] = elu_backward,                \
            [CNN_SELU] = selu_backward,              \
            [CNN_HARDSWISH] = hardswish_backward,    \
            [CNN_HARDSIGMOID] = hardsigmoid_backward,\
        },                                           \
        .prelu_forward = prelu_forward,              \
        .prelu_backward = prelu_backward,            \
        .prelu_backward_slope = prelu_backward_slope,\
        .dropout = dropout,                          \
    }
