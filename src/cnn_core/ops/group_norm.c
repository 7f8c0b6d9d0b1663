/* Group normalization: Wu and He, "Group Normalization", 2018. */
#include "ops/norm_columns.h"
#include "ref/ref.h"

static cnn_norm_columns view_of(const cnn_node *node)
{
    return cnn_norm_columns_of(node, true, node->attributes.norm.groups);
}

static cnn_status infer(cnn_node *node)
{
    CNN_TRY(cnn_norm_check(node, 2, 4));
    const int64_t channels = cnn_norm_channels(node), groups = node->attributes.norm.groups;
    CNN_TRY(cnn_norm_check_channels(node, "num_channels"));
    if (groups <= 0 || channels % groups != 0)
        return cnn_fail(CNN_INVALID_VALUE, "num_groups: got %lld, expected a positive divisor of the %lld channels",
                        (long long)groups, (long long)channels);
    node->dst_shape = node->src_shape[NORM_SRC];
    return CNN_OK;
}

static size_t saved(const cnn_node *node)
{
    const cnn_norm_columns view = view_of(node);
    return cnn_norm_saved_bytes(view.samples * view.groups);
}

static size_t workspace(const cnn_node *node, bool backward, int32_t threads)
{
    const cnn_norm_columns view = view_of(node);
    return cnn_norm_workspace(cnn_norm_columns_workspace(&view, 0, backward, threads), view.samples * view.groups,
                              view.channels);
}

static cnn_status forward(const cnn_call *call)
{
    const cnn_norm_columns view = view_of(call->node);
    cnn_norm_columns_forward(&view, call);
    return CNN_OK;
}

static cnn_status backward(const cnn_call *call)
{
    const cnn_norm_columns view = view_of(call->node);
    cnn_norm_columns_backward(&view, call);
    return CNN_OK;
}

const cnn_op_row cnn_op_group_norm = {
    .name = "group_norm",
    .fields = cnn_fields_norm,
    .min_sources = 1,
    .max_sources = 3,
    .optional = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .keeps_src = SRC(NORM_SRC) | SRC(NORM_WEIGHTS),
    .accumulates = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .in_place = SRC(NORM_SRC),
    .parameters = SRC(NORM_WEIGHTS) | SRC(NORM_BIAS),
    .infer = infer,
    .saved = saved,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .reference_forward = cnn_ref_group_norm_forward,
    .reference_backward = cnn_ref_group_norm_backward,
};
