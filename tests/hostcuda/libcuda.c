// A CUDA driver whose devices are host memory, for tests of samrt's own logic. It computes nothing and says nothing
// about a GPU.
//
// Streams are lazy: work is put in a queue and done when somebody waits for it, the latest moment that a real GPU may
// choose, so that a missing wait shows as a wrong result. Freed memory is overwritten for the same reason.
// Copies and host functions are captured into graphs and replayed. Whatever is alive is counted.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901
};
#define DEVICES 2
#define MEMORY ((size_t)1 << 30)

typedef void (*HostFunction)(void *);
struct Event;
typedef struct Op {
    enum { COPY, CALL, RECORD, WAIT } kind;
    void *to;
    const void *from;
    size_t size;
    HostFunction function;
    void *data;
    struct Event *event;
    long ticket;
    struct Op *next;
} Op;
typedef struct Context { int device; } Context;
typedef struct Graph { Op *first; } Graph;
typedef struct Stream { Context *context; Op *first, *last; Graph *capturing; int spoilt; } Stream;
typedef struct Event { Stream *stream; long recorded, done; Context *context; } Event;
typedef struct Block { char *memory; size_t size; Context *context; int device_side; struct Block *next; } Block;

// What tests read, in the order of inside.py.
static long counts[12];
enum { DEVICE_BLOCKS, PINNED_BLOCKS, STREAMS, EVENTS, GRAPHS, EXECS, TO_DEVICE, TO_HOST, ON_DEVICE, LAUNCHES, CALLS,
    BYTES };
static long fail_captures, fail_streams, fail_waits;
static size_t memory_limit = MEMORY;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Context primary[DEVICES] = {{0}, {1}};
static Stream defaults[3];
static Block *blocks;
static long tickets;
static _Thread_local Context *stack[32] = {0};
static _Thread_local int depth = 0;

long *hostcuda_counts(void) { return counts; }
void hostcuda_fail_captures(long n) { fail_captures = n; }
void hostcuda_fail_streams(long n) { fail_streams = n; }
void hostcuda_fail_waits(long n) { fail_waits = n; }
void hostcuda_memory_limit(size_t bytes) { memory_limit = bytes; }

static Context *current(void) { return depth ? stack[depth - 1] : NULL; }
static Stream *stream_of(void *handle) { return (uintptr_t)handle <= 2 ? &defaults[(uintptr_t)handle] : handle; }
static Block *block_of(const void *ptr) {
    for (Block *b = blocks; b; b = b->next)
        if ((char *)ptr >= b->memory && (char *)ptr < b->memory + b->size) return b;
    return NULL;
}
static int on_device(const void *ptr) { Block *b = block_of(ptr); return b && b->device_side; }
static void run_until(Stream *stream, long ticket);
// Host functions run without the lock: they take Python's, which somebody who waits for ours may hold.
static void perform(Op *op) {
    if (op->kind == COPY) {
        pthread_mutex_lock(&lock);
        int to = on_device(op->to), from = on_device(op->from);
        counts[to && from ? ON_DEVICE : to ? TO_DEVICE : TO_HOST]++;
        pthread_mutex_unlock(&lock);
        memmove(op->to, op->from, op->size);
    } else if (op->kind == CALL) {
        __sync_fetch_and_add(&counts[CALLS], 1);
        op->function(op->data);
    } else if (op->kind == RECORD) {
        op->event->done = op->ticket;
    } else if (op->event->stream && op->event->done < op->ticket) {
        run_until(op->event->stream, op->ticket);
    }
}
static void run_until(Stream *stream, long ticket) {
    for (;;) {
        pthread_mutex_lock(&lock);
        Op *op = stream->first;
        if (op) {
            stream->first = op->next;
            if (!stream->first) stream->last = NULL;
        }
        pthread_mutex_unlock(&lock);
        if (!op) return;
        perform(op);
        int reached = op->kind == RECORD && op->ticket == ticket;
        free(op);
        if (reached) return;
    }
}
static void push(Stream *stream, Op op) {
    Op *copy = malloc(sizeof op);
    *copy = op;
    copy->next = NULL;
    pthread_mutex_lock(&lock);
    if (stream->capturing) {
        Op **end = &stream->capturing->first;
        while (*end) end = &(*end)->next;
        *end = copy;
    } else {
        if (stream->last) stream->last->next = copy;
        else stream->first = copy;
        stream->last = copy;
    }
    pthread_mutex_unlock(&lock);
}

// Devices
CUresult cuInit(unsigned flags) { (void)flags; return OK; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return OK; }
CUresult cuDeviceGetCount(int *n) { *n = DEVICES; return OK; }
CUresult cuDeviceGet(int *device, int n) { *device = n; return n >= 0 && n < DEVICES ? OK : INVALID_DEVICE; }
CUresult cuDeviceGetName(char *name, int size, int d) { snprintf(name, size, "Host memory %d", d); return OK; }
CUresult cuDeviceTotalMem(size_t *bytes, int d) { (void)d; *bytes = MEMORY; return OK; }
CUresult cuDeviceGetAttribute(int *value, int attribute, int d) {
    (void)d;
    // Compute capability 8.7 and unified addressing, but no memory pools, as on a Jetson.
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 41 ? 1 : 0;
    return OK;
}

// Contexts
CUresult cuDevicePrimaryCtxRetain(Context **c, int d) { *c = &primary[d]; return OK; }
CUresult cuDevicePrimaryCtxRelease(int d) { (void)d; return OK; }
CUresult cuCtxGetCurrent(Context **c) { *c = current(); return OK; }
CUresult cuCtxPushCurrent(Context *c) { stack[depth++] = c; return OK; }
CUresult cuCtxPopCurrent(Context **c) {
    if (!depth) return INVALID_CONTEXT;
    Context *top = stack[--depth];
    if (c) *c = top;
    return OK;
}
CUresult cuCtxSetCurrent(Context *c) {
    if (depth) depth--;
    if (c) stack[depth++] = c;
    return OK;
}
CUresult cuCtxGetDevice(int *d) { if (!current()) return INVALID_CONTEXT; *d = current()->device; return OK; }
CUresult cuCtxGetStreamPriorityRange(int *low, int *high) { *low = *high = 0; return OK; }
Context *hostcuda_other_context(void) { static Context other = {0}; return &other; }

// Memory
static CUresult allocate(void **ptr, size_t size, int device_side) {
    if (!current()) return INVALID_CONTEXT;
    if (!size) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    int fits = !device_side || counts[BYTES] + size <= memory_limit;
    if (fits) {
        Block *b = malloc(sizeof *b);
        *b = (Block){aligned_alloc(256, (size + 255) & ~(size_t)255), size, current(), device_side, blocks};
        memset(b->memory, 0xff, size);
        blocks = b;
        *ptr = b->memory;
        counts[device_side ? DEVICE_BLOCKS : PINNED_BLOCKS]++;
        if (device_side) counts[BYTES] += size;
    }
    pthread_mutex_unlock(&lock);
    return fits ? OK : OUT_OF_MEMORY;
}
static CUresult release(void *ptr, int device_side) {
    if (!current()) return INVALID_CONTEXT;
    CUresult result = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (Block **b = &blocks; *b; b = &(*b)->next) {
        if ((*b)->memory != ptr || (*b)->device_side != device_side) continue;
        Block *gone = *b;
        *b = gone->next;
        counts[device_side ? DEVICE_BLOCKS : PINNED_BLOCKS]--;
        if (device_side) counts[BYTES] -= gone->size;
        memset(gone->memory, 0xff, gone->size);
        free(gone->memory);
        free(gone);
        result = OK;
        break;
    }
    pthread_mutex_unlock(&lock);
    return result;
}
CUresult cuMemAlloc(void **ptr, size_t size) { return allocate(ptr, size, 1); }
CUresult cuMemFree(void *ptr) { return release(ptr, 1); }
CUresult cuMemAllocHost(void **ptr, size_t size) { return allocate(ptr, size, 0); }
CUresult cuMemFreeHost(void *ptr) { return release(ptr, 0); }
CUresult cuMemcpyAsync(void *to, const void *from, size_t size, void *stream) {
    if (!current()) return INVALID_CONTEXT;
    push(stream_of(stream), (Op){.kind = COPY, .to = to, .from = from, .size = size});
    return OK;
}
CUresult cuMemcpyDtoH(void *to, const void *from, size_t size) {
    if (!current()) return INVALID_CONTEXT;
    perform(&(Op){.kind = COPY, .to = to, .from = from, .size = size});
    return OK;
}
CUresult cuMemcpyHtoD(void *to, const void *from, size_t size) { return cuMemcpyDtoH(to, from, size); }
CUresult cuPointerGetAttribute(void *data, int attribute, void *ptr) {
    Block *b = block_of(ptr);
    if (!b) return INVALID_VALUE;
    if (attribute == 1) *(Context **)data = b->context;
    else if (attribute == 2) *(unsigned *)data = b->device_side ? 2 : 1;
    else if (attribute == 3) *(void **)data = ptr;
    else if (attribute == 8) *(unsigned *)data = 0;
    else if (attribute == 9) *(int *)data = b->context->device;
    else return INVALID_VALUE;
    return OK;
}
CUresult cuPointerGetAttributes(unsigned n, int *attributes, void **data, void *ptr) {
    for (unsigned i = 0; i < n; i++)
        if (cuPointerGetAttribute(data[i], attributes[i], ptr)) *(uint64_t *)data[i] = 0;
    return OK;
}

// Streams and events
CUresult cuStreamCreateWithPriority(Stream **s, unsigned flags, int priority) {
    (void)flags, (void)priority;
    if (!current()) return INVALID_CONTEXT;
    if (fail_streams > 0) { fail_streams--; return OUT_OF_MEMORY; }
    *s = calloc(1, sizeof **s);
    (*s)->context = current();
    __sync_fetch_and_add(&counts[STREAMS], 1);
    return OK;
}
CUresult cuStreamCreate(Stream **s, unsigned flags) { return cuStreamCreateWithPriority(s, flags, 0); }
CUresult cuStreamSynchronize(void *handle) {
    Stream *s = stream_of(handle);
    if (s->capturing) { s->spoilt = 1; return CAPTURE_UNSUPPORTED; }
    if (fail_waits > 0) { fail_waits--; return LAUNCH_FAILED; }
    run_until(s, -1);
    return OK;
}
CUresult cuStreamDestroy(Stream *s) {
    run_until(s, -1);
    __sync_fetch_and_sub(&counts[STREAMS], 1);
    free(s);
    return OK;
}
CUresult cuStreamGetCtx(void *handle, Context **c) {
    Stream *s = stream_of(handle);
    *c = s->context ? s->context : current();
    return OK;
}
CUresult cuStreamIsCapturing(void *handle, int *status) {
    Stream *s = stream_of(handle);
    *status = s->capturing ? 1 + s->spoilt : 0;
    return OK;
}
CUresult cuEventCreate(Event **e, unsigned flags) {
    (void)flags;
    if (!current()) return INVALID_CONTEXT;
    *e = calloc(1, sizeof **e);
    (*e)->context = current();
    __sync_fetch_and_add(&counts[EVENTS], 1);
    return OK;
}
// Never freed: work that waits may still be queued.
CUresult cuEventDestroy(Event *e) { (void)e; __sync_fetch_and_sub(&counts[EVENTS], 1); return OK; }
CUresult cuEventRecord(Event *e, void *handle) {
    e->stream = stream_of(handle);
    e->recorded = __sync_add_and_fetch(&tickets, 1);
    push(e->stream, (Op){.kind = RECORD, .event = e, .ticket = e->recorded});
    return OK;
}
CUresult cuStreamWaitEvent(void *handle, Event *e, unsigned flags) {
    (void)flags;
    push(stream_of(handle), (Op){.kind = WAIT, .event = e, .ticket = e->recorded});
    return OK;
}
CUresult cuLaunchHostFunc(void *handle, HostFunction function, void *data) {
    if (!current()) return INVALID_CONTEXT;
    push(stream_of(handle), (Op){.kind = CALL, .function = function, .data = data});
    return OK;
}

// Graphs
CUresult cuStreamBeginCapture(void *handle, int mode) {
    (void)mode;
    if ((uintptr_t)handle <= 2) return CAPTURE_UNSUPPORTED;
    Stream *s = handle;
    if (s->capturing) return CAPTURE_UNSUPPORTED;
    s->capturing = calloc(1, sizeof(Graph));
    s->spoilt = 0;
    __sync_fetch_and_add(&counts[GRAPHS], 1);
    return OK;
}
static void destroy(Graph *g, int kind) {
    for (Op *op = g->first, *next; op; op = next) { next = op->next; free(op); }
    free(g);
    __sync_fetch_and_sub(&counts[kind], 1);
}
CUresult cuStreamEndCapture(void *handle, Graph **g) {
    Stream *s = stream_of(handle);
    *g = s->capturing;
    s->capturing = NULL;
    if (!*g) return INVALID_VALUE;
    if (!s->spoilt && fail_captures-- <= 0) { fail_captures = 0; return OK; }
    destroy(*g, GRAPHS);
    *g = NULL;
    return CAPTURE_INVALIDATED;
}
CUresult cuGraphDestroy(Graph *g) {
    if (!g) return INVALID_VALUE;
    destroy(g, GRAPHS);
    return OK;
}
CUresult cuGraphInstantiateWithFlags(Graph **exec, Graph *g, uint64_t flags) {
    (void)flags;
    Op **end = &(*exec = calloc(1, sizeof **exec))->first;
    for (Op *op = g->first; op; op = op->next, end = &(*end)->next) {
        *end = malloc(sizeof *op);
        **end = *op;
        (*end)->next = NULL;
    }
    __sync_fetch_and_add(&counts[EXECS], 1);
    return OK;
}
CUresult cuGraphExecDestroy(Graph *exec) { destroy(exec, EXECS); return OK; }
CUresult cuGraphLaunch(Graph *exec, void *handle) {
    if (!current()) return INVALID_CONTEXT;
    __sync_fetch_and_add(&counts[LAUNCHES], 1);
    for (Op *op = exec->first; op; op = op->next) push(stream_of(handle), *op);
    return OK;
}

// Errors
CUresult cuGetErrorName(CUresult e, const char **text) { (void)e; *text = "HOSTCUDA_ERROR"; return OK; }

#include "symbols.h"
