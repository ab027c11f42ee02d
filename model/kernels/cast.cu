// f32 to bf16: logits' gradients and weights as tensor cores read them. `n` elements.
#include "vector.cuh"

/// `to[i] = round(from[i])`, ties to even.
extern "C" __global__ void __launch_bounds__(256)
    cast_f32_bf16(const float* __restrict__ from, bf16* __restrict__ to, unsigned long long n) {
    // 8 elements a thread: one 16-byte store.
    size_t i = (size_t(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (i >= n) return;
    if (i + 8 <= n && (reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to)) % 16 == 0) {
        float4 low = *reinterpret_cast<const float4*>(from + i);
        float4 high = *reinterpret_cast<const float4*>(from + i + 4);
        *reinterpret_cast<uint4*>(to + i) = make_uint4(pack_bf16(low.x, low.y), pack_bf16(low.z, low.w),
                                                       pack_bf16(high.x, high.y), pack_bf16(high.z, high.w));
        return;
    }
    for (size_t end = i + 8 < n ? i + 8 : n; i < end; i++) to[i] = from_f32<bf16>(from[i]);
}
HOST_KERNEL(cast_f32_bf16);
