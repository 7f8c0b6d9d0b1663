#include "ops/probe.h"

#include "base/memory.h"
#include "cpu/kernels.h"
#include "thread/thread.h"

#define ROUNDS 100000
#define COPY_BLOCK ((int64_t)1 << 18) /* floats of a task */

static void add_task(void *arg, int64_t task, int32_t thread)
{
    (void)task;
    const cnn_kernels *kernels = arg;
    volatile float kept = kernels->probe.multiply_adds(ROUNDS); /* so that nothing is optimised away */
    (void)kept;
    (void)thread;
}

double cnn_probe_multiply_adds(void)
{
    cnn_kernels kernels = *cnn_kernels_get();
    const int32_t threads = cnn_get_num_threads();
    cnn_parallel(threads, threads, add_task, &kernels);
    return 2.0 * ROUNDS * CNN_PROBE_SUMS * kernels.width * threads;
}

typedef struct copy_job {
    const cnn_kernels *kernels;
    int64_t n;
    const float *src;
    float *dst;
} copy_job;

static void copy_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const copy_job *job = arg;
    const int64_t first = task * COPY_BLOCK;
    job->kernels->probe.copy(cnn_min_i64(COPY_BLOCK, job->n - first), job->src + first, job->dst + first);
}

void cnn_probe_copy(int64_t n, const float *src, float *dst)
{
    copy_job job = {cnn_kernels_get(), n, src, dst};
    cnn_parallel(cnn_get_num_threads(), cnn_ceil_div(n, COPY_BLOCK), copy_task, &job);
}
