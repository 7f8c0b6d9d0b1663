/* The order of a plan's work: all steps forward, and back again, with steps that run again where backward reads what was
 * dropped. */
#include "graph/plan.h"

int32_t cnn_event_reads(const cnn_plan *plan, const cnn_event *event, cnn_value *values)
{
    const cnn_step *step = &plan->graph.steps[event->step];
    const bool backward = event->pass == CNN_PASS_BACKWARD;
    int32_t count = 0;
    for (int32_t i = 0; i < step->node.num_sources; i++)
        if (step->node.present[i] && (!backward || (step->node.keeps_src & SRC(i))))
            values[count++] = cnn_step_reads(&plan->graph, step, i);
    if (backward && (step->node.back_prologue || cnn_node_keeps_dst(&step->node))) values[count++] = step->result;
    return count;
}

bool cnn_step_uses_saved(const cnn_step *step)
{
    for (int32_t i = 0; i < step->node.num_sources; i++)
        if (step->node.present[i] && (step->node.row->writes & SRC(i))) return true;
    return false;
}

/* What has been computed again so far, and which steps are to run next. */
typedef struct progress {
    bool *made;   /* by value */
    bool *wanted; /* by step */
    int32_t open; /* how many are wanted whose own sources have not been looked at */
} progress;

static void want_reads(const cnn_plan *plan, const cnn_event *event, progress *p)
{
    cnn_value reads[CNN_MAX_SOURCES + 1];
    const int32_t count = cnn_event_reads(plan, event, reads);
    for (int32_t i = 0; i < count; i++) {
        const cnn_value v = reads[i];
        if (!plan->values[v].dropped || p->made[v] || p->wanted[plan->graph.values[v].producer]) continue;
        p->wanted[plan->graph.values[v].producer] = true;
        p->open++;
    }
}

/* Runs what the backward pass of step s misses, and what that misses in turn, in the order of the steps. */
static void run_missing(cnn_plan *plan, int32_t s, progress *p)
{
    want_reads(plan, &(cnn_event){s, CNN_PASS_BACKWARD}, p);
    int32_t first = s + 1;
    while (p->open > 0) {
        if (!p->wanted[--first]) continue;
        p->open--;
        want_reads(plan, &(cnn_event){first, CNN_PASS_AGAIN}, p);
    }
    for (; first <= s; first++) {
        if (!p->wanted[first]) continue;
        plan->steps[first].again_at = plan->num_events;
        plan->events[plan->num_events++] = (cnn_event){first, CNN_PASS_AGAIN};
        p->made[plan->graph.steps[first].result] = true;
        p->wanted[first] = false;
    }
}

cnn_status cnn_plan_schedule(cnn_plan *plan)
{
    const cnn_graph *graph = &plan->graph;
    const cnn_allocator *allocator = &graph->allocator;
    progress p = {.made = cnn_allocate_zeroed(allocator, (size_t)graph->num_values + 1, sizeof *p.made),
                  .wanted = cnn_allocate_zeroed(allocator, (size_t)graph->num_steps + 1, sizeof *p.wanted)};
    cnn_status status = CNN_OK;
    if (p.made == NULL || p.wanted == NULL) {
        status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    } else {
        plan->num_events = 0;
        for (int32_t s = 0; s < graph->num_steps; s++) {
            plan->events[plan->num_events++] = (cnn_event){s, CNN_PASS_FORWARD};
            plan->steps[s].again_at = plan->steps[s].backward_at = 0;
        }
        for (int32_t s = graph->num_steps - 1; s >= 0; s--) {
            if (!plan->steps[s].backward) continue;
            run_missing(plan, s, &p);
            plan->steps[s].backward_at = plan->num_events;
            plan->events[plan->num_events++] = (cnn_event){s, CNN_PASS_BACKWARD};
        }
    }
    cnn_release(allocator, p.made);
    cnn_release(allocator, p.wanted);
    return status;
}
