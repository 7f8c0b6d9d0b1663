/* The steps of normalization by columns, forward and backward; how they are cut into tasks: norm_pass.c. */
#include <string.h>

#include "ops/norm_pass.h"
#include "ops/transpose.h"

/* ---- what both directions need ----------------------------------------------------------------------------------- */

/* The columns of memory [matrices][channels][length], made in the workspace. */
static float *take_columns(const cnn_norm_columns *view, const float *memory, int32_t threads, char **workspace)
{
    float *columns = cnn_take(workspace, cnn_float_bytes(view->samples * view->rows * view->channels));
    const int64_t length = view->samples * view->rows / view->matrices;
    cnn_transpose(threads, view->matrices, view->channels, length, memory, columns);
    return columns;
}

static void put_columns(const cnn_norm_columns *view, const float *columns, int32_t threads, float *memory)
{
    const int64_t length = view->samples * view->rows / view->matrices;
    cnn_transpose(threads, view->matrices, length, view->channels, columns, memory);
}

static double weight_of(const cnn_norm_run *r, int64_t channel)
{
    return r->weights == NULL ? 1.0 : (double)r->weights[channel];
}

/* Copies a row's first `channels` elements to all that are behind them. */
static void repeat(const cnn_norm_run *r, float *row)
{
    for (int64_t done = r->view->channels; done < r->cut.stride;) {
        const int64_t count = cnn_min_i64(r->view->channels, r->cut.stride - done);
        memcpy(row + done, row, (size_t)count * sizeof *row);
        done += count;
    }
}

/* coefficients: mean, scale and shift, from the statistics saved. */
static void set_affine(const cnn_norm_run *r, int64_t sample, float *mean)
{
    const int64_t groups = r->view->groups, size = r->view->channels / groups;
    float *scale = mean + NORM_SCALE * r->cut.stride, *shift = mean + NORM_SHIFT * r->cut.stride;
    for (int64_t g = 0; g < groups; g++) {
        const double exact = r->mean[sample * groups + g];
        const double inverse_std = cnn_norm_inverse_std(r->var[sample * groups + g], r->eps);
        for (int64_t c = g * size; c < (g + 1) * size; c++) {
            mean[c] = (float)exact;
            scale[c] = (float)(weight_of(r, c) * inverse_std);
            shift[c] = (float)((r->bias == NULL ? 0.0 : (double)r->bias[c]) -
                               (exact - (double)mean[c]) * weight_of(r, c) * inverse_std);
        }
    }
    repeat(r, mean);
    repeat(r, scale);
    repeat(r, shift);
}

/* The kernels' name for an epilogue's activation; LINEAR: none of theirs. */
static cnn_norm_activation kernel_activation(const cnn_epilogue *epilogue)
{
    if (!epilogue->activates) return CNN_NORM_LINEAR;
    switch (epilogue->activation.kind) {
    case CNN_RELU: return CNN_NORM_RELU;
    case CNN_RELU6: return CNN_NORM_RELU6;
    case CNN_LEAKY_RELU: return epilogue->activation.alpha >= 0.0 ? CNN_NORM_LEAKY_RELU : CNN_NORM_LINEAR;
    default: return CNN_NORM_LINEAR;
    }
}

bool cnn_norm_columns_fuses(const cnn_norm_columns *view, const cnn_epilogue *epilogue, bool backward)
{
    if (view->matrices > 0) return false;
    return !backward || !epilogue->activates || kernel_activation(epilogue) != CNN_NORM_LINEAR;
}

static void take_epilogue(cnn_norm_run *r, const cnn_epilogue *epilogue)
{
    r->activation = kernel_activation(epilogue);
    if (!epilogue->activates) return;
    r->slope = (float)epilogue->activation.alpha;
    if (r->activation == CNN_NORM_LINEAR) r->any = &epilogue->activation;
}

/* ---- deferred ---------------------------------------------------------------------------------------------------- */

/* What is fused is small, comes out of a cache, and its coefficients belong to a thread. */
bool cnn_norm_columns_defers(const cnn_norm_columns *view, const cnn_node *node)
{
    const cnn_epilogue *epilogue = &node->epilogue;
    const bool takes = !epilogue->adds && (!epilogue->activates || kernel_activation(epilogue) != CNN_NORM_LINEAR);
    return takes && view->matrices == 0 && view->samples == 1 && !cnn_norm_cut_of(view, 0).fused;
}

static size_t statistics_bytes(const cnn_norm_columns *view)
{
    return cnn_size_align(cnn_norm_saved_bytes(view->channels));
}

/* The coefficients stay. */
size_t cnn_norm_columns_deferred_bytes(const cnn_norm_columns *view)
{
    return cnn_size_add(statistics_bytes(view), cnn_float_bytes(NORM_COEFFICIENTS * cnn_norm_cut_of(view, 0).stride));
}

static float *deferred_coefficients(const cnn_norm_columns *view, const cnn_call *call)
{
    return (float *)(void *)((char *)call->saved + statistics_bytes(view));
}

void cnn_norm_columns_prologue(const cnn_norm_columns *view, const cnn_call *call, cnn_prologue *prologue)
{
    const cnn_norm_cut cut = cnn_norm_cut_of(view, 0);
    const cnn_epilogue *epilogue = &call->node->epilogue;
    const float *mean = deferred_coefficients(view, call);
    *prologue = (cnn_prologue){.channels = view->channels,
                               .fold = cut.fold,
                               .mean = mean,
                               .scale = mean + NORM_SCALE * cut.stride,
                               .shift = mean + NORM_SHIFT * cut.stride,
                               .activation = kernel_activation(epilogue),
                               .slope = epilogue->activates ? (float)epilogue->activation.alpha : 0.0f};
}

void cnn_norm_columns_back_prologue(const cnn_norm_columns *view, const cnn_call *call, cnn_back_prologue *prologue)
{
    const int64_t stride = cnn_norm_cut_of(view, 0).stride;
    const float *mean = deferred_coefficients(view, call);
    cnn_norm_columns_prologue(view, call, &prologue->forward);
    prologue->b = mean + NORM_B * stride;
    prologue->c = mean + NORM_C * stride;
    prologue->src = call->src[NORM_SRC];
    prologue->diff_dst = call->diff_dst;
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

enum {
    BLOCK = 256,     /* folded rows; more would lose accuracy in float sums */
    FIRST_BLOCK = 32 /* folded rows */
};

/* pivot = the mean of the first rows, or of all before these: see docs/normalization.md for why it is good enough. */
static void set_pivot(const cnn_norm_run *r, int64_t rows, int64_t copies, const cnn_norm_rows *at, const float *x,
                      int64_t count, const double *mean, float *pivot)
{
    const int64_t width = copies * at->channels;
    if (count == 0) {
        const float inverse = 1.0f / (float)rows;
        r->kernels->norm.column_sums(rows, width, copies * r->view->channels, x, pivot);
        for (int64_t j = 0; j < width; j++) pivot[j] *= inverse;
        return;
    }
    for (int64_t copy = 0; copy < copies; copy++)
        for (int64_t c = 0; c < at->channels; c++) pivot[copy * at->channels + c] = (float)mean[c];
}

/* The sums of those columns, of two numbers each: the first ones, with the second ones `channels` behind. */
static double *begin_sums(const cnn_norm_run *r, const cnn_norm_rows *at, double *sums)
{
    const int64_t channels = r->view->channels;
    for (int64_t c = at->channel; at->done == 0 && c < at->channel + at->channels; c++)
        sums[c] = sums[channels + c] = 0.0;
    return sums + at->channel;
}

/* sums: mean and m2 of each channel. */
static void reduce_moments(const cnn_norm_run *r, const cnn_norm_rows *at, const float *coefficients, float *scratch,
                           double *sums)
{
    (void)coefficients;
    const int64_t channels = r->view->channels;
    const struct cnn_norm_kernels *kernels = &r->kernels->norm;
    void (*moments)(int64_t, int64_t, int64_t, const float *, const float *, float *, float *) =
        r->cut.pieces > 0 ? kernels->column_moments_near : r->far ? kernels->column_moments_far : kernels->column_moments;
    float *pivot = scratch, *first = pivot + r->cut.width, *second = first + r->cut.width;
    double *mean = begin_sums(r, at, sums);
    for (int64_t done = 0; done < at->rows;) {
        int64_t copies, count = at->done + done;
        const int64_t folded = cnn_norm_next_block(r, at, done, count == 0 ? FIRST_BLOCK : BLOCK, &copies);
        const float *x = r->src + at->offset + done * channels + at->channel;
        set_pivot(r, folded, copies, at, x, count, mean, pivot);
        moments(folded, copies * at->channels, copies * channels, x, pivot, first, second);
        for (int64_t copy = 0, from = 0; copy < copies; copy++, from += at->channels, count += folded)
            kernels->column_merge(at->channels, folded, pivot + from, first + from, second + from, count, mean,
                                  mean + channels);
        done += folded * copies;
    }
}

/* As cnn_moments_merge, with what is the same for all channels done once. */
static void merge_moments(const cnn_norm_run *r, int64_t count, double *total, int64_t rows, const double *part)
{
    const int64_t channels = r->view->channels;
    const double share = (double)rows / (double)(count + rows), between = (double)count * share;
    for (int64_t c = 0; c < channels; c++) {
        const double delta = part[c] - total[c];
        total[c] += delta * share;
        total[channels + c] += part[channels + c] + delta * delta * between;
    }
}

/* Saves the statistics of a sample's groups, from those of its channels. */
static void finish_moments(const cnn_norm_run *r, int64_t sample, const double *sums, double *diff_parameters,
                           float *mean)
{
    (void)diff_parameters;
    const int64_t channels = r->view->channels, groups = r->view->groups, size = channels / groups;
    const double rows = (double)r->view->rows;
    for (int64_t g = 0; g < groups; g++) {
        cnn_moments group = {rows, sums[g * size], sums[channels + g * size]};
        for (int64_t c = g * size + 1; c < (g + 1) * size; c++)
            group = cnn_moments_merge(group, (cnn_moments){rows, sums[c], sums[channels + c]});
        r->mean[sample * groups + g] = group.mean;
        r->var[sample * groups + g] = cnn_moments_var(group);
    }
    set_affine(r, sample, mean);
}

static void apply_forward(const cnn_norm_run *r, int64_t offset, int64_t rows, int64_t width, const float *mean,
                          bool stream)
{
    const struct cnn_norm_forward f = {.rows = rows,
                                 .width = width,
                                 .src = r->src + offset,
                                 .addend = r->addend == NULL ? NULL : r->addend + offset,
                                 .mean = mean,
                                 .scale = mean + NORM_SCALE * r->cut.stride,
                                 .shift = mean + NORM_SHIFT * r->cut.stride,
                                 .activation = r->activation,
                                 .slope = r->slope,
                                 .stream = stream,
                                 .dst = r->out + offset};
    r->kernels->norm.column_forward(&f);
    if (r->any != NULL)
        r->kernels->activation.forward[r->any->kind](rows * width, f.dst, f.dst, (float)r->any->alpha,
                                                     (float)r->any->beta, false);
}

static cnn_norm_run begin_forward(const cnn_norm_columns *view, const cnn_call *call, char **workspace)
{
    static const cnn_norm_pass normalize = {NULL, reduce_moments, merge_moments, finish_moments, apply_forward};
    static const cnn_norm_pass normalize_by_constants = {.prepare = set_affine, .apply = apply_forward};
    cnn_norm_run r =
        cnn_norm_run_of(view, view->constant ? &normalize_by_constants : &normalize, call, call->node->pieces, workspace);
    take_epilogue(&r, &call->node->epilogue);
    r.bias = call->src[NORM_BIAS];
    if (call->node->epilogue.adds) r.addend = call->src[call->node->row->max_sources];
    r.out = call->dst;
    if (call->node->deferred) r.coefficients = deferred_coefficients(view, call);
    cnn_norm_set_stream(&r, r.addend == NULL ? 2 : 3);
    return r;
}

void cnn_norm_columns_forward(const cnn_norm_columns *view, const cnn_call *call)
{
    char *workspace = call->workspace;
    cnn_norm_run r = begin_forward(view, call, &workspace);
    if (view->matrices > 0) r.src = r.out = take_columns(view, r.src, call->threads, &workspace);
    cnn_norm_run_pass(&r, call->threads);
    if (view->matrices > 0) put_columns(view, r.out, call->threads, call->dst);
}

/* While src is made. */
void cnn_norm_columns_watch(const cnn_norm_columns *view, const cnn_call *call, cnn_watch *watch)
{
    char *workspace = call->workspace;
    const cnn_norm_run r = begin_forward(view, call, &workspace);
    cnn_norm_run_watch(&r, &workspace, watch);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* A kernel's arguments, but for what it writes. */
static struct cnn_norm_backward arguments(const cnn_norm_run *r, int64_t offset, int64_t rows, int64_t width,
                                          const float *mean)
{
    return (struct cnn_norm_backward){.rows = rows,
                                      .width = width,
                                      .stride = width,
                                      .far = r->far,
                                      .src = r->src + offset,
                                      .diff_dst = r->diff_dst + offset,
                                      .dst = r->dst == NULL ? NULL : r->dst + offset,
                                      .mean = mean,
                                      .scale = mean + NORM_SCALE * r->cut.stride,
                                      .shift = mean + NORM_SHIFT * r->cut.stride,
                                      .activation = r->activation,
                                      .slope = r->slope};
}

/* sums: sum g and sum g (x - mean) of each channel, with the mean as rounded to float. */
static void reduce_dots(const cnn_norm_run *r, const cnn_norm_rows *at, const float *mean, float *scratch,
                        double *sums)
{
    const int64_t channels = r->view->channels;
    double *sum = begin_sums(r, at, sums), *dot = sum + channels;
    for (int64_t done = 0; done < at->rows;) {
        int64_t copies;
        const int64_t folded = cnn_norm_next_block(r, at, done, BLOCK, &copies);
        const int64_t offset = at->offset + done * channels + at->channel;
        struct cnn_norm_backward f = arguments(r, offset, folded, copies * at->channels, mean + at->channel);
        f.stride = copies * channels;
        f.sum = scratch;
        f.dot = scratch + r->cut.width;
        f.gated = r->gated == NULL ? NULL : r->gated + offset;
        r->kernels->norm.column_dots(&f);
        for (int64_t copy = 0, from = 0; copy < copies; copy++, from += at->channels)
            for (int64_t c = 0; c < at->channels; c++) {
                sum[c] += (double)f.sum[from + c];
                dot[c] += (double)f.dot[from + c];
            }
        done += folded * copies;
    }
}

static void merge_dots(const cnn_norm_run *r, int64_t count, double *total, int64_t rows, const double *part)
{
    (void)count, (void)rows;
    for (int64_t i = 0; i < 2 * r->view->channels; i++) total[i] += part[i];
}

/* From a channel's sums: sum dy and sum dy xhat, its share in the gradients of bias and weights. */
typedef struct dots {
    double constant, xhat;
} dots;

static dots dots_of(const cnn_norm_run *r, const double *sums, int64_t channel, double mean, double inverse_std)
{
    const double sum = sums[channel], off = mean - (double)(float)mean;
    return (dots){sum, (sums[r->view->channels + channel] - off * sum) * inverse_std};
}

/* Adds a sample's share and gives b and c of
 *
 *   diff_src = 1/std (w g - E[w g] - xhat E[w g xhat]),   xhat = (x - mean) / std,   expectations over the group. */
static void finish_dots(const cnn_norm_run *r, int64_t sample, const double *sums, double *diff_parameters, float *mean)
{
    const int64_t channels = r->view->channels, groups = r->view->groups, size = channels / groups;
    float *b = mean + NORM_B * r->cut.stride, *c = mean + NORM_C * r->cut.stride;
    const double count = (double)r->view->rows * (double)size;
    for (int64_t g = 0; g < groups; g++) {
        const double exact = r->mean[sample * groups + g];
        const double inverse_std = cnn_norm_inverse_std(r->var[sample * groups + g], r->eps);
        double along_constant = 0.0, along_xhat = 0.0;
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            const dots d = dots_of(r, sums, i, exact, inverse_std);
            diff_parameters[i] += d.xhat;
            diff_parameters[channels + i] += d.constant;
            along_constant += weight_of(r, i) * d.constant / count;
            along_xhat += weight_of(r, i) * d.xhat / count;
        }
        const double slope = -inverse_std * inverse_std * along_xhat;
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            b[i] = (float)slope;
            c[i] = (float)(-inverse_std * along_constant - (exact - (double)mean[i]) * slope);
        }
    }
    repeat(r, b);
    repeat(r, c);
}

/* The same where the statistics are constant: diff_src = w g / std. */
static void finish_scale(const cnn_norm_run *r, int64_t sample, const double *sums, double *diff_parameters,
                         float *mean)
{
    (void)sample, (void)mean; /* there is but one */
    const int64_t channels = r->view->channels;
    for (int64_t i = 0; i < channels; i++) {
        const dots d = dots_of(r, sums, i, r->mean[i], cnn_norm_inverse_std(r->var[i], r->eps));
        diff_parameters[i] += d.xhat;
        diff_parameters[channels + i] += d.constant;
    }
}

static void apply_gradient(const cnn_norm_run *r, int64_t offset, int64_t rows, int64_t width, const float *mean,
                           bool stream)
{
    struct cnn_norm_backward f = arguments(r, offset, rows, width, mean);
    if (r->gated != NULL) { /* g is there already */
        f.diff_dst = r->gated + offset;
        f.activation = CNN_NORM_LINEAR;
    }
    if (!r->view->constant) {
        f.b = mean + NORM_B * r->cut.stride;
        f.c = mean + NORM_C * r->cut.stride;
    }
    f.stream = stream;
    f.diff_src = r->out + offset;
    r->kernels->norm.column_gradient(&f);
}

/* diff += what the parts found, in their order. */
static void add_parts(const cnn_norm_run *r, int64_t first, float *diff)
{
    const int64_t channels = r->view->channels;
    for (int64_t c = 0; diff != NULL && c < channels; c++) {
        double total = 0.0;
        for (int64_t part = 0; part < r->cut.parts; part++)
            total += r->diff_parameters[part * 2 * channels + first + c];
        diff[c] += (float)total;
    }
}

static cnn_norm_run begin_backward(const cnn_norm_columns *view, const cnn_call *call, char **workspace)
{
    static const cnn_norm_pass gradient = {set_affine, reduce_dots, merge_dots, finish_dots, apply_gradient};
    static const cnn_norm_pass constant_gradient = {set_affine, reduce_dots, merge_dots, finish_scale, apply_gradient};
    static const cnn_norm_pass constant_gradient_of_src = {.prepare = set_affine, .apply = apply_gradient};
    const cnn_epilogue *epilogue = &call->node->epilogue;
    float *gated = epilogue->adds ? call->diff_src[call->node->row->max_sources] : NULL;
    const bool reduces = call->diff_src[NORM_WEIGHTS] != NULL || call->diff_src[NORM_BIAS] != NULL || gated != NULL;
    const cnn_norm_pass *pass = &gradient;
    if (view->constant) pass = reduces ? &constant_gradient : &constant_gradient_of_src;
    cnn_norm_run r = cnn_norm_run_of(view, pass, call, call->node->back_pieces, workspace);
    const int64_t shares = r.cut.parts * 2 * view->channels;
    r.diff_parameters = cnn_take(workspace, cnn_size_align(cnn_size_mul((size_t)shares, sizeof *r.diff_parameters)));
    memset(r.diff_parameters, 0, (size_t)shares * sizeof *r.diff_parameters);
    take_epilogue(&r, epilogue);
    if (epilogue->activates) r.bias = call->src[NORM_BIAS]; /* to compute again what was activated */
    if (epilogue->adds) r.dst = call->dst;
    r.gated = gated;
    r.diff_dst = call->diff_dst;
    r.out = call->node->back_deferred ? NULL : call->diff_src[NORM_SRC];
    if (call->node->back_deferred) r.coefficients = deferred_coefficients(view, call);
    cnn_norm_set_stream(&r, epilogue->adds ? 4 : 3);
    return r;
}

void cnn_norm_columns_back_watch(const cnn_norm_columns *view, const cnn_call *call, cnn_watch *watch)
{
    char *workspace = call->workspace;
    cnn_norm_run r = begin_backward(view, call, &workspace);
    r.far = false;
    set_affine(&r, 0, r.coefficients);
    cnn_norm_run_watch(&r, &workspace, watch);
}

void cnn_norm_columns_backward(const cnn_norm_columns *view, const cnn_call *call)
{
    char *workspace = call->workspace;
    cnn_norm_run r = begin_backward(view, call, &workspace);
    if (view->matrices > 0) {
        float *diff = take_columns(view, r.diff_dst, call->threads, &workspace);
        r.src = take_columns(view, r.src, call->threads, &workspace);
        r.diff_dst = diff;
        if (r.out != NULL) r.out = diff;
    }
    cnn_norm_run_pass(&r, call->threads);
    if (r.out != NULL && view->matrices > 0) put_columns(view, r.out, call->threads, call->diff_src[NORM_SRC]);
    add_parts(&r, 0, call->diff_src[NORM_WEIGHTS]);
    add_parts(&r, view->channels, call->diff_src[NORM_BIAS]);
}
