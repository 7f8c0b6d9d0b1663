/* 3x3 convolutions of stride 1 by Winograd F(4x4, 3x3): where it pays. */
#include "ops/winograd.h"

/* Forward has constant weights in a frozen plan. Transformed they are four times as many: with fewer tiles than this,
 * reading them takes as long as they save, and the plan would hold them for nothing. */
#define LEAST_TILES 8

/* Counted in multiply-adds: 36 a tile and pair of channels, the transforms of src and dst, and those of the weights,
 * against 9 a pixel and pair. */
static bool winograd_suits(const cnn_conv *conv, cnn_conv_pass pass)
{
    if (conv->kh != 3 || conv->kw != 3 || conv->groups != 1 || conv->stride[0] != 1 || conv->stride[1] != 1 ||
        conv->dilation[0] != 1 || conv->dilation[1] != 1 || conv->direct)
        return false;
    const cnn_winograd_tiles t = cnn_winograd_tiles_of(conv, pass);
    if (t.ic < 12 || t.oc < 12 || (pass == CNN_CONV_FORWARD && t.count < LEAST_TILES)) return false;
    const double pairs = (double)t.ic * (double)t.oc, tiles = (double)t.count;
    const double direct = (double)conv->n * (double)t.rows.dst * (double)t.cols.dst * 9.0 * pairs;
    const double winograd = tiles * CNN_WINOGRAD_PLANES * pairs + tiles * 350.0 * (double)(t.ic + t.oc) + 200.0 * pairs;
    return winograd < 0.9 * direct;
}

static size_t winograd_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    return pass == CNN_CONV_BACKWARD_WEIGHTS ? cnn_winograd_gradient_workspace(conv, kernels, threads)
                                             : cnn_winograd_pass_workspace(conv, pass, kernels, threads);
}

static void run_winograd(const cnn_conv_call *call)
{
    if (call->pass == CNN_CONV_BACKWARD_WEIGHTS)
        cnn_winograd_run_gradient(call);
    else
        cnn_winograd_run_pass(call);
}

static size_t winograd_packed(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const cnn_winograd_tiles tiles = cnn_winograd_tiles_of(conv, pass);
    const cnn_conv_panels panels = cnn_conv_panels_of(tiles.oc, kernels);
    return cnn_winograd_weights_bytes(&tiles, &panels);
}

static void winograd_pack(const cnn_conv_call *call, void *packed)
{
    const cnn_winograd_tiles tiles = cnn_winograd_tiles_of(call->conv, call->pass);
    const cnn_conv_panels panels = cnn_conv_panels_of(tiles.oc, call->kernels);
    const cnn_winograd_weights to = cnn_winograd_all_weights(&tiles, &panels, packed);
    cnn_winograd_make_weights(call, &tiles, &panels, &to);
}

const cnn_conv_algorithm cnn_conv_winograd = {
    .name = "winograd",
    .suits = winograd_suits,
    .workspace = winograd_workspace,
    .run = run_winograd,
    .packed = winograd_packed,
    .pack = winograd_pack,
};
