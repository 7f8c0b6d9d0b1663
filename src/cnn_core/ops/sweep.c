#include "ops/sweep.h"

#include <math.h>
#include <stdbool.h>

#include "base/memory.h"
#include "thread/thread.h"

cnn_status cnn_check_not_negative(const char *name, double value)
{
    if (value >= 0 && isfinite(value)) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "%s: got %g, expected a number >= 0", name, value);
}

static cnn_status check_segment(const cnn_segment *segment, int reads)
{
    if (segment->length < 0)
        return cnn_fail(CNN_INVALID_VALUE, "length: got %lld, expected >= 0", (long long)segment->length);
    if (segment->length > 0 && (reads & CNN_SWEEP_WEIGHTS) && segment->weights == NULL)
        return cnn_fail(CNN_INVALID_VALUE, "weights: got NULL");
    if (segment->length > 0 && (reads & CNN_SWEEP_DIFF_WEIGHTS) && segment->diff_weights == NULL)
        return cnn_fail(CNN_INVALID_VALUE, "diff_weights: got NULL");
    if (reads & CNN_SWEEP_LR_SCALE) CNN_TRY(cnn_check_not_negative("lr_scale", segment->lr_scale));
    if (reads & CNN_SWEEP_WEIGHT_DECAY) CNN_TRY(cnn_check_not_negative("weight_decay", segment->weight_decay));
    return CNN_OK;
}

cnn_status cnn_sweep_prepare(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, int reads,
                             cnn_sweep *sweep)
{
    if (dtype != CNN_FLOAT32 && dtype != CNN_FLOAT64)
        return cnn_fail(CNN_INVALID_TYPE, "dtype: got %s, expected float32 or float64", cnn_dtype_name(dtype));
    if (num_segments < 0)
        return cnn_fail(CNN_INVALID_VALUE, "num_segments: got %lld, expected >= 0", (long long)num_segments);
    if (num_segments > 0 && segments == NULL) return cnn_fail(CNN_INVALID_VALUE, "segments: got NULL");
    *sweep = (cnn_sweep){.dtype = dtype, .num_segments = num_segments, .segments = segments};
    for (int64_t i = 0; i < num_segments; i++) {
        cnn_status status = check_segment(&segments[i], reads);
        if (status == CNN_OK && segments[i].length > INT64_MAX / 16 - sweep->total)
            status = cnn_fail(CNN_INVALID_VALUE, "length: got %lld, more than memory holds", (long long)segments[i].length);
        if (status != CNN_OK) return cnn_fail_in("segments", status);
        sweep->total += segments[i].length;
    }
    sweep->kernels = cnn_kernels_get();
    if (sweep->kernels == NULL) return CNN_UNSUPPORTED;
    sweep->block = cnn_max_i64(16384, cnn_ceil_div(cnn_ceil_div(sweep->total, CNN_SWEEP_TASKS), 64) * 64);
    sweep->tasks = cnn_ceil_div(sweep->total, sweep->block);
    return CNN_OK;
}

typedef struct sweep_work {
    const cnn_sweep *sweep;
    cnn_piece_fn *fn;
    void *arg;
} sweep_work;

/* Walks the segments to where the task begins; against a block of work that costs nothing. */
static void sweep_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const sweep_work *work = arg;
    const cnn_sweep *sweep = work->sweep;
    const int64_t begin = task * sweep->block, end = cnn_min_i64(begin + sweep->block, sweep->total);
    int64_t first = 0; /* where the segment begins, all laid end to end */
    for (const cnn_segment *segment = sweep->segments; first < end; first += segment++->length) {
        const int64_t from = cnn_max_i64(begin, first), to = cnn_min_i64(end, first + segment->length);
        if (from < to) work->fn(work->arg, segment, from - first, to - from, task);
    }
}

void cnn_sweep_run(const cnn_sweep *sweep, double cost, cnn_piece_fn *fn, void *arg)
{
    sweep_work work = {sweep, fn, arg};
    const int32_t threads = cnn_useful_threads(cnn_get_num_threads(), cost * (double)sweep->total);
    cnn_parallel(threads, sweep->tasks, sweep_task, &work);
}
