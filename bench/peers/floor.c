/* The floor: what starting a program, reading both of its pipes to their ends and reaping it costs a C program.
 *
 * Reads lines "CONCURRENCY COUNT PROGRAM ARGUMENT..." and answers each with "WALL CPU": seconds for all COUNT calls,
 * and the seconds that this process itself has computed meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 64, LINE = 4096, THREADS = 256, STACK = 1 << 18 };

extern char **environ;

static char *words[WORDS + 1];
static atomic_long left;

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double clock_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double own_cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void drain(int out, int err)
{
    struct pollfd ends[2] = {{.fd = out, .events = POLLIN}, {.fd = err, .events = POLLIN}};
    char buffer[1 << 16];
    int open = 2;
    while (open > 0) {
        if (poll(ends, 2, -1) < 0 && errno != EINTR)
            fail("poll");
        for (int i = 0; i < 2; i++)
            if (ends[i].fd >= 0 && ends[i].revents && read(ends[i].fd, buffer, sizeof buffer) <= 0) {
                ends[i].fd = -1;
                open--;
            }
    }
}

static void call(void)
{
    int out[2], err[2], status;
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
        fail("pipe2");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    if ((errno = posix_spawnp(&pid, words[0], &actions, NULL, words, environ)))
        fail(words[0]);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(err[1]);
    drain(out[0], err[0]);
    close(out[0]);
    close(err[0]);
    if (waitpid(pid, &status, 0) != pid)
        fail("waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        fprintf(stderr, "floor: %s failed\n", words[0]);
        exit(1);
    }
}

static void *work(void *unused)
{
    while (atomic_fetch_sub(&left, 1) > 0)
        call();
    return unused;
}

int main(void)
{
    char line[LINE];
    while (fgets(line, sizeof line, stdin)) {
        char *rest = NULL, *word = strtok_r(line, " \n", &rest);
        long concurrency = word ? atol(word) : 0;
        word = strtok_r(NULL, " \n", &rest);
        left = word ? atol(word) : 0;
        int n = 0;
        while (n < WORDS && (word = strtok_r(NULL, " \n", &rest)))
            words[n++] = word;
        words[n] = NULL;
        if (n == 0 || concurrency < 1 || concurrency > THREADS)
            return 2;
        pthread_t threads[THREADS];
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, STACK);
        double wall = clock_of(CLOCK_MONOTONIC), cpu = own_cpu();
        for (long i = 1; i < concurrency; i++)
            if ((errno = pthread_create(&threads[i], &small, work, NULL)))
                fail("pthread_create");
        work(NULL);
        for (long i = 1; i < concurrency; i++)
            pthread_join(threads[i], NULL);
        printf("%.9f %.9f\n", clock_of(CLOCK_MONOTONIC) - wall, own_cpu() - cpu);
        fflush(stdout);
    }
    return 0;
}
