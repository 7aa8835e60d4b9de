// Gated networks on fixed steps, as C functions.

#include "export.hpp"
#include "gated.hpp"

namespace ctrnn::CTRNN_ISA {

template <class T>
void gated_forward(const ctrnn_gated_run& run) {
    const Matrix<T> W(static_cast<const T*>(run.W), run.n, 3 * run.n, true);
    in_blocks<T>(run, gated_forward_room<T>(run), [&](int64_t first, int64_t last, T* scratch) {
        GatedForward<T>(run, W, first, last, scratch)();
    });
}

template <class T>
void gated_backward(const ctrnn_gated_run& run, const ctrnn_gated_back& back) {
    const T* W = static_cast<const T*>(run.W);
    const int64_t n = run.n;
    const Matrix<T> W_gates(W, 2 * n, n, false), W_q(W + 2 * n * n, n, n, false);
    in_blocks<T>(run, gated_backward_room<T>(run), [&](int64_t first, int64_t last, T* scratch) {
        GatedBackward<T>(run, back, W_gates, W_q, first, last, scratch)();
    });
}

}  // namespace ctrnn::CTRNN_ISA

CTRNN_EXPORT(gated_forward)(const ctrnn_gated_run* run) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->dtype ? gated_forward<double>(*run) : gated_forward<float>(*run); });
}

CTRNN_EXPORT(gated_backward)(const ctrnn_gated_run* run, const ctrnn_gated_back* back) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->dtype ? gated_backward<double>(*run, *back) : gated_backward<float>(*run, *back); });
}
