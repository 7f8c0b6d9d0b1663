/* Which threads run parallel work: OpenMP's where the compiler has it, else POSIX threads or Windows threads; none in a build
 * with CNN_SERIAL or on other systems. Whoever makes them, work is handed to them by team.c. */
#ifndef CNN_THREAD_BACKEND_H
#define CNN_THREAD_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(CNN_SERIAL)
#define CNN_THREADS "serial"
#elif defined(_OPENMP)
#define CNN_THREADS "openmp"
#define CNN_THREADS_OPENMP 1
#elif defined(_WIN32)
#define CNN_THREADS "win32"
#define CNN_THREADS_OWN 1
#elif defined(__unix__) || defined(__APPLE__)
#define CNN_THREADS "pthreads"
#define CNN_THREADS_OWN 1
#else
#define CNN_THREADS "serial"
#endif

#if defined(CNN_THREADS_OPENMP) || defined(CNN_THREADS_OWN)
#define CNN_THREADS_ANY 1
#endif

#define CNN_MOST_THREADS 1024

/* One participant's part of a parallel region. */
typedef void cnn_part_fn(void *arg, int32_t participant);

/* Calls part(arg, 0) on this thread, and, if it can, part(arg, p) on others with different p from 1 to participants - 1;
 * returns when all that began have returned. The parts share the work among themselves, so that each may come late or
 * never. participants >= 2. (team.c) */
void cnn_team_run(int32_t participants, cnn_part_fn *part, void *arg);

/* Threads that are started together. Each calls work(crew), which takes its number from `begun` and never returns. */
typedef struct cnn_crew {
    void (*work)(struct cnn_crew *crew);
    int32_t count;
    _Atomic int32_t begun;
} cnn_crew;

/* Starts the threads, soon; false if it could start none. The crew stays where it is for good. (workers.c) */
bool cnn_crew_start(cnn_crew *crew);
/* False where the calling program splits its work over threads itself: in a parallel region of OpenMP's. */
bool cnn_may_split(void);

#endif
