// Instructions CUDA C++ has no name for: tensor-core products, matrix loads and asynchronous copies.
// Each has inline PTX for sm_80 and later, and a CPU body for the emulation.
#pragma once

#include "device.cuh"

#ifndef __CUDACC__
#include "host/tensor.h"
#endif

/// Two f32 rounded to bf16, `low` in the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#ifdef __CUDACC__
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    return unsigned(__float2bfloat16_rn(low).bits) | unsigned(__float2bfloat16_rn(high).bits) << 16;
#endif
}
__device__ __forceinline__ float low_bf16(uint32_t packed) { return __uint_as_float(packed << 16); }
__device__ __forceinline__ float high_bf16(uint32_t packed) { return __uint_as_float(packed & 0xffff0000u); }

/// `d[16, 8] += a[16, 16] · b[16, 8]`, bf16 factors, f32 sums, by one warp.
///
/// Lane `l`, with `g = l/4` and `t = l%4`, holds
/// a: (g, 2t..), (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..); b: (2t.., g), (2t+8.., g);
/// d: (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    host::mma_bf16(d, a, b0, b1);
#endif
}

/// Four 8×8 matrices of 16-bit values from shared memory. Lane `8i + r` gives the address of row `r` of
/// matrix `i` (16 bytes, 16-byte aligned); lane `l` gets in `m[i]` row `l/4`, columns `2(l%4)` and the next.
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], const void* row) {
#ifdef __CUDACC__
    uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(at)
                 : "memory");
#else
    host::load_matrices(m, row, false);
#endif
}

/// As `load_matrices`, each matrix transposed: lane `l` gets rows `2(l%4)` and the next of column `l/4`.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&m)[4], const void* row) {
#ifdef __CUDACC__
    uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(at)
                 : "memory");
#else
    host::load_matrices(m, row, true);
#endif
}

/// Copies 16 bytes from global to shared memory without waiting; only the first `size` bytes are read,
/// the others become 0. Both addresses are 16-byte aligned.
__device__ __forceinline__ void copy_async(void* shared, const void* global, uint32_t size) {
#ifdef __CUDACC__
    uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
#else
    host::copy_async(shared, global, 16, size);
#endif
}

/// As `copy_async`, 4 bytes.
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, uint32_t size) {
#ifdef __CUDACC__
    uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
#else
    host::copy_async(shared, global, 4, size);
#endif
}

/// Ends a group of the thread's asynchronous copies.
__device__ __forceinline__ void copy_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    host::copy_commit();
#endif
}

/// Waits until at most the `LEFT` latest groups of the thread are under way.
template <int LEFT>
__device__ __forceinline__ void copy_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#else
    host::copy_wait(LEFT);
#endif
}
