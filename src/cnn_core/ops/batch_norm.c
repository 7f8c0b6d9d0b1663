/* Batch normalization: Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
 * Covariate Shift", 2015. Instance normalization: Ulyanov, Vedaldi and Lempitsky, "Instance Normalization: The Missing
 * Ingredient for Fast Stylization", 2016. These two may keep running statistics; semantics are PyTorch's:
 *
 *   training                own statistics normalize; running ones, where present, move towards them
 *   evaluation              running statistics normalize; where absent, own ones
 *
 * The variance that normalizes is biased, the one that enters running_var unbiased. */
#include <math.h>

#include "ops/norm_columns.h"
#include "ref/ref.h"

static bool has_running(const cnn_node *node)
{
    return node->present[NORM_RUNNING_MEAN];
}

static bool uses_running(const cnn_node *node)
{
    return has_running(node) && !node->attributes.norm.training;
}

static cnn_status check_running(const cnn_node *node)
{
    const double momentum = node->attributes.norm.momentum;
    char text[CNN_SHAPE_TEXT];
    if (node->present[NORM_RUNNING_MEAN] != node->present[NORM_RUNNING_VAR])
        return cnn_fail(CNN_INVALID_VALUE, "%s: got none, expected it beside %s",
                        has_running(node) ? "running_var" : "running_mean",
                        has_running(node) ? "running_mean" : "running_var");
    if (!isfinite(momentum)) return cnn_fail(CNN_INVALID_VALUE, "momentum: got %g, expected a finite number", momentum);
    if (!node->present[NORM_NUM_BATCHES]) {
        if (momentum >= 0.0 || !has_running(node)) return CNN_OK;
        return cnn_fail(CNN_INVALID_VALUE, "num_batches: got none, but a cumulative average needs it");
    }
    const cnn_shape *shape = &node->src_shape[NORM_NUM_BATCHES];
    if (node->src_dtype[NORM_NUM_BATCHES] != CNN_INT64)
        return cnn_fail(CNN_INVALID_TYPE, "num_batches: got %s, expected int64",
                        cnn_dtype_name(node->src_dtype[NORM_NUM_BATCHES]));
    if (cnn_shape_count(shape) != 1 || shape->rank > 1)
        return cnn_fail(CNN_INVALID_VALUE, "num_batches: got shape %s, expected ()", cnn_shape_text(shape, text));
    return CNN_OK;
}

/* One number has no deviation: normalized it would be zero whatever it was. */
static cnn_status check_several(const cnn_node *node, int64_t count, const char *what)
{
    char text[CNN_SHAPE_TEXT];
    if (count != 1 || uses_running(node)) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s, expected more than 1 %s to take statistics of",
                    cnn_shape_text(&node->src_shape[NORM_SRC], text), what);
}

static cnn_status infer(cnn_node *node)
{
    CNN_TRY(cnn_norm_check_channels(node, "num_features"));
    CNN_TRY(check_running(node));
    node->dst_shape = node->src_shape[NORM_SRC];
    return CNN_OK;
}

/* Updates the running statistics from those saved of `samples` samples of `count` numbers each. */
static void update_running(const cnn_call *call, int64_t samples, int64_t count, bool counts_batches)
{
    const int64_t channels = cnn_norm_channels(call->node);
    const double *mean = call->saved, *var = mean + samples * channels;
    float *running_mean = call->src[NORM_RUNNING_MEAN], *running_var = call->src[NORM_RUNNING_VAR];
    int64_t *num_batches = call->src[NORM_NUM_BATCHES];
    double momentum = call->node->attributes.norm.momentum;
    if (!call->node->attributes.norm.training) return;
    if (num_batches != NULL && (counts_batches || momentum < 0.0)) ++*num_batches;
    if (running_mean == NULL) return;
    if (momentum < 0.0) momentum = 1.0 / (double)*num_batches;
    const double unbiased = (double)count / (double)(count - 1);
    for (int64_t c = 0; c < channels; c++) {
        double new_mean = 0.0, new_var = 0.0;
        for (int64_t s = 0; s < samples; s++) {
            new_mean += mean[s * channels + c] / (double)samples;
            new_var += var[s * channels + c] / (double)samples * unbiased;
        }
        running_mean[c] = (float)((1.0 - momentum) * (double)running_mean[c] + momentum * new_mean);
        running_var[c] = (float)((1.0 - momentum) * (double)running_var[c] + momentum * new_var);
    }
}

/* Batch normalization's view, and instance normalization's where running statistics, the same for all, normalize. */
static cnn_norm_columns whole_batch(const cnn_node *node)
{
    cnn_norm_columns view = cnn_norm_columns_of(node, false, cnn_norm_channels(node));
    view.constant = uses_running(node);
    return view;
}

/* Puts the statistics that normalize where a forward pass would have put its own. */
static void save_running(const cnn_call *call)
{
    const int64_t channels = cnn_norm_channels(call->node);
    const float *running_mean = call->src[NORM_RUNNING_MEAN], *running_var = call->src[NORM_RUNNING_VAR];
    double *mean = call->saved, *var = mean + channels;
    for (int64_t c = 0; c < channels; c++) {
        mean[c] = (double)running_mean[c];
        var[c] = (double)running_var[c];
    }
}

/* Running statistics that stay as they are make a normalization a scaling and a shift of each channel. */
static bool as_affine(const cnn_node *node, void *const *src, double *scale, double *shift)
{
    if (!uses_running(node)) return false;
    const int64_t channels = cnn_norm_channels(node);
    for (int64_t c = 0; c < channels; c++) {
        const double weight = src[NORM_WEIGHTS] == NULL ? 1.0 : cnn_norm_number(node, src[NORM_WEIGHTS], c);
        const double bias = src[NORM_BIAS] == NULL ? 0.0 : cnn_norm_number(node, src[NORM_BIAS], c);
        const double var = cnn_norm_number(node, src[NORM_RUNNING_VAR], c);
        scale[c] = weight * cnn_norm_inverse_std(var, node->attributes.norm.eps);
        shift[c] = bias - scale[c] * cnn_norm_number(node, src[NORM_RUNNING_MEAN], c);
    }
    return true;
}

/* ---- batch normalization ----------------------------------------------------------------------------------------- */

static cnn_status batch_infer(cnn_node *node)
{
    CNN_TRY(cnn_norm_check(node, 2, 4));
    CNN_TRY(infer(node));
    if (node->attributes.norm.eps == 0.0 && !uses_running(node))
        return cnn_fail(CNN_INVALID_VALUE, "eps: got 0, expected a positive number in training");
    return check_several(node, cnn_norm_per_channel(node), "value per channel");
}

static size_t batch_saved(const cnn_node *node)
{
    const cnn_norm_columns view = whole_batch(node);
    return node->deferred || node->back_deferred ? cnn_norm_columns_deferred_bytes(&view)
                                                 : cnn_norm_saved_bytes(view.channels);
}

static size_t batch_workspace(const cnn_node *node, bool backward, int32_t threads)
{
    const cnn_norm_columns view = whole_batch(node);
    return cnn_norm_workspace(cnn_norm_columns_workspace(&view, backward ? node->back_pieces : node->pieces, backward, threads),
                              view.groups, view.channels);
}

static cnn_status batch_forward(const cnn_call *call)
{
    cnn_norm_columns view = whole_batch(call->node);
    if (view.constant && !call->again) save_running(call);
    if (call->again) view.constant = true;
    cnn_norm_columns_forward(&view, call);
    if (!call->again) update_running(call, 1, view.rows, true);
    return CNN_OK;
}

static cnn_status batch_backward(const cnn_call *call)
{
    const cnn_norm_columns view = whole_batch(call->node);
    cnn_norm_columns_backward(&view, call);
    return CNN_OK;
}

static bool batch_fuses(const cnn_node *node, const cnn_epilogue *epilogue, bool backward)
{
    const cnn_norm_columns view = whole_batch(node);
    return cnn_norm_columns_fuses(&view, epilogue, backward);
}

static bool batch_watches(const cnn_node *node)
{
    return node->src_shape[NORM_SRC].rank == 4 && !uses_running(node);
}

static void batch_watch(const cnn_call *call, cnn_watch *watch)
{
    const cnn_norm_columns view = whole_batch(call->node);
    cnn_norm_columns_watch(&view, call, watch);
}

static void batch_back_watch(const cnn_call *call, cnn_watch *watch)
{
    const cnn_norm_columns view = whole_batch(call->node);
    cnn_norm_columns_back_watch(&view, call, watch);
}

static bool batch_defers(const cnn_node *node)
{
    const cnn_norm_columns view = whole_batch(node);
    return node->src_shape[NORM_SRC].rank == 4 && cnn_norm_columns_defers(&view, node);
}

static void batch_prologue(const cnn_call *call, cnn_prologue *prologue)
{
    const cnn_norm_columns view = whole_batch(call->node);
    cnn_norm_columns_prologue(&view, call, prologue);
}

static bool batch_back_defers(const cnn_node *node)
{
    return !uses_running(node) && batch_defers(node);
}

static void batch_back_prologue(const cnn_call *call, cnn_back_prologue *prologue)
{
    const cnn_norm_columns view = whole_batch(call->node);
    cnn_norm_columns_back_prologue(&view, call, prologue);
}

const cnn_op_row cnn_op_batch_norm = {
    .name = "batch_norm",
    .fields = cnn_fields_norm,
    .min_sources = 1,
    .max_sources = 6,
    .optional = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS) | SRC(NORM_RUNNING_MEAN) | SRC(NORM_RUNNING_VAR) |
                SRC(NORM_NUM_BATCHES),
    .keeps_src = SRC(NORM_SRC) | SRC(NORM_WEIGHTS) | SRC(NORM_BIAS), /* bias: behind an activation */
    .activates_again = true,
    .accumulates = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .in_place = SRC(NORM_SRC) | SRC(NORM_NUM_BATCHES + 1), /* the last: what an epilogue adds */
    .parameters = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .integers = SRC(NORM_NUM_BATCHES),
    .infer = batch_infer,
    .saved = batch_saved,
    .workspace = batch_workspace,
    .forward = batch_forward,
    .backward = batch_backward,
    .fuses = batch_fuses,
    .watches = batch_watches,
    .watch = batch_watch,
    .back_watches = batch_watches,
    .back_watch = batch_back_watch,
    .defers = batch_defers,
    .prologue = batch_prologue,
    .back_defers = batch_back_defers,
    .back_prologue = batch_back_prologue,
    .writes = SRC(NORM_RUNNING_MEAN) | SRC(NORM_RUNNING_VAR) | SRC(NORM_NUM_BATCHES),
    .as_affine = as_affine,
    .reference_forward = cnn_ref_batch_norm_forward,
    .reference_backward = cnn_ref_batch_norm_backward,
};

/* ---- instance normalization -------------------------------------------------------------------------------------- */

static cnn_norm_columns instance_view(const cnn_node *node)
{
    return uses_running(node) ? whole_batch(node) : cnn_norm_columns_of(node, true, cnn_norm_channels(node));
}

/* Means and variances that an instance normalization has. */
static int64_t instance_sets(const cnn_node *node)
{
    const cnn_norm_columns view = instance_view(node);
    return view.samples * view.groups;
}

static cnn_status instance_infer(cnn_node *node)
{
    CNN_TRY(cnn_norm_check(node, 3, 4));
    CNN_TRY(infer(node));
    int64_t spatial = 1;
    for (int32_t i = 2; i < node->dst_shape.rank; i++) spatial *= node->dst_shape.dim[i];
    return check_several(node, spatial, "spatial element");
}

static size_t instance_saved(const cnn_node *node)
{
    return cnn_norm_saved_bytes(instance_sets(node));
}

static size_t instance_workspace(const cnn_node *node, bool backward, int32_t threads)
{
    const cnn_norm_columns view = instance_view(node);
    return cnn_norm_workspace(cnn_norm_columns_workspace(&view, 0, backward, threads), instance_sets(node),
                              view.channels);
}

static cnn_status instance_forward(const cnn_call *call)
{
    const cnn_norm_columns view = instance_view(call->node);
    if (view.constant && !call->again) save_running(call);
    cnn_norm_columns_forward(&view, call);
    /* As in PyTorch, whose instance normalization never counts batches; only a cumulative average has to. */
    if (!call->again) update_running(call, view.samples, view.rows, false);
    return CNN_OK;
}

static cnn_status instance_backward(const cnn_call *call)
{
    const cnn_norm_columns view = instance_view(call->node);
    cnn_norm_columns_backward(&view, call);
    return CNN_OK;
}

const cnn_op_row cnn_op_instance_norm = {
    .name = "instance_norm",
    .fields = cnn_fields_norm,
    .min_sources = 1,
    .max_sources = 6,
    .optional = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS) | SRC(NORM_RUNNING_MEAN) | SRC(NORM_RUNNING_VAR) |
                SRC(NORM_NUM_BATCHES),
    .keeps_src = SRC(NORM_SRC) | SRC(NORM_WEIGHTS),
    .accumulates = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .in_place = SRC(NORM_SRC),
    .parameters = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .integers = SRC(NORM_NUM_BATCHES),
    .infer = instance_infer,
    .saved = instance_saved,
    .workspace = instance_workspace,
    .forward = instance_forward,
    .backward = instance_backward,
    .writes = SRC(NORM_RUNNING_MEAN) | SRC(NORM_RUNNING_VAR) | SRC(NORM_NUM_BATCHES),
    .as_affine = as_affine,
    .reference_forward = cnn_ref_instance_norm_forward,
    .reference_backward = cnn_ref_instance_norm_backward,
};
