#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity */
#endif

#include "thread/count.h"

#include "thread/backend.h"

#if defined(CNN_THREADS_ANY)

#include <stdio.h>
#include <stdlib.h>

#if defined(__linux__)
#include <sched.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#else
#include <unistd.h>
#endif

#if defined(__linux__)

/* The first number in a file of /sys or /proc, or `otherwise`. */
static long long read_number(const char *path, long long otherwise)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) return otherwise;
    long long number = otherwise;
    if (fscanf(file, "%lld", &number) != 1) number = otherwise;
    (void)fclose(file);
    return number;
}

/* Of the CPUs in the affinity mask, those that are the first of their core to appear: hyperthreads share the FMA units. */
static int32_t allowed_cores(void)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
    struct {
        long long package, core;
    } seen[CPU_SETSIZE];
    int32_t cores = 0;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        char path[96];
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/physical_package_id", cpu);
        const long long package = read_number(path, 0);
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/core_id", cpu);
        const long long core = read_number(path, -1 - (long long)cpu); /* unknown: a core of its own */
        int32_t i = 0;
        while (i < cores && (seen[i].package != package || seen[i].core != core)) i++;
        if (i < cores) continue;
        seen[cores].package = package;
        seen[cores].core = core;
        cores++;
    }
    return cores > 0 ? cores : 1;
}

/* Whole CPUs of the cgroup's quota (version 2, then 1), or `otherwise` without one. */
static int32_t quota_cpus(int32_t otherwise)
{
    long long quota = -1, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (file != NULL) {
        if (fscanf(file, "%lld %lld", &quota, &period) != 2) quota = -1; /* "max 100000": no quota */
        (void)fclose(file);
    } else {
        quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1);
        period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 0);
    }
    if (quota <= 0 || period <= 0) return otherwise;
    const long long cpus = (quota + period - 1) / period;
    return cpus < otherwise ? (int32_t)cpus : otherwise;
}

int32_t cnn_usable_cpus(void)
{
    return quota_cpus(allowed_cores());
}

#elif defined(_WIN32)

/* The cores of which the affinity mask has a CPU, in the process's group of 64 CPUs. */
int32_t cnn_usable_cpus(void)
{
    DWORD_PTR allowed, all;
    if (!GetProcessAffinityMask(GetCurrentProcess(), &allowed, &all)) return 1;
    DWORD bytes = 0;
    (void)GetLogicalProcessorInformation(NULL, &bytes);
    SYSTEM_LOGICAL_PROCESSOR_INFORMATION *rows = malloc(bytes + 1);
    int32_t cores = 0;
    if (rows != NULL && GetLogicalProcessorInformation(rows, &bytes))
        for (size_t i = 0; i < bytes / sizeof *rows; i++)
            cores += rows[i].Relationship == RelationProcessorCore && (rows[i].ProcessorMask & allowed) != 0;
    free(rows);
    return cores > 0 ? cores : 1;
}

#elif defined(__APPLE__)

int32_t cnn_usable_cpus(void)
{
    int32_t cores = 0;
    size_t bytes = sizeof cores;
    return sysctlbyname("hw.physicalcpu", &cores, &bytes, NULL, 0) == 0 && cores > 0 ? cores : 1;
}

#else

int32_t cnn_usable_cpus(void)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : (int32_t)online;
}

#endif

int32_t cnn_default_threads(void)
{
    const char *asked = getenv("OMP_NUM_THREADS");
    if (asked != NULL) {
        char *end;
        const long n = strtol(asked, &end, 10); /* a list, as "4,2", counts by its first level */
        if (end != asked && n >= 1 && n <= INT32_MAX) return (int32_t)n;
    }
    return cnn_usable_cpus();
}

#else

int32_t cnn_usable_cpus(void)
{
    return 1;
}

int32_t cnn_default_threads(void)
{
    return 1;
}

#endif
