// What attention's bf16 kernels share: where a head lies, and steps of the products on fragments.
#pragma once

#include "fragments.cuh"

/// The arguments' shape: q [B, T, H·D], k and v [B, T, K·D], statistics [B, H, T].
struct Heads {
    unsigned seq, heads, kv_heads, width;

    __device__ size_t q_stride() const { return size_t(heads) * width; }
    __device__ size_t kv_stride() const { return size_t(kv_heads) * width; }
    /// First element of a query head.
    __device__ size_t q_at(unsigned batch, unsigned head) const { return (size_t(batch) * seq * heads + head) * width; }
    __device__ size_t kv_at(unsigned batch, unsigned head) const {
        return (size_t(batch) * seq * kv_heads + head) * width;
    }
    __device__ size_t stats_at(unsigned batch, unsigned head) const { return (size_t(batch) * heads + head) * seq; }
};

constexpr float LOG2_E = 1.4426950408889634f;

/// s[16, 8·TILES] += a[16, D] · b[8·TILES, D]ᵀ: rows from `m` of tile `a`, all rows of tile `b`.
template <unsigned D, unsigned TILES>
__device__ __forceinline__ void score(float (&s)[TILES][4], const bf16* a, unsigned m, const bf16* b) {
#pragma unroll
    for (unsigned k = 0; k < D; k += 16) {
        uint32_t fa[4];
        load_a(fa, a, D + PAD, m, k);
#pragma unroll
        for (unsigned j = 0; j < TILES; j += 2) {
            uint32_t fb[4];
            load_b_transposed(fb, b, D + PAD, k, j * 8);
            mma_bf16(s[j], fa, fb[0], fb[1]);
            mma_bf16(s[j + 1], fa, fb[2], fb[3]);
        }
    }
}

/// sums[16, 8·WIDE] += p[16, 8·TILES] · b[8·TILES, columns from `n`], p rounded to bf16.
template <unsigned D, unsigned TILES, unsigned WIDE>
__device__ __forceinline__ void add_weighted(float (&sums)[WIDE][4], const float (&p)[TILES][4], const bf16* b,
                                             unsigned n) {
#pragma unroll
    for (unsigned j = 0; j < TILES; j += 2) {
        // Two neighbouring fragments of a product's output are one factor of the next product.
        uint32_t fa[4] = {pack_bf16(p[j][0], p[j][1]), pack_bf16(p[j][2], p[j][3]),
                          pack_bf16(p[j + 1][0], p[j + 1][1]), pack_bf16(p[j + 1][2], p[j + 1][3])};
#pragma unroll
        for (unsigned i = 0; i < WIDE; i += 2) {
            uint32_t fb[4];
            load_b(fb, b, D + PAD, j * 8, n + i * 8);
            mma_bf16(sums[i], fa, fb[0], fb[1]);
            mma_bf16(sums[i + 1], fa, fb[2], fb[3]);
        }
    }
}

/// Writes a warp's 16 rows, `sums[16, 8·WIDE]` times `low` (rows 0-7) and `high` (rows 8-15), through the
/// warp's own rows of a tile in shared memory, so that stores are 16 bytes wide.
template <unsigned D, unsigned WIDE>
__device__ __forceinline__ void put_rows(bf16* to, size_t stride, bf16* tile, const float (&sums)[WIDE][4], float low,
                                         float high, unsigned rows, unsigned columns) {
    unsigned lane = threadIdx.x % 32;
    __syncwarp();  // all lanes have read what lay in the tile
#pragma unroll
    for (unsigned i = 0; i < WIDE; i++) {
        uint32_t* at = reinterpret_cast<uint32_t*>(tile + lane / 4 * (D + PAD) + i * 8 + lane % 4 * 2);
        at[0] = pack_bf16(sums[i][0] * low, sums[i][1] * low);
        at[8 * (D + PAD) / 2] = pack_bf16(sums[i][2] * high, sums[i][3] * high);
    }
    __syncwarp();
#pragma unroll
    for (unsigned i = 0; i < 16 * WIDE / 32; i++) {
        unsigned chunk = lane + i * 32, row = chunk / WIDE, column = chunk % WIDE * 8;
        if (row < rows && column < columns) {
            *reinterpret_cast<uint4*>(to + row * stride + column) =
                *reinterpret_cast<const uint4*>(tile + row * (D + PAD) + column);
        }
    }
}
