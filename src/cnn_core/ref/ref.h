/* The scalar reference of every operation: the oracle of the C tests and the float64 path. Written for clarity, in logical
 * coordinates and any dense layout. A family's loops stand once in ref/<family>.inc, in terms of REAL, and are compiled
 * for float and double by ref/<family>.c. */
#ifndef CNN_REF_REF_H
#define CNN_REF_REF_H

#include "ops/op.h"

#define CNN_REFERENCE(op)                                   \
    cnn_status cnn_ref_##op##_forward(const cnn_call *call); \
    cnn_status cnn_ref_##op##_backward(const cnn_call *call)

CNN_REFERENCE(conv2d);
CNN_REFERENCE(conv_transpose2d);
CNN_REFERENCE(linear);
CNN_REFERENCE(batch_norm);
CNN_REFERENCE(instance_norm);
CNN_REFERENCE(group_norm);
CNN_REFERENCE(layer_norm);
CNN_REFERENCE(activation);
CNN_REFERENCE(prelu);
CNN_REFERENCE(softmax);
CNN_REFERENCE(log_softmax);
CNN_REFERENCE(max_pool2d);
CNN_REFERENCE(avg_pool2d);
CNN_REFERENCE(adaptive_avg_pool2d);
CNN_REFERENCE(upsample_nearest);
CNN_REFERENCE(upsample_bilinear);
CNN_REFERENCE(dropout);
CNN_REFERENCE(reshape);
CNN_REFERENCE(add);
CNN_REFERENCE(multiply);
CNN_REFERENCE(affine);
CNN_REFERENCE(concat);
CNN_REFERENCE(slice);
CNN_REFERENCE(cross_entropy);
CNN_REFERENCE(nll);
CNN_REFERENCE(mse);
CNN_REFERENCE(l1);
CNN_REFERENCE(bce_with_logits);

/* Defines cnn_ref_<op>_forward and _backward, which call the float or the double body by the node's type. */
#define CNN_REFERENCE_DISPATCH(op)                                                                                \
    cnn_status cnn_ref_##op##_forward(const cnn_call *call)                                                       \
    {                                                                                                             \
        return call->node->dtype == CNN_FLOAT64 ? op##_forward_f64(call) : op##_forward_f32(call);                \
    }                                                                                                             \
    cnn_status cnn_ref_##op##_backward(const cnn_call *call)                                                      \
    {                                                                                                             \
        return call->node->dtype == CNN_FLOAT64 ? op##_backward_f64(call) : op##_backward_f32(call);              \
    }

#endif
