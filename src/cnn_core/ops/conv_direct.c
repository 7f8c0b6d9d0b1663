/* Forward and backward data of any convolution, as a matrix product over indirect rows.
 *
 * Destination pixels are cut into blocks whose sources stay in the second-level cache. For a block, the sources of
 * its pixels are found once, through pointers or, with few channels, in a strip (ops/conv_strip.h); then the kernel
 * runs down the panels of output channels of all groups, each of which stays in the first-level cache while the
 * register tiles move over the block.
 *
 * Of many pixels and few weights, a task is a block: the weights were packed before, once for all tasks. Of few
 * pixels and many weights, a task is some panels: it packs them for itself, for every block, so that they come out
 * of its cache. Weights that never change are packed once for all calls, and then read straight through. */
#include "ops/conv.h"
#include "ops/conv_epilogue.h"
#include "ops/conv_geometry.h"
#include "ops/conv_strip.h"
#include "ops/conv_tiling.h"
#include "ops/prologue.h"

/* What a pass is, the same way round for both: out channels are sums over in channels. */
typedef struct direct_plan {
    cnn_conv_pass pass;
    int64_t groups, ic, oc; /* channels per group */
    int64_t taps;           /* of the kernel: no phase has more */
    int64_t phases;
    cnn_conv_panels panels;       /* of a group */
    int64_t units;                /* panels of all groups */
    bool stripped;                /* blocks are strips */
    cnn_conv_strips strips;
    int64_t blocks, block_pixels; /* of each phase; pixels of the largest block */
    int64_t parts;                /* in which the units are cut */
    int64_t pieces;               /* in which a watch is shown the pixels; 0: these are not neighbours, or miss channels */
    bool by_panels;               /* a task is a part with all blocks; else a part with one block */
    bool packs_all;               /* in the workspace, before the tasks */
    size_t axes_bytes, zero_bytes, offset_bytes, weights_bytes;
    size_t strip_bytes, made_bytes, src_bytes, dst_bytes, addend_bytes, part_bytes; /* of one thread */
} direct_plan;

#define FEW_PIXELS 512
#define FEW_UNITS 16 /* of which one more or less is seen in the time */
#define EVEN_BLOCKS 4
#define LEAST_BLOCK 48 /* pixels: weights are read anew for each block */
#define STRIP_PIXELS 512
#define MANY_WEIGHTS (1 << 20) /* bytes: more than other data leave of the second-level cache */
#define FETCHED_WEIGHTS (256 << 10) /* above: they come from beyond the second-level cache, and are fetched ahead */
#define TOO_MANY_WEIGHTS (64 << 20)
#define MOST_PART_PANELS 4
#define TASKS_PER_THREAD 4
#define MOST_PIECES (2 * CNN_CONV_TASKS)

/* Parts of the panels: as many as wanted, none of fewer panels than a register tile takes, and alike for all threads. */
static int64_t parts_of(const direct_plan *plan, int64_t wanted, int32_t threads)
{
    const int64_t parts = cnn_min_i64(cnn_ceil_div(plan->units, plan->panels.tile), wanted);
    return parts < threads ? parts : parts / threads * threads;
}

static direct_plan plan_direct(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
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
    plan.units = plan.groups * plan.panels.count;
    bool halved = false; /* the only block */

    const int64_t h = back ? cnn_ceil_div(conv->ih, conv->stride[0]) : conv->oh;
    const int64_t w = back ? cnn_ceil_div(conv->iw, conv->stride[1]) : conv->ow;
    const int64_t pixels = conv->n * h * w; /* of the largest phase */
    plan.stripped = !back && cnn_conv_strips_suit(conv);
    if (plan.stripped) {
        plan.strips = cnn_conv_strips_of(conv, cnn_max_i64(cnn_min_i64(pixels / CNN_CONV_TASKS, STRIP_PIXELS), 1));
        plan.blocks = plan.strips.count;
        plan.block_pixels = plan.strips.most_pixels;
    } else {
        /* The taps of a pixel lie in several rows; those of one row are its neighbours' too. */
        const int64_t floats = plan.ic * plan.groups * cnn_min_i64(plan.taps, 3);
        plan.blocks = cnn_conv_blocks(pixels, floats, plan.taps);
        /* Of some blocks, an odd one would keep one thread of several. */
        const int64_t even = cnn_round_up(plan.blocks, EVEN_BLOCKS);
        if (plan.blocks > 1 && pixels >= even * LEAST_BLOCK) plan.blocks = even;
        /* Of few panels, an odd one would be computed by one of two threads alone. */
        halved = plan.blocks == 1 && plan.units < FEW_UNITS && plan.units % (2 * plan.panels.tile) != 0 &&
                 pixels >= 4 * CNN_CONV_ROWS;
        if (halved) plan.blocks = 2;
        plan.block_pixels = cnn_ceil_div(pixels, plan.blocks);
    }

    const size_t group_bytes =
        cnn_size_mul(cnn_size_mul((size_t)plan.taps, (size_t)plan.ic), (size_t)plan.panels.padded * sizeof(float));
    plan.weights_bytes = cnn_size_align(cnn_size_mul(group_bytes, (size_t)plan.groups));
    plan.by_panels =
        (plan.weights_bytes > MANY_WEIGHTS && pixels <= FEW_PIXELS) || plan.weights_bytes > TOO_MANY_WEIGHTS;
    plan.packs_all = !plan.by_panels && !conv->packed;
    const int64_t tasks = cnn_min_i64(TASKS_PER_THREAD * threads, CNN_CONV_TASKS);
    if (plan.by_panels) {
        const int64_t least = cnn_ceil_div(plan.units, MOST_PART_PANELS);
        plan.parts = cnn_max_i64(parts_of(&plan, tasks, threads), least);
        if (!conv->packed)
            plan.part_bytes = cnn_size_align(cnn_size_mul(
                cnn_size_mul((size_t)plan.taps, (size_t)plan.ic),
                (size_t)(cnn_ceil_div(plan.units, plan.parts) * plan.panels.width) * sizeof(float)));
    } else {
        /* Each part looks for the pixels again. */
        const int64_t blocks = plan.phases * plan.blocks;
        plan.parts = parts_of(&plan, cnn_ceil_div(halved || threads == 1 ? threads : tasks, blocks), threads);
        if (plan.phases == 1 && (plan.units == 1 || blocks >= CNN_CONV_TASKS))
            plan.pieces = cnn_min_i64(plan.blocks, MOST_PIECES);
    }

    plan.axes_bytes = cnn_conv_axes_bytes(conv, pass);
    plan.zero_bytes = cnn_float_bytes(plan.groups * plan.ic);
    if (plan.stripped) {
        plan.offset_bytes = cnn_size_align(cnn_size_mul((size_t)(plan.taps * plan.ic), sizeof(int64_t)));
        plan.strip_bytes = plan.strips.bytes;
    }
    if (conv->prologue && !back) plan.made_bytes = cnn_float_bytes(plan.block_pixels * plan.ic);
    const size_t rows = cnn_size_mul((size_t)plan.block_pixels, plan.stripped ? 1 : (size_t)plan.taps);
    plan.src_bytes = cnn_size_align(cnn_size_mul(rows, sizeof(float *)));
    plan.dst_bytes = cnn_size_align(cnn_size_mul((size_t)plan.block_pixels, sizeof(float *)));
    plan.addend_bytes = plan.dst_bytes;
    return plan;
}

static size_t thread_bytes(const direct_plan *plan)
{
    return cnn_size_add(cnn_size_add(plan->strip_bytes, cnn_size_add(plan->made_bytes, plan->src_bytes)),
                        cnn_size_add(plan->dst_bytes, cnn_size_add(plan->addend_bytes, plan->part_bytes)));
}

/* For up to so many threads: fewer cut the work otherwise, and may need more. */
static size_t direct_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    size_t most = 0;
    for (int32_t some = 1; some <= threads; some++) {
        const direct_plan plan = plan_direct(conv, pass, kernels, some);
        const size_t shared = cnn_size_add(cnn_size_add(plan.axes_bytes, plan.zero_bytes),
                                           cnn_size_add(plan.offset_bytes, plan.packs_all ? plan.weights_bytes : 0));
        const size_t bytes = cnn_size_add(shared, cnn_size_mul(thread_bytes(&plan), (size_t)some));
        if (bytes > most) most = bytes;
    }
    return most;
}

typedef struct direct_job {
    const direct_plan *plan;
    const cnn_conv_call *call;
    cnn_conv_axes axes;
    cnn_conv_image src;
    int64_t dst_h, dst_w, dst_c;
    int64_t group_stride, out_stride, in_stride, row_stride, col_stride; /* of call->weights */
    const float *zero;
    int64_t *offset;     /* of strips */
    const float *packed; /* [phases][groups][panels][taps][ic][panel row], or NULL: each task packs */
    cnn_conv_epilogue epilogue;
    char *scratch; /* of all threads */
} direct_job;

/* ---- packing weights --------------------------------------------------------------------------------------------- */

#define SQUARE 16 /* in channels that are turned at a time */

/* Floats of a panel that is as wide as they are: the distance of panels. */
static int64_t panel_size(const direct_plan *plan, const cnn_conv_grid *grid)
{
    return grid->row_taps * grid->col_taps * plan->ic * plan->panels.width;
}

/* The grid's taps of one panel, for `count` in channels from `first`: to = [taps][ic][panel row], of which it writes
 * those channels. */
static void pack_taps(const direct_job *job, const cnn_conv_grid *grid, int64_t group, int64_t panel, int64_t first,
                      int64_t count, float *to)
{
    const direct_plan *plan = job->plan;
    const int64_t row = cnn_conv_panel_row(&plan->panels, panel);
    const float *from = job->call->weights + group * job->group_stride + panel * plan->panels.width * job->out_stride +
                        first * job->in_stride;
    to += first * row;
    for (int64_t r = 0; r < grid->row_taps; r++)
        for (int64_t s = 0; s < grid->col_taps; s++, to += plan->ic * row)
            job->call->kernels->conv.pack(
                from + grid->row_tap[r].k * job->row_stride + grid->col_tap[s].k * job->col_stride, count,
                job->in_stride, cnn_conv_panel_channels(&plan->panels, panel), job->out_stride, row, to);
}

/* to = [panels][taps][ic][panel row]. Neighbouring panels are packed together, a few in channels at a time: what
 * they and the taps share of the given weights' cache lines and pages is then read once. */
static void pack_panels(const direct_job *job, const cnn_conv_grid *grid, int64_t group, int64_t panel,
                        int64_t panel_end, float *to)
{
    const int64_t ic = job->plan->ic;
    for (int64_t first = 0; first < ic; first += SQUARE)
        for (int64_t p = panel; p < panel_end; p++)
            pack_taps(job, grid, group, p, first, cnn_min_i64(SQUARE, ic - first),
                      to + (p - panel) * panel_size(job->plan, grid));
}

/* Where the panels of a grid begin among all packed weights. */
static int64_t grid_offset(const direct_plan *plan, const cnn_conv_grid *grid)
{
    return grid->first_tap * plan->groups * plan->ic * plan->panels.padded;
}

/* Where a unit begins among a grid's. */
static int64_t unit_offset(const direct_plan *plan, const cnn_conv_grid *grid, int64_t unit)
{
    const int64_t group = unit / plan->panels.count, panel = unit % plan->panels.count;
    return group * grid->row_taps * grid->col_taps * plan->ic * plan->panels.padded + panel * panel_size(plan, grid);
}

/* to = the units [begin, end) of a grid. */
static void pack_units(const direct_job *job, const cnn_conv_grid *grid, int64_t begin, int64_t end, float *to)
{
    const int64_t count = job->plan->panels.count, start = unit_offset(job->plan, grid, begin);
    for (int64_t unit = begin, group; unit < end; unit = (group + 1) * count) {
        group = unit / count;
        pack_panels(job, grid, group, unit % count, cnn_min_i64(count, end - group * count),
                    to + unit_offset(job->plan, grid, unit) - start);
    }
}

typedef struct pack_job {
    const direct_job *direct;
    float *packed;
} pack_job;

static void pack_for_all(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const pack_job *pack = arg;
    const direct_job *job = pack->direct;
    const direct_plan *plan = job->plan;
    const int64_t begin = task * MOST_PART_PANELS, end = cnn_min_i64(begin + MOST_PART_PANELS, plan->units);
    for (int64_t phase = 0; phase < plan->phases; phase++) {
        const cnn_conv_grid grid = cnn_conv_grid_at(&job->axes, phase);
        pack_units(job, &grid, begin, end, pack->packed + grid_offset(plan, &grid) + unit_offset(plan, &grid, begin));
    }
}

static void pack_all(const direct_job *job, float *packed)
{
    const direct_plan *plan = job->plan;
    pack_job pack = {job, packed};
    cnn_parallel(cnn_useful_threads(job->call->threads, (double)plan->weights_bytes / sizeof(float)),
                 cnn_ceil_div(plan->units, MOST_PART_PANELS), pack_for_all, &pack);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

/* A thread's scratch memory. */
typedef struct direct_scratch {
    float *strip;
    float *made; /* what the prologue makes of a block's sources */
    const float **src;
    float **dst;
    const float **addend;
    float *part;
} direct_scratch;

static direct_scratch take_scratch(const direct_job *job, int32_t thread)
{
    const direct_plan *plan = job->plan;
    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    direct_scratch scratch = {.strip = cnn_take(&cursor, plan->strip_bytes)};
    scratch.made = cnn_take(&cursor, plan->made_bytes);
    scratch.src = cnn_take(&cursor, plan->src_bytes);
    scratch.dst = cnn_take(&cursor, plan->dst_bytes);
    scratch.addend = cnn_take(&cursor, plan->addend_bytes);
    scratch.part = cnn_take(&cursor, plan->part_bytes);
    return scratch;
}

/* The first pixel of a block. In some phases all have fewer pixels than in the largest. */
static int64_t block_begin(const direct_job *job, const cnn_conv_grid *grid, int64_t index)
{
    const direct_plan *plan = job->plan;
    return plan->stripped ? cnn_conv_strip_begin(job->call->conv, &plan->strips, index)
                          : cnn_split(job->call->conv->n * grid->h * grid->w, plan->blocks, index);
}

/* The sources of a block are made of pixels that lie one behind the other. */
static void make_sources(const direct_job *job, const direct_scratch *scratch, int64_t first, int64_t pixels)
{
    const cnn_conv_call *call = job->call;
    const int64_t ic = job->plan->ic;
    cnn_prologue_apply(call->prologue, call->kernels, pixels, call->x + first * ic, scratch->made);
    for (int64_t p = 0; p < pixels; p++) scratch->src[p] = scratch->made + p * ic;
}

/* Finds the sources and destinations of a block; returns its pixels. */
static int64_t locate_block(const direct_job *job, const direct_scratch *scratch, const cnn_conv_grid *grid,
                            int64_t index)
{
    const direct_plan *plan = job->plan;
    const cnn_conv_call *call = job->call;
    const int64_t first = block_begin(job, grid, index), pixels = block_begin(job, grid, index + 1) - first;
    if (plan->stripped)
        cnn_conv_strip_fill(call->conv, &plan->strips, call->x, index, scratch->strip, scratch->src);
    else if (call->prologue != NULL)
        make_sources(job, scratch, first, pixels);
    else
        cnn_conv_locate_src(grid, &job->src, job->zero, first, pixels, scratch->src);
    cnn_conv_locate_dst(grid, job->dst_h, job->dst_w, call->out, job->dst_c, first, pixels, scratch->dst);
    if (call->addend != NULL)
        for (int64_t p = 0; p < pixels; p++) scratch->addend[p] = call->addend + (scratch->dst[p] - call->out);
    return pixels;
}

/* Computes the units [begin, end) for one block of a grid's pixels; `packed` holds them. */
static void compute_block(const direct_job *job, const direct_scratch *scratch, const cnn_conv_grid *grid,
                          int64_t index, int64_t begin, int64_t end, const float *packed)
{
    const direct_plan *plan = job->plan;
    const cnn_conv_panels *panels = &plan->panels;
    const int64_t pixels = locate_block(job, scratch, grid, index);
    if (pixels == 0) return;
    const int64_t taps = grid->row_taps * grid->col_taps, start = unit_offset(plan, grid, begin);
    cnn_conv_block block = {.pixels = pixels, .taps = taps, .ic = plan->ic, .src = scratch->src, .dst = scratch->dst};
    if (plan->stripped) {
        block.taps = 1;
        block.ic = taps * plan->ic;
        block.offset = job->offset;
    }
    if (job->packed != NULL && plan->weights_bytes > FETCHED_WEIGHTS)
        block.weights_end = packed + unit_offset(plan, grid, plan->units) - start;
    else if (job->call->prologue != NULL && index + 1 < plan->blocks) /* most likely this thread's next */
        block.later = (const char *)(job->call->x + block_begin(job, grid, index + 1) * plan->ic);
    cnn_conv_epilogue epilogue = job->epilogue;
    if (job->call->addend != NULL) epilogue.addend = scratch->addend;

    const int64_t first = begin / panels->count * plan->oc + begin % panels->count * panels->width;
    int64_t channel = first;
    for (int64_t unit = begin, next; unit < end; unit = next) {
        const int64_t group = unit / panels->count, panel = unit % panels->count;
        next = cnn_min_i64((group + 1) * panels->count, end);
        const int64_t channels = cnn_min_i64((next - unit) * panels->width, plan->oc - panel * panels->width);
        block.channel = group * plan->ic;
        job->call->kernels->conv.forward(&block, packed + unit_offset(plan, grid, unit) - start, &epilogue, channel,
                                         channels);
        channel += channels;
    }
    cnn_conv_activate_pixels(job->call, pixels, scratch->dst, job->dst_c, first, channel - first);
}

static void run_part(void *arg, int64_t task, int32_t thread)
{
    const direct_job *job = arg;
    const direct_plan *plan = job->plan;
    const int64_t tasks = plan->by_panels ? 1 : plan->blocks; /* of a part */
    const int64_t part = task / tasks % plan->parts, phase = task / tasks / plan->parts;
    const int64_t begin = cnn_split(plan->units, plan->parts, part);
    const int64_t end = cnn_split(plan->units, plan->parts, part + 1);
    const cnn_conv_grid grid = cnn_conv_grid_at(&job->axes, phase);
    const direct_scratch scratch = take_scratch(job, thread);
    const float *packed = scratch.part;
    if (job->packed != NULL)
        packed = job->packed + grid_offset(plan, &grid) + unit_offset(plan, &grid, begin);
    else
        pack_units(job, &grid, begin, end, scratch.part);
    if (plan->by_panels)
        for (int64_t block = 0; block < plan->blocks; block++)
            compute_block(job, &scratch, &grid, block, begin, end, packed);
    else
        compute_block(job, &scratch, &grid, task % tasks, begin, end, packed);
}

/* A task is a piece: neighbouring blocks, all channels of each. */
static void run_piece(void *arg, int64_t piece, int32_t thread)
{
    const direct_job *job = arg;
    const direct_plan *plan = job->plan;
    const cnn_watch *watch = job->call->watch;
    const cnn_conv_grid grid = cnn_conv_grid_at(&job->axes, 0);
    const direct_scratch scratch = take_scratch(job, thread);
    const int64_t blocks = cnn_split(plan->blocks, plan->pieces, piece + 1);
    cnn_sight sight = {.piece = piece, .channels = job->dst_c};
    for (int64_t block = cnn_split(plan->blocks, plan->pieces, piece); block < blocks; block++) {
        compute_block(job, &scratch, &grid, block, 0, plan->units, job->packed);
        sight.first = block_begin(job, &grid, block);
        sight.rows = block_begin(job, &grid, block + 1) - sight.first;
        watch->see(watch, &sight, thread);
        sight.done += sight.rows;
    }
}

/* What a pass and the packing of its weights have in common. */
static direct_job begin_job(const cnn_conv_call *call, const direct_plan *plan, char **cursor)
{
    const cnn_conv *conv = call->conv;
    const int64_t *stride = conv->weights_stride;
    const bool back = call->pass == CNN_CONV_BACKWARD_DATA;
    direct_job job = {
        .plan = plan,
        .call = call,
        .src = back ? (cnn_conv_image){call->y, conv->oh, conv->ow, conv->oc}
                    : (cnn_conv_image){call->x, conv->ih, conv->iw, conv->ic},
        .dst_h = back ? conv->ih : conv->oh,
        .dst_w = back ? conv->iw : conv->ow,
        .dst_c = back ? conv->ic : conv->oc,
        .group_stride = conv->oc / conv->groups * stride[0],
        .out_stride = stride[back ? 1 : 0],
        .in_stride = stride[back ? 0 : 1],
        .row_stride = stride[2],
        .col_stride = stride[3],
        .epilogue = cnn_conv_epilogue_of(call),
    };
    cnn_conv_axes_make(conv, call->pass, cursor, &job.axes);
    return job;
}

static void run_direct(const cnn_conv_call *call)
{
    const direct_plan plan = plan_direct(call->conv, call->pass, call->kernels, call->threads);
    char *cursor = call->workspace;
    direct_job job = begin_job(call, &plan, &cursor);
    job.zero = cnn_conv_zeros(&cursor, plan.groups * plan.ic);
    if (plan.stripped) {
        const cnn_conv_grid grid = cnn_conv_grid_at(&job.axes, 0);
        job.offset = cnn_take(&cursor, plan.offset_bytes);
        cnn_conv_strip_offsets(call->conv, &plan.strips, &grid, plan.ic, job.offset);
    }
    job.packed = call->packed;
    if (plan.packs_all) {
        float *packed = cnn_take(&cursor, plan.weights_bytes);
        pack_all(&job, packed);
        job.packed = packed;
    }
    job.scratch = cursor;
    const int32_t threads = cnn_useful_threads(call->threads, cnn_conv_work(call->conv, call->kernels));
    if (call->watch != NULL)
        cnn_parallel(threads, plan.pieces, run_piece, &job);
    else
        cnn_parallel(threads, plan.phases * plan.parts * (plan.by_panels ? 1 : plan.blocks), run_part, &job);
}

static int64_t direct_pieces(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    return plan_direct(conv, pass, kernels, 1).pieces;
}

/* Packed weights, and behind them room for the axes while they are packed. */
static size_t direct_packed(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const direct_plan plan = plan_direct(conv, pass, kernels, 1);
    return cnn_size_add(plan.weights_bytes, plan.axes_bytes);
}

static void direct_pack(const cnn_conv_call *call, void *packed)
{
    const direct_plan plan = plan_direct(call->conv, call->pass, call->kernels, 1);
    char *cursor = (char *)packed + plan.weights_bytes;
    const direct_job job = begin_job(call, &plan, &cursor);
    pack_all(&job, packed);
}

static bool direct_suits(const cnn_conv *conv, cnn_conv_pass pass)
{
    (void)conv;
    return pass != CNN_CONV_BACKWARD_WEIGHTS;
}

/* Packed weights leave out taps that see no pixel, which may be others in a few rows than in the whole. */
static bool direct_bands(const cnn_conv *conv) { return conv->kh == 1 && conv->kw == 1; }

/* By panels, each part would make the sources again. */
static bool direct_prologues(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const direct_plan plan = plan_direct(conv, pass, kernels, 1);
    return pass == CNN_CONV_FORWARD && cnn_conv_is_flat(conv) && plan.groups == 1 && !plan.stripped && !plan.by_panels;
}

const cnn_conv_algorithm cnn_conv_direct = {
    .name = "direct",
    .suits = direct_suits,
    .workspace = direct_workspace,
    .run = run_direct,
    .packed = direct_packed,
    .pack = direct_pack,
    .bands = direct_bands,
    .pieces = direct_pieces,
    .prologues = direct_prologues,
    .reorders = true,
};
