/* The gradient of the weights by Winograd, for few channels: a task sums a share of the tiles through all planes.
 *
 * With few channels the planes of sums fit in a core's second-level cache, beside the transforms of some dozens of
 * tiles. So nothing that is transformed ever leaves it, where winograd_gradient.c passes a chunk of tiles from all cores to
 * all cores. Shares are added in order at the end. */
#include "ops/conv_geometry.h"
#include "ops/winograd.h"
#include "ops/winograd_fetch.h"

#define FILTER CNN_WINOGRAD_FILTER
#define CHANNELS_PER_TASK 8 /* whose filters are added */
#define MOST_SUMS (640 << 10)   /* bytes of a share's sums */
#define BLOCK_BYTES (256 << 10) /* of the transforms of a block of tiles */
#define MOST_TILES 48
#define MOST_SHARES 16
#define SHARE_PLANES (64 * 36)  /* fewer, of all its tiles, would not pay for adding up its sums */
#define SHARES_BYTES (8 << 20) /* of all shares together */

typedef struct shares_plan {
    cnn_winograd_tiles tiles;
    cnn_conv_panels in, out; /* of src and of diff_dst */
    int64_t shares, block_tiles;
    int64_t v_plane, d_plane;  /* floats from plane to plane of a block */
    int64_t sums;                   /* floats of a share's */
    size_t sums_bytes;
    size_t v_bytes, d_bytes, filter_bytes; /* of one thread */
} shares_plan;

static shares_plan plan_shares(const cnn_conv *conv, const cnn_kernels *kernels)
{
    shares_plan plan = {.tiles = cnn_winograd_tiles_of(conv, CNN_CONV_BACKWARD_WEIGHTS)};
    const cnn_winograd_tiles *t = &plan.tiles;
    plan.in = cnn_conv_panels_of(t->ic, kernels);
    plan.out = cnn_conv_panels_of(t->oc, kernels);
    plan.sums = FILTER * t->ic * plan.out.padded;
    const size_t share_bytes = cnn_float_bytes(plan.sums);
    /* An even number, as that of threads mostly is. */
    const int64_t wanted = t->count * t->layout->planes / SHARE_PLANES, even = wanted + wanted % 2;
    const int64_t fitting = cnn_min_i64(even, (int64_t)(SHARES_BYTES / share_bytes));
    plan.shares = cnn_max_i64(cnn_min_i64(fitting, MOST_SHARES), 1);
    const int64_t tile_bytes = t->layout->planes * (int64_t)sizeof(float) * (plan.in.padded + plan.out.padded);
    const int64_t most = cnn_max_i64(cnn_min_i64(BLOCK_BYTES / tile_bytes, MOST_TILES), 1);
    const int64_t share_tiles = cnn_ceil_div(t->count, plan.shares);
    plan.block_tiles = cnn_ceil_div(share_tiles, cnn_ceil_div(share_tiles, most));
    plan.v_plane = cnn_winograd_stride(plan.block_tiles * plan.in.count * plan.in.width);
    plan.d_plane = cnn_winograd_stride(plan.block_tiles * plan.out.count * plan.out.width);
    plan.sums_bytes = cnn_size_mul(share_bytes, (size_t)plan.shares);
    plan.v_bytes = cnn_float_bytes(t->layout->planes * plan.v_plane);
    plan.d_bytes = cnn_float_bytes(t->layout->planes * plan.d_plane);
    plan.filter_bytes = cnn_float_bytes(FILTER * CHANNELS_PER_TASK * plan.out.padded) + cnn_winograd_filters_bytes(conv);
    return plan;
}

static size_t thread_bytes(const shares_plan *plan)
{
    return plan->v_bytes + plan->d_bytes + plan->filter_bytes;
}

static size_t shares_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    (void)pass;
    const shares_plan plan = plan_shares(conv, kernels);
    return plan.sums_bytes + cnn_size_mul(thread_bytes(&plan), (size_t)threads);
}

typedef struct shares_job {
    const shares_plan *plan;
    const cnn_conv_call *call;
    float *sums; /* [shares][FILTER][ic][padded oc] */
    char *scratch;
} shares_job;

/* A block of tiles in the transformed domain: one thread's. */
typedef struct shares_block {
    cnn_winograd_pair pair;
    float *filters;
} shares_block;

static shares_block take_block(const shares_job *job, int32_t thread)
{
    const shares_plan *plan = job->plan;
    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    shares_block block = {.pair = {.v_plane = plan->v_plane,
                                   .d_plane = plan->d_plane,
                                   .width = plan->in.width,
                                   .panel = plan->block_tiles * plan->in.width}};
    block.pair.v = cnn_take(&cursor, plan->v_bytes);
    block.pair.d = cnn_take(&cursor, plan->d_bytes);
    block.filters = cnn_take(&cursor, plan->filter_bytes);
    return block;
}

/* sums = (or, with `add`, +=) the products of all planes of the block; fetches the pixels of `src` and `dst` meanwhile. */
static void multiply(const shares_job *job, const shares_block *block, bool add, float *sums, cnn_winograd_fetcher *src,
                     cnn_winograd_fetcher *dst)
{
    const shares_plan *plan = job->plan;
    const int64_t ic = plan->tiles.ic, padded = plan->out.padded, width = plan->in.width;
    const cnn_winograd_pair *pair = &block->pair;
    const cnn_winograd_layout *layout = plan->tiles.layout;
    cnn_winograd_product product = {.turned = true, .b_panel = pair->panel, .to_row = padded};
    for (int64_t filter = 0; filter < FILTER; filter++) {
        const int64_t first = layout->first[filter], end = layout->first[filter + 1];
        for (int64_t plane = first; plane < end; plane++) {
            product.terms = pair->run.held[layout->place[plane]];
            product.add = add || plane > first;
            cnn_winograd_fetch(src, plane, layout->planes);
            cnn_winograd_fetch(dst, plane, layout->planes);
            for (int64_t i = 0; i < plan->in.count; i++)
                for (int64_t o = 0, wide; o < plan->out.count; o += wide) {
                    wide = cnn_conv_panels_of_tile(&plan->out, o, plan->out.count);
                    product.rows = cnn_conv_panel_channels(&plan->in, i);
                    product.a = pair->v + plane * pair->v_plane + i * pair->panel;
                    product.b = pair->d + plane * pair->d_plane + o * pair->panel;
                    product.vectors = cnn_conv_panel_vectors(&plan->out, o, wide);
                    product.to = sums + (filter * ic + i * width) * padded + o * width;
                    job->call->kernels->winograd.multiply(&product);
                }
        }
    }
}

static void sum_share(void *arg, int64_t task, int32_t thread)
{
    const shares_job *job = arg;
    const shares_plan *plan = job->plan;
    const int64_t begin = cnn_split(plan->tiles.count, plan->shares, task);
    const int64_t end = cnn_split(plan->tiles.count, plan->shares, task + 1);
    shares_block block = take_block(job, thread);
    for (int64_t first = begin; first < end; first += plan->block_tiles) {
        const int64_t next = cnn_min_i64(first + plan->block_tiles, end);
        const cnn_winograd_run ahead =
            cnn_winograd_run_of(&plan->tiles, next, cnn_min_i64(plan->block_tiles, end - next));
        cnn_winograd_fetcher src = cnn_winograd_fetch_src(&ahead, job->call->x);
        cnn_winograd_fetcher dst = cnn_winograd_fetch_dst(&ahead, job->call->y, 0, plan->tiles.oc);
        block.pair.run = cnn_winograd_run_of(&plan->tiles, first, next - first);
        cnn_winograd_transform_pair(job->call, &block.pair, 0, next - first);
        multiply(job, &block, first > begin, job->sums + task * plan->sums, &src, &dst);
    }
}

/* diff_weights of some in channels += G^T s G of the sum of all shares. */
static void add_filters(void *arg, int64_t task, int32_t thread)
{
    const shares_job *job = arg;
    const shares_plan *plan = job->plan;
    const int64_t ic = plan->tiles.ic, padded = plan->out.padded, first = task * CHANNELS_PER_TASK;
    const int64_t count = cnn_min_i64(CHANNELS_PER_TASK, ic - first), plane_size = CHANNELS_PER_TASK * padded;
    float *sums = take_block(job, thread).filters;
    for (int64_t filter = 0; filter < FILTER; filter++) {
        const cnn_rows from = {job->sums + (filter * ic + first) * padded, plan->sums, 1};
        job->call->kernels->elementwise.sum_over_rows(plan->shares, count * padded, from, (cnn_rows){NULL, 0, 0},
                                                      sums + filter * plane_size);
    }
    cnn_winograd_add_filters(job->call, first, count, 0, plan->tiles.oc, sums, padded, plane_size,
                             sums + FILTER * plane_size);
}

static void run_shares(const cnn_conv_call *call)
{
    const shares_plan plan = plan_shares(call->conv, call->kernels);
    char *cursor = call->workspace;
    shares_job job = {.plan = &plan, .call = call};
    job.sums = cnn_take(&cursor, plan.sums_bytes);
    job.scratch = cursor;
    const int32_t threads = cnn_useful_threads(call->threads, cnn_winograd_work(call));
    cnn_parallel(threads, plan.shares, sum_share, &job);
    cnn_parallel(cnn_useful_threads(call->threads, (double)(plan.shares * plan.sums) / 4.0),
                 cnn_ceil_div(plan.tiles.ic, CHANNELS_PER_TASK), add_filters, &job);
}

static bool shares_suit(const cnn_conv *conv, cnn_conv_pass pass)
{
    return pass == CNN_CONV_BACKWARD_WEIGHTS && cnn_conv_winograd.suits(conv, pass) &&
           conv->ic * conv->oc <= MOST_SUMS / (FILTER * (int64_t)sizeof(float));
}

const cnn_conv_algorithm cnn_conv_winograd_shares = {
    .name = "winograd by shares",
    .suits = shares_suit,
    .workspace = shares_workspace,
    .run = run_shares,
};
