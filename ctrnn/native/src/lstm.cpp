// Long short-term memory on fixed steps, as C functions.

#include "export.hpp"
#include "lstm.hpp"
#include "pages.hpp"

namespace ctrnn::CTRNN_ISA {

template <class T>
void lstm_forward(const ctrnn_lstm_run& run) {
    const Matrix<T> W(static_cast<const T*>(run.W), run.n, 4 * run.n, true);
    const int64_t each = run.steps * run.batch * run.n, kept = run.keep ? 0 : each;
    in_large_pages<T>(run.xs, kept), in_large_pages<T>(run.cs, kept), in_large_pages<T>(run.gates, 4 * each);
    const Matrix<T> W_in(static_cast<const T*>(run.W_in), run.W_in ? run.inputs : 0, 4 * run.n, true);
    in_blocks<T>(run, lstm_forward_room<T>(run, block_rows(run)), [&](int64_t first, int64_t last, T* scratch) {
        LSTMForward<T>(run, W, W_in, first, last, scratch)();
    });
}

template <class T>
void lstm_backward(const ctrnn_lstm_run& run, const ctrnn_lstm_back& back) {
    const Matrix<T> W(static_cast<const T*>(run.W), 4 * run.n, run.n, false);
    in_large_pages<T>(back.delta, 4 * run.steps * run.batch * run.n);
    in_blocks<T>(run, lstm_backward_room<T>(run, block_rows(run)), [&](int64_t first, int64_t last, T* scratch) {
        LSTMBackward<T>(run, back, W, first, last, scratch)();
    });
}

}  // namespace ctrnn::CTRNN_ISA

CTRNN_EXPORT(lstm_forward)(const ctrnn_lstm_run* run) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->dtype ? lstm_forward<double>(*run) : lstm_forward<float>(*run); });
}

CTRNN_EXPORT(lstm_backward)(const ctrnn_lstm_run* run, const ctrnn_lstm_back* back) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->dtype ? lstm_backward<double>(*run, *back) : lstm_backward<float>(*run, *back); });
}
