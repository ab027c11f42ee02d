// AdamW (Loshchilov and Hutter 2019) over flat f32 buffers, and the sum of squares that clipping needs.
#include "vector.cuh"

/// m = β1·m + (1−β1)·g, v = β2·v + (1−β2)·g², θ = θ·decay − rate · m / (√v · root + eps), with g the
/// gradient times `grad_scale`, rate = lr/(1−β1^t), root = 1/√(1−β2^t), decay = 1 − lr·weight_decay.
extern "C" __global__ void __launch_bounds__(256)
    adamw(const float* __restrict__ grads, float* __restrict__ theta, float* __restrict__ m, float* __restrict__ v,
          unsigned long long n, float grad_scale, float beta1, float beta2, float eps, float decay, float rate,
          float root) {
    float rest1 = 1.0f - beta1, rest2 = 1.0f - beta2;
    size_t stride = size_t(gridDim.x) * 256;
    for (size_t i = size_t(blockIdx.x) * 256 + threadIdx.x; i < n; i += stride) {
        float g = grads[i] * grad_scale;
        float m1 = fmaf(beta1, m[i], rest1 * g), v1 = fmaf(beta2, v[i], rest2 * g * g);
        m[i] = m1;
        v[i] = v1;
        theta[i] = fmaf(theta[i], decay, -(rate * m1 / fmaf(sqrtf(v1), root, eps)));
    }
}
HOST_KERNEL(adamw);

/// Blocks of `squares`: fixed, so that the sum's order does not depend on the device.
constexpr unsigned SQUARE_BLOCKS = 1024;
constexpr unsigned SQUARE_THREADS = 256;

/// `partial[SQUARE_BLOCKS]`: sums of x² in f64. Launched with SQUARE_BLOCKS blocks.
extern "C" __global__ void __launch_bounds__(SQUARE_THREADS)
    squares(const float* __restrict__ x, double* __restrict__ partial, unsigned long long n) {
    __shared__ double scratch[SQUARE_THREADS / 32];
    double sum = 0;
    constexpr size_t stride = size_t(SQUARE_BLOCKS) * SQUARE_THREADS;
    size_t i = size_t(blockIdx.x) * SQUARE_THREADS + threadIdx.x;
    // Four products in f32 before f64, which some devices do slowly.
    for (; i + 3 * stride < n; i += 4 * stride) {
        float a = x[i], b = x[i + stride], c = x[i + 2 * stride], d = x[i + 3 * stride];
        sum += double(fmaf(a, a, b * b)) + double(fmaf(c, c, d * d));
    }
    for (; i < n; i += stride) sum += double(x[i]) * double(x[i]);
    sum = block_sum<SQUARE_THREADS / 32>(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
HOST_KERNEL(squares);

/// `out[0] = Σ partial[SQUARE_BLOCKS]` by one block.
extern "C" __global__ void __launch_bounds__(SQUARE_THREADS)
    squares_total(const double* __restrict__ partial, double* __restrict__ out) {
    __shared__ double scratch[SQUARE_THREADS / 32];
    double sum = 0;
    for (unsigned i = threadIdx.x; i < SQUARE_BLOCKS; i += SQUARE_THREADS) sum += partial[i];
    sum = block_sum<SQUARE_THREADS / 32>(sum, scratch);
    if (threadIdx.x == 0) out[0] = sum;
}
HOST_KERNEL(squares_total);
