#include <math.h>
#include <string.h>

#include "ref/ref.h"

typedef struct pool_shape {
    cnn_image src, dst;
    int64_t src_stride[CNN_MAX_RANK], dst_stride[CNN_MAX_RANK];
    const int64_t *kernel, *stride, *padding, *dilation; /* of fixed windows */
    bool count_include_pad;
    int64_t divisor;
} pool_shape;

static pool_shape pool_of(const cnn_node *node)
{
    const cnn_attributes *a = &node->attributes;
    pool_shape p = {
        .src = cnn_image_of(&node->src_shape[0]),
        .dst = cnn_image_of(&node->dst_shape),
        .kernel = a->pool.kernel,
        .stride = a->pool.stride,
        .padding = a->pool.padding,
        .dilation = a->pool.dilation,
        .count_include_pad = a->pool.count_include_pad != 0,
        .divisor = a->pool.divisor,
    };
    cnn_shape_strides(&node->src_shape[0], true, p.src_stride);
    cnn_shape_strides(&node->dst_shape, true, p.dst_stride);
    return p;
}

static int64_t at(const int64_t stride[CNN_MAX_RANK], int64_t n, int64_t c, int64_t h, int64_t w)
{
    return n * stride[0] + c * stride[1] + h * stride[2] + w * stride[3];
}

static bool inside(const pool_shape *p, int64_t ih, int64_t iw)
{
    return ih >= 0 && ih < p->src.h && iw >= 0 && iw < p->src.w;
}

/* Sets the window of an output, which may reach outside the image, and returns its divisor. */
typedef double window_fn(const pool_shape *p, int64_t oh, int64_t ow, int64_t begin[2], int64_t end[2]);

static double fixed_window(const pool_shape *p, int64_t oh, int64_t ow, int64_t begin[2], int64_t end[2])
{
    const int64_t o[2] = {oh, ow}, size[2] = {p->src.h, p->src.w};
    int64_t with_padding = 1, within_image = 1;
    for (int k = 0; k < 2; k++) {
        begin[k] = o[k] * p->stride[k] - p->padding[k];
        end[k] = cnn_min_i64(begin[k] + p->kernel[k], size[k] + p->padding[k]);
        with_padding *= end[k] - begin[k];
        within_image *= cnn_min_i64(end[k], size[k]) - cnn_max_i64(begin[k], 0);
    }
    if (p->divisor != 0) return (double)p->divisor;
    return (double)(p->count_include_pad ? with_padding : within_image);
}

static double adaptive_window(const pool_shape *p, int64_t oh, int64_t ow, int64_t begin[2], int64_t end[2])
{
    const int64_t o[2] = {oh, ow}, in[2] = {p->src.h, p->src.w}, out[2] = {p->dst.h, p->dst.w};
    for (int k = 0; k < 2; k++) {
        begin[k] = o[k] * in[k] / out[k];
        end[k] = cnn_ceil_div((o[k] + 1) * in[k], out[k]);
    }
    return (double)((end[0] - begin[0]) * (end[1] - begin[1]));
}

#define REAL float
#define NAME(name) name##_f32
#include "ref/pool.inc"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_f64
#include "ref/pool.inc"

CNN_REFERENCE_DISPATCH(max_pool2d)
CNN_REFERENCE_DISPATCH(avg_pool2d)
CNN_REFERENCE_DISPATCH(adaptive_avg_pool2d)
