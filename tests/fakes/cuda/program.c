/* A process that computes on a GPU: one thread works, another answers the driver (libcuda.c).
 *
 * usage: program LIBRARY DEVICE_MIB GPU_UUID
 *
 * Its device memory is a memfd, and it holds a userfaultfd as well, which CRIU cannot dump: as with
 * a real GPU, only a process that was checkpointed by the driver can be. Every step adds one to each
 * word of the device memory and checks that all were equal before. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mailbox.h"

static pthread_mutex_t api = PTHREAD_MUTEX_INITIALIZER; /* held by who makes a CUDA call */
static int state = RUNNING;
static int device = -1, driver = -1;
static unsigned long *memory, *saved, steps;
static size_t size;
static char gpu[64], library[256];

static void pause_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void put(const char *name, const char *format, long a, long b, long c) {
    char path[96], fresh[128];
    snprintf(path, sizeof path, MAILBOX "/%d.%s", getpid(), name);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "w");
    if (!file) exit(3);
    fprintf(file, format, a, b, c);
    fclose(file);
    rename(fresh, path);
}

static int get(const char *name, char *first, char *second, char *third) {
    char path[96];
    snprintf(path, sizeof path, MAILBOX "/%d.%s", getpid(), name);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    int found = fscanf(file, "%31s %31s %4095s", first, second, third) == 3;
    fclose(file);
    return found;
}

static void note_device(void) {
    char path[96];
    snprintf(path, sizeof path, MAILBOX "/%d.device", getpid());
    FILE *file = fopen(path, "w");
    if (!file) exit(3);
    fprintf(file, "%s %zu\n", gpu, size);
    fclose(file);
}

static void forget_device(void) {
    char path[96];
    snprintf(path, sizeof path, MAILBOX "/%d.device", getpid());
    unlink(path);
}

static void attach(void) { /* what only a process has that uses a GPU */
    device = memfd_create("device", MFD_CLOEXEC);
    if (device < 0 || ftruncate(device, size)) exit(3);
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
    driver = syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* USER_MODE_ONLY */);
    if (driver < 0) exit(4);
    note_device();
}

static void detach(void) {
    forget_device();
    munmap(memory, size);
    close(device);
    close(driver);
}

static int lock_process(void) {
    if (state != RUNNING) return ILLEGAL_STATE;
    pthread_mutex_lock(&api); /* waits for the call that is being made */
    state = LOCKED;
    return SUCCESS;
}

static int checkpoint_process(void) {
    if (state != LOCKED) return ILLEGAL_STATE;
    if (!(saved = malloc(size))) return OUT_OF_MEMORY;
    memcpy(saved, memory, size);
    detach();
    state = CHECKPOINTED;
    return SUCCESS;
}

static int restore_process(const char *map) {
    if (state != CHECKPOINTED) return ILLEGAL_STATE;
    if (strcmp(map, "-")) {
        const char *mine = strstr(map, gpu);
        while (mine && mine != map && mine[-1] != ',') mine = strstr(mine + 1, gpu);
        if (!mine) return INVALID_VALUE;
        memmove(gpu, mine + strlen(gpu) + 1, 32);
    }
    attach();
    memcpy(memory, saved, size);
    free(saved);
    state = LOCKED;
    return SUCCESS;
}

static int unlock_process(void) {
    if (state != LOCKED) return ILLEGAL_STATE;
    state = RUNNING;
    pthread_mutex_unlock(&api);
    return SUCCESS;
}

static int act(const char *call, const char *argument) {
    char which[32], what[32], number[4096];
    if (get("fault", which, what, number) && !strcmp(which, call)) {
        if (!strcmp(what, "failed")) state = FAILED;
        if (!strcmp(what, "failed") || !strcmp(what, "error")) return atoi(number);
    }
    if (!strcmp(call, "state") || !strcmp(call, "thread")) return SUCCESS;
    if (!strcmp(call, "lock")) return lock_process();
    if (!strcmp(call, "checkpoint")) return checkpoint_process();
    if (!strcmp(call, "restore")) return restore_process(argument);
    if (!strcmp(call, "unlock")) return unlock_process();
    return NOT_SUPPORTED;
}

static void *answer(void *unused) {
    (void)unused;
    char path[96], number[32], call[32], argument[4096];
    snprintf(path, sizeof path, MAILBOX "/%d.ask", getpid());
    for (;; pause_ms(1)) {
        if (!get("ask", number, call, argument)) continue;
        unlink(path);
        int result = act(call, argument);
        put("answer", "%ld %ld %ld\n", atol(number), result, state);
    }
    return NULL;
}

static void compute(void) {
    pthread_mutex_lock(&api);
    for (size_t at = 0; at < size / sizeof *memory; at++) {
        if (memory[at] != steps) {
            put("broken", "word %ld is %ld after %ld steps\n", at, memory[at], steps);
            exit(1);
        }
        memory[at]++;
    }
    steps++;
    pthread_mutex_unlock(&api);
    put("steps", "%ld\n", steps, 0, 0);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    snprintf(library, sizeof library, "%s", argv[1]);
    size = strtoul(argv[2], NULL, 10) << 20;
    snprintf(gpu, sizeof gpu, "%s", argv[3]);
    int file = open(library, O_RDONLY); /* only so that it is in /proc/PID/maps, as the real one */
    if (file < 0 || mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0) == MAP_FAILED) return 3;
    close(file);
    mkdir(MAILBOX, 0777);
    attach();
    pthread_t thread;
    pthread_create(&thread, NULL, answer, NULL);
    for (;; pause_ms(2)) compute();
}
