/* The page through which a workload and the host talk: a file of the container's root filesystem,
 * mapped shared here and read or written with pread/pwrite outside. A checkpoint does not carry its
 * contents (the file does), so what a workload is really at lives in its private memory and is only
 * published here: after a restore it starts again from what the image knew. */
#ifndef REPORT_H
#define REPORT_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { REPORT_SLOTS = 512, REPORT_READY = 0 };
#define REPORT_MAGIC UINT64_C(0x5452504552) /* "REPRT", in slot 0 once the workload is up */

typedef volatile uint64_t report_slot;

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline report_slot *report_open(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || ftruncate(fd, REPORT_SLOTS * sizeof(uint64_t)) < 0) die(path);
    void *page = mmap(NULL, REPORT_SLOTS * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) die("mmap of the report");
    close(fd);
    return page;
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void sleep_ns(long ns) {
    struct timespec t = {0, ns};
    nanosleep(&t, NULL);
}

#endif
