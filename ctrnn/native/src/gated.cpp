// Gated networks on fixed steps, as C functions.

#include "export.hpp"
#include "gated.hpp"
#include "threads.hpp"

#include <vector>

namespace ctrnn::CTRNN_ISA {

// body(first, last, scratch) for each block of rows; what each row needs of scratch is there before threads start.
template <class T, class Body>
void gated_blocks(const ctrnn_gated_run& run, int64_t room, Body body) {
    std::vector<T> scratch(run.batch * room);
    parallel(run.batch, run.threads, [&](int64_t first, int64_t last) {
        const int64_t blocks = (last - first + GATED_ROWS - 1) / GATED_ROWS;
        for (int64_t i = 0; i < blocks; ++i) {
            const int64_t begin = first + i * (last - first) / blocks, end = first + (i + 1) * (last - first) / blocks;
            body(begin, end, scratch.data() + begin * room);
        }
    });
}

template <class T>
void gated_forward(const ctrnn_gated_run& run) {
    const Matrix<T> W(static_cast<const T*>(run.W), run.n, 3 * run.n, true);
    gated_blocks<T>(run, gated_forward_room<T>(run), [&](int64_t first, int64_t last, T* scratch) {
        GatedForward<T>(run, W, first, last, scratch)();
    });
}

template <class T>
void gated_backward(const ctrnn_gated_run& run, const ctrnn_gated_back& back) {
    const T* W = static_cast<const T*>(run.W);
    const int64_t n = run.n;
    const Matrix<T> W_gates(W, 2 * n, n, false), W_q(W + 2 * n * n, n, n, false);
    gated_blocks<T>(run, gated_backward_room<T>(run), [&](int64_t first, int64_t last, T* scratch) {
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
