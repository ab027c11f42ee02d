// Rows of f32 or bf16 read and written in vectors of 8 elements where alignment allows it.
#pragma once

#include "ptx.cuh"

/// Elements of a vector: 16 bytes of bf16, 32 of f32.
constexpr unsigned VECTOR = 8;

/// Whether every row of `width` elements from `p` on begins at a multiple of 16 bytes.
template <class T>
__device__ __forceinline__ bool rows_aligned(const T* p, size_t width) {
    return width % VECTOR == 0 && reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

__device__ __forceinline__ void load_vector(const float* p, float (&v)[8]) {
    float4 low = reinterpret_cast<const float4*>(p)[0], high = reinterpret_cast<const float4*>(p)[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
}
__device__ __forceinline__ void load_vector(const bf16* p, float (&v)[8]) {
    uint4 all = *reinterpret_cast<const uint4*>(p);
    v[0] = low_bf16(all.x), v[1] = high_bf16(all.x), v[2] = low_bf16(all.y), v[3] = high_bf16(all.y);
    v[4] = low_bf16(all.z), v[5] = high_bf16(all.z), v[6] = low_bf16(all.w), v[7] = high_bf16(all.w);
}
__device__ __forceinline__ void store_vector(float* p, const float (&v)[8]) {
    reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ __forceinline__ void store_vector(bf16* p, const float (&v)[8]) {
    *reinterpret_cast<uint4*>(p) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                                              pack_bf16(v[6], v[7]));
}
