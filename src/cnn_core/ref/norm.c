#include <math.h>
#include <string.h>

#include "ops/norm.h"
#include "ref/ref.h"

/* All four normalizations see src as logical (n, c, l). A set is what is normalized together: some of the channels, cut
 * into groups, of one image or of all. Weights and bias go by channel. */
typedef struct norm_sets {
    int64_t n, c, l;
    int64_t groups;
    bool per_image; /* each image has sets of its own */
    bool constant;  /* the running statistics normalize */
    int64_t count;  /* of a set's numbers */
} norm_sets;

static norm_sets sets_of(const cnn_node *node, bool per_image, int64_t groups)
{
    const cnn_shape *src = &node->src_shape[NORM_SRC];
    norm_sets s = {.n = src->dim[0], .c = src->dim[1], .l = 1, .groups = groups, .per_image = per_image};
    for (int32_t i = 2; i < src->rank; i++) s.l *= src->dim[i];
    s.count = (per_image ? 1 : s.n) * (s.c / groups) * s.l;
    return s;
}

static norm_sets batch_sets(const cnn_node *node)
{
    norm_sets s = sets_of(node, false, node->src_shape[NORM_SRC].dim[1]);
    s.constant = node->present[NORM_RUNNING_MEAN] && !node->attributes.norm.training;
    return s;
}

static norm_sets instance_sets(const cnn_node *node)
{
    const norm_sets batch = batch_sets(node);
    return batch.constant ? batch : sets_of(node, true, batch.groups);
}

static norm_sets group_sets(const cnn_node *node)
{
    return sets_of(node, true, node->attributes.norm.groups);
}

/* Each element of the trailing axes is a channel. */
static norm_sets layer_sets(const cnn_node *node)
{
    const cnn_shape *src = &node->src_shape[NORM_SRC];
    norm_sets s = {.n = 1, .c = 1, .l = 1, .groups = 1, .per_image = true};
    for (int32_t i = 0; i < src->rank; i++) *(i < src->rank - node->attributes.norm.axes ? &s.n : &s.c) *= src->dim[i];
    s.count = s.c;
    return s;
}

static int64_t num_sets(const norm_sets *s)
{
    return (s->per_image ? s->n : 1) * s->groups;
}

/* The channel and the set of element i, in logical row-major order. */
static int64_t channel_of(const norm_sets *s, int64_t i)
{
    return i / s->l % s->c;
}

static int64_t set_of(const norm_sets *s, int64_t i)
{
    const int64_t image = i / s->l / s->c;
    return (s->per_image ? image * s->groups : 0) + channel_of(s, i) / (s->c / s->groups);
}

/* Where logical element i of source `source` lies; dst lies as src does. */
static int64_t offset_of(const cnn_node *node, int32_t source, int64_t i)
{
    const cnn_shape *shape = &node->src_shape[source];
    int64_t stride[CNN_MAX_RANK], offset = 0;
    cnn_shape_strides(shape, !node->row_major[source], stride);
    for (int32_t axis = shape->rank - 1; axis >= 0; axis--) {
        offset += i % shape->dim[axis] * stride[axis];
        i /= shape->dim[axis];
    }
    return offset;
}

#define REAL float
#define NAME(function) function##_f32
#include "ref/norm.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(function) function##_f64
#include "ref/norm.inc"

CNN_REFERENCE_DISPATCH(batch_norm)
CNN_REFERENCE_DISPATCH(instance_norm)
CNN_REFERENCE_DISPATCH(group_norm)
CNN_REFERENCE_DISPATCH(layer_norm)
