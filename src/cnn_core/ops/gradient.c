/* The norm of all gradients together, and their scaling: what clipping by norm is made of. */
#include <math.h>

#include "ops/sweep.h"
#include "ref/update.h"

typedef struct norm_work {
    const cnn_sweep *sweep;
    bool infinity;
    double partial[CNN_SWEEP_TASKS]; /* of each task: the sum of squares, or the largest magnitude */
} norm_work;

/* The larger; NaN if either is. */
static double larger(double a, double b)
{
    return a > b || isnan(a) ? a : b;
}

static void norm_piece(void *arg, const cnn_segment *segment, int64_t start, int64_t n, int64_t task)
{
    norm_work *work = arg;
    const struct cnn_update_kernels *kernels = &work->sweep->kernels->update;
    const bool wide = work->sweep->dtype == CNN_FLOAT64;
    const void *g = cnn_sweep_at(work->sweep->dtype, segment->diff_weights, start);
    double *partial = &work->partial[task];
    if (work->infinity) {
        *partial = larger(*partial, wide ? cnn_ref_max_abs(n, g) : (double)kernels->max_abs(n, g));
    } else {
        double sums[2];
        if (wide)
            cnn_ref_sums(n, g, sums);
        else
            kernels->sums(n, g, sums);
        *partial += sums[1];
    }
}

cnn_status cnn_gradient_norm(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, int32_t infinity,
                             double *norm)
{
    cnn_sweep sweep;
    if (norm == NULL) return cnn_fail(CNN_INVALID_VALUE, "norm: got NULL");
    CNN_TRY(cnn_sweep_prepare(dtype, num_segments, segments, CNN_SWEEP_DIFF_WEIGHTS, &sweep));
    norm_work work = {.sweep = &sweep, .infinity = infinity != 0};
    cnn_sweep_run(&sweep, 0.3, norm_piece, &work);
    double total = 0;
    for (int64_t i = 0; i < sweep.tasks; i++)
        total = work.infinity ? larger(total, work.partial[i]) : total + work.partial[i];
    *norm = work.infinity ? total : sqrt(total);
    return CNN_OK;
}

typedef struct scale_work {
    const cnn_sweep *sweep;
    double scale;
} scale_work;

static void scale_piece(void *arg, const cnn_segment *segment, int64_t start, int64_t n, int64_t task)
{
    (void)task;
    const scale_work *work = arg;
    void *g = cnn_sweep_at(work->sweep->dtype, segment->diff_weights, start);
    if (work->sweep->dtype == CNN_FLOAT64)
        cnn_ref_scale(n, work->scale, g);
    else
        work->sweep->kernels->update.scale(n, (float)work->scale, g);
}

cnn_status cnn_gradient_scale(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double scale)
{
    cnn_sweep sweep;
    CNN_TRY(cnn_sweep_prepare(dtype, num_segments, segments, CNN_SWEEP_DIFF_WEIGHTS, &sweep));
    scale_work work = {&sweep, scale};
    cnn_sweep_run(&sweep, 0.3, scale_piece, &work);
    return CNN_OK;
}
