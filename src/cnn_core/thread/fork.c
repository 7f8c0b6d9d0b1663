#include "thread/fork.h"

#include "thread/backend.h"

#if defined(CNN_THREADS_OPENMP)

#if defined(_WIN32)

void cnn_run_forked_or_here(void (*fn)(void *arg), void *arg)
{
    fn(arg);
}

#else

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static atomic_bool forked;

/* The helper and its one job at a time. */
static struct {
    pthread_mutex_t callers; /* held by the caller whose job runs */
    pthread_mutex_t lock;
    pthread_cond_t posted, finished;
    void (*fn)(void *arg);
    void *arg;
    bool started, has_job;
} helper;

static void reset_helper(void)
{
    /* The parent's state means nothing here: its helper, if it had one, did not come along. */
    pthread_mutex_init(&helper.callers, NULL);
    pthread_mutex_init(&helper.lock, NULL);
    pthread_cond_init(&helper.posted, NULL);
    pthread_cond_init(&helper.finished, NULL);
    helper.started = helper.has_job = false;
}

static void in_child(void)
{
    reset_helper();
    atomic_store(&forked, true);
}

static void watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, in_child);
}

static void *serve(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&helper.lock);
    for (;;) {
        while (!helper.has_job) pthread_cond_wait(&helper.posted, &helper.lock);
        pthread_mutex_unlock(&helper.lock);
        helper.fn(helper.arg);
        pthread_mutex_lock(&helper.lock);
        helper.has_job = false;
        pthread_cond_signal(&helper.finished);
    }
    return NULL;
}

static bool start_helper(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, NULL) != 0) return false;
    (void)pthread_detach(thread);
    return true;
}

/* False when the helper could not be made. */
static bool run_on_helper(void (*fn)(void *arg), void *arg)
{
    pthread_mutex_lock(&helper.callers);
    if (!helper.started) helper.started = start_helper();
    const bool started = helper.started;
    if (started) {
        pthread_mutex_lock(&helper.lock);
        helper.fn = fn;
        helper.arg = arg;
        helper.has_job = true;
        pthread_cond_signal(&helper.posted);
        while (helper.has_job) pthread_cond_wait(&helper.finished, &helper.lock);
        pthread_mutex_unlock(&helper.lock);
    }
    pthread_mutex_unlock(&helper.callers);
    return started;
}

void cnn_run_forked_or_here(void (*fn)(void *arg), void *arg)
{
    (void)pthread_once(&watch_once, watch_forks);
    if (atomic_load_explicit(&forked, memory_order_relaxed) && run_on_helper(fn, arg)) return;
    fn(arg);
}

#endif

#endif
