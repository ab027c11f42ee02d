// The least traffic an encode and an outer step can have: what their times are measured against.
#include "device.cuh"

/// Four elements at a time of x, read, changed by `next` and written.
template <class Next>
__device__ __forceinline__ void stream(uint64_t n, float* x, Next next) {
    uint64_t first = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x, step = uint64_t(gridDim.x) * blockDim.x;
    for (uint64_t i = first; i < n / 4; i += step) {
        float4 v = reinterpret_cast<const float4*>(x)[i];
        float u[4] = {v.x, v.y, v.z, v.w};
        next(i, u);
        reinterpret_cast<float4*>(x)[i] = make_float4(u[0], u[1], u[2], u[3]);
    }
}

/// Reads gradient and momentum, writes the momentum: m ← m + g. The last n % 4 elements stay; both are aligned.
extern "C" __global__ void stream_momentum(uint64_t n, const float* grads, float* m) {
    stream(n, m, [=](uint64_t i, float (&u)[4]) {
        float4 g = reinterpret_cast<const float4*>(grads)[i];
        u[0] += g.x;
        u[1] += g.y;
        u[2] += g.z;
        u[3] += g.w;
    });
}
HOST_KERNEL(stream_momentum);

/// Reads and writes θ: θ ← 2·θ. The last n % 4 elements stay; it is aligned.
extern "C" __global__ void stream_theta(uint64_t n, float* theta) {
    stream(n, theta, [](uint64_t, float (&u)[4]) {
        for (float& x : u) x *= 2.0f;
    });
}
HOST_KERNEL(stream_theta);
