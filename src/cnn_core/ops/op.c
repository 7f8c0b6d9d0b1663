#include "ops/op.h"

const cnn_op_row *const cnn_op_table[CNN_OP_COUNT] = {
    [CNN_OP_CONV2D] = &cnn_op_conv2d,
    [CNN_OP_CONV_TRANSPOSE2D] = &cnn_op_conv_transpose2d,
    [CNN_OP_LINEAR] = &cnn_op_linear,
    [CNN_OP_BATCH_NORM] = &cnn_op_batch_norm,
    [CNN_OP_INSTANCE_NORM] = &cnn_op_instance_norm,
    [CNN_OP_GROUP_NORM] = &cnn_op_group_norm,
    [CNN_OP_LAYER_NORM] = &cnn_op_layer_norm,
    [CNN_OP_ACTIVATION] = &cnn_op_activation,
    [CNN_OP_PRELU] = &cnn_op_prelu,
    [CNN_OP_SOFTMAX] = &cnn_op_softmax,
    [CNN_OP_LOG_SOFTMAX] = &cnn_op_log_softmax,
    [CNN_OP_MAX_POOL2D] = &cnn_op_max_pool2d,
    [CNN_OP_AVG_POOL2D] = &cnn_op_avg_pool2d,
    [CNN_OP_ADAPTIVE_AVG_POOL2D] = &cnn_op_adaptive_avg_pool2d,
    [CNN_OP_UPSAMPLE_NEAREST] = &cnn_op_upsample_nearest,
    [CNN_OP_UPSAMPLE_BILINEAR] = &cnn_op_upsample_bilinear,
    [CNN_OP_DROPOUT] = &cnn_op_dropout,
    [CNN_OP_RESHAPE] = &cnn_op_reshape,
    [CNN_OP_ADD] = &cnn_op_add,
    [CNN_OP_MULTIPLY] = &cnn_op_multiply,
    [CNN_OP_AFFINE] = &cnn_op_affine,
    [CNN_OP_CONCAT] = &cnn_op_concat,
    [CNN_OP_SLICE] = &cnn_op_slice,
    [CNN_OP_CROSS_ENTROPY] = &cnn_op_cross_entropy,
    [CNN_OP_NLL] = &cnn_op_nll,
    [CNN_OP_MSE] = &cnn_op_mse,
    [CNN_OP_L1] = &cnn_op_l1,
    [CNN_OP_BCE_WITH_LOGITS] = &cnn_op_bce_with_logits,
};

cnn_status cnn_check_rank(const cnn_node *node, int32_t i, const char *name, int32_t rank)
{
    if (node->src_shape[i].rank == rank) return CNN_OK;
    char text[CNN_SHAPE_TEXT];
    return cnn_fail(CNN_INVALID_VALUE, "%s: got shape %s, expected %d dimensions%s", name,
                    cnn_shape_text(&node->src_shape[i], text), rank, rank == 4 ? " (n, c, h, w)" : "");
}

cnn_status cnn_check_shape(const cnn_node *node, int32_t i, const char *name, const cnn_shape *wanted)
{
    if (!node->present[i] || cnn_shape_equal(&node->src_shape[i], wanted)) return CNN_OK;
    char got[CNN_SHAPE_TEXT], text[CNN_SHAPE_TEXT];
    return cnn_fail(CNN_INVALID_VALUE, "%s: got shape %s, expected %s", name,
                    cnn_shape_text(&node->src_shape[i], got), cnn_shape_text(wanted, text));
}

cnn_status cnn_check_length(const cnn_node *node, int32_t i, const char *name, int64_t length)
{
    const cnn_shape wanted = {.rank = 1, .dim = {length}};
    return cnn_check_shape(node, i, name, &wanted);
}
