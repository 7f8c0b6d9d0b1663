/* A training step in one call. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "graph/plan.h"
#include "ops/sweep.h"

static void clear_piece(void *arg, const cnn_segment *segment, int64_t start, int64_t n, int64_t task)
{
    (void)task;
    const cnn_dtype *dtype = arg;
    memset(cnn_sweep_at(*dtype, segment->diff_weights, start), 0, (size_t)n * cnn_dtype_bytes(*dtype));
}

static cnn_status clear_gradients(const cnn_training *training)
{
    cnn_sweep sweep;
    cnn_dtype dtype = training->dtype;
    CNN_TRY(cnn_sweep_prepare(dtype, training->num_trained, training->trained, CNN_SWEEP_DIFF_WEIGHTS, &sweep));
    cnn_sweep_run(&sweep, 0.1, clear_piece, &dtype);
    return CNN_OK;
}

static cnn_status add_penalty(const cnn_training *training, double *penalty)
{
    const int64_t count = training->num_penalized;
    const cnn_segment *segments = training->penalized;
    double smooth = 0.0, absolute = 0.0;
    if (count == 0) return CNN_OK;
    if (!training->proximal)
        return cnn_penalty(training->dtype, count, segments, training->l1, training->l2, 1, penalty);
    CNN_TRY(cnn_penalty(training->dtype, count, segments, 0.0, training->l2, 1, &smooth));
    CNN_TRY(cnn_penalty(training->dtype, count, segments, training->l1, 0.0, 0, &absolute));
    *penalty = smooth + absolute;
    return CNN_OK;
}

/* What each gradient is to be multiplied by: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
 * networks", 2013. */
static cnn_status clip(const cnn_training *training, double *norm, double *scale)
{
    *scale = 1.0;
    *norm = 0.0;
    if (!(training->clip_norm > 0.0)) return CNN_OK;
    CNN_TRY(cnn_gradient_norm(training->dtype, training->num_trained, training->trained, 0, norm));
    const double wanted = training->clip_norm / (*norm + 1e-6);
    if (!(wanted >= 1.0)) *scale = wanted;
    return CNN_OK;
}

static cnn_status update_group(const cnn_training *training, const cnn_update_group *group, double scale)
{
    cnn_update update = group->update;
    update.gradient_scale *= scale;
    CNN_TRY(cnn_update_apply(&update, training->dtype, group->num_segments, group->segments, group->state));
    if (group->num_shrunk == 0) return CNN_OK;
    return cnn_soft_threshold(training->dtype, group->num_shrunk, group->shrunk, group->threshold);
}

static cnn_status train(cnn_context *context, const cnn_training *training, double *penalty, double *norm)
{
    double own_penalty = 0.0, own_norm = 0.0, scale;
    if (!training->accumulate) CNN_TRY(clear_gradients(training));
    CNN_TRY(cnn_context_forward(context));
    CNN_TRY(cnn_context_backward(context));
    if (!training->postpone) {
        CNN_TRY(add_penalty(training, &own_penalty));
        CNN_TRY(clip(training, &own_norm, &scale));
        for (int32_t g = 0; g < training->num_groups; g++)
            CNN_TRY(update_group(training, &training->groups[g], scale));
        if (training->num_averaged > 0)
            CNN_TRY(cnn_average_apply(training->dtype, training->num_averaged, training->averaged,
                                      training->average_decay, training->average));
    }
    if (penalty != NULL) *penalty = own_penalty;
    if (norm != NULL) *norm = own_norm;
    return CNN_OK;
}

cnn_status cnn_context_train(cnn_context *context, const cnn_training *training, double *penalty, double *norm)
{
    const cnn_executor *before = cnn_context_enter(context);
    const cnn_status status = train(context, training, penalty, norm);
    (void)cnn_use_executor(before);
    return status;
}
