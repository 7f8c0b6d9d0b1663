#include <math.h>

#include "ref/ref.h"

static const double selu_alpha = 1.6732632423543772848170429916717, selu_scale = 1.0507009873554804934193349852946;
static const double sqrt_2 = 1.4142135623730950488, sqrt_2_pi = 2.5066282746310005024;

static double sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

static double sigmoid_slope(double x)
{
    const double e = exp(-fabs(x));
    return e / ((1 + e) * (1 + e));
}

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* P(Z <= x) for a standard normal Z. */
static double normal(double x)
{
    return 0.5 * erfc(-x / sqrt_2);
}

/* u = sqrt(2 / pi) (x + 0.044715 x^3), the argument of GELU's tanh. */
static double gelu_tanh_argument(double x)
{
    return 2 / sqrt_2_pi * (x + 0.044715 * x * x * x);
}

/* dsigmoid(2 u)/dx; far out it is 0, where x^2 might overflow. */
static double gelu_tanh_slope(double x)
{
    if (fabs(x) > 100) return 0;
    return sigmoid_slope(2 * gelu_tanh_argument(x)) * 4 / sqrt_2_pi * (1 + 3 * 0.044715 * x * x);
}

/* f(x) */
static double value(const cnn_attributes *attributes, double x)
{
    const double alpha = attributes->activation.alpha, beta = attributes->activation.beta;
    switch (attributes->activation.kind) {
    case CNN_SIGMOID: return sigmoid(x);
    case CNN_TANH: return tanh(x);
    case CNN_RELU: return x <= 0 ? 0 : x;
    case CNN_RELU6: return clamp(x, 0, 6);
    case CNN_LEAKY_RELU: return x > 0 ? x : alpha * x;
    case CNN_SOFTPLUS: return alpha * x > beta ? x : softplus(alpha * x) / alpha;
    case CNN_MISH: return x * tanh(softplus(x));
    case CNN_SILU: return x * sigmoid(x);
    case CNN_GELU: return x * normal(x);
    case CNN_GELU_TANH: return x * sigmoid(2 * gelu_tanh_argument(x));
    case CNN_ELU: return x > 0 ? x : alpha * expm1(x);
    case CNN_SELU: return selu_scale * (x > 0 ? x : selu_alpha * expm1(x));
    case CNN_HARDSWISH: return x * (clamp(x + 3, 0, 6) / 6);
    case CNN_HARDSIGMOID: return clamp(x + 3, 0, 6) / 6;
    case CNN_ACTIVATION_COUNT: break;
    }
    return (double)NAN;
}

/* g f'(x); exactly 0 where f is constant. */
static double gradient(const cnn_attributes *attributes, double x, double g)
{
    const double alpha = attributes->activation.alpha, beta = attributes->activation.beta;
    switch (attributes->activation.kind) {
    case CNN_SIGMOID: return g * sigmoid_slope(x);
    case CNN_TANH: return g * 4 * sigmoid_slope(2 * x);
    case CNN_RELU: return x <= 0 ? 0 : g;
    case CNN_RELU6: return x <= 0 || x >= 6 ? 0 : g;
    case CNN_LEAKY_RELU: return x > 0 ? g : alpha * g;
    case CNN_SOFTPLUS: return alpha * x > beta ? g : g * sigmoid(alpha * x);
    case CNN_MISH: {
        const double t = tanh(softplus(x));
        return g * (t + x * (1 - t * t) * sigmoid(x));
    }
    case CNN_SILU: return g * (sigmoid(x) + x * sigmoid_slope(x));
    case CNN_GELU: return g * (normal(x) + x * exp(-0.5 * x * x) / sqrt_2_pi);
    case CNN_GELU_TANH: return g * (sigmoid(2 * gelu_tanh_argument(x)) + x * gelu_tanh_slope(x));
    case CNN_ELU: return x > 0 ? g : g * alpha * exp(x);
    case CNN_SELU: return x > 0 ? g * selu_scale : g * selu_scale * selu_alpha * exp(x);
    case CNN_HARDSWISH: return x <= -3 ? 0 : x >= 3 ? g : g * (x / 3 + 0.5);
    case CNN_HARDSIGMOID: return x <= -3 || x >= 3 ? 0 : g / 6;
    case CNN_ACTIVATION_COUNT: break;
    }
    return (double)NAN;
}

/* The same from y = f(x), for the kinds that keep it. */
static double gradient_by_value(const cnn_attributes *attributes, double y, double g)
{
    return attributes->activation.kind == CNN_SIGMOID ? g * y * (1 - y) : g * (1 - y * y);
}

#define REAL float
#define NAME(function) function##_f32
#include "ref/activation.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(function) function##_f64
#include "ref/activation.inc"

CNN_REFERENCE_DISPATCH(activation)
