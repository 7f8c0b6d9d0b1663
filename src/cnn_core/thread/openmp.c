/* Parallel regions of OpenMP. */
#include "thread/backend.h"

#if defined(CNN_THREADS_OPENMP)

#include <omp.h>

#include "thread/fork.h"

typedef struct team {
    int32_t participants;
    cnn_part_fn *part;
    void *arg;
} team;

/* Inside a parallel region of the caller's, a nested team has one thread unless the program allows more. */
static void run_team(void *arg)
{
    const team *t = arg;
#pragma omp parallel num_threads(t->participants) default(none) shared(t)
    t->part(t->arg, (int32_t)omp_get_thread_num());
}

void cnn_backend_run(int32_t participants, cnn_part_fn *part, void *arg)
{
    team t = {.participants = participants, .part = part, .arg = arg};
    cnn_run_forked_or_here(run_team, &t);
}

#endif
