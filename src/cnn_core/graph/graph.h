/* What a graph holds. Values and nodes are numbered in the order of their making, which is an order to run them in. */
#ifndef CNN_GRAPH_GRAPH_H
#define CNN_GRAPH_GRAPH_H

#include "ops/op.h"

typedef enum cnn_value_kind { CNN_VALUE_INPUT, CNN_VALUE_PARAMETER, CNN_VALUE_STATE, CNN_VALUE_RESULT } cnn_value_kind;

typedef struct cnn_tensor {
    cnn_value_kind kind;
    cnn_dtype dtype;
    cnn_shape shape;
    int32_t producer; /* the node that writes a CNN_VALUE_RESULT */
    bool output;
    int32_t output_number; /* in the order of cnn_graph_output */
    bool watched; /* an output that takes no gradient from the caller */
    bool require_gradient; /* asked for, of an input or a parameter */
    char name[CNN_NAME_BYTES]; /* "": none */
} cnn_tensor;

/* A node and the values it connects. */
typedef struct cnn_step {
    cnn_node node;
    cnn_value source[CNN_MAX_SOURCES];
    cnn_value result;
} cnn_step;

struct cnn_graph {
    cnn_dtype dtype;
    int32_t num_values, num_steps, num_outputs;
    int32_t values_capacity, steps_capacity;
    cnn_tensor *values;
    cnn_step *steps;
    char *description; /* NULL: none */
    cnn_allocator allocator; /* of all of this, and of what passes over it need */
};

/* The allocator to use where the caller gave this one, or none. */
static inline cnn_allocator cnn_allocator_of(const cnn_allocator *given)
{
    return given == NULL ? (cnn_allocator){0} : *given;
}

/* to = a copy with memory from to->allocator, which is set already; on failure to is for cnn_graph_clear. */
cnn_status cnn_graph_copy(const cnn_graph *from, cnn_graph *to);
/* Releases what the graph holds, but not the graph. */
void cnn_graph_clear(cnn_graph *graph);
/* A value that nothing makes; for places that an operation leaves empty. */
cnn_status cnn_graph_placeholder(cnn_graph *graph, cnn_value *value);

#endif
