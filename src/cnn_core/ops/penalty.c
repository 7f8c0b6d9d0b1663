/* L1, L2 and elastic-net penalties on weights: value, gradient, and the proximal step of L1. */
#include "base/memory.h"
#include "ops/sweep.h"
#include "ref/update.h"

typedef struct penalty_work {
    const cnn_sweep *sweep;
    double l1, l2;
    bool add_gradient;
    double partial[CNN_SWEEP_TASKS][2]; /* sums of |w| and of w^2 of each task */
} penalty_work;

/* Value and gradient of a chunk that stays in the nearest cache between the two. */
static void penalty_chunk(penalty_work *work, const void *w, void *g, int64_t n, double partial[2])
{
    const struct cnn_update_kernels *kernels = &work->sweep->kernels->update;
    double sums[2];
    if (work->sweep->dtype == CNN_FLOAT64) {
        cnn_ref_sums(n, w, sums);
        if (work->add_gradient) cnn_ref_penalty_gradient(n, work->l1, 2 * work->l2, w, g);
    } else {
        kernels->sums(n, w, sums);
        if (work->add_gradient) kernels->penalty_gradient(n, (float)work->l1, (float)(2 * work->l2), w, g);
    }
    partial[0] += sums[0];
    partial[1] += sums[1];
}

static void penalty_piece(void *arg, const cnn_segment *segment, int64_t start, int64_t n, int64_t task)
{
    penalty_work *work = arg;
    const cnn_dtype dtype = work->sweep->dtype;
    const int64_t chunk = 2048;
    for (int64_t i = 0; i < n; i += chunk) {
        const void *w = cnn_sweep_at(dtype, segment->weights, start + i);
        void *g = work->add_gradient ? cnn_sweep_at(dtype, segment->diff_weights, start + i) : NULL;
        penalty_chunk(work, w, g, cnn_min_i64(chunk, n - i), work->partial[task]);
    }
}

cnn_status cnn_penalty(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double l1, double l2,
                       int32_t add_gradient, double *penalty)
{
    cnn_sweep sweep;
    if (penalty == NULL) return cnn_fail(CNN_INVALID_VALUE, "penalty: got NULL");
    CNN_TRY(cnn_check_not_negative("l1", l1));
    CNN_TRY(cnn_check_not_negative("l2", l2));
    const int reads = add_gradient ? CNN_SWEEP_WEIGHTS | CNN_SWEEP_DIFF_WEIGHTS : CNN_SWEEP_WEIGHTS;
    CNN_TRY(cnn_sweep_prepare(dtype, num_segments, segments, reads, &sweep));
    penalty_work work = {.sweep = &sweep, .l1 = l1, .l2 = l2, .add_gradient = add_gradient != 0};
    cnn_sweep_run(&sweep, 0.5, penalty_piece, &work);
    double sums[2] = {0, 0};
    for (int64_t i = 0; i < sweep.tasks; i++) {
        sums[0] += work.partial[i][0];
        sums[1] += work.partial[i][1];
    }
    /* A part whose factor is 0 is not there, however large its sum. */
    *penalty = (l1 == 0 ? 0 : l1 * sums[0]) + (l2 == 0 ? 0 : l2 * sums[1]);
    return CNN_OK;
}

typedef struct threshold_work {
    const cnn_sweep *sweep;
    double threshold;
} threshold_work;

static void threshold_piece(void *arg, const cnn_segment *segment, int64_t start, int64_t n, int64_t task)
{
    (void)task;
    const threshold_work *work = arg;
    const double threshold = work->threshold * segment->lr_scale;
    void *w = cnn_sweep_at(work->sweep->dtype, segment->weights, start);
    if (work->sweep->dtype == CNN_FLOAT64)
        cnn_ref_soft_threshold(n, threshold, w);
    else
        work->sweep->kernels->update.soft_threshold(n, (float)threshold, w);
}

cnn_status cnn_soft_threshold(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double threshold)
{
    cnn_sweep sweep;
    CNN_TRY(cnn_check_not_negative("threshold", threshold));
    CNN_TRY(cnn_sweep_prepare(dtype, num_segments, segments, CNN_SWEEP_WEIGHTS | CNN_SWEEP_LR_SCALE, &sweep));
    threshold_work work = {&sweep, threshold};
    cnn_sweep_run(&sweep, 0.3, threshold_piece, &work);
    return CNN_OK;
}
