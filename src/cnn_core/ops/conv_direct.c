/* Forward and backward data of any convolution, as a matrix product over indirect rows.
 *
 * Destination pixels are cut into blocks whose sources stay in the second-level cache; a task computes some panels of
 * output channels for one block. It finds the sources of its pixels once, then runs down the panels, each of which stays
 * in the first-level cache while the register tiles move over the block. */
#include "ops/conv.h"

/* What a pass is, the same way round for both: out channels are sums over in channels. */
typedef struct direct_plan {
    cnn_conv_pass pass;
    int64_t groups, ic, oc; /* channels per group */
    int64_t taps;           /* of the kernel: no phase has more */
    int64_t phases;
    cnn_conv_panels panels;
    int64_t blocks, block_pixels; /* of each phase; pixels of the largest block */
    int64_t parts;                /* in which the panels are cut */
    bool gather;
    size_t axes_bytes, zero_bytes, weights_bytes;
    size_t src_bytes, dst_bytes, patch_bytes; /* of one thread */
} direct_plan;

static direct_plan plan_direct(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const bool back = pass == CNN_CONV_BACKWARD_DATA;
    direct_plan plan = {
        .pass = pass,
        .groups = conv->groups,
        .ic = (back ? conv->oc : conv->ic) / conv->groups,
        .oc = (back ? conv->ic : conv->oc) / conv->groups,
        .taps = conv->kh * conv->kw,
        .phases = cnn_conv_phases(conv, pass),
    };
    plan.panels = cnn_conv_panels_of(plan.oc, kernels);
    plan.gather = cnn_conv_gathers(plan.taps, plan.ic);

    const int64_t h = back ? cnn_ceil_div(conv->ih, conv->stride[0]) : conv->oh;
    const int64_t w = back ? cnn_ceil_div(conv->iw, conv->stride[1]) : conv->ow;
    const int64_t pixels = conv->n * h * w; /* of the largest phase */
    /* Taps in several rows of the kernel read some three floats of the image a pixel and channel, the rest again. */
    plan.blocks = cnn_ceil_div(pixels, cnn_conv_block_pixels(plan.ic * cnn_min_i64(plan.taps, 3), plan.taps));
    plan.block_pixels = cnn_ceil_div(pixels, plan.blocks);
    const int64_t tasks = plan.phases * plan.groups * plan.blocks;
    plan.parts = cnn_min_i64(plan.panels.count, cnn_ceil_div(CNN_CONV_TASKS, tasks));

    plan.axes_bytes = cnn_conv_axes_bytes(conv, pass);
    plan.zero_bytes = cnn_float_bytes(plan.ic);
    plan.weights_bytes = cnn_size_align(
        cnn_size_mul(cnn_size_mul((size_t)(plan.groups * plan.taps), (size_t)plan.ic),
                     cnn_size_mul((size_t)plan.panels.padded, sizeof(float))));
    const size_t rows = cnn_size_mul((size_t)plan.block_pixels, (size_t)plan.taps);
    plan.src_bytes = cnn_size_align(cnn_size_mul(plan.gather ? (size_t)plan.block_pixels : rows, sizeof(float *)));
    plan.dst_bytes = cnn_size_align(cnn_size_mul((size_t)plan.block_pixels, sizeof(float *)));
    plan.patch_bytes = plan.gather ? cnn_size_align(cnn_size_mul(rows, (size_t)plan.ic * sizeof(float))) : 0;
    return plan;
}

static size_t thread_bytes(const direct_plan *plan)
{
    return cnn_size_add(cnn_size_add(plan->src_bytes, plan->dst_bytes), plan->patch_bytes);
}

static size_t direct_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    const direct_plan plan = plan_direct(conv, pass, kernels);
    const size_t shared = cnn_size_add(cnn_size_add(plan.axes_bytes, plan.zero_bytes), plan.weights_bytes);
    return cnn_size_add(shared, cnn_size_mul(thread_bytes(&plan), (size_t)threads));
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* Where group and panel begin in the packed weights, [groups][panels][taps by phase][ic][panel row]. */
static int64_t panel_offset(const direct_plan *plan, int64_t taps, int64_t group, int64_t panel)
{
    const int64_t group_size = taps * plan->ic * plan->panels.padded;
    return group * group_size + panel * taps * plan->ic * plan->panels.width;
}

typedef struct pack_job {
    const direct_plan *plan;
    const cnn_conv_axes *axes;
    const float *weights;
    int64_t group_stride, out_stride, in_stride, row_stride, col_stride;
    float *packed;
} pack_job;

#define SQUARE 16     /* in channels that are turned at a time */
#define PACK_PANELS 4 /* in a task: neighbours in memory where out channels are */

/* to[c][o] = from[c * in_stride + o * out_stride], rows of `row` floats, zero beyond the channels. Whichever side lies
 * closer in memory is walked innermost. */
static void pack_square(const float *from, int64_t count, int64_t in_stride, int64_t channels, int64_t out_stride,
                        int64_t row, float *to)
{
    if (in_stride < out_stride) {
        for (int64_t o = 0; o < channels; o++)
            for (int64_t c = 0; c < count; c++) to[c * row + o] = from[c * in_stride + o * out_stride];
    } else if (out_stride == 1) {
        for (int64_t c = 0; c < count; c++)
            for (int64_t o = 0; o < channels; o++) to[c * row + o] = from[c * in_stride + o];
    } else {
        for (int64_t c = 0; c < count; c++)
            for (int64_t o = 0; o < channels; o++) to[c * row + o] = from[c * in_stride + o * out_stride];
    }
    for (int64_t c = 0; c < count; c++)
        for (int64_t o = channels; o < row; o++) to[c * row + o] = 0.0f;
}

/* One square of channels, all taps of a grid. */
static void pack_taps(const pack_job *job, const cnn_conv_grid *grid, int64_t group, int64_t panel, int64_t first)
{
    const direct_plan *plan = job->plan;
    const int64_t ic = plan->ic, row = cnn_conv_panel_row(&plan->panels, panel);
    const int64_t count = cnn_min_i64(SQUARE, ic - first);
    const float *from = job->weights + group * job->group_stride + panel * plan->panels.width * job->out_stride +
                        first * job->in_stride;
    float *to = job->packed + panel_offset(plan, job->axes->rows.taps * job->axes->cols.taps, group, panel) +
                (grid->first_tap * ic + first) * row;
    for (int64_t r = 0; r < grid->row_taps; r++)
        for (int64_t s = 0; s < grid->col_taps; s++, to += ic * row)
            pack_square(from + grid->row_tap[r].k * job->row_stride + grid->col_tap[s].k * job->col_stride, count,
                        job->in_stride, cnn_conv_panel_channels(&plan->panels, panel), job->out_stride, row, to);
}

static void pack_panels(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const pack_job *job = arg;
    const direct_plan *plan = job->plan;
    const int64_t tasks = cnn_ceil_div(plan->panels.count, PACK_PANELS);
    const int64_t group = task / tasks, begin = task % tasks * PACK_PANELS;
    const int64_t end = cnn_min_i64(begin + PACK_PANELS, plan->panels.count);
    for (int64_t phase = 0; phase < plan->phases; phase++) {
        const cnn_conv_grid grid = cnn_conv_grid_at(job->axes, phase);
        for (int64_t first = 0; first < plan->ic; first += SQUARE)
            for (int64_t panel = begin; panel < end; panel++) pack_taps(job, &grid, group, panel, first);
    }
}

static void pack(const cnn_conv_call *call, const direct_plan *plan, const cnn_conv_axes *axes, float *packed)
{
    const int64_t *stride = call->conv->weights_stride;
    const bool back = plan->pass == CNN_CONV_BACKWARD_DATA;
    pack_job job = {
        .plan = plan,
        .axes = axes,
        .weights = call->weights,
        .group_stride = call->conv->oc / call->conv->groups * stride[0],
        .out_stride = stride[back ? 1 : 0],
        .in_stride = stride[back ? 0 : 1],
        .row_stride = stride[2],
        .col_stride = stride[3],
        .packed = packed,
    };
    const double elements = (double)plan->weights_bytes / sizeof(float);
    cnn_parallel(cnn_useful_threads(call->threads, elements), 
                 plan->groups * cnn_ceil_div(plan->panels.count, PACK_PANELS), pack_panels, &job);
}

/* ---- the loop over tasks ---------------------------------------------------------------------------------------------- */

typedef struct direct_job {
    const direct_plan *plan;
    const cnn_kernels *kernels;
    const cnn_conv_axes *axes;
    int64_t n;
    cnn_conv_image src;
    int64_t dst_h, dst_w, dst_c;
    const float *zero, *packed, *bias;
    float *dst;
    char *scratch; /* of all threads */
} direct_job;

static void run_block(void *arg, int64_t task, int32_t thread)
{
    const direct_job *job = arg;
    const direct_plan *plan = job->plan;
    int64_t rest = task;
    const int64_t block_index = rest % plan->blocks;
    rest /= plan->blocks;
    const int64_t part = rest % plan->parts;
    rest /= plan->parts;
    const int64_t group = rest % plan->groups, phase = rest / plan->groups;

    const cnn_conv_grid grid = cnn_conv_grid_at(job->axes, phase);
    const int64_t all = job->n * grid.h * grid.w;
    const int64_t first = cnn_split(all, plan->blocks, block_index);
    const int64_t pixels = cnn_split(all, plan->blocks, block_index + 1) - first;
    if (pixels == 0) return;

    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    const float **src = cnn_take(&cursor, plan->src_bytes);
    float **dst = cnn_take(&cursor, plan->dst_bytes);
    float *patches = cnn_take(&cursor, plan->patch_bytes);
    cnn_conv_image image = job->src;
    image.data += group * plan->ic;
    const int64_t taps = grid.row_taps * grid.col_taps;
    cnn_conv_block block = {.pixels = pixels, .taps = taps, .ic = plan->ic, .src = src, .dst = dst};
    cnn_conv_locate_dst(&grid, job->dst_h, job->dst_w, job->dst, job->dst_c, first, pixels, dst);
    if (plan->gather && taps > 0) {
        cnn_conv_gather_src(&grid, &image, plan->ic, first, pixels, patches);
        block.taps = 1;
        block.ic = taps * plan->ic;
        for (int64_t p = 0; p < pixels; p++) src[p] = patches + p * block.ic;
    } else {
        cnn_conv_locate_src(&grid, &image, job->zero, first, pixels, src);
    }

    const int64_t all_taps = job->axes->rows.taps * job->axes->cols.taps;
    const int64_t last = cnn_split(plan->panels.count, plan->parts, part + 1);
    for (int64_t panel = cnn_split(plan->panels.count, plan->parts, part); panel < last; panel++) {
        const float *weights = job->packed + panel_offset(plan, all_taps, group, panel) +
                               grid.first_tap * plan->ic * cnn_conv_panel_row(&plan->panels, panel);
        const int64_t channel = group * plan->oc + panel * plan->panels.width;
        job->kernels->conv.forward(&block, weights, job->bias == NULL ? NULL : job->bias + channel, channel,
                                   (int)cnn_conv_panel_channels(&plan->panels, panel));
    }
}

static void run_direct(const cnn_conv_call *call)
{
    const cnn_conv *conv = call->conv;
    const bool back = call->pass == CNN_CONV_BACKWARD_DATA;
    const direct_plan plan = plan_direct(conv, call->pass, call->kernels);
    char *cursor = call->workspace;
    cnn_conv_axes axes;
    cnn_conv_axes_make(conv, call->pass, &cursor, &axes);
    float *zero = cnn_take(&cursor, plan.zero_bytes);
    float *packed = cnn_take(&cursor, plan.weights_bytes);
    for (int64_t c = 0; c < plan.ic; c++) zero[c] = 0.0f;
    pack(call, &plan, &axes, packed);

    direct_job job = {
        .plan = &plan,
        .kernels = call->kernels,
        .axes = &axes,
        .n = conv->n,
        .src = back ? (cnn_conv_image){call->y, conv->oh, conv->ow, conv->oc}
                    : (cnn_conv_image){call->x, conv->ih, conv->iw, conv->ic},
        .dst_h = back ? conv->ih : conv->oh,
        .dst_w = back ? conv->iw : conv->ow,
        .dst_c = back ? conv->ic : conv->oc,
        .zero = zero,
        .packed = packed,
        .bias = call->bias,
        .dst = call->out,
        .scratch = cursor,
    };
    const int64_t tasks = plan.phases * plan.groups * plan.parts * plan.blocks;
    cnn_parallel(cnn_useful_threads(call->threads, cnn_conv_work(conv, call->kernels)), tasks, run_block, &job);
}

static bool direct_suits(const cnn_conv *conv, cnn_conv_pass pass)
{
    (void)conv;
    return pass != CNN_CONV_BACKWARD_WEIGHTS;
}

const cnn_conv_algorithm cnn_conv_direct = {"direct", direct_suits, direct_workspace, run_direct};
