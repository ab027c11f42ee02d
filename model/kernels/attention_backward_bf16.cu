// Causal attention on tensor cores, backward, without atomics: one pass owns rows of dq, the other rows of
// dk and dv, and each computes the scores again from lse.
//
// P = e^(S − lse), delta = Σ over a row of dout · out, dS = P · (dout·vᵀ − delta) · scale;
// dq = dS·k, dk = dSᵀ·q, dv = Pᵀ·dout. Shapes and alignment as in attention_forward_bf16.cu; delta
// [B, H, T] f32 is written by the pass of dq, which runs first.
#include "attention.cuh"

/// A warp's 16 queries against one tile of keys.
template <unsigned D, unsigned KEYS>
__device__ __forceinline__ void query_gradient(float (&sums)[D / 8][4], const bf16* tq, const bf16* td, unsigned m,
                                               const bf16* tk, const bf16* tv, unsigned row, unsigned key,
                                               const float (&lse2)[2], const float (&delta)[2], float scale) {
    float s[KEYS / 8][4] = {}, dp[KEYS / 8][4] = {};
    score<D, KEYS / 8>(s, tq, m, tk);
    score<D, KEYS / 8>(dp, td, m, tv);
    unsigned lane = threadIdx.x % 32;
    float scale2 = scale * LOG2_E;
#pragma unroll
    for (unsigned j = 0; j < KEYS / 8; j++) {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            bool seen = key + j * 8 + lane % 4 * 2 + i % 2 <= row + i / 2 * 8;
            float p = seen ? exp2_fast(fmaf(s[j][i], scale2, -lse2[i / 2])) : 0.0f;
            s[j][i] = p * (dp[j][i] - delta[i / 2]) * scale;
        }
    }
    add_weighted<D, KEYS / 8, D / 8>(sums, s, tk, 0);
}

/// Where the tile of a block's queries keeps a row's delta: behind the row, in what is there against bank conflicts, so
/// that shared memory holds nothing else.
template <unsigned D>
__device__ __forceinline__ float& kept_delta(bf16* tile, unsigned row) {
    return *reinterpret_cast<float*>(tile + row * (D + PAD) + D);
}

/// Σ dout · out of a warp's 16 rows, from `m` of the tile on, into `delta` and the tile.
template <unsigned D>
__device__ __forceinline__ void row_deltas(const bf16* dout, const bf16* out, size_t stride, unsigned width,
                                           unsigned rows, float* delta, bf16* tile, unsigned m) {
    unsigned lane = threadIdx.x % 32;
    for (unsigned r = 0; r < 16; r++) {
        float sum = 0;
        for (unsigned i = lane * VECTOR; r < rows && i < width; i += 32 * VECTOR) {
            float a[8], b[8];
            load_vector(dout + r * stride + i, a);
            load_vector(out + r * stride + i, b);
#pragma unroll
            for (int j = 0; j < 8; j++) sum = fmaf(a[j], b[j], sum);
        }
        sum = warp_sum(sum);
        if (lane == 0) kept_delta<D>(tile, m + r) = sum;
        if (lane == 0 && r < rows) delta[r] = sum;
    }
    __syncwarp();
}

/// Grid (blocks of 16·WARPS queries, H, B).
template <unsigned D, unsigned KEYS, unsigned WARPS>
__device__ __forceinline__ void attention_backward_q(const bf16* q, const bf16* k, const bf16* v, const bf16* out,
                                                     const float* lse, const bf16* dout, bf16* dq, float* delta,
                                                     Heads h, float scale) {
    DYNAMIC_SHARED(shared);
    constexpr unsigned STRIDE = D + PAD, TILE = KEYS * STRIDE, ROWS = 16 * WARPS;
    bf16* tq = reinterpret_cast<bf16*>(shared);
    bf16 *td = tq + ROWS * STRIDE, *tk = td + ROWS * STRIDE, *tv = tk + 2 * TILE;
    unsigned head = blockIdx.y, batch = blockIdx.z, kv_head = head / (h.heads / h.kv_heads);
    unsigned first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    size_t at = h.q_at(batch, head) + first * h.q_stride();
    q += at, out += at, dout += at, dq += at;
    lse += h.stats_at(batch, head), delta += h.stats_at(batch, head);
    k += h.kv_at(batch, kv_head), v += h.kv_at(batch, kv_head);
    unsigned end = min(first + ROWS, h.seq), tiles = (end + KEYS - 1) / KEYS;
    auto bring = [&](unsigned tile) {
        if (tile < tiles) {
            size_t from = size_t(tile) * KEYS * h.kv_stride();
            unsigned slot = tile % 2 * TILE, left = h.seq - tile * KEYS;
            copy_tile<KEYS, D, 32 * WARPS>(tk + slot, k + from, h.kv_stride(), left, h.width);
            copy_tile<KEYS, D, 32 * WARPS>(tv + slot, v + from, h.kv_stride(), left, h.width);
        }
        copy_commit();
    };
    copy_tile<ROWS, D, 32 * WARPS>(tq, q, h.q_stride(), h.seq - first, h.width);
    copy_tile<ROWS, D, 32 * WARPS>(td, dout, h.q_stride(), h.seq - first, h.width);
    bring(0);
    unsigned lane = threadIdx.x % 32, m = threadIdx.x / 32 * 16, row = first + m + lane / 4;
    unsigned rows = first + m < h.seq ? h.seq - first - m : 0;
    row_deltas<D>(dout + m * h.q_stride(), out + m * h.q_stride(), h.q_stride(), h.width, rows, delta + first + m, tq,
                  m);
    float lse2[2], own[2], sums[D / 8][4] = {};
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        lse2[half] = row + 8 * half < h.seq ? lse[row + 8 * half] * LOG2_E : 0.0f;
        own[half] = kept_delta<D>(tq, m + lane / 4 + 8 * half);
    }
    for (unsigned tile = 0; tile < tiles; tile++) {
        copy_wait<0>();
        __syncthreads();
        bring(tile + 1);
        unsigned key = tile * KEYS, slot = tile % 2 * TILE;
        if (key > first + m + 15) continue;
        query_gradient<D, KEYS>(sums, tq, td, m, tk + slot, tv + slot, row, key, lse2, own, scale);
    }
    put_rows<D, D / 8>(dq + m * h.q_stride(), h.q_stride(), tq + m * STRIDE, sums, 1, 1, rows, h.width);
}

/// Sᵀ and dSᵀ of a warp's 16 keys and the `QUERIES` queries of a tile: weights of dout in dv, of q in dk.
template <unsigned D, unsigned QUERIES>
__device__ __forceinline__ void key_weights(float (&p)[QUERIES / 8][4], float (&ds)[QUERIES / 8][4], const bf16* tk,
                                            const bf16* tv, unsigned m, const bf16* tq, const bf16* td,
                                            const float* lse, const float* delta, unsigned key, unsigned query,
                                            unsigned seq, float scale) {
    score<D, QUERIES / 8>(p, tk, m, tq);   // Sᵀ
    score<D, QUERIES / 8>(ds, tv, m, td);  // (dout·vᵀ)ᵀ
    unsigned lane = threadIdx.x % 32;
    float scale2 = scale * LOG2_E;
#pragma unroll
    for (unsigned j = 0; j < QUERIES / 8; j++) {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            unsigned column = j * 8 + lane % 4 * 2 + i % 2, row = query + column;
            bool seen = key + i / 2 * 8 <= row && row < seq;
            float weight = seen ? exp2_fast(fmaf(p[j][i], scale2, -lse[column] * LOG2_E)) : 0.0f;
            p[j][i] = weight;
            ds[j][i] = weight * (ds[j][i] - delta[column]) * scale;
        }
    }
}

/// Writes a fragment [16, 8·TILES] to rows from `m`, columns from `n` of a tile of bf16.
template <unsigned TILES>
__device__ __forceinline__ void show_weights(bf16* tile, unsigned stride, unsigned m, unsigned n,
                                             const float (&p)[TILES][4]) {
    unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned j = 0; j < TILES; j++) {
        bf16* at = tile + (m + lane / 4) * stride + n + j * 8 + lane % 4 * 2;
        *reinterpret_cast<uint32_t*>(at) = pack_bf16(p[j][0], p[j][1]);
        *reinterpret_cast<uint32_t*>(at + 8 * stride) = pack_bf16(p[j][2], p[j][3]);
    }
}

/// sums[16, 8·WIDE] += weights[16 rows from `m`, QUERIES] · b[QUERIES, columns from `n`], both in shared memory.
template <unsigned D, unsigned QUERIES, unsigned WIDE>
__device__ __forceinline__ void add_shown(float (&sums)[WIDE][4], const bf16* weights, unsigned m, const bf16* b,
                                          unsigned n) {
#pragma unroll 1  // one step's factors at a time: the sums fill the registers
    for (unsigned k = 0; k < QUERIES; k += 16) {
        uint32_t fa[4];
        load_a(fa, weights, QUERIES + PAD, m, k);
#pragma unroll
        for (unsigned i = 0; i < WIDE; i += 2) {
            uint32_t fb[4];
            load_b(fb, b, D + PAD, k, n + i * 8);
            mma_bf16(sums[i], fa, fb[0], fb[1]);
            mma_bf16(sums[i + 1], fa, fb[2], fb[3]);
        }
    }
}

/// Over all query heads of a group, in order. Grid (blocks of 16·WARPS/SPLIT keys, K, B). Where the sums of a whole
/// row do not fit the registers, SPLIT = 2 warps share 16 keys: each weighs half of the queries, shows its
/// weights to the other, and owns half of the columns.
template <unsigned D, unsigned QUERIES, unsigned SPLIT, unsigned WARPS>
__device__ __forceinline__ void attention_backward_kv(const bf16* q, const bf16* k, const bf16* v, const float* lse,
                                                      const float* delta, const bf16* dout, bf16* dk, bf16* dv,
                                                      Heads h, float scale) {
    DYNAMIC_SHARED(shared);
    constexpr unsigned STRIDE = D + PAD, TILE = QUERIES * STRIDE, ROWS = 16 * WARPS / SPLIT, PART = D / SPLIT;
    constexpr unsigned SHOWN = QUERIES + PAD, THREADS = 32 * WARPS;
    __shared__ float stats[2][2][QUERIES];  // lse and delta of the queries in each slot
    __shared__ __align__(16) bf16 weights[2][SPLIT == 1 ? 1 : ROWS * SHOWN];
    bf16* tk = reinterpret_cast<bf16*>(shared);
    bf16 *tv = tk + ROWS * STRIDE, *tq = tv + ROWS * STRIDE, *td = tq + 2 * TILE;
    unsigned kv_head = blockIdx.y, batch = blockIdx.z, first = blockIdx.x * ROWS, group = h.heads / h.kv_heads;
    size_t at = h.kv_at(batch, kv_head) + first * h.kv_stride();
    k += at, v += at, dk += at, dv += at;
    // Queries before the block's first key see none of its keys.
    unsigned first_tile = first / QUERIES, tiles = (h.seq + QUERIES - 1) / QUERIES - first_tile;
    auto bring = [&](unsigned step) {
        if (step < group * tiles) {
            unsigned head = kv_head * group + step / tiles, query = (first_tile + step % tiles) * QUERIES;
            size_t from = h.q_at(batch, head) + query * h.q_stride(), row = h.stats_at(batch, head) + query;
            unsigned slot = step % 2 * TILE, left = h.seq - query;
            copy_tile<QUERIES, D, THREADS>(tq + slot, q + from, h.q_stride(), left, h.width);
            copy_tile<QUERIES, D, THREADS>(td + slot, dout + from, h.q_stride(), left, h.width);
            unsigned i = threadIdx.x;
            if (i < QUERIES) {
                unsigned bytes = i < left ? 4 : 0, in = i < left ? i : 0;
                copy_async_4(&stats[step % 2][0][i], lse + row + in, bytes);
                copy_async_4(&stats[step % 2][1][i], delta + row + in, bytes);
            }
        }
        copy_commit();
    };
    copy_tile<ROWS, D, THREADS>(tk, k, h.kv_stride(), h.seq - first, h.width);
    copy_tile<ROWS, D, THREADS>(tv, v, h.kv_stride(), h.seq - first, h.width);
    bring(0);
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, side = warp / (WARPS / SPLIT);
    unsigned m = warp % (WARPS / SPLIT) * 16, key = first + m + lane / 4, n = side * PART;
    float sums_k[PART / 8][4] = {}, sums_v[PART / 8][4] = {};
    for (unsigned step = 0; step < group * tiles; step++) {
        copy_wait<0>();
        __syncthreads();
        bring(step + 1);
        const bf16 *sq = tq + step % 2 * TILE, *sd = td + step % 2 * TILE;
        const float *slot_lse = stats[step % 2][0], *slot_delta = stats[step % 2][1];
        unsigned query = (first_tile + step % tiles) * QUERIES;
        bool before = query + QUERIES <= first + m;  // before all keys of the warp
        constexpr unsigned OWN = QUERIES / SPLIT;
        unsigned mine = side * OWN;
        float p[OWN / 8][4] = {}, ds[OWN / 8][4] = {};
        if (!before) {
            key_weights<D, OWN>(p, ds, tk, tv, m, sq + mine * STRIDE, sd + mine * STRIDE, slot_lse + mine,
                                slot_delta + mine, key, query + mine, h.seq, scale);
        }
        if constexpr (SPLIT == 1) {
            if (before) continue;
            add_weighted<D, QUERIES / 8, PART / 8>(sums_v, p, sd, n);
            add_weighted<D, QUERIES / 8, PART / 8>(sums_k, ds, sq, n);
        } else {
            show_weights(weights[0], SHOWN, m, mine, p);
            show_weights(weights[1], SHOWN, m, mine, ds);
            __syncthreads();  // both halves are there; the next step's barrier keeps them until all have read
            if (before) continue;
            add_shown<D, QUERIES, PART / 8>(sums_v, weights[0], m, sd, n);
            add_shown<D, QUERIES, PART / 8>(sums_k, weights[1], m, sq, n);
        }
    }
    // Each warp stores through its own columns of its keys' rows; none reads them after the last step's barrier.
    unsigned rows = first + m < h.seq ? h.seq - first - m : 0, columns = h.width > n ? h.width - n : 0;
    size_t to = m * h.kv_stride() + n;
    put_rows<D, PART / 8>(dk + to, h.kv_stride(), tk + m * STRIDE + n, sums_k, 1, 1, rows, columns);
    put_rows<D, PART / 8>(dv + to, h.kv_stride(), tv + m * STRIDE + n, sums_v, 1, 1, rows, columns);
}

/// Dynamic shared memory, in bytes: 4 · (16·WARPS + 2·KEYS) · (D + 8).
#define ATTENTION_BACKWARD_Q(name, D, KEYS, WARPS)                                                                 \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) attention_backward_q_bf16_##name(                  \
        const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,                        \
        const bf16* __restrict__ out, const float* __restrict__ lse, const bf16* __restrict__ dout,                \
        bf16* __restrict__ dq, float* __restrict__ delta, unsigned seq, unsigned heads, unsigned kv_heads,         \
        unsigned width, float scale) {                                                                             \
        Heads h = {seq, heads, kv_heads, width};                                                                   \
        attention_backward_q<D, KEYS, WARPS>(q, k, v, out, lse, dout, dq, delta, h, scale);                        \
    }                                                                                                              \
    HOST_KERNEL(attention_backward_q_bf16_##name)
ATTENTION_BACKWARD_Q(64, 64, 64, 8);
ATTENTION_BACKWARD_Q(128, 128, 64, 8);
ATTENTION_BACKWARD_Q(256, 256, 16, 4);
ATTENTION_BACKWARD_Q(128_small, 128, 16, 8);

/// Dynamic shared memory, in bytes: 4 · (16·WARPS/SPLIT + 2·QUERIES) · (D + 8).
#define ATTENTION_BACKWARD_KV(name, D, QUERIES, SPLIT, WARPS)                                                      \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) attention_backward_kv_bf16_##name(                 \
        const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,                        \
        const float* __restrict__ lse, const float* __restrict__ delta, const bf16* __restrict__ dout,             \
        bf16* __restrict__ dk, bf16* __restrict__ dv, unsigned seq, unsigned heads, unsigned kv_heads,             \
        unsigned width, float scale) {                                                                             \
        Heads h = {seq, heads, kv_heads, width};                                                                   \
        attention_backward_kv<D, QUERIES, SPLIT, WARPS>(q, k, v, lse, delta, dout, dk, dv, h, scale);              \
    }                                                                                                              \
    HOST_KERNEL(attention_backward_kv_bf16_##name)
ATTENTION_BACKWARD_KV(64, 64, 64, 1, 8);
ATTENTION_BACKWARD_KV(128, 128, 32, 1, 8);
ATTENTION_BACKWARD_KV(256, 256, 32, 2, 8);
ATTENTION_BACKWARD_KV(128_small, 128, 16, 1, 8);
ATTENTION_BACKWARD_KV(256_small, 256, 32, 2, 2);
