/* What a dropout's mask is, for the kernels and the reference alike. */
#ifndef CNN_OPS_DROPOUT_H
#define CNN_OPS_DROPOUT_H

#include "base/random.h"
#include "ops/op.h"

/* What forward leaves for backward, which makes the mask anew from it. */
typedef struct cnn_dropout_saved {
    uint64_t seed, call;
} cnn_dropout_saved;

/* Number i, an element in memory order or a plane (n, c) counted n C + c, is dropped where word i of the stream is below the
 * threshold, else multiplied by scale. */
typedef struct cnn_dropout_mask {
    cnn_random_stream stream;
    uint32_t threshold;
    double scale;
} cnn_dropout_mask;

static inline cnn_dropout_mask cnn_dropout_mask_of(const cnn_call *call)
{
    const cnn_dropout_saved *saved = call->saved;
    const double p = call->node->attributes.dropout.p, threshold = p * 4294967296.0;
    cnn_dropout_mask mask = {
        /* Streams whose high word is 0 belong to cnn_fill_uniform and cnn_fill_normal. */
        .stream = {.seed = saved->seed, .high = (uint32_t)(call->node->id + 1) << 12, .low = saved->call},
        .threshold = threshold < 4294967295.0 ? (uint32_t)threshold : UINT32_MAX,
        .scale = p < 1 ? 1 / (1 - p) : 0,
    };
    return mask;
}

/* True where dropout does nothing. */
static inline bool cnn_dropout_is_identity(const cnn_node *node)
{
    return !node->attributes.dropout.training || node->attributes.dropout.p == 0;
}

/* factor[i] = 0 or scale */
static inline void cnn_dropout_factors(const cnn_dropout_mask *mask, int64_t n, float *factor)
{
    uint32_t words[CNN_RANDOM_GROUP];
    for (int64_t i = 0; i < n; i++) {
        if (i % CNN_RANDOM_GROUP == 0) cnn_random_words(&mask->stream, (uint64_t)i / CNN_RANDOM_GROUP, words);
        factor[i] = words[i % CNN_RANDOM_GROUP] < mask->threshold ? 0.0f : (float)mask->scale;
    }
}

#endif
