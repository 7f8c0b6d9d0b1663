/* What backward reads need not be kept: it can be computed again from what is.
 *
 * Some operations only pass over memory, as normalization and activation do. What they made of tensors that backward reads
 * anyway costs little to make again.
 *
 * For the least memory the steps are cut into segments. What crosses a cut stays, all else goes, and each segment runs
 * again, whole, before its backward pass: Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost",
 * 2016. No step runs more than once again. */
#include <math.h>

#include "graph/plan.h"

enum {
    SHARE = 50,       /* cheap work may take a part in so many of all work */
    PASS_WORK = 12,   /* multiply-adds in the time that a float takes from memory or to it */
    WORTH = 1 << 18,  /* bytes below which a result is not worth a step more */
    SMALL = 1 << 26,  /* bytes below which a plan is small enough as it is */
    MOST_READ = 5,    /* a cheap step reads at most so many halves of what it writes */
    DEPTH = 4,        /* so many steps may run again for one result */
    GAIN = 64         /* a choice of cuts must save a part in so many more than one with fewer */
};

/* What choosing needs to know of a plan. */
typedef struct survey {
    cnn_plan *plan;
    int32_t *last_forward; /* by value: the last step that reads it forward */
    int32_t *first_kept;   /* by value: the first step whose backward pass reads it; num_steps: none */
    size_t *kept;          /* [step + 1]: bytes that backward reads of what the steps before made */
    size_t *crossing;      /* [step]: bytes made by then that steps behind it read */
    double *cost;          /* [step + 1]: bytes crossing the best cuts so far, the last one behind the steps before */
    int32_t *cut_before;   /* [step + 1]: where the cut before that is, as a number of steps */
    bool *cut;             /* [step]: there is a cut behind it */
    cnn_value *candidates;
    cnn_value *trial;      /* those dropped to see what that brings */
} survey;

static size_t bytes_of(const cnn_plan *plan, cnn_value v)
{
    return cnn_tensor_bytes(&plan->graph.values[v].shape, plan->graph.values[v].dtype);
}

static bool is_result(const cnn_plan *plan, cnn_value v)
{
    return v != CNN_NONE && plan->graph.values[v].kind == CNN_VALUE_RESULT && plan->graph.values[v].producer >= 0;
}

static void look(const survey *y)
{
    const cnn_graph *graph = &y->plan->graph;
    for (cnn_value v = 0; v < graph->num_values; v++) {
        y->last_forward[v] = graph->values[v].producer;
        y->first_kept[v] = graph->num_steps;
    }
    for (int32_t s = graph->num_steps - 1; s >= 0; s--) {
        cnn_value reads[CNN_MAX_SOURCES + 1];
        int32_t count = cnn_event_reads(y->plan, &(cnn_event){s, CNN_PASS_FORWARD}, reads);
        for (int32_t i = 0; i < count; i++)
            if (s > y->last_forward[reads[i]]) y->last_forward[reads[i]] = s;
        if (!y->plan->steps[s].backward) continue;
        count = cnn_event_reads(y->plan, &(cnn_event){s, CNN_PASS_BACKWARD}, reads);
        for (int32_t i = 0; i < count; i++) y->first_kept[reads[i]] = s;
    }
}

/* ---- what only passes over memory ----------------------------------------------------------------------------------- */

/* Bytes that step s moves, and in *reads those of results that it reads. */
static double moved(const cnn_plan *plan, int32_t s, double *reads)
{
    const cnn_step *step = &plan->graph.steps[s];
    *reads = 0.0;
    for (int32_t i = 0; i < step->node.num_sources; i++)
        if (is_result(plan, step->source[i])) *reads += (double)bytes_of(plan, step->source[i]);
    return *reads + (double)bytes_of(plan, step->result);
}

/* In the time that forward takes for a multiply-add. */
static double work_of(const cnn_plan *plan, int32_t s)
{
    const cnn_node *node = &plan->graph.steps[s].node;
    double reads;
    if (node->row->work != NULL) return node->row->work(node);
    return PASS_WORK * moved(plan, s, &reads) / (double)sizeof(float);
}

static bool is_cheap(const cnn_plan *plan, cnn_value v)
{
    double reads;
    if (!is_result(plan, v) || plan->graph.values[v].output) return false;
    (void)moved(plan, plan->graph.values[v].producer, &reads);
    return plan->graph.steps[plan->graph.values[v].producer].node.row->work == NULL &&
           reads <= (double)MOST_READ / 2.0 * (double)bytes_of(plan, v);
}

/* Drops v and, of what its step reads, all that does not stay until backward of the step, and so on. Adds them to `trial`,
 * and what they cost to *work. false: something would be missing. */
static bool drop(const survey *y, cnn_value v, int32_t depth, int32_t *count, double *work)
{
    cnn_plan *plan = y->plan;
    const int32_t s = plan->graph.values[v].producer;
    const cnn_step *step = &plan->graph.steps[s];
    plan->values[v].dropped = true;
    y->trial[(*count)++] = v;
    *work += work_of(plan, s);
    for (int32_t i = 0; i < step->node.num_sources; i++) {
        const cnn_value u = step->source[i];
        if (!is_result(plan, u) || plan->values[u].dropped || y->first_kept[u] <= s) continue;
        if (depth == 0 || !is_cheap(plan, u) || !drop(y, u, depth - 1, count, work)) return false;
    }
    return true;
}

/* Largest first, among equals the earlier one. */
static void sort_candidates(const survey *y, int32_t count)
{
    for (int32_t i = 1; i < count; i++) {
        const cnn_value v = y->candidates[i];
        int32_t to = i;
        for (; to > 0 && bytes_of(y->plan, y->candidates[to - 1]) < bytes_of(y->plan, v); to--)
            y->candidates[to] = y->candidates[to - 1];
        y->candidates[to] = v;
    }
}

/* Drops what costs little and lowers the peak, as long as that is not more than `budget` and the peak above `smallest`. */
static cnn_status drop_cheap(const survey *y, double budget, size_t smallest)
{
    cnn_plan *plan = y->plan;
    int32_t candidates = 0;
    size_t least;
    for (cnn_value v = 0; v < plan->graph.num_values; v++)
        if (!plan->values[v].dropped && y->first_kept[v] < plan->graph.num_steps && bytes_of(plan, v) >= WORTH &&
            is_cheap(plan, v))
            y->candidates[candidates++] = v;
    sort_candidates(y, candidates);
    CNN_TRY(cnn_plan_schedule(plan));
    CNN_TRY(cnn_plan_peak(plan, &least));
    for (int32_t i = 0; i < candidates && least > smallest; i++) {
        const cnn_value v = y->candidates[i];
        size_t peak = least;
        double work = 0.0;
        int32_t count = 0;
        if (plan->values[v].dropped) continue; /* for another one */
        if (drop(y, v, DEPTH, &count, &work) && work <= budget) {
            CNN_TRY(cnn_plan_schedule(plan));
            CNN_TRY(cnn_plan_peak(plan, &peak));
        }
        if (peak < least) {
            least = peak;
            budget -= work;
        } else {
            while (count > 0) plan->values[y->trial[--count]].dropped = false;
        }
    }
    return CNN_OK;
}

/* Backward is taken for twice the work of forward. */
static double cheap_budget(const cnn_plan *plan)
{
    double work = 0.0;
    for (int32_t s = 0; s < plan->graph.num_steps; s++) work += (plan->steps[s].backward ? 3.0 : 1.0) * work_of(plan, s);
    return work / SHARE;
}

/* ---- segments --------------------------------------------------------------------------------------------------------- */

static void measure(const survey *y)
{
    const cnn_plan *plan = y->plan;
    const int32_t steps = plan->graph.num_steps;
    for (int32_t s = 0; s <= steps; s++) y->kept[s] = y->crossing[s] = 0;
    for (cnn_value v = 0; v < plan->graph.num_values; v++) {
        if (!is_result(plan, v)) continue;
        y->crossing[plan->graph.values[v].producer] += bytes_of(plan, v);
        y->crossing[y->last_forward[v]] -= bytes_of(plan, v); /* wraps around; the sums below come out right */
        if (y->first_kept[v] < steps) y->kept[plan->graph.values[v].producer + 1] += bytes_of(plan, v);
    }
    for (int32_t s = 0; s < steps; s++) {
        if (s > 0) y->crossing[s] += y->crossing[s - 1];
        y->kept[s + 1] += y->kept[s];
    }
}

/* Cuts such that no segment keeps more than `limit` bytes and the least crosses the cuts, taken together. false: a single
 * step keeps more. */
static bool find_cuts(const survey *y, size_t limit)
{
    const int32_t steps = y->plan->graph.num_steps;
    y->cost[0] = 0.0;
    for (int32_t end = 1; end <= steps; end++) {
        y->cost[end] = (double)INFINITY;
        for (int32_t begin = end - 1; begin >= 0 && y->kept[end] - y->kept[begin] <= limit; begin--) {
            const double cost = y->cost[begin] + (end < steps ? (double)y->crossing[end - 1] : 0.0);
            if (cost >= y->cost[end]) continue;
            y->cost[end] = cost;
            y->cut_before[end] = begin;
        }
    }
    if (isinf(y->cost[steps])) return false;
    for (int32_t s = 0; s < steps; s++) y->cut[s] = false;
    for (int32_t at = y->cut_before[steps]; at > 0; at = y->cut_before[at]) y->cut[at - 1] = true;
    return true;
}

/* Drops what is made before the last cut and crosses none; what lies behind it is needed first, and stays. */
static void drop_segments(const survey *y)
{
    cnn_plan *plan = y->plan;
    int32_t next = -1; /* the first cut behind the step */
    for (cnn_value v = 0; v < plan->graph.num_values; v++) plan->values[v].dropped = false;
    for (int32_t s = plan->graph.num_steps - 1; s >= 0; s--) {
        const cnn_value v = plan->graph.steps[s].result;
        if (y->cut[s]) next = s;
        plan->values[v].dropped = next >= 0 && y->last_forward[v] <= next && !plan->graph.values[v].output;
    }
}

/* Tries cuts into more and more segments, and takes those that leave the least alive at any time. */
static cnn_status choose_segments(const survey *y)
{
    static const size_t parts[] = {2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64};
    cnn_plan *plan = y->plan;
    const size_t kept = y->kept[plan->graph.num_steps];
    size_t least, best = 0;
    CNN_TRY(cnn_plan_schedule(plan));
    CNN_TRY(cnn_plan_peak(plan, &least));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t peak;
        if (!find_cuts(y, kept / parts[i])) break;
        drop_segments(y);
        CNN_TRY(cnn_plan_schedule(plan));
        CNN_TRY(cnn_plan_peak(plan, &peak));
        if (peak >= least - least / GAIN) continue;
        least = peak;
        best = kept / parts[i];
    }
    for (int32_t s = 0; s < plan->graph.num_steps; s++) y->cut[s] = false;
    if (best > 0) (void)find_cuts(y, best);
    drop_segments(y);
    return drop_cheap(y, (double)INFINITY, 0);
}

/* ---- both --------------------------------------------------------------------------------------------------------------- */

static cnn_status choose(cnn_plan *plan)
{
    const size_t values = (size_t)plan->graph.num_values + 1, steps = (size_t)plan->graph.num_steps + 1;
    const cnn_allocator *allocator = &plan->graph.allocator;
    const survey y = {
        .plan = plan,
        .last_forward = cnn_allocate(allocator, values * sizeof *y.last_forward),
        .first_kept = cnn_allocate(allocator, values * sizeof *y.first_kept),
        .kept = cnn_allocate(allocator, steps * sizeof *y.kept),
        .crossing = cnn_allocate(allocator, steps * sizeof *y.crossing),
        .cost = cnn_allocate(allocator, steps * sizeof *y.cost),
        .cut_before = cnn_allocate(allocator, steps * sizeof *y.cut_before),
        .cut = cnn_allocate(allocator, steps * sizeof *y.cut),
        .candidates = cnn_allocate(allocator, values * sizeof *y.candidates),
        .trial = cnn_allocate(allocator, values * sizeof *y.trial),
    };
    cnn_status status = CNN_OK;
    if (y.last_forward == NULL || y.first_kept == NULL || y.kept == NULL || y.crossing == NULL || y.cost == NULL ||
        y.cut_before == NULL || y.cut == NULL || y.candidates == NULL || y.trial == NULL) {
        status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    } else {
        look(&y);
        measure(&y);
        if (plan->options.recompute == CNN_RECOMPUTE_MOST)
            status = choose_segments(&y);
        else
            status = drop_cheap(&y, cheap_budget(plan), SMALL);
    }
    cnn_release(allocator, y.last_forward);
    cnn_release(allocator, y.first_kept);
    cnn_release(allocator, y.kept);
    cnn_release(allocator, y.crossing);
    cnn_release(allocator, y.cost);
    cnn_release(allocator, y.cut_before);
    cnn_release(allocator, y.cut);
    cnn_release(allocator, y.candidates);
    cnn_release(allocator, y.trial);
    return status;
}

cnn_status cnn_plan_recompute(cnn_plan *plan)
{
    if (plan->options.backward && plan->options.recompute != CNN_RECOMPUTE_NONE) CNN_TRY(choose(plan));
    CNN_TRY(cnn_plan_schedule(plan));
    for (int32_t time = plan->graph.num_steps; time < plan->num_events; time++) {
        cnn_value reads[CNN_MAX_SOURCES + 1];
        const int32_t count = cnn_event_reads(plan, &plan->events[time], reads);
        for (int32_t i = 0; i < count; i++)
            if (!plan->values[reads[i]].dropped) plan->values[reads[i]].kept = true;
    }
    return CNN_OK;
}
