// One share of the work for each thread.
#pragma once

#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#ifndef CTRNN_ISA
#error "CTRNN_ISA names the instruction set: see CMakeLists.txt"
#endif

namespace ctrnn::CTRNN_ISA {

// body(first, last) for consecutive shares of 0 ... items - 1, as equal as they go, on at most `threads` threads, the
// caller's among them. Which item lies in which share depends on the two numbers alone. body must not throw.
template <class Body>
void parallel(int64_t items, int threads, Body body) {
    const int64_t shares = threads < items ? (threads < 1 ? 1 : threads) : items;
    std::vector<std::thread> others;
    others.reserve(shares > 0 ? shares - 1 : 0);
    int64_t begun = 1;
    try {
        for (; begun < shares; ++begun)
            others.emplace_back(body, begun * items / shares, (begun + 1) * items / shares);
    } catch (const std::system_error&) {
        // No more threads to be had: the caller takes the rest.
    }
    if (shares > 0) body(int64_t{0}, items / shares);
    for (; begun < shares; ++begun) body(begun * items / shares, (begun + 1) * items / shares);
    for (std::thread& other : others) other.join();
}

}  // namespace ctrnn::CTRNN_ISA
