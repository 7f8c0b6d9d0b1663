/* The one doorway to parallel work. */
#ifndef CNN_THREAD_THREAD_H
#define CNN_THREAD_THREAD_H

#include <stdint.h>

#include "cnn_core.h"

/* Work on task `task` of `tasks`; `thread` is in 0 .. threads-1 and no two tasks run under one number at the same time,
 * so it may index scratch memory. What a task computes must depend on `task` alone, never on `thread`: that is what
 * keeps results the same, to the bit, at any number of threads. */
typedef void cnn_task_fn(void *arg, int64_t task, int32_t thread);

/* Calls fn for each task, on at most `threads` threads, the calling one among them, and returns when all are done. Denormals
 * are flushed to zero on every participant, the caller and the serial path included, and the caller's control register is
 * restored. */
void cnn_parallel(int32_t threads, int64_t tasks, cnn_task_fn *fn, void *arg);

/* The caller's executor: cnn_core.h. */
typedef struct cnn_executor {
    cnn_executor_fn run;
    void *state;
} cnn_executor;

/* From now on this thread's regions run by the executor, or, if it is NULL, on the library's threads. Returns what they ran
 * by before. Other threads, those of the executor included, are not concerned. */
const cnn_executor *cnn_use_executor(const cnn_executor *executor);

/* Threads worth waking: 1 when the whole work is below what a parallel region costs. `work` counts roughly in
 * nanoseconds of one core. */
int32_t cnn_useful_threads(int32_t threads, double work);

#endif
