// The sums of one chunk over a gather, in integers (demo/src/aggregate.rs, PROTOCOL 6.1).
//
// A = Σ value·s_p over the n peers that sent a coefficient, c = f32(A) / f32(n). Integer sums: the order in which
// threads add is irrelevant.
#pragma once

#include "inverse.cuh"

/// Most submissions of one gather.
constexpr uint32_t MAX_PEERS = 4096;
/// Strengths are below 49: |value·s_p| < 2⁴⁹.
constexpr int STRENGTHS = 64;
/// Peers whose entries a warp loads together.
constexpr int PEERS_AT_ONCE = 4;
/// Strength of a peer that sends nothing in the chunk.
constexpr uint8_t SILENT = 255;

/// How one peer's tensor is brought to unit norm; the same fields as `cuda::gather::Scale`.
struct Scale {
    uint64_t unit;  // s_p
    int32_t e_max;
    uint32_t unused;
};

/// Decoded submissions side by side: exponents [peer][chunk], indices and levels [peer][entry], scales
/// [peer][tensor].
struct Gather {
    const int16_t* exponents;
    const uint16_t* indices;
    const int8_t* levels;
    const Scale* scales;
    uint64_t chunks, entries;
    uint32_t tensors, peers;
};

struct GatherShared {
    uint2 terms[SUMS];      // A, low word first; then the bits of c, and its row a
    uint32_t counts[SUMS];  // n
    uint8_t rows[SUMS];     // a
    uint32_t strengths_seen[STRENGTHS];  // peers of each strength
    uint32_t scratch[WARPS];
    uint32_t median;
    uint8_t strengths[MAX_PEERS];
};

__device__ __forceinline__ long long toward_zero(long long x, uint32_t shift) {
    long long sign = x >> 63;
    return ((((x ^ sign) - sign) >> min(shift, 63u)) ^ sign) - sign;
}

/// sum += x, by two words: each carry is seen by the thread that makes it, so that the order does not matter.
__device__ __forceinline__ void add(uint2& sum, long long x) {
    uint32_t low = static_cast<uint32_t>(x), high = static_cast<uint32_t>(x >> 32);
    uint32_t old = atomicAdd(&sum.x, low);
    atomicAdd(&sum.y, high + (old + low < low));
}

/// Left shift of a peer's levels in a chunk; negative where it sends nothing that counts.
__device__ __forceinline__ int shift_of(const Gather& g, uint32_t peer, uint32_t tensor, uint32_t chunk) {
    int e = g.exponents[peer * g.chunks + chunk];
    return e == EMPTY ? -1 : EXPONENT_RANGE - (g.scales[uint64_t(peer) * g.tensors + tensor].e_max - e);
}

/// Calls `each(u, index, level)` for what this warp's peers `first` + WARPS·u send in the chunk, u < PEERS_AT_ONCE. All
/// their loads are on their way before the first is used.
template <class Each>
__device__ __forceinline__ void for_each_entry(const Gather& g, const Chunk& c, uint32_t first, const GatherShared& sh,
                                               Each each) {
    for (uint32_t i = threadIdx.x % 32; i < c.k; i += 32) {
        uint32_t index[PEERS_AT_ONCE];
        int level[PEERS_AT_ONCE];
#pragma unroll
        for (int u = 0; u < PEERS_AT_ONCE; u++) {
            uint32_t peer = first + WARPS * u;
            uint64_t at = peer * g.entries + c.entries + i;
            bool sends = peer < g.peers && sh.strengths[peer] != SILENT;
            index[u] = sends ? g.indices[at] : 0;
            level[u] = sends ? g.levels[at] : 0;
        }
#pragma unroll
        for (int u = 0; u < PEERS_AT_ONCE; u++) {
            if (level[u] != 0) each(u, index[u], level[u]);
        }
    }
}

/// The shift of each peer's levels, in place of its strength, one thread a peer.
__device__ __forceinline__ void gather_shifts(const Gather& g, const Chunk& c, uint32_t chunk, GatherShared& sh) {
    for (uint32_t peer = threadIdx.x; peer < g.peers; peer += THREADS) {
        int left = shift_of(g, peer, c.tensor, chunk);
        sh.strengths[peer] = left < 0 ? SILENT : static_cast<uint8_t>(left);
    }
}

/// Each peer's strength, and which coefficients are sent at all, after `gather_shifts`. A warp has every WARPS-th peer.
__device__ __forceinline__ void gather_strengths(const Gather& g, const Chunk& c, GatherShared& sh,
                                                 InverseShared& seen) {
    for (uint32_t first = threadIdx.x / 32; first < g.peers; first += WARPS * PEERS_AT_ONCE) {
        int tops[PEERS_AT_ONCE] = {};
        for_each_entry(g, c, first, sh, [&](int u, uint32_t index, int level) {
            tops[u] = max(tops[u], abs(level));
            uint32_t a = c.row(index), b = index - a * c.w;
            atomicOr(&seen.seen[2 * b + a % 2], 1u << a / 2);
        });
        // Lane u goes on with peer u.
        uint32_t lane = threadIdx.x % 32, peer = first + WARPS * lane;
        int top = 0;
#pragma unroll
        for (int u = 0; u < PEERS_AT_ONCE; u++) {
#pragma unroll
            for (int bits = 16; bits > 0; bits >>= 1) {
                tops[u] = max(tops[u], __shfl_xor_sync(ALL_LANES, tops[u], bits));
            }
            if (int(lane) == u) top = tops[u];
        }
        // All lanes have read these peers' shifts before strengths take their place.
        __syncwarp();
        if (lane < PEERS_AT_ONCE && peer < g.peers) {
            uint8_t strength = SILENT;
            if (top > 0) {
                uint64_t unit = g.scales[uint64_t(peer) * g.tensors + c.tensor].unit;
                strength = 63 - __clzll((uint64_t(top) << sh.strengths[peer]) * unit);
                atomicAdd(&sh.strengths_seen[strength % STRENGTHS], 1u);
            }
            sh.strengths[peer] = strength;
        }
        __syncwarp();
    }
}

/// The lower median of the strengths, by one warp: lane l has strengths 2l and 2l+1.
__device__ __forceinline__ void gather_median(GatherShared& sh) {
    uint32_t lane = threadIdx.x, low = sh.strengths_seen[2 * lane], high = sh.strengths_seen[2 * lane + 1];
    uint32_t end = low + high;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        uint32_t below = __shfl_up_sync(ALL_LANES, end, by);
        if (int(lane) >= by) end += below;
    }
    uint32_t all = __shfl_sync(ALL_LANES, end, 31), first = end - low - high;
    uint32_t rank = (max(all, 1u) - 1) / 2;
    if (first <= rank && rank < end) sh.median = 2 * lane + (rank >= first + low);
}

/// Adds what all peers send in columns `first` ≤ b < `end`, and leaves c and a in place of the sums.
__device__ __forceinline__ void gather_columns(const Gather& g, const Chunk& c, uint32_t chunk, uint32_t first,
                                               uint32_t end, GatherShared& sh, const InverseShared& seen) {
    uint32_t skipped = seen.before[2 * first], n = seen.before[2 * end] - skipped;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        sh.terms[i] = make_uint2(0, 0);
        sh.counts[i] = 0;
    }
    // Thread t has word t.
    if (2 * first <= threadIdx.x && threadIdx.x < 2 * end) {
        uint32_t at = seen.before[threadIdx.x] - skipped;
        for (uint32_t bits = seen.seen[threadIdx.x]; bits; bits &= bits - 1) {
            sh.rows[at++] = static_cast<uint8_t>(2 * (__ffs(bits) - 1) + threadIdx.x % 2);
        }
    }
    __syncthreads();
    for (uint32_t peers = threadIdx.x / 32; peers < g.peers; peers += WARPS * PEERS_AT_ONCE) {
        // Lane u looks peer u up.
        uint32_t lane = threadIdx.x % 32, mine = peers + WARPS * lane, excess = 0;
        long long unit = 0;
        if (lane < PEERS_AT_ONCE && mine < g.peers && sh.strengths[mine] != SILENT) {
            uint32_t strength = sh.strengths[mine];
            excess = strength > sh.median ? strength - sh.median : 0;
            uint64_t scale = g.scales[uint64_t(mine) * g.tensors + c.tensor].unit;
            unit = static_cast<long long>(scale << shift_of(g, mine, c.tensor, chunk));
        }
        long long units[PEERS_AT_ONCE];
        uint32_t excesses[PEERS_AT_ONCE];
#pragma unroll
        for (int u = 0; u < PEERS_AT_ONCE; u++) {
            units[u] = __shfl_sync(ALL_LANES, unit, u);
            excesses[u] = __shfl_sync(ALL_LANES, excess, u);
        }
        for_each_entry(g, c, peers, sh, [&](int u, uint32_t index, int level) {
            uint32_t a = c.row(index), b = index - a * c.w;
            if (b < first || b >= end) return;
            uint32_t at = place_of(seen, a, b) - skipped;
            long long x = level * units[u];
            add(sh.terms[at], excesses[u] == 0 ? x : toward_zero(x, excesses[u]));
            atomicAdd(&sh.counts[at], 1u);
        });
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        uint2 words = sh.terms[i];
        float sum = __ll2float_rn(static_cast<long long>(uint64_t(words.y) << 32 | words.x));
        sh.terms[i] = make_uint2(__float_as_uint(__fdiv_rn(sum, __uint2float_rn(sh.counts[i]))), sh.rows[i]);
    }
    __syncthreads();
}
