// Matrix product in f32, without tensor cores: out[m, n] = alpha · a[m, k] · b[k, n] (+ out).
//
// Storage as in matmul_bf16.cu. A block of 256 threads computes 128 × 128 with tiles of 16 along k; a
// thread computes 8 × 8. Every sum runs along k in one order.
#include "device.cuh"

constexpr unsigned F32_TILE = 128, F32_TILE_K = 16, F32_STRIDE = F32_TILE + 4;

/// Brings a factor's tile into shared memory as [k, outer]; 0 outside of the matrix.
template <bool K_LAST>
__device__ __forceinline__ void bring_f32(float (&tile)[F32_TILE_K][F32_STRIDE], const float* from, unsigned stride,
                                          unsigned outer, unsigned k, unsigned outers, unsigned ks) {
#pragma unroll
    for (unsigned i = 0; i < F32_TILE * F32_TILE_K / 256; i++) {
        unsigned element = threadIdx.x + i * 256;
        unsigned in = K_LAST ? element % F32_TILE_K : element / F32_TILE;
        unsigned out = K_LAST ? element / F32_TILE_K : element % F32_TILE;
        bool inside = k + in < ks && outer + out < outers;
        size_t at = K_LAST ? size_t(outer + out) * stride + k + in : size_t(k + in) * stride + outer + out;
        tile[in][out] = inside ? from[at] : 0.0f;
    }
}

template <bool A_T, bool B_T>
__device__ __forceinline__ void product_f32(const float* a, const float* b, float* out, unsigned m, unsigned n,
                                            unsigned k, unsigned lda, unsigned ldb, unsigned ldc, float alpha,
                                            bool add) {
    __shared__ __align__(16) float ta[F32_TILE_K][F32_STRIDE];
    __shared__ __align__(16) float tb[F32_TILE_K][F32_STRIDE];
    unsigned blocks_n = (n + F32_TILE - 1) / F32_TILE;
    unsigned m0 = blockIdx.x / blocks_n * F32_TILE, n0 = blockIdx.x % blocks_n * F32_TILE;
    // Rows 4y.. and 64 + 4y.., columns 4x.. and 64 + 4x..: reads of shared memory without conflicts.
    unsigned x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
    float sums[8][8] = {};
    for (unsigned step = 0; step < k; step += F32_TILE_K) {
        bring_f32<!A_T>(ta, a, lda, m0, step, m, k);
        bring_f32<B_T>(tb, b, ldb, n0, step, n, k);
        __syncthreads();
#pragma unroll
        for (unsigned i = 0; i < F32_TILE_K; i++) {
            float u[8], v[8];
#pragma unroll
            for (unsigned j = 0; j < 4; j++) {
                u[j] = ta[i][y + j], u[4 + j] = ta[i][64 + y + j];
                v[j] = tb[i][x + j], v[4 + j] = tb[i][64 + x + j];
            }
#pragma unroll
            for (unsigned r = 0; r < 8; r++) {
#pragma unroll
                for (unsigned c = 0; c < 8; c++) sums[r][c] = fmaf(u[r], v[c], sums[r][c]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (unsigned r = 0; r < 8; r++) {
        unsigned row = m0 + r / 4 * 64 + y + r % 4;
#pragma unroll
        for (unsigned c = 0; c < 8; c++) {
            unsigned column = n0 + c / 4 * 64 + x + c % 4;
            if (row >= m || column >= n) continue;
            float* at = out + size_t(row) * ldc + column;
            *at = add ? *at + alpha * sums[r][c] : alpha * sums[r][c];
        }
    }
}

#define PRODUCT_F32(name, A_T, B_T)                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                               \
        matmul_##name##_f32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out,      \
                            unsigned m, unsigned n, unsigned k, unsigned lda, unsigned ldb, unsigned ldc,           \
                            float alpha, unsigned add) {                                                            \
        product_f32<A_T, B_T>(a, b, out, m, n, k, lda, ldb, ldc, alpha, add != 0);                                  \
    }                                                                                                               \
    HOST_KERNEL(matmul_##name##_f32)
PRODUCT_F32(nn, false, false);
PRODUCT_F32(nt, false, true);
PRODUCT_F32(tn, true, false);
PRODUCT_F32(tt, true, true);
