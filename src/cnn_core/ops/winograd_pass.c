/* Forward and backward data by Winograd: backward data is forward over the gradient, with the weights turned around.
 *
 * Sources of some tiles are transformed into planes (V); each plane is multiplied by its plane of transformed weights
 * (U), some panels of output channels at a time; the products (M) are transformed back.
 *
 * Where a block of tiles with all its channels fits in the second-level cache, a task transforms it for itself and
 * multiplies it by all weights, or by its part of them where blocks are few: V and M never leave that cache, and U is read
 * once for a block. Of more channels a block would hold so few tiles that reading U took longer than the products. Then V
 * of a chunk of tiles is made first and shared, in the last-level cache, and a task multiplies a block of it by a panel.
 *
 * Where one block is all there is, each transformed weight is used by one task alone, which makes it just before, a few in
 * channels at a time, unless weights come packed. */
#include "ops/winograd.h"

#include <math.h>

#include "ops/conv_geometry.h"
#include "ops/winograd_fetch.h"

typedef struct pass_plan {
    cnn_winograd_tiles tiles;
    cnn_conv_panels panels;
    bool shared;                 /* V is */
    int64_t chunks, chunk_tiles; /* for which V is made at a time, the most of them; where V is not shared: blocks */
    int64_t block_tiles;         /* the most of a task */
    int64_t group, groups;       /* panels that are multiplied at a time; such groups */
    int64_t parts;               /* in which the groups are cut, where V is not shared */
    bool fetches;                /* weights, which would not be near */
    bool late_weights;           /* a task transforms the weights that it needs; else they are there before */
    int64_t ic_block;            /* in channels that are multiplied at a time */
    int64_t v_row, m_row;        /* floats of a tile in a plane */
    int64_t v_plane, m_plane;    /* floats from plane to plane */
    size_t weights_bytes, shared_bytes;
    size_t v_bytes, m_bytes, u_bytes; /* of one thread */
} pass_plan;

/* Measured: docs/winograd.md. */
#define BLOCK_BYTES (1000 << 10) /* of V and M of a block */
#define MOST_TILES 48            /* of a block */
#define LEAST_TILES 20           /* a block of fewer is not worth reading U for */
#define LEAST_EVEN 16            /* nor are blocks made as small as this to be as many as threads want */
#define TASKS_PER_THREAD 2
#define GROUP_CHANNELS 64
#define LEAST_STRIDED_TILES 12   /* the same of stride 2, whose tiles have more planes */
#define STRIDED_GROUP 32
#define SHARED_BYTES (6 << 20)   /* of V of a chunk */
#define SHARED_TILES 64          /* of a block of it */
#define SHARED_CHANNELS 32
#define MANY_WEIGHTS (1 << 20)  /* bytes: fewer lie in the second-level cache, or come near by themselves */
#define IC_BLOCK 256
#define LATE_IC_BLOCK 64

static int64_t panels_in(int64_t channels, const cnn_conv_panels *panels)
{
    return cnn_min_i64(panels->count, cnn_max_i64(channels / panels->width, panels->tile));
}

/* So many blocks that each thread has as many tasks, if they do not get too small. */
static int64_t even_blocks(int64_t tiles, int64_t blocks, int64_t tasks)
{
    const int64_t even = cnn_round_up(blocks, tasks);
    return tiles / even < LEAST_EVEN ? blocks : even;
}

/* How tiles and panels are cut follows the number of threads: no sum is cut, so that bits stay. */
static pass_plan plan_pass(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    pass_plan plan = {.tiles = cnn_winograd_tiles_of(conv, pass)};
    const cnn_winograd_tiles *t = &plan.tiles;
    plan.panels = cnn_conv_panels_of(t->oc, kernels);
    plan.v_row = cnn_round_up(t->ic, plan.panels.lanes);
    const bool unit = t->form == CNN_WINOGRAD_UNIT || t->form == CNN_WINOGRAD_SMALL;
    plan.group = panels_in(unit ? GROUP_CHANNELS : STRIDED_GROUP, &plan.panels);
    const int64_t tile_bytes = t->layout->planes * (int64_t)sizeof(float);
    const int64_t fitting = BLOCK_BYTES / tile_bytes / (plan.v_row + plan.group * plan.panels.width);
    const int64_t tasks = TASKS_PER_THREAD * threads, shares = panels_in(SHARED_CHANNELS, &plan.panels);
    plan.chunks = even_blocks(t->count, cnn_ceil_div(t->count, cnn_min_i64(cnn_max_i64(fitting, 1), MOST_TILES)), tasks);
    plan.shared = fitting < (unit ? LEAST_TILES : LEAST_STRIDED_TILES) || (plan.chunks < tasks && plan.panels.count >= tasks * shares);
    if (plan.shared) {
        plan.chunks = cnn_ceil_div(t->count, cnn_max_i64(SHARED_BYTES / tile_bytes / plan.v_row, SHARED_TILES));
        plan.chunk_tiles = cnn_ceil_div(t->count, plan.chunks);
        plan.block_tiles = cnn_ceil_div(plan.chunk_tiles, cnn_ceil_div(plan.chunk_tiles, SHARED_TILES));
        plan.group = shares;
    } else {
        plan.chunk_tiles = plan.block_tiles = cnn_ceil_div(t->count, plan.chunks);
        /* Parts can be small then, if each thread has one. */
        const int64_t one = panels_in(1, &plan.panels), parts = cnn_ceil_div(threads, plan.chunks);
        if (plan.chunks < tasks) plan.group = cnn_ceil_div(plan.panels.count, one) < parts ? 1 : one;
    }
    plan.groups = cnn_ceil_div(plan.panels.count, plan.group);
    /* Every part transforms the block again: no more of them than threads need. */
    plan.parts = plan.shared ? 1 : cnn_min_i64(plan.groups, cnn_ceil_div(tasks, plan.chunks));
    plan.late_weights = !conv->packed && plan.block_tiles == t->count;
    plan.fetches = !plan.late_weights && cnn_winograd_weights_bytes(t, &plan.panels) >= MANY_WEIGHTS;
    plan.ic_block = cnn_min_i64(t->ic, plan.late_weights ? LATE_IC_BLOCK : IC_BLOCK);
    plan.m_row = plan.group * plan.panels.width;
    plan.v_plane = cnn_winograd_stride(plan.chunk_tiles * plan.v_row);
    plan.m_plane = cnn_winograd_stride(plan.block_tiles * plan.m_row);
    if (!conv->packed && !plan.late_weights) plan.weights_bytes = cnn_winograd_weights_bytes(t, &plan.panels);
    *(plan.shared ? &plan.shared_bytes : &plan.v_bytes) = cnn_winograd_bytes(t->layout->planes, plan.chunk_tiles * plan.v_row);
    plan.m_bytes = cnn_winograd_bytes(t->layout->planes, plan.block_tiles * plan.m_row);
    if (plan.late_weights) plan.u_bytes = cnn_winograd_bytes(cnn_winograd_filter_planes(t->layout), plan.ic_block * plan.m_row);
    return plan;
}

static size_t thread_bytes(const pass_plan *plan)
{
    return cnn_size_add(cnn_size_add(plan->v_bytes, plan->m_bytes), plan->u_bytes);
}

/* For up to so many threads: fewer cut the work otherwise, and may need more. */
size_t cnn_winograd_pass_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    size_t most = 0;
    for (int32_t some = 1; some <= threads; some++) {
        const pass_plan plan = plan_pass(conv, pass, kernels, some);
        const size_t common = cnn_size_add(plan.weights_bytes, plan.shared_bytes);
        const size_t bytes = cnn_size_add(common, cnn_size_mul(thread_bytes(&plan), (size_t)some));
        if (bytes > most) most = bytes;
    }
    return most;
}

typedef struct pass_job {
    const pass_plan *plan;
    const cnn_conv_call *call;
    const struct cnn_winograd_transforms *transforms;
    const float *src;
    cnn_winograd_weights weights; /* where they are there before */
    cnn_winograd_run chunk;       /* whose V is shared */
    float *v;
    char *scratch;
    bool clamps;
    float low, high;                                   /* the clamp that the activation is, or none */
    const struct cnn_activation_attributes *finishing; /* an activation that is no clamp, or NULL */
} pass_job;

static void set_activation(pass_job *job, const struct cnn_activation_attributes *activation)
{
    job->low = -INFINITY;
    job->high = INFINITY;
    if (activation == NULL) return;
    switch (activation->kind) {
    case CNN_RELU6: job->high = 6.0f; /* fall through */
    case CNN_RELU: job->low = 0.0f; break;
    default: job->finishing = activation; break;
    }
    job->clamps = job->finishing == NULL;
}

/* V of the run's tiles [begin, end). */
static void transform_tiles(const pass_job *job, const cnn_winograd_run *run, int64_t begin, int64_t end, float *v)
{
    const pass_plan *plan = job->plan;
    cnn_winograd_walk walk = cnn_winograd_walk_from(run, begin);
    for (int64_t i = begin; i < end; i++, cnn_winograd_walk_on(&walk)) {
        const cnn_winograd_planes to =
            cnn_winograd_walk_planes(&walk, v, plan->v_row, plan->v_plane, plan->panels.width);
        const cnn_winograd_pixels pixels = cnn_winograd_window(&plan->tiles, &walk.tile, job->src);
        job->transforms->src(walk.tile.rows, walk.tile.columns, &pixels, plan->tiles.ic, &to);
    }
}

#define TILES_PER_TASK 4

static void transform_some(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const pass_job *job = arg;
    transform_tiles(job, &job->chunk, task * TILES_PER_TASK, cnn_min_i64((task + 1) * TILES_PER_TASK, job->chunk.count),
                    job->v);
}

/* Some in channels and some panels. */
typedef struct range {
    int64_t first, last; /* in channels */
    int64_t begin, end;  /* panels */
} range;

/* M = (or, after the first in channels, +=) V U of a run, whose V lies among that of `in`. Each product fetches the next
 * one's weights, the last one those from `after` on. */
static void multiply(const pass_job *job, const cnn_winograd_run *in, const float *v, const cnn_winograd_run *run,
                     const cnn_winograd_weights *u, const range *at, const float *after, float *m,
                     cnn_winograd_fetcher *src, cnn_winograd_fetcher *dst)
{
    const pass_plan *plan = job->plan;
    const cnn_conv_panels *panels = &plan->panels;
    const cnn_winograd_layout *layout = plan->tiles.layout;
    const int64_t count = at->end - at->begin, filters = cnn_winograd_filter_planes(layout);
    cnn_winograd_product product = {.terms = at->last - at->first,
                                    .a_row = plan->v_row,
                                    .b_panel = panels->width * u->count,
                                    .add = at->first > 0,
                                    .to_row = plan->m_row};
    int64_t part = 0;
    for (int64_t filter = 0; filter < filters; filter++) {
        const int64_t first = layout->first[filter], last = layout->first[filter + 1] - 1;
        for (int64_t panel = at->begin, wide; panel < at->end; panel += wide) {
            wide = cnn_conv_panels_of_tile(panels, panel, at->end);
            product.b = cnn_winograd_weights_at(u, panels, filter, panel, at->first);
            product.vectors = cnn_conv_panel_vectors(panels, panel, wide);
            const float *next = after;
            if (!plan->fetches)
                next = NULL;
            else if (panel + wide < at->end)
                next = cnn_winograd_weights_at(u, panels, filter, panel + wide, at->first);
            else if (filter + 1 < filters)
                next = cnn_winograd_weights_at(u, panels, filter + 1, at->begin, at->first);
            for (int64_t plane = first; plane <= last; plane++, part += wide) {
                const int place = layout->place[plane];
                for (int64_t i = 0; i < wide; i++) {
                    cnn_winograd_fetch(src, part + i, layout->planes * count);
                    cnn_winograd_fetch(dst, part + i, layout->planes * count);
                }
                product.rows = run->held[place];
                product.a = v + plane * plan->v_plane + (run->before[place] - in->before[place]) * plan->v_row + at->first;
                product.to = m + plane * plan->m_plane + (panel - at->begin) * panels->width;
                product.next = plane == last ? next : NULL;
                job->call->kernels->winograd.multiply(&product);
            }
        }
    }
}

static void finish(const pass_job *job, const cnn_winograd_store *store, int64_t channels)
{
    const struct cnn_activation_attributes *a = job->finishing;
    cnn_activation_forward_fn *const apply = job->call->kernels->activation.forward[a->kind];
    for (int r = 0; r < store->rows; r++)
        for (int s = 0; s < store->columns; s++) {
            float *to = store->to + r * store->row_stride + s * store->column_stride;
            apply(channels, to, to, (float)a->alpha, (float)a->beta, false);
        }
}

/* The results of a run in the channels of panels [begin, end). */
static void store_tiles(const pass_job *job, const cnn_winograd_run *run, int64_t begin, int64_t end, float *m)
{
    const pass_plan *plan = job->plan;
    const cnn_winograd_tiles *t = &plan->tiles;
    const int64_t channel = begin * plan->panels.width;
    const int64_t channels = cnn_min_i64(end * plan->panels.width, t->oc) - channel;
    cnn_winograd_store store = {.row_stride = t->cols.dst * t->oc,
                                .column_stride = t->oc,
                                .bias = job->call->bias == NULL ? NULL : job->call->bias + channel,
                                .clamps = job->clamps,
                                .low = job->low,
                                .high = job->high};
    cnn_winograd_walk walk = cnn_winograd_walk_from(run, 0);
    for (int64_t i = 0; i < run->count; i++, cnn_winograd_walk_on(&walk)) {
        const cnn_winograd_tile tile = walk.tile;
        const cnn_winograd_planes from =
            cnn_winograd_walk_planes(&walk, m, plan->m_row, plan->m_plane, plan->panels.width);
        const cnn_winograd_span rows = cnn_winograd_span_of(&t->rows, tile.y, tile.rows);
        const cnn_winograd_span columns = cnn_winograd_span_of(&t->cols, tile.x, tile.columns);
        const int64_t at = ((tile.image * t->rows.dst + rows.begin) * t->cols.dst + columns.begin) * t->oc + channel;
        store.rows = rows.count;
        store.skip_rows = rows.skip;
        store.columns = columns.count;
        store.skip_columns = columns.skip;
        store.to = job->call->out + at;
        store.addend = job->call->addend == NULL ? NULL : job->call->addend + at;
        job->transforms->dst(tile.rows, tile.columns, &from, channels, &store);
        if (job->finishing != NULL) finish(job, &store, channels);
    }
}

/* One group of panels for a run, whose V lies among that of `in`; fetches the pixels of `src` meanwhile. */
static void run_group(const pass_job *job, const cnn_winograd_run *in, const float *v, const cnn_winograd_run *run,
                      int64_t group, char *cursor, cnn_winograd_fetcher *src)
{
    const pass_plan *plan = job->plan;
    const cnn_winograd_tiles *t = &plan->tiles;
    const int64_t parts = cnn_ceil_div(t->ic, plan->ic_block);
    range at = {.begin = cnn_split(plan->panels.count, plan->groups, group),
                .end = cnn_split(plan->panels.count, plan->groups, group + 1)};
    float *m = cnn_take(&cursor, plan->m_bytes), *late = cnn_take(&cursor, plan->u_bytes);
    const cnn_winograd_filters filters = cnn_winograd_filters_of(job->call);
    const int64_t channel = at.begin * plan->panels.width;
    cnn_winograd_fetcher none = {.run = NULL};
    cnn_winograd_fetcher dst = cnn_winograd_fetch_dst(run, job->call->out, channel,
                                                      cnn_min_i64(at.end * plan->panels.width, t->oc) - channel);
    for (int64_t part = 0; part < parts; part++) {
        at.first = cnn_split(t->ic, parts, part);
        at.last = cnn_split(t->ic, parts, part + 1);
        const bool more = part + 1 < parts;
        cnn_winograd_weights u = job->weights;
        const float *after = NULL;
        if (!plan->late_weights) {
            const int64_t panel = more ? at.begin : at.end % plan->panels.count;
            after = cnn_winograd_weights_at(&u, &plan->panels, 0, panel, more ? at.last : 0);
        } else {
            u = (cnn_winograd_weights){late, cnn_winograd_stride(plan->ic_block * plan->m_row), at.begin, at.first,
                                       at.last - at.first};
            for (int64_t panel = at.begin; panel < at.end; panel++)
                cnn_winograd_make_panel(job->call->kernels, &plan->panels, &filters, panel, at.first,
                                        at.last - at.first, &u);
        }
        multiply(job, in, v, run, &u, &at, after, m, part == 0 ? src : &none, more ? &none : &dst);
    }
    store_tiles(job, run, at.begin, at.end, m);
}

/* A block of the shared chunk, and a group of panels. */
static void run_shared(void *arg, int64_t task, int32_t thread)
{
    const pass_job *job = arg;
    const pass_plan *plan = job->plan;
    const int64_t blocks = cnn_ceil_div(job->chunk.count, plan->block_tiles), block = task % blocks;
    const int64_t first = cnn_split(job->chunk.count, blocks, block);
    const cnn_winograd_run run = cnn_winograd_run_of(&plan->tiles, job->chunk.first + first,
                                                     cnn_split(job->chunk.count, blocks, block + 1) - first);
    cnn_winograd_fetcher none = {.run = NULL};
    run_group(job, &job->chunk, job->v, &run, task / blocks, job->scratch + (size_t)thread * thread_bytes(plan), &none);
}

static cnn_winograd_run block_at(const pass_plan *plan, int64_t index)
{
    const int64_t first = cnn_split(plan->tiles.count, plan->chunks, index);
    return cnn_winograd_run_of(&plan->tiles, first, cnn_split(plan->tiles.count, plan->chunks, index + 1) - first);
}

/* A block, from its sources to its results, in some groups of panels. */
static void run_block(void *arg, int64_t task, int32_t thread)
{
    const pass_job *job = arg;
    const pass_plan *plan = job->plan;
    const int64_t index = task / plan->parts, part = task % plan->parts;
    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    float *v = cnn_take(&cursor, plan->v_bytes);
    const cnn_winograd_run run = block_at(plan, index);
    transform_tiles(job, &run, 0, run.count, v);

    cnn_winograd_run next = {0};
    cnn_winograd_fetcher src = {.run = NULL};
    if (plan->parts == 1 && index + 1 < plan->chunks) { /* most likely this thread's next task */
        next = block_at(plan, index + 1);
        src = cnn_winograd_fetch_src(&next, job->src);
    }
    const int64_t end = cnn_split(plan->groups, plan->parts, part + 1);
    for (int64_t group = cnn_split(plan->groups, plan->parts, part); group < end; group++)
        run_group(job, &run, v, &run, group, cursor, &src);
}

void cnn_winograd_run_pass(const cnn_conv_call *call)
{
    const pass_plan plan = plan_pass(call->conv, call->pass, call->kernels, call->threads);
    const cnn_winograd_tiles *t = &plan.tiles;
    char *cursor = call->workspace;
    pass_job job = {
        .plan = &plan,
        .call = call,
        .transforms = &call->kernels->winograd.form[t->form],
        .src = call->pass == CNN_CONV_BACKWARD_DATA ? call->y : call->x,
    };
    set_activation(&job, call->activation);
    if (call->packed != NULL) {
        job.weights = cnn_winograd_all_weights(t, &plan.panels, call->packed);
    } else if (!plan.late_weights) {
        job.weights = cnn_winograd_all_weights(t, &plan.panels, cnn_take(&cursor, plan.weights_bytes));
        cnn_winograd_make_weights(call, t, &plan.panels, &job.weights);
    }
    job.v = cnn_take(&cursor, plan.shared_bytes);
    job.scratch = cursor;
    const int32_t threads = cnn_useful_threads(call->threads, cnn_winograd_work(call));
    if (!plan.shared) {
        cnn_parallel(threads, plan.chunks * plan.parts, run_block, &job);
        return;
    }
    for (int64_t chunk = 0; chunk < plan.chunks; chunk++) {
        job.chunk = block_at(&plan, chunk);
        cnn_parallel(threads, cnn_ceil_div(job.chunk.count, TILES_PER_TASK), transform_some, &job);
        cnn_parallel(threads, plan.groups * cnn_ceil_div(job.chunk.count, plan.block_tiles), run_shared, &job);
    }
}
