// The CUDA that kernels.cu uses, for a C++ compiler: every launch runs thread by thread on the CPU.
//
// No shared memory and no __syncthreads: kernels that need them do not compile. With several workers, threads run
// at the same time, so that races between them are real ones.
#pragma once

#include <math.h>

#include <thread>
#include <vector>

#define __global__
#define __device__

struct ThreadPlace {
    unsigned int x, y, z;
};

#define OWN_THREAD static thread_local __attribute__((tls_model("initial-exec"), unused)) ThreadPlace
OWN_THREAD threadIdx = {0, 0, 0};
OWN_THREAD blockIdx = {0, 0, 0};
OWN_THREAD blockDim = {1, 1, 1};
OWN_THREAD gridDim = {1, 1, 1};

#define LOAD(at) __atomic_load_n(at, __ATOMIC_RELAXED)
#define STORE(at, v) __atomic_store_n(at, v, __ATOMIC_RELAXED)

template <class T> static inline T atomicAdd(T *at, T v) { return __atomic_fetch_add(at, v, __ATOMIC_RELAXED); }
template <class T> static inline T atomicOr(T *at, T v) { return __atomic_fetch_or(at, v, __ATOMIC_RELAXED); }

static inline int atomicCAS(int *at, int expected, int wanted) {
    __atomic_compare_exchange_n(at, &expected, wanted, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return expected;
}

static inline int atomicMin(int *at, int v) {
    int old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (v < old && !__atomic_compare_exchange_n(at, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

static inline int atomicMax(int *at, int v) {
    int old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (v > old && !__atomic_compare_exchange_n(at, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

static inline int __popc(unsigned int v) { return __builtin_popcount(v); }

// The threads of a grid, every `step`-th from `first` on. `order`: 1 one after the other, -1 backwards, any other
// number some order of its own: a GPU promises none.
template <class Kernel>
static void run_threads(unsigned first, unsigned step, unsigned blocks, unsigned size, int order, Kernel kernel) {
    unsigned long long n = (unsigned long long)blocks * size, stride = 1, a, b;
    if (order != 1 && order != -1)
        for (stride = (unsigned)order % n | 1;; stride += 2) {
            for (a = stride, b = n; b;) {
                unsigned long long rest = a % b;
                a = b;
                b = rest;
            }
            if (a == 1) break;
        }
    blockDim = {size, 1, 1};
    gridDim = {blocks, 1, 1};
    for (unsigned long long k = first; k < n; k += step) {
        unsigned long long at = order == -1 ? n - 1 - k : k * stride % n;
        blockIdx.x = (unsigned)(at / size);
        threadIdx.x = (unsigned)(at % size);
        kernel();
    }
}

template <class Kernel>
static void run_grid(unsigned blocks, unsigned size, unsigned workers, int order, Kernel kernel) {
    std::vector<std::thread> others;
    for (unsigned w = 1; w < workers; ++w)
        others.emplace_back([=] { run_threads(w, workers, blocks, size, order, kernel); });
    run_threads(0, workers < 1 ? 1 : workers, blocks, size, order, kernel);
    for (auto &t : others) t.join();
}
