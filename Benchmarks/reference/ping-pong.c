// Sends a byte to another process through a pipe, and back through a second pipe. A server in user space that sleeps
// between system calls cannot be faster on this machine.
//
// usage: ping-pong CPU CPU SECONDS       (the CPUs of the two processes; they can be the same)
//
// Prints JSON: the number of round trips, and percentiles of their times in nanoseconds.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SAMPLES 1000000
#define WARM_UP 1000

static long long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(71);
}

static void run_on(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        fail("ping-pong: sched_setaffinity");
}

static void echo(int from, int to)
{
    char byte;

    while (read(from, &byte, 1) == 1)
        if (write(to, &byte, 1) != 1)
            fail("ping-pong: write");
}

static long long round_trip(int to, int from)
{
    char byte = 0;
    long long start = now();

    if (write(to, &byte, 1) != 1 || read(from, &byte, 1) != 1)
        fail("ping-pong: the other process");
    return now() - start;
}

static int compare(const void *left, const void *right)
{
    long long a = *(const long long *)left, b = *(const long long *)right;

    return (a > b) - (a < b);
}

int main(int count, char **arguments)
{
    static long long samples[SAMPLES];
    int there[2], back[2];
    long long end, i, taken = 0;

    if (count != 4) {
        fputs("usage: ping-pong CPU CPU SECONDS\n", stderr);
        return 64;
    }
    if (pipe(there) || pipe(back))
        fail("ping-pong: pipe");
    switch (fork()) {
    case -1:
        fail("ping-pong: fork");
    case 0:
        close(there[1]);
        run_on(atoi(arguments[2]));
        close(back[0]);
        echo(there[0], back[1]);
        return 0;
    }
    close(there[0]);
    close(back[1]);
    run_on(atoi(arguments[1]));
    for (i = 0; i < WARM_UP; i++)
        round_trip(there[1], back[0]);
    end = now() + (long long)(atof(arguments[3]) * 1e9);
    do
        samples[taken++] = round_trip(there[1], back[0]);
    while (taken < SAMPLES && now() < end);
    qsort(samples, taken, sizeof(*samples), compare);
    printf("{\"count\": %lld, \"p50\": %lld, \"p99\": %lld, \"p99.9\": %lld}\n", taken, samples[taken / 2],
           samples[taken * 99 / 100], samples[taken * 999 / 1000]);
    return 0;
}
