// RMSNorm (Zhang and Sennrich 2019): rstd = 1/sqrt(mean(x²) + eps), out = x · rstd · gain.
//
// Backward, with h = dout · gain: dx += rstd · (h − x · rstd² · mean(h · x)), dgain = Σ over rows of
// dout · x · rstd. The sum over rows goes over blocks of rows whose size the caller fixes, then over
// the blocks in order, so it does not depend on the device.
//
// N rows, C columns; x, out, dout, dx of type T (f32 or bf16); gain, rstd, dgain f32.
#include "vector.cuh"

constexpr unsigned NORM_THREADS = 256;
constexpr unsigned NORM_WARPS = NORM_THREADS / 32;

/// `out = x · rstd · gain` for one row, by one warp.
template <class T>
__device__ __forceinline__ void norm_row(const T* x, const float* gain, float rstd, T* out, unsigned width, bool aligned) {
    unsigned lane = threadIdx.x % 32;
    unsigned whole = aligned ? width : 0;
    for (unsigned i = lane * VECTOR; i < whole; i += 32 * VECTOR) {
        float v[8], g[8];
        load_vector(x + i, v);
        load_vector(gain + i, g);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = v[j] * rstd * g[j];
        store_vector(out + i, v);
    }
    for (unsigned i = whole + lane; i < width; i += 32) out[i] = from_f32<T>(to_f32(x[i]) * rstd * gain[i]);
}

/// A warp a row.
template <class T>
__device__ __forceinline__ void norm_forward(const T* x, const float* gain, float eps, float* rstd, T* out,
                                             unsigned rows, unsigned width) {
    unsigned row = blockIdx.x * NORM_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    bool aligned = rows_aligned(x, width) && rows_aligned(out, width) && rows_aligned(gain, width);
    unsigned whole = aligned ? width : 0;
    x += size_t(row) * width;
    float sum = 0;
    for (unsigned i = lane * VECTOR; i < whole; i += 32 * VECTOR) {
        float v[8];
        load_vector(x + i, v);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[j] * v[j];
    }
    for (unsigned i = whole + lane; i < width; i += 32) sum += to_f32(x[i]) * to_f32(x[i]);
    float scale = rsqrtf(warp_sum(sum) / width + eps);
    if (lane == 0) rstd[row] = scale;
    norm_row(x, gain, scale, out + size_t(row) * width, width, aligned);
}

template <class T>
__device__ __forceinline__ void norm_again(const T* x, const float* gain, const float* rstd, T* out, unsigned rows,
                                           unsigned width) {
    unsigned row = blockIdx.x * NORM_WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    bool aligned = rows_aligned(x, width) && rows_aligned(out, width) && rows_aligned(gain, width);
    norm_row(x + size_t(row) * width, gain, rstd[row], out + size_t(row) * width, width, aligned);
}

/// A block takes `block_rows` rows one after another; each thread owns columns, and adds their part of
/// dgain in dynamic shared memory (C floats). Writes `partial[block, C]`.
template <class T>
__device__ __forceinline__ void norm_backward(const T* x, const float* gain, const float* rstd, const T* dout, T* dx,
                                              float* partial, unsigned rows, unsigned width, unsigned block_rows) {
    DYNAMIC_SHARED(shared);
    __shared__ float scratch[NORM_WARPS];
    float* dgain = reinterpret_cast<float*>(shared);
    bool aligned = rows_aligned(x, width) && rows_aligned(dout, width) && rows_aligned(dx, width) &&
                   rows_aligned(gain, width);
    unsigned whole = aligned ? width : 0, thread = threadIdx.x;
    for (unsigned i = thread * VECTOR; i < whole; i += NORM_THREADS * VECTOR) {
#pragma unroll
        for (int j = 0; j < 8; j++) dgain[i + j] = 0;
    }
    for (unsigned i = whole + thread; i < width; i += NORM_THREADS) dgain[i] = 0;
    unsigned first = blockIdx.x * block_rows, end = min(first + block_rows, rows);
    for (unsigned row = first; row < end; row++) {
        size_t at = size_t(row) * width;
        float r = rstd[row], dot = 0;
        for (unsigned i = thread * VECTOR; i < whole; i += NORM_THREADS * VECTOR) {
            float v[8], g[8], d[8];
            load_vector(x + at + i, v);
            load_vector(dout + at + i, d);
            load_vector(gain + i, g);
#pragma unroll
            for (int j = 0; j < 8; j++) dot += d[j] * g[j] * v[j];
        }
        for (unsigned i = whole + thread; i < width; i += NORM_THREADS) {
            dot += to_f32(dout[at + i]) * gain[i] * to_f32(x[at + i]);
        }
        float mean = block_sum<NORM_WARPS>(dot, scratch) / width * r * r;
        for (unsigned i = thread * VECTOR; i < whole; i += NORM_THREADS * VECTOR) {
            float v[8], g[8], d[8], sum[8];
            load_vector(x + at + i, v);
            load_vector(dout + at + i, d);
            load_vector(gain + i, g);
            load_vector(dx + at + i, sum);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                dgain[i + j] += d[j] * v[j] * r;
                sum[j] += r * (d[j] * g[j] - v[j] * mean);
            }
            store_vector(dx + at + i, sum);
        }
        for (unsigned i = whole + thread; i < width; i += NORM_THREADS) {
            float v = to_f32(x[at + i]), d = to_f32(dout[at + i]);
            dgain[i] += d * v * r;
            dx[at + i] = from_f32<T>(to_f32(dx[at + i]) + r * (d * gain[i] - v * mean));
        }
    }
    float* out = partial + size_t(blockIdx.x) * width;
    for (unsigned i = thread * VECTOR; i < whole; i += NORM_THREADS * VECTOR) {
#pragma unroll
        for (int j = 0; j < 8; j++) out[i + j] = dgain[i + j];
    }
    for (unsigned i = whole + thread; i < width; i += NORM_THREADS) out[i] = dgain[i];
}

/// `dgain[C] (=|+=) Σ partial[blocks, C]`. 32 columns a block; 32 threads a column each take every 32nd
/// block of rows, and their sums are added in order.
extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_gain(const float* __restrict__ partial, float* __restrict__ dgain, unsigned blocks, unsigned width,
                  unsigned add) {
    __shared__ float sums[32][33];
    unsigned x = threadIdx.x % 32, y = threadIdx.x / 32, column = blockIdx.x * 32 + x;
    float sum = 0;
    if (column < width) {
        for (unsigned i = y; i < blocks; i += 32) sum += partial[size_t(i) * width + column];
    }
    sums[y][x] = sum;
    __syncthreads();
    if (y > 0 || column >= width) return;
    for (int i = 1; i < 32; i++) sum += sums[i][x];
    dgain[column] = add ? dgain[column] + sum : sum;
}
HOST_KERNEL(rms_norm_gain);

#define RMS_NORM(T, name)                                                                                          \
    extern "C" __global__ void __launch_bounds__(NORM_THREADS)                                                     \
        rms_norm_forward_##name(const T* __restrict__ x, const float* __restrict__ gain, float eps,                \
                                float* __restrict__ rstd, T* __restrict__ out, unsigned rows, unsigned width) {    \
        norm_forward(x, gain, eps, rstd, out, rows, width);                                                        \
    }                                                                                                              \
    HOST_KERNEL(rms_norm_forward_##name);                                                                          \
    extern "C" __global__ void __launch_bounds__(NORM_THREADS)                                                     \
        rms_norm_again_##name(const T* __restrict__ x, const float* __restrict__ gain,                             \
                              const float* __restrict__ rstd, T* __restrict__ out, unsigned rows, unsigned width) { \
        norm_again(x, gain, rstd, out, rows, width);                                                               \
    }                                                                                                              \
    HOST_KERNEL(rms_norm_again_##name);                                                                            \
    extern "C" __global__ void __launch_bounds__(NORM_THREADS)                                                     \
        rms_norm_backward_##name(const T* __restrict__ x, const float* __restrict__ gain,                          \
                                 const float* __restrict__ rstd, const T* __restrict__ dout, T* __restrict__ dx,   \
                                 float* __restrict__ partial, unsigned rows, unsigned width, unsigned block_rows) { \
        norm_backward(x, gain, rstd, dout, dx, partial, rows, width, block_rows);                                  \
    }                                                                                                              \
    HOST_KERNEL(rms_norm_backward_##name)
RMS_NORM(float, f32);
RMS_NORM(bf16, bf16);
