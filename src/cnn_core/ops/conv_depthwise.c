/* Depthwise convolution of any geometry: every channel is convolved with a filter of its own, so that vectors run over
 * channels. A task computes a strip of channels for a block of pixels. conv_depthwise_rows.c is faster where it suits. */
#include "ops/conv.h"
#include "ops/conv_epilogue.h"
#include "ops/conv_geometry.h"
#include "ops/conv_tiling.h"

#define STRIP 512 /* channels: a 3x3 kernel's weights stay in the first-level cache */
#define BLOCK 256 /* pixels */
#define LEAST_BLOCK 24
#define MOST_SHARES 16

typedef struct depthwise_plan {
    cnn_conv_pass pass;
    int64_t channels, padded; /* to whole vectors */
    int64_t taps, phases, strips;
    int64_t pixels, blocks, block_pixels; /* of the largest phase */
    int64_t shares;                       /* backward weights: of the blocks */
    size_t axes_bytes, zero_bytes, weights_bytes;
    size_t src_bytes, dst_bytes; /* of one thread */
} depthwise_plan;

static depthwise_plan plan_depthwise(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const bool back = pass == CNN_CONV_BACKWARD_DATA;
    depthwise_plan plan = {
        .pass = pass,
        .channels = conv->ic,
        .padded = cnn_round_up(conv->ic, kernels->width),
        .taps = conv->kh * conv->kw,
        .phases = cnn_conv_phases(conv, pass),
        .strips = cnn_ceil_div(conv->ic, STRIP),
    };
    const int64_t h = back ? cnn_ceil_div(conv->ih, conv->stride[0]) : conv->oh;
    const int64_t w = back ? cnn_ceil_div(conv->iw, conv->stride[1]) : conv->ow;
    plan.pixels = conv->n * h * w;
    const int64_t fitting =
        cnn_min_i64(BLOCK, cnn_max_i64((64 << 10) / plan.taps, 8)); /* their pointers in the cache */
    const int64_t wanted = cnn_ceil_div(CNN_CONV_TASKS, plan.phases * plan.strips);
    plan.blocks =
        cnn_max_i64(cnn_ceil_div(plan.pixels, fitting), cnn_min_i64(wanted, cnn_ceil_div(plan.pixels, LEAST_BLOCK)));
    plan.block_pixels = cnn_ceil_div(plan.pixels, plan.blocks);
    plan.shares = pass == CNN_CONV_BACKWARD_WEIGHTS ? cnn_min_i64(plan.blocks, MOST_SHARES) : 1;

    const size_t taps = (size_t)plan.taps;
    plan.axes_bytes = cnn_conv_axes_bytes(conv, pass);
    plan.zero_bytes = cnn_float_bytes(plan.channels);
    plan.weights_bytes = cnn_size_align(
        cnn_size_mul(cnn_size_mul((size_t)plan.shares, taps), cnn_size_mul((size_t)plan.padded, sizeof(float))));
    plan.src_bytes = cnn_size_align(cnn_size_mul(cnn_size_mul((size_t)plan.block_pixels, taps), sizeof(float *)));
    plan.dst_bytes = cnn_size_align((size_t)plan.block_pixels * sizeof(float *));
    return plan;
}

static size_t depthwise_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    const depthwise_plan plan = plan_depthwise(conv, pass, kernels);
    const size_t weights_bytes = conv->packed ? 0 : plan.weights_bytes;
    const size_t shared = cnn_size_add(cnn_size_add(plan.axes_bytes, plan.zero_bytes), weights_bytes);
    return cnn_size_add(shared, cnn_size_mul(cnn_size_add(plan.src_bytes, plan.dst_bytes), (size_t)threads));
}

typedef struct depthwise_job {
    const depthwise_plan *plan;
    const cnn_conv_call *call;
    cnn_conv_axes axes;
    const float *zero;
    const float *weights; /* [taps by phase][padded] */
    float *sums;          /* backward weights: [shares][taps][padded] */
    char *scratch;
} depthwise_job;

static cnn_depthwise_block strip_block(const depthwise_plan *plan, int64_t strip)
{
    const int64_t first = strip * STRIP;
    return (cnn_depthwise_block){
        .first = first, .channels = cnn_min_i64(STRIP, plan->channels - first), .stride = plan->padded};
}

static char *thread_scratch(const depthwise_job *job, int32_t thread)
{
    return job->scratch + (size_t)thread * (job->plan->src_bytes + job->plan->dst_bytes);
}

/* ---- forward, backward data -------------------------------------------------------------------------------------- */

static void pack(const cnn_conv_call *call, const depthwise_plan *plan, const cnn_conv_axes *axes, float *to)
{
    const int64_t *stride = call->conv->weights_stride;
    for (int64_t phase = 0; phase < plan->phases; phase++) {
        const cnn_conv_grid grid = cnn_conv_grid_at(axes, phase);
        for (int64_t r = 0; r < grid.row_taps; r++)
            for (int64_t s = 0; s < grid.col_taps; s++, to += plan->padded) {
                const float *from = call->weights + grid.row_tap[r].k * stride[2] + grid.col_tap[s].k * stride[3];
                for (int64_t c = 0; c < plan->channels; c++) to[c] = from[c * stride[0]];
                for (int64_t c = plan->channels; c < plan->padded; c++) to[c] = 0.0f;
            }
    }
}

/* The axes are found anew in the first bytes of `packed`, for there is no workspace; the weights follow. */
static void pack_depthwise(const cnn_conv_call *call, void *packed)
{
    const depthwise_plan plan = plan_depthwise(call->conv, call->pass, call->kernels);
    cnn_conv_axes axes;
    char *cursor = packed;
    cnn_conv_axes_make(call->conv, call->pass, &cursor, &axes);
    pack(call, &plan, &axes, (float *)(void *)cursor);
}

static size_t packed_bytes(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const depthwise_plan plan = plan_depthwise(conv, pass, kernels);
    return cnn_size_add(plan.axes_bytes, plan.weights_bytes);
}

/* What follows the sums and the bias, while the block is in the cache. */
static void finish_block(const cnn_conv_call *call, const cnn_depthwise_block *block, float *const *dst)
{
    for (int64_t p = 0; p < block->pixels; p++) {
        float *to = dst[p] + block->first;
        if (call->addend != NULL) {
            const cnn_rows sums = {.data = to, .step = 1}, addend = {.data = call->addend + (to - call->out), .step = 1};
            call->kernels->elementwise.add(1, block->channels, sums, addend, 1.0f, to);
        }
        cnn_conv_activate(call, block->channels, to);
    }
}

static void run_block(void *arg, int64_t task, int32_t thread)
{
    const depthwise_job *job = arg;
    const depthwise_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const int64_t index = task % plan->blocks, strip = task / plan->blocks % plan->strips,
                  phase = task / plan->blocks / plan->strips;
    const cnn_conv_grid grid = cnn_conv_grid_at(&job->axes, phase);
    const int64_t all = conv->n * grid.h * grid.w;
    const int64_t first = cnn_split(all, plan->blocks, index);
    const int64_t pixels = cnn_split(all, plan->blocks, index + 1) - first;
    if (pixels == 0) return;

    const bool back = plan->pass == CNN_CONV_BACKWARD_DATA;
    const cnn_conv_image image = back ? (cnn_conv_image){job->call->y, conv->oh, conv->ow, conv->oc}
                                      : (cnn_conv_image){job->call->x, conv->ih, conv->iw, conv->ic};
    char *cursor = thread_scratch(job, thread);
    const float **src = cnn_take(&cursor, plan->src_bytes);
    float **dst = cnn_take(&cursor, plan->dst_bytes);
    cnn_conv_locate_src(&grid, &image, job->zero, first, pixels, src);
    cnn_conv_locate_dst(&grid, back ? conv->ih : conv->oh, back ? conv->iw : conv->ow, job->call->out, plan->channels,
                        first, pixels, dst);
    cnn_depthwise_block block = strip_block(plan, strip);
    block.pixels = pixels;
    block.taps = grid.row_taps * grid.col_taps;
    block.src = src;
    job->call->kernels->depthwise.forward(&block, job->weights + grid.first_tap * plan->padded, job->call->bias, dst);
    if (job->call->addend != NULL || job->call->activation != NULL) finish_block(job->call, &block, dst);
}

/* ---- backward weights -------------------------------------------------------------------------------------------- */

static void sum_share(void *arg, int64_t task, int32_t thread)
{
    const depthwise_job *job = arg;
    const depthwise_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const int64_t share = task % plan->shares, strip = task / plan->shares;
    const cnn_conv_grid grid = cnn_conv_grid_at(&job->axes, 0);
    const cnn_conv_image image = {job->call->x, conv->ih, conv->iw, conv->ic};
    char *cursor = thread_scratch(job, thread);
    const float **src = cnn_take(&cursor, plan->src_bytes);
    cnn_depthwise_block block = strip_block(plan, strip);
    block.taps = grid.row_taps * grid.col_taps;
    block.src = src;
    const int64_t begin = cnn_split(plan->blocks, plan->shares, share);
    const int64_t end = cnn_split(plan->blocks, plan->shares, share + 1);
    for (int64_t index = begin; index < end; index++) {
        const int64_t first = cnn_split(plan->pixels, plan->blocks, index);
        block.pixels = cnn_split(plan->pixels, plan->blocks, index + 1) - first;
        cnn_conv_locate_src(&grid, &image, job->zero, first, block.pixels, src);
        job->call->kernels->depthwise.backward_weights(&block, job->call->y + first * plan->channels, plan->channels,
                                                       index > begin, job->sums + share * block.taps * plan->padded);
    }
}

/* diff_weights += the shares' sums, in order. */
static void add_shares(const depthwise_job *job)
{
    const depthwise_plan *plan = job->plan;
    const int64_t *stride = job->call->conv->weights_stride;
    const cnn_conv_grid grid = cnn_conv_grid_at(&job->axes, 0);
    const int64_t share_size = grid.row_taps * grid.col_taps * plan->padded;
    const float *sums = job->sums;
    for (int64_t r = 0; r < grid.row_taps; r++)
        for (int64_t s = 0; s < grid.col_taps; s++, sums += plan->padded) {
            float *to = job->call->out + grid.row_tap[r].k * stride[2] + grid.col_tap[s].k * stride[3];
            for (int64_t c = 0; c < plan->channels; c++) {
                float sum = sums[c];
                for (int64_t share = 1; share < plan->shares; share++) sum += sums[share * share_size + c];
                to[c * stride[0]] += sum;
            }
        }
}

static void run_depthwise(const cnn_conv_call *call)
{
    const depthwise_plan plan = plan_depthwise(call->conv, call->pass, call->kernels);
    const int32_t threads = cnn_useful_threads(call->threads, cnn_conv_work(call->conv, call->kernels));
    depthwise_job job = {.plan = &plan, .call = call};
    char *cursor = call->workspace;
    cnn_conv_axes_make(call->conv, plan.pass, &cursor, &job.axes);
    job.zero = cnn_conv_zeros(&cursor, plan.channels);
    if (plan.pass == CNN_CONV_BACKWARD_WEIGHTS) {
        job.sums = cnn_take(&cursor, plan.weights_bytes);
        job.scratch = cursor;
        cnn_parallel(threads, plan.strips * plan.shares, sum_share, &job);
        add_shares(&job);
        return;
    }
    if (call->packed != NULL) {
        job.weights = (const void *)((const char *)call->packed + plan.axes_bytes);
    } else {
        float *weights = cnn_take(&cursor, plan.weights_bytes);
        pack(call, &plan, &job.axes, weights);
        job.weights = weights;
    }
    job.scratch = cursor;
    cnn_parallel(threads, plan.phases * plan.strips * plan.blocks, run_block, &job);
}

static bool depthwise_suits(const cnn_conv *conv, cnn_conv_pass pass)
{
    (void)pass;
    return conv->groups > 1 && conv->groups == conv->ic && conv->groups == conv->oc;
}

const cnn_conv_algorithm cnn_conv_depthwise = {
    .name = "depthwise",
    .suits = depthwise_suits,
    .workspace = depthwise_workspace,
    .run = run_depthwise,
    .packed = packed_bytes,
    .pack = pack_depthwise,
    .reorders = true,
};
