// One share of the work for each thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

#ifndef CTRNN_ISA
#error "CTRNN_ISA names the instruction set: see CMakeLists.txt"
#endif

#ifdef __linux__
#include <unistd.h>

#include <cstdio>

extern "C" void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags) __attribute__((weak));
#endif

namespace ctrnn::CTRNN_ISA {

#ifdef __linux__
// Whether this process was forked and runs on without another program: a flag of the kernel's.
inline bool forked() {
    unsigned flags = 0;
    if (FILE* stat = std::fopen("/proc/self/stat", "r")) {
        if (std::fscanf(stat, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %u", &flags) != 1) flags = 0x40;
        std::fclose(stat);
    }
    return flags & 0x40;
}

// Whether to work on OpenMP's threads, which torch brings along. They spin for milliseconds after each of torch's
// operations, on the cores on which threads of our own were to work. In a fork they are missing, and waited for for ever.
inline bool on_openmp() {
    static const pid_t owner = GOMP_parallel == nullptr || forked() ? 0 : getpid();
    return getpid() == owner;
}
#endif

// work() on so many threads, the caller's among them; on fewer if no more are to be had.
template <class Work>
void on_threads(int64_t count, Work& work) {
#ifdef __linux__
    if (on_openmp())
        return GOMP_parallel([](void* data) { (*static_cast<Work*>(data))(); }, &work, unsigned(count), 0);
#endif
    std::vector<std::thread> others;
    others.reserve(count);
    try {
        while (int64_t(others.size()) + 1 < count) others.emplace_back(std::ref(work));
    } catch (const std::system_error&) {
    }
    work();
    for (std::thread& other : others) other.join();
}

// body(first, last) for consecutive shares of 0 ... items - 1, as equal as they go, on at most `threads` threads; the
// caller takes the first. Which item lies in which share depends on the two numbers alone. body must not throw.
template <class Body>
void parallel(int64_t items, int threads, Body body) {
    const int64_t shares = threads < items ? (threads < 1 ? 1 : threads) : items;
    if (shares < 2) return shares == 1 ? body(int64_t{0}, items) : void();
    const auto caller = std::this_thread::get_id();
    std::atomic<int64_t> next{1};
    auto work = [&] {
        int64_t share = std::this_thread::get_id() == caller ? 0 : next++;
        for (; share < shares; share = next++) body(share * items / shares, (share + 1) * items / shares);
    };
    on_threads(shares, work);
}

}  // namespace ctrnn::CTRNN_ISA
