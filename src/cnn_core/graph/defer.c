/* Results that only the next reader would read from memory, and that are cheap to make: normalization with its activation. The
 * step that makes one takes its statistics and no more, and the step that reads it makes it, block by block, of the source:
 * forward, and again for the gradient of its weights. That spares a pass over memory to write it, and the memory.
 *
 * In the same way the gradient that a normalization gives to its source is left to the step that made that. */
#include "graph/plan.h"

cnn_value cnn_step_reads(const cnn_graph *graph, const cnn_step *step, int32_t i)
{
    const cnn_value source = step->source[i];
    return i == 0 && step->node.prologue ? graph->steps[graph->values[source].producer].source[0] : source;
}

static bool defers(const cnn_plan *plan, const int32_t *uses, const cnn_step *reader)
{
    const cnn_value source = reader->source[0];
    const int32_t producer = source == CNN_NONE ? -1 : plan->graph.values[source].producer;
    if (producer < 0 || uses[source] != 1 || plan->graph.values[source].output) return false;
    const cnn_step *step = &plan->graph.steps[producer];
    if (step->node.row->defers == NULL || reader->node.row->takes_prologue == NULL) return false;
    /* What forward saves stays for the reader only if a backward pass of the step itself follows. */
    if (!plan->steps[producer].backward) return false;
    return step->node.row->defers(&step->node) && reader->node.row->takes_prologue(&reader->node);
}

/* The step that makes the gradient of step s's source 0 for itself; -1: there is none. */
static int32_t back_maker(const cnn_plan *plan, const int32_t *uses, int32_t s)
{
    const cnn_step *step = &plan->graph.steps[s];
    const cnn_value source = step->source[0];
    const int32_t producer = source == CNN_NONE ? -1 : plan->graph.values[source].producer;
    if (producer < 0 || uses[source] != 1 || plan->graph.values[source].output) return -1;
    /* The source must stay until the maker reads it. */
    if (plan->options.recompute == CNN_RECOMPUTE_MOST) return -1;
    const cnn_step *maker = &plan->graph.steps[producer];
    /* It makes both its gradients, or none: where an input's has no memory it makes one. */
    if (plan->graph.values[maker->source[0]].kind != CNN_VALUE_RESULT) return -1;
    if (!plan->steps[s].backward || !plan->steps[producer].backward || maker->node.deferred) return -1;
    if (step->node.row->back_defers == NULL || maker->node.row->takes_back_prologue == NULL) return -1;
    return step->node.row->back_defers(&step->node) && maker->node.row->takes_back_prologue(&maker->node) ? producer : -1;
}

cnn_status cnn_plan_defer(cnn_plan *plan)
{
    cnn_graph *graph = &plan->graph;
    if (cnn_plan_uses_reference(plan) || !plan->options.backward) return CNN_OK;
    int32_t *uses = cnn_graph_uses(graph);
    if (uses == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    for (int32_t s = 0; s < graph->num_steps; s++) {
        cnn_step *reader = &graph->steps[s];
        if (!defers(plan, uses, reader)) continue;
        graph->steps[graph->values[reader->source[0]].producer].node.deferred = true;
        reader->node.prologue = true;
    }
    for (int32_t s = 0; s < graph->num_steps; s++) {
        const int32_t maker = back_maker(plan, uses, s);
        if (maker < 0) continue;
        graph->steps[s].node.back_deferred = graph->steps[maker].node.back_prologue = true;
        plan->steps[maker].made_of = s;
        plan->steps[s].made_by = maker;
    }
    cnn_release(&graph->allocator, uses);
    return CNN_OK;
}
