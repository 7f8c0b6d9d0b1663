/* What operations share that take one source and work on its elements where they lie. */
#ifndef CNN_OPS_ELEMENTWISE_H
#define CNN_OPS_ELEMENTWISE_H

#include "base/memory.h"
#include "ops/check.h"

/* A result larger than this is gone from the caches before anybody reads it: it is stored past them, which saves reading
 * what is overwritten. Measured: docs/activations.md. */
#define CNN_STREAM_BYTES ((int64_t)12 << 20)

/* Whether `count` floats at dst, which come from src, are stored past the caches: where dst lies apart and takes aligned
 * vectors. The numbers are the same either way. */
static inline bool cnn_streams(int64_t count, const void *src, const void *dst)
{
    return count >= CNN_STREAM_BYTES / (int64_t)sizeof(float) && src != dst && (uintptr_t)dst % CNN_ALIGNMENT == 0;
}

/* Fails unless source 0 is of the working type and lies as a result of its shape does. */
static inline cnn_status cnn_check_elementwise(const cnn_node *node)
{
    CNN_TRY(cnn_check_working_type(node, 0, "x"));
    if (node->row_major[0] && node->src_shape[0].rank == 4)
        return cnn_fail(CNN_UNSUPPORTED, "x: got a parameter or state of rank 4, expected an activation (channels-last)");
    return CNN_OK;
}

/* A tensor in memory order as (outer, channels, inner), channels being axis 1; channels-last, inner is 1. */
typedef struct cnn_channel_space {
    int64_t outer, channels, inner;
} cnn_channel_space;

static inline cnn_channel_space cnn_channel_space_of(const cnn_shape *shape)
{
    cnn_channel_space space = {1, 1, 1};
    for (int32_t i = 0; i < shape->rank; i++) {
        if (i == 1)
            space.channels = shape->dim[1];
        else if (i == 0 || shape->rank == 4)
            space.outer *= shape->dim[i];
        else
            space.inner *= shape->dim[i];
    }
    return space;
}

#endif
