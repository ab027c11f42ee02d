// The inverse DCT of one chunk's sparse coefficients: consensus, operation for operation (PROTOCOL 6.2).
//
// T[i, b] over the row frequency a, then Δ[i, j] over b; each output is its own chain over the even and its own over
// the odd frequencies, ascending, of fused multiply-adds from +0. Zeros do not change a chain but for the sign of a
// zero, which no sign of Δ shows.
#pragma once

#include "chunks.cuh"

/// Sums of a chunk that are kept at a time: sixteen full columns, or all that 32 peers send in one chunk.
constexpr uint32_t SUMS = 16 * EDGE;

struct InverseShared {
    float basis_w[EDGE][HALF];     // [b][j]
    float t[EDGE][EDGE];           // T as [b][i]
    uint32_t seen[2 * EDGE];       // word 2b + a%2, bit a/2: the coefficients that a peer sent
    uint32_t before[2 * EDGE + 1]; // coefficients sent in the words before
};

/// The place of coefficient (a, b) among those sent: by column, even rows first, ascending.
__device__ __forceinline__ uint32_t place_of(const InverseShared& sh, uint32_t a, uint32_t b) {
    uint32_t word = 2 * b + a % 2;
    return sh.before[word] + __popc(sh.seen[word] & ((1u << a / 2) - 1));
}

/// E or O of row `i` in one column: over the set bits of `word`, with `c` the bits of the first one's coefficient.
__device__ __forceinline__ float row_chain(const InverseShared& sh, const Basis& basis, uint32_t word, uint32_t i,
                                           const uint32_t* c) {
    float acc = 0.0f;
    for (uint32_t seen = sh.seen[word]; seen; seen &= seen - 1) {
        uint32_t a = 2 * (__ffs(seen) - 1) + word % 2;
        acc = __fmaf_rn(__ldg(&basis.rows[a][i]), __uint_as_float(*c++), acc);
    }
    return acc;
}

/// T[·, b] for `first` ≤ b < `end`, one warp a column, lane i rows i and h−1−i; `c` are the bits of the coefficients
/// sent in these columns, in their order.
__device__ __forceinline__ void inverse_rows(const Basis& basis, uint32_t h, uint32_t first, uint32_t end,
                                             const uint32_t* c, InverseShared& sh) {
    uint32_t i = threadIdx.x % 32, skipped = sh.before[2 * first];
    for (uint32_t b = first + threadIdx.x / 32; b < end; b += WARPS) {
        float even = row_chain(sh, basis, 2 * b, i, c + sh.before[2 * b] - skipped);
        float odd = row_chain(sh, basis, 2 * b + 1, i, c + sh.before[2 * b + 1] - skipped);
        if (i < h / 2) {
            sh.t[b][i] = __fadd_rn(even, odd);
            sh.t[b][h - 1 - i] = __fsub_rn(even, odd);
        } else if (2 * i + 1 == h) {
            sh.t[b][i] = even;
        }
    }
}

/// Rows 4·(t/8)…+3 of Δ, its columns 4·(t%8)…+3 as E + O in `left` and their mirrors as E − O in `right`; the middle
/// column of an odd width is E, in `left`.
__device__ __forceinline__ void inverse_columns(uint32_t w, const InverseShared& sh, float (&left)[4][4],
                                                float (&right)[4][4]) {
    uint32_t i = threadIdx.x / 8 * 4, j = threadIdx.x % 8 * 4;
    float even[4][4] = {}, odd[4][4] = {};
    auto add = [&](uint32_t b, float (&acc)[4][4]) {
        float t[4], f[4];
        *reinterpret_cast<float4*>(t) = *reinterpret_cast<const float4*>(&sh.t[b][i]);
        *reinterpret_cast<float4*>(f) = *reinterpret_cast<const float4*>(&sh.basis_w[b][j]);
#pragma unroll
        for (int r = 0; r < 4; r++) {
#pragma unroll
            for (int q = 0; q < 4; q++) acc[r][q] = __fmaf_rn(f[q], t[r], acc[r][q]);
        }
    };
#pragma unroll 4
    for (uint32_t b = 0; b + 1 < w; b += 2) {
        add(b, even);
        add(b + 1, odd);
    }
    if (w % 2 == 1) add(w - 1, even);
#pragma unroll
    for (int r = 0; r < 4; r++) {
#pragma unroll
        for (int q = 0; q < 4; q++) {
            bool middle = 2 * (j + q) + 1 == w;
            left[r][q] = middle ? even[r][q] : __fadd_rn(even[r][q], odd[r][q]);
            right[r][q] = __fsub_rn(even[r][q], odd[r][q]);
        }
    }
}
