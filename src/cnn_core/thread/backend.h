/* Which threads run parallel work: those of OpenMP where the compiler has it, else the library's own, on POSIX threads or
 * Windows threads; none in a build with CNN_SERIAL or on other systems. */
#ifndef CNN_THREAD_BACKEND_H
#define CNN_THREAD_BACKEND_H

#include <stdint.h>

#if defined(CNN_SERIAL)
#define CNN_THREADS "serial"
#elif defined(_OPENMP)
#define CNN_THREADS "openmp"
#define CNN_THREADS_OPENMP 1
#elif defined(_WIN32)
#define CNN_THREADS "win32"
#define CNN_THREADS_POOL 1
#elif defined(__unix__) || defined(__APPLE__)
#define CNN_THREADS "pthreads"
#define CNN_THREADS_POOL 1
#else
#define CNN_THREADS "serial"
#endif

#define CNN_MOST_THREADS 1024

/* One participant's part of a parallel region. */
typedef void cnn_part_fn(void *arg, int32_t participant);

/* Calls part(arg, 0) on this thread, and, if it can, part(arg, p) on others with different p from 1 to participants - 1;
 * returns when all that began have returned. The parts share the work among themselves, so that each may come late or
 * never. participants >= 2. */
void cnn_backend_run(int32_t participants, cnn_part_fn *part, void *arg);

#endif
