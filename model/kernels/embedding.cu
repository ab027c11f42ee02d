// Token embedding: a gather forward, a sum of rows in order of position backward.
//
// table[V, C] and its gradient f32; out, dout [N, C] of type T (f32 or bf16); tokens[N].
#include "vector.cuh"

/// `out[N, C] = table[tokens[N], C]`: a block a token.
template <class T>
__device__ __forceinline__ void embedding_forward(const unsigned* tokens, const float* table, T* out, unsigned width) {
    const float* from = table + size_t(tokens[blockIdx.x]) * width;
    T* to = out + size_t(blockIdx.x) * width;
    unsigned whole = rows_aligned(table, width) && rows_aligned(out, width) ? width : 0;
    for (unsigned i = threadIdx.x * VECTOR; i < whole; i += blockDim.x * VECTOR) {
        float v[8];
        load_vector(from + i, v);
        store_vector(to + i, v);
    }
    for (unsigned i = whole + threadIdx.x; i < width; i += blockDim.x) to[i] = from_f32<T>(from[i]);
}

/// `dtable[token, C] += Σ dout[position, C]` over the token's positions, ascending. Block (x, y) takes
/// the x-th distinct token and 128 columns; `order[N]` holds the positions sorted by token, then by
/// position, and `starts[distinct + 1]` where each token's positions begin in it.
template <class T>
__device__ __forceinline__ void embedding_backward(const unsigned* tokens, const unsigned* order,
                                                   const unsigned* starts, const T* dout, float* dtable,
                                                   unsigned width) {
    unsigned first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    unsigned column = blockIdx.y * 128 + threadIdx.x;
    if (column >= width) return;
    float* to = dtable + size_t(tokens[order[first]]) * width + column;
    float sum = *to;
    unsigned i = first;
    // Eight loads are under way at once; the additions keep their order.
    for (; i + 8 <= end; i += 8) {
        float v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = to_f32(dout[size_t(order[i + j]) * width + column]);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[j];
    }
    for (; i < end; i++) sum += to_f32(dout[size_t(order[i]) * width + column]);
    *to = sum;
}

#define EMBEDDING(T, name)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                                             \
        embedding_forward_##name(const unsigned* __restrict__ tokens, const float* __restrict__ table,            \
                                 T* __restrict__ out, unsigned width) {                                           \
        embedding_forward(tokens, table, out, width);                                                             \
    }                                                                                                             \
    HOST_KERNEL(embedding_forward_##name);                                                                        \
    extern "C" __global__ void __launch_bounds__(128) embedding_backward_##name(                                  \
        const unsigned* __restrict__ tokens, const unsigned* __restrict__ order,                                  \
        const unsigned* __restrict__ starts, const T* __restrict__ dout, float* __restrict__ dtable,              \
        unsigned width) {                                                                                         \
        embedding_backward(tokens, order, starts, dout, dtable, width);                                           \
    }                                                                                                             \
    HOST_KERNEL(embedding_backward_##name)
EMBEDDING(float, f32);
EMBEDDING(bf16, bf16);
