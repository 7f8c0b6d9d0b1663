#include "ops/loss.h"

cnn_status cnn_loss_check_reduction(const cnn_node *node)
{
    const cnn_reduction reduction = node->attributes.loss.reduction;
    if (reduction == CNN_REDUCE_NONE || reduction == CNN_REDUCE_MEAN || reduction == CNN_REDUCE_SUM) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "reduction: got %d, expected none (%d), mean (%d) or sum (%d)", (int)reduction,
                    CNN_REDUCE_NONE, CNN_REDUCE_MEAN, CNN_REDUCE_SUM);
}

/* The index of element `flat` of the targets, in place of a shape. */
static cnn_shape place_of(const cnn_shape *targets, int64_t flat)
{
    cnn_shape place = *targets;
    for (int32_t axis = targets->rank - 1; axis >= 0; axis--) {
        place.dim[axis] = flat % targets->dim[axis];
        flat /= targets->dim[axis];
    }
    return place;
}

cnn_status cnn_loss_check_targets(const cnn_node *node, const int64_t *targets)
{
    const int64_t count = cnn_shape_count(&node->src_shape[1]), classes = node->src_shape[0].dim[1];
    const int64_t ignored = node->attributes.loss.ignore_index;
    for (int64_t i = 0; i < count; i++) {
        if ((targets[i] >= 0 && targets[i] < classes) || targets[i] == ignored) continue;
        char text[CNN_SHAPE_TEXT];
        const cnn_shape place = place_of(&node->src_shape[1], i);
        return cnn_fail(CNN_INVALID_VALUE,
                        "targets: got %lld at %s, expected a class from 0 to %lld (of %lld) or ignore_index %lld",
                        (long long)targets[i], cnn_shape_text(&place, text), (long long)(classes - 1),
                        (long long)classes, (long long)ignored);
    }
    return CNN_OK;
}

cnn_status cnn_loss_check_constant(const cnn_node *node)
{
    for (int32_t i = 2; i < node->num_sources; i++)
        if (node->wanted[i])
            return cnn_fail(CNN_UNSUPPORTED, "%s: a loss's weights are constants, they have no gradient",
                            i == 2 ? "weight" : "pos_weight");
    return CNN_OK;
}
