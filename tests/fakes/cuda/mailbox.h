/* How the stand-in for NVIDIA's driver and the processes that use it talk: in files of the process's
 * own root filesystem, as it may be in a container. /tmp/cuda/PID.* (PID as the process sees it):
 *
 *   PID.ask      what the driver wants: "NUMBER CALL ARGUMENT"; taken away by the process
 *   PID.answer   "NUMBER RESULT STATE"; a CUresult and a CUprocessState
 *   PID.fault    "CALL WHAT NUMBER": what a test wants to go wrong, until it removes the file:
 *                  error CODE     the call returns it, and nothing happens
 *                  failed CODE    the call returns it, and the process is in the state FAILED
 *                  slow MS        the call takes so long
 *                  held 0         the call takes until the test has removed the file
 *                  hang 0         the call never returns
 *                  late MS        the same, and it is done nevertheless, so long after
 *                  crash 0        the process that made the call dies of it
 *   PID.device   "UUID BYTES" while it has memory on a GPU
 *   PID.steps    how many steps the process has computed on its GPU
 *   PID.broken   what it found wrong with its GPU's memory
 */
#define MAILBOX "/tmp/cuda"

enum { RUNNING, LOCKED, CHECKPOINTED, FAILED };
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    ILLEGAL_STATE = 401,
    NOT_READY = 600,
    NOT_SUPPORTED = 801
};

#ifdef FOR_DRIVERS
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The process's pid in its own namespace; 0 when it has none of our library in its memory. */
static int inner_pid(int pid) {
    char path[64], line[512];
    int inner = 0, loaded = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, "NSpid:", 6)) inner = atoi(strrchr(line, '\t') + 1);
    fclose(file);
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    if (!(file = fopen(path, "r"))) return 0;
    while (fgets(line, sizeof line, file)) loaded |= strstr(line, "libcuda.so") != NULL;
    fclose(file);
    return loaded ? inner : 0;
}

/* A file in the directory of this library, if it is there. */
static FILE *beside(const char *name) {
    char path[4096];
    Dl_info info;
    if (!dladdr((void *)beside, &info)) return NULL;
    snprintf(path, sizeof path, "%.*s%s", (int)(strrchr(info.dli_fname, '/') + 1 - info.dli_fname),
             info.dli_fname, name);
    return fopen(path, "r");
}

static void box(char *path, int pid, int inner, const char *name) {
    snprintf(path, 128, "/proc/%d/root" MAILBOX "/%d.%s", pid, inner, name);
}
#endif
