/* A stand-in for the NVIDIA driver's library, for tests on machines without a GPU: device memory is malloc.
   It answers the calls of rbcedge/engines/cuda.py, and counts what is held, so that tests see what was not given back.
   FAKE_CUDA_INIT: what cuInit returns. FAKE_CUDA_NAME, _SMS, _VERSION: the GPU. FAKE_CUDA_ROOM: bytes to be had. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long held, contexts, depth, streams;
static size_t bytes, sizes[4096];
static void *blocks[4096];

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}
long fake_held(void) { return held; }
long fake_contexts(void) { return contexts; }
long fake_depth(void) { return depth; }
long fake_streams(void) { return streams; }

int cuInit(unsigned flags) { (void)flags; return (int)number("FAKE_CUDA_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = (int)number("FAKE_CUDA_VERSION", 12060); return 0; }
int cuDeviceGetCount(int *count) { *count = (int)number("FAKE_CUDA_COUNT", 1); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal ? 101 : 0; }
int cuDeviceGetName(char *name, int length, int device) {
    const char *text = getenv("FAKE_CUDA_NAME");
    snprintf(name, (size_t)length, "%s", text ? text : "Fake Orin");
    return device == 7 ? 0 : 101;
}
int cuDeviceTotalMem_v2(size_t *total, int device) { *total = (size_t)1 << 33; return device == 7 ? 0 : 101; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 16 ? (int)number("FAKE_CUDA_SMS", 8) : which == 75 ? 8 : which == 76 ? 7 : -1;
    return device == 7 ? 0 : 101;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &contexts; contexts++; return device == 7 ? 0 : 101; }
int cuDevicePrimaryCtxRelease_v2(int device) { contexts--; return device == 7 ? 0 : 101; }
int cuCtxPushCurrent_v2(void *context) { depth++; return context == &contexts ? 0 : 201; }
int cuCtxPopCurrent_v2(void **context) { *context = &contexts; depth--; return 0; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = &streams; streams++; return flags == 1 && depth > 0 ? 0 : 1; }
int cuStreamDestroy_v2(void *stream) { streams--; return stream == &streams ? 0 : 400; }
int cuStreamSynchronize(void *stream) { return stream == &streams && depth > 0 ? 0 : 400; }
int cuMemAlloc_v2(unsigned long long *address, size_t size) {
    if (depth <= 0) return 201;
    if (bytes + size > (size_t)number("FAKE_CUDA_ROOM", 1L << 33)) return 2;
    for (int i = 0; i < 4096; i++)
        if (!blocks[i]) {
            blocks[i] = malloc(size);
            *address = (unsigned long long)(size_t)blocks[i];
            sizes[i] = size;
            bytes += size;
            held++;
            return 0;
        }
    return 2;
}
static int block(unsigned long long address) {
    for (int i = 0; i < 4096; i++)
        if (blocks[i] && (size_t)blocks[i] == (size_t)address) return i;
    return -1;
}
int cuMemFree_v2(unsigned long long address) {
    int i = block(address);
    if (i < 0 || depth <= 0) return 1;
    free(blocks[i]);
    blocks[i] = NULL;
    bytes -= sizes[i];
    held--;
    return 0;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t size, void *stream) {
    int i = block(to);
    if (i < 0 || size > sizes[i] || stream != &streams || depth <= 0) return 1;
    memcpy(blocks[i], from, size);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t size, void *stream) {
    int i = block(from);
    if (i < 0 || size > sizes[i] || stream != &streams || depth <= 0) return 1;
    memcpy(to, blocks[i], size);
    return 0;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == 35 ? "CUDA driver version is insufficient for CUDA runtime version" : code == 999 ? "unknown error" : "some error";
    return 0;
}
