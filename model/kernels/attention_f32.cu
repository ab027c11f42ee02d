// Causal attention in f32, without tensor cores: what the bf16 kernels are compared with on a device.
//
// q, out, dout, dq [B, T, H·D]; k, v, dk, dv [B, T, K·D]; lse, delta [B, H, T]; `scale` = 1/√D; any D up
// to 256. Query head h reads key/value head h / (H/K). Scores exist for 32 × 32 at a time.
//
// Forward: S = q·kᵀ·scale, out = softmax(S)·v, lse = log Σ e^S, by an online softmax. Backward, with
// P = e^(S − lse) and delta = Σ dout · out: dS = P · (dout·vᵀ − delta) · scale, dq = dS·k, dk = dSᵀ·q,
// dv = Pᵀ·dout. Every sum has one owner and one order: no atomics.
//
// A block of 8 warps takes 32 rows (queries; keys in the pass of dk and dv), 4 a warp. A lane scores one
// element of the other side's tile of 32, and owns every 32nd column of the output.
#include "device.cuh"

constexpr unsigned ROWS = 32, ROWS_A_WARP = 4, SIDE_THREADS = 256, MOST_PARTS = 8;


/// Rows of one head's matrix: `first`.. of `rows`, `stride` apart, into a tile of stride `width + 1`.
__device__ __forceinline__ void bring_rows(float* tile, const float* from, unsigned first, unsigned rows, size_t stride,
                                           unsigned width) {
    for (unsigned i = threadIdx.x; i < ROWS * width; i += SIDE_THREADS) {
        unsigned row = i / width, column = i % width;
        tile[row * (width + 1) + column] = first + row < rows ? from[(first + row) * stride + column] : 0.0f;
    }
}

__device__ __forceinline__ float dot_rows(const float* a, const float* b, unsigned width) {
    float sum = 0;
    for (unsigned i = 0; i < width; i++) sum = fmaf(a[i], b[i], sum);
    return sum;
}

/// sums[part] += Σ over the tile's rows j of weight(lane j) · tile[j, lane + 32·part].
__device__ __forceinline__ void add_rows(float (&sums)[MOST_PARTS], float weight, const float* tile, unsigned width) {
    unsigned lane = threadIdx.x % 32;
    for (unsigned j = 0; j < 32; j++) {
        float w = __shfl_sync(ALL_LANES, weight, j);
#pragma unroll
        for (unsigned part = 0; part < MOST_PARTS; part++) {
            unsigned column = lane + 32 * part;
            if (column < width) sums[part] = fmaf(w, tile[j * (width + 1) + column], sums[part]);
        }
    }
}

__device__ __forceinline__ void put_row(float* to, const float (&sums)[MOST_PARTS], float factor, unsigned width) {
#pragma unroll
    for (unsigned part = 0; part < MOST_PARTS; part++) {
        unsigned column = threadIdx.x % 32 + 32 * part;
        if (column < width) to[column] = sums[part] * factor;
    }
}

/// Grid: (blocks of 32 queries, H, B). Dynamic shared memory: 3 · 32 · (D + 1) floats.
extern "C" __global__ void __launch_bounds__(SIDE_THREADS, 2)
    attention_forward_f32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                          float* __restrict__ out, float* __restrict__ lse, unsigned seq, unsigned heads,
                          unsigned kv_heads, unsigned width, float scale) {
    DYNAMIC_SHARED(shared);
    float *tq = reinterpret_cast<float*>(shared), *tk = tq + ROWS * (width + 1), *tv = tk + ROWS * (width + 1);
    unsigned head = blockIdx.y, kv_head = head / (heads / kv_heads), batch = blockIdx.z;
    unsigned first = (gridDim.x - 1 - blockIdx.x) * ROWS;  // the longest rows begin first
    size_t q_stride = size_t(heads) * width, k_stride = size_t(kv_heads) * width;
    q += size_t(batch) * seq * q_stride + head * width, out += size_t(batch) * seq * q_stride + head * width;
    k += size_t(batch) * seq * k_stride + kv_head * width, v += size_t(batch) * seq * k_stride + kv_head * width;
    lse += (size_t(batch) * heads + head) * seq;
    unsigned lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS_A_WARP;
    float sums[ROWS_A_WARP][MOST_PARTS] = {}, top[ROWS_A_WARP], total[ROWS_A_WARP];
    for (unsigned r = 0; r < ROWS_A_WARP; r++) top[r] = -CUDART_INF_F, total[r] = 0;
    bring_rows(tq, q, first, seq, q_stride, width);
    for (unsigned key = 0; key < first + ROWS && key < seq; key += 32) {
        __syncthreads();
        bring_rows(tk, k, key, seq, k_stride, width);
        bring_rows(tv, v, key, seq, k_stride, width);
        __syncthreads();
#pragma unroll
        for (unsigned r = 0; r < ROWS_A_WARP; r++) {
            unsigned row = first + mine + r;
            float s = dot_rows(tq + (mine + r) * (width + 1), tk + lane * (width + 1), width) * scale;
            if (key + lane > row) s = -CUDART_INF_F;
            float above = fmaxf(top[r], warp_max(s));  // finite: the first tile holds key 0
            float shrink = expf(top[r] - above), p = expf(s - above);
            top[r] = above;
            total[r] = total[r] * shrink + warp_sum(p);
#pragma unroll
            for (unsigned part = 0; part < MOST_PARTS; part++) sums[r][part] *= shrink;
            add_rows(sums[r], p, tv, width);
        }
    }
#pragma unroll
    for (unsigned r = 0; r < ROWS_A_WARP; r++) {
        unsigned row = first + mine + r;
        if (row >= seq) continue;
        put_row(out + row * q_stride, sums[r], 1.0f / total[r], width);
        if (lane == 0) lse[row] = logf(total[r]) + top[r];
    }
}
HOST_KERNEL(attention_forward_f32);

/// delta = Σ over a row of dout · out, by a warp: the same bits in every lane.
__device__ __forceinline__ float row_delta(const float* dout, const float* out, unsigned width) {
    float sum = 0;
    for (unsigned i = threadIdx.x % 32; i < width; i += 32) sum = fmaf(dout[i], out[i], sum);
    return warp_sum(sum);
}

/// Sets dq, and delta for the pass of dk and dv. Grid as forward. Dynamic shared memory: 4 · 32 · (D + 1) floats.
extern "C" __global__ void __launch_bounds__(SIDE_THREADS, 2)
    attention_backward_q_f32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                             const float* __restrict__ out, const float* __restrict__ lse,
                             const float* __restrict__ dout, float* __restrict__ dq, float* __restrict__ delta,
                             unsigned seq, unsigned heads, unsigned kv_heads, unsigned width, float scale) {
    DYNAMIC_SHARED(shared);
    unsigned tile = ROWS * (width + 1);
    float *tq = reinterpret_cast<float*>(shared), *td = tq + tile, *tk = td + tile, *tv = tk + tile;
    unsigned head = blockIdx.y, kv_head = head / (heads / kv_heads), batch = blockIdx.z;
    unsigned first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    size_t q_stride = size_t(heads) * width, k_stride = size_t(kv_heads) * width;
    size_t at = size_t(batch) * seq * q_stride + head * width;
    q += at, out += at, dout += at, dq += at;
    k += size_t(batch) * seq * k_stride + kv_head * width, v += size_t(batch) * seq * k_stride + kv_head * width;
    lse += (size_t(batch) * heads + head) * seq, delta += (size_t(batch) * heads + head) * seq;
    unsigned lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS_A_WARP;
    float sums[ROWS_A_WARP][MOST_PARTS] = {}, row_lse[ROWS_A_WARP] = {}, own[ROWS_A_WARP] = {};
    bring_rows(tq, q, first, seq, q_stride, width);
    bring_rows(td, dout, first, seq, q_stride, width);
#pragma unroll
    for (unsigned r = 0; r < ROWS_A_WARP; r++) {
        unsigned row = first + mine + r;
        if (row >= seq) continue;
        row_lse[r] = lse[row];
        own[r] = row_delta(dout + row * q_stride, out + row * q_stride, width);
        if (lane == 0) delta[row] = own[r];
    }
    for (unsigned key = 0; key < first + ROWS && key < seq; key += 32) {
        __syncthreads();
        bring_rows(tk, k, key, seq, k_stride, width);
        bring_rows(tv, v, key, seq, k_stride, width);
        __syncthreads();
#pragma unroll
        for (unsigned r = 0; r < ROWS_A_WARP; r++) {
            float s = dot_rows(tq + (mine + r) * (width + 1), tk + lane * (width + 1), width) * scale;
            float dp = dot_rows(td + (mine + r) * (width + 1), tv + lane * (width + 1), width);
            float p = key + lane <= first + mine + r ? expf(s - row_lse[r]) : 0.0f;
            add_rows(sums[r], p * (dp - own[r]) * scale, tk, width);
        }
    }
#pragma unroll
    for (unsigned r = 0; r < ROWS_A_WARP; r++) {
        unsigned row = first + mine + r;
        if (row < seq) put_row(dq + row * q_stride, sums[r], 1.0f, width);
    }
}
HOST_KERNEL(attention_backward_q_f32);

/// Sets dk and dv over all query heads of a group, in order. Grid: (blocks of 32 keys, K, B). Dynamic
/// shared memory: 4 · 32 · (D + 1) floats.
extern "C" __global__ void __launch_bounds__(SIDE_THREADS, 2)
    attention_backward_kv_f32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                              const float* __restrict__ lse, const float* __restrict__ delta,
                              const float* __restrict__ dout, float* __restrict__ dk, float* __restrict__ dv,
                              unsigned seq, unsigned heads, unsigned kv_heads, unsigned width, float scale) {
    DYNAMIC_SHARED(shared);
    unsigned tile = ROWS * (width + 1);
    float *tk = reinterpret_cast<float*>(shared), *tv = tk + tile, *tq = tv + tile, *td = tq + tile;
    unsigned kv_head = blockIdx.y, group = heads / kv_heads, batch = blockIdx.z, first = blockIdx.x * ROWS;
    size_t q_stride = size_t(heads) * width, k_stride = size_t(kv_heads) * width;
    size_t at = size_t(batch) * seq * k_stride + kv_head * width;
    k += at, v += at, dk += at, dv += at;
    unsigned lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS_A_WARP;
    float sums_k[ROWS_A_WARP][MOST_PARTS] = {}, sums_v[ROWS_A_WARP][MOST_PARTS] = {};
    bring_rows(tk, k, first, seq, k_stride, width);
    bring_rows(tv, v, first, seq, k_stride, width);
    for (unsigned head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const float* head_q = q + size_t(batch) * seq * q_stride + head * width;
        const float* head_d = dout + size_t(batch) * seq * q_stride + head * width;
        size_t stats = (size_t(batch) * heads + head) * seq;
        for (unsigned query = first; query < seq; query += 32) {
            __syncthreads();
            bring_rows(tq, head_q, query, seq, q_stride, width);
            bring_rows(td, head_d, query, seq, q_stride, width);
            __syncthreads();
            unsigned row = query + lane;
            float row_lse = row < seq ? lse[stats + row] : 0.0f, row_d = row < seq ? delta[stats + row] : 0.0f;
#pragma unroll
            for (unsigned r = 0; r < ROWS_A_WARP; r++) {
                float s = dot_rows(tk + (mine + r) * (width + 1), tq + lane * (width + 1), width) * scale;
                float dp = dot_rows(tv + (mine + r) * (width + 1), td + lane * (width + 1), width);
                float p = row < seq && first + mine + r <= row ? expf(s - row_lse) : 0.0f;
                add_rows(sums_v[r], p, td, width);
                add_rows(sums_k[r], p * (dp - row_d) * scale, tq, width);
            }
        }
    }
#pragma unroll
    for (unsigned r = 0; r < ROWS_A_WARP; r++) {
        unsigned row = first + mine + r;
        if (row >= seq) continue;
        put_row(dk + row * k_stride, sums_k[r], 1.0f, width);
        put_row(dv + row * k_stride, sums_v[r], 1.0f, width);
    }
}
HOST_KERNEL(attention_backward_kv_f32);
