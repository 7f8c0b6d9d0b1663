/* Loop nests over strided operands: what broadcasting, slicing and joining have in common.
 *
 * Each operand is a tensor read or written through element strides, one for each axis of a common index space; stride 0
 * repeats it along that axis. Axes of size 1 are dropped and neighbours that every operand runs through as through one
 * are merged, so that tensors of one layout come down to a single axis. */
#ifndef CNN_OPS_NEST_H
#define CNN_OPS_NEST_H

#include "ops/op.h"

#define CNN_NEST_OPERANDS 5

typedef struct cnn_nest {
    int32_t operands;
    int32_t rank;                   /* at least 1 */
    int64_t size[CNN_MAX_RANK];     /* outermost first; none is 0 unless the whole space is empty */
    int64_t stride[CNN_NEST_OPERANDS][CNN_MAX_RANK];
} cnn_nest;

/* The index space `space`, walked in the order of memory of operand 0, the one of the largest strides first. */
cnn_nest cnn_nest_make(const cnn_shape *space, int32_t operands, int64_t stride[][CNN_MAX_RANK]);

/* stride = those of source i of the node, stretched to `space` by NumPy's rules: 0 where it repeats. */
void cnn_source_strides(const cnn_node *node, int32_t i, const cnn_shape *space, int64_t stride[CNN_MAX_RANK]);

/* The shape that a and b broadcast to by NumPy's rules; fails, calling b `name`, if they do not. */
cnn_status cnn_broadcast_shape(const cnn_shape *a, const cnn_shape *b, const char *name, cnn_shape *shape);

/* A place in the nest: each operand's offset in elements. */
typedef struct cnn_nest_cursor {
    int64_t index[CNN_MAX_RANK];
    int64_t offset[CNN_NEST_OPERANDS];
} cnn_nest_cursor;

/* To the position `flat` of the `axes` outermost axes, counted in row order. */
void cnn_nest_seek(const cnn_nest *nest, int32_t axes, int64_t flat, cnn_nest_cursor *cursor);
/* One position on. */
void cnn_nest_next(const cnn_nest *nest, int32_t axes, cnn_nest_cursor *cursor);

/* The strides of operand i along the two innermost axes, the rows and their elements. */
static inline int64_t cnn_nest_step(const cnn_nest *nest, int32_t i)
{
    return nest->stride[i][nest->rank - 1];
}

static inline int64_t cnn_nest_pitch(const cnn_nest *nest, int32_t i)
{
    return nest->rank > 1 ? nest->stride[i][nest->rank - 2] : 0;
}

/* Works on rows x n elements, the operands beginning at offset[]. */
typedef void cnn_nest_fn(void *arg, int64_t task, const int64_t *offset, int64_t rows, int64_t n);

/* How cnn_nest_run cuts the nest, by its shape alone; a task may call the function several times. */
int64_t cnn_nest_tasks(const cnn_nest *nest);
/* Calls fn for the whole nest, tasks in parallel. `cost` is the time of one element in nanoseconds. */
void cnn_nest_run(const cnn_nest *nest, int32_t threads, double cost, cnn_nest_fn *fn, void *arg);

/* Operand 0 of a nest of two gets `=` operand 1. */
void cnn_nest_copy(const cnn_nest *nest, int32_t threads, const float *src, float *dst);
/* The same, `+=`. No two of operand 0's elements are one. */
void cnn_nest_add(const cnn_nest *nest, int32_t threads, const float *src, float *dst);

#endif
