/* Results that only the next reader would read from memory, and that are cheap to make: normalization with its activation. The
 * step that makes one takes its statistics and no more, and the step that reads it makes it, block by block, of the source:
 * forward, and again for the gradient of its weights. That spares a pass over memory to write it, and the memory. */
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
    cnn_release(&graph->allocator, uses);
    return CNN_OK;
}
