// Matrix product on tensor cores: out[m, n] = alpha · a[m, k] · b[k, n] (+ out), bf16 factors, f32 sums.
//
// For machines without cuBLASLt. `a` is stored [m, k], or [k, m] (transposed); `b` [k, n] or [n, k]. Rows
// are `lda`, `ldb`, `ldc` elements apart. out is bf16 or f32. A block of 8 warps computes 128 × 128
// with tiles of 32 along k, brought in by a pipeline of 4 asynchronous copies; a warp computes 64 × 32.
// Every sum runs along k in one order.
#include "fragments.cuh"

constexpr unsigned TILE_M = 128, TILE_N = 128, TILE_K = 32, STAGES = 4, PRODUCT_THREADS = 256;
/// Elements of one factor's tile in either order.
constexpr unsigned FACTOR = TILE_M * (TILE_K + PAD);
/// Dynamic shared memory of a block, in bytes: 81,920.
constexpr unsigned PRODUCT_SHARED = STAGES * 2 * FACTOR * 2;
/// Blocks that follow each other share rows of `a` and columns of `b` in the L2 cache.
constexpr unsigned GROUP = 8;

/// Starts bringing in the part of a factor that lies at (outer, k): `outer` counts m or n.
template <bool K_LAST, bool ALIGNED>
__device__ __forceinline__ void bring_factor(bf16* tile, const bf16* from, unsigned stride, unsigned outer, unsigned k,
                                             unsigned outers, unsigned ks) {
    unsigned outers_left = outers - outer, ks_left = ks - k;
    if constexpr (K_LAST) {
        const bf16* at = from + size_t(outer) * stride + k;
        if constexpr (ALIGNED) copy_tile<TILE_M, TILE_K, PRODUCT_THREADS>(tile, at, stride, outers_left, ks_left);
        else copy_tile_unaligned<TILE_M, TILE_K, PRODUCT_THREADS>(tile, at, stride, outers_left, ks_left);
    } else {
        const bf16* at = from + size_t(k) * stride + outer;
        if constexpr (ALIGNED) copy_tile<TILE_K, TILE_M, PRODUCT_THREADS>(tile, at, stride, ks_left, outers_left);
        else copy_tile_unaligned<TILE_K, TILE_M, PRODUCT_THREADS>(tile, at, stride, ks_left, outers_left);
    }
}

/// Adds the product of two tiles to the warp's 64 × 32 sums.
template <bool A_T, bool B_T>
__device__ __forceinline__ void multiply_tiles(float (&sums)[4][4][4], const bf16* a, const bf16* b, unsigned m,
                                               unsigned n) {
#pragma unroll
    for (unsigned k = 0; k < TILE_K; k += 16) {
        uint32_t fa[4][4], fb[2][4];
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            if constexpr (A_T) load_a_transposed(fa[i], a, TILE_M + PAD, m + i * 16, k);
            else load_a(fa[i], a, TILE_K + PAD, m + i * 16, k);
        }
#pragma unroll
        for (unsigned j = 0; j < 2; j++) {
            if constexpr (B_T) load_b_transposed(fb[j], b, TILE_K + PAD, k, n + j * 16);
            else load_b(fb[j], b, TILE_N + PAD, k, n + j * 16);
        }
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
#pragma unroll
            for (unsigned j = 0; j < 4; j++) mma_bf16(sums[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
    }
}

__device__ __forceinline__ void put_pair(float* out, float x, float y, bool add, bool pair) {
    if (pair && reinterpret_cast<uintptr_t>(out) % 8 == 0) {
        float2 v = make_float2(x, y);
        if (add) {
            float2 old = *reinterpret_cast<float2*>(out);
            v.x += old.x, v.y += old.y;
        }
        *reinterpret_cast<float2*>(out) = v;
        return;
    }
    out[0] = add ? out[0] + x : x;
    if (pair) out[1] = add ? out[1] + y : y;
}
__device__ __forceinline__ void put_pair(bf16* out, float x, float y, bool add, bool pair) {
    if (pair && reinterpret_cast<uintptr_t>(out) % 4 == 0) {
        uint32_t* both = reinterpret_cast<uint32_t*>(out);
        *both = add ? pack_bf16(low_bf16(*both) + x, high_bf16(*both) + y) : pack_bf16(x, y);
        return;
    }
    out[0] = from_f32<bf16>(add ? to_f32(out[0]) + x : x);
    if (pair) out[1] = from_f32<bf16>(add ? to_f32(out[1]) + y : y);
}

template <bool A_T, bool B_T, bool ALIGNED, class Out>
__device__ __forceinline__ void product(const bf16* a, const bf16* b, Out* out, unsigned m, unsigned n, unsigned k,
                                        unsigned lda, unsigned ldb, unsigned ldc, float alpha, bool add) {
    DYNAMIC_SHARED(shared);
    bf16* tiles = reinterpret_cast<bf16*>(shared);
    // Blocks go down GROUP tiles of m, then right along n.
    unsigned blocks_m = (m + TILE_M - 1) / TILE_M, blocks_n = (n + TILE_N - 1) / TILE_N;
    unsigned group = blockIdx.x / (GROUP * blocks_n), in_group = blockIdx.x % (GROUP * blocks_n);
    unsigned height = min(GROUP, blocks_m - group * GROUP);
    unsigned m0 = (group * GROUP + in_group % height) * TILE_M, n0 = in_group / height * TILE_N;
    unsigned steps = (k + TILE_K - 1) / TILE_K;
    auto bring = [&](unsigned step) {
        if (step < steps) {
            bf16* tile = tiles + step % STAGES * 2 * FACTOR;
            bring_factor<!A_T, ALIGNED>(tile, a, lda, m0, step * TILE_K, m, k);
            bring_factor<B_T, ALIGNED>(tile + FACTOR, b, ldb, n0, step * TILE_K, n, k);
        }
        copy_commit();  // empty at the end, so that the wait below always counts the same
    };
    for (unsigned step = 0; step < STAGES - 1; step++) bring(step);
    unsigned warp = threadIdx.x / 32, warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;
    float sums[4][4][4] = {};
    for (unsigned step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        __syncthreads();  // this step's tiles are there for all, and the last step's are free
        bring(step + STAGES - 1);
        const bf16* tile = tiles + step % STAGES * 2 * FACTOR;
        multiply_tiles<A_T, B_T>(sums, tile, tile + FACTOR, warp_m, warp_n);
    }
    copy_wait<0>();
    unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            unsigned column = n0 + warp_n + j * 8 + lane % 4 * 2;
#pragma unroll
            for (unsigned half = 0; half < 2; half++) {
                unsigned row = m0 + warp_m + i * 16 + half * 8 + lane / 4;
                if (row >= m || column >= n) continue;
                float x = alpha * sums[i][j][2 * half], y = alpha * sums[i][j][2 * half + 1];
                put_pair(out + size_t(row) * ldc + column, x, y, add, column + 1 < n);
            }
        }
    }
}

#define PRODUCT(name, A_T, B_T, Out)                                                                                 \
    extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, 2)                                                 \
        matmul_##name(const bf16* __restrict__ a, const bf16* __restrict__ b, Out* __restrict__ out, unsigned m,     \
                      unsigned n, unsigned k, unsigned lda, unsigned ldb, unsigned ldc, float alpha, unsigned add) { \
        product<A_T, B_T, true>(a, b, out, m, n, k, lda, ldb, ldc, alpha, add != 0);                                 \
    }                                                                                                                \
    HOST_KERNEL(matmul_##name);                                                                                      \
    extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, 2)                                                 \
        matmul_unaligned_##name(const bf16* __restrict__ a, const bf16* __restrict__ b, Out* __restrict__ out,       \
                                unsigned m, unsigned n, unsigned k, unsigned lda, unsigned ldb, unsigned ldc,        \
                                float alpha, unsigned add) {                                                         \
        product<A_T, B_T, false>(a, b, out, m, n, k, lda, ldb, ldc, alpha, add != 0);                                \
    }                                                                                                                \
    HOST_KERNEL(matmul_unaligned_##name)
#define PRODUCTS(suffix, Out)                    \
    PRODUCT(nn_##suffix, false, false, Out);     \
    PRODUCT(nt_##suffix, false, true, Out);      \
    PRODUCT(tn_##suffix, true, false, Out);      \
    PRODUCT(tt_##suffix, true, true, Out)
PRODUCTS(bf16_bf16, bf16);
PRODUCTS(bf16_f32, float);
