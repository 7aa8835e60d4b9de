// The C functions of rate.h: rows shared out among threads, block by block.
#include "rate.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "export.hpp"
#include "pages.hpp"
#include "rate_backward.hpp"
#include "rate_forward.hpp"
#include "threads.hpp"

namespace ctrnn::CTRNN_ISA {
namespace {

// Multiplications that are worth starting a thread for.
constexpr double SHARE = 1e6;

int64_t threads_for(const ctrnn_rate_run& run) {
    const double work = double(run.steps) * run.batch * run.n * (run.n + 32) * std::max(run.stages, 1);
    return std::max<int64_t>(1, std::min({double(run.threads), double(run.batch), 1 + work / SHARE}));
}

template <class T>
struct Weights {
    // Both empty if they are not needed.
    Weights(const ctrnn_rate_run& run, bool needed)
        : W(static_cast<const T*>(run.W), needed ? run.n : 0, needed ? run.n : 0, true),
          W_in(static_cast<const T*>(run.W_in), needed && run.W_in ? run.inputs : 0, needed && run.W_in ? run.n : 0, true) {}

    const Matrix<T> W, W_in;
};

// The first row of a thread's share; the first shares have one row more where they cannot be equal.
int64_t share(const ctrnn_rate_run& run, int64_t threads, int64_t thread) {
    return thread * (run.batch / threads) + std::min(thread, run.batch % threads);
}

// The rows of the batch share by share. Where their numbers of steps differ they are dealt out like cards, long ones
// first, so that no thread has all the long ones.
std::vector<int64_t> order_of_rows(const ctrnn_rate_run& run, int64_t threads) {
    std::vector<int64_t> rows(run.batch), order(run.batch);
    std::iota(rows.begin(), rows.end(), 0);
    if (!run.count) return rows;
    std::stable_sort(rows.begin(), rows.end(), [&](int64_t i, int64_t j) { return run.count[i] > run.count[j]; });
    for (int64_t i = 0; i < run.batch; ++i) order[share(run, threads, i % threads) + i / threads] = rows[i];
    return order;
}

// work(block, thread, room) for every block of rows, where room holds `planes` arrays of the block's size.
template <class T, class Work>
void blocks(const ctrnn_rate_run& run, int64_t threads, const Weights<T>& weights, int64_t planes, Work work) {
    const auto order = order_of_rows(run, threads);
    const int64_t most = std::min(RATE_ROWS, share(run, threads, 1)), plane = most * padded<T>(run.n);
    const int64_t room = planes * plane + Drive<T, ctrnn_rate_run>::size(run, most, run.n);
    Aligned<T> memory(threads * room);
    parallel(threads, int(threads), [&](int64_t thread, int64_t) {
        const int64_t first = share(run, threads, thread), rows = share(run, threads, thread + 1) - first;
        const int64_t count = (rows + RATE_ROWS - 1) / RATE_ROWS;
        for (int64_t block = 0; block < count; ++block) {
            const int64_t begin = block * rows / count, end = (block + 1) * rows / count;
            const int64_t* own = order.data() + first + begin;
            T* mine = memory.data() + thread * room;
            Drive<T, ctrnn_rate_run> v(run, weights.W_in, own, 0, end - begin, run.n, mine + planes * plane);
            work(RateBlock<T>{run, weights.W, v, own, end - begin}, thread, mine);
        }
    });
}

bool is_empty(const ctrnn_rate_run& run) { return run.batch == 0 || run.n == 0; }

template <class T>
void forward(const ctrnn_rate_run& run) {
    if (is_empty(run)) return;
    const int64_t each = run.steps * run.batch * run.n;
    in_large_pages<T>(run.targets, each), in_large_pages<T>(run.xs, run.keep ? 0 : each);
    blocks<T>(run, threads_for(run), Weights<T>(run, true), RateForward<T>::planes(run),
              [](const RateBlock<T>& block, int64_t, T* room) { RateForward<T>(block, room)(); });
}

template <class T>
void clear(void* at, int64_t count) {
    if (at) std::fill_n(static_cast<T*>(at), count, T(0));
}

template <class T>
void backward(const ctrnn_rate_run& run, const ctrnn_rate_back& back) {
    T *grad_W = static_cast<T*>(back.grad_W), *grad_W_in = static_cast<T*>(back.grad_W_in);
    T* grad_b = static_cast<T*>(back.grad_b);
    clear<T>(grad_W, run.n * run.n), clear<T>(grad_W_in, run.n * run.inputs), clear<T>(grad_b, run.n);
    if (is_empty(run)) return;
    const int64_t threads = threads_for(run), each = run.steps * run.batch * run.n;
    in_large_pages<T>(back.delta, std::max(run.stages, 1) * each), in_large_pages<T>(back.grad_kicks, each);
    const Matrix<T> W_back(static_cast<const T*>(run.W), run.n, run.n, false);
    std::vector<WeightGradient<T>> parts;
    std::vector<InputGradient<T>> parts_in;
    for (int64_t thread = 0; thread < threads; ++thread) {
        if (grad_W) parts.emplace_back(run.n);
        if (grad_W_in || grad_b) parts_in.emplace_back(run.n, grad_W_in ? run.inputs : 0);
    }
    // A lerp needs nothing of the way there again.
    blocks<T>(run, threads, Weights<T>(run, run.stages > 0), RateBackward<T>::planes(run),
              [&](const RateBlock<T>& block, int64_t thread, T* room) {
                  WeightGradient<T>* of_W = grad_W ? &parts[thread] : nullptr;
                  InputGradient<T>* of_in = parts_in.empty() ? nullptr : &parts_in[thread];
                  RateBackward<T>(block, back, W_back, of_W, of_in, room)();
              });
    for (WeightGradient<T>& part : parts) part.add_to(grad_W);
    for (InputGradient<T>& part : parts_in) part.add_to(grad_W_in, grad_b);
}

}  // namespace
}  // namespace ctrnn::CTRNN_ISA

CTRNN_EXPORT(rate_forward)(const ctrnn_rate_run* run) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->dtype ? forward<double>(*run) : forward<float>(*run); });
}

CTRNN_EXPORT(rate_backward)(const ctrnn_rate_run* run, const ctrnn_rate_back* back) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->dtype ? backward<double>(*run, *back) : backward<float>(*run, *back); });
}
