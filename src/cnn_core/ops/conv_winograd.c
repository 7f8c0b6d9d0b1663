/* 3x3 convolutions of stride 1 by Winograd F(4x4, 3x3): 36 products for 16 results in place of 144.
 *
 * Forward and backward data are one pass: backward data is forward over the gradient, with the weights turned around.
 * A block of tiles is transformed into 36 planes (V); each plane is multiplied by its plane of transformed weights (U),
 * one panel of output channels at a time; the products (M) are transformed back. V and M of a block stay in the
 * second-level cache.
 *
 * The gradient of the weights sums over tiles, in the transformed domain: 36 outer products. Tiles are taken in chunks;
 * for each chunk all tiles are transformed, then every plane adds its products to its sums, which stay in cache. */
#include <math.h>

#include "ops/conv.h"
#include "ops/conv_geometry.h"
#include "ops/conv_tiling.h"
#include "ops/conv_winograd.h"

/* Transformed weights are four times as many: with fewer tiles than this, reading them takes as long as they save, and a
 * frozen plan would hold them for nothing. */
#define LEAST_TILES 8

/* Whether it pays, counted in multiply-adds: 36 a tile and pair of channels, the transforms of src and dst, and those
 * of the weights, against 9 a pixel and pair. */
static bool winograd_suits(const cnn_conv *conv, cnn_conv_pass pass)
{
    if (conv->kh != 3 || conv->kw != 3 || conv->groups != 1 || conv->stride[0] != 1 || conv->stride[1] != 1 ||
        conv->dilation[0] != 1 || conv->dilation[1] != 1 || conv->direct)
        return false;
    const cnn_winograd_tiles t = cnn_winograd_tiles_of(conv, pass);
    if (t.ic < 16 || t.oc < 16 || t.count < LEAST_TILES) return false;
    const double pairs = (double)t.ic * (double)t.oc, tiles = (double)t.count;
    const double direct = (double)conv->n * (double)t.dst_h * (double)t.dst_w * 9.0 * pairs;
    const double winograd = tiles * CNN_WINOGRAD_PLANES * pairs + tiles * 350.0 * (double)(t.ic + t.oc) + 200.0 * pairs;
    return winograd < 0.9 * direct;
}

static size_t planes_bytes(int64_t rows, int64_t cols)
{
    return cnn_size_align(cnn_size_mul(cnn_size_mul((size_t)rows, (size_t)cols), CNN_WINOGRAD_PLANES * sizeof(float)));
}

/* ---- forward and backward data ----------------------------------------------------------------------------------- */

typedef struct pass_plan {
    cnn_winograd_tiles tiles;
    cnn_conv_panels panels;
    int64_t blocks, block_tiles, parts;
    size_t zero_bytes, weights_bytes;
    size_t src_bytes, product_bytes, pointer_bytes; /* of one thread */
} pass_plan;

#define BLOCK_BYTES (640 << 10) /* of V and M */
#define LEAST_TASKS 8

static pass_plan plan_pass(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    pass_plan plan = {.tiles = cnn_winograd_tiles_of(conv, pass)};
    const cnn_winograd_tiles *t = &plan.tiles;
    plan.panels = cnn_conv_panels_of(t->oc, kernels);
    const int64_t fitting = BLOCK_BYTES / (CNN_WINOGRAD_PLANES * (int64_t)sizeof(float)) / (t->ic + plan.panels.width);
    const int64_t most = cnn_min_i64(cnn_max_i64(fitting, 12), 96);
    plan.blocks = cnn_ceil_div(t->count, most);
    plan.block_tiles = cnn_ceil_div(t->count, plan.blocks);
    plan.parts = cnn_min_i64(plan.panels.count, cnn_ceil_div(LEAST_TASKS, plan.blocks));
    plan.zero_bytes = cnn_float_bytes(t->ic);
    plan.weights_bytes = planes_bytes(t->ic, plan.panels.padded);
    if (conv->packed) plan.weights_bytes = 0;
    plan.src_bytes = planes_bytes(plan.block_tiles, t->ic);
    plan.product_bytes = planes_bytes(plan.block_tiles, plan.panels.width);
    plan.pointer_bytes = cnn_size_align((size_t)plan.block_tiles * CNN_WINOGRAD_PLANES * sizeof(float *));
    return plan;
}

static size_t pass_thread_bytes(const pass_plan *plan)
{
    return plan->src_bytes + plan->product_bytes + 2 * plan->pointer_bytes;
}

typedef struct pass_job {
    const pass_plan *plan;
    const cnn_conv_call *call;
    int64_t out_stride, in_stride, row_stride, col_stride; /* of the weights, as the pass sees them */
    bool turned;                                           /* backward data reads the kernel from its other end */
    const float *src, *zero;
    const float *weights; /* U: [panels][CNN_WINOGRAD_PLANES][ic][panel row] */
    float *to_weights;    /* the same, while it is made */
    char *scratch;
    float low, high;                                  /* the clamp that the activation is, or none */
    const struct cnn_activation_attributes *finishing; /* an activation that is no clamp, or NULL */
} pass_job;

#define WEIGHTS_PER_TASK 32 /* in channels */

static void transform_weights(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const pass_job *job = arg;
    const cnn_conv_panels *panels = &job->plan->panels;
    const int64_t ic = job->plan->tiles.ic, chunks = cnn_ceil_div(ic, WEIGHTS_PER_TASK);
    const int64_t panel = task / chunks, first = task % chunks * WEIGHTS_PER_TASK;
    const int64_t channels = cnn_conv_panel_channels(panels, panel), row = cnn_conv_panel_row(panels, panel);
    const float *from = job->call->weights + panel * panels->width * job->out_stride;
    float *to = job->to_weights + panel * panels->width * ic * CNN_WINOGRAD_PLANES;
    float g[9 * 64] = {0};
    for (int64_t c = first; c < cnn_min_i64(first + WEIGHTS_PER_TASK, ic); c++) {
        for (int64_t o = 0; o < channels; o++)
            for (int64_t k = 0; k < 9; k++) {
                const int64_t tap = job->turned ? 8 - k : k;
                g[k * row + o] = from[o * job->out_stride + c * job->in_stride + tap / 3 * job->row_stride +
                                      tap % 3 * job->col_stride];
            }
        job->call->kernels->winograd.weights(g, row, to + c * row, ic * row);
    }
}

/* V of a block, and pointers to its rows: [CNN_WINOGRAD_PLANES][tiles]. */
static void transform_block(const pass_job *job, int64_t first, int64_t count, float *v, const float **rows)
{
    const cnn_winograd_tiles *t = &job->plan->tiles;
    const int64_t plane = job->plan->block_tiles * t->ic;
    for (int64_t i = 0; i < count; i++) {
        const float *pixel[CNN_WINOGRAD_WINDOW * CNN_WINOGRAD_WINDOW];
        cnn_winograd_window(t, job->src, t->ic, job->zero, first + i, pixel);
        job->call->kernels->winograd.src(pixel, t->ic, v + i * t->ic, plane);
    }
    for (int64_t p = 0; p < CNN_WINOGRAD_PLANES; p++)
        for (int64_t i = 0; i < count; i++) rows[p * count + i] = v + p * plane + i * t->ic;
}

static void finish(const pass_job *job, const cnn_winograd_store *store, int channels)
{
    const struct cnn_activation_attributes *a = job->finishing;
    cnn_activation_forward_fn *const apply = job->call->kernels->activation.forward[a->kind];
    for (int r = 0; r < store->rows; r++)
        for (int s = 0; s < store->columns; s++) {
            float *to = store->to + r * store->row_stride + s * store->column_stride;
            apply(channels, to, to, (float)a->alpha, (float)a->beta);
        }
}

static void store_block(const pass_job *job, int64_t first, int64_t count, int64_t panel, const float *m)
{
    const cnn_winograd_tiles *t = &job->plan->tiles;
    const cnn_conv_panels *panels = &job->plan->panels;
    const int64_t channel = panel * panels->width, row = cnn_conv_panel_row(panels, panel);
    const int channels = (int)cnn_conv_panel_channels(panels, panel);
    cnn_winograd_store store = {.row_stride = t->dst_w * t->oc,
                                .column_stride = t->oc,
                                .bias = job->call->bias == NULL ? NULL : job->call->bias + channel,
                                .low = job->low,
                                .high = job->high};
    for (int64_t i = 0; i < count; i++) {
        const cnn_winograd_results results = cnn_winograd_results_at(t, first + i);
        const int64_t at = results.first * t->oc + channel;
        store.rows = results.rows;
        store.columns = results.cols;
        store.to = job->call->out + at;
        store.addend = job->call->addend == NULL ? NULL : job->call->addend + at;
        job->call->kernels->winograd.dst(m + i * row, job->plan->block_tiles * row, channels, &store);
        if (job->finishing != NULL) finish(job, &store, channels);
    }
}

static void run_block(void *arg, int64_t task, int32_t thread)
{
    const pass_job *job = arg;
    const pass_plan *plan = job->plan;
    const int64_t ic = plan->tiles.ic, index = task / plan->parts, part = task % plan->parts;
    const int64_t first = cnn_split(plan->tiles.count, plan->blocks, index);
    const int64_t count = cnn_split(plan->tiles.count, plan->blocks, index + 1) - first;
    char *cursor = job->scratch + (size_t)thread * pass_thread_bytes(plan);
    float *v = cnn_take(&cursor, plan->src_bytes), *m = cnn_take(&cursor, plan->product_bytes);
    const float **rows = cnn_take(&cursor, plan->pointer_bytes);
    float **products = cnn_take(&cursor, plan->pointer_bytes);
    transform_block(job, first, count, v, rows);

    const int64_t end = cnn_split(plan->panels.count, plan->parts, part + 1);
    for (int64_t panel = cnn_split(plan->panels.count, plan->parts, part); panel < end; panel++) {
        const int64_t row = cnn_conv_panel_row(&plan->panels, panel);
        const float *u = job->weights + panel * plan->panels.width * ic * CNN_WINOGRAD_PLANES;
        for (int64_t p = 0; p < CNN_WINOGRAD_PLANES; p++) {
            for (int64_t i = 0; i < count; i++) products[i] = m + (p * plan->block_tiles + i) * row;
            const cnn_conv_block block = {
                .pixels = count, .taps = 1, .ic = ic, .src = rows + p * count, .dst = products};
            job->call->kernels->conv.forward(&block, u + p * ic * row, NULL, 0, (int)row);
        }
        store_block(job, first, count, panel, m);
    }
}

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
}

static pass_job begin_pass(const cnn_conv_call *call, const pass_plan *plan)
{
    const cnn_conv *conv = call->conv;
    const bool back = call->pass == CNN_CONV_BACKWARD_DATA;
    pass_job job = {
        .plan = plan,
        .call = call,
        .out_stride = conv->weights_stride[back ? 1 : 0],
        .in_stride = conv->weights_stride[back ? 0 : 1],
        .row_stride = conv->weights_stride[2],
        .col_stride = conv->weights_stride[3],
        .turned = back,
        .src = back ? call->y : call->x,
        .weights = call->packed,
    };
    set_activation(&job, call->activation);
    return job;
}

static void make_weights(pass_job *job, float *to)
{
    const cnn_winograd_tiles *t = &job->plan->tiles;
    job->to_weights = to;
    cnn_parallel(cnn_useful_threads(job->call->threads, 10.0 * (double)t->ic * (double)t->oc),
                 job->plan->panels.count * cnn_ceil_div(t->ic, WEIGHTS_PER_TASK), transform_weights, job);
    job->weights = to;
}

static void run_pass(const cnn_conv_call *call)
{
    const pass_plan plan = plan_pass(call->conv, call->pass, call->kernels);
    char *cursor = call->workspace;
    pass_job job = begin_pass(call, &plan);
    job.zero = cnn_conv_zeros(&cursor, plan.tiles.ic);
    if (call->packed == NULL) make_weights(&job, cnn_take(&cursor, plan.weights_bytes));
    job.scratch = cursor;
    cnn_parallel(cnn_useful_threads(call->threads, cnn_conv_work(call->conv, call->kernels) / 3.0),
                 plan.blocks * plan.parts, run_block, &job);
}

static size_t winograd_packed(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    return pass == CNN_CONV_BACKWARD_WEIGHTS
               ? 0
               : planes_bytes(cnn_winograd_tiles_of(conv, pass).ic, cnn_conv_panels_of(cnn_winograd_tiles_of(conv, pass).oc, kernels).padded);
}

static void winograd_pack(const cnn_conv_call *call, void *packed)
{
    const pass_plan plan = plan_pass(call->conv, call->pass, call->kernels);
    pass_job job = begin_pass(call, &plan);
    make_weights(&job, packed);
}

/* ---- the gradient of the weights --------------------------------------------------------------------------------- */

typedef struct gradient_plan {
    cnn_winograd_tiles tiles;
    cnn_conv_panels panels;
    int64_t chunks, chunk_tiles;
    size_t zero_bytes, src_bytes, diff_bytes, sums_bytes;
    size_t pointer_bytes, filter_bytes; /* of one thread */
} gradient_plan;

#define CHUNK_BYTES (6 << 20) /* of both transformed images: a share of the last-level cache */

static gradient_plan plan_gradient(const cnn_conv *conv, const cnn_kernels *kernels)
{
    gradient_plan plan = {.tiles = cnn_winograd_tiles_of(conv, CNN_CONV_BACKWARD_WEIGHTS)};
    const cnn_winograd_tiles *t = &plan.tiles;
    plan.panels = cnn_conv_panels_of(t->oc, kernels);
    const int64_t fitting = CHUNK_BYTES / (CNN_WINOGRAD_PLANES * (int64_t)sizeof(float)) / (t->ic + plan.panels.padded);
    plan.chunks = cnn_ceil_div(t->count, cnn_max_i64(fitting, 48));
    plan.chunk_tiles = cnn_ceil_div(t->count, plan.chunks);
    plan.zero_bytes = cnn_float_bytes(cnn_max_i64(t->ic, t->oc));
    plan.src_bytes = planes_bytes(plan.chunk_tiles, t->ic);
    plan.diff_bytes = planes_bytes(plan.chunk_tiles, plan.panels.padded);
    plan.sums_bytes = planes_bytes(t->ic, plan.panels.padded);
    plan.pointer_bytes = cnn_size_align((size_t)plan.chunk_tiles * sizeof(float *));
    plan.filter_bytes = cnn_float_bytes(9 * plan.panels.padded);
    return plan;
}

typedef struct gradient_job {
    const gradient_plan *plan;
    const cnn_conv_call *call;
    int64_t first, count; /* tiles of the chunk */
    const float *zero;
    float *src, *diff; /* [CNN_WINOGRAD_PLANES][tiles][ic] and [CNN_WINOGRAD_PLANES][panels][tiles][panel row] */
    float *sums;       /* [CNN_WINOGRAD_PLANES][ic][padded oc] */
    char *scratch;
} gradient_job;

#define TILES_PER_TASK 8

static void transform_tiles(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const gradient_job *job = arg;
    const cnn_winograd_tiles *t = &job->plan->tiles;
    const cnn_conv_panels *panels = &job->plan->panels;
    const struct cnn_winograd_kernels *kernels = &job->call->kernels->winograd;
    const int64_t end = cnn_min_i64((task + 1) * TILES_PER_TASK, job->count);
    const int64_t last = panels->count - 1, last_row = cnn_conv_panel_row(panels, last);
    const int64_t wide = last_row == panels->width ? t->oc : last * panels->width; /* channels in wide panels */
    for (int64_t i = task * TILES_PER_TASK; i < end; i++) {
        const float *window[CNN_WINOGRAD_WINDOW * CNN_WINOGRAD_WINDOW], *pixel[CNN_WINOGRAD_TILE * CNN_WINOGRAD_TILE];
        cnn_winograd_window(t, job->call->x, t->ic, job->zero, job->first + i, window);
        kernels->src(window, t->ic, job->src + i * t->ic, job->count * t->ic);
        cnn_winograd_result_pixels(t, job->call->y, job->zero, job->first + i, pixel);
        const int64_t plane = job->count * panels->padded;
        kernels->diff_dst(pixel, wide, job->diff + i * panels->width, plane, job->count * panels->width);
        if (wide == t->oc) continue;
        for (int p = 0; p < CNN_WINOGRAD_TILE * CNN_WINOGRAD_TILE; p++) pixel[p] += wide;
        kernels->diff_dst(pixel, t->oc - wide, job->diff + job->count * wide + i * last_row, plane, 0);
    }
}

static void multiply_plane(void *arg, int64_t task, int32_t thread)
{
    const gradient_job *job = arg;
    const gradient_plan *plan = job->plan;
    const int64_t ic = plan->tiles.ic, padded = plan->panels.padded;
    char *cursor = job->scratch + (size_t)thread * (plan->pointer_bytes + plan->filter_bytes);
    const float **rows = cnn_take(&cursor, plan->pointer_bytes);
    for (int64_t i = 0; i < job->count; i++) rows[i] = job->src + (task * job->count + i) * ic;
    float *sums = job->sums + task * ic * padded;
    const float *diff = job->diff + task * job->count * padded;
    const int64_t parts = cnn_ceil_div(ic, CNN_CONV_ROWS);
    for (int64_t panel = 0; panel < plan->panels.count; panel++) {
        const float *cols = diff + job->count * panel * plan->panels.width;
        for (int64_t part = 0; part < parts; part++) {
            const int64_t c = cnn_split(ic, parts, part);
            job->call->kernels->conv.outer((int)(cnn_split(ic, parts, part + 1) - c), job->count, rows, c, cols,
                                           (int)cnn_conv_panel_channels(&plan->panels, panel), job->first > 0, padded,
                                           sums + c * padded + panel * plan->panels.width);
        }
    }
}

static void add_filters(void *arg, int64_t task, int32_t thread)
{
    const gradient_job *job = arg;
    const gradient_plan *plan = job->plan;
    const int64_t ic = plan->tiles.ic, oc = plan->tiles.oc, padded = plan->panels.padded;
    const int64_t *stride = job->call->conv->weights_stride;
    char *cursor = job->scratch + (size_t)thread * (plan->pointer_bytes + plan->filter_bytes) + plan->pointer_bytes;
    float *g = cnn_take(&cursor, plan->filter_bytes);
    job->call->kernels->winograd.diff_weights(job->sums + task * padded, ic * padded, oc, g);
    float *out = job->call->out + task * stride[1];
    for (int64_t o = 0; o < oc; o++)
        for (int64_t k = 0; k < 9; k++) out[o * stride[0] + k / 3 * stride[2] + k % 3 * stride[3]] += g[k * oc + o];
}

static void run_gradient(const cnn_conv_call *call)
{
    const gradient_plan plan = plan_gradient(call->conv, call->kernels);
    char *cursor = call->workspace;
    gradient_job job = {.plan = &plan, .call = call};
    job.zero = cnn_conv_zeros(&cursor, cnn_max_i64(plan.tiles.ic, plan.tiles.oc));
    job.src = cnn_take(&cursor, plan.src_bytes);
    job.diff = cnn_take(&cursor, plan.diff_bytes);
    job.sums = cnn_take(&cursor, plan.sums_bytes);
    job.scratch = cursor;
    const int32_t threads = cnn_useful_threads(call->threads, cnn_conv_work(call->conv, call->kernels) / 3.0);
    for (int64_t chunk = 0; chunk < plan.chunks; chunk++) {
        job.first = cnn_split(plan.tiles.count, plan.chunks, chunk);
        job.count = cnn_split(plan.tiles.count, plan.chunks, chunk + 1) - job.first;
        cnn_parallel(threads, cnn_ceil_div(job.count, TILES_PER_TASK), transform_tiles, &job);
        cnn_parallel(threads, CNN_WINOGRAD_PLANES, multiply_plane, &job);
    }
    cnn_parallel(threads, plan.tiles.ic, add_filters, &job);
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

static size_t winograd_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    if (pass == CNN_CONV_BACKWARD_WEIGHTS) {
        const gradient_plan plan = plan_gradient(conv, kernels);
        size_t bytes = cnn_size_add(plan.zero_bytes, plan.src_bytes);
        bytes = cnn_size_add(bytes, cnn_size_add(plan.diff_bytes, plan.sums_bytes));
        return cnn_size_add(bytes, cnn_size_mul(plan.pointer_bytes + plan.filter_bytes, (size_t)threads));
    }
    const pass_plan plan = plan_pass(conv, pass, kernels);
    return cnn_size_add(cnn_size_add(plan.zero_bytes, plan.weights_bytes),
                        cnn_size_mul(pass_thread_bytes(&plan), (size_t)threads));
}

static void run_winograd(const cnn_conv_call *call)
{
    if (call->pass == CNN_CONV_BACKWARD_WEIGHTS)
        run_gradient(call);
    else
        run_pass(call);
}

const cnn_conv_algorithm cnn_conv_winograd = {
    .name = "winograd",
    .suits = winograd_suits,
    .workspace = winograd_workspace,
    .run = run_winograd,
    .packed = winograd_packed,
    .pack = winograd_pack,
};
