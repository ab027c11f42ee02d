// CUDA on the CPU, for tests of a kernel's logic: the same source compiles as C++ and runs one block
// at a time, one fiber for each CUDA thread.
//
// What it checks beyond results: lanes that miss a warp operation and threads that miss a barrier stop
// the launch with a message; warps and lanes run in changing order, so that a missing barrier shows;
// dynamic shared memory starts poisoned (NaN), and so does the target of an asynchronous copy until it
// has been waited for. What it cannot check: races inside one barrier interval that no order of whole
// lanes shows, memory ordering, speed.
//
// Only one translation unit may include this file: it defines the emulator.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One block runs at a time, so static storage is the block's.
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

#include "fibers.h"
#include "intrinsics.h"
#include "launch.h"

/// Makes a kernel callable by name, with its arguments as the driver passes them.
#define HOST_KERNEL(name) static host::Registered host_registered_##name(#name, name)

/// Dynamic shared memory of the block.
#define DYNAMIC_SHARED(name) unsigned char* name = host::shared_memory
