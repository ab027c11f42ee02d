// CPU bodies of the instructions in ptx.cuh. Fragments lie in lanes as the PTX manual gives them.
#pragma once

namespace host {

static float half_of(uint32_t packed, int i) { return __uint_as_float(i ? packed & 0xffff0000u : packed << 16); }

/// Element (row, column) of the 16×16 factor and (row, column) of the 16×8 factor from the lanes' fragments.
static void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Shown {
        uint32_t a[4], b[2];
    } shown = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    const Slot* lanes = exchange(0xffffffffu, 10, shown);
    unsigned lane = current % 32, g = lane / 4, t = lane % 4;
    auto of = [&](unsigned l) { return reinterpret_cast<const Shown*>(lanes[l].bytes); };
    for (unsigned i = 0; i < 4; i++) {
        unsigned upper = i / 2, column = 2 * t + i % 2;  // row g + 8·upper
        float sum = 0;
        for (unsigned k = 0; k < 16; k++) {
            unsigned in = k % 8 / 2, far = k / 8;
            float x = half_of(of(g * 4 + in)->a[upper + 2 * far], k % 2);
            float y = half_of(of(column * 4 + in)->b[far], k % 2);
            sum += x * y;
        }
        d[i] += sum;
    }
}

static void load_matrices(uint32_t (&m)[4], const void* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16) fail("ldmatrix: a row is not aligned to 16 bytes");
    const Slot* lanes = exchange(0xffffffffu, 11 + transposed, row);
    unsigned lane = current % 32;
    for (unsigned i = 0; i < 4; i++) {
        uint16_t pair[2];
        for (unsigned j = 0; j < 2; j++) {
            unsigned r = transposed ? 2 * (lane % 4) + j : lane / 4;
            unsigned c = transposed ? lane / 4 : 2 * (lane % 4) + j;
            const void* from;
            memcpy(&from, lanes[8 * i + r].bytes, sizeof from);
            pair[j] = static_cast<const uint16_t*>(from)[c];
        }
        m[i] = uint32_t(pair[0]) | uint32_t(pair[1]) << 16;
    }
}

static void copy_async(void* to, const void* from, unsigned bytes, unsigned size) {
    if (reinterpret_cast<uintptr_t>(to) % bytes || (size && reinterpret_cast<uintptr_t>(from) % bytes)) {
        return fail("cp.async: an address is not aligned");
    }
    if (size > bytes) return fail("cp.async: reads more than it writes");
    Fiber& f = fibers[current];
    memset(to, 0xff, bytes);  // not to be read before it has been waited for
    f.copies.push_back({static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes, size, f.group});
}

static void copy_commit() { fibers[current].group++; }

static void copy_wait(unsigned left) {
    Fiber& f = fibers[current];
    size_t kept = 0;
    for (const Copy& c : f.copies) {
        if (c.group + left >= f.group) {
            f.copies[kept++] = c;
            continue;
        }
        memcpy(c.to, c.from, c.size);
        memset(c.to + c.size, 0, c.bytes - c.size);
    }
    f.copies.resize(kept);
}

}  // namespace host
