/* counter REPORT: counts about 450 times a second and watches its own pauses.
 *
 * The largest time between two ticks is how long the application itself stood still, whatever any
 * tool says about it. Writing a new number into RESET makes it forget the largest gap so far. */
#include "report.h"

/* The order of bench/reports.py: Counter. */
enum { TICKS = 1, GAP_NS, GAP_AT_NS, RESET, RESET_DONE, RESUMES, RESUMED_FROM };

enum { TICK_NS = 2000000 };

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    report_slot *report = report_open(argv[1]);
    uint64_t ticks = 0, last = now_ns();
    report[TICKS] = 0;
    report[REPORT_READY] = REPORT_MAGIC;
    for (;;) {
        sleep_ns(TICK_NS);
        uint64_t now = now_ns(), gap = now - last;
        last = now;
        if (report[RESET] != report[RESET_DONE]) {
            report[GAP_NS] = 0;
            report[RESET_DONE] = report[RESET];
        } else if (gap > report[GAP_NS]) {
            report[GAP_AT_NS] = now;
            report[GAP_NS] = gap;
        }
        /* Somebody else's number in the file: this is the image's count, going on after a restore. */
        if (report[TICKS] != ticks) {
            report[RESUMED_FROM] = ticks;
            report[RESUMES] += 1;
        }
        report[TICKS] = ++ticks;
    }
}
