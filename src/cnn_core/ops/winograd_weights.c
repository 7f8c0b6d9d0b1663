/* Weights of a Winograd convolution, transformed: G g G^T of each filter, packed in panels of output channels. */
#include "ops/winograd.h"

cnn_winograd_filters cnn_winograd_filters_of(const cnn_conv_call *call)
{
    const int64_t *stride = call->conv->weights_stride;
    const bool back = call->pass == CNN_CONV_BACKWARD_DATA;
    return (cnn_winograd_filters){
        .data = call->weights,
        .out_stride = stride[back ? 1 : 0],
        .in_stride = stride[back ? 0 : 1],
        .row_stride = stride[2],
        .column_stride = stride[3],
        .turned = back,
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
    return cnn_winograd_bytes(tiles->ic * panels->padded);
}

#define MOST_ROW 32 /* floats in a row of a panel, on any ISA */
#define SOME 16     /* in channels that are gathered at a time */

/* g[filter][9][row] of `count` in channels from c on. */
static void gather(const cnn_winograd_filters *filters, const float *from, int64_t count, int64_t channels, int64_t row,
                   float *g)
{
    int64_t tap[9];
    for (int64_t k = 0; k < 9; k++) {
        const int64_t at = filters->turned ? 8 - k : k;
        tap[k] = at / 3 * filters->row_stride + at % 3 * filters->column_stride;
    }
    for (int64_t o = 0; o < channels; o++)
        for (int64_t c = 0; c < count; c++) {
            const float *filter = from + o * filters->out_stride + c * filters->in_stride;
            for (int64_t k = 0; k < 9; k++) g[(c * 9 + k) * row + o] = filter[tap[k]];
        }
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
        gather(filters, from + c * filters->in_stride, some, channels, row, g);
        for (int r = 0; r < CNN_WINOGRAD_WINDOW; r++)
            kernels->winograd.weights(r, some, g, (int)row,
                                      cnn_winograd_weights_at(to, panels, r * CNN_WINOGRAD_WINDOW, panel, c), to->plane);
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
