/* Weights of a Winograd convolution, transformed: G g G^T of each filter, packed in panels of output channels. */
#include "ops/winograd.h"

#include "simd/inline.h"

cnn_winograd_filters cnn_winograd_filters_of(const cnn_conv_call *call)
{
    const int64_t *stride = call->conv->weights_stride;
    const bool back = call->pass == CNN_CONV_BACKWARD_DATA;
    const cnn_winograd_tiles tiles = cnn_winograd_tiles_of(call->conv, call->pass);
    return (cnn_winograd_filters){
        .form = tiles.form,
        .points = tiles.layout->points,
        .data = call->weights,
        .out_stride = stride[back ? 1 : 0],
        .in_stride = stride[back ? 0 : 1],
        .tap_stride = back ? -stride[3] : stride[3],
        .in_channels = back ? call->conv->oc : call->conv->ic,
    };
}

cnn_winograd_weights cnn_winograd_all_weights(const cnn_winograd_tiles *tiles, const cnn_conv_panels *panels,
                                              const void *memory)
{
    return (cnn_winograd_weights){.data = (float *)(uintptr_t)memory,
                                  .plane = cnn_winograd_stride(tiles->ic * panels->padded),
                                  .count = tiles->ic};
}

size_t cnn_winograd_weights_bytes(const cnn_winograd_tiles *tiles, const cnn_conv_panels *panels)
{
    return cnn_winograd_bytes(cnn_winograd_filter_planes(tiles->layout), tiles->ic * panels->padded);
}

#define MOST_ROW 32 /* floats in a row of a panel, on any ISA */
#define SOME 16     /* in channels that are gathered at a time */

/* g[filter][9][row] of `count` in channels: those at `from`. One of the two strides is far: along the other, filters lie
 * side by side, and these runs are read through, each of another page where channels are many. */
static void gather(const cnn_kernels *kernels, const cnn_winograd_filters *filters, const float *from, int64_t count,
                   int64_t channels, int64_t row, float *g)
{
    const int64_t tap = filters->tap_stride, first = tap < 0 ? -8 * tap : 0;
    if (filters->in_stride == 9 * tap) {
        kernels->conv.pack(from, 9 * count, tap, channels, filters->out_stride, row, g);
        return;
    }
    for (int64_t c = 0; c < count; c++)
        kernels->conv.pack(from + c * filters->in_stride + first, 9, tap, channels, filters->out_stride, row,
                           g + c * 9 * row);
}

/* Into the first-level cache what `gather` will read, where taps lie side by side: the processor foresees no such runs. */
static void fetch(const cnn_winograd_filters *filters, const float *from, int64_t count, int64_t channels)
{
    if (filters->tap_stride != 1 && filters->tap_stride != -1) return;
    const bool out = filters->out_stride > filters->in_stride; /* is the far one */
    const int64_t runs = out ? channels : count, floats = 9 * (out ? count : channels);
    for (int64_t i = 0; i < runs; i++)
        for (int64_t k = 0; k < floats; k += CNN_ALIGNMENT / (int64_t)sizeof(float))
            VF_FETCH_SOON(from + i * (out ? filters->out_stride : filters->in_stride) + k);
}

void cnn_winograd_make_panel(const cnn_kernels *kernels, const cnn_conv_panels *panels,
                             const cnn_winograd_filters *filters, int64_t panel, int64_t first, int64_t count,
                             const cnn_winograd_weights *to)
{
    const int64_t channels = cnn_conv_panel_channels(panels, panel), row = cnn_conv_panel_row(panels, panel);
    const float *from = filters->data + panel * panels->width * filters->out_stride;
    float g[SOME * 9 * MOST_ROW] = {0};
    for (int64_t c = first; c < first + count; c += SOME) {
        const int64_t some = cnn_min_i64(SOME, first + count - c);
        const int64_t next = cnn_min_i64(SOME, filters->in_channels - (c + some));
        if (next > 0) fetch(filters, from + (c + some) * filters->in_stride, next, channels);
        gather(kernels, filters, from + c * filters->in_stride, some, channels, row, g);
        for (int r = 0; r < filters->points; r++)
            kernels->winograd.form[filters->form].weights(
                r, some, g, (int)row, cnn_winograd_weights_at(to, panels, r * filters->points, panel, c), to->plane);
    }
}

typedef struct weights_job {
    const cnn_kernels *kernels;
    const cnn_winograd_tiles *tiles;
    const cnn_conv_panels *panels;
    cnn_winograd_filters filters;
    const cnn_winograd_weights *to;
} weights_job;

#define CHANNELS_PER_TASK 32

static void make_some(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const weights_job *job = arg;
    const int64_t ic = job->tiles->ic, parts = cnn_ceil_div(ic, CHANNELS_PER_TASK);
    const int64_t first = task % parts * CHANNELS_PER_TASK;
    cnn_winograd_make_panel(job->kernels, job->panels, &job->filters, task / parts, first,
                            cnn_min_i64(CHANNELS_PER_TASK, ic - first), job->to);
}

void cnn_winograd_make_weights(const cnn_conv_call *call, const cnn_winograd_tiles *tiles, const cnn_conv_panels *panels,
                               const cnn_winograd_weights *to)
{
    weights_job job = {call->kernels, tiles, panels, cnn_winograd_filters_of(call), to};
    cnn_parallel(cnn_useful_threads(call->threads, 10.0 * (double)tiles->ic * (double)tiles->oc),
                 panels->count * cnn_ceil_div(tiles->ic, CHANNELS_PER_TASK), make_some, &job);
}
