// Small kernels that show what the emulation does: each is tested in tests/emulation.rs.
#include "ptx.cuh"

/// out[block] = sum of x over the block's 256 elements.
extern "C" __global__ void __launch_bounds__(256) probe_block_sum(const float* x, float* out) {
    __shared__ float scratch[8];
    float sum = block_sum<8>(x[blockIdx.x * 256 + threadIdx.x], scratch);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
HOST_KERNEL(probe_block_sum);

/// d[16, 8] = a[16, 16] · b[16, 8], factors row-major bf16, brought in by asynchronous copies.
extern "C" __global__ void __launch_bounds__(32) probe_mma(const bf16* a, const bf16* b, float* d) {
    DYNAMIC_SHARED(shared);
    bf16* sa = reinterpret_cast<bf16*>(shared);
    bf16* sb = sa + 256;
    unsigned lane = threadIdx.x;
    copy_async(sa + lane * 8, a + lane * 8, 16);
    copy_async(sb + lane % 16 * 8, b + lane % 16 * 8, 16);
    copy_commit();
    copy_wait<0>();
    __syncwarp();
    uint32_t fa[4], fb[4];
    load_matrices(fa, sa + lane % 16 * 16 + lane / 16 * 8);
    load_matrices_transposed(fb, sb + lane % 16 * 8);
    float sum[4] = {0, 0, 0, 0};
    mma_bf16(sum, fa, fb[0], fb[1]);
    unsigned g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}
HOST_KERNEL(probe_mma);

/// Reads the target of a copy without waiting for it: wrong.
extern "C" __global__ void probe_unwaited(const float* x, float* out) {
    DYNAMIC_SHARED(shared);
    copy_async(shared + 16 * threadIdx.x, x + 4 * threadIdx.x, 16);
    copy_commit();
    out[threadIdx.x] = reinterpret_cast<float*>(shared)[4 * threadIdx.x];
    copy_wait<0>();
}
HOST_KERNEL(probe_unwaited);

/// Half of a warp votes with the mask of a whole one: wrong.
extern "C" __global__ void probe_diverged(int* out) {
    int all = 0;
    if (threadIdx.x < 16) all = __all_sync(ALL_LANES, 1);
    out[threadIdx.x] = all;
}
HOST_KERNEL(probe_diverged);

/// Writes one element too many: wrong.
extern "C" __global__ void probe_overrun(float* out, int n) {
    out[threadIdx.x] = float(n);
    if (threadIdx.x == 0) out[n] = 0;
}
HOST_KERNEL(probe_overrun);
