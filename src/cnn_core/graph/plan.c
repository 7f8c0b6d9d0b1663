/* From graph to plan: what is fused, where gradients flow, what backward will read. */
#include "graph/plan.h"

#include <string.h>

#include "graph/chain.h"
#include "graph/passes.h"

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

static bool can_add(const cnn_plan *plan, const cnn_node *node, int32_t i)
{
    return !cnn_plan_uses_reference(plan) && node->row->can_add != NULL && (node->row->can_add(node) & SRC(i)) != 0;
}

/* Walks backward from the outputs: which steps take part, and who writes a gradient first. A temporary's offset is set to
 * 0 here to mark it as wanted. */
static void plan_gradients(cnn_plan *plan, const bool *needed)
{
    cnn_graph *graph = &plan->graph;
    for (int32_t v = 0; v < graph->num_values; v++)
        plan->values[v].has_gradient = graph->values[v].output && !graph->values[v].watched && needed[v];
    for (int32_t s = graph->num_steps - 1; s >= 0; s--) {
        cnn_step *step = &graph->steps[s];
        /* Backward through an activation may overwrite the gradient: not the caller's. */
        if (step->node.epilogue.activates && !step->node.row->activates_again &&
            plan->values[step->result].has_gradient && graph->values[step->result].output &&
            !graph->values[step->result].watched)
            plan->values[step->result].copy_diff = true;
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
            flow->add = !first && !adds && can_add(plan, &step->node, i);
            if (!first && !adds && !flow->add) flow->temporary = 0;
            if (graph->values[source].output && !graph->values[source].watched) target->copy_diff = true;
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
            if (step->node.present[i] && (step->node.keeps_src & SRC(i))) plan->values[step->source[i]].kept = true;
        if (cnn_node_keeps_dst(&step->node)) plan->values[step->result].kept = true;
    }
}

/* No buffer anywhere yet, and no chain. */
static void clear_steps(cnn_plan *plan)
{
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        plan->steps[s].saved = plan->steps[s].saved_again = CNN_NO_BUFFER;
        plan->steps[s].chain = -1;
        plan->steps[s].watcher = plan->steps[s].shown_by = -1;
        plan->steps[s].back_watcher = plan->steps[s].back_shown_by = -1;
        plan->steps[s].made_of = plan->steps[s].made_by = -1;
        for (int32_t i = 0; i < CNN_MAX_SOURCES; i++) plan->steps[s].flow[i].temporary = CNN_NO_BUFFER;
    }
    for (int32_t v = 0; v < plan->graph.num_values; v++)
        plan->values[v].data = plan->values[v].again = plan->values[v].diff = CNN_NO_BUFFER;
}

/* The passes over the plan's graph, in their order. given: the memory of constants, or NULL. */
static cnn_status rewrite(cnn_plan *plan, const void *const *given, cnn_constants *constants)
{
    const bool backward = plan->options.backward != 0;
    if (given != NULL) {
        CNN_TRY(cnn_graph_prune(&plan->graph));
        CNN_TRY(cnn_graph_fold(&plan->graph, given, constants));
    }
    if (!cnn_plan_uses_reference(plan)) CNN_TRY(cnn_graph_fuse(&plan->graph, backward));
    return CNN_OK;
}

static cnn_status fill_plan(cnn_plan *plan, const void *const *given, cnn_constants *constants)
{
    for (int32_t s = 0; s < plan->graph.num_steps; s++) plan->graph.steps[s].node.direct = plan->options.direct != 0;
    CNN_TRY(rewrite(plan, given, constants));
    const cnn_graph *graph = &plan->graph;
    const size_t values = (size_t)graph->num_values + 1, steps = (size_t)graph->num_steps + 1;
    plan->values = cnn_allocate_zeroed(&graph->allocator, values, sizeof *plan->values);
    plan->steps = cnn_allocate_zeroed(&graph->allocator, steps, sizeof *plan->steps);
    plan->events = cnn_allocate_zeroed(&graph->allocator, 3 * steps, sizeof *plan->events);
    bool *needed = cnn_allocate_zeroed(&graph->allocator, values, sizeof *needed);
    cnn_status status = CNN_OK;
    if (plan->values == NULL || plan->steps == NULL || plan->events == NULL || needed == NULL) {
        status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    } else {
        clear_steps(plan);
        if (plan->options.backward) {
            find_needed(graph, needed);
            plan_gradients(plan, needed);
            plan_kept(plan);
        }
        if (given != NULL) status = cnn_plan_store_constants(plan, constants);
        if (given != NULL && status == CNN_OK) status = cnn_plan_chains(plan);
        if (status == CNN_OK) status = cnn_plan_defer(plan);
        if (status == CNN_OK) cnn_plan_watches(plan);
        if (status == CNN_OK) status = cnn_plan_recompute(plan);
        if (status == CNN_OK) cnn_plan_back_watches(plan);
        if (status == CNN_OK) status = cnn_plan_memory(plan);
    }
    cnn_release(&graph->allocator, needed);
    return status;
}

static cnn_status make_plan(const cnn_graph *graph, const cnn_plan_options *options, const void *const *given,
                            cnn_plan **plan)
{
    *plan = NULL;
    bool has_output = false;
    for (int32_t v = 0; v < graph->num_values; v++) has_output = has_output || graph->values[v].output;
    if (!has_output) return cnn_fail(CNN_INVALID_STATE, "the graph has no output");
    if (options != NULL && options->threads < 0)
        return cnn_fail(CNN_INVALID_VALUE, "threads: got %d, expected 0 or more", options->threads);
    if (options != NULL && (options->recompute < CNN_RECOMPUTE_CHEAP || options->recompute > CNN_RECOMPUTE_MOST))
        return cnn_fail(CNN_INVALID_VALUE, "recompute: got %d, expected 0 to %d", options->recompute,
                        (int)CNN_RECOMPUTE_MOST);
    const cnn_allocator allocator = cnn_allocator_of(options == NULL ? NULL : options->allocator);
    cnn_plan *made = cnn_allocate_zeroed(&allocator, 1, sizeof *made);
    if (made == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    if (options != NULL) made->options = *options;
    made->options.allocator = NULL; /* it need not live on: the graph has a copy */
    made->graph.allocator = allocator;
    cnn_constants constants = {0};
    cnn_status status = cnn_graph_copy(graph, &made->graph);
    if (status == CNN_OK) status = fill_plan(made, given, &constants);
    cnn_constants_free(&allocator, &constants);
    if (status != CNN_OK) {
        cnn_plan_free(made);
        return status;
    }
    *plan = made;
    return CNN_OK;
}

cnn_status cnn_plan_create(const cnn_graph *graph, const cnn_plan_options *options, cnn_plan **plan)
{
    return make_plan(graph, options, NULL, plan);
}

cnn_status cnn_plan_freeze(const cnn_graph *graph, const cnn_plan_options *options, const void *const *data,
                           cnn_plan **plan)
{
    *plan = NULL;
    if (options != NULL && options->backward)
        return cnn_fail(CNN_INVALID_VALUE, "backward: a plan with constant parameters has none");
    for (cnn_value v = 0; v < graph->num_values; v++) {
        const cnn_tensor *tensor = &graph->values[v];
        if (tensor->kind != CNN_VALUE_PARAMETER && tensor->kind != CNN_VALUE_STATE) continue;
        if (data[v] == NULL && cnn_shape_count(&tensor->shape) > 0)
            return cnn_fail(CNN_INVALID_VALUE, "data: got none for %s %d",
                            tensor->kind == CNN_VALUE_STATE ? "state" : "parameter", v);
    }
    return make_plan(graph, options, data, plan);
}

void cnn_plan_free(cnn_plan *plan)
{
    if (plan == NULL) return;
    const cnn_allocator allocator = plan->graph.allocator;
    cnn_graph_clear(&plan->graph);
    cnn_release(&allocator, plan->values);
    cnn_release(&allocator, plan->steps);
    cnn_release(&allocator, plan->events);
    cnn_release(&allocator, plan->constants);
    cnn_release(&allocator, plan->chains);
    cnn_release(&allocator, plan->constant_memory);
    cnn_release(&allocator, plan);
}

static size_t array_bytes(const void *array, size_t count, size_t element)
{
    return array == NULL ? 0 : cnn_size_align(cnn_size_mul(count, element));
}

/* The plan and its arrays, as they were allocated, and what comes with a context. */
static size_t table_bytes(const cnn_plan *plan)
{
    const cnn_graph *graph = &plan->graph;
    const size_t values = (size_t)graph->num_values + 1, steps = (size_t)graph->num_steps + 1;
    size_t bytes = cnn_size_align(sizeof *plan) + cnn_plan_context_tables(plan);
    bytes += array_bytes(graph->values, (size_t)graph->values_capacity, sizeof *graph->values);
    bytes += array_bytes(graph->steps, (size_t)graph->steps_capacity, sizeof *graph->steps);
    bytes += array_bytes(graph->description, strlen(cnn_plan_description(plan)) + 1, 1);
    bytes += array_bytes(plan->values, values, sizeof *plan->values);
    bytes += array_bytes(plan->steps, steps, sizeof *plan->steps);
    bytes += array_bytes(plan->events, 3 * steps, sizeof *plan->events);
    bytes += array_bytes(plan->constants, values, sizeof *plan->constants);
    bytes += array_bytes(plan->chains, steps - 1, sizeof *plan->chains);
    return bytes;
}

size_t cnn_plan_bytes(const cnn_plan *plan, cnn_memory kind)
{
    switch (kind) {
    case CNN_MEMORY_CONSTANTS: return plan->constant_bytes;
    case CNN_MEMORY_ACTIVATIONS: return plan->forward_bytes;
    case CNN_MEMORY_GRADIENTS: return plan->arena_bytes - plan->forward_bytes;
    case CNN_MEMORY_WORKSPACE:
        return cnn_plan_workspace(plan, plan->options.threads > 0 ? plan->options.threads : cnn_get_num_threads());
    case CNN_MEMORY_TABLES: return table_bytes(plan);
    }
    return 0;
}

size_t cnn_step_workspace(const cnn_plan *plan, int32_t step, cnn_pass pass, int32_t threads)
{
    const cnn_node *node = &plan->graph.steps[step].node;
    return node->row->workspace == NULL ? 0 : node->row->workspace(node, pass == CNN_PASS_BACKWARD, threads);
}

size_t cnn_step_workspace_begin(const cnn_plan *plan, int32_t step, cnn_pass pass, int32_t threads)
{
    const cnn_step_plan *own = &plan->steps[step];
    const int32_t before = pass == CNN_PASS_FORWARD ? own->shown_by : pass == CNN_PASS_BACKWARD ? own->back_shown_by : -1;
    return before < 0 ? 0 : cnn_size_align(cnn_step_workspace(plan, before, pass, threads));
}

static size_t pass_workspace(const cnn_plan *plan, int32_t step, cnn_pass pass, int32_t threads)
{
    return cnn_size_add(cnn_step_workspace_begin(plan, step, pass, threads),
                        cnn_step_workspace(plan, step, pass, threads));
}

size_t cnn_plan_workspace(const cnn_plan *plan, int32_t threads)
{
    size_t most = 0;
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        if (plan->steps[s].chain >= 0) {
            const size_t chain = cnn_chain_workspace(&plan->chains[plan->steps[s].chain], threads);
            if (chain > most) most = chain;
            continue;
        }
        const size_t forward = pass_workspace(plan, s, CNN_PASS_FORWARD, threads);
        const size_t backward = plan->steps[s].backward ? pass_workspace(plan, s, CNN_PASS_BACKWARD, threads) : 0;
        if (forward > most) most = forward;
        if (backward > most) most = backward;
    }
    return most;
}

/* ---- queries ------------------------------------------------------------------------------------------------------ */

int32_t cnn_plan_num_inputs(const cnn_plan *plan)
{
    int32_t count = 0;
    for (cnn_value v = 0; v < plan->graph.num_values; v++) count += plan->graph.values[v].kind == CNN_VALUE_INPUT;
    return count;
}

int32_t cnn_plan_num_outputs(const cnn_plan *plan) { return plan->graph.num_outputs; }

cnn_value cnn_plan_input(const cnn_plan *plan, int32_t number)
{
    for (cnn_value v = 0; number >= 0 && v < plan->graph.num_values; v++)
        if (plan->graph.values[v].kind == CNN_VALUE_INPUT && number-- == 0) return v;
    return CNN_NONE;
}

cnn_value cnn_plan_output(const cnn_plan *plan, int32_t number)
{
    for (cnn_value v = 0; v < plan->graph.num_values; v++)
        if (plan->graph.values[v].output && plan->graph.values[v].output_number == number) return v;
    return CNN_NONE;
}

cnn_value cnn_plan_find(const cnn_plan *plan, const char *name)
{
    for (cnn_value v = 0; v < plan->graph.num_values; v++) {
        const cnn_tensor *tensor = &plan->graph.values[v];
        if ((tensor->kind == CNN_VALUE_INPUT || tensor->output) && strcmp(tensor->name, name) == 0) return v;
    }
    return CNN_NONE;
}

static cnn_status check_value(const cnn_plan *plan, cnn_value value)
{
    if (value >= 0 && value < plan->graph.num_values) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "value %d is not of this plan, which has %d", value, plan->graph.num_values);
}

cnn_status cnn_plan_shape(const cnn_plan *plan, cnn_value value, cnn_shape *shape)
{
    CNN_TRY(check_value(plan, value));
    *shape = plan->graph.values[value].shape;
    return CNN_OK;
}

cnn_status cnn_plan_dtype(const cnn_plan *plan, cnn_value value, cnn_dtype *dtype)
{
    CNN_TRY(check_value(plan, value));
    *dtype = plan->graph.values[value].dtype;
    return CNN_OK;
}

const char *cnn_plan_name(const cnn_plan *plan, cnn_value value)
{
    return check_value(plan, value) == CNN_OK ? plan->graph.values[value].name : "";
}

const char *cnn_plan_description(const cnn_plan *plan)
{
    return plan->graph.description == NULL ? "" : plan->graph.description;
}
