/* Locks, condition variables and threads, of POSIX or of Windows; only what the teams need. */
#ifndef CNN_THREAD_OS_H
#define CNN_THREAD_OS_H

#include <stdbool.h>

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

typedef SRWLOCK cnn_lock;
typedef CONDITION_VARIABLE cnn_condition;

static inline void cnn_lock_init(cnn_lock *lock) { InitializeSRWLock(lock); }
static inline void cnn_lock_enter(cnn_lock *lock) { AcquireSRWLockExclusive(lock); }
static inline void cnn_lock_leave(cnn_lock *lock) { ReleaseSRWLockExclusive(lock); }
static inline void cnn_condition_init(cnn_condition *condition) { InitializeConditionVariable(condition); }
static inline void cnn_condition_signal(cnn_condition *condition) { WakeConditionVariable(condition); }
static inline void cnn_condition_wait(cnn_condition *condition, cnn_lock *lock)
{
    (void)SleepConditionVariableSRW(condition, lock, INFINITE, 0);
}

/* A thread's function: static CNN_THREAD_MAIN(name, arg) { ... return CNN_THREAD_END; } */
#define CNN_THREAD_MAIN(name, arg) DWORD WINAPI name(LPVOID arg)
#define CNN_THREAD_END 0
typedef DWORD(WINAPI cnn_thread_main)(LPVOID arg);

/* Starts a thread that nobody joins. */
static inline bool cnn_thread_start(cnn_thread_main *main, void *arg)
{
    const HANDLE thread = CreateThread(NULL, 0, main, arg, 0, NULL);
    return thread != NULL && CloseHandle(thread) != 0;
}

static inline void cnn_at_fork(void (*in_child)(void)) { (void)in_child; }

/* Lets others have the CPU. */
static inline void cnn_yield(void) { (void)SwitchToThread(); }

#else

#include <pthread.h>
#include <sched.h>

typedef pthread_mutex_t cnn_lock;
typedef pthread_cond_t cnn_condition;

static inline void cnn_lock_init(cnn_lock *lock) { (void)pthread_mutex_init(lock, NULL); }
static inline void cnn_lock_enter(cnn_lock *lock) { (void)pthread_mutex_lock(lock); }
static inline void cnn_lock_leave(cnn_lock *lock) { (void)pthread_mutex_unlock(lock); }
static inline void cnn_condition_init(cnn_condition *condition) { (void)pthread_cond_init(condition, NULL); }
static inline void cnn_condition_signal(cnn_condition *condition) { (void)pthread_cond_signal(condition); }
static inline void cnn_condition_wait(cnn_condition *condition, cnn_lock *lock)
{
    (void)pthread_cond_wait(condition, lock);
}

#define CNN_THREAD_MAIN(name, arg) void *name(void *arg)
#define CNN_THREAD_END NULL
typedef void *cnn_thread_main(void *arg);

static inline bool cnn_thread_start(cnn_thread_main *main, void *arg)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, main, arg) != 0) return false;
    (void)pthread_detach(thread);
    return true;
}

static inline void cnn_at_fork(void (*in_child)(void)) { (void)pthread_atfork(NULL, NULL, in_child); }

static inline void cnn_yield(void) { (void)sched_yield(); }

#endif

/* A moment's rest in a loop that waits for another thread. */
static inline void cnn_pause(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("isb"); /* `yield` is over at once */
#elif defined(_WIN32)
    YieldProcessor();
#endif
}

#endif
