/* Checks that the losses and their references share. */
#ifndef CNN_OPS_LOSS_H
#define CNN_OPS_LOSS_H

#include "ops/op.h"

/* Fails unless attributes.loss.reduction is one of the three. */
cnn_status cnn_loss_check_reduction(const cnn_node *node);

/* Fails unless every target, source 1, is a class of the scores, source 0, or attributes.loss.ignore_index. */
cnn_status cnn_loss_check_targets(const cnn_node *node, const int64_t *targets);

/* Fails where the gradient of a weight, source 2 or 3, is wanted. */
cnn_status cnn_loss_check_constant(const cnn_node *node);

#endif
