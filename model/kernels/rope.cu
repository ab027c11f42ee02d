// Rotary position embedding (Su et al. 2021), half-split: in each head of D elements, elements j and
// j + D/2 turn by the angle of their position t. In place.
//
// x[N, width] of type T, width = heads·D, N = B·seq; table f32: cos[seq, D/2], then sin[seq, D/2].
// `back` = 1 turns back (the gradient).
#include "vector.cuh"

/// A thread turns `COUNT` neighbouring pairs.
template <unsigned COUNT, class T>
__device__ __forceinline__ void rope_pairs(T* x, const float* table, size_t i, unsigned seq, unsigned width,
                                           unsigned head_dim, bool back) {
    unsigned half = head_dim / 2, row_pairs = width / 2;
    size_t row = i / row_pairs;
    unsigned pair = i % row_pairs, j = pair % half;
    T* a = x + row * width + pair / half * head_dim + j;
    T* b = a + half;
    const float* cosine = table + row % seq * half + j;
    const float* sine = cosine + size_t(seq) * half;
    float u[COUNT], v[COUNT], c[COUNT], s[COUNT];
    if constexpr (COUNT == 8) {
        load_vector(a, u), load_vector(b, v), load_vector(cosine, c), load_vector(sine, s);
    } else {
        u[0] = to_f32(*a), v[0] = to_f32(*b), c[0] = *cosine, s[0] = *sine;
    }
#pragma unroll
    for (unsigned k = 0; k < COUNT; k++) {
        float turn = back ? -s[k] : s[k], first = u[k], second = v[k];
        u[k] = fmaf(first, c[k], -(second * turn));
        v[k] = fmaf(second, c[k], first * turn);
    }
    if constexpr (COUNT == 8) {
        store_vector(a, u), store_vector(b, v);
    } else {
        *a = from_f32<T>(u[0]), *b = from_f32<T>(v[0]);
    }
}

template <class T>
__device__ __forceinline__ void rope(T* x, const float* table, unsigned rows, unsigned seq, unsigned width,
                                     unsigned head_dim, bool back) {
    size_t pairs = size_t(rows) * (width / 2), stride = size_t(gridDim.x) * blockDim.x;
    size_t thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (head_dim % 16 == 0 && rows_aligned(x, width) && rows_aligned(table, head_dim / 2)) {
        for (size_t i = thread * 8; i < pairs; i += stride * 8) rope_pairs<8>(x, table, i, seq, width, head_dim, back);
    } else {
        for (size_t i = thread; i < pairs; i += stride) rope_pairs<1>(x, table, i, seq, width, head_dim, back);
    }
}

#define ROPE(T, name)                                                                                             \
    extern "C" __global__ void __launch_bounds__(256)                                                             \
        rope_##name(T* __restrict__ x, const float* __restrict__ table, unsigned rows, unsigned seq,              \
                    unsigned width, unsigned head_dim, unsigned back) {                                           \
        rope(x, table, rows, seq, width, head_dim, back != 0);                                                    \
    }                                                                                                             \
    HOST_KERNEL(rope_##name)
ROPE(float, f32);
ROPE(bf16, bf16);
