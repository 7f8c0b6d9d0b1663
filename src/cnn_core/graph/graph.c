/* Building a graph: values, and operations that infer their result's shape. */
#include "graph/graph.h"

#include <string.h>

#include "base/text.h"

cnn_status cnn_graph_create_with(cnn_dtype dtype, const cnn_allocator *allocator, cnn_graph **graph)
{
    *graph = NULL;
    if (dtype != CNN_FLOAT32 && dtype != CNN_FLOAT64)
        return cnn_fail(CNN_INVALID_TYPE, "dtype: a graph computes in float32 or float64");
    CNN_TRY(cnn_initialize());
    const cnn_allocator own = cnn_allocator_of(allocator);
    cnn_graph *made = cnn_allocate_zeroed(&own, 1, sizeof *made);
    if (made == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a graph");
    made->dtype = dtype;
    made->allocator = own;
    *graph = made;
    return CNN_OK;
}

cnn_status cnn_graph_create(cnn_dtype dtype, cnn_graph **graph) { return cnn_graph_create_with(dtype, NULL, graph); }

void cnn_graph_clear(cnn_graph *graph)
{
    cnn_release(&graph->allocator, graph->values);
    cnn_release(&graph->allocator, graph->steps);
    cnn_release(&graph->allocator, graph->description);
}

void cnn_graph_free(cnn_graph *graph)
{
    if (graph == NULL) return;
    const cnn_allocator allocator = graph->allocator;
    cnn_graph_clear(graph);
    cnn_release(&allocator, graph);
}

static void *copy_array(const cnn_allocator *allocator, const void *from, size_t count, size_t element)
{
    void *to = cnn_allocate(allocator, cnn_size_mul(count, element));
    if (to != NULL && count > 0) memcpy(to, from, count * element);
    return to;
}

cnn_status cnn_graph_copy(const cnn_graph *from, cnn_graph *to)
{
    const cnn_allocator allocator = to->allocator;
    const size_t values = (size_t)from->num_values, steps = (size_t)from->num_steps;
    *to = *from;
    to->allocator = allocator;
    to->values_capacity = from->num_values;
    to->steps_capacity = from->num_steps;
    to->values = copy_array(&allocator, from->values, values, sizeof *to->values);
    to->steps = copy_array(&allocator, from->steps, steps, sizeof *to->steps);
    to->description = NULL;
    if (from->description != NULL)
        to->description = copy_array(&allocator, from->description, strlen(from->description) + 1, 1);
    if (to->values == NULL || to->steps == NULL || (to->description == NULL && from->description != NULL))
        return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    return CNN_OK;
}

/* Makes room for one element more: *array of *capacity elements, doubled when full. */
static cnn_status grow(const cnn_allocator *allocator, void **array, int32_t count, int32_t *capacity, size_t element)
{
    if (count < *capacity) return CNN_OK;
    if (*capacity > INT32_MAX / 2) return cnn_fail(CNN_OUT_OF_MEMORY, "the graph is too large");
    const int32_t wanted = *capacity == 0 ? 8 : *capacity * 2;
    void *moved = cnn_allocate(allocator, cnn_size_mul((size_t)wanted, element));
    if (moved == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a graph of %d elements", wanted);
    if (count > 0) memcpy(moved, *array, (size_t)count * element);
    cnn_release(allocator, *array);
    *array = moved;
    *capacity = wanted;
    return CNN_OK;
}

static cnn_status add_value(cnn_graph *graph, const cnn_tensor *tensor, cnn_value *value)
{
    CNN_TRY(cnn_shape_check(&tensor->shape));
    void *values = graph->values;
    const cnn_status status = grow(&graph->allocator, &values, graph->num_values, &graph->values_capacity, sizeof *graph->values);
    graph->values = values;
    CNN_TRY(status);
    graph->values[graph->num_values] = *tensor;
    *value = graph->num_values++;
    return CNN_OK;
}

cnn_status cnn_graph_input(cnn_graph *graph, cnn_dtype dtype, const cnn_shape *shape, cnn_value *value)
{
    if (dtype != graph->dtype && dtype != CNN_INT64)
        return cnn_fail(CNN_INVALID_TYPE, "input: got %s, expected %s or int64", cnn_dtype_name(dtype),
                        cnn_dtype_name(graph->dtype));
    const cnn_tensor tensor = {.kind = CNN_VALUE_INPUT, .dtype = dtype, .shape = *shape, .producer = -1};
    return add_value(graph, &tensor, value);
}

cnn_status cnn_graph_parameter(cnn_graph *graph, const cnn_shape *shape, cnn_value *value)
{
    const cnn_tensor tensor = {
        .kind = CNN_VALUE_PARAMETER, .dtype = graph->dtype, .shape = *shape, .producer = -1};
    return add_value(graph, &tensor, value);
}

cnn_status cnn_graph_state(cnn_graph *graph, cnn_dtype dtype, const cnn_shape *shape, cnn_value *value)
{
    if (dtype != graph->dtype && dtype != CNN_INT64)
        return cnn_fail(CNN_INVALID_TYPE, "state: got %s, expected %s or int64", cnn_dtype_name(dtype),
                        cnn_dtype_name(graph->dtype));
    const cnn_tensor tensor = {.kind = CNN_VALUE_STATE, .dtype = dtype, .shape = *shape, .producer = -1};
    return add_value(graph, &tensor, value);
}

cnn_status cnn_graph_placeholder(cnn_graph *graph, cnn_value *value)
{
    const cnn_tensor tensor = {
        .kind = CNN_VALUE_RESULT, .dtype = graph->dtype, .shape = {.rank = 1}, .producer = -1};
    return add_value(graph, &tensor, value);
}

static cnn_status check_value(const cnn_graph *graph, cnn_value value)
{
    if (value >= 0 && value < graph->num_values) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "value %d is not of this graph, which has %d", value, graph->num_values);
}

/* Copies what a row may know of its sources into the node. */
static cnn_status describe_sources(const cnn_graph *graph, cnn_step *step, int32_t given, const cnn_value *sources)
{
    cnn_node *node = &step->node;
    const cnn_op_row *row = node->row;
    if (given < row->min_sources || given > row->max_sources)
        return cnn_fail(CNN_INVALID_VALUE, "got %d sources, expected %d to %d", given, row->min_sources,
                        row->max_sources);
    node->num_sources = given;
    for (int32_t i = 0; i < CNN_MAX_SOURCES; i++) step->source[i] = CNN_NONE;
    for (int32_t i = 0; i < given; i++) {
        if (sources[i] == CNN_NONE && (row->optional & SRC(i))) continue;
        CNN_TRY(check_value(graph, sources[i]));
        const cnn_tensor *tensor = &graph->values[sources[i]];
        step->source[i] = sources[i];
        node->present[i] = true;
        node->src_shape[i] = tensor->shape;
        node->src_dtype[i] = tensor->dtype;
        node->row_major[i] = tensor->kind == CNN_VALUE_PARAMETER || tensor->kind == CNN_VALUE_STATE;
    }
    return CNN_OK;
}

static cnn_status infer(const cnn_graph *graph, cnn_step *step, int32_t given, const cnn_value *sources)
{
    CNN_TRY(describe_sources(graph, step, given, sources));
    CNN_TRY(step->node.row->infer(&step->node));
    return cnn_shape_check(&step->node.dst_shape);
}

cnn_status cnn_graph_apply(cnn_graph *graph, cnn_op op, const cnn_attributes *attributes, int32_t num_sources,
                           const cnn_value *sources, cnn_value *value)
{
    if ((int)op < 0 || op >= CNN_OP_COUNT) return cnn_fail(CNN_INVALID_VALUE, "op %d does not exist", (int)op);
    void *steps = graph->steps;
    const cnn_status grown =
        grow(&graph->allocator, &steps, graph->num_steps, &graph->steps_capacity, sizeof *graph->steps);
    graph->steps = steps;
    CNN_TRY(grown);

    cnn_step *step = &graph->steps[graph->num_steps]; /* counted only once everything about it is right */
    memset(step, 0, sizeof *step);
    step->node.row = cnn_op_table[op];
    step->node.keeps_src = step->node.row->keeps_src;
    step->node.keeps_dst = step->node.row->keeps_dst;
    step->node.kernels = cnn_kernels_get();
    step->node.dtype = graph->dtype;
    step->node.id = (uint64_t)graph->num_steps;
    if (attributes != NULL) step->node.attributes = *attributes;
    const cnn_status inferred = infer(graph, step, num_sources, sources);
    if (inferred != CNN_OK) return cnn_fail_in(step->node.row->name, inferred);

    const cnn_tensor result = {.kind = CNN_VALUE_RESULT,
                               .dtype = graph->dtype,
                               .shape = step->node.dst_shape,
                               .producer = graph->num_steps};
    CNN_TRY(add_value(graph, &result, &step->result));
    *value = step->result;
    graph->num_steps++;
    return CNN_OK;
}

cnn_status cnn_graph_output(cnn_graph *graph, cnn_value value)
{
    CNN_TRY(check_value(graph, value));
    if (graph->values[value].kind != CNN_VALUE_RESULT)
        return cnn_fail(CNN_INVALID_VALUE, "value %d is no result of an operation: it cannot be an output", value);
    if (!graph->values[value].output) graph->values[value].output_number = graph->num_outputs++;
    graph->values[value].output = true;
    return CNN_OK;
}

cnn_status cnn_graph_watch(cnn_graph *graph, cnn_value value)
{
    CNN_TRY(cnn_graph_output(graph, value));
    graph->values[value].watched = true;
    return CNN_OK;
}

cnn_status cnn_graph_require_gradient(cnn_graph *graph, cnn_value value)
{
    CNN_TRY(check_value(graph, value));
    cnn_tensor *tensor = &graph->values[value];
    if (tensor->dtype == CNN_INT64 || (tensor->kind != CNN_VALUE_INPUT && tensor->kind != CNN_VALUE_PARAMETER))
        return cnn_fail(CNN_INVALID_VALUE, "value %d has no gradient to ask for: it is no float input or parameter",
                        value);
    tensor->require_gradient = true;
    return CNN_OK;
}

cnn_status cnn_graph_name(cnn_graph *graph, cnn_value value, const char *name)
{
    CNN_TRY(check_value(graph, value));
    const size_t bytes = strlen(name) + 1;
    if (bytes > CNN_NAME_BYTES)
        return cnn_fail(CNN_INVALID_VALUE, "name: got %zu bytes, expected fewer than %d", bytes - 1, CNN_NAME_BYTES);
    if (!cnn_text_is_utf8(name)) return cnn_fail(CNN_INVALID_VALUE, "name: it is no UTF-8");
    memcpy(graph->values[value].name, name, bytes);
    return CNN_OK;
}

cnn_status cnn_graph_describe(cnn_graph *graph, const char *text)
{
    if (!cnn_text_is_utf8(text)) return cnn_fail(CNN_INVALID_VALUE, "text: it is no UTF-8");
    char *copy = copy_array(&graph->allocator, text, strlen(text) + 1, 1);
    if (copy == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a description");
    cnn_release(&graph->allocator, graph->description);
    graph->description = copy;
    return CNN_OK;
}

int32_t cnn_graph_num_values(const cnn_graph *graph) { return graph->num_values; }

cnn_status cnn_graph_shape(const cnn_graph *graph, cnn_value value, cnn_shape *shape)
{
    CNN_TRY(check_value(graph, value));
    *shape = graph->values[value].shape;
    return CNN_OK;
}
