/* Backward through an epilogue's activation. */
#ifndef CNN_OPS_EPILOGUE_H
#define CNN_OPS_EPILOGUE_H

#include "ops/op.h"

/* Activations whose derivative shows in their result, so that backward needs no other tensor: those that clamp, and
 * leaky ReLU of a positive slope. */
static inline bool cnn_epilogue_by_result(const cnn_epilogue *epilogue)
{
    const struct cnn_activation_attributes *a = &epilogue->activation;
    return a->kind == CNN_RELU || a->kind == CNN_RELU6 || (a->kind == CNN_LEAKY_RELU && a->alpha > 0.0);
}

/* diff_dst *= activation'(dst), in place, and returns it; without an activation it returns diff_dst as it is. For rows
 * whose `fuses` lets only activations by result through in backward. */
const float *cnn_epilogue_backward(const cnn_call *call);

#endif
