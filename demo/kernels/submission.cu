// Chosen coefficients into what is sent, and what was sent out of the momentum (demo/src/momentum.rs, PROTOCOL 4, 5).
//
// Sums in f64 follow the CPU's order, chunk by chunk and tensor by tensor, so that momenta stay equal to the bit.
#include "chunks.cuh"

/// Threads of a block of `settle_tensors`: its chunks at a time.
constexpr int SETTLE = 256;

/// floor(log2 x) of a positive finite x by its bits, not below −128.
__device__ __forceinline__ int exponent_of(uint32_t bits) {
    int e = bits >> 23 ? int(bits >> 23) - 127 : -118 - __clz(bits);
    return max(e, -128);
}

__device__ __forceinline__ void clear_entries(uint64_t first, uint32_t k, uint16_t* indices, int8_t* levels) {
    for (uint32_t i = 0; i < k; i++) {
        indices[first + i] = 0;
        levels[first + i] = 0;
    }
}

/// One thread a chunk: exponent, levels, and Σ v·q and Σ q². `level_of` has the level of each magnitude in half
/// units (0…255). A chunk without a level is empty and its entries are 0.
extern "C" __global__ void quantise_chunks(const Tensor* tensors, uint32_t n_tensors, uint32_t n_chunks,
                                           const uint32_t* largest, const int8_t* level_of, const float* values,
                                           uint16_t* indices, int8_t* levels, int16_t* exponents,
                                           double2* products) {
    uint32_t chunk = blockIdx.x * blockDim.x + threadIdx.x;
    if (chunk >= n_chunks) return;
    const Tensor& t = tensors[tensor_of(tensors, n_tensors, chunk)];
    uint64_t first = t.first_entry + uint64_t(chunk - t.first_chunk) * t.k;
    uint32_t top = largest[chunk];
    double vq = 0.0, qq = 0.0;
    int e = exponent_of(top);
    if (top != 0) {
        double scale = power_of_two(6 - e), unit = power_of_two(e - 6);
        for (uint32_t i = 0; i < t.k; i++) {
            float value = values[first + i];
            double v = value;
            uint32_t half_units = static_cast<uint32_t>(__dmul_rn(__dmul_rn(2.0, scale), fabs(v)));
            int level = level_of[min(half_units, 255u)];
            if (__float_as_uint(value) >> 31) level = -level;
            double q = __dmul_rn(level, unit);
            vq = __dadd_rn(vq, __dmul_rn(v, q));
            qq = __dadd_rn(qq, __dmul_rn(q, q));
            levels[first + i] = static_cast<int8_t>(level);
        }
    }
    bool sent = qq > 0.0;
    if (!sent) clear_entries(first, t.k, indices, levels);
    exponents[chunk] = static_cast<int16_t>(sent ? e : EMPTY);
    products[chunk] = make_double2(sent ? vq : 0.0, sent ? qq : 0.0);
}
HOST_KERNEL(quantise_chunks);

/// One block a tensor: its largest exponent; empties the chunks that lie more than 14 binary orders below it, since
/// receivers could not see them, and computes the least-squares scale ŝ = Σ v·q / Σ q² of what is left, in the order of chunks.
extern "C" __global__ void __launch_bounds__(SETTLE)
    settle_tensors(const Tensor* tensors, int16_t* exponents, uint16_t* indices, int8_t* levels,
                   const double2* products, int32_t* top_of, double* scales) {
    __shared__ int tops[SETTLE / 32];
    __shared__ double2 tile[SETTLE];
    const Tensor& t = tensors[blockIdx.x];
    int16_t* exponent = exponents + t.first_chunk;
    int top = EMPTY;
    for (uint32_t c = threadIdx.x; c < t.chunks; c += SETTLE) top = max(top, int(exponent[c]));
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) top = max(top, __shfl_xor_sync(ALL_LANES, top, bits));
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
    __syncthreads();
    for (int i = 0; i < SETTLE / 32; i++) top = max(top, tops[i]);

    double vq = 0.0, qq = 0.0;
    for (uint32_t first = 0; first < t.chunks; first += SETTLE) {
        uint32_t c = first + threadIdx.x;
        double2 mine = make_double2(0.0, 0.0);
        if (c < t.chunks && exponent[c] != EMPTY) {
            if (top - exponent[c] > EXPONENT_RANGE) {
                exponent[c] = static_cast<int16_t>(EMPTY);
                clear_entries(t.first_entry + uint64_t(c) * t.k, t.k, indices, levels);
            } else {
                mine = products[t.first_chunk + c];
            }
        }
        tile[threadIdx.x] = mine;
        __syncthreads();
        // One chain, as on the CPU; v·q is never negative, so that adding the zero of an empty chunk changes nothing.
        if (threadIdx.x == 0) {
#pragma unroll 8
            for (int i = 0; i < SETTLE; i++) {
                vq = __dadd_rn(vq, tile[i].x);
                qq = __dadd_rn(qq, tile[i].y);
            }
        }
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    top_of[blockIdx.x] = top;
    scales[blockIdx.x] = qq > 0.0 ? __ddiv_rn(vq, qq) : 0.0;
}
HOST_KERNEL(settle_tensors);

/// v − d, but never larger than v in magnitude.
__device__ __forceinline__ float reduced(float v, double d) {
    double limit = fabs(double(v)), left = __dadd_rn(v, -d);
    if (left < -limit) left = -limit;
    if (left > limit) left = limit;
    return __double2float_rn(left);
}

/// One warp a chunk: m ← m − ŝ·q for every entry that was sent.
extern "C" __global__ void subtract_chunks(const Tensor* tensors, uint32_t n_tensors, uint32_t n_chunks,
                                           const int16_t* exponents, const uint16_t* indices,
                                           const int8_t* levels, const double* scales, float* m) {
    uint32_t chunk = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (chunk >= n_chunks) return;
    int e = exponents[chunk];
    if (e == EMPTY) return;
    uint32_t tensor = tensor_of(tensors, n_tensors, chunk);
    const Tensor& t = tensors[tensor];
    uint64_t number = chunk - t.first_chunk, first = t.first_entry + number * t.k;
    float* coefficients = m + t.offset + number * t.h * t.w;
    double unit = __dmul_rn(scales[tensor], power_of_two(e - 6));
    for (uint32_t i = threadIdx.x % 32; i < t.k; i += 32) {
        float* at = coefficients + indices[first + i];
        *at = reduced(*at, __dmul_rn(unit, levels[first + i]));
    }
}
HOST_KERNEL(subtract_chunks);
