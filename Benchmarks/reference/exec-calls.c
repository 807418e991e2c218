// Measures single system calls for scripts/exec-costs, and prints lines of a name, a tab and microseconds. With a NODE, the first two lines
// are for the device.
//
//   exec-calls [NODE]
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { calls = 20000 };

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int opened(const char *path)
{
    int file = open(path, O_RDWR);

    if (file < 0) {
        perror(path);
        exit(1);
    }
    return file;
}

// Prints the mean of the best of five rounds.
#define MEASURE(name, body)                                            \
    do {                                                               \
        double best = 1e9;                                             \
        for (int round = 0; round < 5; round++) {                      \
            double start = now();                                      \
            for (int i = 0; i < calls / 5; i++) {                      \
                body;                                                  \
            }                                                          \
            double time = (now() - start) / (calls / 5);               \
            if (time < best)                                           \
                best = time;                                           \
        }                                                              \
        printf("%s\t%.2f\n", name, best);                              \
        fflush(stdout);                                                \
    } while (0)

int main(int count, char **arguments)
{
    char byte = 'A';
    struct stat attributes;
    int null = opened("/dev/null");

    MEASURE("write to /dev/null", if (write(null, &byte, 1) != 1) exit(1));
    MEASURE("stat of /usr/bin", if (stat("/usr/bin", &attributes) != 0) exit(1));
    MEASURE("open and close of /dev/null", close(opened("/dev/null")));
    MEASURE("getppid", getppid());
    if (count > 1) {
        int node = opened(arguments[1]);

        MEASURE("write to /dev/null, while the device is open", if (write(null, &byte, 1) != 1) exit(1));
        MEASURE("write and read of the device", if (write(node, &byte, 1) != 1 || read(node, &byte, 1) != 1) exit(1));
        close(node);
        MEASURE("open, write and close of the device", node = opened(arguments[1]); if (write(node, &byte, 1) != 1) exit(1);
                close(node));
    }
    return 0;
}
