/* Winograd convolution as its files share it: conv_winograd.c, winograd_pass.c, winograd_gradient.c, winograd_weights.c. */
#ifndef CNN_OPS_WINOGRAD_H
#define CNN_OPS_WINOGRAD_H

#include "ops/conv_tiling.h"
#include "ops/winograd_tiles.h"

/* Roughly the nanoseconds that one core takes. */
static inline double cnn_winograd_work(const cnn_conv_call *call)
{
    return cnn_conv_work(call->conv, call->kernels) / (call->conv->stride[0] == 1 ? 3.0 : 1.5);
}

/* Transformed weights, [planes][panels][in channels][panel row] for some panels and some in channels. (winograd_weights.c) */
typedef struct cnn_winograd_weights {
    float *data;
    int64_t plane;       /* floats from plane to plane */
    int64_t first_panel; /* the first that it holds */
    int64_t first, count; /* in channels */
} cnn_winograd_weights;

/* The weights of a pass as it sees them: backward data reads the kernel from its other end, in and out exchanged. Its nine
 * taps lie a stride apart, a negative one if they are read from the other end. */
typedef struct cnn_winograd_filters {
    cnn_winograd_form form;
    int points; /* of the transformed weights along an axis */
    const float *data;
    int64_t out_stride, in_stride, tap_stride, in_channels;
} cnn_winograd_filters;

cnn_winograd_filters cnn_winograd_filters_of(const cnn_conv_call *call);

/* All weights of a pass, in `memory`. */
cnn_winograd_weights cnn_winograd_all_weights(const cnn_winograd_tiles *tiles, const cnn_conv_panels *panels,
                                              const void *memory);
size_t cnn_winograd_weights_bytes(const cnn_winograd_tiles *tiles, const cnn_conv_panels *panels);
/* One panel of them, in channels [first, first + count). */
void cnn_winograd_make_panel(const cnn_kernels *kernels, const cnn_conv_panels *panels,
                             const cnn_winograd_filters *filters, int64_t panel, int64_t first, int64_t count,
                             const cnn_winograd_weights *to);
/* All of them, on some threads. */
void cnn_winograd_make_weights(const cnn_conv_call *call, const cnn_winograd_tiles *tiles, const cnn_conv_panels *panels,
                               const cnn_winograd_weights *to);

static inline float *cnn_winograd_weights_at(const cnn_winograd_weights *w, const cnn_conv_panels *panels, int64_t plane,
                                             int64_t panel, int64_t c)
{
    return w->data + plane * w->plane + (panel - w->first_panel) * panels->width * w->count +
           (c - w->first) * cnn_conv_panel_row(panels, panel);
}

/* Forward and backward data. (winograd_pass.c) */
size_t cnn_winograd_pass_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels,
                                   int32_t threads);
void cnn_winograd_run_pass(const cnn_conv_call *call);

/* The gradient of the weights. (winograd_gradient.c; for few channels conv_winograd_shares.c)
 *
 * A run's tiles of both images, transformed: V of x and D of diff_dst, [planes][panels][tiles][panel width]. */
typedef struct cnn_winograd_pair {
    cnn_winograd_run run;
    float *v, *d;
    int64_t v_plane, d_plane; /* floats from plane to plane */
    int64_t width, panel;     /* floats of a panel's row; from panel to panel */
} cnn_winograd_pair;

/* Tiles [begin, end) of the run, V and D `=`. */
void cnn_winograd_transform_pair(const cnn_conv_call *call, const cnn_winograd_pair *pair, int64_t begin, int64_t end);
/* diff_weights += G^T s G for filters of `count` in channels from c on and `channels` out channels from `first` on; sums are
 * [CNN_WINOGRAD_FILTER][count][channels], `plane` floats from plane to plane and `row` from in channel to in channel. */
void cnn_winograd_add_filters(const cnn_conv_call *call, int64_t c, int64_t count, int64_t first, int64_t channels,
                              const float *sums, int64_t row, int64_t plane, float *room);
size_t cnn_winograd_filters_bytes(const cnn_conv *conv); /* of its room */

size_t cnn_winograd_gradient_workspace(const cnn_conv *conv, const cnn_kernels *kernels, int32_t threads);
void cnn_winograd_run_gradient(const cnn_conv_call *call);

#endif
