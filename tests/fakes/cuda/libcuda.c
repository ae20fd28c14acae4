/* A stand-in for libcuda.so.1: the six calls for checkpoints of other processes, with the states
 * that NVIDIA documents, for processes of program.c. The driver's version stands in the file
 * `version` beside this library (13000: 13.0). What bindings ask for beyond that is not there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define FOR_DRIVERS
#include "mailbox.h"

typedef struct { unsigned char bytes[16]; } Uuid;
typedef struct { Uuid old, new; } Pair;
typedef struct { unsigned timeout_ms; char rest[60]; } LockArgs;
typedef struct { Pair *pairs; unsigned count; char rest[52]; } RestoreArgs;

static void pause_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static int is_late; /* of a process that is left from one that has been given up */

static void suffer(int pid, int inner, const char *call) {
    char path[128], which[32], what[32];
    int number;
    box(path, pid, inner, "fault");
    FILE *file = fopen(path, "r");
    if (!file) return;
    if (fscanf(file, "%31s %31s %d", which, what, &number) == 3 && !strcmp(which, call)) {
        if (!strcmp(what, "crash")) abort();
        if (!strcmp(what, "late")) {
            if (fork()) strcpy(what, "hang");
            else is_late = setsid() > 0, pause_ms(number);
        }
        while (!strcmp(what, "held") && !access(path, F_OK)) pause_ms(1);
        while (!strcmp(what, "hang")) pause_ms(1000); /* until the helper is ended */
        if (!strcmp(what, "slow")) pause_ms(number);
    }
    fclose(file);
}

static int initialised;

/* Whoever holds it is the only one to ask that process. */
static int turn(int pid, int inner) {
    char path[128];
    box(path, pid, inner, "turn");
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file >= 0) flock(file, LOCK_EX);
    return file;
}

static int exchange(int pid, int inner, const char *call, const char *argument, int *state) {
    static int counter;
    char path[128], fresh[160];
    int number = getpid() * 1000 + __sync_add_and_fetch(&counter, 1), got = 0, result, now;
    box(path, pid, inner, "ask");
    snprintf(fresh, sizeof fresh, "%s.%d", path, number);
    FILE *file = fopen(fresh, "w");
    if (!file) return NOT_INITIALIZED;
    fprintf(file, "%d %s %s\n", number, call, argument);
    fclose(file);
    rename(fresh, path);
    box(path, pid, inner, "answer");
    while (got != number) {
        pause_ms(1);
        if (!inner_pid(pid)) return NOT_INITIALIZED;
        if (!(file = fopen(path, "r"))) continue;
        if (fscanf(file, "%d %d %d", &got, &result, &now) != 3) got = 0;
        fclose(file);
    }
    if (state) *state = now;
    return result;
}

static int ask(int pid, const char *call, const char *argument, int *state) {
    int inner = inner_pid(pid);
    if (!inner || !initialised) return NOT_INITIALIZED;
    suffer(pid, inner, call);
    int file = turn(pid, inner), result = exchange(pid, inner, call, argument, state);
    if (is_late) _exit(0);
    close(file);
    return result;
}

int cuCheckpointProcessGetState(int pid, int *state) { return ask(pid, "state", "-", state); }
int cuCheckpointProcessGetRestoreThreadId(int pid, int *thread) {
    *thread = pid;
    return ask(pid, "thread", "-", NULL);
}
int cuCheckpointProcessLock(int pid, LockArgs *args) {
    char argument[32];
    snprintf(argument, sizeof argument, "%u", args ? args->timeout_ms : 0);
    return ask(pid, "lock", argument, NULL);
}
int cuCheckpointProcessCheckpoint(int pid, void *args) {
    (void)args;
    return ask(pid, "checkpoint", "-", NULL);
}
static void append(char *text, const Uuid *uuid) {
    for (int at = 0; at < 16; at++) sprintf(text + strlen(text), "%02x", uuid->bytes[at]);
}
int cuCheckpointProcessRestore(int pid, RestoreArgs *args) {
    char argument[4096] = "-";
    for (unsigned at = 0; args && at < args->count && at < 32; at++) {
        if (!at) argument[0] = 0;
        append(argument, &args->pairs[at].old);
        strcat(argument, "=");
        append(argument, &args->pairs[at].new);
        strcat(argument, ",");
    }
    return ask(pid, "restore", argument, NULL);
}
int cuCheckpointProcessUnlock(int pid, void *args) {
    (void)args;
    return ask(pid, "unlock", "-", NULL);
}

int cuInit(unsigned flags) {
    (void)flags;
    static int failed; /* once it has, it always does */
    FILE *gpus = failed ? NULL : beside("gpus");
    failed = !gpus;
    if (!gpus) return 100; /* NO_DEVICE */
    fclose(gpus);
    initialised = 1;
    return SUCCESS;
}
int cuDriverGetVersion(int *version) {
    FILE *file = beside("version");
    if (!file || fscanf(file, "%d", version) != 1) *version = 13000;
    if (file) fclose(file);
    return SUCCESS;
}

static const struct { const char *name; void *call; int since; } calls[] = {
    {"cuInit", cuInit, 0},
    {"cuDriverGetVersion", cuDriverGetVersion, 0},
    {"cuCheckpointProcessGetState", cuCheckpointProcessGetState, 12080},
    {"cuCheckpointProcessGetRestoreThreadId", cuCheckpointProcessGetRestoreThreadId, 12080},
    {"cuCheckpointProcessLock", cuCheckpointProcessLock, 12080},
    {"cuCheckpointProcessCheckpoint", cuCheckpointProcessCheckpoint, 12080},
    {"cuCheckpointProcessRestore", cuCheckpointProcessRestore, 12080},
    {"cuCheckpointProcessUnlock", cuCheckpointProcessUnlock, 12080},
};

/* How bindings find everything else. */
int cuGetProcAddress_v2(const char *name, void **call, int version, unsigned long flags, int *found) {
    (void)version, (void)flags;
    int driver;
    cuDriverGetVersion(&driver);
    *call = NULL;
    for (unsigned at = 0; at < sizeof calls / sizeof *calls; at++)
        if (!strcmp(calls[at].name, name) && calls[at].since <= driver) *call = calls[at].call;
    if (found) *found = *call ? 0 : 1;
    return *call ? SUCCESS : 500; /* NOT_FOUND */
}
