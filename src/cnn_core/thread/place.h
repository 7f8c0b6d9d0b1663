/* On which CPU a thread is. */
#ifndef CNN_THREAD_PLACE_H
#define CNN_THREAD_PLACE_H

#include <stdint.h>

/* The CPU that the calling thread is on; -1 where the system does not tell cheaply. */
int32_t cnn_current_cpu(void);

/* Moves the calling thread to another CPU than this one, if it may use another. Which one the system decides, and it stays
 * free to move the thread again: its affinity is as before. */
void cnn_step_aside(int32_t cpu);

#endif
