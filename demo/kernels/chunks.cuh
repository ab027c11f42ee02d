// Where chunks lie: the device's view of `Format` (demo/src/format.rs).
//
// Legend: h × w a chunk (edges 1…64), k its entries, C the chunks of all tensors, a and b row and column frequency,
// i and j row and column. One block of THREADS threads works on one chunk and goes on to the next.
#pragma once

#include "device.cuh"

constexpr int EDGE = 64;
constexpr int HALF = EDGE / 2;
constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;

/// Exponent of a chunk that sends nothing.
constexpr int EMPTY = -32768;
/// Exponents below a tensor's largest by more than this are lost.
constexpr int EXPONENT_RANGE = 14;

/// Chunks of a tensor that share one group of a payload.
constexpr uint32_t GROUP_CHUNKS = 64;
constexpr uint32_t NO_RICE = 0xffffffffu;

/// One tensor; the same fields as `cuda::table::Tensor`.
struct Tensor {
    uint64_t offset;       // first element in θ
    uint64_t first_entry;  // among the entries of all tensors
    uint32_t first_chunk;  // among the chunks of all tensors
    uint32_t chunks;
    uint32_t h, w;
    uint32_t per_band;  // chunks side by side
    uint32_t k;
    uint32_t basis_h, basis_w;  // numbers of bases
    uint32_t first_group;       // among the groups of all tensors
    uint32_t rice;              // Rice parameter, NO_RICE where every index is sent
    uint32_t reciprocal;        // ⌈2¹⁸/w⌉
    uint32_t unused;
};

/// A basis of edge n: `rows[k][j]` = F[j, k], `even[j][b]` = F[j, 2b], `odd[j][b]` = F[j, 2b+1], j < ⌈n/2⌉; unused
/// places are 0. The same fields as `dct::Basis`.
struct Basis {
    float rows[EDGE][HALF];
    float even[HALF][HALF];
    float odd[HALF][HALF];
};

/// One chunk's place.
struct Chunk {
    uint32_t tensor;   // its number
    uint64_t first;    // first coefficient of its momentum
    uint64_t entries;  // first entry
    uint64_t origin;   // first element in θ
    uint64_t stride;   // from one of its rows in θ to the next
    uint32_t h, w, k;
    uint32_t basis_h, basis_w;
    uint32_t reciprocal;
    bool vector;  // its rows can be read four elements at a time

    /// Row of an index: exact, since 4095·(⌈2¹⁸/w⌉·w − 2¹⁸) < 2¹⁸.
    __device__ __forceinline__ uint32_t row(uint32_t index) const { return (index * reciprocal) >> 18; }
};

/// The tensor of chunk `chunk`: the last that starts at or before it.
__device__ __forceinline__ uint32_t tensor_of(const Tensor* tensors, uint32_t n, uint32_t chunk) {
    uint32_t low = 0, high = n;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (tensors[middle].first_chunk <= chunk) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/// Finds a chunk; `c` is the one before, which often lies in the same tensor, or has tensor 0.
__device__ __forceinline__ void locate(const Tensor* tensors, uint32_t n, uint32_t chunk, Chunk& c) {
    if (chunk - tensors[c.tensor].first_chunk >= tensors[c.tensor].chunks) c.tensor = tensor_of(tensors, n, chunk);
    const Tensor& t = tensors[c.tensor];
    uint32_t number = chunk - t.first_chunk;
    uint32_t band = number / t.per_band, x = number % t.per_band;
    c.h = t.h;
    c.w = t.w;
    c.k = t.k;
    c.basis_h = t.basis_h;
    c.basis_w = t.basis_w;
    c.stride = uint64_t(t.per_band) * t.w;
    c.first = t.offset + uint64_t(number) * t.h * t.w;
    c.entries = t.first_entry + uint64_t(number) * t.k;
    c.origin = t.offset + uint64_t(band) * t.h * c.stride + uint64_t(x) * t.w;
    c.reciprocal = t.reciprocal;
    c.vector = t.w % 4 == 0 && t.offset % 4 == 0;
}

/// Brings a cache line nearer that will be read soon.
__device__ __forceinline__ void prefetch(const void* p) {
#ifdef __CUDACC__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
    (void)p;
#endif
}

__device__ __forceinline__ bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

__device__ __forceinline__ uint32_t magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

/// 2^n for −1022 ≤ n ≤ 1023.
__device__ __forceinline__ double power_of_two(int n) {
    return __longlong_as_double(static_cast<long long>(1023 + n) << 52);
}

/// Sum over the threads before this one, and over all; `scratch` has WARPS elements and is free at the next barrier.
__device__ __forceinline__ uint32_t sum_before(uint32_t v, uint32_t* scratch, uint32_t& total) {
    uint32_t sum = v, lane = threadIdx.x % 32;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        uint32_t below = __shfl_up_sync(ALL_LANES, sum, by);
        if (int(lane) >= by) sum += below;
    }
    if (lane == 31) scratch[threadIdx.x / 32] = sum;
    __syncthreads();
    uint32_t before = 0;
    total = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        if (i < int(threadIdx.x) / 32) before += scratch[i];
        total += scratch[i];
    }
    return before + sum - v;
}
