/* From graph to plan: where gradients flow, how long buffers live, where they lie. */
#include "graph/plan.h"

#include <stdlib.h>
#include <string.h>

#include "graph/arena.h"

static int32_t forward_time(int32_t step)
{
    return step;
}

static int32_t backward_time(const cnn_graph *graph, int32_t step)
{
    return 2 * graph->num_steps - 1 - step;
}

static cnn_status copy_graph(const cnn_graph *from, cnn_graph *to)
{
    *to = *from;
    to->values = malloc((size_t)from->num_values * sizeof *to->values + 1);
    to->steps = malloc((size_t)from->num_steps * sizeof *to->steps + 1);
    if (to->values == NULL || to->steps == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    if (from->num_values > 0) memcpy(to->values, from->values, (size_t)from->num_values * sizeof *to->values);
    if (from->num_steps > 0) memcpy(to->steps, from->steps, (size_t)from->num_steps * sizeof *to->steps);
    return CNN_OK;
}

/* needed[v]: some input or parameter that wants a gradient lies upstream of v. */
static void find_needed(const cnn_graph *graph, bool *needed)
{
    for (int32_t v = 0; v < graph->num_values; v++) needed[v] = graph->values[v].require_gradient;
    for (int32_t s = 0; s < graph->num_steps; s++) {
        const cnn_step *step = &graph->steps[s];
        for (int32_t i = 0; i < step->node.num_sources; i++)
            if (step->node.present[i] && needed[step->source[i]] && step->node.row->backward != NULL)
                needed[step->result] = true;
    }
}

static bool gives_gradient(const cnn_plan *plan, const cnn_step *step, int32_t i, const bool *needed)
{
    return step->node.present[i] && needed[step->source[i]] && plan->graph.values[step->source[i]].dtype != CNN_INT64;
}

/* Walks backward from the outputs: which steps take part, and who writes a gradient first. A temporary's offset is set to
 * 0 here to mark it as wanted. */
static void plan_gradients(cnn_plan *plan, const bool *needed)
{
    cnn_graph *graph = &plan->graph;
    for (int32_t v = 0; v < graph->num_values; v++)
        plan->values[v].has_gradient = graph->values[v].output && needed[v];
    for (int32_t s = graph->num_steps - 1; s >= 0; s--) {
        cnn_step *step = &graph->steps[s];
        if (!plan->values[step->result].has_gradient || step->node.row->backward == NULL) continue;
        plan->steps[s].backward = true;
        for (int32_t i = 0; i < step->node.num_sources; i++) {
            if (!gives_gradient(plan, step, i, needed)) continue;
            const cnn_value source = step->source[i];
            cnn_value_plan *target = &plan->values[source];
            cnn_flow *flow = &plan->steps[s].flow[i];
            const bool adds = (step->node.row->accumulates & SRC(i)) != 0;
            /* A parameter's gradient always adds to what the caller has there. */
            const bool first = !target->has_gradient && graph->values[source].kind != CNN_VALUE_PARAMETER;
            flow->wanted = step->node.wanted[i] = true;
            flow->zero_first = adds && first;
            if (!adds && !first) flow->temporary = 0;
            if (graph->values[source].output) target->copy_diff = true;
            target->has_gradient = true;
        }
    }
}

static void plan_kept(cnn_plan *plan)
{
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        if (!plan->steps[s].backward) continue;
        const cnn_step *step = &plan->graph.steps[s];
        for (int32_t i = 0; i < step->node.num_sources; i++)
            if (step->node.present[i] && (step->node.row->keeps_src & SRC(i))) plan->values[step->source[i]].kept = true;
        if (step->node.row->keeps_dst) plan->values[step->result].kept = true;
    }
}

/* The last time that a result's data is read. */
static int32_t last_read(const cnn_plan *plan, cnn_value value)
{
    const cnn_graph *graph = &plan->graph;
    const int32_t end = 2 * graph->num_steps;
    const cnn_tensor *tensor = &graph->values[value];
    if (plan->values[value].kept && plan->options.repeat) return end;
    int32_t last = tensor->output ? graph->num_steps : forward_time(tensor->producer);
    for (int32_t s = tensor->producer; s < graph->num_steps; s++) {
        const cnn_step *step = &graph->steps[s];
        bool read_back = step->result == value && step->node.row->keeps_dst;
        for (int32_t i = 0; i < step->node.num_sources; i++) {
            if (step->source[i] != value) continue;
            if (forward_time(s) > last) last = forward_time(s);
            read_back = read_back || (step->node.row->keeps_src & SRC(i)) != 0;
        }
        if (read_back && plan->steps[s].backward && backward_time(graph, s) > last) last = backward_time(graph, s);
    }
    return last;
}

/* The first time that a result's gradient is written: at its last consumer in backward's order. */
static int32_t first_gradient(const cnn_plan *plan, cnn_value value)
{
    const cnn_graph *graph = &plan->graph;
    if (plan->values[value].copy_diff) return graph->num_steps;
    for (int32_t s = graph->num_steps - 1; s >= 0; s--)
        for (int32_t i = 0; i < graph->steps[s].node.num_sources; i++)
            if (graph->steps[s].source[i] == value && plan->steps[s].flow[i].wanted) return backward_time(graph, s);
    return graph->num_steps;
}

/* The output is written straight into the caller's memory, and its gradient read from there. */
static bool data_is_bound(const cnn_plan *plan, cnn_value v)
{
    return plan->graph.values[v].output && !plan->values[v].kept;
}

static bool diff_is_bound(const cnn_plan *plan, cnn_value v)
{
    return plan->graph.values[v].output && !plan->values[v].copy_diff;
}

static int32_t list_value_buffers(cnn_plan *plan, cnn_buffer *list)
{
    int32_t count = 0;
    const cnn_graph *graph = &plan->graph;
    for (cnn_value v = 0; v < graph->num_values; v++) {
        const cnn_tensor *tensor = &graph->values[v];
        if (tensor->kind != CNN_VALUE_RESULT) continue;
        const size_t bytes = cnn_tensor_bytes(&tensor->shape, tensor->dtype);
        if (!data_is_bound(plan, v))
            list[count++] =
                (cnn_buffer){bytes, forward_time(tensor->producer), last_read(plan, v), &plan->values[v].data};
        if (plan->values[v].has_gradient && !diff_is_bound(plan, v))
            list[count++] = (cnn_buffer){bytes, first_gradient(plan, v), backward_time(graph, tensor->producer),
                                         &plan->values[v].diff};
    }
    return count;
}

static int32_t list_step_buffers(cnn_plan *plan, cnn_buffer *list)
{
    int32_t count = 0;
    const cnn_graph *graph = &plan->graph;
    for (int32_t s = 0; s < graph->num_steps; s++) {
        const cnn_step *step = &graph->steps[s];
        const size_t saved = step->node.row->saved == NULL ? 0 : step->node.row->saved(&step->node);
        const int32_t back = backward_time(graph, s);
        if (saved > 0) {
            int32_t last = forward_time(s);
            if (plan->steps[s].backward) last = plan->options.repeat ? 2 * graph->num_steps : back;
            list[count++] = (cnn_buffer){saved, forward_time(s), last, &plan->steps[s].saved};
        }
        for (int32_t i = 0; i < step->node.num_sources; i++) {
            if (plan->steps[s].flow[i].temporary == CNN_NO_BUFFER) continue;
            const cnn_tensor *source = &graph->values[step->source[i]];
            const size_t bytes = cnn_tensor_bytes(&source->shape, source->dtype);
            list[count++] = (cnn_buffer){bytes, back, back, &plan->steps[s].flow[i].temporary};
        }
    }
    return count;
}

static cnn_status plan_memory(cnn_plan *plan)
{
    const cnn_graph *graph = &plan->graph;
    const size_t most = 2 * (size_t)graph->num_values + (size_t)graph->num_steps * (1 + CNN_MAX_SOURCES);
    cnn_buffer *list = malloc(most * sizeof *list + 1);
    if (list == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory to plan buffers");
    int32_t count = list_value_buffers(plan, list);
    count += list_step_buffers(plan, list + count);
    cnn_status status = cnn_arena_place(list, count, &plan->arena_bytes);
    if (status == CNN_OK && plan->arena_bytes >= CNN_SIZE_LIMIT)
        status = cnn_fail(CNN_OUT_OF_MEMORY, "the network's buffers are too large to address");
    free(list);
    return status;
}

/* No buffer anywhere yet. */
static void clear_offsets(cnn_plan *plan)
{
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        plan->steps[s].saved = CNN_NO_BUFFER;
        for (int32_t i = 0; i < CNN_MAX_SOURCES; i++) plan->steps[s].flow[i].temporary = CNN_NO_BUFFER;
    }
    for (int32_t v = 0; v < plan->graph.num_values; v++)
        plan->values[v].data = plan->values[v].diff = CNN_NO_BUFFER;
}

static cnn_status fill_plan(cnn_plan *plan, const cnn_graph *graph)
{
    CNN_TRY(copy_graph(graph, &plan->graph));
    for (int32_t s = 0; s < graph->num_steps; s++) plan->graph.steps[s].node.direct = plan->options.direct != 0;
    plan->values = calloc((size_t)graph->num_values + 1, sizeof *plan->values);
    plan->steps = calloc((size_t)graph->num_steps + 1, sizeof *plan->steps);
    bool *needed = calloc((size_t)graph->num_values + 1, sizeof *needed);
    cnn_status status = CNN_OK;
    if (plan->values == NULL || plan->steps == NULL || needed == NULL) {
        status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    } else {
        clear_offsets(plan);
        if (plan->options.backward) {
            find_needed(graph, needed);
            plan_gradients(plan, needed);
            plan_kept(plan);
        }
        status = plan_memory(plan);
    }
    free(needed);
    return status;
}

cnn_status cnn_plan_create(const cnn_graph *graph, const cnn_plan_options *options, cnn_plan **plan)
{
    *plan = NULL;
    bool has_output = false;
    for (int32_t v = 0; v < graph->num_values; v++) has_output = has_output || graph->values[v].output;
    if (!has_output) return cnn_fail(CNN_INVALID_STATE, "the graph has no output");
    cnn_plan *made = calloc(1, sizeof *made);
    if (made == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    if (options != NULL) made->options = *options;
    const cnn_status status = fill_plan(made, graph);
    if (status != CNN_OK) {
        cnn_plan_free(made);
        return status;
    }
    *plan = made;
    return CNN_OK;
}

void cnn_plan_free(cnn_plan *plan)
{
    if (plan == NULL) return;
    free(plan->graph.values);
    free(plan->graph.steps);
    free(plan->values);
    free(plan->steps);
    free(plan);
}

size_t cnn_plan_workspace(const cnn_plan *plan, int32_t threads)
{
    size_t most = 0;
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        const cnn_node *node = &plan->graph.steps[s].node;
        if (node->row->workspace == NULL) continue;
        const size_t forward = node->row->workspace(node, false, threads);
        const size_t backward = plan->steps[s].backward ? node->row->workspace(node, true, threads) : 0;
        if (forward > most) most = forward;
        if (backward > most) most = backward;
    }
    return most;
}
