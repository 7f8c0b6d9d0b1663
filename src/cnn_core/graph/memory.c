/* How long a plan's buffers live, which of them are one, and where they lie. */
#include "graph/arena.h"
#include "graph/chain.h"
#include "graph/plan.h"

/* A value has up to three buffers. */
typedef enum kind { DATA, AGAIN, DIFF, NUM_KINDS } kind;

/* A buffer's events; buffers that share memory have the same root, which lives as long as all of them. */
typedef struct life {
    int32_t root;
    int32_t first, last; /* both included; first is -1 if there is no such buffer */
} life;

typedef struct lives {
    const cnn_plan *plan;
    life *of; /* [NUM_KINDS][num_values] */
} lives;

static int32_t at(const lives *l, kind which, cnn_value v)
{
    return (int32_t)which * l->plan->graph.num_values + v;
}

static life *root_of(const lives *l, int32_t index)
{
    return &l->of[l->of[index].root];
}

static size_t bytes_of(const cnn_plan *plan, cnn_value v)
{
    return cnn_tensor_bytes(&plan->graph.values[v].shape, plan->graph.values[v].dtype);
}

static bool is_computed(const cnn_plan *plan, cnn_value v)
{
    return plan->graph.values[v].kind == CNN_VALUE_RESULT && plan->graph.values[v].producer >= 0;
}

/* Between two steps of a chain, or deferred: never there as a whole. */
static bool is_passing(const cnn_plan *plan, cnn_value v)
{
    const int32_t producer = plan->graph.values[v].producer;
    return cnn_plan_run_end(plan, producer) != producer || plan->graph.steps[producer].node.deferred;
}

/* An output that nobody reads in backward is written straight into the caller's memory, and its gradient read from there. */
static bool has_data_buffer(const cnn_plan *plan, cnn_value v)
{
    return is_computed(plan, v) && !is_passing(plan, v) && (!plan->graph.values[v].output || plan->values[v].kept);
}

static bool has_diff_buffer(const cnn_plan *plan, cnn_value v)
{
    const cnn_tensor *tensor = &plan->graph.values[v];
    const bool bound = tensor->output && !tensor->watched && !plan->values[v].copy_diff;
    const bool made = is_computed(plan, v) && plan->steps[plan->graph.values[v].producer].made_of >= 0;
    return is_computed(plan, v) && plan->values[v].has_gradient && !bound && !made;
}

static bool has_buffer(const cnn_plan *plan, kind which, cnn_value v)
{
    return which == DIFF ? has_diff_buffer(plan, v) : has_data_buffer(plan, v);
}

static kind data_kind(const cnn_plan *plan, cnn_pass pass, cnn_value v)
{
    return cnn_pass_reads_again(plan, pass, v) ? AGAIN : DATA;
}

/* ---- lifetimes ---------------------------------------------------------------------------------------------------- */

static void touch(const lives *l, kind which, cnn_value v, int32_t time)
{
    life *of = &l->of[at(l, which, v)];
    if (!has_buffer(l->plan, which, v)) return;
    if (of->first < 0) of->first = time;
    if (time > of->last) of->last = time;
}

/* The steps of a chain run at the time of its last. */
static int32_t time_of(const cnn_plan *plan, int32_t event)
{
    return event < plan->graph.num_steps ? cnn_plan_run_end(plan, event) : event;
}

/* What a plan with `repeat` keeps from forward for backward stays for the next backward, too. */
static int32_t time_of_read(const cnn_plan *plan, int32_t time, bool from_forward)
{
    return from_forward && plan->options.repeat ? plan->num_events : time;
}

static void touch_event(const lives *l, int32_t number)
{
    const cnn_plan *plan = l->plan;
    const cnn_event *event = &plan->events[number];
    const int32_t time = time_of(plan, number);
    const cnn_step *step = &plan->graph.steps[event->step];
    const bool later = event->pass != CNN_PASS_FORWARD;
    cnn_value reads[CNN_MAX_SOURCES + 1];
    const int32_t count = cnn_event_reads(plan, event, reads);
    for (int32_t i = 0; i < count; i++) {
        const kind which = data_kind(plan, event->pass, reads[i]);
        touch(l, which, reads[i], time_of_read(plan, time, later && which == DATA));
    }
    if (event->pass != CNN_PASS_BACKWARD) {
        touch(l, data_kind(plan, event->pass, step->result), step->result, time);
        return;
    }
    touch(l, DIFF, step->result, time);
    if (step->node.back_prologue) touch(l, DIFF, plan->graph.steps[plan->steps[event->step].made_of].result, time);
    for (int32_t i = 0; i < step->node.num_sources; i++)
        if (plan->steps[event->step].flow[i].wanted) touch(l, DIFF, step->source[i], time);
}

/* dst takes over the memory of a source that nobody reads any more after this event. */
static void share_data(const lives *l, int32_t number)
{
    const cnn_plan *plan = l->plan;
    const cnn_pass pass = plan->events[number].pass;
    const cnn_step *step = &plan->graph.steps[plan->events[number].step];
    const int32_t time = time_of(plan, number);
    const cnn_value v = step->result;
    if (!has_data_buffer(plan, v)) return;
    for (int32_t i = 0; i < step->node.num_sources; i++) {
        const cnn_value u = step->source[i];
        if (!(step->node.row->in_place & SRC(i)) || u == CNN_NONE || !has_data_buffer(plan, u)) continue;
        const int32_t from = at(l, data_kind(plan, pass, u), u), to = at(l, data_kind(plan, pass, v), v);
        if (root_of(l, from)->last != time || bytes_of(plan, u) != bytes_of(plan, v)) continue;
        root_of(l, from)->last = l->of[to].last;
        l->of[to].root = l->of[from].root;
        return;
    }
}

/* The gradient of a source takes over the memory of dst's, which is read for the last time in this event. */
static void share_diff(const lives *l, int32_t time)
{
    const cnn_plan *plan = l->plan;
    const int32_t s = plan->events[time].step;
    const cnn_step *step = &plan->graph.steps[s];
    const cnn_value v = step->result;
    if (!has_diff_buffer(plan, v)) return;
    for (int32_t i = 0; i < step->node.num_sources; i++) {
        const cnn_value u = step->source[i];
        const cnn_flow *flow = &plan->steps[s].flow[i];
        if (!(step->node.row->in_place & SRC(i)) || !flow->wanted || !has_diff_buffer(plan, u)) continue;
        const int32_t from = at(l, DIFF, v), to = at(l, DIFF, u);
        if (l->of[to].first != time || plan->values[u].copy_diff || flow->add || flow->zero_first ||
            flow->temporary != CNN_NO_BUFFER || bytes_of(plan, u) != bytes_of(plan, v))
            continue;
        root_of(l, from)->last = l->of[to].last;
        l->of[to].root = l->of[from].root;
        return;
    }
}

static void find_lives(const lives *l)
{
    const cnn_plan *plan = l->plan;
    for (int32_t i = 0; i < NUM_KINDS * plan->graph.num_values; i++) l->of[i] = (life){i, -1, -1};
    for (int32_t number = 0; number < plan->num_events; number++) touch_event(l, number);
    for (cnn_value v = 0; v < plan->graph.num_values; v++) {
        /* Outputs are copied out after the last step forward, the caller's gradients in before the first one back. */
        if (plan->graph.values[v].output) touch(l, DATA, v, plan->graph.num_steps - 1);
        life *diff = &l->of[at(l, DIFF, v)];
        if (plan->values[v].copy_diff && diff->first >= 0) diff->first = plan->graph.num_steps;
    }
    for (int32_t number = 0; number < plan->num_events; number++)
        if (plan->events[number].pass == CNN_PASS_BACKWARD)
            share_diff(l, number);
        else
            share_data(l, number);
}

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

static size_t *offset_of(cnn_plan *plan, kind which, cnn_value v)
{
    cnn_value_plan *value = &plan->values[v];
    return which == DATA ? &value->data : which == AGAIN ? &value->again : &value->diff;
}

static int32_t list_values(cnn_plan *plan, const lives *l, kind which, cnn_buffer *list)
{
    int32_t count = 0;
    for (cnn_value v = 0; v < plan->graph.num_values; v++) {
        const int32_t index = at(l, which, v);
        const life *of = &l->of[index];
        if (of->first >= 0 && of->root == index)
            list[count++] = (cnn_buffer){bytes_of(plan, v), of->first, of->last, offset_of(plan, which, v)};
    }
    return count;
}

static int32_t list_saved(cnn_plan *plan, cnn_buffer *list)
{
    int32_t count = 0;
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        const cnn_step *step = &plan->graph.steps[s];
        cnn_step_plan *own = &plan->steps[s];
        const size_t bytes = step->node.row->saved == NULL ? 0 : step->node.row->saved(&step->node);
        const int32_t reader = own->made_by >= 0 ? plan->steps[own->made_by].backward_at : own->backward_at;
        const int32_t last = reader > 0 ? reader : own->again_at;
        if (bytes == 0) continue;
        const bool anew = own->again_at > 0 && !cnn_step_uses_saved(step);
        if (anew) list[count++] = (cnn_buffer){bytes, own->again_at, last, &own->saved_again};
        const bool stays = last > 0 && !anew;
        const int32_t now = time_of(plan, s);
        list[count++] = (cnn_buffer){bytes, now, stays ? time_of_read(plan, last, true) : now, &own->saved};
    }
    return count;
}

static int32_t list_temporaries(cnn_plan *plan, cnn_buffer *list)
{
    int32_t count = 0;
    for (int32_t time = plan->graph.num_steps; time < plan->num_events; time++) {
        const int32_t s = plan->events[time].step;
        if (plan->events[time].pass != CNN_PASS_BACKWARD) continue;
        for (int32_t i = 0; i < plan->graph.steps[s].node.num_sources; i++)
            if (plan->steps[s].flow[i].temporary != CNN_NO_BUFFER)
                list[count++] = (cnn_buffer){bytes_of(plan, plan->graph.steps[s].source[i]), time, time,
                                             &plan->steps[s].flow[i].temporary};
    }
    return count;
}

/* Results, what is saved and, if wanted, gradients. */
static int32_t list_buffers(cnn_plan *plan, const lives *l, bool gradients, cnn_buffer *list)
{
    int32_t count = list_values(plan, l, DATA, list);
    count += list_values(plan, l, AGAIN, list + count);
    count += list_saved(plan, list + count);
    if (!gradients) return count;
    count += list_values(plan, l, DIFF, list + count);
    return count + list_temporaries(plan, list + count);
}

/* Buffers without gradients are placed once before all together are: the difference is what gradients cost. */
static cnn_status place(cnn_plan *plan, const lives *l, cnn_buffer *list)
{
    const cnn_allocator *allocator = &plan->graph.allocator;
    CNN_TRY(cnn_arena_place(allocator, list, list_buffers(plan, l, false, list), &plan->forward_bytes));
    CNN_TRY(cnn_arena_place(allocator, list, list_buffers(plan, l, true, list), &plan->arena_bytes));
    if (plan->forward_bytes > plan->arena_bytes) plan->forward_bytes = plan->arena_bytes;
    if (plan->arena_bytes >= CNN_SIZE_LIMIT)
        return cnn_fail(CNN_OUT_OF_MEMORY, "the network's buffers are too large to address");
    for (int32_t i = 0; i < NUM_KINDS * plan->graph.num_values; i++) {
        const int32_t values = plan->graph.num_values, root = l->of[i].root;
        if (l->of[i].first >= 0)
            *offset_of(plan, (kind)(i / values), i % values) = *offset_of(plan, (kind)(root / values), root % values);
    }
    return CNN_OK;
}

/* The buffers are alive from the start of the event `first` to the end of `last`. */
static size_t most_alive(const cnn_plan *plan, const cnn_buffer *list, int32_t count, size_t *change)
{
    for (int32_t time = 0; time < plan->num_events + 2; time++) change[time] = 0;
    for (int32_t i = 0; i < count; i++) {
        change[list[i].first] += cnn_size_align(list[i].bytes);
        change[list[i].last + 1] -= cnn_size_align(list[i].bytes);
    }
    size_t alive = 0, most = 0;
    for (int32_t time = 0; time < plan->num_events + 2; time++) {
        alive += change[time]; /* wraps around where more ends than begins, and the sum comes out right */
        if (alive > most) most = alive;
    }
    return most;
}

/* Places the buffers or, where `peak` is wanted, only counts them. */
static cnn_status plan_memory(cnn_plan *plan, size_t *peak)
{
    const size_t values = (size_t)plan->graph.num_values;
    size_t most = NUM_KINDS * values + 2 * (size_t)plan->graph.num_steps + 1;
    for (int32_t s = 0; s < plan->graph.num_steps; s++) most += (size_t)plan->graph.steps[s].node.num_sources;
    const cnn_allocator *allocator = &plan->graph.allocator;
    cnn_buffer *list = cnn_allocate(allocator, most * sizeof *list);
    size_t *change = cnn_allocate(allocator, ((size_t)plan->num_events + 2) * sizeof *change);
    const lives l = {plan, cnn_allocate(allocator, (NUM_KINDS * values + 1) * sizeof *l.of)};
    cnn_status status = CNN_OK;
    if (list == NULL || change == NULL || l.of == NULL) {
        status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory to plan buffers");
    } else {
        find_lives(&l);
        if (peak == NULL)
            status = place(plan, &l, list);
        else
            *peak = most_alive(plan, list, list_buffers(plan, &l, true, list), change);
    }
    cnn_release(allocator, list);
    cnn_release(allocator, change);
    cnn_release(allocator, l.of);
    return status;
}

cnn_status cnn_plan_memory(cnn_plan *plan) { return plan_memory(plan, NULL); }

cnn_status cnn_plan_peak(cnn_plan *plan, size_t *bytes) { return plan_memory(plan, bytes); }
