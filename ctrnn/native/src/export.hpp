// How a kernel becomes a C function.
//
//     CTRNN_EXPORT(rate_forward)(const ctrnn_rate_run* run) {
//         return ctrnn::CTRNN_ISA::guarded([&] { ... });
//     }
//
// Every kernel source is compiled once for each instruction set, with CTRNN_ISA = baseline, avx2 or avx512. It names the
// namespace of all that is inside, in headers too (two sets must not share a template instance), and the ending of the
// symbol: ctrnn_rate_forward_avx512. The loader asks dispatch.cpp once which set this machine has and calls those symbols,
// so no signature is written twice: in Python, call("ctrnn_rate_forward", run).
#pragma once

#ifndef CTRNN_ISA
#error "CTRNN_ISA names the instruction set: see CMakeLists.txt"
#endif

#define CTRNN_JOINED(name, isa) ctrnn_##name##_##isa
#define CTRNN_SYMBOL(name, isa) CTRNN_JOINED(name, isa)
#define CTRNN_EXPORT(name) extern "C" __attribute__((visibility("default"))) int CTRNN_SYMBOL(name, CTRNN_ISA)

namespace ctrnn::CTRNN_ISA {

// 0, or 1 where memory or threads ran out: no exception may leave a C function. The loader turns 1 into MemoryError.
template <class Body>
int guarded(Body&& body) noexcept {
    try {
        body();
        return 0;
    } catch (...) {
        return 1;
    }
}

}  // namespace ctrnn::CTRNN_ISA
