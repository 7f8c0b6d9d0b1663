/* How long a plan's buffers live, which of them are one, and where they lie. */
#include "graph/arena.h"
#include "graph/chain.h"
#include "graph/plan.h"

/* The steps of a chain run at the time of its last. */
static int32_t forward_time(const cnn_plan *plan, int32_t step)
{
    return cnn_plan_run_end(plan, step);
}

static int32_t backward_time(const cnn_graph *graph, int32_t step)
{
    return 2 * graph->num_steps - 1 - step;
}

/* The last time that a result's data is read. */
static int32_t last_read(const cnn_plan *plan, cnn_value value)
{
    const cnn_graph *graph = &plan->graph;
    const int32_t end = 2 * graph->num_steps;
    const cnn_tensor *tensor = &graph->values[value];
    if (plan->values[value].kept && plan->options.repeat) return end;
    int32_t last = tensor->output ? graph->num_steps : forward_time(plan, tensor->producer);
    for (int32_t s = tensor->producer; s < graph->num_steps; s++) {
        const cnn_step *step = &graph->steps[s];
        bool read_back = step->result == value && cnn_node_keeps_dst(&step->node);
        for (int32_t i = 0; i < step->node.num_sources; i++) {
            if (step->source[i] != value) continue;
            if (forward_time(plan, s) > last) last = forward_time(plan, s);
            read_back = read_back || (step->node.keeps_src & SRC(i)) != 0;
        }
        if (read_back && plan->steps[s].backward && backward_time(graph, s) > last) last = backward_time(graph, s);
    }
    return last;
}

/* The first time that a result's gradient is written: at its last consumer in backward's order. */
static int32_t first_gradient(const cnn_plan *plan, cnn_value value)
{
    const cnn_graph *graph = &plan->graph;
    if (plan->values[value].copy_diff) return graph->num_steps;
    for (int32_t s = graph->num_steps - 1; s >= 0; s--)
        for (int32_t i = 0; i < graph->steps[s].node.num_sources; i++)
            if (graph->steps[s].source[i] == value && plan->steps[s].flow[i].wanted) return backward_time(graph, s);
    return graph->num_steps;
}

/* The output is written straight into the caller's memory, and its gradient read from there. */
static bool data_is_bound(const cnn_plan *plan, cnn_value v)
{
    return plan->graph.values[v].output && !plan->values[v].kept;
}

static bool diff_is_bound(const cnn_plan *plan, cnn_value v)
{
    return plan->graph.values[v].output && !plan->graph.values[v].watched && !plan->values[v].copy_diff;
}

/* A buffer is that of a value's data or gradient; values that share one have the same root. */
typedef struct life {
    cnn_value root;
    int32_t first, last;
} life;

static size_t bytes_of(const cnn_plan *plan, cnn_value v)
{
    return cnn_tensor_bytes(&plan->graph.values[v].shape, plan->graph.values[v].dtype);
}

static bool is_computed(const cnn_plan *plan, cnn_value v)
{
    const cnn_tensor *tensor = &plan->graph.values[v];
    return tensor->kind == CNN_VALUE_RESULT && tensor->producer >= 0;
}

/* Between two steps of a chain: never there as a whole. */
static bool is_passing(const cnn_plan *plan, cnn_value v)
{
    const int32_t producer = plan->graph.values[v].producer;
    return cnn_plan_run_end(plan, producer) != producer;
}

static bool has_data_buffer(const cnn_plan *plan, cnn_value v)
{
    return is_computed(plan, v) && !data_is_bound(plan, v) && !is_passing(plan, v);
}

static bool has_diff_buffer(const cnn_plan *plan, cnn_value v)
{
    return is_computed(plan, v) && plan->values[v].has_gradient && !diff_is_bound(plan, v);
}

/* dst takes over the memory of a source that nobody reads any more after this step. */
static void share_data(const cnn_plan *plan, int32_t s, life *lives)
{
    const cnn_step *step = &plan->graph.steps[s];
    const cnn_value v = step->result;
    if (!has_data_buffer(plan, v)) return;
    for (int32_t i = 0; i < step->node.num_sources; i++) {
        const cnn_value u = step->source[i];
        if (!(step->node.row->in_place & SRC(i)) || u == CNN_NONE || !has_data_buffer(plan, u)) continue;
        life *root = &lives[lives[u].root];
        if (root->last != forward_time(plan, s) || bytes_of(plan, u) != bytes_of(plan, v)) continue;
        root->last = lives[v].last;
        lives[v].root = lives[u].root;
        return;
    }
}

/* The gradient of a source takes over the memory of dst's, which is read for the last time in this step. */
static void share_diff(const cnn_plan *plan, int32_t s, life *lives)
{
    const cnn_step *step = &plan->graph.steps[s];
    const cnn_value v = step->result;
    const int32_t now = backward_time(&plan->graph, s);
    if (!plan->steps[s].backward || !has_diff_buffer(plan, v)) return;
    for (int32_t i = 0; i < step->node.num_sources; i++) {
        const cnn_value u = step->source[i];
        const cnn_flow *flow = &plan->steps[s].flow[i];
        if (!(step->node.row->in_place & SRC(i)) || !flow->wanted || !has_diff_buffer(plan, u)) continue;
        if (lives[u].first != now || plan->values[u].copy_diff || flow->add || flow->zero_first ||
            flow->temporary != CNN_NO_BUFFER || bytes_of(plan, u) != bytes_of(plan, v))
            continue;
        lives[lives[v].root].last = lives[u].last;
        lives[u].root = lives[v].root;
        return;
    }
}

static void find_data_lives(const cnn_plan *plan, life *lives)
{
    for (cnn_value v = 0; v < plan->graph.num_values; v++)
        if (has_data_buffer(plan, v))
            lives[v] = (life){v, forward_time(plan, plan->graph.values[v].producer), last_read(plan, v)};
    for (int32_t s = 0; s < plan->graph.num_steps; s++) share_data(plan, s, lives);
}

static void find_diff_lives(const cnn_plan *plan, life *lives)
{
    for (cnn_value v = 0; v < plan->graph.num_values; v++)
        if (has_diff_buffer(plan, v))
            lives[v] = (life){v, first_gradient(plan, v), backward_time(&plan->graph, plan->graph.values[v].producer)};
    for (int32_t s = plan->graph.num_steps - 1; s >= 0; s--) share_diff(plan, s, lives);
}

static int32_t list_data_buffers(cnn_plan *plan, const life *lives, cnn_buffer *list)
{
    int32_t count = 0;
    for (cnn_value v = 0; v < plan->graph.num_values; v++)
        if (has_data_buffer(plan, v) && lives[v].root == v)
            list[count++] = (cnn_buffer){bytes_of(plan, v), lives[v].first, lives[v].last, &plan->values[v].data};
    return count;
}

static int32_t list_diff_buffers(cnn_plan *plan, const life *lives, cnn_buffer *list)
{
    int32_t count = 0;
    for (cnn_value v = 0; v < plan->graph.num_values; v++)
        if (has_diff_buffer(plan, v) && lives[v].root == v)
            list[count++] = (cnn_buffer){bytes_of(plan, v), lives[v].first, lives[v].last, &plan->values[v].diff};
    return count;
}

static int32_t list_saved_buffers(cnn_plan *plan, cnn_buffer *list)
{
    int32_t count = 0;
    const cnn_graph *graph = &plan->graph;
    for (int32_t s = 0; s < graph->num_steps; s++) {
        const cnn_step *step = &graph->steps[s];
        const size_t saved = step->node.row->saved == NULL ? 0 : step->node.row->saved(&step->node);
        if (saved == 0) continue;
        int32_t last = forward_time(plan, s);
        if (plan->steps[s].backward) last = plan->options.repeat ? 2 * graph->num_steps : backward_time(graph, s);
        list[count++] = (cnn_buffer){saved, forward_time(plan, s), last, &plan->steps[s].saved};
    }
    return count;
}

static int32_t list_temporaries(cnn_plan *plan, cnn_buffer *list)
{
    int32_t count = 0;
    const cnn_graph *graph = &plan->graph;
    for (int32_t s = 0; s < graph->num_steps; s++)
        for (int32_t i = 0; i < graph->steps[s].node.num_sources; i++) {
            if (plan->steps[s].flow[i].temporary == CNN_NO_BUFFER) continue;
            const int32_t back = backward_time(graph, s);
            list[count++] = (cnn_buffer){bytes_of(plan, graph->steps[s].source[i]), back, back,
                                         &plan->steps[s].flow[i].temporary};
        }
    return count;
}

/* Forward's buffers alone are placed once before all together are: the difference is what gradients cost. */
static cnn_status place(cnn_plan *plan, const life *data, const life *diff, cnn_buffer *list)
{
    int32_t count = list_data_buffers(plan, data, list);
    count += list_saved_buffers(plan, list + count);
    CNN_TRY(cnn_arena_place(&plan->graph.allocator, list, count, &plan->forward_bytes));
    count = list_data_buffers(plan, data, list);
    count += list_saved_buffers(plan, list + count);
    count += list_diff_buffers(plan, diff, list + count);
    count += list_temporaries(plan, list + count);
    CNN_TRY(cnn_arena_place(&plan->graph.allocator, list, count, &plan->arena_bytes));
    if (plan->forward_bytes > plan->arena_bytes) plan->forward_bytes = plan->arena_bytes;
    if (plan->arena_bytes >= CNN_SIZE_LIMIT)
        return cnn_fail(CNN_OUT_OF_MEMORY, "the network's buffers are too large to address");
    for (cnn_value v = 0; v < plan->graph.num_values; v++) {
        if (has_data_buffer(plan, v)) plan->values[v].data = plan->values[data[v].root].data;
        if (has_diff_buffer(plan, v)) plan->values[v].diff = plan->values[diff[v].root].diff;
    }
    return CNN_OK;
}

cnn_status cnn_plan_memory(cnn_plan *plan)
{
    const size_t values = (size_t)plan->graph.num_values + 1;
    size_t most = 2 * values + (size_t)plan->graph.num_steps;
    for (int32_t s = 0; s < plan->graph.num_steps; s++) most += (size_t)plan->graph.steps[s].node.num_sources;
    const cnn_allocator *allocator = &plan->graph.allocator;
    cnn_buffer *list = cnn_allocate(allocator, most * sizeof *list);
    life *data = cnn_allocate(allocator, values * sizeof *data), *diff = cnn_allocate(allocator, values * sizeof *diff);
    cnn_status status;
    if (list == NULL || data == NULL || diff == NULL) {
        status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory to plan buffers");
    } else {
        find_data_lives(plan, data);
        find_diff_lives(plan, diff);
        status = place(plan, data, diff, list);
    }
    cnn_release(allocator, list);
    cnn_release(allocator, data);
    cnn_release(allocator, diff);
    return status;
}
