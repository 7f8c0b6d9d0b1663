/* Where the threads of a team come from. */
#include "thread/backend.h"

#if defined(CNN_THREADS_ANY)

#include "thread/os.h"

#if defined(CNN_THREADS_OPENMP)

#include <omp.h>

static void sleep_for_good(void)
{
    cnn_lock lock;
    cnn_condition never;
    cnn_lock_init(&lock);
    cnn_condition_init(&never);
    cnn_lock_enter(&lock);
    for (;;) cnn_condition_wait(&never, &lock);
}

/* One parallel region, entered once and never left: nobody waits at OpenMP's barriers, which on a busy machine costs
 * milliseconds each. Its first thread stands for the caller, whose place (OMP_PLACES) it has, and sleeps. libgomp keeps its
 * threads per thread that opens regions; opened on a thread of its own, a region works in a child after fork() too. */
static CNN_THREAD_MAIN(open_region, arg)
{
    cnn_crew *crew = arg;
#pragma omp parallel num_threads(crew->count + 1) default(none) shared(crew)
    {
        if (omp_get_thread_num() > 0) crew->work(crew);
        sleep_for_good();
    }
    return CNN_THREAD_END;
}

bool cnn_crew_start(cnn_crew *crew) { return cnn_thread_start(open_region, crew); }

bool cnn_may_split(void) { return !omp_in_parallel(); }

#else

static CNN_THREAD_MAIN(work, arg)
{
    cnn_crew *crew = arg;
    crew->work(crew);
    return CNN_THREAD_END;
}

bool cnn_crew_start(cnn_crew *crew)
{
    int32_t started = 0;
    while (started < crew->count && cnn_thread_start(work, crew)) started++;
    return started > 0;
}

bool cnn_may_split(void) { return true; }

#endif

#endif
