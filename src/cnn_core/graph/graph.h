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
    bool watched; /* an output that takes no gradient from the caller */
    bool require_gradient; /* asked for, of an input or a parameter */
} cnn_tensor;

/* A node and the values it connects. */
typedef struct cnn_step {
    cnn_node node;
    cnn_value source[CNN_MAX_SOURCES];
    cnn_value result;
} cnn_step;

struct cnn_graph {
    cnn_dtype dtype;
    int32_t num_values, num_steps;
    int32_t values_capacity, steps_capacity;
    cnn_tensor *values;
    cnn_step *steps;
};

#endif
