/* NVIDIA's management library as far as stoker asks it, over a table instead of a driver: what is read through it must come
 * out as it went in. The table (TOPOLOGY) is written by tests/it/devices.rs. Signatures and layouts: NVML API Reference Guide.
 * What happens later stands in the file that FAKE_NVML_EVENTS names, a line each, which may grow:
 *   xid UUID GPU_INSTANCE COMPUTE_INSTANCE NUMBER    of a GPU, by its UUID; -1 where the driver does not tell which MIG device
 *   lost UUID                                        a GPU
 *   gone UUID                                        a MIG device
 *   errors UUID COUNT                                uncorrected ones, of a GPU
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned int uint;
typedef unsigned long long u64;
enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10, GPU_IS_LOST = 15 };

struct process { uint pid; u64 bytes; uint gpu_instance, compute_instance; };
struct device {
    int parent;         /* of a MIG device its GPU's place in the table; -1 for a GPU */
    int lost;
    int gone;
    int registered;     /* for events */
    const char *uuid, *name, *bus_id;
    int numa_node;      /* -1: not told */
    int major, minor;
    uint cores, multiprocessors;
    u64 total, used;
    int mig;            /* whether it is cut into MIG devices */
    uint gpu_instance, compute_instance;
    int ecc;            /* whether it tells of errors */
    u64 errors;
    uint rows, pending, failed;
    uint process_count;
    struct process processes[4];
};
typedef struct device *Device;

#include TOPOLOGY /* driver_version, cuda_version, devices, device_count */

static int text(char *to, uint size, const char *from) { snprintf(to, size, "%s", from); return SUCCESS; }

int nvmlInit_v2(void) { const char *code = getenv("FAKE_NVML_INIT"); return code ? atoi(code) : SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlSystemGetDriverVersion(char *to, uint size) { return text(to, size, driver_version); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = cuda_version; return SUCCESS; }

int nvmlDeviceGetCount_v2(uint *count) {
    *count = 0;
    for (uint i = 0; i < device_count; i++) *count += devices[i].parent < 0;
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(uint index, Device *device) {
    for (uint i = 0; i < device_count; i++)
        if (devices[i].parent < 0 && index-- == 0) { *device = &devices[i]; return devices[i].lost ? GPU_IS_LOST : SUCCESS; }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(Device d, char *to, uint size) { return text(to, size, d->uuid); }
int nvmlDeviceGetName(Device d, char *to, uint size) { return text(to, size, d->name); }
struct pci { char legacy[16]; uint domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(Device d, struct pci *pci) { memset(pci, 0, sizeof *pci); return text(pci->bus_id, 32, d->bus_id); }
int nvmlDeviceGetCudaComputeCapability(Device d, int *major, int *minor) { *major = d->major; *minor = d->minor; return SUCCESS; }
int nvmlDeviceGetNumGpuCores(Device d, uint *cores) { *cores = d->cores; return SUCCESS; }
int nvmlDeviceGetMemoryAffinity(Device d, uint words, unsigned long *set, uint scope) {
    (void)scope;
    if (d->numa_node < 0) return NOT_SUPPORTED;
    memset(set, 0, words * sizeof *set);
    set[d->numa_node / 64] = 1ul << (d->numa_node % 64);
    return SUCCESS;
}
struct memory { uint version; u64 total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(Device d, struct memory *memory) {
    u64 reserved = d->used / 2;
    memory->total = d->total; memory->reserved = reserved; memory->used = d->used - reserved; memory->free = d->total - d->used;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Device d, uint *current, uint *pending) {
    if (d->major < 8) return NOT_SUPPORTED;
    *current = *pending = d->mig;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(Device d, uint *count) { (void)d; *count = 7; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device d, uint index, Device *device) {
    for (uint i = 0; i < device_count; i++)
        if (devices[i].parent == d - devices && !devices[i].gone && index-- == 0) { *device = &devices[i]; return SUCCESS; }
    return NOT_FOUND;
}
int nvmlDeviceGetGpuInstanceId(Device d, uint *id) { *id = d->gpu_instance; return SUCCESS; }
int nvmlDeviceGetComputeInstanceId(Device d, uint *id) { *id = d->compute_instance; return SUCCESS; }
struct attributes { uint multiprocessors, copy, decoder, encoder, jpeg, ofa, gpu_slices, compute_slices; u64 memory_mb; };
int nvmlDeviceGetAttributes_v2(Device d, struct attributes *attributes) {
    memset(attributes, 0, sizeof *attributes);
    attributes->multiprocessors = d->multiprocessors;
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(Device d, uint type, uint counter, u64 *count) {
    if (!d->ecc) return NOT_SUPPORTED;
    *count = type == 1 && counter == 0 ? d->errors : 77; /* uncorrected, volatile: no other is to be asked for */
    return SUCCESS;
}
int nvmlDeviceGetRemappedRows(Device d, uint *correctable, uint *uncorrectable, uint *pending, uint *failed) {
    if (!d->ecc) return NOT_SUPPORTED;
    *correctable = 55; *uncorrectable = d->rows; *pending = d->pending; *failed = d->failed;
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device d, uint *count, struct process *processes) {
    if (*count < d->process_count) { *count = d->process_count; return 7; /* insufficient size */ }
    *count = d->process_count;
    memcpy(processes, d->processes, d->process_count * sizeof *processes);
    return SUCCESS;
}

typedef void *Set;
int nvmlEventSetCreate(Set *set) { *set = devices; return SUCCESS; }
int nvmlEventSetFree(Set set) { (void)set; return SUCCESS; }
int nvmlDeviceRegisterEvents(Device d, u64 types, Set set) {
    (void)set;
    if (types != 8 /* critical XIDs: no other is to be asked for */ || d->parent >= 0) return NOT_SUPPORTED;
    d->registered = 1;
    return SUCCESS;
}

/* Lines of the file that have happened. */
static int happened;

static Device by_uuid(const char *uuid) {
    for (uint i = 0; i < device_count; i++) if (!strcmp(devices[i].uuid, uuid)) return &devices[i];
    fprintf(stderr, "FAKE_NVML_EVENTS: no %s\n", uuid);
    exit(99);
}
struct event { Device device; u64 type, data; uint gpu_instance, compute_instance; };
/* Whether the next line is there, and what it is to whoever waits. */
static int next_event(struct event *event) {
    const char *path = getenv("FAKE_NVML_EVENTS");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[200], uuid[100];
    int code = TIMEOUT, count = 0, gpu, compute, number;
    if (!file) return TIMEOUT;
    while (fgets(line, sizeof line, file) && strchr(line, '\n')) {
        if (count++ < happened) continue;
        happened++;
        if (sscanf(line, "xid %99s %d %d %d", uuid, &gpu, &compute, &number) == 4) {
            *event = (struct event){by_uuid(uuid), 8, (u64)number, (uint)gpu, (uint)compute};
            code = event->device->registered ? SUCCESS : TIMEOUT;
        } else if (sscanf(line, "lost %99s", uuid) == 1) {
            by_uuid(uuid)->lost = 1;
            code = GPU_IS_LOST;
        } else if (sscanf(line, "gone %99s", uuid) == 1) {
            by_uuid(uuid)->gone = 1;
        } else if (sscanf(line, "errors %99s %d", uuid, &number) == 2) {
            by_uuid(uuid)->errors = (u64)number;
        }
        if (code != TIMEOUT) break;
    }
    fclose(file);
    return code;
}
int nvmlEventSetWait_v2(Set set, struct event *event, uint milliseconds) {
    (void)set;
    for (uint waited = 0; waited < milliseconds; waited += 10) {
        int code = next_event(event);
        if (code != TIMEOUT) return code;
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    return TIMEOUT;
}
