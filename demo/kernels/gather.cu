// From decoded submissions to the next θ, one read and one write of it: integer sums, exact inverse DCT, sign step
// (demo/src/aggregate.rs and outer_step.rs, PROTOCOL 6). The same bits as the CPU's.
#include "gather.cuh"

/// Threads of a block of `scale_tensors`.
constexpr int SCALE = 256;

/// A sum of u64 beyond 64 bits.
struct Wide {
    uint64_t high, low;

    __device__ __forceinline__ void add(const Wide& other) {
        low += other.low;
        high += other.high + (low < other.low);
    }
    /// The nearest f64, ties to even.
    __device__ __forceinline__ double nearest() const {
        if (high == 0) return __ull2double_rn(low);
        int shift = __clzll(high);
        uint64_t top = shift == 0 ? high : high << shift | low >> (64 - shift);
        // What falls off only breaks ties, as any bit below the last place does.
        top |= (low << shift) != 0;
        return __dmul_rn(__ull2double_rn(top), power_of_two(64 - shift));
    }
};

/// Σ level² of `k` levels.
__device__ __forceinline__ uint32_t squares(const int8_t* levels, uint32_t k) {
    uint32_t sum = 0, i = 0;
    if (reinterpret_cast<uintptr_t>(levels) % 4 == 0) {
        for (; i + 4 <= k; i += 4) {
            uint32_t four = *reinterpret_cast<const uint32_t*>(levels + i);
#pragma unroll
            for (int at = 0; at < 32; at += 8) {
                int level = static_cast<int8_t>(four >> at);
                sum += level * level;
            }
        }
    }
    for (; i < k; i++) sum += int(levels[i]) * levels[i];
    return sum;
}

/// One block a tensor (x) and peer (y): e_max and s_p = round(2⁴⁸ / sqrt(Σ value²)), 0 for a tensor that sends nothing.
extern "C" __global__ void __launch_bounds__(SCALE)
    scale_tensors(const Tensor* tensors, const int16_t* exponents, const int8_t* levels, uint64_t n_chunks,
                  uint64_t n_entries, Scale* scales) {
    __shared__ int tops[SCALE / 32];
    __shared__ Wide sums[SCALE / 32];
    const Tensor& t = tensors[blockIdx.x];
    const int16_t* exponent = exponents + blockIdx.y * n_chunks + t.first_chunk;
    const int8_t* level = levels + blockIdx.y * n_entries + t.first_entry;
    int top = EMPTY;
    for (uint32_t c = threadIdx.x; c < t.chunks; c += SCALE) top = max(top, int(exponent[c]));
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) top = max(top, __shfl_xor_sync(ALL_LANES, top, bits));
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
    __syncthreads();
    for (int i = 0; i < SCALE / 32; i++) top = max(top, tops[i]);

    Wide sum = {0, 0};
    for (uint32_t c = threadIdx.x; c < t.chunks; c += SCALE) {
        int left = EXPONENT_RANGE - (top - exponent[c]);
        if (exponent[c] == EMPTY || left < 0) continue;
        sum.add({0, uint64_t(squares(level + uint64_t(c) * t.k, t.k)) << (2 * left)});
    }
#pragma unroll
    for (int by = 16; by > 0; by >>= 1) {
        Wide other = {__shfl_xor_sync(ALL_LANES, sum.high, by), __shfl_xor_sync(ALL_LANES, sum.low, by)};
        sum.add(other);
    }
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < SCALE / 32; i++) sum.add(sums[i]);
    uint64_t unit = 0;
    if ((sum.high | sum.low) != 0) unit = __double2ull_rn(__ddiv_rn(281474976710656.0, __dsqrt_rn(sum.nearest())));
    scales[uint64_t(blockIdx.y) * gridDim.x + blockIdx.x] = {unit, top, 0};
}
HOST_KERNEL(scale_tensors);

/// Decodes chunk after chunk: `output.prepare(chunk)` before, `output.write(chunk, left, right)` with this thread's part
/// of Δ as `inverse_columns` gives it.
template <class Output>
__device__ __forceinline__ void decode_chunks(const Tensor* tensors, uint32_t n_chunks, const Basis* bases,
                                              const Gather& g, uint32_t cap, const Output& output) {
    __shared__ __align__(16) InverseShared inverse;
    __shared__ __align__(16) GatherShared sums;
    uint32_t basis_w = 0xffffffffu;
    Chunk c;
    c.tensor = 0;
    for (uint32_t chunk = blockIdx.x; chunk < n_chunks; chunk += gridDim.x) {
        locate(tensors, g.tensors, chunk, c);
        if (c.basis_w != basis_w) {
            __syncthreads();
            const float4* rows = reinterpret_cast<const float4*>(bases[c.basis_w].rows);
            for (int i = threadIdx.x; i < EDGE * HALF / 4; i += THREADS) {
                reinterpret_cast<float4*>(inverse.basis_w)[i] = rows[i];
            }
            basis_w = c.basis_w;
        }
        output.prepare(c);
        inverse.seen[threadIdx.x] = 0;
        gather_units(g, c, chunk, sums);
        __syncthreads();
        gather_energies(g, c, sums, inverse);
        // Above all energies: no limit.
        if (threadIdx.x == 0) sums.limit = __longlong_as_double(0x7ff0000000000000);
        __syncthreads();
        if (cap) gather_limit(g, sums);
        uint32_t total, before = sum_before(__popc(inverse.seen[threadIdx.x]), sums.scratch, total);
        inverse.before[threadIdx.x] = before;
        if (threadIdx.x == 0) inverse.before[2 * EDGE] = total;
        if (cap) limit_units(g, sums);
        __syncthreads();
        uint32_t step = total <= SUMS ? EDGE : SUMS / EDGE;
        for (uint32_t first = 0; first < c.w; first += step) {
            uint32_t end = min(first + step, c.w);
            gather_columns(g, c, first, end, sums, inverse);
            inverse_rows(bases[c.basis_h], c.h, first, end, sums.terms, inverse);
            __syncthreads();
        }
        float left[4][4], right[4][4];
        inverse_columns(c.w, inverse, left, right);
        output.write(c, left, right);
    }
}

/// Calls `each(offset in θ, Δ)` for the elements of this thread.
template <class Each>
__device__ __forceinline__ void for_each_element(const Chunk& c, const float (&left)[4][4],
                                                 const float (&right)[4][4], Each each) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
        uint32_t i = threadIdx.x / 8 * 4 + r;
        if (i >= c.h) continue;
        uint64_t row = c.origin + i * c.stride;
#pragma unroll
        for (int q = 0; q < 4; q++) {
            uint32_t j = threadIdx.x % 8 * 4 + q;
            if (j < (c.w + 1) / 2) each(row + j, left[r][q]);
            if (j < c.w / 2) each(row + c.w - 1 - j, right[r][q]);
        }
    }
}

/// fma(−α, sign(Δ), θ·d), the product rounded first, sign(0) = 0. A factor of ±1 is exact, so the fused product is a
/// sum; with 0 it leaves θ·d as it is. Δ is finite.
__device__ __forceinline__ float stepped(float theta, float delta, float lr, float decay) {
    float kept = __fmul_rn(theta, decay);
    return delta == 0.0f ? kept : __fadd_rn(kept, copysignf(lr, -delta));
}

__device__ __forceinline__ float4 stepped4(float4 theta, const float (&delta)[4], float lr, float decay) {
    return make_float4(stepped(theta.x, delta[0], lr, decay), stepped(theta.y, delta[1], lr, decay),
                       stepped(theta.z, delta[2], lr, decay), stepped(theta.w, delta[3], lr, decay));
}

/// θ one outer step on, into `out`, which may be `theta`.
struct Step {
    const float* theta;
    float* out;
    float lr, decay;

    /// Two lines of 32 elements a row, one a thread.
    __device__ __forceinline__ void prepare(const Chunk& c) const {
        uint32_t row = threadIdx.x / 2, column = threadIdx.x % 2 * 32;
        if (row < c.h && column < c.w) prefetch(theta + c.origin + row * c.stride + column);
    }

    __device__ __forceinline__ void write(const Chunk& c, const float (&left)[4][4], const float (&right)[4][4]) const {
        if (c.vector && c.w == EDGE && aligned(theta) && aligned(out)) {
#pragma unroll
            for (int r = 0; r < 4; r += 2) write_rows(c, r, left, right);
        } else {
            for_each_element(c, left, right, [this](uint64_t at, float delta) {
                out[at] = stepped(theta[at], delta, lr, decay);
            });
        }
    }

    /// Rows r and r+1 of the thread's four: all loads before the first store, which the compiler may not move them over.
    __device__ __forceinline__ void write_rows(const Chunk& c, int r, const float (&left)[4][4],
                                               const float (&right)[4][4]) const {
        uint32_t row = threadIdx.x / 8 * 4 + r, column = threadIdx.x % 8 * 4;
        uint64_t near = c.origin + row * c.stride + column, far = near + EDGE - 4 - 2 * column;
        float4 low[2], high[2];
#pragma unroll
        for (int s = 0; s < 2; s++) {
            if (row + s >= c.h) continue;
            low[s] = *reinterpret_cast<const float4*>(theta + near + s * c.stride);
            high[s] = *reinterpret_cast<const float4*>(theta + far + s * c.stride);
        }
#pragma unroll
        for (int s = 0; s < 2; s++) {
            if (row + s >= c.h) continue;
            const float(&x)[4] = right[r + s];
            float mirrored[4] = {x[3], x[2], x[1], x[0]};
            *reinterpret_cast<float4*>(out + near + s * c.stride) = stepped4(low[s], left[r + s], lr, decay);
            *reinterpret_cast<float4*>(out + far + s * c.stride) = stepped4(high[s], mirrored, lr, decay);
        }
    }
};

/// Δ itself.
struct Delta {
    float* delta;

    __device__ __forceinline__ void prepare(const Chunk&) const {}

    __device__ __forceinline__ void write(const Chunk& c, const float (&left)[4][4], const float (&right)[4][4]) const {
        for_each_element(c, left, right, [this](uint64_t at, float x) { delta[at] = x; });
    }
};

/// out = θ one outer step on; `out` may be `theta`. With d = 1 and the rate c·α of one submission it is the trial.
extern "C" __global__ void __launch_bounds__(THREADS, 5)
    apply_gather(const Tensor* tensors, const Basis* bases, const int16_t* exponents, const uint16_t* indices,
                 const int8_t* levels, const Scale* scales, uint64_t n_chunks, uint64_t n_entries,
                 uint32_t n_tensors, uint32_t peers, uint32_t cap, float lr, float decay, const float* theta,
                 float* out) {
    Gather g = {exponents, indices, levels, scales, n_chunks, n_entries, n_tensors, peers};
    decode_chunks(tensors, static_cast<uint32_t>(n_chunks), bases, g, cap, Step{theta, out, lr, decay});
}
HOST_KERNEL(apply_gather);

/// Δ itself, before signs are taken.
extern "C" __global__ void __launch_bounds__(THREADS, 5)
    decode_gather(const Tensor* tensors, const Basis* bases, const int16_t* exponents, const uint16_t* indices,
                  const int8_t* levels, const Scale* scales, uint64_t n_chunks, uint64_t n_entries,
                  uint32_t n_tensors, uint32_t peers, uint32_t cap, float* delta) {
    Gather g = {exponents, indices, levels, scales, n_chunks, n_entries, n_tensors, peers};
    decode_chunks(tensors, static_cast<uint32_t>(n_chunks), bases, g, cap, Delta{delta});
}
HOST_KERNEL(decode_gather);
