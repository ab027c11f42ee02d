// The sums of one chunk over a gather, in integers (demo/src/aggregate.rs, PROTOCOL 6.1).
//
// A = Σ value·s_p over the n peers that sent a coefficient, c = f32(A) / f32(n), value·s_p = level·unit. Integer sums: the
// order in which threads add is irrelevant. Units are limited to the lower median of the peers' energies in the chunk.
#pragma once

#include "inverse.cuh"

/// Most submissions of one gather.
constexpr uint32_t MAX_PEERS = 512;
static_assert(MAX_PEERS <= SUMS, "energies lie where sums will be");
/// Peers whose entries a warp loads together.
constexpr int PEERS_AT_ONCE = 4;

/// How one peer's tensor is brought to unit norm; `SCALE_BYTES` of demo/src/gpu/launch.rs.
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
    uint2 terms[SUMS];          // peers' energies; then A, low word first; then the bits of c, and its row a
    uint32_t counts[SUMS];      // peers' Σ level²; then n
    uint8_t rows[SUMS];         // a
    uint32_t scratch[WARPS];
    double limit;               // of energies
    uint64_t units[MAX_PEERS];  // value·s_p of level 1, 0 where a peer sends nothing that counts
};

__device__ __forceinline__ long long whole(uint2 words) {
    return static_cast<long long>(uint64_t(words.y) << 32 | words.x);
}

/// sum += x, by two words: each carry is seen by the thread that makes it, so that the order does not matter.
__device__ __forceinline__ void add(uint2& sum, long long x) {
    uint32_t low = static_cast<uint32_t>(x), high = static_cast<uint32_t>(x >> 32);
    uint32_t old = atomicAdd(&sum.x, low);
    atomicAdd(&sum.y, high + (old + low < low));
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
            bool sends = peer < g.peers && sh.units[peer] != 0;
            index[u] = sends ? g.indices[at] : 0;
            level[u] = sends ? g.levels[at] : 0;
        }
#pragma unroll
        for (int u = 0; u < PEERS_AT_ONCE; u++) {
            if (level[u] != 0) each(u, index[u], level[u]);
        }
    }
}

/// The peers' units, one thread a peer.
__device__ __forceinline__ void gather_units(const Gather& g, const Chunk& c, uint32_t chunk, GatherShared& sh) {
    for (uint32_t peer = threadIdx.x; peer < g.peers; peer += THREADS) {
        int e = g.exponents[peer * g.chunks + chunk];
        Scale scale = g.scales[uint64_t(peer) * g.tensors + c.tensor];
        int left = EXPONENT_RANGE - (scale.e_max - e);
        sh.units[peer] = e == EMPTY || left < 0 ? 0 : scale.unit << left;
    }
}

/// Each peer's Σ level² and energy, and which coefficients are sent at all, after `gather_units`. A warp has every
/// WARPS-th peer.
__device__ __forceinline__ void gather_energies(const Gather& g, const Chunk& c, GatherShared& sh,
                                                InverseShared& seen) {
    for (uint32_t first = threadIdx.x / 32; first < g.peers; first += WARPS * PEERS_AT_ONCE) {
        uint32_t sums[PEERS_AT_ONCE] = {};
        for_each_entry(g, c, first, sh, [&](int u, uint32_t index, int level) {
            sums[u] += level * level;
            uint32_t a = c.row(index), b = index - a * c.w;
            atomicOr(&seen.seen[2 * b + a % 2], 1u << a / 2);
        });
        // Lane u goes on with peer u.
        uint32_t lane = threadIdx.x % 32, peer = first + WARPS * lane, squares = 0;
#pragma unroll
        for (int u = 0; u < PEERS_AT_ONCE; u++) {
#pragma unroll
            for (int bits = 16; bits > 0; bits >>= 1) sums[u] += __shfl_xor_sync(ALL_LANES, sums[u], bits);
            if (int(lane) == u) squares = sums[u];
        }
        if (lane < PEERS_AT_ONCE && peer < g.peers) {
            double unit = __ull2double_rn(sh.units[peer]);
            uint64_t energy = __double_as_longlong(__dmul_rn(__dmul_rn(unit, unit), squares));
            sh.terms[peer] = make_uint2(static_cast<uint32_t>(energy), static_cast<uint32_t>(energy >> 32));
            sh.counts[peer] = squares;
        }
    }
}

/// The lower median of the energies: who has it finds out by comparing itself with all. Nobody does where all are silent.
__device__ __forceinline__ void gather_limit(const Gather& g, GatherShared& sh) {
    for (uint32_t peer = threadIdx.x; peer < g.peers; peer += THREADS) {
        // Bits of doubles that are not negative are in their order.
        long long mine = whole(sh.terms[peer]);
        if (mine == 0) continue;
        uint32_t senders = 0, before = 0;
        for (uint32_t other = 0; other < g.peers; other++) {
            long long energy = whole(sh.terms[other]);
            if (energy == 0) continue;
            senders++;
            // Equals are in the order of peers, so that one of them writes.
            before += energy < mine || (energy == mine && other < peer);
        }
        if (before == (senders - 1) / 2) sh.limit = __longlong_as_double(mine);
    }
}

/// The units of those above the limit, one thread a peer, after `gather_limit`.
__device__ __forceinline__ void limit_units(const Gather& g, GatherShared& sh) {
    for (uint32_t peer = threadIdx.x; peer < g.peers; peer += THREADS) {
        if (__longlong_as_double(whole(sh.terms[peer])) <= sh.limit) continue;
        double most = __dsqrt_rn(__ddiv_rn(sh.limit, sh.counts[peer]));
        // Never 0, so that a peer stays a sender.
        sh.units[peer] = max(static_cast<uint64_t>(most), uint64_t(1));
    }
}

/// Adds what all peers send in columns `first` ≤ b < `end`, and leaves c and a in place of the sums.
__device__ __forceinline__ void gather_columns(const Gather& g, const Chunk& c, uint32_t first,
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
        long long units[PEERS_AT_ONCE];
#pragma unroll
        for (int u = 0; u < PEERS_AT_ONCE; u++) {
            uint32_t peer = peers + WARPS * u;
            units[u] = peer < g.peers ? static_cast<long long>(sh.units[peer]) : 0;
        }
        for_each_entry(g, c, peers, sh, [&](int u, uint32_t index, int level) {
            uint32_t a = c.row(index), b = index - a * c.w;
            if (b < first || b >= end) return;
            uint32_t at = place_of(seen, a, b) - skipped;
            add(sh.terms[at], level * units[u]);
            atomicAdd(&sh.counts[at], 1u);
        });
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        uint2 words = sh.terms[i];
        float sum = __ll2float_rn(whole(words));
        sh.terms[i] = make_uint2(__float_as_uint(__fdiv_rn(sum, __uint2float_rn(sh.counts[i]))), sh.rows[i]);
    }
    __syncthreads();
}
