/* Steps that take what they need of their source while the step before them makes it, so that they read it once less: as
 * batch normalization its statistics from a convolution. It hangs on the graph alone, and so do the bits. */
#include "graph/plan.h"

static void connect(cnn_plan *plan, int32_t s)
{
    const cnn_step *step = &plan->graph.steps[s];
    cnn_step *next = &plan->graph.steps[s + 1];
    if (next->source[0] != step->result || plan->steps[s].chain >= 0 || plan->steps[s + 1].chain >= 0) return;
    if (step->node.row->pieces == NULL || next->node.row->watches == NULL || !next->node.row->watches(&next->node)) return;
    if (cnn_shape_count(&next->node.dst_shape) == 0) return;
    next->node.pieces = step->node.row->pieces(&step->node);
    if (next->node.pieces == 0) return;
    plan->steps[s].watcher = s + 1;
    plan->steps[s + 1].shown_by = s;
}

void cnn_plan_watches(cnn_plan *plan)
{
    for (int32_t s = 0; !cnn_plan_uses_reference(plan) && s + 1 < plan->graph.num_steps; s++) connect(plan, s);
}
