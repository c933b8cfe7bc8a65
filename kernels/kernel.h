// What every kernel begins with. The same source is compiled for GPUs (nvcc), and for the processor (any C++ compiler), so
// that its arithmetic is tested on every machine.
//
// A kernel is written `KERNEL(name, Args) { ... }`: it has one argument, `args`, a struct that Rust passes as it is. There it
// is launched with a grid and blocks of one dimension and some bytes of shared memory, which it finds at `SHARED`. Threads of
// a block all reach the same barriers: none of them returns before the last one.
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__

extern __shared__ __align__(16) unsigned char shared_bytes[];
#define SHARED shared_bytes
#define KERNEL(name, Args) extern "C" __global__ void name(const __grid_constant__ Args args)
// Sums are to be the same everywhere: nothing is contracted (nvcc is told so, too), and NaN stays NaN.
#define RESTRICT __restrict__

__device__ inline void add_atomically(double* to, double value) { atomicAdd(to, value); }

#else

#include <pthread.h>
#include <thread>
#include <vector>
#include <mutex>

#define __device__
#define RESTRICT __restrict__

// A GPU that is made of threads, and runs one block after the other.
struct Place { unsigned x; };
inline thread_local Place threadIdx;
inline Place blockIdx, blockDim, gridDim;
inline pthread_barrier_t everybody;
inline std::vector<unsigned char> shared_bytes;
inline std::mutex one_launch, one_addition;
#define SHARED shared_bytes.data()

inline void __syncthreads() { pthread_barrier_wait(&everybody); }

inline void add_atomically(double* to, double value) {
    std::lock_guard<std::mutex> alone(one_addition);
    *to += value;
}

template <typename Args>
void launch(void (*body)(const Args&), const Args& args, unsigned blocks, unsigned threads, unsigned bytes) {
    std::lock_guard<std::mutex> alone(one_launch);
    gridDim = {blocks}, blockDim = {threads};
    // What lies there when a block begins is anybody's: a kernel that counts on zeros is found out.
    shared_bytes.assign(bytes, 0xA5);
    pthread_barrier_init(&everybody, nullptr, threads);
    std::vector<std::thread> all;
    for (unsigned thread = 0; thread < threads; thread++) {
        all.emplace_back([&, thread] {
            threadIdx = {thread};
            for (unsigned block = 0; block < blocks; block++) {
                if (thread == 0) blockIdx = {block};
                __syncthreads();
                body(args);
                __syncthreads();
            }
        });
    }
    for (auto& thread : all) thread.join();
    pthread_barrier_destroy(&everybody);
}

#define KERNEL(name, Args)                                                                        \
    static void name##_body(const Args& args);                                                    \
    extern "C" void name(const Args* args, unsigned blocks, unsigned threads, unsigned bytes) {   \
        launch<Args>(name##_body, *args, blocks, threads, bytes);                                 \
    }                                                                                             \
    static void name##_body(const Args& args)

#endif
