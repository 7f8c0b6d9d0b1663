/* Parallel work after fork(). libgomp's workers do not survive into the child, yet the thread that called fork() still
 * believes in them and would wait for ever. libgomp keeps its pool per calling thread, so in a child the work is handed to
 * a helper thread made there, whose pool is fresh. */
#ifndef CNN_THREAD_FORK_H
#define CNN_THREAD_FORK_H

/* Calls fn(arg): here, or in a forked child on the helper thread, and returns when it is done. */
void cnn_run_forked_or_here(void (*fn)(void *arg), void *arg);

#endif
