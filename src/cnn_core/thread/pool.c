/* The library's own threads, for builds without OpenMP: one pool for the process, made as it is needed, kept for good.
 *
 * Every worker has a slot with a state:
 *
 *     IDLE --caller--> POSTED --worker--> RUNNING --worker--> IDLE
 *                        |                                     ^
 *                        +------caller, if nothing is left-----+
 *
 * The caller takes part itself. When it finds no more to do it takes back what was posted to workers that have not woken
 * yet, and waits for those that run. A worker waits for its next part first in a loop, for as long as sleeping and waking
 * would take, then asleep.
 *
 * Who finds the pool taken, because another thread of the program runs a region or this one is inside of one, does its work
 * alone: the results do not depend on it. */
#include "thread/backend.h"

#if defined(CNN_THREADS_POOL)

#include <stdatomic.h>
#include <stdbool.h>

#include "thread/count.h"
#include "thread/os.h"

#define SPINS 2000 /* some 50 microseconds */

enum state { IDLE, POSTED, RUNNING };

typedef struct worker {
    _Atomic int state; /* changes to POSTED and from RUNNING under the lock, so that who sleeps misses nothing */
    int32_t number;
    int spins; /* how long to wait in a loop */
    cnn_part_fn *part;
    void *arg;
    cnn_lock lock;
    cnn_condition changed; /* the worker waits for POSTED, or the caller for IDLE: never both */
    char apart[64];        /* no two workers' states in one cache line */
} worker;

static struct {
    atomic_bool taken; /* by the caller whose region runs; what follows is its own */
    bool watches_forks;
    int32_t started, cpus;
    worker workers[CNN_MOST_THREADS];
} pool;

static CNN_THREAD_MAIN(work, arg)
{
    worker *w = arg;
    int spins = 0;
    for (;;) {
        int posted = POSTED;
        for (int i = 0; i < spins && atomic_load_explicit(&w->state, memory_order_relaxed) != POSTED; i++) cnn_pause();
        if (!atomic_compare_exchange_strong(&w->state, &posted, RUNNING)) {
            cnn_lock_enter(&w->lock);
            while (atomic_load(&w->state) != POSTED) cnn_condition_wait(&w->changed, &w->lock);
            cnn_lock_leave(&w->lock);
            continue;
        }
        spins = w->spins;
        w->part(w->arg, w->number);
        cnn_lock_enter(&w->lock);
        atomic_store(&w->state, IDLE);
        cnn_condition_signal(&w->changed);
        cnn_lock_leave(&w->lock);
    }
    return CNN_THREAD_END;
}

/* fork() copies the calling thread alone. */
static void forget_workers(void)
{
    pool.started = 0;
    atomic_store(&pool.taken, false);
}

/* Up to `wanted` workers; fewer when the system gives no more. */
static int32_t have_workers(int32_t wanted)
{
    if (!pool.watches_forks) {
        cnn_at_fork(forget_workers);
        pool.watches_forks = true;
        pool.cpus = cnn_usable_cpus();
    }
    while (pool.started < wanted) {
        worker *w = &pool.workers[pool.started];
        atomic_store(&w->state, IDLE);
        w->number = pool.started + 1;
        cnn_lock_init(&w->lock);
        cnn_condition_init(&w->changed);
        if (!cnn_thread_start(work, w)) break;
        pool.started++;
    }
    return pool.started < wanted ? pool.started : wanted;
}

static void post(worker *w, cnn_part_fn *part, void *arg, int spins)
{
    w->part = part;
    w->arg = arg;
    w->spins = spins;
    cnn_lock_enter(&w->lock);
    atomic_store(&w->state, POSTED);
    cnn_condition_signal(&w->changed);
    cnn_lock_leave(&w->lock);
}

static void finish(worker *w, int spins)
{
    int posted = POSTED;
    if (atomic_compare_exchange_strong(&w->state, &posted, IDLE)) return;
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(&w->state, memory_order_acquire) == IDLE) return;
        cnn_pause();
    }
    cnn_lock_enter(&w->lock);
    while (atomic_load(&w->state) != IDLE) cnn_condition_wait(&w->changed, &w->lock);
    cnn_lock_leave(&w->lock);
}

void cnn_backend_run(int32_t participants, cnn_part_fn *part, void *arg)
{
    if (atomic_exchange(&pool.taken, true)) {
        part(arg, 0);
        return;
    }
    const int32_t workers = have_workers(participants - 1);
    /* With more threads than CPUs, who waits in a loop may keep the one that it waits for from running. */
    const int spins = workers < pool.cpus ? SPINS : 0;
    for (int32_t i = 0; i < workers; i++) post(&pool.workers[i], part, arg, spins);
    part(arg, 0);
    for (int32_t i = 0; i < workers; i++) finish(&pool.workers[i], spins);
    atomic_store(&pool.taken, false);
}

#endif
