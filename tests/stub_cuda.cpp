// A stand-in for the NVIDIA driver (libcuda.so.1) that runs kernels on the CPU, so that the real bindings can be tried
// without a GPU. "Machine code" is the path of a library built by rbcedge.pipeline.gpu.cpu. Only what this project calls.
// It says how often it was called wrongly: a launch during a capture must not run, memory must be given back.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <string>
#include <vector>

typedef void (*Launcher)(unsigned, unsigned, unsigned, int, void **);
struct Function {
    Launcher run;
    int parameters;
};
struct Call {
    Function *function;
    unsigned blocks, size;
    std::vector<uint64_t> values;
};
typedef std::vector<Call> Graph;

static const std::map<std::string, int> PARAMETERS = {PARAMETER_COUNTS};
static int pushed = 0, retained = 0, streams = 0, graphs = 0, replays = 0;
static long held = 0;
static size_t room = (size_t)1 << 40;
static std::map<void *, size_t> blocks_held;
static bool capturing = false;
static Graph captured;

static int allocate(void **at, size_t n) {
    if (!pushed) return 201; // CUDA_ERROR_INVALID_CONTEXT
    if (n > room) return 2;  // CUDA_ERROR_OUT_OF_MEMORY
    *at = aligned_alloc(256, (n + 255) / 256 * 256);
    memset(*at, 0xa5, n); // device memory is not zero
    blocks_held[*at] = n;
    held += (long)n;
    return 0;
}
static int release(void *at) {
    if (!blocks_held.count(at)) return 1;
    held -= (long)blocks_held[at];
    blocks_held.erase(at);
    free(at);
    return 0;
}

extern "C" {
// What the test asks the stub.
int stub_pushed() { return pushed; }
int stub_retained() { return retained; }
int stub_streams() { return streams; }
int stub_graphs() { return graphs; }
int stub_replays() { return replays; }
long stub_held() { return held; }
void stub_limit(size_t n) { room = n; }

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int *v) { return *v = 13000, 0; }
int cuDeviceGetCount(int *n) { return *n = 1, 0; }
int cuDeviceGet(int *d, int i) { return *d = i, 0; }
int cuDeviceGetName(char *name, int n, int) { return strncpy(name, "Stub", n), 0; }
int cuDeviceGetAttribute(int *v, int which, int) { return *v = which == 75 ? 8 : which == 76 ? 7 : 0, 0; }
int cuDevicePrimaryCtxRetain(void **c, int) { return *c = (void *)16, ++retained, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return --retained, 0; }
int cuCtxPushCurrent_v2(void *) { return ++pushed, 0; }
int cuCtxPopCurrent_v2(void **c) { return *c = (void *)16, --pushed < 0 ? 201 : 0; }
int cuMemAlloc_v2(uint64_t *at, size_t n) { return allocate((void **)at, n); }
int cuMemFree_v2(uint64_t at) { return release((void *)at); }
int cuMemHostAlloc(void **at, size_t n, unsigned flags) { return flags == 2 ? allocate(at, n) : 1; }
int cuMemHostGetDevicePointer_v2(uint64_t *at, void *host, unsigned) { return *at = (uint64_t)host, 0; }
int cuMemFreeHost(void *at) { return release(at); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *) { return memcpy((void *)to, from, n), 0; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *) { return memcpy(to, (void *)from, n), 0; }
int cuStreamCreate(void **s, unsigned) { return *s = (void *)32, ++streams, 0; }
int cuStreamDestroy_v2(void *) { return --streams, 0; }
int cuStreamSynchronize(void *) { return capturing ? 900 : 0; } // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
int cuStreamBeginCapture_v2(void *, int) { return capturing = true, captured.clear(), 0; }
int cuStreamEndCapture(void *, void **g) { return capturing = false, *g = new Graph(captured), ++graphs, 0; }
int cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long) { return *e = new Graph(*(Graph *)g), ++graphs, 0; }
int cuGraphDestroy(void *g) { return delete (Graph *)g, --graphs, 0; }
int cuGraphExecDestroy(void *g) { return delete (Graph *)g, --graphs, 0; }
int cuModuleLoadData(void **m, const void *image) { return (*m = dlopen((const char *)image, RTLD_NOW)) ? 0 : 200; }
int cuModuleUnload(void *) { return 0; }
int cuModuleGetFunction(void **f, void *m, const char *name) {
    void *run = dlsym(m, (std::string("launch_") + name).c_str());
    auto known = PARAMETERS.find(name);
    if (!run || known == PARAMETERS.end()) return 500; // CUDA_ERROR_NOT_FOUND
    *f = new Function{(Launcher)run, known->second};
    return 0;
}
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                   void *stream, void **parameters, void **) {
    if (!pushed) return 201;
    if (gx == 0 || gy != 1 || gz != 1 || bx > 1024 || by != 1 || bz != 1 || stream != (void *)32) return 1;
    Function *function = (Function *)f;
    if (!capturing) return function->run(gx, bx, 1, 1, parameters), 0;
    Call call{function, gx, bx, {}};
    for (int i = 0; i < function->parameters; ++i) call.values.push_back(*(uint64_t *)parameters[i]);
    captured.push_back(call);
    return 0;
}
int cuGraphLaunch(void *g, void *) {
    ++replays;
    for (Call &call : *(Graph *)g) {
        std::vector<void *> at;
        for (uint64_t &v : call.values) at.push_back(&v);
        call.function->run(call.blocks, call.size, 1, 1, at.data());
    }
    return 0;
}

int cuGetProcAddress_v2(const char *name, void **found, int, uint64_t, int *status) {
    *found = nullptr;
    for (const char *suffix : {"_v2", ""}) {
        if (!*found) *found = dlsym(RTLD_DEFAULT, (std::string(name) + suffix).c_str());
        if (!*found) {
            static void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
            if (self) *found = dlsym(self, (std::string(name) + suffix).c_str());
        }
    }
    if (!strcmp(name, "cuGraphInstantiate") && !*found) *found = (void *)cuGraphInstantiateWithFlags;
    if (status) *status = *found ? 0 : 1;
    return *found ? 0 : 500;
}
int cuGetProcAddress(const char *name, void **found, int v, uint64_t f) { return cuGetProcAddress_v2(name, found, v, f, 0); }
}
