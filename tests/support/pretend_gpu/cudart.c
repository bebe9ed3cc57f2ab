/* The calls of the CUDA runtime that cascadebert_engine.cuda makes, in host memory.

   While a stream is captured nothing runs: the stand-in for TensorRT hands over what it would have
   run, and launching the graph runs that. Memory beyond PRETEND_MIB is refused, as a GPU would. */
#include <stdlib.h>
#include <string.h>

typedef void (*work_t)(int);

static int capturing = 0;
static int recorded = 0;
static int recorded_before = 0;
static struct { work_t work; int id; } graphs[4096];
static size_t used = 0;

static size_t limit(void) {
    const char *mib = getenv("PRETEND_MIB");
    return (size_t)(mib ? atoi(mib) : 4096) << 20;
}

int cudaRuntimeGetVersion(int *version) { *version = 12090; return 0; }
int cudaSetDevice(int device) { return device == 0 ? 0 : 101; }
int cudaStreamCreate(void **stream) { *stream = malloc(1); return 0; }
int cudaStreamDestroy(void *stream) { free(stream); return 0; }
int cudaStreamSynchronize(void *stream) { (void)stream; return capturing ? 900 : 0; }

int cudaMalloc(void **pointer, size_t size) {
    if (used + size > limit()) return 2;
    size_t *block = malloc(size + sizeof(size_t));
    *block = size;
    used += size;
    *pointer = block + 1;
    return 0;
}
int cudaFree(void *pointer) {
    size_t *block = (size_t *)pointer - 1;
    used -= *block;
    free(block);
    return 0;
}
int cudaMemGetInfo(size_t *available, size_t *total) {
    *total = limit();
    *available = *total - used;
    return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    (void)kind; (void)stream;
    if (capturing) return 900;
    memcpy(to, from, size);
    return 0;
}

int cudaStreamBeginCapture(void *stream, int mode) {
    (void)stream; (void)mode;
    capturing = 1;
    recorded_before = recorded;
    return 0;
}
int pretend_is_capturing(void) { return capturing; }
void pretend_record(work_t work, int id) {
    graphs[recorded].work = work;
    graphs[recorded].id = id;
    recorded++;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    (void)stream;
    capturing = 0;
    /* 1-based: a capture that recorded nothing gives no graph */
    *graph = (void *)(size_t)(recorded > recorded_before ? recorded : 0);
    return 0;
}
int cudaGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    (void)flags;
    *executable = graph;
    return 0;
}
int cudaGraphDestroy(void *graph) { (void)graph; return 0; }
int cudaGraphExecDestroy(void *executable) { (void)executable; return 0; }
int cudaGraphLaunch(void *executable, void *stream) {
    (void)stream;
    size_t index = (size_t)executable - 1;
    graphs[index].work(graphs[index].id);
    return 0;
}
