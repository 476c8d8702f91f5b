/* A wall clock that jumps, for the processes that preload this: real time and what /etc/clock says, in seconds.
 *
 * As when a machine's clock is set, the monotonic clock goes on undisturbed, and a wait until a time of the wall clock
 * ends when this clock shows it. (libfaketime 0.9.10 cannot leave the monotonic clock alone: its clock_nanosleep then
 * fails with EINVAL, and so does Python's time.sleep.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char (*volatile text)[16];

static time_t ahead(void)
{
    if (!text) {
        int file = open("/etc/clock", O_RDONLY | O_CLOEXEC);
        void *seen = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *text, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0)
            close(file);
        if (seen == MAP_FAILED)
            return 0;
        text = seen;
    }
    return atol(*text);
}

static long (*real_syscall(void))(long, ...)
{
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real;
}

static int is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

static struct timespec true_time(const struct timespec *shown)
{
    struct timespec real = {shown->tv_sec - ahead(), shown->tv_nsec};
    if (real.tv_sec < 0)
        real.tv_sec = 0;
    return real;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)real_syscall()(SYS_clock_gettime, clock, now);
    if (!failed && is_wall(clock))
        now->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise))
        return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *kept)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept)
        *kept = now.tv_sec;
    return now.tv_sec;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
    static int (*real)(clockid_t, int, const struct timespec *, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_nanosleep");
    if (!is_wall(clock) || !(flags & TIMER_ABSTIME))
        return real(clock, flags, until, left);
    struct timespec then = true_time(until);
    return real(clock, flags, &then, left);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real)
        real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    /* a condition may go by the monotonic clock; its deadline is then far before any of the wall's */
    if (until->tv_sec < 1000000000)
        return real(condition, mutex, until);
    struct timespec then = true_time(until);
    return real(condition, mutex, &then);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    static int (*real)(sem_t *, const struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec then = true_time(until);
    return real(semaphore, &then);
}

/* abseil, and with it gRPC, waits by the futex itself */
long syscall(long number, ...)
{
    va_list given;
    long a, b, c, d, e, f;
    va_start(given, number);
    a = va_arg(given, long), b = va_arg(given, long), c = va_arg(given, long);
    d = va_arg(given, long), e = va_arg(given, long), f = va_arg(given, long);
    va_end(given);
    if (number == SYS_clock_gettime)
        return clock_gettime((clockid_t)a, (struct timespec *)b);
    if (number == SYS_futex && d && (b & FUTEX_CLOCK_REALTIME) && (b & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
        struct timespec then = true_time((const struct timespec *)d);
        return real_syscall()(number, a, b, c, &then, e, f);
    }
    return real_syscall()(number, a, b, c, d, e, f);
}
