/* Teams of threads that parallel work is handed to. They are made as they are needed, and kept for good.
 *
 * Every worker has a slot with a state:
 *
 *     IDLE --caller--> POSTED --worker--> RUNNING --worker--> IDLE
 *                        |                                     ^
 *                        +------caller, if nothing is left-----+
 *
 * The caller takes part itself. When it finds no more to do it takes back what was posted to workers that have not woken
 * yet, and waits for those that run: it never waits for a thread that another program keeps from its CPU and that has
 * nothing of ours in hand. A worker that never came to be is no different.
 *
 * Each of several callers at a time has a team; when all are taken, and inside of a region, work is done alone: the results do
 * not depend on it. */
#include "thread/backend.h"

#if defined(CNN_THREADS_ANY)

#include "thread/count.h"
#include "thread/os.h"
#include "thread/place.h"
#include "thread/thread.h"

#define MOST_TEAMS 16

/* How long to wait in a loop: some 50 microseconds of pauses, then turns in which others may have the CPU, about as long as
 * sleeping and waking would take. A worker waits longer: the next region of a network is near. (docs/threads.md) */
#define PAUSES 2000
#define CALLER_TURNS (PAUSES + 100)
#define WORKER_TURNS (PAUSES + 2000)

enum state { IDLE, POSTED, RUNNING };

typedef struct worker {
    cnn_crew crew;     /* of which it is the first, or unused */
    _Atomic int state; /* changes to POSTED and from RUNNING under the lock, so that who sleeps misses nothing */
    int32_t number;
    int turns; /* to wait in a loop: under the lock, or while it runs */
    _Atomic int32_t caller_cpu; /* on which the caller posted */
    cnn_part_fn *part;
    void *arg;
    cnn_lock lock;
    cnn_condition changed; /* the worker waits for POSTED, or the caller for IDLE: never both */
    char apart[64];        /* no two workers' states in one cache line */
} worker;

typedef struct team {
    atomic_bool taken; /* by the caller whose region runs; what follows is its own */
    int32_t started;
    worker workers[CNN_MOST_THREADS];
} team;

static team teams[MOST_TEAMS];
static _Atomic int32_t participating; /* in all regions */
static _Atomic int32_t cpus;          /* 0: not asked for yet */
static _Thread_local bool inside;     /* of a region */
static _Thread_local int32_t last;    /* the team that this thread had */

static void rest(int turn)
{
    if (turn < PAUSES)
        cnn_pause();
    else
        cnn_yield();
}

/* In virtual machines above all, who is woken is put on the waker's CPU while others sleep, and stays there: as long as neither
 * waits for anything, they take turns. (docs/threads.md) */
static void leave_caller(worker *w)
{
    const int32_t cpu = cnn_current_cpu();
    if (cpu >= 0 && cpu == atomic_load_explicit(&w->caller_cpu, memory_order_relaxed)) cnn_step_aside(cpu);
}

static void work(cnn_crew *crew)
{
    worker *w = (worker *)crew + atomic_fetch_add(&crew->begun, 1);
    int turns = 0;
    inside = true;
    for (;;) {
        int posted = POSTED;
        leave_caller(w);
        for (int i = 0; i < turns && atomic_load_explicit(&w->state, memory_order_relaxed) != POSTED; i++) rest(i);
        if (!atomic_compare_exchange_strong(&w->state, &posted, RUNNING)) {
            cnn_lock_enter(&w->lock);
            if (atomic_load(&w->state) != POSTED) cnn_condition_wait(&w->changed, &w->lock);
            turns = w->turns; /* who was woken too late waits for the next region in the loop */
            cnn_lock_leave(&w->lock);
            continue;
        }
        turns = w->turns;
        w->part(w->arg, w->number);
        cnn_lock_enter(&w->lock);
        atomic_store(&w->state, IDLE);
        cnn_condition_signal(&w->changed);
        cnn_lock_leave(&w->lock);
    }
}

/* fork() copies the calling thread alone. */
static void forget_workers(void)
{
    for (int i = 0; i < MOST_TEAMS; i++) {
        teams[i].started = 0;
        atomic_store(&teams[i].taken, false);
    }
    atomic_store(&participating, 0);
}

static void watch_forks(void)
{
    static atomic_bool watched;
    if (!atomic_exchange(&watched, true)) cnn_at_fork(forget_workers);
}

/* Up to `wanted` workers; fewer when the system gives no more. The first are as many as the default asks for: a crew that is
 * whole lies better on the CPUs than two. */
static int32_t have_workers(team *t, int32_t wanted)
{
    if (t->started >= wanted) return wanted;
    watch_forks();
    const int32_t usual = t->started == 0 ? cnn_get_num_threads() - 1 : 0, first = t->started;
    const int32_t end = wanted > usual ? wanted : usual;
    for (int32_t i = first; i < end; i++) {
        worker *w = &t->workers[i];
        atomic_store(&w->state, IDLE);
        atomic_store(&w->caller_cpu, -1);
        w->number = i + 1;
        cnn_lock_init(&w->lock);
        cnn_condition_init(&w->changed);
    }
    cnn_crew *crew = &t->workers[first].crew;
    crew->work = work;
    crew->count = end - first;
    atomic_store(&crew->begun, 0);
    if (cnn_crew_start(crew)) t->started = end;
    return t->started < wanted ? t->started : wanted;
}

static void post(worker *w, cnn_part_fn *part, void *arg, int turns, int32_t cpu)
{
    atomic_store_explicit(&w->caller_cpu, cpu, memory_order_relaxed);
    cnn_lock_enter(&w->lock);
    w->part = part;
    w->arg = arg;
    w->turns = turns;
    atomic_store(&w->state, POSTED);
    cnn_condition_signal(&w->changed);
    cnn_lock_leave(&w->lock);
}

static void finish(worker *w, int turns)
{
    int posted = POSTED;
    if (atomic_compare_exchange_strong(&w->state, &posted, IDLE)) return;
    for (int i = 0; i < turns; i++) {
        if (atomic_load_explicit(&w->state, memory_order_acquire) == IDLE) return;
        rest(i);
    }
    cnn_lock_enter(&w->lock);
    while (atomic_load(&w->state) != IDLE) cnn_condition_wait(&w->changed, &w->lock);
    cnn_lock_leave(&w->lock);
}

/* A team for this caller, or NULL: the one that it had, if that is free. */
static team *take_team(void)
{
    for (int i = 0; i < MOST_TEAMS; i++) {
        const int32_t index = (last + i) % MOST_TEAMS;
        if (!atomic_exchange(&teams[index].taken, true)) {
            last = index;
            return &teams[index];
        }
    }
    return NULL;
}

static int32_t usable_cpus(void)
{
    int32_t n = atomic_load_explicit(&cpus, memory_order_relaxed);
    if (n == 0) atomic_store_explicit(&cpus, n = cnn_usable_cpus(), memory_order_relaxed);
    return n;
}

void cnn_team_run(int32_t participants, cnn_part_fn *part, void *arg)
{
    team *t = inside || !cnn_may_split() ? NULL : take_team();
    if (t == NULL) {
        part(arg, 0);
        return;
    }
    const int32_t workers = have_workers(t, participants - 1);
    /* With more threads than CPUs, who waits in a loop may keep the one that it waits for from running. */
    const bool loops = atomic_fetch_add(&participating, participants) + participants <= usable_cpus();
    const int32_t cpu = loops ? cnn_current_cpu() : -1;
    for (int32_t i = 0; i < workers; i++) post(&t->workers[i], part, arg, loops ? WORKER_TURNS : 0, cpu);
    inside = true;
    part(arg, 0);
    inside = false;
    for (int32_t i = 0; i < workers; i++) finish(&t->workers[i], loops ? CALLER_TURNS : 0);
    atomic_fetch_sub(&participating, participants);
    atomic_store(&t->taken, false);
}

#endif
