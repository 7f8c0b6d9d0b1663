/* Steps that take what they need of their source while the step before them makes it, so that they read it once less: as
 * batch normalization its statistics from a convolution. And the same on the way back: sums over the gradient of its result, from
 * the convolution behind it. It hangs on the graph alone, and so do the bits. */
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

/* The step that makes the gradient of source 0 reads what the watcher reads, and is its only reader: deferred. */
static void connect_back(cnn_plan *plan, int32_t event)
{
    const cnn_event now = plan->events[event], next = plan->events[event + 1];
    if (now.pass != CNN_PASS_BACKWARD || next.pass != CNN_PASS_BACKWARD) return;
    const cnn_node *node = &plan->graph.steps[now.step].node;
    cnn_step *watcher = &plan->graph.steps[next.step];
    if (!node->prologue || plan->graph.steps[now.step].source[0] != watcher->result) return;
    if (node->row->back_pieces == NULL || watcher->node.row->back_watches == NULL) return;
    if (!watcher->node.row->back_watches(&watcher->node)) return;
    watcher->node.back_pieces = node->row->back_pieces(node);
    if (watcher->node.back_pieces == 0) return;
    plan->steps[now.step].back_watcher = next.step;
    plan->steps[next.step].back_shown_by = now.step;
}

void cnn_plan_back_watches(cnn_plan *plan)
{
    for (int32_t event = plan->graph.num_steps; event + 1 < plan->num_events; event++) connect_back(plan, event);
}
