/* One operation as a plan of its own. */
#include "graph/plan.h"

static cnn_status add_source(cnn_graph *graph, const cnn_op_row *row, int32_t i, const cnn_shape *shape, bool backward)
{
    cnn_value value;
    if (shape->rank < 0) return cnn_graph_placeholder(graph, &value);
    const cnn_dtype dtype = row->integers & SRC(i) ? CNN_INT64 : graph->dtype;
    if (row->writes & SRC(i)) return cnn_graph_state(graph, dtype, shape, &value);
    if (row->parameters & SRC(i))
        CNN_TRY(cnn_graph_parameter(graph, shape, &value));
    else
        CNN_TRY(cnn_graph_input(graph, dtype, shape, &value));
    return backward && dtype != CNN_INT64 ? cnn_graph_require_gradient(graph, value) : CNN_OK;
}

static cnn_status build(cnn_graph *graph, cnn_op op, const cnn_attributes *attributes, int32_t num_sources,
                        const cnn_shape *shapes, bool backward)
{
    if ((int)op < 0 || op >= CNN_OP_COUNT) return cnn_fail(CNN_INVALID_VALUE, "op %d does not exist", (int)op);
    const cnn_op_row *row = cnn_op_table[op];
    if (num_sources < 0 || num_sources > CNN_MAX_SOURCES)
        return cnn_fail(CNN_INVALID_VALUE, "%s: got %d sources, expected %d to %d", row->name, num_sources,
                        row->min_sources, row->max_sources);
    cnn_value sources[CNN_MAX_SOURCES], dst;
    for (int32_t i = 0; i < num_sources; i++) {
        CNN_TRY(add_source(graph, row, i, &shapes[i], backward));
        sources[i] = shapes[i].rank < 0 ? CNN_NONE : i;
    }
    CNN_TRY(cnn_graph_apply(graph, op, attributes, num_sources, sources, &dst));
    return cnn_graph_output(graph, dst);
}

cnn_status cnn_plan_single(cnn_op op, const cnn_attributes *attributes, cnn_dtype dtype, int32_t num_sources,
                           const cnn_shape *shapes, const cnn_plan_options *options, cnn_plan **plan)
{
    *plan = NULL;
    cnn_graph *graph;
    CNN_TRY(cnn_graph_create_with(dtype, options == NULL ? NULL : options->allocator, &graph));
    cnn_status status = build(graph, op, attributes, num_sources, shapes, options != NULL && options->backward);
    if (status == CNN_OK) status = cnn_plan_create(graph, options, plan);
    cnn_graph_free(graph);
    return status;
}
