/* The constants of a frozen plan: one copy of each weight, in the form in which it is used; of those that cannot be had
 * back from that form, one more. */
#include <string.h>

#include "graph/plan.h"

static bool is_constant(const cnn_tensor *tensor)
{
    return tensor->kind == CNN_VALUE_PARAMETER || tensor->kind == CNN_VALUE_STATE;
}

/* The sources of a step as the caller gave them; NULL for those that are not constant. */
static void given_sources(const cnn_step *step, const void *const *data, void **src)
{
    for (int32_t i = 0; i < CNN_MAX_SOURCES; i++) src[i] = NULL;
    for (int32_t i = 0; i < step->node.num_sources; i++)
        if (step->source[i] != CNN_NONE) src[i] = (void *)(uintptr_t)data[step->source[i]];
}

/* Operations may only read their states: a frozen plan is shared by contexts. */
static cnn_status check_states(const cnn_allocator *allocator, const cnn_step *step, void *const *src)
{
    const cnn_op_row *row = step->node.row;
    bool writes = false;
    for (int32_t i = 0; i < step->node.num_sources; i++)
        writes = writes || (step->node.present[i] && (row->writes & SRC(i)));
    if (!writes || cnn_shape_count(&step->node.dst_shape) == 0) return CNN_OK;
    const int64_t channels = step->node.dst_shape.rank > 1 ? step->node.dst_shape.dim[1] : 1;
    double *scale = cnn_allocate(allocator, cnn_size_mul((size_t)channels, 2 * sizeof *scale));
    if (scale == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    const bool reads = row->as_affine != NULL && row->as_affine(&step->node, src, scale, scale + channels);
    cnn_release(allocator, scale);
    if (reads) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "%s: it would update its states, expected an operation in evaluation mode",
                    row->name);
}

/* The sources that a step packs, all of them constant; 0: it packs nothing. */
static uint32_t packed_sources(const cnn_plan *plan, const cnn_step *step, void *const *src)
{
    const cnn_op_row *row = step->node.row;
    if (row->packed == NULL || cnn_plan_uses_reference(plan)) return 0;
    for (int32_t i = 0; i < step->node.num_sources; i++)
        if ((row->packs & SRC(i)) && src[i] == NULL) return 0;
    return row->packed(&step->node) > 0 ? row->packs : 0;
}

typedef struct storing {
    cnn_plan *plan;
    const cnn_constants *constants;
    int32_t *reader; /* by value: one more than the step that reads it as it was given, or 0 */
    void *scratch;   /* for weights that are scaled on their way */
} storing;

/* to = the constant as it is used, scaled if it is weights of this step. */
static void copy_constant(const storing *job, cnn_value v, const cnn_step *step, void *to)
{
    const cnn_tensor *tensor = &job->plan->graph.values[v];
    const size_t bytes = cnn_tensor_bytes(&tensor->shape, tensor->dtype);
    const double *scale = job->constants->scale[v];
    if (scale != NULL)
        (void)step->node.row->rescale(&step->node, job->constants->data[v], scale, to);
    else if (bytes > 0)
        memcpy(to, job->constants->data[v], bytes);
}

static void pack(const storing *job, cnn_step *step, void **src, void *packed)
{
    const cnn_value weights = step->source[1];
    if (weights != CNN_NONE && job->constants->scale[weights] != NULL) {
        copy_constant(job, weights, step, job->scratch);
        src[1] = job->scratch;
    }
    step->node.row->pack(&step->node, src, packed);
    step->node.packed = true;
}

/* Where everything goes in plan->constant_memory, or how long that must be: with no memory yet, it only counts. */
static size_t store(const storing *job)
{
    cnn_plan *plan = job->plan;
    char *cursor = plan->constant_memory;
    size_t bytes = 0;
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        cnn_step *step = &plan->graph.steps[s];
        void *src[CNN_MAX_SOURCES];
        given_sources(step, job->constants->data, src);
        const uint32_t packs = packed_sources(plan, step, src);
        /* What cannot be read back from its packed form stays beside it, for cnn_plan_save. */
        const uint32_t moved = packs != 0 && (plan->options.final || cnn_plan_unpacks(&step->node)) ? packs : 0;
        for (int32_t i = 0; i < step->node.num_sources; i++)
            if (step->source[i] != CNN_NONE && !(moved & SRC(i))) job->reader[step->source[i]] = s + 1;
        if (packs == 0) continue;
        const size_t size = cnn_size_align(step->node.row->packed(&step->node));
        bytes = cnn_size_add(bytes, size);
        if (cursor == NULL) continue;
        pack(job, step, src, cursor);
        plan->steps[s].packed = cnn_take(&cursor, size);
    }
    for (cnn_value v = 0; v < plan->graph.num_values; v++) {
        const cnn_tensor *tensor = &plan->graph.values[v];
        if (job->reader[v] == 0 || !is_constant(tensor)) continue;
        const size_t size = cnn_tensor_bytes(&tensor->shape, tensor->dtype);
        bytes = cnn_size_add(bytes, cnn_size_align(size));
        if (cursor == NULL) continue;
        plan->constants[v] = cursor;
        copy_constant(job, v, &plan->graph.steps[job->reader[v] - 1], cnn_take(&cursor, size));
    }
    return bytes;
}

static size_t largest_scaled(const cnn_plan *plan, const cnn_constants *constants)
{
    size_t most = 0;
    for (cnn_value v = 0; v < plan->graph.num_values; v++) {
        const cnn_tensor *tensor = &plan->graph.values[v];
        const size_t bytes = constants->scale[v] == NULL ? 0 : cnn_tensor_bytes(&tensor->shape, tensor->dtype);
        if (bytes > most) most = bytes;
    }
    return most;
}

cnn_status cnn_plan_store_constants(cnn_plan *plan, const cnn_constants *constants)
{
    const cnn_allocator *allocator = &plan->graph.allocator;
    const size_t values = (size_t)plan->graph.num_values + 1;
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        void *src[CNN_MAX_SOURCES];
        given_sources(&plan->graph.steps[s], constants->data, src);
        CNN_TRY(check_states(allocator, &plan->graph.steps[s], src));
    }
    const storing job = {plan, constants, cnn_allocate_zeroed(allocator, values, sizeof *job.reader),
                         cnn_allocate(allocator, largest_scaled(plan, constants))};
    plan->constants = cnn_allocate_zeroed(allocator, values, sizeof *plan->constants);
    cnn_status status = CNN_OK;
    if (job.reader != NULL && job.scratch != NULL && plan->constants != NULL) {
        plan->constant_bytes = store(&job);
        plan->constant_memory = cnn_allocate(allocator, plan->constant_bytes);
    }
    if (plan->constant_memory == NULL)
        status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory for the weights of a plan");
    else
        (void)store(&job);
    cnn_release(allocator, job.reader);
    cnn_release(allocator, job.scratch);
    return status;
}
