#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity */
#endif

#include "thread/thread.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/status.h"
#include "thread/count.h"
#include "thread/denormals.h"
#include "thread/fork.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

#define MOST_THREADS 1024

static _Atomic int32_t num_threads; /* 0: not asked for yet */

int32_t cnn_get_num_threads(void)
{
    int32_t n = atomic_load_explicit(&num_threads, memory_order_relaxed);
    if (n == 0) {
        n = cnn_default_threads();
        if (n > MOST_THREADS) n = MOST_THREADS;
        atomic_store_explicit(&num_threads, n, memory_order_relaxed);
    }
    return n;
}

cnn_status cnn_set_num_threads(int32_t n)
{
    if (n < 1 || n > MOST_THREADS)
        return cnn_fail(CNN_INVALID_VALUE, "num_threads: got %d, expected 1 to %d", n, MOST_THREADS);
#if !defined(_OPENMP)
    if (n > 1) return cnn_fail(CNN_UNSUPPORTED, "num_threads: got %d, but this build runs on one thread", n);
#endif
    atomic_store_explicit(&num_threads, n, memory_order_relaxed);
    return CNN_OK;
}

const char *cnn_thread_backend(void)
{
#if defined(_OPENMP)
    return "openmp";
#else
    return "serial";
#endif
}

/* Waking and joining a region costs some 5 microseconds; splitting pays once each thread has a few times that to do. */
#define WORTH_A_THREAD 10000.0

int32_t cnn_useful_threads(int32_t threads, double work)
{
    const double most = work / WORTH_A_THREAD;
    return most < 2.0 ? 1 : (most < (double)threads ? (int32_t)most : threads);
}

typedef struct region {
    int32_t threads;
    int64_t tasks;
    cnn_task_fn *fn;
    void *arg;
} region;

static void run_serially(const region *r)
{
    const cnn_float_control control = cnn_flush_denormals();
    for (int64_t task = 0; task < r->tasks; task++) r->fn(r->arg, task, 0);
    cnn_restore_denormals(control);
}

#if defined(_OPENMP)
static void run_with_openmp(void *arg)
{
    const region *r = arg;
#pragma omp parallel num_threads(r->threads) default(none) shared(r)
    {
        const cnn_float_control control = cnn_flush_denormals();
        const int32_t thread = (int32_t)omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < r->tasks; task++) r->fn(r->arg, task, thread);
        cnn_restore_denormals(control);
    }
}
#endif

void cnn_parallel(int32_t threads, int64_t tasks, cnn_task_fn *fn, void *arg)
{
    region r = {.threads = tasks < threads ? (int32_t)tasks : threads, .tasks = tasks, .fn = fn, .arg = arg};
#if defined(_OPENMP)
    if (r.threads > 1) {
        /* Inside a parallel region of the caller's, a nested team has one thread unless the program allows more. */
        cnn_run_forked_or_here(run_with_openmp, &r);
        return;
    }
#endif
    run_serially(&r);
}
