// Factors of tensor-core products from tiles of bf16 in shared memory.
//
// A tile's rows are `stride` elements apart: 16-byte aligned, and 16 bytes off a multiple of 128, so that
// the eight rows of a matrix load lie in different banks.
#pragma once

#include "vector.cuh"

/// Elements added to each row of a tile against bank conflicts.
constexpr unsigned PAD = 8;

/// Factor a (16×16) from a tile stored [m, k]: rows from m, columns from k.
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16* tile, unsigned stride, unsigned m, unsigned k) {
    unsigned lane = threadIdx.x % 32;
    load_matrices(a, tile + (m + lane % 16) * stride + k + lane / 16 * 8);
}

/// Factor a (16×16) from a tile stored [k, m].
__device__ __forceinline__ void load_a_transposed(uint32_t (&a)[4], const bf16* tile, unsigned stride, unsigned m,
                                                  unsigned k) {
    unsigned lane = threadIdx.x % 32;
    load_matrices_transposed(a, tile + (k + lane / 16 * 8 + lane % 8) * stride + m + lane / 8 % 2 * 8);
}

/// Two factors b (16×8 each, columns n.. and n+8..) from a tile stored [k, n]: b[0], b[1] are the first's.
__device__ __forceinline__ void load_b(uint32_t (&b)[4], const bf16* tile, unsigned stride, unsigned k, unsigned n) {
    unsigned lane = threadIdx.x % 32;
    load_matrices_transposed(b, tile + (k + lane / 8 % 2 * 8 + lane % 8) * stride + n + lane / 16 * 8);
}

/// Two factors b from a tile stored [n, k].
__device__ __forceinline__ void load_b_transposed(uint32_t (&b)[4], const bf16* tile, unsigned stride, unsigned k,
                                                  unsigned n) {
    unsigned lane = threadIdx.x % 32;
    load_matrices(b, tile + (n + lane / 16 * 8 + lane % 8) * stride + k + lane / 8 % 2 * 8);
}

/// Starts the copy of a tile of `ROWS` × `COLUMNS` from a matrix whose rows are `row_stride` elements
/// apart and 16-byte aligned; what lies outside of `rows` × `columns` becomes 0.
template <unsigned ROWS, unsigned COLUMNS, unsigned THREADS>
__device__ __forceinline__ void copy_tile(bf16* tile, const bf16* from, size_t row_stride, unsigned rows,
                                          unsigned columns) {
    constexpr unsigned CHUNKS = COLUMNS / 8, OWN = ROWS * CHUNKS / THREADS;
    static_assert(ROWS * CHUNKS % THREADS == 0, "each thread copies as many chunks");
    constexpr unsigned STEPS = OWN > 8 ? 4 : OWN;  // addresses of more take registers that sums need
#pragma unroll STEPS
    for (unsigned i = 0; i < OWN; i++) {
        unsigned chunk = threadIdx.x + i * THREADS, row = chunk / CHUNKS, column = chunk % CHUNKS * 8;
        unsigned left = row < rows && column < columns ? min(columns - column, 8u) : 0;
        copy_async(tile + row * (COLUMNS + PAD) + column, left ? from + row * row_stride + column : from, left * 2);
    }
}

/// As `copy_tile` for rows of any alignment: element by element, and done when it returns.
template <unsigned ROWS, unsigned COLUMNS, unsigned THREADS>
__device__ __forceinline__ void copy_tile_unaligned(bf16* tile, const bf16* from, size_t row_stride, unsigned rows,
                                                    unsigned columns) {
#pragma unroll 4
    for (unsigned i = 0; i < ROWS * COLUMNS / THREADS; i++) {
        unsigned element = threadIdx.x + i * THREADS, row = element / COLUMNS, column = element % COLUMNS;
        bool inside = row < rows && column < columns;
        tile[row * (COLUMNS + PAD) + column] = inside ? from[row * row_stride + column] : from_f32<bf16>(0.0f);
    }
}
