// CPU bodies of the CUDA built-ins that kernels use: barriers, shuffles, votes, atomics, bit and
// rounding intrinsics, vector types and bf16.
#pragma once

inline void __syncthreads() { host::wait(host::State::AtBlock); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { host::exchange(mask, 1, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

// Shuffles: 4 or 8 bytes; `width` divides the warp into segments.
template <class T>
T host_shuffle(unsigned mask, T value, unsigned lane) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    T result;
    memcpy(&result, host::exchange(mask, 2, value)[lane].bytes, sizeof(T));
    return result;
}
inline unsigned host_lane() { return host::current % 32; }
template <class T>
T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return host_shuffle(mask, v, (host_lane() & ~(width - 1)) + (lane & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
    unsigned from = host_lane() ^ bits;
    return host_shuffle(mask, v, from / width == host_lane() / width ? from : host_lane());
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    unsigned from = host_lane() + by;
    return host_shuffle(mask, v, from / width == host_lane() / width ? from : host_lane());
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int from = int(host_lane()) - int(by);
    return host_shuffle(mask, v, from >= int(host_lane() & ~(width - 1)) ? from : host_lane());
}

// Votes.
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const host::Slot* shown = host::exchange(mask, 3, int(predicate != 0));
    unsigned result = 0;
    for (int i = 0; i < 32; i++) {
        if (mask >> i & 1) result |= unsigned(shown[i].bytes[0] != 0) << i;
    }
    return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

// Atomics: fibers switch only at barriers and warp operations, so plain code is atomic.
template <class T>
T host_replace(T* at, T value) {
    T old = *at;
    *at = value;
    return old;
}
template <class T, class V>
T atomicAdd(T* at, V v) {
    static_assert(std::is_integral_v<T>, "the order of float atomics is not fixed: do not use them");
    return host_replace(at, T(*at + T(v)));
}
template <class T, class V>
T atomicMax(T* at, V v) { return host_replace(at, *at > T(v) ? *at : T(v)); }
template <class T, class V>
T atomicMin(T* at, V v) { return host_replace(at, *at < T(v) ? *at : T(v)); }
template <class T, class V>
T atomicOr(T* at, V v) { return host_replace(at, T(*at | v)); }
template <class T, class V>
T atomicAnd(T* at, V v) { return host_replace(at, T(*at & v)); }
template <class T, class V>
T atomicXor(T* at, V v) { return host_replace(at, T(*at ^ v)); }
template <class T, class V>
T atomicExch(T* at, V v) { return host_replace(at, T(v)); }
template <class T, class V, class W>
T atomicCAS(T* at, V expected, W v) { return host_replace(at, *at == T(expected) ? T(v) : *at); }

// Bits.
template <class To, class From>
To host_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}
inline unsigned __float_as_uint(float f) { return host_bits<unsigned>(f); }
inline int __float_as_int(float f) { return host_bits<int>(f); }
inline float __uint_as_float(unsigned u) { return host_bits<float>(u); }
inline float __int_as_float(int i) { return host_bits<float>(i); }
inline unsigned long long __double_as_longlong(double d) { return host_bits<unsigned long long>(d); }
inline double __longlong_as_double(long long l) { return host_bits<double>(l); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(unsigned v) { return v ? __builtin_clz(v) : 32; }
inline int __clzll(unsigned long long v) { return v ? __builtin_clzll(v) : 64; }
inline int __ffs(unsigned v) { return __builtin_ffs(int(v)); }
inline int __ffsll(unsigned long long v) { return __builtin_ffsll(static_cast<long long>(v)); }
inline unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
    return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
template <class T>
T __ldg(const T* p) { return *p; }
template <class T>
T __ldcs(const T* p) { return *p; }
template <class T>
void __stcs(T* p, T v) { *p = v; }

// Arithmetic with one given rounding (the host compiles with -ffp-contract=off).
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline int __float2int_rn(float f) { return int(std::nearbyint(f)); }
inline int __float2int_rz(float f) { return int(f); }
inline float __int2float_rn(int i) { return float(i); }
inline float __uint2float_rn(unsigned i) { return float(i); }
inline float __ll2float_rn(long long i) { return float(i); }
inline float __double2float_rn(double d) { return float(d); }
inline double __ull2double_rn(unsigned long long i) { return double(i); }
inline unsigned long long __double2ull_rn(double d) { return static_cast<unsigned long long>(std::nearbyint(d)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
// Fast versions on the device; their error is the device's and is not modelled.
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
template <class T>
T min(T a, T b) { return b < a ? b : a; }
template <class T>
T max(T a, T b) { return a < b ? b : a; }

// Vector types.
#define HOST_VECTORS(T, name, by)                                                                \
    struct name##2 { T x, y; };                                                                  \
    struct name##3 { T x, y, z; };                                                               \
    struct alignas(by) name##4 { T x, y, z, w; };                                                \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                   \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                           \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HOST_VECTORS(float, float, 16)
HOST_VECTORS(int, int, 16)
HOST_VECTORS(unsigned, uint, 16)
HOST_VECTORS(unsigned short, ushort, 8)
HOST_VECTORS(unsigned char, uchar, 4)
HOST_VECTORS(double, double, 16)

// bf16: the upper half of an f32, rounded to nearest even.
struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 b) { return __uint_as_float(unsigned(b.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
    unsigned u = __float_as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {uint16_t(0x7fff)};  // NaN, as the device gives it
    u += 0x7fff + (u >> 16 & 1);
    return {uint16_t(u >> 16)};
}
