/* Moving averages of weights: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; in the
 * exponential form that is usual in deep learning. */
#include "ops/sweep.h"

typedef struct average_work {
    cnn_dtype dtype;
    double decay;
    void *average;
} average_work;

static void average_piece(void *arg, const cnn_segment *segment, int64_t start, int64_t n, int64_t task)
{
    (void)task;
    const average_work *work = arg;
    const void *weights = cnn_sweep_at(work->dtype, segment->weights, start);
    void *average = cnn_sweep_at(work->dtype, work->average, segment->state_offset + start);
    if (work->dtype == CNN_FLOAT64) {
        const double *w = weights;
        double *a = average;
        for (int64_t i = 0; i < n; i++) a[i] += (1.0 - work->decay) * (w[i] - a[i]);
    } else {
        const float *w = weights, rest = (float)(1.0 - work->decay);
        float *a = average;
        for (int64_t i = 0; i < n; i++) a[i] += rest * (w[i] - a[i]);
    }
}

cnn_status cnn_average_apply(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double decay,
                             void *average)
{
    cnn_sweep sweep;
    if (!(decay >= 0.0 && decay <= 1.0))
        return cnn_fail(CNN_INVALID_VALUE, "decay: got %g, expected a number in [0, 1]", decay);
    CNN_TRY(cnn_sweep_prepare(dtype, num_segments, segments, CNN_SWEEP_WEIGHTS, &sweep));
    if (average == NULL && sweep.total > 0) return cnn_fail(CNN_INVALID_VALUE, "average: got NULL");
    for (int64_t s = 0; s < num_segments; s++)
        if (segments[s].state_offset < 0)
            return cnn_fail(CNN_INVALID_VALUE, "segments: state_offset: got %lld, expected >= 0",
                            (long long)segments[s].state_offset);
    average_work work = {dtype, decay, average};
    cnn_sweep_run(&sweep, 0.4, average_piece, &work);
    return CNN_OK;
}
