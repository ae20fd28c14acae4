/* A stand-in for libnvidia-ml.so.1: what the agent asks of the GPUs of a machine. They are in the file
 * `gpus` beside this library, one per line: UUID (32 hex digits) MEMORY_MIB MIG(0|1) NAME; the driver's
 * version is in `driver`, with a file `mps` all processes go through MPS, and with a file `blind` it does
 * not tell of any. Processes are looked for in /proc: those of program.c. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>

#define FOR_DRIVERS
#include "mailbox.h"

enum { UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };

typedef struct { char uuid[33]; unsigned long long memory; int mig; char name[64]; } Gpu;
typedef struct { unsigned pid; unsigned long long memory; unsigned instance, compute; } Process;
typedef struct { unsigned long long total, free, used; } Memory;

static Gpu gpus[16];
static unsigned count;

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    FILE *file = beside("gpus");
    if (!file) return 9; /* DRIVER_NOT_LOADED */
    for (count = 0; count < 16; count++) {
        Gpu *gpu = &gpus[count];
        if (fscanf(file, "%32s %llu %d %63[^\n]", gpu->uuid, &gpu->memory, &gpu->mig, gpu->name) != 4)
            break;
        gpu->memory <<= 20;
    }
    fclose(file);
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code ? "stand-in" : "Success"; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    FILE *file = beside("driver");
    if (!file || !fgets(version, length, file)) snprintf(version, length, "580.65.06");
    if (file) fclose(file);
    return SUCCESS;
}
int nvmlDeviceGetCount_v2(unsigned *found) {
    *found = count;
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
    if (index >= count) return INVALID_ARGUMENT;
    *gpu = &gpus[index];
    return SUCCESS;
}
int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned length) {
    const char *u = gpu->uuid;
    snprintf(uuid, length, "GPU-%.8s-%.4s-%.4s-%.4s-%.12s", u, u + 8, u + 12, u + 16, u + 20);
    return SUCCESS;
}
int nvmlDeviceGetName(Gpu *gpu, char *name, unsigned length) {
    snprintf(name, length, "%s", gpu->name);
    return SUCCESS;
}
int nvmlDeviceGetMinorNumber(Gpu *gpu, unsigned *minor) {
    *minor = gpu - gpus;
    return SUCCESS;
}
int nvmlDeviceGetMigMode(Gpu *gpu, unsigned *now, unsigned *later) {
    if (gpu->mig < 0) return 3; /* NOT_SUPPORTED */
    *now = *later = gpu->mig;
    return SUCCESS;
}

static int processes(Gpu *gpu, unsigned *room, Process *found) {
    char path[128], uuid[40];
    unsigned long long bytes;
    unsigned number = 0;
    DIR *directory = opendir("/proc");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        int pid = atoi(entry->d_name), inner = isdigit(entry->d_name[0]) ? inner_pid(pid) : 0;
        if (!inner) continue;
        box(path, pid, inner, "device");
        FILE *file = fopen(path, "r");
        if (!file) continue;
        if (fscanf(file, "%39s %llu", uuid, &bytes) == 2 && !strcmp(uuid, gpu->uuid)) {
            if (number < *room) found[number] = (Process){pid, bytes, ~0u, ~0u};
            number++;
        }
        fclose(file);
    }
    if (directory) closedir(directory);
    int fits = number <= *room;
    *room = number;
    return fits ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlDeviceGetMemoryInfo(Gpu *gpu, Memory *memory) {
    Process found[64];
    unsigned number = 64;
    processes(gpu, &number, found);
    memory->total = gpu->memory, memory->used = 0;
    for (unsigned at = 0; at < number && at < 64; at++) memory->used += found[at].memory;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, unsigned *room, Process *found) {
    FILE *blind = beside("blind");
    if (blind) return fclose(blind), 3; /* NOT_SUPPORTED */
    return processes(gpu, room, found);
}
int nvmlDeviceGetMPSComputeRunningProcesses_v3(Gpu *gpu, unsigned *room, Process *found) {
    FILE *mps = beside("mps");
    if (!mps) return *room = 0, SUCCESS;
    fclose(mps);
    return processes(gpu, room, found);
}
