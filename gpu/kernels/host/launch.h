// Launches by name, with arguments passed as the driver passes them: an array of addresses.
#pragma once

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

namespace host {

struct Kernel {
    std::function<void(void**)> call;
    std::vector<unsigned> sizes;
};

static std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

template <class... A, size_t... I>
void call_with(void (*f)(A...), void** params, std::index_sequence<I...>) {
    f(*static_cast<std::remove_const_t<A>*>(params[I])...);
}

struct Registered {
    template <class... A>
    Registered(const char* name, void (*f)(A...)) {
        static_assert((std::is_trivially_copyable_v<A> && ...), "arguments are passed by their bytes");
        auto call = [f](void** params) { call_with(f, params, std::index_sequence_for<A...>()); };
        kernels()[name] = Kernel{call, {unsigned(sizeof(A))...}};
    }
};

static void launch(const Kernel& k, dim3 grid, dim3 block, size_t shared, void** params) {
    static std::mutex one_launch;
    std::lock_guard<std::mutex> guard(one_launch);
    failure.clear();
    blockIdx = dim3(0, 0, 0);
    size_t threads = size_t(block.x) * block.y * block.z;
    if (threads == 0 || threads > MOST_THREADS) return fail("a block has 1 to 1024 threads");
    if (shared > MOST_SHARED) return fail("more shared memory than an sm_80 block may have");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
        return fail("the grid is empty, or y or z is above 65535");
    }
    if (fibers.size() < threads) {
        fibers.resize(threads);
        taken.resize((threads + 31) / 32 * 32);
    }
    gridDim = grid;
    blockDim = block;
    kernel = [&] { k.call(params); };
    bool backwards = false;
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x && failure.empty(); x++) {
                blockIdx = dim3(x, y, z);
                run_block(shared, backwards);
                backwards = !backwards;
            }
        }
    }
}

}  // namespace host

#define HOST_EXPORT extern "C" __attribute__((visibility("default"))) inline __attribute__((used))

/// Number of arguments of a kernel, with their sizes in bytes in `sizes`; -1 if there is none of the name.
HOST_EXPORT int host_arguments(const char* name, unsigned* sizes, int most) {
    auto found = host::kernels().find(name);
    if (found == host::kernels().end()) return -1;
    const auto& all = found->second.sizes;
    std::copy_n(all.begin(), std::min(most, int(all.size())), sizes);
    return int(all.size());
}

/// Runs a kernel; 0, or 1 with a message in `error`.
HOST_EXPORT int host_launch(const char* name, const unsigned* grid, const unsigned* block, unsigned shared,
                            void** params, char* error, size_t error_size) {
    auto found = host::kernels().find(name);
    if (found == host::kernels().end()) {
        host::failure = "no such kernel";
    } else {
        host::launch(found->second, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), shared,
                     params);
    }
    if (host::failure.empty()) return 0;
    strncpy(error, host::failure.c_str(), error_size - 1);
    error[error_size - 1] = 0;
    return 1;
}
