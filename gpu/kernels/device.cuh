// What every kernel file includes: CUDA itself, or its emulation where a C++ compiler reads the file.
//
// A kernel is `extern "C" __global__ void name(…)`, followed by `HOST_KERNEL(name);`. Its arguments
// are pointers and 4- or 8-byte numbers, as in the launching Rust code. Inline PTX stands in ptx.cuh,
// each instruction beside a CPU body.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <math_constants.h>
#include <stdint.h>
#define HOST_KERNEL(name) static_assert(true, #name)
extern __shared__ __align__(128) unsigned char dynamic_shared[];
#define DYNAMIC_SHARED(name) unsigned char* name = dynamic_shared
#else
#include "host/cuda_host.h"
#define CUDART_INF_F INFINITY
#define CUDART_NAN_F NAN
#endif

typedef __nv_bfloat16 bf16;

constexpr unsigned ALL_LANES = 0xffffffffu;

/// Sum over the warp, the same bits in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) v += __shfl_xor_sync(ALL_LANES, v, bits);
    return v;
}

/// Greatest value of the warp, in every lane.
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, bits));
    return v;
}

/// Sum over a block of `WARPS` warps in a fixed order, the same bits in every thread. `scratch` has
/// `WARPS` elements in shared memory and is free again when the call returns.
template <int WARPS, class T>
__device__ __forceinline__ T block_sum(T v, T* scratch) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    T total = scratch[0];
#pragma unroll
    for (int i = 1; i < WARPS; i++) total += scratch[i];
    __syncthreads();
    return total;
}

/// Greatest value of a block of `WARPS` warps, in every thread; `scratch` as in `block_sum`.
template <int WARPS>
__device__ __forceinline__ float block_max(float v, float* scratch) {
    v = warp_max(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    float top = scratch[0];
#pragma unroll
    for (int i = 1; i < WARPS; i++) top = fmaxf(top, scratch[i]);
    __syncthreads();
    return top;
}

__device__ __forceinline__ float to_f32(float v) { return v; }
__device__ __forceinline__ float to_f32(bf16 v) { return __bfloat162float(v); }
template <class T>
__device__ __forceinline__ T from_f32(float v);
template <>
__device__ __forceinline__ float from_f32<float>(float v) { return v; }
template <>
__device__ __forceinline__ bf16 from_f32<bf16>(float v) { return __float2bfloat16_rn(v); }
