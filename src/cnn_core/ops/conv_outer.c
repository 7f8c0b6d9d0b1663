/* Backward weights of any convolution, and with them backward data of a 1x1 one: for each tap, the outer product of source and
 * destination channels, summed over pixels.
 *
 * The sums are a matrix. Its rows run over taps and input channels and its columns, cut into panels, over output
 * channels; of a kernel of one tap mostly the other way round, since then the sums lie as the weights do. A task sums a
 * part of the matrix over a share of the pixels, block by block: of a block it packs its column channels once and
 * visits the row channels, six or twelve at a time, through pointers; with few input channels, in a strip (ops/conv_strip.h),
 * where the rows of a tile may belong to several taps. Shares sum into memory of their own, which is added up
 * in order at the end. So the cut, and with it the result, depends on the shape alone.
 *
 * Both gradients of a 1x1 convolution come from one reading where a task is a share: after its sums, the pixels of x's gradient
 * are computed of the block (ops/conv_spread.h). */
#include <string.h>

#include "ops/conv.h"
#include "ops/conv_filters.h"
#include "ops/conv_geometry.h"
#include "ops/conv_spread.h"
#include "ops/conv_strip.h"
#include "ops/conv_tiling.h"
#include "ops/prologue.h"

#define STRIP_PIXELS 192
#define MOST_SHARES CNN_CONV_TASKS
#define SHARE_PIXELS 512        /* a share smaller than this would take as long to add up */
#define SHARES_BYTES (16 << 20) /* of all shares together, unless one is larger */
#define TASKS_PER_THREAD 2
#define MANY_ROWS 4             /* times the columns */
#define PART_BYTES (1 << 20)    /* of sums that a task goes over with each block */
#define JOINT_BYTES (20 << 20)  /* of x and y: then both gradients are summed from one reading */
#define JOINT_SUMS (128 << 10)
#define LEAST_STEP 4            /* bytes: fetching one line again and again takes a third of the time of AVX2's kernel */

/* Row channels that lie far apart fall into few sets of the first-level cache: a tile of them is copied if enough
 * panels read it, unless it is most of a line. */
#define FAR_CHANNELS 256
#define FAR_PANELS 3
#define TALL 12 /* rows of a tile */
#define COPIED (2 * CNN_CONV_ROWS) /* channels at a time: of two tiles, which share lines of cache */

enum { COLS, ROWS, FETCHED }; /* regions of memory */

typedef struct outer_plan {
    bool pointwise; /* one tap, and rows are output channels */
    bool in_place;  /* a single share whose sums lie as the weights do: it adds to diff_weights itself */
    int64_t tile_rows, tile_unit;
    bool far;      /* row channels that lie far apart: those of a tile are fetched while the one before is computed */
    bool copy;     /* and copied: they are less than a line of cache */
    bool stripped; /* blocks are strips */
    cnn_conv_strips strips;
    int64_t groups, taps;
    int64_t row_channels; /* per group and tap */
    cnn_conv_panels cols;
    cnn_conv_filters filters; /* in which sums are added to the gradient, unless pointwise */
    int64_t pixels, blocks, block_pixels;
    int64_t shares;               /* of the pixels */
    int64_t row_parts, col_parts; /* of the matrix */
    size_t axes_bytes, zero_bytes, offset_bytes, sums_bytes, spread_bytes;
    size_t strip_bytes, made_bytes, back_made_bytes, row_bytes, col_bytes, packed_bytes, tile_bytes, dst_bytes; /* of one thread */
} outer_plan;

/* Of a matrix of so many taps. Rows of a tile lie in one pixel each, unless that is a window of a strip. */
static int64_t count_tiles(const outer_plan *plan, int64_t taps)
{
    return plan->stripped ? cnn_ceil_div(taps * plan->row_channels, plan->tile_rows)
                          : taps * cnn_ceil_div(plan->row_channels, plan->tile_rows);
}

/* Where tile `index` begins among those of `rows` rows: they are of nearly equal height, in units of the kernel's. */
static int64_t tile_begin(const outer_plan *plan, int64_t rows, int64_t index)
{
    const int64_t units = cnn_ceil_div(rows, plan->tile_unit);
    return cnn_min_i64(cnn_split(units, cnn_ceil_div(rows, plan->tile_rows), index) * plan->tile_unit, rows);
}

/* Multiply-adds of a pixel where so many channels are rows, and `cols` columns, whose vectors are padded. */
static double padded_work(int64_t rows, int64_t cols, const cnn_kernels *kernels)
{
    return (double)rows * (double)cnn_conv_panels_of(cols, kernels).padded;
}

static outer_plan plan_outer(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    const bool joint = pass == CNN_CONV_BACKWARD;
    const int64_t ic = conv->ic / conv->groups, oc = conv->oc / conv->groups;
    outer_plan plan = {
        .groups = conv->groups,
        .taps = conv->kh * conv->kw,
        .pixels = conv->n * conv->oh * conv->ow,
        .tile_unit = kernels->conv.outer_unit,
    };
    const bool few_pixels = plan.pixels < 2 * SHARE_PIXELS;
    /* The narrower side makes the columns, since these are packed, if it fills the two vectors of a tile, or one for many
     * rows: with less, sums wait for each other. Of few pixels, sums had better lie as the weights do. */
    const int64_t narrow = cnn_min_i64(ic, oc), wide = cnn_max_i64(ic, oc), lanes = kernels->width;
    const bool fills = narrow >= 2 * lanes || (narrow >= lanes && wide >= MANY_ROWS * narrow);
    const bool turned = (oc >= ic) == fills;
    plan.pointwise = plan.taps == 1 && (few_pixels || padded_work(oc, ic, kernels) <
                                                          (turned ? 1.1 : 0.9) * padded_work(ic, oc, kernels));
    plan.row_channels = plan.pointwise ? oc : ic;
    plan.cols = cnn_conv_panels_of(plan.pointwise ? ic : oc, kernels);
    plan.tile_rows = plan.cols.padded > lanes ? kernels->conv.outer_rows : kernels->conv.outer_narrow_rows;
    plan.stripped = plan.groups == 1 && cnn_conv_strips_suit(conv);
    plan.far = !plan.stripped && (plan.pointwise ? conv->oc : conv->ic) >= FAR_CHANNELS && plan.cols.count >= FAR_PANELS;
    plan.copy = plan.far && plan.tile_rows < TALL;

    if (plan.stripped) {
        plan.strips = cnn_conv_strips_of(conv, STRIP_PIXELS);
        plan.blocks = plan.strips.count;
        plan.block_pixels = plan.strips.most_pixels;
    } else {
        /* Far rows are read once, tile by tile: they need not stay. */
        const int64_t row_floats = plan.far && plan.taps == 1 ? 0 : plan.row_channels * cnn_min_i64(plan.taps, 3);
        const int64_t floats = row_floats + plan.cols.padded;
        plan.blocks = cnn_conv_blocks(plan.pixels, floats, plan.taps);
        plan.block_pixels = cnn_ceil_div(plan.pixels, plan.blocks);
    }

    const size_t share_bytes =
        cnn_size_align(cnn_size_mul(cnn_size_mul((size_t)(plan.groups * plan.taps), (size_t)plan.row_channels),
                                    (size_t)plan.cols.padded * sizeof(float)));
    const int64_t enough = cnn_min_i64(MOST_SHARES, cnn_ceil_div(CNN_CONV_TASKS, plan.groups));
    const int64_t fitting = cnn_min_i64(plan.pixels / SHARE_PIXELS, SHARES_BYTES / ((int64_t)share_bytes + 1));
    plan.shares = cnn_max_i64(cnn_min_i64(enough, cnn_min_i64(fitting, plan.blocks)), 1);

    plan.in_place = plan.pointwise && plan.shares == 1;
    plan.sums_bytes = plan.in_place ? 0 : cnn_size_mul(share_bytes, (size_t)plan.shares);

    /* As many parts as make enough tasks for the threads, or as keep a part's sums near from block to block. Cutting
     * the columns copies the rows again, if these are copied; cutting the rows packs the columns again, and should leave some
     * rows to do with them: the longer side is cut first. No sum is cut: bits are the same for any number of parts. */
    const int64_t tiles = count_tiles(&plan, plan.taps), most_rows = cnn_max_i64(tiles / 8, 1);
    const int64_t most_cols = cnn_max_i64(plan.cols.count / (plan.far ? 4 : 2), 1);
    const int64_t tasks = cnn_min_i64(TASKS_PER_THREAD * threads, CNN_CONV_TASKS);
    const int64_t wanted = cnn_ceil_div(tasks, plan.groups * plan.shares);
    const int64_t cached = plan.blocks > plan.shares ? cnn_ceil_div((int64_t)share_bytes / plan.groups, PART_BYTES) : 1;
    const bool rows_first = plan.far && plan.taps * plan.row_channels > plan.cols.oc;
    const int64_t row_parts = rows_first ? cnn_min_i64(wanted, most_rows) : 1;
    plan.col_parts = cnn_min_i64(cnn_ceil_div(wanted, row_parts), most_cols);
    plan.row_parts = cnn_max_i64(cnn_ceil_div(wanted, plan.col_parts),
                                 cnn_min_i64(cnn_ceil_div(cached, plan.col_parts), most_rows));
    plan.row_parts = cnn_max_i64(cnn_min_i64(plan.row_parts, tiles), 1);
    if (joint) plan.row_parts = plan.col_parts = 1;

    if (!plan.pointwise) plan.filters = cnn_conv_filters_of(conv, plan.cols.width);
    const size_t pixels = (size_t)plan.block_pixels;
    const size_t pointers = cnn_size_mul(pixels, plan.stripped ? 1 : (size_t)plan.taps);
    if (plan.stripped) {
        plan.offset_bytes = cnn_size_align(cnn_size_mul((size_t)(plan.taps * ic), sizeof(int64_t)));
        plan.strip_bytes = plan.strips.bytes;
    }
    if (conv->prologue) plan.made_bytes = cnn_float_bytes(plan.block_pixels * ic);
    if (conv->back_prologue) plan.back_made_bytes = cnn_float_bytes(plan.block_pixels * oc);
    if (joint) {
        plan.spread_bytes = cnn_conv_packed(conv, CNN_CONV_BACKWARD_DATA, kernels);
        plan.dst_bytes = cnn_size_align(pixels * sizeof(float *));
    }
    plan.axes_bytes = cnn_conv_axes_bytes(conv, CNN_CONV_FORWARD);
    plan.zero_bytes = cnn_float_bytes(ic);
    plan.row_bytes = cnn_size_align(cnn_size_mul(pointers, sizeof(float *)));
    plan.col_bytes = cnn_size_align(pixels * sizeof(float *));
    plan.packed_bytes = cnn_size_align(cnn_size_mul(pixels, (size_t)plan.cols.padded * sizeof(float)));
    plan.tile_bytes = plan.copy ? cnn_size_align(pixels * (COPIED * sizeof(float) + sizeof(float *))) : 0;
    return plan;
}

static size_t thread_bytes(const outer_plan *plan)
{
    const size_t made = cnn_size_add(plan->strip_bytes, cnn_size_add(plan->made_bytes, plan->back_made_bytes));
    const size_t pointers = cnn_size_add(plan->dst_bytes, cnn_size_add(plan->row_bytes, plan->col_bytes));
    const size_t summing = cnn_size_add(cnn_size_add(made, pointers), cnn_size_add(plan->packed_bytes, plan->tile_bytes));
    const size_t adding = cnn_size_add(plan->filters.sums_bytes, plan->filters.turned_bytes);
    return adding > summing ? adding : summing; /* one after the other */
}

static size_t outer_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    const outer_plan plan = plan_outer(conv, pass, kernels, threads);
    const size_t shared = cnn_size_add(cnn_size_add(plan.axes_bytes, plan.zero_bytes),
                                       cnn_size_add(plan.offset_bytes, cnn_size_add(plan.sums_bytes, plan.spread_bytes)));
    return cnn_size_add(shared, cnn_size_mul(thread_bytes(&plan), (size_t)threads));
}

typedef struct outer_job {
    const outer_plan *plan;
    const cnn_conv_call *call;
    cnn_conv_grid grid;
    int64_t taps; /* of the grid */
    const float *zero;
    int64_t *offset; /* of strips */
    float *out;  /* the gradient of the weights */
    float *sums; /* [shares][groups][panels][taps][ic][panel row]; pointwise: [shares][groups][oc][ic] */
    cnn_conv_spread spread; /* of backward */
    char *scratch;
} outer_job;

/* ---- the sums of a share ----------------------------------------------------------------------------------------- */

/* The sum of row 0 and the panel's first column; *stride = the distance of rows. */
static float *panel_sums(const outer_job *job, int64_t share, int64_t group, int64_t panel, int64_t *stride)
{
    const outer_plan *plan = job->plan;
    const int64_t rows = job->taps * plan->row_channels;
    if (plan->pointwise) {
        *stride = plan->cols.oc;
        return job->sums + (share * plan->groups + group) * rows * plan->cols.oc + panel * plan->cols.width;
    }
    *stride = cnn_conv_panel_row(&plan->cols, panel);
    return job->sums + (share * plan->groups + group) * rows * plan->cols.padded + panel * rows * plan->cols.width;
}

/* A block's pixels as the kernel reads them. */
typedef struct outer_block {
    int64_t pixels;
    float *strip;
    float *made, *back_made;  /* x and y as their prologues make them: [pixels][ic], [pixels][oc] */
    const float **rows;       /* [taps][pixels]; the windows of a strip: [pixels] */
    const float **cols;       /* [pixels] */
    int64_t panel, panel_end; /* the columns packed */
    float *packed;            /* [panels][pixels][panel row] */
    float *tile;              /* [pixels][COPIED], if rows are copied */
    const float **tile_rows;  /* into it */
    float **dst;              /* [pixels], of backward */
    const char *next[FETCHED]; /* columns and rows of the next block, to be fetched */
    int64_t next_bytes[FETCHED];
    int64_t pitch; /* bytes from row to row, if they are far and neighbours; or 0 */
} outer_block;

static outer_block take_block(const outer_job *job, int32_t thread)
{
    const outer_plan *plan = job->plan;
    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    outer_block block = {.strip = cnn_take(&cursor, plan->strip_bytes)};
    block.made = cnn_take(&cursor, plan->made_bytes);
    block.back_made = cnn_take(&cursor, plan->back_made_bytes);
    block.dst = cnn_take(&cursor, plan->dst_bytes);
    block.rows = cnn_take(&cursor, plan->row_bytes);
    block.cols = cnn_take(&cursor, plan->col_bytes);
    block.packed = cnn_take(&cursor, plan->packed_bytes);
    if (plan->copy) {
        block.tile_rows = (const float **)(void *)cursor;
        block.tile = (float *)(void *)(cursor + (size_t)plan->block_pixels * sizeof(float *));
        for (int64_t p = 0; p < plan->block_pixels; p++) block.tile_rows[p] = block.tile + p * COPIED;
    }
    return block;
}

/* The first pixel of a block. */
static int64_t block_begin(const outer_job *job, int64_t index)
{
    return job->plan->stripped ? cnn_conv_strip_begin(job->call->conv, &job->plan->strips, index)
                               : cnn_split(job->plan->pixels, job->plan->blocks, index);
}

static void locate_block(const outer_job *job, int64_t group, int64_t index, outer_block *block)
{
    const outer_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const int64_t first = block_begin(job, index), pixels = block_begin(job, index + 1) - first;
    const int64_t ic = conv->ic / conv->groups;
    block->pixels = pixels;
    const cnn_conv_image x = {job->call->x + group * ic, conv->ih, conv->iw, conv->ic};
    const float *y = job->call->y + first * conv->oc + group * (conv->oc / conv->groups);
    if (job->call->back_prologue != NULL) {
        cnn_back_prologue_apply(job->call->back_prologue, job->call->kernels, first, pixels, block->back_made);
        y = block->back_made;
    }
    const float **y_pixels = plan->pointwise ? block->rows : block->cols;
    for (int64_t p = 0; p < pixels; p++) y_pixels[p] = y + p * conv->oc;
    const float **x_pixels = plan->pointwise ? block->cols : block->rows;
    if (plan->stripped) {
        cnn_conv_strip_fill(conv, &plan->strips, job->call->x, index, block->strip, block->rows);
    } else if (job->call->prologue != NULL) {
        cnn_prologue_apply(job->call->prologue, job->call->kernels, pixels, job->call->x + first * ic, block->made);
        for (int64_t p = 0; p < pixels; p++) x_pixels[p] = block->made + p * ic;
    } else {
        cnn_conv_locate_src(&job->grid, &x, job->zero, first, pixels, x_pixels);
    }
}

/* A panel's row; lengths that the compiler knows need no call. */
static inline void copy_row(const float *from, int64_t width, float *to)
{
    if (width == 16)
        memcpy(to, from, 16 * sizeof *to);
    else if (width == 32)
        memcpy(to, from, 32 * sizeof *to);
    else
        for (int64_t i = 0; i < width; i++) to[i] = from[i];
}

/* The last panel, of fewer channels: in vectors, as many pixels at a time as are neighbours in memory. */
static void pack_last_cols(const outer_job *job, const outer_block *block, int64_t panel, float *to)
{
    const cnn_conv_panels *panels = &job->plan->cols;
    const int64_t channels = cnn_conv_panel_channels(panels, panel), row = cnn_conv_panel_row(panels, panel);
    const cnn_conv *conv = job->call->conv;
    const int64_t step = job->plan->pointwise ? conv->ic * conv->stride[1] : conv->oc;
    for (int64_t p = 0, count; p < block->pixels; p += count) {
        const float *const *cols = block->cols + p;
        for (count = 1; p + count < block->pixels && cols[count] == cols[count - 1] + step;) count++;
        job->call->kernels->conv.pack(cols[0] + panel * panels->width, count, step, channels, 1, row, to + p * row);
    }
}

static void pack_cols(const outer_job *job, const outer_block *block)
{
    const cnn_conv_panels *panels = &job->plan->cols;
    const int64_t width = panels->width, pixels = block->pixels;
    const int64_t whole = cnn_min_i64(panels->oc / width, block->panel_end);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t panel = block->panel; panel < whole; panel++)
            copy_row(block->cols[p] + panel * width, width,
                     block->packed + ((panel - block->panel) * pixels + p) * width);
    if (whole < block->panel_end)
        pack_last_cols(job, block, whole, block->packed + (whole - block->panel) * pixels * width);
}

/* to[pixel][COPIED] = `count` channels of each row. */
static void copy_rows(const float *const *rows, int64_t channel, int64_t count, int64_t pixels, float *to)
{
    if (count == COPIED) { /* a length that the compiler knows */
        for (int64_t p = 0; p < pixels; p++) memcpy(to + p * COPIED, rows[p] + channel, COPIED * sizeof *to);
        return;
    }
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t r = 0; r < count; r++) to[p * COPIED + r] = rows[p][channel + r];
}

/* Some rows of the matrix, and where a block holds them. */
typedef struct outer_tile {
    int64_t row;
    int height;
    const float *const *src;
    int64_t offset[CNN_CONV_OUTER_ROWS];
} outer_tile;

/* `begins`: of a part. Of two tiles the first copies for both. */
static outer_tile tile_at(const outer_job *job, outer_block *block, int64_t index, bool begins)
{
    const outer_plan *plan = job->plan;
    const int64_t rows = plan->stripped ? job->taps * plan->row_channels : plan->row_channels; /* that share tiles */
    const int64_t tiles = cnn_ceil_div(rows, plan->tile_rows), tap = index / tiles;
    const int64_t first = tile_begin(plan, rows, index % tiles);
    outer_tile tile = {.row = tap * rows + first, .height = (int)(tile_begin(plan, rows, index % tiles + 1) - first)};
    tile.src = block->rows + tap * block->pixels;
    int64_t copied = 0;
    if (plan->copy) {
        const int64_t t = index % tiles, second = t % 2;
        copied = tile_begin(plan, rows, begins ? t : t - second);
        if (begins || second == 0)
            copy_rows(tile.src, first, tile_begin(plan, rows, cnn_min_i64(t - second + 2, tiles)) - first, block->pixels,
                      block->tile);
        tile.src = block->tile_rows;
    }
    for (int r = 0; r < tile.height; r++) tile.offset[r] = plan->stripped ? job->offset[first + r] : first + r - copied;
    return tile;
}

/* Memory that is fetched while some calls of the kernel run, as many bytes for each of their pixels. */
typedef struct outer_fetch {
    const char *at;
    int64_t step, calls;
} outer_fetch;

static outer_fetch fetch_during(const outer_block *block, int which, int64_t calls)
{
    const int64_t pixels = cnn_max_i64(calls * block->pixels, 1);
    return (outer_fetch){block->next[which], cnn_max_i64(cnn_ceil_div(block->next_bytes[which], pixels), LEAST_STEP), calls};
}

/* Adds one block to the part's sums. What is read next is fetched on the way, evenly: in a burst, memory would be waited for
 * between two spells of arithmetic. */
static void sum_block(const outer_job *job, outer_block *block, int64_t share, int64_t group, int64_t row_part,
                      bool add)
{
    const outer_plan *plan = job->plan;
    const int64_t tiles = count_tiles(plan, job->taps), last = cnn_split(tiles, plan->row_parts, row_part + 1);
    const int64_t first = cnn_split(tiles, plan->row_parts, row_part);
    const int64_t panels = block->panel_end - block->panel - (block->pitch != 0);
    const int64_t calls = (last - first) * panels;
    const int64_t bytes = cnn_max_i64(block->next_bytes[COLS] + block->next_bytes[ROWS], 1);
    const int64_t shared = block->next_bytes[COLS] * calls / bytes; /* calls that fetch columns; the others rows */
    const int64_t of_cols = block->next_bytes[ROWS] == 0 ? calls : cnn_max_i64(shared, block->next_bytes[COLS] > 0);
    outer_fetch cols_fetch = fetch_during(block, COLS, of_cols), rows_fetch = fetch_during(block, ROWS, calls - of_cols);
    for (int64_t index = first; index < last; index++) {
        const outer_tile tile = tile_at(job, block, index, index == first);
        const cnn_conv_outer_block outer = {tile.height, block->pixels, tile.src, tile.offset};
        const float *cols = block->packed;
        for (int64_t panel = block->panel; panel < block->panel_end;
             panel++, cols += block->pixels * plan->cols.width) {
            const int channels = (int)cnn_conv_panel_channels(&plan->cols, panel);
            int64_t stride;
            float *sums = panel_sums(job, share, group, panel, &stride) + tile.row * stride;
            if (panel == block->panel && block->pitch != 0) { /* the last line of each pixel that is read or copied next */
                const float *next = block->rows[0] + tile.row + tile.height + COPIED - 1;
                job->call->kernels->conv.outer(&outer, cols, channels, add, stride, (const char *)next, block->pitch, sums);
                continue;
            }
            outer_fetch *fetch = cols_fetch.calls > 0 ? &cols_fetch : &rows_fetch;
            job->call->kernels->conv.outer(&outer, cols, channels, add, stride, fetch->at, fetch->step, sums);
            fetch->at += fetch->step * block->pixels;
            fetch->calls--;
        }
    }
}

/* Pixels of a 1x1 layer of stride 1 are neighbours in memory, and so are those of y of any. */
static void fetch_block(const outer_job *job, int64_t index, int64_t end, outer_block *block)
{
    const outer_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const bool dense = plan->taps == 1 && plan->pixels == conv->n * conv->ih * conv->iw;
    const bool dense_cols = dense || !plan->pointwise, dense_rows = dense || plan->pointwise;
    const int64_t col_channels = plan->pointwise ? conv->ic : conv->oc, row_channels = plan->pointwise ? conv->oc : conv->ic;
    const float *cols = plan->pointwise ? job->call->x : job->call->y, *rows = plan->pointwise ? job->call->y : job->call->x;
    const int64_t begin = block_begin(job, index), pixels = index == end ? 0 : block_begin(job, index + 1) - begin;
    block->next[COLS] = (const char *)(cols + begin * col_channels);
    block->next[ROWS] = (const char *)(rows + begin * row_channels);
    block->next_bytes[COLS] = dense_cols ? pixels * col_channels * (int64_t)sizeof(float) : 0;
    /* Rows that are far are fetched tile by tile, unless a prologue has just made them; of others, those that all are this
     * task's own. */
    const bool made = plan->pointwise ? job->call->back_prologue != NULL : job->call->prologue != NULL;
    block->pitch = plan->far && dense_rows && !made ? row_channels * (int64_t)sizeof(float) : 0;
    block->next_bytes[ROWS] = dense_rows && plan->taps == 1 && (made || !plan->far) && plan->groups == 1 && plan->row_parts == 1
                               ? pixels * row_channels * (int64_t)sizeof(float)
                               : 0;
}

/* The gradient of a block's pixels of x. */
static void spread_block(const outer_job *job, const outer_block *block, int64_t first, cnn_sight *sight, int32_t thread)
{
    const cnn_conv_call *call = job->call;
    const cnn_back_prologue *made = call->back_prologue;
    const float *later = made == NULL ? call->y : made->src; /* of y's two sources the one that is not fetched yet */
    cnn_conv_spread_pixels(&job->spread, first, block->pixels, job->plan->pointwise ? block->rows : block->cols, block->dst,
                           later + (first + block->pixels) * call->conv->oc);
    if (call->watch == NULL) return;
    sight->first = first;
    sight->rows = block->pixels;
    call->watch->see(call->watch, sight, thread);
    sight->done += sight->rows;
}

static void sum_share(void *arg, int64_t task, int32_t thread)
{
    const outer_job *job = arg;
    const outer_plan *plan = job->plan;
    const int64_t row_part = task % plan->row_parts;
    int64_t rest = task / plan->row_parts;
    const int64_t col_part = rest % plan->col_parts;
    rest /= plan->col_parts;
    const int64_t share = rest % plan->shares, group = rest / plan->shares;

    outer_block block = take_block(job, thread);
    block.panel = cnn_split(plan->cols.count, plan->col_parts, col_part);
    block.panel_end = cnn_split(plan->cols.count, plan->col_parts, col_part + 1);
    const int64_t begin = cnn_split(plan->blocks, plan->shares, share);
    const int64_t end = cnn_split(plan->blocks, plan->shares, share + 1);
    /* Where tasks are whole shares, this thread's next one most likely begins where this one ends. */
    const bool whole = plan->groups * plan->row_parts * plan->col_parts == 1;
    const int64_t fetched = whole ? plan->blocks : end;
    cnn_sight sight = {.piece = share, .channels = job->call->conv->ic};
    for (int64_t b = begin; b < end; b++) {
        locate_block(job, group, b, &block);
        pack_cols(job, &block);
        fetch_block(job, b + 1, fetched, &block);
        sum_block(job, &block, share, group, row_part, plan->in_place || b > begin);
        if (job->call->pass == CNN_CONV_BACKWARD) spread_block(job, &block, block_begin(job, b), &sight, thread);
    }
}

/* ---- diff_weights += the shares' sums, in order ------------------------------------------------------------------ */

#define PIECE 4096 /* weights in a task */

static void add_pointwise(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const outer_job *job = arg;
    const cnn_conv *conv = job->call->conv;
    const int64_t all = conv->oc * (conv->ic / conv->groups), first = task * PIECE;
    const int64_t count = cnn_min_i64(PIECE, all - first);
    float *to = job->out + first;
    float sum[PIECE];
    const struct cnn_elementwise_kernels *kernels = &job->call->kernels->elementwise;
    kernels->sum_over_rows(job->plan->shares, count, (cnn_rows){job->sums + first, all, 1}, (cnn_rows){NULL, 0, 0}, sum);
    kernels->add(1, count, (cnn_rows){to, 0, 1}, (cnn_rows){sum, 0, 1}, 1.0f, to);
}

/* The sums of some in channels, [in][taps][row], over all shares; zero for taps that no window has within the image. */
static void sum_shares(const outer_job *job, int64_t group, int64_t panel, int64_t first, int64_t in, float *to)
{
    const cnn_conv_grid *grid = &job->grid;
    const int64_t taps = job->plan->taps, kw = job->call->conv->kw, ic = job->plan->row_channels;
    int64_t row;
    const float *sums = panel_sums(job, 0, group, panel, &row);
    const int64_t share_stride = panel_sums(job, 1, group, panel, &row) - sums;
    if (job->taps < taps) memset(to, 0, (size_t)(in * taps * row) * sizeof(float));
    for (int64_t tap = 0; tap < job->taps; tap++) {
        const int64_t k = grid->row_tap[tap / grid->col_taps].k * kw + grid->col_tap[tap % grid->col_taps].k;
        for (int64_t c = 0; c < in; c++) {
            const cnn_rows shares = {sums + (tap * ic + first + c) * row, share_stride, 1};
            job->call->kernels->elementwise.sum_over_rows(job->plan->shares, row, shares, (cnn_rows){NULL, 0, 0},
                                                          to + (c * taps + k) * row);
        }
    }
}

static void add_panel(void *arg, int64_t task, int32_t thread)
{
    const outer_job *job = arg;
    const outer_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const int64_t group = task / plan->cols.count, panel = task % plan->cols.count;
    const int64_t channels = cnn_conv_panel_channels(&plan->cols, panel), row = cnn_conv_panel_row(&plan->cols, panel);
    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    float *sums = cnn_take(&cursor, plan->filters.sums_bytes), *turned = cnn_take(&cursor, plan->filters.turned_bytes);
    float *to = job->out + (group * plan->cols.oc + panel * plan->cols.width) * conv->weights_stride[0];
    for (int64_t first = 0; first < plan->row_channels; first += plan->filters.in) {
        const int64_t in = cnn_min_i64(plan->row_channels - first, plan->filters.in);
        float *at = to + first * conv->weights_stride[1];
        cnn_conv_fetch_filters(conv, at, in, channels);
        sum_shares(job, group, panel, first, in, sums);
        cnn_conv_add_filters(job->call, at, in, channels, sums, row, turned);
    }
}

static void run_outer(const cnn_conv_call *call)
{
    const cnn_conv *conv = call->conv;
    const outer_plan plan = plan_outer(conv, call->pass, call->kernels, call->threads);
    const bool joint = call->pass == CNN_CONV_BACKWARD;
    char *cursor = call->workspace;
    cnn_conv_axes axes;
    cnn_conv_axes_make(conv, CNN_CONV_FORWARD, &cursor, &axes);
    const int64_t ic = conv->ic / conv->groups;
    const float *zero = cnn_conv_zeros(&cursor, ic);
    int64_t *offset = cnn_take(&cursor, plan.offset_bytes);
    float *sums = cnn_take(&cursor, plan.sums_bytes);
    void *packed = cnn_take(&cursor, plan.spread_bytes);
    outer_job job = {
        .plan = &plan,
        .call = call,
        .grid = cnn_conv_grid_at(&axes, 0),
        .zero = zero,
        .offset = offset,
        .out = joint ? call->diff_weights : call->out,
        .scratch = cursor,
    };
    job.sums = plan.in_place ? job.out : sums;
    if (joint) job.spread = cnn_conv_spread_begin(call, packed);
    job.taps = job.grid.row_taps * job.grid.col_taps;
    if (job.taps == 0 || ic == 0) return;
    if (plan.stripped) cnn_conv_strip_offsets(conv, &plan.strips, &job.grid, ic, offset);
    const int32_t threads = cnn_useful_threads(call->threads, cnn_conv_work(conv, call->kernels));
    cnn_parallel(threads, plan.groups * plan.shares * plan.row_parts * plan.col_parts, sum_share, &job);
    if (!plan.pointwise)
        cnn_parallel(threads, plan.groups * plan.cols.count, add_panel, &job);
    else if (!plan.in_place)
        cnn_parallel(threads, cnn_ceil_div(conv->oc * ic, PIECE), add_pointwise, &job);
}

/* Both gradients: where images come from memory, and shares of pixels are tasks enough, of sums that stay near. */
static bool outer_suits(const cnn_conv *conv, cnn_conv_pass pass)
{
    if (pass != CNN_CONV_BACKWARD) return pass == CNN_CONV_BACKWARD_WEIGHTS;
    const int64_t pixels = conv->n * conv->oh * conv->ow, floats = pixels * (conv->ic + conv->oc);
    return cnn_conv_is_flat(conv) && conv->groups == 1 && !cnn_conv_strips_suit(conv) &&
           floats * (int64_t)sizeof(float) >= JOINT_BYTES && pixels >= MOST_SHARES * SHARE_PIXELS &&
           conv->ic * conv->oc * (int64_t)sizeof(float) <= JOINT_SUMS;
}

static int64_t outer_pieces(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    return pass == CNN_CONV_BACKWARD ? plan_outer(conv, pass, kernels, 1).shares : 0;
}

static bool outer_prologues(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    (void)kernels;
    return pass != CNN_CONV_FORWARD && cnn_conv_is_flat(conv) && conv->groups == 1 &&
           !cnn_conv_strips_suit(conv);
}

const cnn_conv_algorithm cnn_conv_outer = {
    .name = "outer",
    .suits = outer_suits,
    .workspace = outer_workspace,
    .pieces = outer_pieces,
    .prologues = outer_prologues,
    .joins = true,
    .run = run_outer,
};
