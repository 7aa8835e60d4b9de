// A block of rows of a rate network's run: what forward and backward share.
#pragma once

#include <type_traits>

#include "activations.hpp"
#include "drive.hpp"
#include "product.hpp"
#include "rate.h"
#include "vec.hpp"

namespace ctrnn::CTRNN_ISA {

// Rows that take all steps together. What is read of W serves all of them, and their states stay in the nearest caches.
constexpr int64_t RATE_ROWS = 48;

// As torch.lerp: exactly x at weight 0 and `end` at weight 1.
template <class T>
inline typename Vec<T>::type lerp(typename Vec<T>::type x, typename Vec<T>::type end, typename Vec<T>::type weight) {
    using V = Vec<T>;
    const auto near = V::absolute(weight) < V::broadcast(T(0.5));
    const auto from = near ? x : end;
    return (near ? weight : weight - T(1)) * (end - x) + from;
}

template <class T>
struct RateBlock {
    using V = Vec<T>;

    const ctrnn_rate_run& run;
    const Matrix<T>& W;
    Drive<T, ctrnn_rate_run>& v;
    const int64_t* rows;  // of the batch, those with more steps first
    const int64_t size;   // how many
    const int64_t n = run.n, length = padded<T>(n), plane = size * length;
    const T *gain = static_cast<const T*>(run.gain), *theta = static_cast<const T*>(run.theta);

    // How many rows, the first ones, take this step.
    int64_t live(int64_t step) const {
        int64_t rest = size;
        while (run.count && rest > 0 && run.count[rows[rest - 1]] <= step) --rest;
        return rest;
    }

    // Where in an array (step, batch, n) a row of this block lies.
    template <class Array>
    auto at(Array* array, int64_t step, int64_t row) const {
        using Element = std::conditional_t<std::is_const_v<Array>, const T, T>;
        return static_cast<Element*>(array) + (step * run.batch + rows[row]) * n;
    }

    // Asks for a row that the next step reads, or writes, while this one has other work: a run passes through long
    // arrays once, in pieces too short for the processor to guess what comes.
    template <class Element>
    void soon(Element* row, int64_t count) const {
        asm volatile("");  // GCC would drop calls of a function that does nothing but this
        for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(row + i, !std::is_const_v<Element>);
    }

    const T* rates(int64_t step) const {
        return static_cast<const T*>(run.rates) + (run.kind ? run.kind[step] * n : 0);
    }

    void take(const T* from, T* to) const {
        for (int64_t i = 0; i < n; i += V::width) V::store(to + i, V::load(from + i, n - i));
    }

    void give(const T* from, T* to) const {
        for (int64_t i = 0; i < n; i += V::width) V::store(to + i, V::load(from + i), n - i);
    }

    // v at the fraction c of a step.
    void drive(int64_t step, double c, int64_t live, T* out) const {
        const T s = run.coefficients > 1 ? T(run.begin[step] + c * run.width[step]) : T(0);
        for (int64_t k = run.coefficients - 1; k >= 0; --k)
            for (int64_t row = 0; row < live; ++row) {
                const T* from = v.at(step, k, row);
                T* to = out + row * length;
                for (int64_t i = 0; i < n; i += V::width)
                    V::store(to + i, k + 1 < run.coefficients ? V::load(from + i) + s * V::load(to + i) : V::load(from + i));
            }
    }

    // pre(gain x + theta), in `room` unless it is x itself.
    const T* sent(const T* x, int64_t live, T* room) const {
        if (!gain && !theta) {
            if (run.pre == IDENTITY) return x;
            activate<T>(run.pre, x, room, live * length);
            return room;
        }
        for (int64_t row = 0; row < live; ++row)
            for (int64_t i = 0; i < n; i += V::width) {
                const auto scale = gain ? V::load(gain + i, n - i) : V::broadcast(T(1));
                const auto shift = theta ? V::load(theta + i, n - i) : typename V::type{};
                V::store(room + row * length + i, V::load(x + row * length + i) * scale + shift);
            }
        activate<T>(run.pre, room, room, live * length);
        return room;
    }

    // F of the given states at the fraction c of a step; what they send, in `room` or in x, is returned.
    const T* target(int64_t step, double c, const T* x, int64_t live, T* room, T* out) const {
        drive(step, c, live, out);
        const T* r = sent(x, live, room);
        accumulate(r, length, live, W, out, length);
        activate<T>(run.post, out, out, live * length);
        return r;
    }

    // slope = rate (F - x)
    void relax(const T* rate, const T* F, const T* x, int64_t live, T* slope) const {
        for (int64_t row = 0; row < live; ++row)
            for (int64_t i = 0; i < n; i += V::width) {
                const int64_t j = row * length + i;
                V::store(slope + j, V::load(rate + i, n - i) * (V::load(F + j) - V::load(x + j)));
            }
    }

    // out = x + sum_j weights_j slopes_j over the first `stages` planes.
    void combine(const T* x, const double* weights, int64_t stages, const T* slopes, int64_t live, T* out) const {
        for (int64_t j = 0; j < live * length; j += V::width) {
            typename V::type sum{};
            for (int64_t stage = 0; stage < stages; ++stage)
                if (weights[stage] != 0) sum += T(weights[stage]) * V::load(slopes + stage * plane + j);
            V::store(out + j, V::load(x + j) + sum);
        }
    }
};

}  // namespace ctrnn::CTRNN_ISA
