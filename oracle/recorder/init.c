// The first process of the oracle's host. The process sets up the kernel for repeatable recordings, runs the
// recorder on each file in /scenarios, and switches the machine off. The kernel's arguments after "--" are arguments of the recorder.
// The console carries the recordings, between lines that begin with "===".
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);

    if (file < 0 || write(file, text, strlen(text)) < 0)
        printf("=== cannot write %s\n", path);
    if (file >= 0)
        close(file);
}

static void mount_all(void)
{
    static const struct {
        const char *type, *path;
    } mounts[] = {
        {"devtmpfs", "/dev"},
        {"proc", "/proc"},
        {"sysfs", "/sys"},
        {"debugfs", "/sys/kernel/debug"},
        {"tmpfs", "/tmp"},
        {"tracefs", "/sys/kernel/tracing"},
    };

    for (size_t i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
        mkdir(mounts[i].path, 0755);
        // Some kernels have no tracing.
        if (access(mounts[i].path, F_OK))
            continue;
        if (mount(mounts[i].type, mounts[i].path, mounts[i].type, 0, NULL))
            printf("=== cannot mount %s\n", mounts[i].path);
    }
}

static int is_file(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void record(const char *name, char **arguments)
{
    char path[512];
    int status = 0;
    pid_t child;

    printf("=== scenario %s\n", name);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        snprintf(path, sizeof(path), "/scenarios/%s", name);
        if (!freopen(path, "r", stdin))
            _exit(1);
        arguments[0] = "recorder";
        execv("/recorder", arguments);
        _exit(1);
    }
    waitpid(child, &status, 0);
    printf("=== status %d\n", status);
    fflush(stdout);
}

static size_t huge_page_size(void)
{
    size_t page = sysconf(_SC_PAGESIZE);

    return page * (page / 8); // the range of one table
}

// The kernel's thread for huge pages scans when the first process asks for huge pages and has a page, and again after
// the sleep that main sets. This process is the first one, so the thread scans only this process.
static void occupy_khugepaged(void)
{
    size_t size = 2 * huge_page_size(); // contains an aligned huge page
    char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (area == MAP_FAILED || madvise(area, size, MADV_HUGEPAGE))
        puts("=== cannot ask for huge pages");
    else
        area[size / 2] = 1;
}

// Reserves 256 MiB of huge pages, or one page if a page is larger.
static void reserve_huge_pages(void)
{
    const size_t wanted = 256 << 20;
    size_t size = huge_page_size();
    char text[16];

    snprintf(text, sizeof(text), "%zu", size < wanted ? wanted / size : 1);
    put("/proc/sys/vm/nr_hugepages", text);
}

int main(int argument_count, char **arguments)
{
    struct dirent **files;
    int count;

    (void)argument_count; // the vector ends with a null pointer
    mount_all();
    // Only the recorder writes to the console.
    put("/proc/sys/kernel/printk", "0 0 0 0");
    // The kernel makes huge pages only if a scenario asks for them.
    put("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
    put("/sys/kernel/mm/transparent_hugepage/defrag", "always");
    put("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "4000000000");
    put("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan", "1");
    // Pages are moved only by scenarios, because a move unmaps the page from the guest.
    put("/proc/sys/vm/compaction_proactiveness", "0");
    put("/proc/sys/vm/watermark_boost_factor", "0");
    reserve_huge_pages();
    occupy_khugepaged();

    count = scandir("/scenarios", &files, is_file, alphasort);
    for (int i = 0; i < count; i++)
        record(files[i]->d_name, arguments);
    puts("=== end");
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    return 0;
}
