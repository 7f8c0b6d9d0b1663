/* What a plan holds: the graph's steps, the order of their work, which gradients flow where, and an offset in one arena for
 * every buffer.
 *
 * Time counts events: all steps forward, then backward in reverse, with some steps running forward again just before their
 * results are read. A buffer lives from the time it is first written to the time it is last read; buffers that never live
 * together may share memory.
 *
 *      arena   | data of results | saved | diff of results | temporaries of gradient sums |    (overlaid by lifetime)
 *
 * Memory that the caller binds is not in it: inputs, parameters, states, and outputs that backward does not read. */
#ifndef CNN_GRAPH_PLAN_H
#define CNN_GRAPH_PLAN_H

#include "graph/passes.h"

#define CNN_NO_BUFFER SIZE_MAX

typedef enum cnn_pass { CNN_PASS_FORWARD, CNN_PASS_AGAIN, CNN_PASS_BACKWARD } cnn_pass;

typedef struct cnn_event {
    int32_t step;
    cnn_pass pass;
} cnn_event;

/* How a step's gradient reaches source i. */
typedef struct cnn_flow {
    bool wanted;
    bool zero_first;  /* the row adds, and nothing was written before: clear the target */
    bool add;         /* something was there, and the row can add to it */
    size_t temporary; /* something was there, and the row only writes: write here, then add; else CNN_NO_BUFFER */
} cnn_flow;

typedef struct cnn_value_plan {
    size_t data, diff;   /* offsets of buffers in the arena, or CNN_NO_BUFFER */
    size_t again;        /* the same for what is computed again */
    bool dropped;        /* forward's data does not stay for backward: the step runs again */
    bool has_gradient;   /* a gradient reaches it */
    bool copy_diff;      /* output whose gradient also comes from within: the caller's is copied, then added to */
    bool kept;           /* backward, or a step that runs again, reads it */
} cnn_value_plan;

typedef struct cnn_step_plan {
    bool backward;       /* takes part in backward */
    int32_t chain;       /* in which it runs, or -1 */
    int32_t again_at, backward_at; /* its events; 0: none */
    int32_t watcher;     /* the next step, if it watches this one's result being made; or -1 */
    int32_t shown_by;    /* the one before, if this step watches its result being made; or -1 */
    int32_t back_watcher, back_shown_by; /* the same of backward and the gradient of source 0 */
    int32_t made_of;     /* the step of whose gradient this one makes its own result's, deferred; or -1 */
    int32_t made_by;     /* the other way round; or -1 */
    const void *packed;  /* of a frozen plan: what the row packed, or NULL */
    size_t saved;        /* offset, or CNN_NO_BUFFER */
    size_t saved_again;  /* the same for what the second run saves, if it does not use what the first one saved */
    cnn_flow flow[CNN_MAX_SOURCES];
} cnn_step_plan;

struct cnn_plan {
    cnn_plan_options options;
    cnn_graph graph; /* a copy */
    cnn_value_plan *values;
    cnn_step_plan *steps;
    cnn_event *events;       /* first all steps forward */
    int32_t num_events;
    size_t arena_bytes;
    size_t forward_bytes;    /* of the arena, if there were no gradients */
    const void **constants;  /* of a frozen plan: parameters and states by value, NULL where nobody reads them */
    char *constant_memory;   /* where they and packed weights lie */
    size_t constant_bytes;
    struct cnn_chain *chains; /* (graph/chain.h) */
    int32_t num_chains;
};

/* True where the scalar references run. */
static inline bool cnn_plan_uses_reference(const cnn_plan *plan)
{
    return plan->options.reference || plan->graph.dtype == CNN_FLOAT64;
}

/* Backward of the node reads what forward wrote to dst. */
static inline bool cnn_node_keeps_dst(const cnn_node *node)
{
    return node->keeps_dst ||
           (node->epilogue.activates && (node->epilogue.adds || !node->row->activates_again));
}

/* Where a pass finds a value's data, if it is in the arena: in what is computed again? */
static inline bool cnn_pass_reads_again(const cnn_plan *plan, cnn_pass pass, cnn_value value)
{
    return pass != CNN_PASS_FORWARD && plan->values[value].dropped;
}

/* Lists what a pass of a step reads, at most CNN_MAX_SOURCES + 1 values; returns how many. (schedule.c) */
int32_t cnn_event_reads(const cnn_plan *plan, const cnn_event *event, cnn_value *values);

/* A step that runs again and may not write to its states a second time: it uses what the first run saved. */
bool cnn_step_uses_saved(const cnn_step *step);

/* Orders the events, given which values are dropped; plan->events has room for three times the steps. (schedule.c) */
cnn_status cnn_plan_schedule(cnn_plan *plan);

/* Chooses the values to drop, as plan->options.recompute says, and orders the events. (recompute.c) */
cnn_status cnn_plan_recompute(cnn_plan *plan);

/* Gives every buffer a lifetime and a place in the arena. (memory.c) */
cnn_status cnn_plan_memory(cnn_plan *plan);
/* *bytes = the most that is alive at a time: what no arena can do without. (memory.c) */
cnn_status cnn_plan_peak(cnn_plan *plan, size_t *bytes);

/* Copies and packs the constants into the plan; node.packed is set where that is done. (freeze.c) */
cnn_status cnn_plan_store_constants(cnn_plan *plan, const cnn_constants *constants);

/* True where the weights that the node packs can be read back. (unpack.c) */
bool cnn_plan_unpacks(const cnn_node *node);
/* data = a constant of a frozen plan as it was given, or folded. (unpack.c) */
cnn_status cnn_plan_read_constant(const cnn_plan *plan, cnn_value value, void *data);

/* Connects steps with those that watch them, forward; and, once events are in order, backward. (watch.c) */
void cnn_plan_watches(cnn_plan *plan);
void cnn_plan_back_watches(cnn_plan *plan);

/* Leaves results and gradients that are cheap to make to the one step that reads them. (defer.c) */
cnn_status cnn_plan_defer(cnn_plan *plan);
/* The value that a step reads as its source i: of a deferred source, that one's own. */
cnn_value cnn_step_reads(const cnn_graph *graph, const cnn_step *step, int32_t i);

/* Bytes of workspace that a pass of a step uses, and begins behind: that of the step whose result it watches, which needs its
 * own at the same time. */
size_t cnn_step_workspace(const cnn_plan *plan, int32_t step, cnn_pass pass, int32_t threads);
size_t cnn_step_workspace_begin(const cnn_plan *plan, int32_t step, cnn_pass pass, int32_t threads);
/* Bytes of workspace for any one step on `threads` threads. */
size_t cnn_plan_workspace(const cnn_plan *plan, int32_t threads);

/* Bytes of a context beside its arena and workspace. (context.c) */
size_t cnn_plan_context_tables(const cnn_plan *plan);

/* Regions of this thread run as the context wants, until cnn_use_executor gets back what is returned. (context.c) */
const cnn_executor *cnn_context_enter(const cnn_context *context);

#endif
