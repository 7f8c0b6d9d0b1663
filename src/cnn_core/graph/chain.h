/* Chains of steps that run band by band: some rows of the last result after the other, each from as many rows of the
 * results before it as it sees. What lies between two steps is then never larger than a cache, and never in the arena.
 * (Alwani, Chen, Ferdman and Milder, "Fused-layer CNN accelerators", 2016.) For frozen plans alone: backward would read it,
 * and each band would pack weights again. */
#ifndef CNN_GRAPH_CHAIN_H
#define CNN_GRAPH_CHAIN_H

#include "graph/plan.h"

#define CNN_CHAIN_STEPS 8

/* Steps first .. first + steps - 1; each reads, as its source 0, what the one before it writes, and nobody else does. */
typedef struct cnn_chain {
    int32_t first, steps;
    int64_t band;                  /* rows of the last result that are computed at a time */
    int64_t rows[CNN_CHAIN_STEPS]; /* of each result that are kept meanwhile */
    size_t kept_bytes;             /* for them; of one thread, as the next */
    size_t step_bytes;             /* workspace of one step */
} cnn_chain;

/* Finds the chains of plan->graph, whose constants are stored, and notes them in the plan. */
cnn_status cnn_plan_chains(cnn_plan *plan);

/* The last step that runs together with step s. */
int32_t cnn_plan_run_end(const cnn_plan *plan, int32_t s);

/* Its workspace on so many threads. */
size_t cnn_chain_workspace(const cnn_chain *chain, int32_t threads);

/* call[k]: of step k as a whole, but that results between the steps are nowhere; workspace_bytes: of the workspace, at least
 * cnn_chain_workspace. Writes `=` the last step's dst. */
cnn_status cnn_chain_run(const cnn_chain *chain, const cnn_call *call, size_t workspace_bytes);

#endif
