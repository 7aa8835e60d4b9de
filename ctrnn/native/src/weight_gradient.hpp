// The gradient of weights, delta^T sent, summed over all steps and rows that one thread meets.
#pragma once

#include <cstring>

#include "product.hpp"

namespace ctrnn::CTRNN_ISA {

// The rows wait until there are so many that it is worth to pass through the whole sum.
template <class T>
class WeightGradient {
public:
    explicit WeightGradient(int64_t n)
        : n(n),
          length(padded<T>(n)),
          ld(length + Vec<T>::width),
          sum(n * length),
          deltas(ROWS * ld),
          all_sent(ROWS * ld) {}

    // Both are rows of whole vectors.
    void add(const T* delta, const T* sent) {
        std::memcpy(deltas.data() + rows * ld, delta, length * sizeof(T));
        std::memcpy(all_sent.data() + rows * ld, sent, length * sizeof(T));
        if (++rows == ROWS) sum_up();
    }

    void add_to(T* total) {
        sum_up();
        for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < n; ++j) total[i * n + j] += sum.data()[i * length + j];
    }

private:
    static constexpr int64_t ROWS = 128;

    void sum_up() {
        accumulate_outer(deltas.data(), all_sent.data(), ld, rows, n, sum.data(), length);
        rows = 0;
    }

    // Rows are `ld` apart, which is no power of two: those would share few places in the caches.
    int64_t n, length, ld, rows = 0;
    Aligned<T> sum, deltas, all_sent;
};

}  // namespace ctrnn::CTRNN_ISA
