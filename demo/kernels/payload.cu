// The bytes of a submission, written and read on the device (demo/src/payload.rs and rice.rs, PROTOCOL 5).
//
// A tensor's payload is its largest exponent, then groups of 64 chunks, each a u32 byte length and a bit stream, least
// significant bit first. Groups are independent: one thread writes or reads one from its first bit to its last.
//
// Reading never decides alone that a payload is invalid: a fault only says that the CPU's decoder has to look.
#include "chunks.cuh"

/// Marks a code without a level.
constexpr int UNKNOWN = -128;

/// One group: its tensor, and its chunks among the tensor's.
struct Group {
    uint32_t tensor, first, end;
};

__device__ __forceinline__ Group group_at(const Tensor* tensors, uint32_t n, uint32_t group) {
    uint32_t low = 0, high = n;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (tensors[middle].first_group <= group) {
            low = middle;
        } else {
            high = middle;
        }
    }
    uint32_t first = (group - tensors[low].first_group) * GROUP_CHUNKS;
    return {low, first, min(first + GROUP_CHUNKS, tensors[low].chunks)};
}

/// Byte length of each group's bit stream, one warp a group.
extern "C" __global__ void measure_groups(const Tensor* tensors, uint32_t n_tensors, uint32_t n_groups, uint32_t bits,
                                          const int16_t* exponents, const uint16_t* indices, uint32_t* lengths) {
    uint32_t group = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (group >= n_groups) return;
    Group g = group_at(tensors, n_tensors, group);
    const Tensor& t = tensors[g.tensor];
    uint32_t sum = 0;
    for (uint32_t chunk = g.first + threadIdx.x % 32; chunk < g.end; chunk += 32) {
        sum += 1;
        if (exponents[t.first_chunk + chunk] == EMPTY) continue;
        sum += 8 + t.k * bits;
        if (t.rice == NO_RICE) continue;
        const uint16_t* index = indices + t.first_entry + uint64_t(chunk) * t.k;
        for (uint32_t i = 0, next = 0; i < t.k; i++) {
            sum += ((index[i] - next) >> t.rice) + 1 + t.rice;
            next = index[i] + 1u;
        }
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) lengths[group] = (sum + 7) / 8;
}
HOST_KERNEL(measure_groups);

/// One block: where each group's bit stream begins in the payload; the payload's length behind the last.
extern "C" __global__ void __launch_bounds__(THREADS)
    place_groups(const Tensor* tensors, uint32_t n_tensors, uint32_t n_groups, const uint32_t* lengths,
                 uint64_t* starts) {
    __shared__ uint32_t scratch[WARPS];
    uint64_t base = 0;
    for (uint32_t first = 0; first < n_groups; first += THREADS) {
        uint32_t group = first + threadIdx.x, head = 0, length = 0;
        if (group < n_groups) {
            // The first group of a tensor follows the tensor's largest exponent.
            head = 4 + (group_at(tensors, n_tensors, group).first == 0);
            length = lengths[group];
        }
        uint32_t total, before = sum_before(head + length, scratch, total);
        if (group < n_groups) starts[group] = base + before + head;
        base += total;
        __syncthreads();
    }
    if (threadIdx.x == 0) starts[n_groups] = base;
}
HOST_KERNEL(place_groups);

/// Bits into bytes; groups share words, so that whole words cannot be written.
struct BitWriter {
    uint8_t* out;
    uint64_t buffer;
    uint32_t held;

    /// The low `count` ≤ 32 bits of `value`; the bits above them are 0.
    __device__ __forceinline__ void put(uint32_t value, uint32_t count) {
        buffer |= uint64_t(value) << held;
        held += count;
        for (; held >= 8; held -= 8, buffer >>= 8) *out++ = static_cast<uint8_t>(buffer);
    }
    __device__ __forceinline__ void put_rice(uint32_t value, uint32_t r) {
        uint32_t zeros = value >> r;
        for (; zeros >= 32; zeros -= 32) put(0, 32);
        put(1u << zeros, zeros + 1);
        put(value & ((1u << r) - 1), r);
    }
};

/// Writes the payload, one thread a group. `codes` has the code of each level at level + 127, `tops` each tensor's
/// largest exponent.
extern "C" __global__ void write_groups(const Tensor* tensors, uint32_t n_tensors, uint32_t n_groups, uint32_t bits,
                                        const uint8_t* codes, const int16_t* exponents, const uint16_t* indices,
                                        const int8_t* levels, const int32_t* tops, const uint32_t* lengths,
                                        const uint64_t* starts, uint8_t* payload) {
    uint32_t group = blockIdx.x * blockDim.x + threadIdx.x;
    if (group >= n_groups) return;
    Group g = group_at(tensors, n_tensors, group);
    const Tensor& t = tensors[g.tensor];
    uint8_t* out = payload + starts[group];
    if (g.first == 0) out[-5] = static_cast<uint8_t>(max(tops[g.tensor], -128));
    for (int i = 0; i < 4; i++) out[i - 4] = static_cast<uint8_t>(lengths[group] >> (8 * i));
    BitWriter writer = {out, 0, 0};
    for (uint32_t chunk = g.first; chunk < g.end; chunk++) {
        int e = exponents[t.first_chunk + chunk];
        if (e == EMPTY) {
            writer.put(1, 1);
            continue;
        }
        writer.put(uint32_t(static_cast<uint8_t>(e)) << 1, 9);
        uint64_t first = t.first_entry + uint64_t(chunk) * t.k;
        for (uint32_t i = 0; i < t.k; i++) writer.put(codes[levels[first + i] + 127], bits);
        if (t.rice == NO_RICE) continue;
        for (uint32_t i = 0, next = 0; i < t.k; i++) {
            uint32_t index = indices[first + i];
            writer.put_rice(index - next, t.rice);
            next = index + 1;
        }
    }
    if (writer.held > 0) *writer.out = static_cast<uint8_t>(writer.buffer);
}
HOST_KERNEL(write_groups);

/// Bits out of words; `left` are those of the group. Looks up to eight bytes behind it, and nowhere after a fault.
struct BitReader {
    const uint32_t* words;
    uint64_t buffer;
    uint32_t held, left;
    bool fault;

    __device__ __forceinline__ void refill() {
        if (held > 32) return;
        buffer |= uint64_t(*words++) << held;
        held += 32;
    }
    /// `count` ≤ 32 bits.
    __device__ __forceinline__ uint32_t take(uint32_t count) {
        fault |= count > left;
        if (fault) return 0;
        refill();
        uint32_t value = static_cast<uint32_t>(buffer & ((uint64_t(1) << count) - 1));
        buffer >>= count;
        held -= count;
        left -= count;
        return value;
    }
    /// A Rice code; a fault where more than `limit` zeros lead it.
    __device__ __forceinline__ uint32_t take_rice(uint32_t r, uint32_t limit) {
        uint32_t zeros = 0;
        while (!fault) {
            refill();
            uint32_t run = min(static_cast<uint32_t>(__ffsll(buffer)) - 1, 32u);
            take(min(run + 1, 32u));  // the zeros, and the one that ends them
            zeros += run;
            if (run < 32) break;
            fault |= zeros > limit;
        }
        return zeros << r | take(r);
    }
};

/// Reads a payload, one thread a group: `starts` and `lengths` of the bit streams, `level_of` the level of each code.
/// `tops` becomes each tensor's largest exponent (at least what is there), `fault` 1 where a group is not what an
/// encoder writes. The payload is aligned, with eight more bytes behind it.
extern "C" __global__ void read_groups(const Tensor* tensors, uint32_t n_tensors, uint32_t n_groups, uint32_t bits,
                                       const int8_t* level_of, const uint8_t* payload, const uint64_t* starts,
                                       const uint32_t* lengths, int16_t* exponents, uint16_t* indices,
                                       int8_t* levels, int32_t* tops, uint32_t* fault) {
    uint32_t group = blockIdx.x * blockDim.x + threadIdx.x;
    if (group >= n_groups) return;
    Group g = group_at(tensors, n_tensors, group);
    const Tensor& t = tensors[g.tensor];
    const uint32_t* words = reinterpret_cast<const uint32_t*>(payload) + starts[group] / 4;
    uint32_t skipped = starts[group] % 4 * 8;
    BitReader reader = {words + 1, *words >> skipped, 32 - skipped, 8 * lengths[group], false};
    int top = EMPTY;
    for (uint32_t chunk = g.first; chunk < g.end; chunk++) {
        uint64_t first = t.first_entry + uint64_t(chunk) * t.k;
        bool empty = reader.take(1) == 1 || reader.fault;
        int e = empty ? EMPTY : static_cast<int8_t>(reader.take(8));
        exponents[t.first_chunk + chunk] = static_cast<int16_t>(e);
        top = max(top, e);
        int any = 0;
        for (uint32_t i = 0; i < t.k; i++) {
            int level = empty ? 0 : level_of[reader.take(bits)];
            reader.fault |= level == UNKNOWN;
            levels[first + i] = static_cast<int8_t>(level);
            any |= level;
        }
        reader.fault |= !empty && any == 0;
        uint32_t n = t.h * t.w, next = 0;
        for (uint32_t i = 0; i < t.k; i++) {
            if (!empty && t.rice != NO_RICE) next += reader.take_rice(t.rice, n);
            reader.fault |= next >= n;
            indices[first + i] = static_cast<uint16_t>(empty || reader.fault ? 0 : next);
            next += !empty;
        }
    }
    if (reader.left >= 8 || reader.take(reader.left) != 0) reader.fault = true;
    atomicMax(&tops[g.tensor], top);
    if (reader.fault) atomicMax(fault, 1u);
}
HOST_KERNEL(read_groups);
