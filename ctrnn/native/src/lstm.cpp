// Long short-term memory on fixed steps, as C functions.

#include "export.hpp"
#include "lstm.hpp"

namespace ctrnn::CTRNN_ISA {

template <class T>
void lstm_forward(const ctrnn_lstm_run& run) {
    const Matrix<T> W(static_cast<const T*>(run.W), run.n, 4 * run.n, true);
    in_blocks<T>(run, lstm_forward_room<T>(run), [&](int64_t first, int64_t last, T* scratch) {
        LSTMForward<T>(run, W, first, last, scratch)();
    });
}

template <class T>
void lstm_backward(const ctrnn_lstm_run& run, const ctrnn_lstm_back& back) {
    const Matrix<T> W(static_cast<const T*>(run.W), 4 * run.n, run.n, false);
    in_blocks<T>(run, lstm_backward_room<T>(run), [&](int64_t first, int64_t last, T* scratch) {
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
