/* How many threads to use when nobody said. */
#ifndef CNN_THREAD_COUNT_H
#define CNN_THREAD_COUNT_H

#include <stdint.h>

/* CPUs that affinity and the cgroup's quota leave, at most one per physical core. At least 1; 1 in a build without threads. */
int32_t cnn_usable_cpus(void);

/* OMP_NUM_THREADS; else the usable CPUs. */
int32_t cnn_default_threads(void);

#endif
