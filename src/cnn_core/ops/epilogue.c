#include "ops/epilogue.h"

#define BLOCK 16384

static void mask_block(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const cnn_call *call = arg;
    const cnn_node *node = call->node;
    const struct cnn_activation_attributes *a = &node->epilogue.activation;
    const int64_t first = task * BLOCK, count = cnn_shape_count(&node->dst_shape) - first;
    float *diff = (float *)(uintptr_t)call->diff_dst + first;
    node->kernels->activation.backward[a->kind](cnn_min_i64(count, BLOCK), (const float *)call->dst + first, diff, diff,
                                                (float)a->alpha, (float)a->beta, false);
}

const float *cnn_epilogue_backward(const cnn_call *call)
{
    if (!call->node->epilogue.activates) return call->diff_dst;
    const int64_t count = cnn_shape_count(&call->node->dst_shape);
    cnn_call copy = *call;
    cnn_parallel(cnn_useful_threads(call->threads, 0.2 * (double)count), cnn_ceil_div(count, BLOCK), mask_block, &copy);
    return call->diff_dst;
}
