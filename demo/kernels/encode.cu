// A gradient into the momentum, and the best coefficients out of it (demo/src/momentum.rs, PROTOCOL 4).
//
// The momentum is kept as its DCT, chunk after chunk: m ← β·m + α·DCT(g). One pass reads gradient and momentum and
// writes the momentum; the coefficients stay in registers from the transform to the selection.
#include "select.cuh"

/// m ← fma(β, m, α·z) in registers; `old` is the chunk's momentum. Elements outside become 0.
__device__ __forceinline__ void accumulate(const Chunk& c, const float* old, float decay, float lr, Outputs& out) {
    uint32_t column = 4 * out.group;
    bool vector = c.vector && aligned(old);
#pragma unroll
    for (int r = 0; r < 8; r++) {
        const float* row = old + out.row(r) * c.w + column;
        bool there = out.row(r) < c.h;
        float m[4] = {};
        if (vector) {
            if (there && column < c.w) *reinterpret_cast<float4*>(m) = *reinterpret_cast<const float4*>(row);
        } else {
#pragma unroll
            for (int q = 0; q < 4; q++) {
                if (there && column + q < c.w) m[q] = row[q];
            }
        }
#pragma unroll
        for (int q = 0; q < 4; q++) {
            float z = __fmaf_rn(decay, m[q], __fmul_rn(lr, out.z[r][q]));
            out.z[r][q] = there && column + q < c.w ? z : 0.0f;
        }
    }
}

__device__ __forceinline__ void store(const Chunk& c, const Outputs& out, float* m) {
    uint32_t column = 4 * out.group;
    bool vector = c.vector && aligned(m);
#pragma unroll
    for (int r = 0; r < 8; r++) {
        if (out.row(r) >= c.h) continue;
        float* row = m + out.row(r) * c.w + column;
        if (vector) {
            if (column < c.w) {
                *reinterpret_cast<float4*>(row) = make_float4(out.z[r][0], out.z[r][1], out.z[r][2], out.z[r][3]);
            }
        } else {
#pragma unroll
            for (int q = 0; q < 4; q++) {
                if (column + q < c.w) row[q] = out.z[r][q];
            }
        }
    }
}

/// For every chunk: m ← β·m + α·DCT(g); its largest magnitude (bits; 0 for a chunk that sends nothing); k indices,
/// ascending, and the coefficients there. A chunk that is not finite keeps its m, and `first_bad` becomes the lowest
/// number of a tensor with such a chunk.
extern "C" __global__ void __launch_bounds__(THREADS, 5)
    encode_chunks(const Tensor* tensors, uint32_t n_tensors, uint32_t n_chunks, const Basis* bases,
                  const float* grads, float* m, float decay, float lr, uint32_t* largest, uint16_t* indices,
                  float* values, uint32_t* first_bad) {
    __shared__ __align__(16) ForwardShared forward;
    __shared__ __align__(16) SelectShared selection;
    uint32_t basis_h = 0xffffffffu, basis_w = 0xffffffffu;
    Chunk c;
    c.tensor = 0;
    for (uint32_t chunk = blockIdx.x; chunk < n_chunks; chunk += gridDim.x) {
        locate(tensors, n_tensors, chunk, c);
        if (c.basis_h != basis_h) load_basis(forward.basis_h, bases[c.basis_h]);
        if (c.basis_w != basis_w) load_basis(forward.basis_w, bases[c.basis_w]);
        basis_h = c.basis_h;
        basis_w = c.basis_w;
        fold_rows(c, grads + c.origin, forward);
        __syncthreads();
        transform_rows(c, forward);
        Outputs out;
        transform_columns(c, forward, out);
        accumulate(c, m + c.first, decay, lr, out);
        uint32_t top = block_largest(out, c.k, selection);
        bool finite = top < INFINITE;
        if (threadIdx.x == 0) {
            largest[chunk] = finite ? top : 0;
            if (!finite) atomicMin(first_bad, c.tensor);
        }
        if (finite) store(c, out, m + c.first);
        if (finite && top > 0) {
            __syncthreads();
            select(c, out, inside(c, out), top, m + c.first, indices + c.entries, values + c.entries, selection);
        }
        __syncthreads();
    }
}
HOST_KERNEL(encode_chunks);
