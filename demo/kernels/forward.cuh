// The forward DCT of one chunk, Y = F_hᵀ X F_w: every output the same chain of operations as dct::forward.
//
// Mirrored rows are folded on the way in (sums feed the even frequencies, differences the odd ones), then mirrored
// columns between the steps, which halves the work. A thread keeps 8 × 4 outputs in registers.
#pragma once

#include "chunks.cuh"

/// Floats from one row of the tile to the next: 16-byte stores of 8 lanes, one row each, touch all 32 banks.
constexpr int PITCH = EDGE + 4;

struct ForwardShared {
    float basis_h[2][HALF][HALF];  // [parity][i][b]
    float basis_w[2][HALF][HALF];
    // First [parity of a][i][column], folded over rows. Then [parity of b][j][place of a], folded over columns;
    // the place of row a is a/2, 32 further for odd a.
    float tile[2][HALF][PITCH];
};

/// The outputs of one thread: rows parity + 2(first + r), r < 8, columns 4·group…+3.
struct Outputs {
    float z[8][4];
    uint32_t group, parity, first;

    __device__ __forceinline__ uint32_t row(int r) const { return parity + 2 * (first + r); }
};

/// Both halves of a basis, as the transform reads them.
__device__ __forceinline__ void load_basis(float (&to)[2][HALF][HALF], const Basis& from) {
    for (int i = threadIdx.x; i < HALF * HALF / 4; i += THREADS) {
        reinterpret_cast<float4*>(to[0])[i] = reinterpret_cast<const float4*>(from.even)[i];
        reinterpret_cast<float4*>(to[1])[i] = reinterpret_cast<const float4*>(from.odd)[i];
    }
}

/// tile[0][i] = x[i] + x[h−1−i], tile[1][i] = x[i] − x[h−1−i]; an odd height's middle row counts once.
__device__ __forceinline__ void fold_rows(const Chunk& c, const float* x, ForwardShared& sh) {
    if (c.vector && aligned(x)) {
        uint32_t column = threadIdx.x % 16 * 4;
        if (column >= c.w) return;
#pragma unroll 4
        for (uint32_t i = threadIdx.x / 16; i < (c.h + 1) / 2; i += THREADS / 16) {
            float4 top = *reinterpret_cast<const float4*>(x + i * c.stride + column);
            float4 low = *reinterpret_cast<const float4*>(x + (c.h - 1 - i) * c.stride + column);
            float4 sum = make_float4(__fadd_rn(top.x, low.x), __fadd_rn(top.y, low.y), __fadd_rn(top.z, low.z),
                                     __fadd_rn(top.w, low.w));
            float4 difference = make_float4(__fsub_rn(top.x, low.x), __fsub_rn(top.y, low.y),
                                            __fsub_rn(top.z, low.z), __fsub_rn(top.w, low.w));
            if (2 * i + 1 == c.h) sum = top;
            *reinterpret_cast<float4*>(&sh.tile[0][i][column]) = sum;
            *reinterpret_cast<float4*>(&sh.tile[1][i][column]) = difference;
        }
    } else {
        uint32_t column = threadIdx.x % EDGE;
        if (column >= c.w) return;
        for (uint32_t i = threadIdx.x / EDGE; i < (c.h + 1) / 2; i += THREADS / EDGE) {
            float top = x[i * c.stride + column], low = x[(c.h - 1 - i) * c.stride + column];
            sh.tile[0][i][column] = 2 * i + 1 == c.h ? top : __fadd_rn(top, low);
            sh.tile[1][i][column] = __fsub_rn(top, low);
        }
    }
}

/// F_hᵀ X, folded over columns in place. A thread has eight rows of one parity and the columns g, g+16 with their
/// mirrors, so that it can fold what it holds.
__device__ __forceinline__ void transform_rows(const Chunk& c, ForwardShared& sh) {
    uint32_t g = threadIdx.x % 16, first = threadIdx.x / 16 % 4 * 8, parity = threadIdx.x / 64;
    int w = c.w, left[2], right[2];
#pragma unroll
    for (int s = 0; s < 2; s++) {
        int j = g + 16 * s;
        left[s] = min(j, w - 1);
        right[s] = max(w - 1 - j, 0);
    }
    float acc[8][4] = {};
    uint32_t half = (c.h + 1 - parity) / 2;
#pragma unroll 4
    for (uint32_t i = 0; i < half; i++) {
        const float* x = sh.tile[parity][i];
        float v[4] = {x[left[0]], x[left[1]], x[right[0]], x[right[1]]};
        float f[8];
        *reinterpret_cast<float4*>(f) = *reinterpret_cast<const float4*>(&sh.basis_h[parity][i][first]);
        *reinterpret_cast<float4*>(f + 4) = *reinterpret_cast<const float4*>(&sh.basis_h[parity][i][first + 4]);
#pragma unroll
        for (int r = 0; r < 8; r++) {
#pragma unroll
            for (int q = 0; q < 4; q++) acc[r][q] = __fmaf_rn(v[q], f[r], acc[r][q]);
        }
    }
    __syncthreads();
    uint32_t place = parity * HALF + first;
#pragma unroll
    for (int s = 0; s < 2; s++) {
        int j = g + 16 * s;
        if (j >= (w + 1) / 2) continue;
        float sum[8], difference[8];
#pragma unroll
        for (int r = 0; r < 8; r++) {
            sum[r] = 2 * j + 1 == w ? acc[r][s] : __fadd_rn(acc[r][s], acc[r][2 + s]);
            difference[r] = __fsub_rn(acc[r][s], acc[r][2 + s]);
        }
#pragma unroll
        for (int r = 0; r < 8; r += 4) {
            *reinterpret_cast<float4*>(&sh.tile[0][j][place + r]) = *reinterpret_cast<float4*>(sum + r);
            *reinterpret_cast<float4*>(&sh.tile[1][j][place + r]) = *reinterpret_cast<float4*>(difference + r);
        }
    }
    __syncthreads();
}

template <int PARITY>
__device__ __forceinline__ void column_terms(ForwardShared& sh, uint32_t j, uint32_t place, Outputs& out) {
    float x[8];
    *reinterpret_cast<float4*>(x) = *reinterpret_cast<const float4*>(&sh.tile[PARITY][j][place]);
    *reinterpret_cast<float4*>(x + 4) = *reinterpret_cast<const float4*>(&sh.tile[PARITY][j][place + 4]);
    float2 f = *reinterpret_cast<const float2*>(&sh.basis_w[PARITY][j][2 * out.group]);
#pragma unroll
    for (int r = 0; r < 8; r++) {
        out.z[r][PARITY] = __fmaf_rn(f.x, x[r], out.z[r][PARITY]);
        out.z[r][2 + PARITY] = __fmaf_rn(f.y, x[r], out.z[r][2 + PARITY]);
    }
}

/// (F_hᵀ X) F_w into registers.
__device__ __forceinline__ void transform_columns(const Chunk& c, ForwardShared& sh, Outputs& out) {
    uint32_t place = threadIdx.x / 16 * 8;
    out = {};
    out.group = threadIdx.x % 16;
    out.parity = place / HALF;
    out.first = place % HALF;
#pragma unroll 4
    for (uint32_t j = 0; j < c.w / 2; j++) {
        column_terms<0>(sh, j, place, out);
        column_terms<1>(sh, j, place, out);
    }
    if (c.w % 2 == 1) column_terms<0>(sh, c.w / 2, place, out);
}
