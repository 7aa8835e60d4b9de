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
        accumulate_outer(deltas.data(), ld, all_sent.data(), ld, rows, n, sum.data(), length);
        rows = 0;
    }

    // Rows are `ld` apart, which is no power of two: those would share few places in the caches.
    int64_t n, length, ld, rows = 0;
    Aligned<T> sum, deltas, all_sent;
};

// The gradients of W_in and b, delta^T u and the sum of delta, likewise: b is the weight of a last input that is 1.
template <class T>
class InputGradient {
public:
    InputGradient(int64_t n, int64_t inputs)
        : n(n),
          inputs(inputs),
          length(padded<T>(n)),
          ld(length + Vec<T>::width),
          ldu(padded<T>(inputs + 1) + Vec<T>::width),
          sum((inputs + 1) * length),
          deltas(ROWS * ld),
          all_u(ROWS * ldu) {}

    // delta is a row of whole vectors; what is returned waits for u, before the next row is added.
    T* add(const T* delta) {
        if (rows == ROWS) sum_up();
        std::memcpy(deltas.data() + rows * ld, delta, length * sizeof(T));
        T* u = all_u.data() + rows++ * ldu;
        u[inputs] = T(1);
        return u;
    }

    void add_to(T* of_W, T* of_b) {
        sum_up();
        for (int64_t i = 0; i < n; ++i) {
            for (int64_t j = 0; of_W && j < inputs; ++j) of_W[i * inputs + j] += sum.data()[j * length + i];
            if (of_b) of_b[i] += sum.data()[inputs * length + i];
        }
    }

private:
    static constexpr int64_t ROWS = 128;

    void sum_up() {
        accumulate_outer(all_u.data(), ldu, deltas.data(), ld, rows, inputs + 1, sum.data(), length);
        rows = 0;
    }

    int64_t n, inputs, length, ld, ldu, rows = 0;
    Aligned<T> sum, deltas, all_u;
};

}  // namespace ctrnn::CTRNN_ISA
