/* Reading back the constants of a frozen plan.
 *
 * Where packing only reorders, no inverse of it is written down anywhere: the same function that packed the weights packs
 * their numbers 1, 2, 3, ... and so tells where each went. Whatever else it leaves in its memory, padding or tables, does
 * not change with the numbers: a second packing, of their complements, tells it apart. */
#include <string.h>

#include "graph/plan.h"

bool cnn_plan_unpacks(const cnn_node *node)
{
    if (node->row->reorders == NULL || !node->row->reorders(node)) return false;
    int64_t most = 0;
    for (int32_t i = 0; i < node->num_sources; i++)
        if (node->row->packs & SRC(i)) most = cnn_max_i64(most, cnn_shape_count(&node->src_shape[i]));
    return most < UINT32_MAX;
}

typedef struct unpacking {
    size_t count, words;   /* weights; floats of packed memory */
    uint32_t *numbers;     /* [count] */
    uint32_t *first, *now; /* [words]: where the numbers went, and their complements */
} unpacking;

static void pack_numbers(const cnn_node *node, int32_t source, const unpacking *job, uint32_t flip)
{
    void *src[CNN_MAX_SOURCES] = {NULL};
    for (size_t i = 0; i < job->count; i++) job->numbers[i] = (uint32_t)(i + 1) ^ flip;
    memset(job->now, 0, job->words * sizeof *job->now);
    src[source] = job->numbers;
    node->row->pack(node, src, job->now);
}

static cnn_status unpack(const cnn_node *node, int32_t source, const void *packed, void *data, const unpacking *job)
{
    pack_numbers(node, source, job, 0);
    memcpy(job->first, job->now, job->words * sizeof *job->now);
    pack_numbers(node, source, job, UINT32_MAX);
    memset(job->numbers, 0, job->count * sizeof *job->numbers); /* from here on: which were found */
    size_t found = 0;
    for (size_t i = 0; i < job->words; i++) {
        const uint32_t number = job->first[i];
        if (number == 0 || number > job->count || job->now[i] != ~number || job->numbers[number - 1] != 0) continue;
        memcpy((char *)data + (size_t)(number - 1) * 4, (const char *)packed + i * 4, 4);
        job->numbers[number - 1] = 1;
        found++;
    }
    if (found == job->count) return CNN_OK;
    return cnn_fail(CNN_UNSUPPORTED, "%s: %zu of %zu packed weights can be read back", node->row->name, found,
                    job->count);
}

static cnn_status unpack_step(const cnn_plan *plan, int32_t s, int32_t source, void *data)
{
    const cnn_allocator *allocator = &plan->graph.allocator;
    cnn_node node = plan->graph.steps[s].node;
    node.packed = false; /* as it was when it was packed */
    unpacking job = {.count = (size_t)cnn_shape_count(&node.src_shape[source]),
                     .words = node.row->packed(&node) / sizeof(uint32_t)};
    job.numbers = cnn_allocate(allocator, job.count * sizeof *job.numbers);
    job.first = cnn_allocate(allocator, job.words * sizeof *job.first);
    job.now = cnn_allocate(allocator, job.words * sizeof *job.now);
    cnn_status status;
    if (job.numbers == NULL || job.first == NULL || job.now == NULL)
        status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory to read back %zu weights", job.count);
    else
        status = unpack(&node, source, plan->steps[s].packed, data, &job);
    cnn_release(allocator, job.numbers);
    cnn_release(allocator, job.first);
    cnn_release(allocator, job.now);
    return status;
}

cnn_status cnn_plan_read_constant(const cnn_plan *plan, cnn_value value, void *data)
{
    const cnn_tensor *tensor = &plan->graph.values[value];
    const size_t bytes = cnn_tensor_bytes(&tensor->shape, tensor->dtype);
    if (bytes == 0) return CNN_OK;
    if (plan->constants[value] != NULL) {
        memcpy(data, plan->constants[value], bytes);
        return CNN_OK;
    }
    for (int32_t s = 0; s < plan->graph.num_steps; s++) {
        const cnn_step *step = &plan->graph.steps[s];
        for (int32_t i = 0; i < step->node.num_sources; i++)
            if (step->source[i] == value && step->node.packed && (step->node.row->packs & SRC(i)))
                return unpack_step(plan, s, i, data);
    }
    return cnn_fail(CNN_INVALID_VALUE, "value %d is no constant of this plan", value);
}
