#include "thread/thread.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"
#include "thread/backend.h"
#include "thread/count.h"
#include "thread/denormals.h"

static _Atomic int32_t num_threads; /* 0: not asked for yet */

int32_t cnn_get_num_threads(void)
{
    int32_t n = atomic_load_explicit(&num_threads, memory_order_relaxed);
    if (n == 0) {
        n = cnn_default_threads();
        if (n > CNN_MOST_THREADS) n = CNN_MOST_THREADS;
        atomic_store_explicit(&num_threads, n, memory_order_relaxed);
    }
    return n;
}

cnn_status cnn_set_num_threads(int32_t n)
{
    if (n < 1 || n > CNN_MOST_THREADS)
        return cnn_fail(CNN_INVALID_VALUE, "num_threads: got %d, expected 1 to %d", n, CNN_MOST_THREADS);
#if !defined(CNN_THREADS_ANY)
    if (n > 1) return cnn_fail(CNN_UNSUPPORTED, "num_threads: got %d, but this build runs on one thread", n);
#endif
    atomic_store_explicit(&num_threads, n, memory_order_relaxed);
    return CNN_OK;
}

const char *cnn_thread_backend(void)
{
    return CNN_THREADS;
}

/* A thread has to have this much to do, in nanoseconds, for splitting to pay: docs/threads.md. */
#define WORTH_A_THREAD 5000.0

int32_t cnn_useful_threads(int32_t threads, double work)
{
    const double most = work / WORTH_A_THREAD;
    return most < 2.0 ? 1 : (most < (double)threads ? (int32_t)most : threads);
}

#define MOST_SHARES 64

/* Tasks are cut into shares, one for each of the first participants, in order: what neighbouring tasks read and write stays
 * in one core's caches, from one region to the next too. Who is done with a share helps with the others. */
typedef struct region {
    int64_t tasks;
    cnn_task_fn *fn;
    void *arg;
    int32_t shares;
    struct {
        _Alignas(64) _Atomic int64_t next; /* the first task of the share that nobody has taken */
    } share[MOST_SHARES];
} region;

static void take_part(void *arg, int32_t participant)
{
    region *r = arg;
    const cnn_float_control control = cnn_flush_denormals();
    for (int32_t i = 0; i < r->shares; i++) {
        const int32_t share = (participant + i) % r->shares;
        const int64_t end = cnn_split(r->tasks, r->shares, share + 1);
        int64_t task;
        while ((task = atomic_fetch_add_explicit(&r->share[share].next, 1, memory_order_relaxed)) < end)
            r->fn(r->arg, task, participant);
    }
    cnn_restore_denormals(control);
}

static _Thread_local const cnn_executor *own_executor;

const cnn_executor *cnn_use_executor(const cnn_executor *executor)
{
    const cnn_executor *before = own_executor;
    own_executor = executor;
    return before;
}

/* What an executor gets to see of a region. Its numbers index memory: each is let in once, and no other one. */
typedef struct guarded {
    region *region;
    int32_t participants;
    atomic_bool seen[CNN_MOST_THREADS];
} guarded;

static void take_guarded_part(void *arg, int32_t participant)
{
    guarded *g = arg;
    if (participant < 0 || participant >= g->participants) return;
    if (!atomic_exchange_explicit(&g->seen[participant], true, memory_order_relaxed)) take_part(g->region, participant);
}

static void run_by(const cnn_executor *executor, int32_t participants, region *r)
{
    guarded g;
    g.region = r;
    g.participants = participants < CNN_MOST_THREADS ? participants : CNN_MOST_THREADS;
    for (int32_t p = 0; p < g.participants; p++) atomic_init(&g.seen[p], false);
    executor->run(executor->state, g.participants, take_guarded_part, &g);
    take_part(r, 0); /* what it left */
}

void cnn_parallel(int32_t threads, int64_t tasks, cnn_task_fn *fn, void *arg)
{
    const int32_t participants = tasks < threads ? (int32_t)tasks : threads;
    region r;
    r.tasks = tasks;
    r.fn = fn;
    r.arg = arg;
    r.shares = participants < 1 ? 1 : participants < MOST_SHARES ? participants : MOST_SHARES;
    for (int32_t i = 0; i < r.shares; i++) atomic_init(&r.share[i].next, cnn_split(tasks, r.shares, i));
    if (participants > 1 && own_executor != NULL) {
        run_by(own_executor, participants, &r);
        return;
    }
#if defined(CNN_THREADS_ANY)
    if (participants > 1) {
        cnn_team_run(participants, take_part, &r);
        return;
    }
#endif
    (void)participants;
    take_part(&r, 0);
}
