// Causal attention on tensor cores, forward (FlashAttention-2, Dao 2023): an online softmax over tiles
// of keys, T×T never in memory.
//
// S = q·kᵀ·scale, out = softmax(S)·v, lse = log Σ e^S. q, out [B, T, H·D]; k, v [B, T, K·D] bf16; lse
// [B, H, T] f32; scale = 1/√D. Kernels exist for D up to 64, 128 and 256, D a multiple of 8; addresses are
// 16-byte aligned.
//
// Grid (blocks of 128 queries, H, B), 256 threads. A warp owns 16 queries and all their sums. Kernels whose names end with
// `_small` need at most 99 KiB of shared memory a block, which is all that some devices have.
#include "attention.cuh"

constexpr unsigned FORWARD_WARPS = 8, FORWARD_ROWS = 16 * FORWARD_WARPS, FORWARD_THREADS = 32 * FORWARD_WARPS;

/// One tile of keys for a warp's 16 queries: scores, softmax so far, weighted values.
template <unsigned D, unsigned KEYS>
__device__ __forceinline__ void attend(float (&sums)[D / 8][4], float (&top)[2], float (&total)[2], const bf16* tq,
                                       unsigned m, const bf16* tk, const bf16* tv, unsigned row, unsigned key,
                                       float scale2) {
    float s[KEYS / 8][4] = {};
    score<D, KEYS / 8>(s, tq, m, tk);
    unsigned lane = threadIdx.x % 32;
    if (key + KEYS > row - lane / 4 + 1) {  // the tile reaches past the warp's first query
#pragma unroll
        for (unsigned j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                if (key + j * 8 + lane % 4 * 2 + i % 2 > row + i / 2 * 8) s[j][i] = -CUDART_INF_F;
            }
        }
    }
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        float above = top[half];
#pragma unroll
        for (unsigned j = 0; j < KEYS / 8; j++) above = fmaxf(above, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
        // The four lanes of a row agree. Finite: the first tile holds key 0, which every query sees.
        above = fmaxf(above, __shfl_xor_sync(ALL_LANES, above, 1));
        above = fmaxf(above, __shfl_xor_sync(ALL_LANES, above, 2));
        float shrink = exp2_fast((top[half] - above) * scale2), part = 0;
        top[half] = above;
#pragma unroll
        for (unsigned j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (unsigned i = 2 * half; i < 2 * half + 2; i++) {
                s[j][i] = exp2_fast(fmaf(s[j][i], scale2, -above * scale2));
                part += s[j][i];
            }
        }
        total[half] = total[half] * shrink + part;  // of this lane's columns; summed over lanes at the end
#pragma unroll
        for (unsigned i = 0; i < D / 8; i++) sums[i][2 * half] *= shrink, sums[i][2 * half + 1] *= shrink;
    }
    add_weighted<D, KEYS / 8, D / 8>(sums, s, tv, 0);
}

template <unsigned D, unsigned KEYS>
__device__ __forceinline__ void attention_forward(const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse,
                                                  Heads h, float scale) {
    DYNAMIC_SHARED(shared);
    constexpr unsigned STRIDE = D + PAD, TILE = KEYS * STRIDE;
    bf16* tq = reinterpret_cast<bf16*>(shared);
    bf16* tk = tq + FORWARD_ROWS * STRIDE;
    bf16* tv = tk + 2 * TILE;
    unsigned head = blockIdx.y, batch = blockIdx.z, kv_head = head / (h.heads / h.kv_heads);
    unsigned first = (gridDim.x - 1 - blockIdx.x) * FORWARD_ROWS;  // the longest rows begin first
    q += h.q_at(batch, head), out += h.q_at(batch, head), lse += h.stats_at(batch, head);
    k += h.kv_at(batch, kv_head), v += h.kv_at(batch, kv_head);
    unsigned end = min(first + FORWARD_ROWS, h.seq), tiles = (end + KEYS - 1) / KEYS;
    auto bring = [&](unsigned tile) {
        if (tile < tiles) {
            size_t at = size_t(tile) * KEYS * h.kv_stride();
            unsigned slot = tile % 2 * TILE, left = h.seq - tile * KEYS;
            copy_tile<KEYS, D, FORWARD_THREADS>(tk + slot, k + at, h.kv_stride(), left, h.width);
            copy_tile<KEYS, D, FORWARD_THREADS>(tv + slot, v + at, h.kv_stride(), left, h.width);
        }
        copy_commit();
    };
    copy_tile<FORWARD_ROWS, D, FORWARD_THREADS>(tq, q + first * h.q_stride(), h.q_stride(), h.seq - first, h.width);
    bring(0);
    unsigned lane = threadIdx.x % 32, m = threadIdx.x / 32 * 16, row = first + m + lane / 4;
    float sums[D / 8][4] = {}, top[2] = {-CUDART_INF_F, -CUDART_INF_F}, total[2] = {0, 0};
    float scale2 = scale * LOG2_E;
    for (unsigned tile = 0; tile < tiles; tile++) {
        copy_wait<0>();
        __syncthreads();  // this tile is there for all, and the other slot is free
        bring(tile + 1);
        unsigned key = tile * KEYS, slot = tile % 2 * TILE;
        if (key > first + m + 15) continue;  // later than all queries of the warp
        attend<D, KEYS>(sums, top, total, tq, m, tk + slot, tv + slot, row, key, scale2);
    }
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(ALL_LANES, total[half], 1);
        total[half] += __shfl_xor_sync(ALL_LANES, total[half], 2);
        if (lane % 4 == 0 && row + 8 * half < h.seq) lse[row + 8 * half] = logf(total[half]) + top[half] * scale;
    }
    unsigned rows = first + m < h.seq ? h.seq - first - m : 0;
    put_rows<D, D / 8>(out + (first + m) * h.q_stride(), h.q_stride(), tq + m * STRIDE, sums, 1.0f / total[0],
                       1.0f / total[1], rows, h.width);
}

/// Dynamic shared memory, in bytes: 2 · (128 + 4 · KEYS) · (D + 8).
#define ATTENTION_FORWARD(name, D, KEYS)                                                                           \
    extern "C" __global__ void __launch_bounds__(FORWARD_THREADS, 1) attention_forward_bf16_##name(                \
        const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v, bf16* __restrict__ out, \
        float* __restrict__ lse, unsigned seq, unsigned heads, unsigned kv_heads, unsigned width, float scale) {   \
        attention_forward<D, KEYS>(q, k, v, out, lse, {seq, heads, kv_heads, width}, scale);                       \
    }                                                                                                              \
    HOST_KERNEL(attention_forward_bf16_##name)
ATTENTION_FORWARD(64, 64, 64);
ATTENTION_FORWARD(128, 128, 64);
ATTENTION_FORWARD(256, 256, 32);
ATTENTION_FORWARD(128_small, 128, 48);
ATTENTION_FORWARD(256_small, 256, 16);
