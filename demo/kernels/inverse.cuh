// The inverse DCT of one chunk's sparse coefficients: consensus, operation for operation (PROTOCOL 6.2).
//
// T[i, b] over the row frequency a, then Δ[i, j] over b; each output is its own chain over the even and its own over
// the odd frequencies, ascending, of fused multiply-adds from +0. Zeros do not change a chain but for the sign of a
// zero, which no sign of Δ shows. For the same reason the middle of an odd edge, which is E, may be E + O: there all odd
// frequencies of the basis are 0.
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

/// E or O of rows i…i+3 in one column: over terms (bits of c, row a), a ascending.
__device__ __forceinline__ void row_chains(const Basis& basis, uint32_t i, const uint2* terms, uint32_t n,
                                           float (&acc)[4]) {
#pragma unroll 2
    for (uint32_t s = 0; s < n; s++) {
        float c = __uint_as_float(terms[s].x), f[4];
        *reinterpret_cast<float4*>(f) = __ldg(reinterpret_cast<const float4*>(&basis.rows[terms[s].y][i]));
#pragma unroll
        for (int q = 0; q < 4; q++) acc[q] = __fmaf_rn(f[q], c, acc[q]);
    }
}

/// T[·, b] for `first` ≤ b < `end`, eight lanes a column, each four rows and their mirrors; `terms` are what is sent in
/// these columns.
__device__ __forceinline__ void inverse_rows(const Basis& basis, uint32_t h, uint32_t first, uint32_t end,
                                             const uint2* terms, InverseShared& sh) {
    uint32_t i = threadIdx.x % 8 * 4, skipped = sh.before[2 * first];
    for (uint32_t b = first + threadIdx.x / 8; b < end; b += THREADS / 8) {
        uint32_t from = sh.before[2 * b], middle = sh.before[2 * b + 1], to = sh.before[2 * b + 2];
        float even[4] = {}, odd[4] = {};
        row_chains(basis, i, terms + from - skipped, middle - from, even);
        row_chains(basis, i, terms + middle - skipped, to - middle, odd);
        float low[4], high[4];
#pragma unroll
        for (int q = 0; q < 4; q++) {
            low[q] = __fadd_rn(even[q], odd[q]);
            high[q] = __fsub_rn(even[q], odd[q]);
        }
        if (h == EDGE) {
            *reinterpret_cast<float4*>(&sh.t[b][i]) = make_float4(low[0], low[1], low[2], low[3]);
            *reinterpret_cast<float4*>(&sh.t[b][EDGE - 4 - i]) = make_float4(high[3], high[2], high[1], high[0]);
        } else {
#pragma unroll
            for (int q = 0; q < 4; q++) {
                if (i + q < (h + 1) / 2) sh.t[b][i + q] = low[q];
                if (i + q < h / 2) sh.t[b][h - 1 - i - q] = high[q];
            }
        }
    }
}

/// Rows 4·(t/8)…+3 of Δ, its columns 4·(t%8)…+3 as E + O in `left` and their mirrors as E − O in `right`.
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
            left[r][q] = __fadd_rn(even[r][q], odd[r][q]);
            right[r][q] = __fsub_rn(even[r][q], odd[r][q]);
        }
    }
}
