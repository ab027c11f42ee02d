// The k largest coefficients of a chunk by magnitude, ties to the lower index, in ascending order: the same set as
// topk::select.
//
// The k-th largest of the threads' maxima is a magnitude that at least k elements reach, and few more. Of those that
// reach it the k-th largest magnitude T is found by counting (or, where many do, by bisection over all). Then two
// bit maps, above T and equal to T, give the places in index order.
#pragma once

#include "forward.cuh"

/// Magnitudes that are ranked by counting; more are bisected.
constexpr uint32_t CANDIDATES = 256;
/// Magnitudes from here on are not finite.
constexpr uint32_t INFINITE = 0x7f800000u;

struct SelectShared {
    alignas(16) uint32_t maxima[THREADS];
    uint32_t candidates[CANDIDATES];
    // Bit (row, column) of the chunk, two words a row.
    uint32_t above[2 * EDGE], equal[2 * EDGE];
    uint32_t scratch[WARPS];
    uint32_t threshold, found, least, largest;
};

/// Elements of the thread that are inside the chunk, bit 4·r + q.
__device__ __forceinline__ uint32_t inside(const Chunk& c, const Outputs& out) {
    uint32_t columns = 4 * out.group < c.w ? min(c.w - 4 * out.group, 4u) : 0, mask = 0;
#pragma unroll
    for (int r = 0; r < 8; r++) {
        if (out.row(r) < c.h) mask |= ((1u << columns) - 1) << (4 * r);
    }
    return mask;
}

/// Elements of the thread that reach a magnitude.
__device__ __forceinline__ uint32_t reaching(const Outputs& out, uint32_t inside, uint32_t bits) {
    uint32_t mask = 0;
#pragma unroll
    for (int r = 0; r < 8; r++) {
#pragma unroll
        for (int q = 0; q < 4; q++) mask |= uint32_t(magnitude(out.z[r][q]) >= bits) << (4 * r + q);
    }
    return mask & inside;
}

/// The largest magnitude; leaves in `sh.threshold` one that at least k elements reach. Elements outside are 0.
__device__ __forceinline__ uint32_t block_largest(const Outputs& out, uint32_t k, SelectShared& sh) {
    uint32_t mine = 0, greater = 0;
#pragma unroll
    for (int r = 0; r < 8; r++) {
#pragma unroll
        for (int q = 0; q < 4; q++) mine = max(mine, magnitude(out.z[r][q]));
    }
    sh.maxima[threadIdx.x] = mine;
    sh.above[threadIdx.x] = 0;
    sh.equal[threadIdx.x] = 0;
    if (threadIdx.x == 0) {
        sh.threshold = k > THREADS ? 0 : 0xffffffffu;
        sh.found = 0;
        sh.largest = 0;
        sh.least = 0xffffffffu;
    }
    __syncthreads();
#pragma unroll 4
    for (int i = 0; i < THREADS / 4; i++) {
        uint4 other = reinterpret_cast<const uint4*>(sh.maxima)[i];
        greater += (other.x > mine) + (other.y > mine) + (other.z > mine) + (other.w > mine);
    }
    if (greater == 0) atomicMax(&sh.largest, mine);
    if (greater < k) atomicMin(&sh.threshold, mine);
    __syncthreads();
    return sh.largest;
}

/// The k-th largest magnitude of the candidates.
__device__ __forceinline__ uint32_t rank_candidates(uint32_t n, uint32_t k, SelectShared& sh) {
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        uint32_t mine = sh.candidates[i], greater = 0;
        for (uint32_t j = 0; j < n; j++) greater += sh.candidates[j] > mine;
        if (greater < k) atomicMin(&sh.least, mine);
    }
    __syncthreads();
    return sh.least;
}

/// A magnitude of which exactly k elements are above or equal, or the k-th largest, between `low` and `largest`.
__device__ __forceinline__ uint32_t bisect(const Outputs& out, uint32_t inside, uint32_t low, uint32_t largest,
                                           uint32_t k, SelectShared& sh) {
    uint32_t high = largest + 1;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        uint32_t count = block_sum<WARPS>(uint32_t(__popc(reaching(out, inside, middle))), sh.scratch);
        if (count < k) {
            high = middle;
        } else {
            low = middle;
            if (count == k) break;
        }
    }
    return low;
}

__device__ __forceinline__ void mark(const Outputs& out, uint32_t elements, uint32_t (&map)[2 * EDGE]) {
#pragma unroll
    for (int r = 0; r < 8; r++) {
        uint32_t four = elements >> (4 * r) & 15;
        if (four) atomicOr(&map[2 * out.row(r) + out.group / 8], four << (out.group % 8 * 4));
    }
}

/// The lowest `n` set bits.
__device__ __forceinline__ uint32_t lowest_bits(uint32_t bits, uint32_t n) {
    uint32_t kept = 0;
    for (; n > 0 && bits; n--) {
        kept |= bits & (0u - bits);
        bits &= bits - 1;
    }
    return kept;
}

/// Writes the k chosen of a chunk, ascending: index in the chunk, and the coefficient there, read from `m`.
/// After `block_largest`; `m` is the chunk's and has been written by this block.
__device__ __forceinline__ void select(const Chunk& c, const Outputs& out, uint32_t inside, uint32_t largest,
                                       const float* m, uint16_t* indices, float* values, SelectShared& sh) {
    uint32_t floor = sh.threshold;
    uint32_t reached = reaching(out, inside, floor), n = __popc(reached);
    uint32_t at = n ? atomicAdd(&sh.found, n) : 0;
    if (at + n <= CANDIDATES) {
#pragma unroll
        for (int i = 0; i < 32; i++) {
            if (reached >> i & 1) sh.candidates[at++] = magnitude(out.z[i / 4][i % 4]);
        }
    }
    __syncthreads();
    uint32_t least = sh.found <= CANDIDATES ? rank_candidates(sh.found, c.k, sh)
                                            : bisect(out, inside, floor, largest, c.k, sh);
    uint32_t above = reaching(out, inside, least + 1);
    mark(out, above, sh.above);
    mark(out, reaching(out, inside, least) & ~above, sh.equal);
    __syncthreads();
    // Thread t has word t: row t/2, columns 32·(t%2)…
    uint32_t higher = sh.above[threadIdx.x], same = sh.equal[threadIdx.x], total;
    uint32_t before = sum_before(__popc(higher) | __popc(same) << 16, sh.scratch, total);
    uint32_t room = c.k - (total & 0xffff), same_before = min(before >> 16, room);
    uint32_t chosen = higher | lowest_bits(same, room - same_before);
    uint32_t place = (before & 0xffff) + same_before;
    uint32_t first = threadIdx.x / 2 * c.w + threadIdx.x % 2 * 32;
    for (; chosen; chosen &= chosen - 1) {
        uint32_t index = first + __ffs(chosen) - 1;
        indices[place] = static_cast<uint16_t>(index);
        values[place] = m[index];
        place++;
    }
}
