// Adaptive steps of rate networks as C functions: search, then collect or discard what was found, and pull back.

#include <atomic>
#include <mutex>

#include "adaptive_pullback.hpp"
#include "adaptive_search.hpp"
#include "threads.hpp"

namespace ctrnn::CTRNN_ISA {

// As `parallel`, for a body that may throw: any exception comes out in the caller.
template <class Body>
void in_shares(const ctrnn_adaptive_run& run, Body body) {
    std::atomic<bool> failed{false};
    parallel(run.rows, static_cast<int>(run.threads), [&](int64_t first, int64_t last) {
        try {
            body(first, last);
        } catch (...) {
            failed = true;
        }
    });
    if (failed) throw std::bad_alloc();
}

template <class T>
using Logs = std::vector<std::unique_ptr<Log<T>>>;

template <class T>
void search(ctrnn_adaptive_run& run) {
    auto logs = std::make_unique<Logs<T>>();
    std::mutex guard;
    const Network<T> network(run, false);
    Queue queue{run.rows};
    const int64_t shares = std::max<int64_t>(std::min(run.threads, run.rows), 1);
    const int64_t slots = std::min(SLOTS, (run.rows + shares - 1) / shares);
    in_shares(run, [&](int64_t first, int64_t) {
        auto log = std::make_unique<Log<T>>(run.n);
        Search<T>(run, network, *log).run(queue, slots, run.report != nullptr && first == 0);
        const std::lock_guard<std::mutex> lock(guard);
        logs->push_back(std::move(log));
    });
    run.log = run.keep > 0 ? logs.release() : nullptr;
}

template <class T>
void discard(ctrnn_adaptive_run& run) {
    delete static_cast<Logs<T>*>(run.log);
    run.log = nullptr;
}

template <class T>
void collect(ctrnn_adaptive_run& run, const ctrnn_adaptive_steps& steps) {
    for (const auto& log : *static_cast<Logs<T>*>(run.log)) log->collect(steps);
    discard<T>(run);
}

template <class T>
void pullback(const ctrnn_adaptive_run& run, const ctrnn_adaptive_steps& steps, const ctrnn_adaptive_gradient& gradient) {
    const Network<T> network(run, true);
    std::vector<std::pair<int64_t, std::unique_ptr<Pullback<T>>>> shares;
    std::mutex guard;
    in_shares(run, [&](int64_t first, int64_t last) {
        auto share = std::make_unique<Pullback<T>>(run, steps, gradient, network);
        share->rows(first, last);
        const std::lock_guard<std::mutex> lock(guard);
        shares.emplace_back(first, std::move(share));
    });
    // Always in the order of the rows, so that the sums are the same again.
    std::sort(shares.begin(), shares.end());
    for (const auto& share : shares) share.second->add();
}

}  // namespace ctrnn::CTRNN_ISA

// The steps that are kept lie in run->log until one of the two functions below takes them.
CTRNN_EXPORT(adaptive_search)(ctrnn_adaptive_run* run) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->single ? search<float>(*run) : search<double>(*run); });
}

CTRNN_EXPORT(adaptive_collect)(ctrnn_adaptive_run* run, const ctrnn_adaptive_steps* steps) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->single ? collect<float>(*run, *steps) : collect<double>(*run, *steps); });
}

CTRNN_EXPORT(adaptive_discard)(ctrnn_adaptive_run* run) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] { run->single ? discard<float>(*run) : discard<double>(*run); });
}

CTRNN_EXPORT(adaptive_pullback)
(const ctrnn_adaptive_run* run, const ctrnn_adaptive_steps* steps, const ctrnn_adaptive_gradient* gradient) {
    using namespace ctrnn::CTRNN_ISA;
    return guarded([&] {
        run->single ? pullback<float>(*run, *steps, *gradient) : pullback<double>(*run, *steps, *gradient);
    });
}
