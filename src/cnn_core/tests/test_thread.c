/* Threads: as many as asked, denormals flushed and restored, work after fork(). */
#if defined(__linux__)
#define _GNU_SOURCE /* setenv, fork, nanosleep, affinity */
#endif

#include <float.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/memory.h"
#include "tests/test.h"
#include "thread/count.h"
#include "thread/place.h"
#include "thread/thread.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(_WIN32)
#include <windows.h>
#else
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif

static void rest_a_millisecond(void)
{
#if defined(_WIN32)
    Sleep(1);
#else
    (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
#endif
}

typedef struct meeting {
    atomic_int present, most, wrong;
    int wanted;
} meeting;

/* Waits, for a while, until all wanted threads are here at once. */
static void meet(void *arg, int64_t task, int32_t thread)
{
    meeting *m = arg;
    (void)task;
    if (thread < 0 || thread >= m->wanted) atomic_fetch_add(&m->wrong, 1);
    const int here = atomic_fetch_add(&m->present, 1) + 1;
    int most = atomic_load(&m->most);
    while (here > most && !atomic_compare_exchange_weak(&m->most, &most, here)) continue;
    for (int i = 0; i < 2000 && atomic_load(&m->most) < m->wanted; i++) rest_a_millisecond();
    atomic_fetch_sub(&m->present, 1);
}

static int most_together(int threads)
{
    meeting m = {.wanted = threads};
    cnn_parallel(threads, threads, meet, &m);
    return atomic_load(&m.wrong) == 0 ? atomic_load(&m.most) : -1;
}

static int32_t most_threads(void)
{
    return strcmp(cnn_thread_backend(), "serial") == 0 ? 1 : 4;
}

static void runs_as_many_as_asked(void)
{
    for (int threads = 1; threads <= most_threads(); threads++) CHECK_INT(most_together(threads), threads);
}

static void mark(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    atomic_fetch_add((atomic_int *)arg + task, 1);
}

static void runs_each_task_once(void)
{
    static atomic_int count[1000];
    cnn_parallel(most_threads(), 1000, mark, count);
    int wrong = 0;
    for (int i = 0; i < 1000; i++) wrong += atomic_load(&count[i]) != 1;
    CHECK_INT(wrong, 0);
    cnn_parallel(most_threads(), 0, mark, count); /* nothing to do */
    CHECK_INT(atomic_load(&count[0]), 1);
}

static void mark_all(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    cnn_parallel(most_threads(), 100, mark, (atomic_int *)arg + 100 * task);
}

static void regions_nest(void)
{
    static atomic_int count[800];
    cnn_parallel(most_threads(), 8, mark_all, count);
    int wrong = 0;
    for (int i = 0; i < 800; i++) wrong += atomic_load(&count[i]) != 1;
    CHECK_INT(wrong, 0);
}

static void wait_a_little(void *arg, int64_t task, int32_t thread)
{
    (void)arg, (void)thread;
    if (task % 100 == 0) rest_a_millisecond();
}

/* Workers that sleep and workers that wait in a loop get their part all the same. */
static void regions_follow_each_other(void)
{
    static atomic_int count[8];
    for (int round = 0; round < 2000; round++) {
        cnn_parallel(1 + round % most_threads(), 8, mark, count);
        if (round % 400 == 0) cnn_parallel(2, 101, wait_a_little, NULL);
    }
    for (int i = 0; i < 8; i++) CHECK_INT(atomic_load(&count[i]), 2000);
}

static void divide_denormal(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    volatile float smallest = FLT_MIN;
    ((float *)arg)[task] = smallest / 4.0f;
}

static void flushes_denormals(void)
{
    for (int threads = 1; threads <= most_threads(); threads++) {
        float result[4] = {1, 1, 1, 1};
        cnn_parallel(threads, 4, divide_denormal, result);
        for (int i = 0; i < 4; i++) CHECK(result[i] == 0.0f);
        float outside = 1;
        divide_denormal(&outside, 0, 0);
        CHECK(outside > 0.0f); /* the caller's arithmetic is as it was */
    }
}

#if !defined(_WIN32)

static void *mark_often(void *arg)
{
    for (int round = 0; round < 500; round++) cnn_parallel(most_threads(), 8, mark, arg);
    return NULL;
}

static void callers_work_side_by_side(void)
{
    static atomic_int count[3][8];
    pthread_t caller[3];
    for (int i = 0; i < 3; i++) REQUIRE(pthread_create(&caller[i], NULL, mark_often, count[i]) == 0);
    for (int i = 0; i < 3; i++) REQUIRE(pthread_join(caller[i], NULL) == 0);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 8; j++) CHECK_INT(atomic_load(&count[i][j]), 500);
}

/* The child's exit status, or -1 when it had to be killed after ten seconds. */
static int status_of_child(int (*run)(void))
{
    const pid_t child = fork();
    if (child == 0) _exit(run());
    for (int i = 0; i < 1000; i++) {
        int status;
        if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        for (int ms = 0; ms < 10; ms++) rest_a_millisecond();
    }
    (void)kill(child, 9);
    (void)waitpid(child, NULL, 0);
    return -1;
}

static int child_works(void)
{
    return most_together(most_threads()) == most_threads() ? 0 : 1;
}

static int grandchild_works(void)
{
    return child_works() == 0 && status_of_child(child_works) == 0 ? 0 : 1;
}

static void works_after_fork(void)
{
    if (getenv("CNN_TEST_EMULATED") != NULL) return; /* qemu itself fails in the child of a threaded process */
    CHECK_INT(most_together(most_threads()), most_threads()); /* the parent has a pool before it forks */
    CHECK_INT(status_of_child(child_works), 0);
    CHECK_INT(status_of_child(grandchild_works), 0);
    CHECK_INT(most_together(most_threads()), most_threads());
}

static int unknown_isa(void)
{
    (void)setenv("CNN_FORCE_ISA", "avx9000", 1);
    return cnn_initialize() == CNN_UNSUPPORTED && strstr(cnn_last_error(), "scalar") != NULL ? 0 : 1;
}

static int forced_scalar(void)
{
    (void)setenv("CNN_FORCE_ISA", "scalar", 1);
    return cnn_initialize() == CNN_OK && strcmp(cnn_isa(), "scalar") == 0 ? 0 : 1;
}

static int number_from_environment(void)
{
    (void)setenv("OMP_NUM_THREADS", "3,2", 1);
    return cnn_get_num_threads() == (most_threads() == 1 ? 1 : 3) ? 0 : 1;
}

/* In children, because a process chooses once. */
static void obeys_environment(void)
{
    CHECK_INT(status_of_child(unknown_isa), 0);
    CHECK_INT(status_of_child(forced_scalar), 0);
    CHECK_INT(status_of_child(number_from_environment), 0);
}

#endif

/* Nothing is left out, no part is larger by more than one, and neighbours together are as even: halves of the parts are halves. */
static void parts_are_even(void)
{
    for (int64_t total = 0; total < 50; total++)
        for (int64_t parts = 1; parts < 20; parts++) {
            CHECK_INT(cnn_split(total, parts, 0), 0);
            CHECK_INT(cnn_split(total, parts, parts), total);
            for (int64_t i = 0; i < parts; i++) {
                const int64_t size = cnn_split(total, parts, i + 1) - cnn_split(total, parts, i);
                CHECK(size == total / parts || size == cnn_ceil_div(total, parts));
            }
            if (parts % 2 == 0) CHECK_INT(cnn_split(total, parts, parts / 2), total / 2);
        }
}

static void sets_thread_count(void)
{
    CHECK_INT(cnn_set_num_threads(0), CNN_INVALID_VALUE);
    CHECK_INT(cnn_set_num_threads(1), CNN_OK);
    CHECK_INT(cnn_get_num_threads(), 1);
    CHECK_INT(cnn_useful_threads(4, 10.0), 1);
    CHECK_INT(cnn_useful_threads(4, 1e9), 4);
}

#if defined(__linux__)
typedef struct pairing {
    _Atomic int32_t cpu[2]; /* of each participant, once it has come */
    bool joins;             /* the second one goes to the first one's CPU */
} pairing;

/* Both wait for each other, so that the second has to come. */
static void pair_up(void *arg, int64_t task, int32_t thread)
{
    (void)task;
    pairing *p = arg;
    atomic_store(&p->cpu[thread], cnn_current_cpu());
    for (int i = 0; i < 1000000 && atomic_load(&p->cpu[1 - thread]) < 0; i++) (void)sched_yield();
    cpu_set_t before, one;
    if (!p->joins || thread == 0 || sched_getaffinity(0, sizeof before, &before) != 0) return;
    CPU_ZERO(&one);
    CPU_SET((unsigned)atomic_load(&p->cpu[0]), &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0) (void)sched_setaffinity(0, sizeof before, &before);
}

/* A worker that was brought to its caller's CPU is on another one when the next region comes. */
static void workers_leave_their_callers(void)
{
    if (strcmp(cnn_thread_backend(), "serial") == 0 || cnn_usable_cpus() < 2) return;
    int apart = 0;
    for (int i = 0; i < 20; i++) {
        pairing p = {.cpu = {-1, -1}, .joins = true};
        cnn_parallel(2, 2, pair_up, &p);
        pairing next = {.cpu = {-1, -1}};
        cnn_parallel(2, 2, pair_up, &next);
        apart += next.cpu[0] != next.cpu[1];
    }
    CHECK(apart >= 15);
}

/* To another CPU, if there is one, and no further: the thread may go back, but hardly does at once. */
static void steps_aside(void)
{
    cpu_set_t before, after, one;
    REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
    int moved = 0;
    for (int i = 0; i < 20; i++) {
        const int32_t cpu = cnn_current_cpu();
        cnn_step_aside(cpu);
        moved += cnn_current_cpu() != cpu;
    }
    CHECK(CPU_COUNT(&before) == 1 ? moved == 0 : moved >= 10);
    REQUIRE(sched_getaffinity(0, sizeof after, &after) == 0);
    CHECK(CPU_EQUAL(&before, &after));

    const int32_t cpu = cnn_current_cpu();
    CPU_ZERO(&one);
    CPU_SET((unsigned)cpu, &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    cnn_step_aside(cpu);
    CHECK_INT(cnn_current_cpu(), cpu);
    REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
}
#endif

int main(int argc, char **argv)
{
    static const test_case tests[] = {
#if !defined(_WIN32)
        TEST(obeys_environment), /* first: a process chooses once */
        TEST(callers_work_side_by_side),
        TEST(works_after_fork),
#endif
        TEST(runs_as_many_as_asked), TEST(runs_each_task_once), TEST(regions_nest),
        TEST(regions_follow_each_other), TEST(flushes_denormals), TEST(parts_are_even),
        TEST(sets_thread_count),
#if defined(__linux__)
        TEST(steps_aside), TEST(workers_leave_their_callers),
#endif
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
