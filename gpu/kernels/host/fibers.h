// The scheduler of the emulated block: fibers, barriers and warp operations.
#pragma once

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace host {

constexpr size_t STACK = 128 << 10;
/// The most dynamic shared memory an sm_80 block may have (sm_90: 227 KiB).
constexpr size_t MOST_SHARED = 163 << 10;
constexpr unsigned MOST_THREADS = 1024;

enum class State : uint8_t { Ready, AtWarp, AtBlock, Done };

/// What a lane shows to the others of its warp.
struct alignas(16) Slot {
    unsigned char bytes[32];
};

/// A `cp.async` that has been issued and not waited for.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
    unsigned bytes, size, group;
};

struct Fiber {
#ifdef __x86_64__
    void* stack_pointer = nullptr;
#else
    ucontext_t context;
#endif
    char* stack = nullptr;
    State state = State::Done;
    dim3 index;
    unsigned mask = 0;
    int operation = 0;
    Slot given;
    std::vector<Copy> copies;
    unsigned group = 0;
};

static std::vector<Fiber> fibers;
static std::vector<Slot> taken;
static size_t current;
static std::function<void()> kernel;
alignas(128) static unsigned char shared_memory[MOST_SHARED];
static std::string failure;

#ifdef __x86_64__
static void* scheduler_stack;
/// Saves the callee's registers on the running stack, and goes on where `load` stopped. Opaque to the
/// compiler, which must not keep shared memory or indices in registers across it.
extern "C" __attribute__((visibility("hidden"))) void host_switch_stack(void** save, void* load);
asm(".text\n.hidden host_switch_stack\n.globl host_switch_stack\nhost_switch_stack:\n"
    "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
static void to_scheduler() { host_switch_stack(&fibers[current].stack_pointer, scheduler_stack); }
static void to_fiber() { host_switch_stack(&scheduler_stack, fibers[current].stack_pointer); }
#else
static ucontext_t scheduler_context;
static void to_scheduler() { swapcontext(&fibers[current].context, &scheduler_context); }
static void to_fiber() { swapcontext(&scheduler_context, &fibers[current].context); }
#endif

static void body() {
    kernel();
    fibers[current].state = State::Done;
    to_scheduler();
    abort();  // a finished fiber is never resumed
}

static void start(Fiber& f, dim3 index) {
    if (!f.stack) f.stack = static_cast<char*>(malloc(STACK));
    f.index = index;
    f.state = State::Ready;
    f.copies.clear();
    f.group = 0;
#ifdef __x86_64__
    auto top = reinterpret_cast<uintptr_t>(f.stack + STACK - 64) & ~uintptr_t(15);
    auto words = reinterpret_cast<void**>(top);
    words[0] = reinterpret_cast<void*>(&body);  // popped by `ret`; six registers lie below
    for (int i = 1; i <= 6; i++) words[-i] = nullptr;
    f.stack_pointer = words - 6;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, &body, 0);
#endif
}

static void wait(State at) {
    fibers[current].state = at;
    to_scheduler();
}

/// Shows `value` to the lanes of `mask`, waits for them, and returns what the warp's lanes showed.
template <class T>
const Slot* exchange(unsigned mask, int operation, const T& value) {
    static_assert(sizeof(T) <= sizeof(Slot), "a lane shows at most 32 bytes");
    Fiber& f = fibers[current];
    memcpy(f.given.bytes, &value, sizeof(T));
    f.mask = mask;
    f.operation = operation;
    wait(State::AtWarp);
    return &taken[current / 32 * 32];
}

static void fail(const std::string& what) {
    if (failure.empty()) {
        failure = what + " (block " + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                  std::to_string(blockIdx.z) + ")";
    }
}

static size_t pick(size_t i, size_t n, bool backwards) { return backwards ? n - 1 - i : i; }

/// Runs the lanes of a warp until all wait at the block's barrier or are done.
static void run_warp(size_t first, size_t lanes, bool backwards) {
    for (bool again = true; again && failure.empty();) {
        for (size_t i = 0; i < lanes; i++) {
            current = first + pick(i, lanes, backwards);
            while (fibers[current].state == State::Ready) {
                threadIdx = fibers[current].index;
                to_fiber();
            }
        }
        backwards = !backwards;
        again = false;
        for (size_t i = 0; i < lanes; i++) {
            Fiber& f = fibers[first + i];
            if (f.state != State::AtWarp) continue;
            if (!(f.mask >> i & 1)) return fail("a lane is not in the mask of its own warp operation");
            for (size_t j = 0; j < lanes; j++) {
                const Fiber& other = fibers[first + j];
                if ((f.mask >> j & 1) && (other.state != State::AtWarp || other.mask != f.mask ||
                                          other.operation != f.operation)) {
                    return fail("lane " + std::to_string(j) + " misses a warp operation of lane " +
                                std::to_string(i) + " of warp " + std::to_string(first / 32));
                }
            }
            again = true;
        }
        // Every waiting lane's group is complete: let all see what was shown, then go on.
        for (size_t i = 0; i < lanes; i++) {
            Fiber& f = fibers[first + i];
            if (f.state != State::AtWarp) continue;
            taken[first + i] = f.given;
            f.state = State::Ready;
        }
    }
}

static void run_block(size_t shared, bool backwards) {
    memset(shared_memory, 0xff, shared);
    size_t n = size_t(blockDim.x) * blockDim.y * blockDim.z, warps = (n + 31) / 32;
    for (size_t i = 0; i < n; i++) {
        unsigned x = i % blockDim.x, y = i / blockDim.x % blockDim.y, z = i / (blockDim.x * blockDim.y);
        start(fibers[i], dim3(x, y, z));
    }
    while (failure.empty()) {
        for (size_t i = 0; i < warps; i++) {
            size_t first = pick(i, warps, backwards) * 32;
            run_warp(first, n - first < 32 ? n - first : 32, backwards);
            if (!failure.empty()) return;
        }
        backwards = !backwards;
        size_t done = 0;
        for (size_t i = 0; i < n; i++) done += fibers[i].state == State::Done;
        if (done == n) return;
        if (done > 0) return fail("threads have ended while others wait at a barrier");
        for (size_t i = 0; i < n; i++) fibers[i].state = State::Ready;
    }
}

}  // namespace host
