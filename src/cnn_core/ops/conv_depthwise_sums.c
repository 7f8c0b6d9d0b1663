/* Backward weights of depthwise convolution by rows: a task sums over a share of all rows of y. */
#include "ops/conv_depthwise.h"
#include "ops/conv_tiling.h"
#include "ops/prologue.h"

static int64_t share_floats(const cnn_depthwise_plan *plan) { return plan->vectors * plan->width * plan->taps; }

void cnn_depthwise_begin_sums(cnn_depthwise_job *job, char **cursor)
{
    cnn_conv_axes axes;
    cnn_conv_axes_make(job->call->conv, CNN_CONV_FORWARD, cursor, &axes);
    job->sums = cnn_take(cursor, job->plan->sums_bytes);
    job->kernel = cnn_take(cursor, job->plan->kernel_bytes);
    job->kernel_rows = axes.rows.taps;
    for (int64_t r = 0; r < axes.rows.taps; r++) {
        const cnn_conv_tap *tap = &axes.rows.tap[r];
        job->kernel[r] = (cnn_depthwise_tap){tap->k, tap->offset, tap->begin, tap->end};
    }
}

void cnn_depthwise_clear_sums(const cnn_depthwise_job *job, int64_t share, cnn_depthwise_strip strip)
{
    const cnn_depthwise_plan *plan = job->plan;
    float *sums = job->sums + share * share_floats(plan);
    for (int64_t i = strip.begin * plan->taps; i < cnn_round_up(strip.end, plan->width) * plan->taps; i++) sums[i] = 0.0f;
}

cnn_depthwise_image cnn_depthwise_part_of(const cnn_depthwise_job *job, int64_t image, int64_t begin, int64_t end,
                                          cnn_depthwise_strip strip)
{
    const cnn_depthwise_plan *plan = job->plan;
    const cnn_conv_call *call = job->call;
    const cnn_conv *conv = call->conv;
    return (cnn_depthwise_image){
        .src = call->x + image * conv->ih * conv->iw * conv->ic,
        .diff_dst = call->y + image * conv->oh * conv->ow * conv->oc,
        .src_w = conv->iw,
        .dst_w = conv->ow,
        .left = conv->padding[1],
        .row_step = conv->stride[0],
        .pitch = plan->channels,
        .begin = begin,
        .end = end,
        .taps = job->kernel_rows,
        .tap = job->kernel,
        .first = strip.begin,
        .channels = strip.end - strip.begin,
        .sums_stride = plan->taps * plan->width,
        .ahead = plan->ahead,
    };
}

bool cnn_depthwise_make_part(const cnn_depthwise_job *job, float *made, cnn_depthwise_tap *taps, cnn_depthwise_image *part)
{
    const cnn_conv_call *call = job->call;
    const int64_t row_floats = part->src_w * part->pitch;
    int64_t low = INT64_MAX, end = 0;
    for (int64_t t = 0; t < part->taps; t++) {
        const cnn_depthwise_tap *tap = &part->tap[t];
        const int64_t from = cnn_max_i64(tap->begin, part->begin), to = cnn_min_i64(tap->end, part->end);
        if (from >= to) continue;
        low = cnn_min_i64(low, from * part->row_step + tap->offset);
        end = cnn_max_i64(end, (to - 1) * part->row_step + tap->offset + 1);
    }
    if (low >= end) return false;
    for (int64_t t = 0; t < part->taps; t++) {
        taps[t] = part->tap[t];
        taps[t].offset -= low;
    }
    cnn_prologue_apply(call->prologue, call->kernels, (end - low) * part->src_w, part->src + low * row_floats, made);
    part->src = made;
    part->tap = taps;
    return true;
}

void cnn_depthwise_sum_part(const cnn_depthwise_job *job, int64_t share, const cnn_depthwise_image *part)
{
    const cnn_conv *conv = job->call->conv;
    const struct cnn_depthwise_rows_kernels *kernels = &job->call->kernels->depthwise_rows;
    kernels->backward_weights[conv->kw == 5][conv->stride[1] == 2](part, job->sums + share * share_floats(job->plan));
}

/* ---- diff_weights += the shares' sums, in order ------------------------------------------------------------------ */

typedef struct addition {
    const cnn_depthwise_job *job;
    float *diff_weights;
} addition;

static void add_strip(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const addition *add = arg;
    const cnn_depthwise_job *job = add->job;
    const cnn_depthwise_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const cnn_depthwise_strip strip = cnn_depthwise_strip_at(plan, task);
    const int64_t *stride = conv->weights_stride, width = plan->width;
    const int64_t begin = strip.begin * plan->taps, end = cnn_round_up(strip.end, width) * plan->taps;
    for (int64_t share = 1; share < plan->shares; share++) {
        const float *sums = job->sums + share * share_floats(plan);
        for (int64_t i = begin; i < end; i++) job->sums[i] += sums[i];
    }
    const float *sums = job->sums + begin;
    for (int64_t from = strip.begin; from < strip.end; from += width) {
        /* What the last vector shares with the one before it, that one has added. */
        const int64_t c = cnn_min_i64(from, plan->channels - width), first_lane = from - c;
        for (int64_t r = 0; r < conv->kh; r++)
            for (int64_t s = 0; s < conv->kw; s++, sums += width) {
                float *to = add->diff_weights + from * stride[0] + r * stride[2] + s * stride[3];
                for (int64_t lane = first_lane; lane < width; lane++, to += stride[0]) *to += sums[lane];
            }
    }
}

void cnn_depthwise_add_shares(const cnn_depthwise_job *job, float *diff_weights)
{
    const cnn_depthwise_plan *plan = job->plan;
    addition add = {job, diff_weights};
    const double work = (double)(plan->shares * plan->channels * plan->taps);
    cnn_parallel(cnn_useful_threads(job->call->threads, work), plan->strips, add_strip, &add);
}

/* ---- backward weights alone -------------------------------------------------------------------------------------- */

static void sum_share(void *arg, int64_t task, int32_t thread)
{
    const cnn_depthwise_job *job = arg;
    const cnn_depthwise_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const int64_t share = task / plan->strips, rows = conv->n * conv->oh;
    const cnn_depthwise_strip strip = cnn_depthwise_strip_at(plan, task % plan->strips);
    cnn_depthwise_clear_sums(job, share, strip);
    const cnn_depthwise_scratch scratch = cnn_depthwise_scratch_of(job, thread);
    cnn_depthwise_tap taps[CNN_DEPTHWISE_TAPS];
    const int64_t end = cnn_split(rows, plan->shares, share + 1);
    for (int64_t row = cnn_split(rows, plan->shares, share), next; row < end; row = next) {
        const int64_t image = row / conv->oh;
        next = cnn_min_i64(cnn_min_i64(end, (image + 1) * conv->oh), row + plan->some_rows);
        cnn_depthwise_image part = cnn_depthwise_part_of(job, image, row - image * conv->oh, next - image * conv->oh, strip);
        if (job->call->prologue == NULL || cnn_depthwise_make_part(job, scratch.made, taps, &part))
            cnn_depthwise_sum_part(job, share, &part);
    }
    if (plan->shares == 1) {
        addition add = {job, job->call->out};
        add_strip(&add, task, thread);
    }
}

void cnn_depthwise_run_sums(const cnn_conv_call *call)
{
    const cnn_depthwise_plan plan = cnn_depthwise_plan_of(call->conv, call->pass, call->kernels);
    cnn_depthwise_job job = {.plan = &plan, .call = call};
    char *cursor = call->workspace;
    cnn_depthwise_begin_sums(&job, &cursor);
    job.scratch = cursor;
    cnn_parallel(cnn_depthwise_threads(call), plan.strips * plan.shares, sum_share, &job);
    if (plan.shares > 1) cnn_depthwise_add_shares(&job, call->out);
}
