/* exchange REPORT SHARED PLACE PLACES MIB: one of several that pass a number round, each in a
 * container of its own, through a file that all of them have mapped.
 *
 * Place 0 adds one when the last place has what it has; every other takes over what the one before
 * it has. So at any one moment the numbers, in order of places, fall by one at most from the first
 * to the last. Each keeps its own in a page of private memory: what an image of it says. MIB is
 * ballast, so that dumping it takes a while. */
#include "report.h"

#include <sched.h>
#include <string.h>

/* The order of bench/reports.py: Exchange. */
enum { NUMBER = 1, SKIPPED };

enum { PAGE_BYTES = 4096, SLOT_WORDS = 8 };
#define PAGE_MAGIC UINT64_C(0x45474e4148435845) /* "EXCHANGE" as bytes */

static volatile uint64_t *map(int flags, int fd, size_t length) {
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED) die("mmap");
    return memory;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    report_slot *report = report_open(argv[1]);
    int fd = open(argv[2], O_RDWR);
    if (fd < 0) die(argv[2]);
    volatile uint64_t *shared = map(MAP_SHARED, fd, PAGE_BYTES);
    close(fd);
    int place = atoi(argv[3]), places = atoi(argv[4]);
    size_t ballast = strtoull(argv[5], NULL, 10) << 20;
    if (ballast) memset((void *)map(MAP_PRIVATE | MAP_ANONYMOUS, -1, ballast), place + 1, ballast);
    volatile uint64_t *page = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, PAGE_BYTES);
    page[0] = PAGE_MAGIC;
    page[1] = 0;
    volatile uint64_t *before = shared + (place + places - 1) % places * SLOT_WORDS;
    volatile uint64_t *mine = shared + place * SLOT_WORDS;
    report[REPORT_READY] = REPORT_MAGIC;
    for (;;) {
        uint64_t found = *before, own = page[1];
        if (place == 0 ? found != own : found == own) {
            sched_yield();
            continue;
        }
        uint64_t next = place == 0 ? own + 1 : found;
        if (next != own + 1) report[SKIPPED]++;
        page[1] = next;
        *mine = next;
        report[NUMBER] = next;
    }
}
