/* Running a plan: one arena, one workspace, and the pointers that the caller bound. */
#include <string.h>

#include "graph/chain.h"

struct cnn_context {
    const cnn_plan *plan;
    void **bound_data, **bound_diff; /* by value */
    char *arena;
    char *workspace;
    size_t workspace_bytes;
    int32_t threads;     /* what the workspace suffices for */
    int32_t run_threads; /* of this run */
    bool owned;          /* its memory comes from the plan's allocator, not from the caller */
    uint64_t random_seed, random_call;
    bool forward_done, backward_done;
    cnn_executor executor;
};

static int32_t wanted_threads(const cnn_plan *plan)
{
    return plan->options.threads > 0 ? plan->options.threads : cnn_get_num_threads();
}

/* A context is one piece of memory:   context | bound data | bound diff | arena | workspace, if it is the caller's */
static size_t table_bytes(const cnn_plan *plan)
{
    return cnn_size_align(((size_t)plan->graph.num_values + 1) * sizeof(void *));
}

size_t cnn_plan_context_tables(const cnn_plan *plan)
{
    return cnn_size_align(sizeof(cnn_context)) + 2 * table_bytes(plan);
}

static size_t fixed_bytes(const cnn_plan *plan)
{
    return cnn_size_add(cnn_plan_context_tables(plan), cnn_size_align(plan->arena_bytes));
}

static cnn_context *lay_out(const cnn_plan *plan, char *memory)
{
    char *cursor = memory;
    cnn_context *made = cnn_take(&cursor, sizeof *made);
    memset(made, 0, cnn_plan_context_tables(plan));
    made->plan = plan;
    made->bound_data = cnn_take(&cursor, table_bytes(plan));
    made->bound_diff = cnn_take(&cursor, table_bytes(plan));
    made->arena = cnn_take(&cursor, plan->arena_bytes);
    made->workspace = cursor;
    return made;
}

cnn_status cnn_context_create(const cnn_plan *plan, cnn_context **context)
{
    *context = NULL;
    char *memory = cnn_allocate(&plan->graph.allocator, fixed_bytes(plan));
    if (memory == NULL)
        return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for the network's %zu bytes of activations", plan->arena_bytes);
    *context = lay_out(plan, memory);
    (*context)->owned = true;
    (*context)->workspace = NULL;
    return CNN_OK;
}

size_t cnn_plan_context_bytes(const cnn_plan *plan)
{
    const size_t bytes = cnn_size_add(fixed_bytes(plan), cnn_plan_workspace(plan, wanted_threads(plan)));
    return cnn_size_add(bytes, CNN_ALIGNMENT - 1);
}

cnn_status cnn_context_create_in(const cnn_plan *plan, void *memory, size_t bytes, cnn_context **context)
{
    *context = NULL;
    const size_t slack = (size_t)(-(uintptr_t)memory & (CNN_ALIGNMENT - 1)), fixed = fixed_bytes(plan);
    int32_t threads = wanted_threads(plan);
    while (threads > 0 && cnn_size_add(slack + fixed, cnn_plan_workspace(plan, threads)) > bytes) threads--;
    if (threads == 0)
        return cnn_fail(CNN_INVALID_VALUE, "bytes: got %zu, expected at least %zu", bytes,
                        cnn_size_add(slack + fixed, cnn_plan_workspace(plan, 1)));
    *context = lay_out(plan, (char *)memory + slack);
    (*context)->workspace_bytes = cnn_plan_workspace(plan, threads);
    (*context)->threads = threads;
    return CNN_OK;
}

void cnn_context_free(cnn_context *context)
{
    if (context == NULL || !context->owned) return;
    const cnn_allocator *allocator = &context->plan->graph.allocator;
    cnn_release(allocator, context->workspace);
    cnn_release(allocator, context);
}

size_t cnn_context_bytes(const cnn_context *context)
{
    return fixed_bytes(context->plan) + context->workspace_bytes;
}

cnn_status cnn_context_bind(cnn_context *context, cnn_value value, void *data, void *diff)
{
    const cnn_graph *graph = &context->plan->graph;
    if (value < 0 || value >= graph->num_values)
        return cnn_fail(CNN_INVALID_VALUE, "value %d is not of this plan, which has %d", value, graph->num_values);
    const cnn_tensor *tensor = &graph->values[value];
    if (context->plan->constants != NULL && (tensor->kind == CNN_VALUE_PARAMETER || tensor->kind == CNN_VALUE_STATE))
        return cnn_fail(CNN_INVALID_VALUE, "value %d is a constant of this plan", value);
    if (tensor->kind == CNN_VALUE_RESULT && !tensor->output)
        return cnn_fail(CNN_INVALID_VALUE, "value %d is neither input, parameter, state nor output", value);
    context->bound_data[value] = data;
    context->bound_diff[value] = diff;
    return CNN_OK;
}

cnn_status cnn_context_random(cnn_context *context, uint64_t seed, uint64_t call)
{
    context->random_seed = seed;
    context->random_call = call;
    return CNN_OK;
}

cnn_status cnn_context_set_executor(cnn_context *context, cnn_executor_fn executor, void *state)
{
    context->executor = (cnn_executor){.run = executor, .state = state};
    return CNN_OK;
}

const cnn_executor *cnn_context_enter(const cnn_context *context)
{
    return cnn_use_executor(context->executor.run == NULL ? NULL : &context->executor);
}

/* The thread count may have risen since the last run; this is the only allocation after creation. */
static cnn_status prepare_workspace(cnn_context *context)
{
    const int32_t threads = wanted_threads(context->plan);
    context->run_threads = context->owned ? threads : (int32_t)cnn_min_i64(threads, context->threads);
    if (context->run_threads <= context->threads) return CNN_OK;
    const size_t bytes = cnn_plan_workspace(context->plan, threads);
    if (bytes > context->workspace_bytes) {
        const cnn_allocator *allocator = &context->plan->graph.allocator;
        char *grown = cnn_allocate(allocator, bytes);
        if (grown == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for %zu bytes of workspace", bytes);
        cnn_release(allocator, context->workspace);
        context->workspace = grown;
        context->workspace_bytes = bytes;
    }
    context->threads = threads;
    return CNN_OK;
}

static size_t value_bytes(const cnn_context *context, cnn_value value)
{
    const cnn_tensor *tensor = &context->plan->graph.values[value];
    return cnn_tensor_bytes(&tensor->shape, tensor->dtype);
}

static void *data_of(const cnn_context *context, cnn_pass pass, cnn_value value)
{
    if (value == CNN_NONE) return NULL;
    const cnn_plan *plan = context->plan;
    const size_t offset =
        cnn_pass_reads_again(plan, pass, value) ? plan->values[value].again : plan->values[value].data;
    /* Operations write to states only, and not to those of a frozen plan. */
    if (plan->constants != NULL && plan->constants[value] != NULL) return (void *)(uintptr_t)plan->constants[value];
    return offset == CNN_NO_BUFFER ? context->bound_data[value] : context->arena + offset;
}

static void *diff_of(const cnn_context *context, cnn_value value)
{
    const size_t offset = context->plan->values[value].diff;
    return offset == CNN_NO_BUFFER ? context->bound_diff[value] : context->arena + offset;
}

static const char *const kind_names[] = {"input", "parameter", "state", "output"};

static cnn_status check_bound(const cnn_context *context)
{
    const cnn_graph *graph = &context->plan->graph;
    for (cnn_value v = 0; v < graph->num_values; v++) {
        const cnn_tensor *tensor = &graph->values[v];
        const bool own = context->plan->constants != NULL &&
                         (tensor->kind == CNN_VALUE_PARAMETER || tensor->kind == CNN_VALUE_STATE);
        const bool external = (tensor->kind != CNN_VALUE_RESULT && !own) || tensor->output;
        if (external && context->bound_data[v] == NULL && value_bytes(context, v) > 0)
            return cnn_fail(CNN_INVALID_STATE, "%s %d is not bound to memory", kind_names[tensor->kind], v);
    }
    return CNN_OK;
}

static cnn_status check_diff_bound(const cnn_context *context)
{
    const cnn_graph *graph = &context->plan->graph;
    for (cnn_value v = 0; v < graph->num_values; v++) {
        const cnn_tensor *tensor = &graph->values[v];
        const bool external = tensor->kind == CNN_VALUE_PARAMETER || (tensor->output && !tensor->watched);
        if (external && context->plan->values[v].has_gradient && context->bound_diff[v] == NULL &&
            value_bytes(context, v) > 0)
            return cnn_fail(CNN_INVALID_STATE, "the gradient of %s %d is not bound to memory",
                            kind_names[tensor->kind], v);
    }
    return CNN_OK;
}

static void describe_call(const cnn_context *context, cnn_pass pass, int32_t s, void **src, cnn_call *call);

/* What a source lacks whose step was deferred. */
static void describe_prologue(const cnn_context *context, cnn_pass pass, cnn_value deferred, cnn_prologue *prologue)
{
    void *src[CNN_MAX_SOURCES];
    cnn_call call;
    describe_call(context, pass, context->plan->graph.values[deferred].producer, src, &call);
    call.node->row->prologue(&call, prologue);
}

static void describe_call(const cnn_context *context, cnn_pass pass, int32_t s, void **src, cnn_call *call)
{
    const cnn_step *step = &context->plan->graph.steps[s];
    const cnn_step_plan *own = &context->plan->steps[s];
    const size_t saved = pass != CNN_PASS_FORWARD && own->saved_again != CNN_NO_BUFFER ? own->saved_again : own->saved;
    for (int32_t i = 0; i < step->node.num_sources; i++)
        src[i] = data_of(context, pass, cnn_step_reads(&context->plan->graph, step, i));
    for (int32_t i = step->node.num_sources; i <= step->node.row->max_sources && i < CNN_MAX_SOURCES; i++) src[i] = NULL;
    *call = (cnn_call){
        .node = &step->node,
        .src = src,
        .dst = data_of(context, pass, step->result),
        .packed = own->packed,
        .saved = saved == CNN_NO_BUFFER ? NULL : context->arena + saved,
        .workspace = context->workspace + cnn_step_workspace_begin(context->plan, s, pass, context->run_threads),
        .again = pass == CNN_PASS_AGAIN,
        .threads = context->run_threads,
        .random_seed = context->random_seed,
        .random_call = context->random_call,
    };
    if (step->node.prologue) describe_prologue(context, pass, step->source[0], &call->prologue);
}

/* Lets the step that watches this one, if there is one, get ready. */
static void start_watch(const cnn_context *context, int32_t s, cnn_watch *watch, cnn_call *call)
{
    const int32_t watcher = context->plan->steps[s].watcher;
    if (watcher < 0) return;
    void *src[CNN_MAX_SOURCES];
    cnn_call next;
    describe_call(context, CNN_PASS_FORWARD, watcher, src, &next);
    next.node->row->watch(&next, watch);
    call->watch = watch;
}

/* Forward, for the first time or again. */
static cnn_status run_forward(const cnn_context *context, cnn_pass pass, int32_t s)
{
    const cnn_step *step = &context->plan->graph.steps[s];
    const cnn_op_row *row = step->node.row;
    void *src[CNN_MAX_SOURCES];
    cnn_call call;
    cnn_watch watch;
    if (cnn_shape_count(&step->node.dst_shape) == 0) return CNN_OK;
    describe_call(context, pass, s, src, &call);
    if (pass == CNN_PASS_FORWARD) start_watch(context, s, &watch, &call);
    const cnn_status status = cnn_plan_uses_reference(context->plan) ? row->reference_forward(&call) : row->forward(&call);
    return status == CNN_OK ? CNN_OK : cnn_fail_in(row->name, status);
}

static cnn_status run_chain(const cnn_context *context, const cnn_chain *chain)
{
    void *src[CNN_CHAIN_STEPS][CNN_MAX_SOURCES];
    cnn_call call[CNN_CHAIN_STEPS];
    for (int32_t k = 0; k < chain->steps; k++) describe_call(context, CNN_PASS_FORWARD, chain->first + k, src[k], &call[k]);
    return cnn_chain_run(chain, call, context->workspace_bytes);
}

static cnn_status forward(cnn_context *context)
{
    const cnn_plan *plan = context->plan;
    context->forward_done = false;
    CNN_TRY(check_bound(context));
    CNN_TRY(prepare_workspace(context));
    for (int32_t s = 0; s < plan->graph.num_steps; s = cnn_plan_run_end(plan, s) + 1) {
        const int32_t chain = plan->steps[s].chain;
        CNN_TRY(chain < 0 ? run_forward(context, CNN_PASS_FORWARD, s) : run_chain(context, &plan->chains[chain]));
    }
    for (cnn_value v = 0; v < plan->graph.num_values; v++)
        if (plan->graph.values[v].output && plan->values[v].data != CNN_NO_BUFFER && value_bytes(context, v) > 0)
            memcpy(context->bound_data[v], context->arena + plan->values[v].data, value_bytes(context, v));
    context->forward_done = true;
    context->backward_done = false;
    return CNN_OK;
}

cnn_status cnn_context_forward(cnn_context *context)
{
    const cnn_executor *before = cnn_context_enter(context);
    const cnn_status status = forward(context);
    (void)cnn_use_executor(before);
    return status;
}

#define ADD_BLOCK 16384

typedef struct addition {
    cnn_dtype dtype;
    int64_t count;
    const void *src;
    void *dst;
} addition;

static void add_block(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const addition *add = arg;
    const int64_t first = task * ADD_BLOCK, last = cnn_min_i64(first + ADD_BLOCK, add->count);
    if (add->dtype == CNN_FLOAT64) {
        const double *from = add->src;
        double *to = add->dst;
        for (int64_t i = first; i < last; i++) to[i] += from[i];
    } else {
        const float *from = add->src;
        float *to = add->dst;
        for (int64_t i = first; i < last; i++) to[i] += from[i];
    }
}

/* dst += src */
static void add_into(const cnn_context *context, size_t bytes, const void *src, void *dst)
{
    const cnn_dtype dtype = context->plan->graph.dtype;
    addition add = {dtype, (int64_t)(bytes / cnn_dtype_bytes(dtype)), src, dst};
    cnn_parallel(cnn_useful_threads(context->run_threads, 0.3 * (double)add.count),
                 cnn_ceil_div(add.count, ADD_BLOCK), add_block, &add);
}

/* What the gradient lacks of a result whose step's was deferred. */
static void describe_back_prologue(const cnn_context *context, int32_t deferred, cnn_back_prologue *prologue)
{
    void *src[CNN_MAX_SOURCES];
    cnn_call call;
    describe_call(context, CNN_PASS_BACKWARD, deferred, src, &call);
    call.diff_dst = diff_of(context, context->plan->graph.steps[deferred].result);
    call.node->row->back_prologue(&call, prologue);
}

static void describe_backward(const cnn_context *context, int32_t s, void **src, void **diff_src, cnn_call *call)
{
    const cnn_step *step = &context->plan->graph.steps[s];
    const cnn_flow *flow = context->plan->steps[s].flow;
    describe_call(context, CNN_PASS_BACKWARD, s, src, call);
    if (step->node.back_prologue)
        describe_back_prologue(context, context->plan->steps[s].made_of, &call->back_prologue);
    else
        call->diff_dst = diff_of(context, step->result);
    call->diff_src = diff_src;
    for (int32_t i = 0; i < CNN_MAX_SOURCES; i++) diff_src[i] = NULL;
    for (int32_t i = 0; i < step->node.num_sources; i++) {
        if (!flow[i].wanted) continue;
        const bool aside = flow[i].temporary != CNN_NO_BUFFER;
        diff_src[i] = aside ? context->arena + flow[i].temporary : diff_of(context, step->source[i]);
        if (flow[i].add) call->add |= SRC(i);
    }
}

/* Lets the step get ready that watches the gradient which this one makes of its source, if there is one. */
static void start_back_watch(const cnn_context *context, int32_t s, cnn_watch *watch, cnn_call *call)
{
    const int32_t watcher = context->plan->steps[s].back_watcher;
    if (watcher < 0) return;
    void *src[CNN_MAX_SOURCES], *diff_src[CNN_MAX_SOURCES];
    cnn_call next;
    describe_backward(context, watcher, src, diff_src, &next);
    next.node->row->back_watch(&next, watch);
    call->watch = watch;
}

static cnn_status run_backward(const cnn_context *context, int32_t s)
{
    const cnn_step *step = &context->plan->graph.steps[s];
    const cnn_flow *flow = context->plan->steps[s].flow;
    const cnn_op_row *row = step->node.row;
    void *src[CNN_MAX_SOURCES], *diff_src[CNN_MAX_SOURCES];
    cnn_call call;
    cnn_watch watch;
    describe_backward(context, s, src, diff_src, &call);

    const bool empty = cnn_shape_count(&step->node.dst_shape) == 0;
    for (int32_t i = 0; i < step->node.num_sources; i++) {
        if (!flow[i].wanted) continue;
        const size_t bytes = value_bytes(context, step->source[i]);
        const bool adds = (row->accumulates & SRC(i)) != 0;
        if (bytes > 0 && diff_src[i] != NULL && (flow[i].zero_first || (empty && !adds && !flow[i].add)))
            memset(diff_src[i], 0, bytes);
    }
    if (!empty) start_back_watch(context, s, &watch, &call);
    if (!empty) {
        const cnn_status status = cnn_plan_uses_reference(context->plan) ? row->reference_backward(&call) : row->backward(&call);
        if (status != CNN_OK) return cnn_fail_in(row->name, status);
    }
    for (int32_t i = 0; i < step->node.num_sources; i++)
        if (flow[i].wanted && flow[i].temporary != CNN_NO_BUFFER && diff_of(context, step->source[i]) != NULL)
            add_into(context, value_bytes(context, step->source[i]), diff_src[i],
                     diff_of(context, step->source[i]));
    return CNN_OK;
}

/* Gradients that no step writes: of outputs that are read further inside, from the caller; of inputs that lead nowhere,
 * zero. */
static void start_gradients(const cnn_context *context)
{
    const cnn_plan *plan = context->plan;
    for (cnn_value v = 0; v < plan->graph.num_values; v++) {
        const cnn_tensor *tensor = &plan->graph.values[v];
        const size_t bytes = value_bytes(context, v);
        if (bytes == 0) continue;
        if (plan->values[v].diff != CNN_NO_BUFFER && plan->values[v].copy_diff)
            memcpy(context->arena + plan->values[v].diff, context->bound_diff[v], bytes);
        if (tensor->kind == CNN_VALUE_INPUT && tensor->require_gradient && !plan->values[v].has_gradient &&
            context->bound_diff[v] != NULL)
            memset(context->bound_diff[v], 0, bytes);
    }
}

static cnn_status backward(cnn_context *context)
{
    const cnn_plan *plan = context->plan;
    if (!plan->options.backward) return cnn_fail(CNN_INVALID_STATE, "backward: the plan was made for forward only");
    if (!context->forward_done) return cnn_fail(CNN_INVALID_STATE, "backward: call forward first");
    if (context->backward_done && !plan->options.repeat)
        return cnn_fail(CNN_INVALID_STATE, "backward: the plan allows one backward after a forward");
    CNN_TRY(check_bound(context));
    CNN_TRY(check_diff_bound(context));
    CNN_TRY(prepare_workspace(context));
    context->backward_done = true;
    start_gradients(context);
    for (int32_t e = plan->graph.num_steps; e < plan->num_events; e++) {
        const cnn_event event = plan->events[e];
        CNN_TRY(event.pass == CNN_PASS_BACKWARD ? run_backward(context, event.step)
                                                : run_forward(context, event.pass, event.step));
    }
    return CNN_OK;
}

cnn_status cnn_context_backward(cnn_context *context)
{
    const cnn_executor *before = cnn_context_enter(context);
    const cnn_status status = backward(context);
    (void)cnn_use_executor(before);
    return status;
}
