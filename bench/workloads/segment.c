/* segment REPORT: counts in a segment of System V shared memory, together with every other process
 * in its IPC namespace that does the same. */
#include "report.h"

#include <sys/ipc.h>
#include <sys/shm.h>

/* The order of bench/reports.py: Segment. */
enum { COUNT = 1 };

enum { KEY = 0x5345474d, PAGE_BYTES = 4096 };

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    report_slot *report = report_open(argv[1]);
    int id = shmget(KEY, PAGE_BYTES, IPC_CREAT | 0600);
    if (id < 0) die("shmget");
    uint64_t *shared = shmat(id, NULL, 0);
    if (shared == (void *)-1) die("shmat");
    report[REPORT_READY] = REPORT_MAGIC;
    for (;;) {
        report[COUNT] = __atomic_add_fetch(shared, 1, __ATOMIC_SEQ_CST);
        sleep_ns(1000000);
    }
}
