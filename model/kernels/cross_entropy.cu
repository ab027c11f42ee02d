// Cross-entropy of a softmax over each row of logits: loss = log Σ e^z − z[target], and its gradient
// scale · (softmax(z) − onehot(target)) in place.
//
// logits[N, V] f32, targets[N], losses[N]; a target of 2³² − 1 counts nothing: loss and gradient are 0.
// A block a row; the sum's order depends on V alone.
#include "vector.cuh"

constexpr unsigned LOSS_THREADS = 512;
constexpr unsigned IGNORED = 0xffffffffu;

/// Greatest logit of the row and Σ e^(z − greatest), the same bits in every thread.
struct RowSum {
    float top, sum;
};

__device__ __forceinline__ RowSum row_sum(const float* z, unsigned vocab) {
    __shared__ float scratch[LOSS_THREADS / 32];
    // Online softmax (Milakov and Gimelshein 2018): each thread reads its part once.
    float top = -CUDART_INF_F, sum = 0;
    for (unsigned i = threadIdx.x; i < vocab; i += LOSS_THREADS) {
        float v = z[i];
        if (v > top) {
            sum = sum * expf(top - v) + 1.0f;
            top = v;
        } else {
            sum += expf(v - top);
        }
    }
    float all = block_max<LOSS_THREADS / 32>(top, scratch);
    // A thread without logits adds nothing; one that read a NaN adds it, so that the row's loss shows it.
    float part = sum != 0.0f ? sum * expf(top - all) : 0.0f;
    return {all, block_sum<LOSS_THREADS / 32>(part, scratch)};
}

extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_forward(const float* __restrict__ logits, const unsigned* __restrict__ targets,
                          float* __restrict__ losses, unsigned vocab) {
    unsigned target = targets[blockIdx.x];
    const float* z = logits + size_t(blockIdx.x) * vocab;
    if (target == IGNORED) {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0;
        return;
    }
    RowSum row = row_sum(z, vocab);
    if (threadIdx.x == 0) losses[blockIdx.x] = logf(row.sum) + row.top - z[target];
}
HOST_KERNEL(cross_entropy_forward);

extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_backward(float* __restrict__ logits, const unsigned* __restrict__ targets,
                           float* __restrict__ losses, unsigned vocab, float scale) {
    unsigned target = targets[blockIdx.x];
    float* z = logits + size_t(blockIdx.x) * vocab;
    if (target == IGNORED) {
        for (unsigned i = threadIdx.x; i < vocab; i += LOSS_THREADS) z[i] = 0;
        if (threadIdx.x == 0) losses[blockIdx.x] = 0;
        return;
    }
    // All have read their logits before any is replaced: `row_sum` ends with a barrier. The target's
    // own logit is read and replaced by the thread that owns it.
    RowSum row = row_sum(z, vocab);
    float factor = scale / row.sum;
    for (unsigned i = threadIdx.x; i < vocab; i += LOSS_THREADS) {
        float v = z[i];
        if (i == target) losses[blockIdx.x] = logf(row.sum) + row.top - v;
        z[i] = expf(v - row.top) * factor - (i == target ? scale : 0.0f);
    }
}
HOST_KERNEL(cross_entropy_backward);
