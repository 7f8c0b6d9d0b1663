/* 3x3 convolutions of stride 1 by Winograd F(4x4, 3x3), where tiles are few F(2x2, 3x3), of stride 2 by F(4x4, 2x2) for the taps
 * around the middle: where it pays. */
#include "ops/winograd.h"

/* Forward has constant weights in a frozen plan. Transformed they are four times as many: with fewer tiles than this,
 * reading them takes as long as they save, and the plan would hold them for nothing. */
#define LEAST_TILES 8
#define LEAST_STRIDED_TILES 32
#define LEAST_STRIDED_WORK 8e6 /* multiply-adds: calls of less are direct, since threads share out few tiles badly */

/* Along an axis, the products of all its tiles: each result that a tile has less saves one, of stride 2 two. */
static double axis_products(const cnn_winograd_tiles *t, const cnn_winograd_axis *axis)
{
    if (t->form == CNN_WINOGRAD_SMALL) return 4.0 * (double)axis->tiles;
    const int64_t most = t->form == CNN_WINOGRAD_UNIT ? 6 : 9, less = t->form == CNN_WINOGRAD_UNIT ? 1 : 2;
    return (double)(axis->tiles * most - (axis->tiles - axis->big) * less);
}

/* Counted in multiply-adds: the products, the transforms of src and dst, and those of the weights, against 9 a pixel and pair
 * of channels. */
static bool winograd_suits(const cnn_conv *conv, cnn_conv_pass pass)
{
    const int64_t stride = conv->stride[0];
    if (conv->kh != 3 || conv->kw != 3 || conv->groups != 1 || stride > 2 || conv->stride[1] != stride ||
        conv->dilation[0] != 1 || conv->dilation[1] != 1 || conv->direct)
        return false;
    const cnn_winograd_tiles t = cnn_winograd_tiles_of(conv, pass);
    const int64_t least = stride == 1 ? LEAST_TILES : LEAST_STRIDED_TILES;
    if (t.ic < 12 || t.oc < 12 || (pass == CNN_CONV_FORWARD && t.count < least)) return false;
    const double pairs = (double)t.ic * (double)t.oc, images = (double)conv->n;
    const double products = images * axis_products(&t, &t.rows) * axis_products(&t, &t.cols) * pairs;
    if (stride == 2 && products < LEAST_STRIDED_WORK) return false;
    const double pixels = images * (double)t.rows.dst * (double)t.cols.dst;
    const double direct = pixels * 9.0 / (t.rows.dst_step * t.cols.dst_step) * pairs;
    const double transforms = 10.0 * (double)(t.count * t.layout->planes) * (double)(t.ic + t.oc);
    const double weights = 5.5 * (double)cnn_winograd_filter_planes(t.layout) * pairs;
    return products + transforms + weights < 0.9 * direct;
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
