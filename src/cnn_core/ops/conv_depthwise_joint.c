/* Both gradients of depthwise convolution by rows from one reading of x and of y's gradient, for all channels of some rows at a
 * time, which then lie in the second-level cache: the weights' sums over them, the rows of x's gradient beside them, and whatever
 * a watch takes of these.
 *
 * A task is a share of the rows of y, in the order of the images, and of the rows of x that lie beside them. */
#include "ops/conv_depthwise.h"
#include "ops/conv_tiling.h"
#include "ops/prologue.h"

/* The row of x at which those beside row `row` of y begin. What lies beyond the last is beside the last. */
static int64_t beside(const cnn_conv *conv, int64_t row)
{
    return row == conv->oh ? conv->ih : cnn_min_i64(row * conv->stride[0], conv->ih);
}

int64_t cnn_depthwise_joint_rows(const cnn_conv *conv, int64_t some)
{
    return some * conv->stride[0] + cnn_max_i64(conv->ih - conv->oh * conv->stride[0], 0);
}

int64_t cnn_depthwise_joint_back_rows(const cnn_conv *conv, int64_t some)
{
    const int64_t step = conv->stride[0];
    const int64_t seen = (cnn_depthwise_joint_rows(conv, some) + conv->padding[0]) / step + 1;
    return cnn_min_i64(cnn_max_i64(some, seen) + (conv->kh - 1) / step + 1, conv->oh);
}

typedef struct joint {
    cnn_depthwise_job job;
    cnn_depthwise_strip all; /* channels */
    cnn_depthwise_band band; /* of diff_x, without its rows */
} joint;

/* Makes the rows of y's gradient that a part, and the rows of the band beside it, see, and lets them see those. */
static void make_gradient(const joint *j, const cnn_depthwise_scratch *scratch, const cnn_depthwise_band *band,
                          cnn_depthwise_tap *taps, cnn_depthwise_image *part)
{
    const cnn_conv_call *call = j->job.call;
    const cnn_conv *conv = call->conv;
    const int64_t row_floats = conv->ow * conv->oc;
    const float *y = part->diff_dst, *begin = y + part->begin * row_floats, *end = y + part->end * row_floats;
    for (int64_t r = 0; r < band->rows; r++) {
        const cnn_depthwise_row *row = &scratch->row[r];
        if (row->taps == 0) continue;
        const float *behind = row->src + (row->taps - 1) * row->src_step + row_floats;
        if (row->src < begin) begin = row->src;
        if (behind > end) end = behind;
    }
    const int64_t low = (begin - y) / row_floats;
    cnn_back_prologue_apply(call->back_prologue, call->kernels, (begin - call->y) / conv->oc, (end - begin) / conv->oc,
                            scratch->back_made);
    for (int64_t r = 0; r < band->rows; r++)
        if (scratch->row[r].taps > 0) scratch->row[r].src = scratch->back_made + (scratch->row[r].src - begin);
    for (int64_t t = 0; t < part->taps; t++) {
        const cnn_depthwise_tap *tap = &part->tap[t];
        taps[t] = (cnn_depthwise_tap){tap->k, tap->offset + low * part->row_step, tap->begin - low, tap->end - low};
    }
    part->diff_dst = scratch->back_made;
    part->begin -= low;
    part->end -= low;
    part->tap = taps;
}

static void join_share(void *arg, int64_t share, int32_t thread)
{
    const joint *j = arg;
    const cnn_depthwise_plan *plan = j->job.plan;
    const cnn_conv_call *call = j->job.call;
    const cnn_conv *conv = call->conv;
    const int64_t rows = conv->n * conv->oh, end = cnn_split(rows, plan->shares, share + 1);
    const cnn_depthwise_scratch scratch = cnn_depthwise_scratch_of(&j->job, thread);
    cnn_depthwise_tap taps[CNN_DEPTHWISE_TAPS];
    cnn_depthwise_clear_sums(&j->job, share, j->all);
    cnn_sight sight = {.piece = share, .channels = plan->channels};
    for (int64_t row = cnn_split(rows, plan->shares, share), next; row < end; row = next) {
        const int64_t image = row / conv->oh, begin = row - image * conv->oh;
        next = cnn_min_i64(cnn_min_i64(end, (image + 1) * conv->oh), row + plan->some_rows);
        const int64_t part_end = begin + next - row, first = beside(conv, begin);
        cnn_depthwise_band band = j->band;
        band.rows = beside(conv, part_end) - first;
        band.row = scratch.row;
        cnn_depthwise_list_rows(&j->job, image, first, band.rows, scratch.row);
        cnn_depthwise_image part = cnn_depthwise_part_of(&j->job, image, begin, part_end, j->all);
        if (call->back_prologue != NULL) make_gradient(j, &scratch, &band, taps, &part);
        if (call->prologue == NULL || cnn_depthwise_make_part(&j->job, scratch.made, taps, &part))
            cnn_depthwise_sum_part(&j->job, share, &part);
        cnn_depthwise_run_band(&j->job, &band);
        if (call->watch == NULL) continue;
        sight.first = (image * conv->ih + first) * conv->iw;
        sight.rows = band.rows * conv->iw;
        call->watch->see(call->watch, &sight, thread);
        sight.done += sight.rows;
    }
}

void cnn_depthwise_run_joint(const cnn_conv_call *call)
{
    const cnn_depthwise_plan plan = cnn_depthwise_plan_of(call->conv, call->pass, call->kernels);
    joint j = {.job = {.plan = &plan, .call = call}, .all = cnn_depthwise_strip_at(&plan, 0)};
    char *cursor = call->workspace;
    cnn_conv_axes_make(call->conv, CNN_CONV_BACKWARD_DATA, &cursor, &j.job.axes);
    cnn_depthwise_begin_sums(&j.job, &cursor);
    j.job.weights = j.job.to_weights = cnn_take(&cursor, plan.weights_bytes);
    cnn_depthwise_pack(&j.job);
    j.band = cnn_depthwise_band_of(&j.job, j.all);
    j.job.scratch = cursor;
    cnn_parallel(cnn_depthwise_threads(call), plan.shares, join_share, &j);
    cnn_depthwise_add_shares(&j.job, call->diff_weights);
}
