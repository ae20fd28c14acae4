/* generations REPORT MIB: rewrites all of its memory with a generation number, without a pause.
 *
 * Page i holds MAGIC, i, then 510 times the generation that last reached it. One thread writes page
 * after page, word after word (volatile: the compiler keeps the order), so that whenever it is
 * stopped the words in that order are a run of g+1 followed by a run of g. Anything else in an image
 * is a page younger than the freeze. Each page is also checked before it is rewritten, so a restore
 * that brought back anything else is counted in ERRORS. */
#include "report.h"

/* The order of bench/reports.py: Generations. */
enum { PAGES = 1, GENERATION, ERRORS };

enum { PAGE_WORDS = 4096 / 8, FIRST_WORD = 2 };
#define PAGE_MAGIC UINT64_C(0x4e4f495441524547) /* "GERATION" as bytes; bench/generations.py */

static int whole(const volatile uint64_t *page, uint64_t index, uint64_t generation) {
    return page[0] == PAGE_MAGIC && page[1] == index && page[FIRST_WORD] == generation &&
           page[PAGE_WORDS - 1] == generation;
}

static void fill(volatile uint64_t *page, uint64_t generation) {
    for (int word = FIRST_WORD; word < PAGE_WORDS; word++) page[word] = generation;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    report_slot *report = report_open(argv[1]);
    uint64_t pages = strtoull(argv[2], NULL, 10) << 8;
    volatile uint64_t *memory =
        mmap(NULL, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) die("mmap");
    for (uint64_t i = 0; i < pages; i++) {
        volatile uint64_t *page = memory + i * PAGE_WORDS;
        page[0] = PAGE_MAGIC;
        page[1] = i;
        fill(page, 1);
    }
    uint64_t generation = 1, errors = 0;
    report[PAGES] = pages;
    report[GENERATION] = generation;
    report[ERRORS] = errors;
    report[REPORT_READY] = REPORT_MAGIC;
    for (;; generation++) {
        for (uint64_t i = 0; i < pages; i++) {
            volatile uint64_t *page = memory + i * PAGE_WORDS;
            errors += !whole(page, i, generation);
            fill(page, generation + 1);
        }
        report[ERRORS] = errors;
        report[GENERATION] = generation + 1;
    }
}
