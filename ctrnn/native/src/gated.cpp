// Gated networks on fixed steps, as C functions.

#include "export.hpp"
#include "gated.hpp"
#include "pages.hpp"

namespace ctrnn::CTRNN_ISA {

template <class T>
void gated_forward(const ctrnn_gated_run& run) {
    const Matrix<T> W(static_cast<const T*>(run.W), run.n, 3 * run.n, true);
    const int64_t each = run.steps * run.batch * run.n;
    in_large_pages<T>(run.xs, run.keep ? 0 : each), in_large_pages<T>(run.gates, 4 * std::max(run.stages, 1) * each);
    const Matrix<T> W_in(static_cast<const T*>(run.W_in), run.W_in ? run.inputs : 0, 3 * run.n, true);
    in_blocks<T>(run, gated_forward_room<T>(run, block_rows(run)), [&](int64_t first, int64_t last, T* scratch) {
        GatedForward<T>(run, W, W_in, first, last, scratch)();
    });
}

template <class T>
void gated_backward(const ctrnn_gated_run& run, const ctrnn_gated_back& back) {
    const T* W = static_cast<const T*>(run.W);
    const int64_t n = run.n;
    const Matrix<T> W_gates(W, 2 * n, n, false), W_q(W + 2 * n * n, n, n, false);
    const int64_t each = std::max(run.stages, 1) * run.steps * run.batch * n;
    in_large_pages<T>(back.delta, 3 * each), in_large_pages<T>(back.delta_q, each), in_large_pages<T>(back.sent, each);
    in_blocks<T>(run, gated_backward_room<T>(run, block_rows(run)), [&](int64_t first, int64_t last, T* scratch) {
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
