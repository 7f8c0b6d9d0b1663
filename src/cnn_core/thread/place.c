#if defined(__linux__)
#define _GNU_SOURCE /* sched_getcpu, sched_setaffinity */
#endif

#include "thread/place.h"

#if defined(__linux__)

#include <sched.h>

int32_t cnn_current_cpu(void) { return sched_getcpu(); }

void cnn_step_aside(int32_t cpu)
{
    cpu_set_t allowed;
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR((unsigned)cpu, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        (void)sched_setaffinity(0, sizeof allowed, &allowed);
}

#else

int32_t cnn_current_cpu(void) { return -1; }

void cnn_step_aside(int32_t cpu) { (void)cpu; }

#endif
