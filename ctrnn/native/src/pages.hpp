// Large arrays that a kernel is about to fill. Each of their pages is made when it is first written, which for pages of
// 4 KiB takes as long as to compute what goes there.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#ifndef CTRNN_ISA
#error "CTRNN_ISA names the instruction set: see CMakeLists.txt"
#endif

namespace ctrnn::CTRNN_ISA {

// Asks for large pages wherever whole ones lie inside the array; a system that has none does nothing.
template <class T>
void in_large_pages(void* array, int64_t count) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t PAGE = uintptr_t{1} << 21;
    const uintptr_t at = reinterpret_cast<uintptr_t>(array);
    const uintptr_t first = (at + PAGE - 1) & ~(PAGE - 1), last = (at + count * sizeof(T)) & ~(PAGE - 1);
    if (array && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)array, (void)count;
#endif
}

}  // namespace ctrnn::CTRNN_ISA
