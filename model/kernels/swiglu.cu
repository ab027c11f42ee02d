// SwiGLU (Shazeer 2020): out = silu(gate) · up, silu(g) = g · σ(g).
//
// gate_up[N, 2F] holds gate then up in each row; out, dout [N, F]; all of type T (f32 or bf16).
// Backward replaces gate_up by its gradient and dout by the forward output.
#include "vector.cuh"

__device__ __forceinline__ float sigmoid(float g) { return 1.0f / (1.0f + expf(-g)); }

/// dgate = dout · up · σ(g) · (1 + g·(1 − σ(g))), dup = dout · silu(g), and the output again.
__device__ __forceinline__ void swiglu_gradient(float& gate, float& up, float& dout) {
    float g = gate, u = up, d = dout, sigma = sigmoid(g), silu = g * sigma;
    gate = d * u * fmaf(silu, 1.0f - sigma, sigma);
    up = d * silu;
    dout = silu * u;
}

template <class T>
__device__ __forceinline__ void swiglu_forward(const T* gate_up, T* out, unsigned rows, unsigned width) {
    size_t n = size_t(rows) * width, stride = size_t(gridDim.x) * blockDim.x;
    size_t thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (rows_aligned(gate_up, width) && rows_aligned(out, width)) {
        for (size_t i = thread * 8; i < n; i += stride * 8) {
            const T* gate = gate_up + i / width * 2 * width + i % width;
            float g[8], u[8];
            load_vector(gate, g), load_vector(gate + width, u);
#pragma unroll
            for (int j = 0; j < 8; j++) g[j] = g[j] * sigmoid(g[j]) * u[j];
            store_vector(out + i, g);
        }
    } else {
        for (size_t i = thread; i < n; i += stride) {
            const T* gate = gate_up + i / width * 2 * width + i % width;
            float g = to_f32(*gate);
            out[i] = from_f32<T>(g * sigmoid(g) * to_f32(gate[width]));
        }
    }
}

template <class T>
__device__ __forceinline__ void swiglu_backward(T* gate_up, T* dout, unsigned rows, unsigned width) {
    size_t n = size_t(rows) * width, stride = size_t(gridDim.x) * blockDim.x;
    size_t thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (rows_aligned(gate_up, width) && rows_aligned(dout, width)) {
        for (size_t i = thread * 8; i < n; i += stride * 8) {
            T* gate = gate_up + i / width * 2 * width + i % width;
            float g[8], u[8], d[8];
            load_vector(gate, g), load_vector(gate + width, u), load_vector(dout + i, d);
#pragma unroll
            for (int j = 0; j < 8; j++) swiglu_gradient(g[j], u[j], d[j]);
            store_vector(gate, g), store_vector(gate + width, u), store_vector(dout + i, d);
        }
    } else {
        for (size_t i = thread; i < n; i += stride) {
            T* gate = gate_up + i / width * 2 * width + i % width;
            float g = to_f32(*gate), u = to_f32(gate[width]), d = to_f32(dout[i]);
            swiglu_gradient(g, u, d);
            *gate = from_f32<T>(g), gate[width] = from_f32<T>(u), dout[i] = from_f32<T>(d);
        }
    }
}

#define SWIGLU(T, name)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) swiglu_forward_##name(                                       \
        const T* __restrict__ gate_up, T* __restrict__ out, unsigned rows, unsigned width) {                       \
        swiglu_forward(gate_up, out, rows, width);                                                                 \
    }                                                                                                              \
    HOST_KERNEL(swiglu_forward_##name);                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        swiglu_backward_##name(T* __restrict__ gate_up, T* __restrict__ dout, unsigned rows, unsigned width) {     \
        swiglu_backward(gate_up, dout, rows, width);                                                               \
    }                                                                                                              \
    HOST_KERNEL(swiglu_backward_##name)
SWIGLU(float, f32);
SWIGLU(bf16, bf16);
