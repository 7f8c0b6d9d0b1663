/* Optimizers: one sweep over the parameters that reads and writes each weight, gradient and state element once. The rules
 * are those of torch.optim. */
#include <math.h>

#include "ops/sweep.h"
#include "ref/update.h"

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static cnn_status check_fraction(const char *name, double value)
{
    if (value >= 0 && value < 1) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "%s: got %g, expected a number in [0, 1)", name, value);
}

static cnn_status check_sgd(const cnn_update *update)
{
    CNN_TRY(cnn_check_not_negative("momentum", update->momentum));
    if (!isfinite(update->dampening))
        return cnn_fail(CNN_INVALID_VALUE, "dampening: got %g, expected a finite number", update->dampening);
    if (update->nesterov && !(update->momentum > 0))
        return cnn_fail(CNN_INVALID_VALUE, "nesterov: needs a momentum above 0, got %g", update->momentum);
    if (update->nesterov && update->dampening != 0)
        return cnn_fail(CNN_INVALID_VALUE, "nesterov: needs a dampening of 0, got %g", update->dampening);
    return CNN_OK;
}

static cnn_status check_rule(const cnn_update *update)
{
    if (update->step < 1)
        return cnn_fail(CNN_INVALID_VALUE, "step: got %lld, expected >= 1", (long long)update->step);
    CNN_TRY(cnn_check_not_negative("lr", update->learning_rate));
    switch (update->rule) {
    case CNN_SGD: return check_sgd(update);
    case CNN_ADAM:
    case CNN_ADAMW:
        CNN_TRY(check_fraction("beta1", update->beta1));
        CNN_TRY(check_fraction("beta2", update->beta2));
        return cnn_check_not_negative("eps", update->eps);
    case CNN_RMSPROP:
        CNN_TRY(cnn_check_not_negative("alpha", update->beta2));
        CNN_TRY(cnn_check_not_negative("momentum", update->momentum));
        return cnn_check_not_negative("eps", update->eps);
    }
    return cnn_fail(CNN_INVALID_VALUE, "rule: got %d, expected %d to %d", (int)update->rule, CNN_SGD, CNN_RMSPROP);
}

/* Whether the rule uses state buffer i. */
static bool uses_state(const cnn_update *update, int i)
{
    switch (update->rule) {
    case CNN_SGD: return i == 0 && update->momentum != 0;
    case CNN_ADAM:
    case CNN_ADAMW: return i < 2;
    case CNN_RMSPROP: return i == 0 || (i == 1 && update->momentum != 0) || (i == 2 && update->centered);
    }
    return false;
}

static cnn_status check_states(const cnn_update *update, const cnn_sweep *sweep, void *const state[3])
{
    bool any = false;
    for (int i = 0; i < 3; i++) {
        if (!uses_state(update, i)) continue;
        any = true;
        if (sweep->total > 0 && (state == NULL || state[i] == NULL))
            return cnn_fail(CNN_INVALID_VALUE, "state: buffer %d is NULL, but the rule needs it", i);
    }
    for (int64_t s = 0; any && s < sweep->num_segments; s++)
        if (sweep->segments[s].state_offset < 0)
            return cnn_fail(CNN_INVALID_VALUE, "segments: state_offset: got %lld, expected >= 0",
                            (long long)sweep->segments[s].state_offset);
    return CNN_OK;
}

/* ---- the sweep --------------------------------------------------------------------------------------------------- */

typedef struct update_work {
    const cnn_update *update;
    cnn_dtype dtype;
    void *const *state;
    cnn_update_fn *kernel;
    struct cnn_update_constants constants; /* all but what differs between segments */
} update_work;

static cnn_update_fn *kernel_of(const cnn_update *update, const struct cnn_update_kernels *kernels)
{
    switch (update->rule) {
    case CNN_SGD:
        if (update->momentum == 0) return kernels->sgd;
        return update->nesterov ? kernels->sgd_nesterov : kernels->sgd_momentum;
    case CNN_ADAM:
    case CNN_ADAMW: return kernels->adam;
    case CNN_RMSPROP: return kernels->rmsprop[update->centered != 0][update->momentum != 0];
    }
    return NULL;
}

/* rate is still to be multiplied by the segment's lr_scale. */
static struct cnn_update_constants constants_of(const cnn_update *update)
{
    struct cnn_update_constants k = {
        .gradient_scale = update->maximize ? -update->gradient_scale : update->gradient_scale,
        .rate = update->learning_rate,
        .momentum = update->momentum,
        .fresh = update->step == 1 ? 1 : 1 - update->dampening, /* the first velocity is the gradient itself */
        .beta1 = update->beta1,
        .beta2 = update->beta2,
        .eps = update->eps,
    };
    if (update->rule == CNN_ADAM || update->rule == CNN_ADAMW) {
        k.rate /= 1 - pow(update->beta1, (double)update->step);
        k.root_scale = 1 / sqrt(1 - pow(update->beta2, (double)update->step));
    }
    return k;
}

static void update_piece(void *arg, const cnn_segment *segment, int64_t start, int64_t n, int64_t task)
{
    (void)task;
    const update_work *work = arg;
    const bool decoupled = work->update->rule == CNN_ADAMW;
    struct cnn_update_constants k = work->constants;
    k.rate *= segment->lr_scale;
    k.l2 = decoupled ? 0 : segment->weight_decay;
    k.shrink = decoupled ? 1 - work->update->learning_rate * segment->lr_scale * segment->weight_decay : 1;
    void *const w = cnn_sweep_at(work->dtype, segment->weights, start);
    const void *const g = cnn_sweep_at(work->dtype, segment->diff_weights, start);
    void *state[3] = {NULL};
    for (int i = 0; i < 3; i++)
        if (uses_state(work->update, i))
            state[i] = cnn_sweep_at(work->dtype, work->state[i], segment->state_offset + start);
    if (work->dtype == CNN_FLOAT64)
        cnn_ref_update(work->update, &k, n, g, w, state[0], state[1], state[2]);
    else
        work->kernel(n, &k, g, w, state[0], state[1], state[2]);
}

cnn_status cnn_update_apply(const cnn_update *update, cnn_dtype dtype, int64_t num_segments,
                            const cnn_segment *segments, void *const state[3])
{
    cnn_sweep sweep;
    if (update == NULL) return cnn_fail(CNN_INVALID_VALUE, "update: got NULL");
    CNN_TRY(check_rule(update));
    CNN_TRY(cnn_sweep_prepare(dtype, num_segments, segments,
                              CNN_SWEEP_WEIGHTS | CNN_SWEEP_DIFF_WEIGHTS | CNN_SWEEP_LR_SCALE | CNN_SWEEP_WEIGHT_DECAY,
                              &sweep));
    CNN_TRY(check_states(update, &sweep, state));
    update_work work = {update, dtype, state, kernel_of(update, &sweep.kernels->update), constants_of(update)};
    cnn_sweep_run(&sweep, 1.0, update_piece, &work);
    return CNN_OK;
}
