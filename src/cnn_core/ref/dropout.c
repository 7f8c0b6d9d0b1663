#include "ops/dropout.h"

#include "ref/ref.h"

/* Which random word decides over the element at this place in memory. */
static int64_t word_at(const cnn_node *node, const int64_t *stride, int64_t offset)
{
    const cnn_shape *shape = &node->dst_shape;
    if (!node->attributes.dropout.per_channel) return offset;
    return offset / stride[0] * shape->dim[1] + offset / stride[1] % shape->dim[1];
}

static uint32_t random_word(const cnn_random_stream *stream, int64_t i)
{
    uint32_t words[CNN_RANDOM_GROUP];
    cnn_random_words(stream, (uint64_t)i / CNN_RANDOM_GROUP, words);
    return words[i % CNN_RANDOM_GROUP];
}

#define REAL float
#define NAME(function) function##_f32
#include "ref/dropout.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(function) function##_f64
#include "ref/dropout.inc"

CNN_REFERENCE_DISPATCH(dropout)
