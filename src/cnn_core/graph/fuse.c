/* Fewer steps, fewer passes over memory. */
#include "graph/passes.h"

/* ---- editing ------------------------------------------------------------------------------------------------------ */

int32_t *cnn_graph_uses(const cnn_graph *graph)
{
    int32_t *uses = cnn_allocate_zeroed(&graph->allocator, (size_t)graph->num_values + 1, sizeof *uses);
    if (uses == NULL) return NULL;
    for (cnn_value v = 0; v < graph->num_values; v++) uses[v] += graph->values[v].output;
    for (int32_t s = 0; s < graph->num_steps; s++)
        for (int32_t i = 0; i < graph->steps[s].node.num_sources; i++)
            if (graph->steps[s].source[i] != CNN_NONE) uses[graph->steps[s].source[i]]++;
    return uses;
}

void cnn_graph_drop(cnn_graph *graph, int32_t step)
{
    graph->values[graph->steps[step].result].producer = -1;
    graph->steps[step].node.row = NULL;
    graph->steps[step].node.num_sources = 0;
}

void cnn_graph_compact(cnn_graph *graph)
{
    int32_t kept = 0;
    for (int32_t s = 0; s < graph->num_steps; s++) {
        if (graph->steps[s].node.row == NULL) continue;
        if (kept != s) graph->steps[kept] = graph->steps[s];
        graph->values[graph->steps[kept].result].producer = kept;
        kept++;
    }
    graph->num_steps = kept;
}

void cnn_graph_redirect(cnn_graph *graph, int32_t *uses, cnn_value from, cnn_value to)
{
    for (int32_t s = 0; s < graph->num_steps; s++)
        for (int32_t i = 0; i < graph->steps[s].node.num_sources; i++)
            if (graph->steps[s].source[i] == from) {
                graph->steps[s].source[i] = to;
                uses[to]++;
                uses[from]--;
            }
}

cnn_status cnn_graph_prune(cnn_graph *graph)
{
    int32_t *uses = cnn_graph_uses(graph);
    if (uses == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    for (int32_t s = graph->num_steps - 1; s >= 0; s--) {
        cnn_step *step = &graph->steps[s];
        if (uses[step->result] > 0) continue;
        for (int32_t i = 0; i < step->node.num_sources; i++)
            if (step->source[i] != CNN_NONE) uses[step->source[i]]--;
        cnn_graph_drop(graph, s);
    }
    cnn_graph_compact(graph);
    cnn_release(&graph->allocator, uses);
    return CNN_OK;
}

/* ---- fusing ------------------------------------------------------------------------------------------------------- */

/* The step whose result only source i of this step reads, if there is one that can take more behind it. */
static cnn_step *producer_of(cnn_graph *graph, const int32_t *uses, const cnn_step *step, int32_t i)
{
    const cnn_value v = step->source[i];
    const cnn_tensor *tensor = &graph->values[v];
    if (tensor->kind != CNN_VALUE_RESULT || tensor->output || tensor->producer < 0 || uses[v] != 1) return NULL;
    cnn_step *before = &graph->steps[tensor->producer];
    return before->node.row->fuses == NULL || before->node.epilogue.activates ? NULL : before;
}

/* Moves step s, an epilogue by nature, behind the step that makes its source i. It takes the place of s: what it adds
 * has been computed by then. */
static bool fuse_behind(cnn_graph *graph, const int32_t *uses, int32_t s, int32_t i, const cnn_epilogue *what,
                        bool backward)
{
    cnn_step *step = &graph->steps[s];
    cnn_step *before = producer_of(graph, uses, step, i);
    if (before == NULL || (what->adds && before->node.epilogue.adds)) return false;
    cnn_epilogue joined = *what;
    joined.adds = joined.adds || before->node.epilogue.adds;
    if (!before->node.row->fuses(&before->node, &joined, backward)) return false;

    cnn_step fused = *before;
    fused.node.epilogue = joined;
    fused.result = step->result;
    if (what->adds) {
        const int32_t last = fused.node.row->max_sources;
        const cnn_value addend = step->source[1 - i];
        for (int32_t k = fused.node.num_sources; k < last; k++) fused.source[k] = CNN_NONE;
        fused.node.num_sources = last + 1;
        fused.source[last] = addend;
        fused.node.present[last] = true;
        fused.node.src_shape[last] = graph->values[addend].shape;
        fused.node.src_dtype[last] = graph->values[addend].dtype;
    }
    cnn_graph_drop(graph, (int32_t)(before - graph->steps));
    graph->steps[s] = fused;
    return true;
}

static void fuse_step(cnn_graph *graph, int32_t *uses, int32_t s, bool backward)
{
    const cnn_step *step = &graph->steps[s];
    cnn_epilogue what = {0};
    if (step->node.row->as_epilogue == NULL || !step->node.row->as_epilogue(&step->node, &what)) return;
    if (!what.adds && !what.activates) {
        if (graph->values[step->result].output) return;
        const cnn_value from = step->result, to = step->source[0];
        cnn_graph_drop(graph, s);
        uses[to]--;
        cnn_graph_redirect(graph, uses, from, to);
    } else if (what.adds) {
        /* Behind the later of the two: the order of steps then stays as it is. */
        const int32_t later =
            graph->values[step->source[1]].producer > graph->values[step->source[0]].producer ? 1 : 0;
        if (!fuse_behind(graph, uses, s, later, &what, backward))
            (void)fuse_behind(graph, uses, s, 1 - later, &what, backward);
    } else {
        (void)fuse_behind(graph, uses, s, 0, &what, backward);
    }
}

cnn_status cnn_graph_fuse(cnn_graph *graph, bool backward)
{
    int32_t *uses = cnn_graph_uses(graph);
    if (uses == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    for (int32_t s = 0; s < graph->num_steps; s++) fuse_step(graph, uses, s, backward);
    cnn_graph_compact(graph);
    cnn_release(&graph->allocator, uses);
    return CNN_OK;
}
