#include "ops/reduce.h"

/* Elements in a task, and the most summands that meet in one float lane before they go over to double. */
#define TASK_ELEMENTS 16384
#define BLOCK_ROWS 256
#define BLOCK_COLUMNS 4096

/* The partial sums are (outer, blocks, inner). */
typedef struct reduce_job {
    const cnn_kernels *kernels;
    cnn_reduction_space space;
    cnn_factor a, b;
    int64_t block, blocks, blocks_per_task;
    double scale;
    float *partial, *dst;
} reduce_job;

static void cut_blocks(reduce_job *job)
{
    const cnn_reduction_space *space = &job->space;
    const int64_t most = space->inner > 1 ? BLOCK_ROWS : BLOCK_COLUMNS;
    job->block = cnn_max_i64(cnn_min_i64(most, TASK_ELEMENTS / cnn_max_i64(space->inner, 1)), 1);
    job->blocks = cnn_max_i64(cnn_ceil_div(space->length, job->block), 1);
    const int64_t elements = cnn_max_i64(cnn_min_i64(job->block, space->length) * space->inner, 1);
    job->blocks_per_task = cnn_max_i64(TASK_ELEMENTS / elements, 1);
}

size_t cnn_reduce_workspace(cnn_reduction_space space)
{
    reduce_job job = {.space = space};
    cut_blocks(&job);
    return cnn_float_bytes(space.outer * job.blocks * space.inner);
}

static cnn_rows rows_of(const cnn_factor *factor, int64_t o, int64_t first, int64_t pitch, int64_t step)
{
    if (factor->data == NULL) return (cnn_rows){NULL, 0, 0};
    return (cnn_rows){factor->data + o * factor->outer + first * factor->length, pitch, step};
}

static void sum_blocks(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const reduce_job *job = arg;
    const cnn_reduction_space *space = &job->space;
    int64_t flat = task * job->blocks_per_task;
    const int64_t end = cnn_min_i64(flat + job->blocks_per_task, space->outer * job->blocks);
    int64_t taken;
    for (; flat < end; flat += taken) {
        const int64_t o = flat / job->blocks, first = flat % job->blocks * job->block;
        const int64_t length = cnn_min_i64(job->block, space->length - first);
        float *partial = job->partial + flat * space->inner;
        taken = 1;
        if (space->inner > 1) {
            job->kernels->elementwise.sum_over_rows(
                length, space->inner, rows_of(&job->a, o, first, job->a.length, 1),
                rows_of(&job->b, o, first, job->b.length, job->b.inner), partial);
        } else {
            /* Where a block is a whole row, many rows at a call. */
            taken = job->blocks == 1 ? end - flat : 1;
            job->kernels->elementwise.sum_each_row(taken, length, rows_of(&job->a, o, first, job->a.outer, 1),
                                                   rows_of(&job->b, o, first, job->b.outer, job->b.length), partial);
        }
    }
}

static void merge_blocks(void *arg, int64_t o, int32_t thread)
{
    (void)thread;
    const reduce_job *job = arg;
    const int64_t inner = job->space.inner;
    const float *partial = job->partial + o * job->blocks * inner;
    for (int64_t i = 0; i < inner; i++) {
        double sum = 0.0;
        for (int64_t block = 0; block < job->blocks; block++) sum += (double)partial[block * inner + i];
        job->dst[o * inner + i] = (float)(sum * job->scale);
    }
}

void cnn_reduce(const cnn_kernels *kernels, int32_t threads, cnn_reduction_space space, cnn_factor a, cnn_factor b,
                double scale, void *workspace, float *dst)
{
    reduce_job job = {.kernels = kernels, .space = space, .a = a, .b = b, .scale = scale, .partial = workspace, .dst = dst};
    cut_blocks(&job);
    const bool merge = job.blocks > 1 || scale != 1.0;
    if (!merge) job.partial = dst;
    const double elements = (double)space.outer * (double)space.length * (double)space.inner;
    const int64_t tasks = cnn_ceil_div(space.outer * job.blocks, job.blocks_per_task);
    cnn_parallel(cnn_useful_threads(threads, 0.2 * elements), tasks, sum_blocks, &job);
    if (!merge) return;
    const double partials = (double)space.outer * (double)job.blocks * (double)space.inner;
    cnn_parallel(cnn_useful_threads(threads, partials), space.outer, merge_blocks, &job);
}
