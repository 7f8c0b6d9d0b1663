/* The gradient of the weights by Winograd: the transpose of forward. Sources (V) and gradients of the results (D) are
 * transformed; every plane sums the outer products of its tiles; the sums go through G^T s G.
 *
 * Tiles are taken in chunks whose V and D stay in the last-level cache: all of a chunk's are transformed, then each
 * task multiplies what makes one plane of filters, and adds to its sums. Where one chunk holds all tiles and the sums would be larger than it,
 * a task takes a block of the weights through all planes instead, and its sums never leave its cache. */
#include "ops/conv_filters.h"
#include "ops/conv_geometry.h"
#include "ops/winograd.h"

typedef struct gradient_plan {
    cnn_winograd_tiles tiles;
    cnn_conv_panels in, out; /* of V and of D */
    int64_t chunks, chunk_tiles;
    int64_t v_plane, d_plane;          /* floats from plane to plane */
    bool by_blocks;                    /* a task is a block of weights; else a plane of filters */
    int64_t in_blocks, out_blocks;     /* in which the panels are cut: 1 where a task is a plane of filters */
    int64_t sums_row, sums_plane;      /* floats from in channel to in channel, from plane to plane */
    size_t v_bytes, d_bytes, sums_bytes;
    size_t block_bytes, filter_bytes; /* of one thread: sums, filters */
} gradient_plan;

#define CHUNK_BYTES (6 << 20) /* of V and D: a share of the last-level cache */
#define LEAST_CHUNK 128       /* tiles of stride 1: the sums are read and written once for each chunk */
#define LEAST_STRIDED 64      /* of stride 2, which have more planes */
#define BLOCK_CHANNELS 64     /* on either side of a block, whose sums fill half of the second-level cache */

static gradient_plan plan_gradient(const cnn_conv *conv, const cnn_kernels *kernels)
{
    gradient_plan plan = {.tiles = cnn_winograd_tiles_of(conv, CNN_CONV_BACKWARD_WEIGHTS)};
    const cnn_winograd_tiles *t = &plan.tiles;
    plan.in = cnn_conv_panels_of(t->ic, kernels);
    plan.out = cnn_conv_panels_of(t->oc, kernels);
    const int64_t width = plan.in.width, v_row = plan.in.count * width, d_row = plan.out.count * width;
    const int64_t fitting = CHUNK_BYTES / (t->layout->planes * (int64_t)sizeof(float)) / (v_row + d_row);
    const int64_t least = t->form == CNN_WINOGRAD_UNIT ? LEAST_CHUNK : LEAST_STRIDED;
    plan.chunks = cnn_ceil_div(t->count, cnn_max_i64(fitting, least));
    plan.chunk_tiles = cnn_ceil_div(t->count, plan.chunks);
    plan.v_plane = cnn_winograd_stride(plan.chunk_tiles * v_row);
    plan.d_plane = cnn_winograd_stride(plan.chunk_tiles * d_row);
    plan.v_bytes = cnn_winograd_bytes(t->layout->planes, plan.chunk_tiles * v_row);
    plan.d_bytes = cnn_winograd_bytes(t->layout->planes, plan.chunk_tiles * d_row);
    plan.by_blocks = plan.chunks == 1 && t->ic * plan.out.padded > plan.chunk_tiles * (v_row + d_row);
    plan.in_blocks = plan.out_blocks = 1;
    if (plan.by_blocks) {
        plan.in_blocks = cnn_ceil_div(plan.in.count, cnn_max_i64(BLOCK_CHANNELS / width, 1));
        plan.out_blocks = cnn_ceil_div(plan.out.count, cnn_max_i64(BLOCK_CHANNELS / width, 1));
    }
    plan.sums_row = cnn_ceil_div(plan.out.count, plan.out_blocks) * width;
    const int64_t sums_rows = cnn_ceil_div(plan.in.count, plan.in_blocks) * width;
    plan.sums_plane = cnn_winograd_stride(sums_rows * plan.sums_row);
    *(plan.by_blocks ? &plan.block_bytes : &plan.sums_bytes) =
        cnn_winograd_bytes(CNN_WINOGRAD_FILTER, sums_rows * plan.sums_row);
    plan.filter_bytes = cnn_winograd_filters_bytes(conv);
    return plan;
}

static size_t thread_bytes(const gradient_plan *plan) { return cnn_size_add(plan->block_bytes, plan->filter_bytes); }

size_t cnn_winograd_gradient_workspace(const cnn_conv *conv, const cnn_kernels *kernels, int32_t threads)
{
    const gradient_plan plan = plan_gradient(conv, kernels);
    const size_t bytes = cnn_size_add(cnn_size_add(plan.v_bytes, plan.d_bytes), plan.sums_bytes);
    return cnn_size_add(bytes, cnn_size_mul(thread_bytes(&plan), (size_t)threads));
}

typedef struct gradient_job {
    const gradient_plan *plan;
    const cnn_conv_call *call;
    cnn_winograd_run chunk;
    float *v, *d; /* [planes][panels][tiles][panel width] */
    float *sums;  /* [CNN_WINOGRAD_FILTER][in channels][sums_row], where a task is such a plane */
    char *scratch;
} gradient_job;

void cnn_winograd_transform_pair(const cnn_conv_call *call, const cnn_winograd_pair *pair, int64_t begin, int64_t end)
{
    const cnn_winograd_tiles *t = pair->run.tiles;
    const struct cnn_winograd_transforms *transforms = &call->kernels->winograd.form[t->form];
    cnn_winograd_walk walk = cnn_winograd_walk_from(&pair->run, begin);
    for (int64_t i = begin; i < end; i++, cnn_winograd_walk_on(&walk)) {
        const cnn_winograd_tile *tile = &walk.tile;
        cnn_winograd_planes to = cnn_winograd_walk_planes(&walk, pair->v, pair->width, pair->v_plane, pair->panel);
        cnn_winograd_pixels pixels = cnn_winograd_window(t, tile, call->x);
        transforms->src(tile->rows, tile->columns, &pixels, t->ic, &to);
        to = cnn_winograd_walk_planes(&walk, pair->d, pair->width, pair->d_plane, pair->panel);
        pixels = cnn_winograd_results(t, tile, call->y);
        transforms->diff_dst(tile->rows, tile->columns, &pixels, t->oc, &to);
    }
}

#define TILES_PER_TASK 8

static void transform_tiles(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const gradient_job *job = arg;
    const gradient_plan *plan = job->plan;
    const int64_t end = cnn_min_i64((task + 1) * TILES_PER_TASK, job->chunk.count), width = plan->in.width;
    const cnn_winograd_pair pair = {.run = job->chunk,
                                    .v = job->v,
                                    .d = job->d,
                                    .v_plane = plan->v_plane,
                                    .d_plane = plan->d_plane,
                                    .width = width,
                                    .panel = plan->chunk_tiles * width};
    cnn_winograd_transform_pair(job->call, &pair, task * TILES_PER_TASK, end);
}

/* sums = (or, after the first chunk, +=) the products that make one plane of filters, for a block of weights. */
static void multiply(const gradient_job *job, int64_t filter, int64_t in_block, int64_t out_block, float *sums)
{
    const gradient_plan *plan = job->plan;
    const int64_t in_begin = cnn_split(plan->in.count, plan->in_blocks, in_block);
    const int64_t in_end = cnn_split(plan->in.count, plan->in_blocks, in_block + 1);
    const int64_t out_begin = cnn_split(plan->out.count, plan->out_blocks, out_block);
    const int64_t out_end = cnn_split(plan->out.count, plan->out_blocks, out_block + 1);
    const int64_t width = plan->in.width, panel = plan->chunk_tiles * width;
    const cnn_winograd_layout *layout = plan->tiles.layout;
    const int64_t first = layout->first[filter], end = layout->first[filter + 1];
    cnn_winograd_product product = {.turned = true, .b_panel = panel, .to_row = plan->sums_row};
    for (int64_t i = in_begin; i < in_end; i++)
        for (int64_t o = out_begin, wide; o < out_end; o += wide) {
            wide = cnn_conv_panels_of_tile(&plan->out, o, out_end);
            product.rows = cnn_conv_panel_channels(&plan->in, i);
            product.vectors = cnn_conv_panel_vectors(&plan->out, o, wide);
            product.to = sums + (i - in_begin) * width * plan->sums_row + (o - out_begin) * width;
            for (int64_t plane = first; plane < end; plane++) {
                product.terms = job->chunk.held[layout->place[plane]];
                product.a = job->v + plane * plan->v_plane + i * panel;
                product.b = job->d + plane * plan->d_plane + o * panel;
                product.add = job->chunk.first > 0 || plane > first;
                job->call->kernels->winograd.multiply(&product);
            }
        }
}

#define FILTERS_OUT 32 /* out channels that are added at a time */

size_t cnn_winograd_filters_bytes(const cnn_conv *conv)
{
    const cnn_conv_filters filters = cnn_conv_filters_of(conv, FILTERS_OUT);
    return filters.sums_bytes + filters.turned_bytes;
}

void cnn_winograd_add_filters(const cnn_conv_call *call, int64_t c, int64_t count, int64_t first, int64_t channels,
                              const float *sums, int64_t row, int64_t plane, float *room)
{
    const cnn_conv *conv = call->conv;
    const cnn_conv_filters filters = cnn_conv_filters_of(conv, FILTERS_OUT);
    const cnn_winograd_form form = cnn_winograd_tiles_of(conv, call->pass).form;
    void (*const diff_weights)(const float *, int64_t, int64_t, float *) = call->kernels->winograd.form[form].diff_weights;
    float *g = room, *turned = room + filters.sums_bytes / sizeof(float);
    for (int64_t i = 0; i < count; i += filters.in)
        for (int64_t o = 0; o < channels; o += filters.out) {
            const int64_t in = cnn_min_i64(count - i, filters.in), out = cnn_min_i64(channels - o, filters.out);
            float *to = call->out + (c + i) * conv->weights_stride[1] + (first + o) * conv->weights_stride[0];
            cnn_conv_fetch_filters(conv, to, in, out);
            for (int64_t j = 0; j < in; j++)
                diff_weights(sums + (i + j) * row + o, plane, out, g + j * 9 * out);
            cnn_conv_add_filters(call, to, in, out, g, out, turned);
        }
}

static void run_filter(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const gradient_job *job = arg;
    const int64_t filter = CNN_WINOGRAD_FILTER - 1 - task; /* those of most products first */
    multiply(job, filter, 0, 0, job->sums + filter * job->plan->sums_plane);
}

#define CHANNELS_PER_TASK 16 /* whose filters are added together */

static void run_filters(void *arg, int64_t task, int32_t thread)
{
    const gradient_job *job = arg;
    const gradient_plan *plan = job->plan;
    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    const int64_t c = task * CHANNELS_PER_TASK;
    cnn_winograd_add_filters(job->call, c, cnn_min_i64(plan->tiles.ic - c, CHANNELS_PER_TASK), 0, plan->tiles.oc,
                             job->sums + c * plan->sums_row, plan->sums_row, plan->sums_plane,
                             cnn_take(&cursor, plan->filter_bytes));
}

static void run_block(void *arg, int64_t task, int32_t thread)
{
    const gradient_job *job = arg;
    const gradient_plan *plan = job->plan;
    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    float *sums = cnn_take(&cursor, plan->block_bytes), *room = cnn_take(&cursor, plan->filter_bytes);
    const int64_t in_block = task / plan->out_blocks, out_block = task % plan->out_blocks;
    for (int64_t filter = 0; filter < CNN_WINOGRAD_FILTER; filter++)
        multiply(job, filter, in_block, out_block, sums + filter * plan->sums_plane);
    const int64_t begin = cnn_split(plan->in.count, plan->in_blocks, in_block) * plan->in.width;
    const int64_t end = cnn_split(plan->in.count, plan->in_blocks, in_block + 1) * plan->in.width;
    const int64_t first = cnn_split(plan->out.count, plan->out_blocks, out_block) * plan->out.width;
    const int64_t last = cnn_split(plan->out.count, plan->out_blocks, out_block + 1) * plan->out.width;
    cnn_winograd_add_filters(job->call, begin, cnn_min_i64(end, plan->tiles.ic) - begin, first,
                             cnn_min_i64(last, plan->tiles.oc) - first, sums, plan->sums_row, plan->sums_plane, room);
}

void cnn_winograd_run_gradient(const cnn_conv_call *call)
{
    const gradient_plan plan = plan_gradient(call->conv, call->kernels);
    const cnn_winograd_tiles *t = &plan.tiles;
    char *cursor = call->workspace;
    gradient_job job = {.plan = &plan, .call = call};
    job.v = cnn_take(&cursor, plan.v_bytes);
    job.d = cnn_take(&cursor, plan.d_bytes);
    job.sums = cnn_take(&cursor, plan.sums_bytes);
    job.scratch = cursor;
    const int32_t threads = cnn_useful_threads(call->threads, cnn_winograd_work(call));
    for (int64_t chunk = 0; chunk < plan.chunks; chunk++) {
        const int64_t first = cnn_split(t->count, plan.chunks, chunk);
        job.chunk = cnn_winograd_run_of(t, first, cnn_split(t->count, plan.chunks, chunk + 1) - first);
        cnn_parallel(threads, cnn_ceil_div(job.chunk.count, TILES_PER_TASK), transform_tiles, &job);
        if (!plan.by_blocks) cnn_parallel(threads, CNN_WINOGRAD_FILTER, run_filter, &job);
    }
    if (plan.by_blocks)
        cnn_parallel(threads, plan.in_blocks * plan.out_blocks, run_block, &job);
    else
        cnn_parallel(threads, cnn_ceil_div(t->ic, CHANNELS_PER_TASK), run_filters, &job);
}
