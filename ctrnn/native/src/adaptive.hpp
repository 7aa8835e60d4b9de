// What the search for adaptive steps and its gradient share: rows in slots, the network on a few of them, the method.
//
// A thread carries a few rows at a time, each at its own time, in slots that lie beside one another, so that one matrix
// product serves them all. Nothing that a row computes depends on which rows are beside it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "activations.hpp"
#include "adaptive.h"
#include "export.hpp"
#include "product.hpp"

namespace ctrnn::CTRNN_ISA {

constexpr int64_t SLOTS = 6;   // rows of a register tile
constexpr int64_t STAGES = 7;  // at most

// Rows of memory are whole cache lines, zero where there is no unit.
template <class T>
constexpr int64_t LANES = 64 / sizeof(T);

// Rows of zeros of a padded length, each aligned to a cache line.
template <class T>
class Block {
   public:
    Block(int64_t rows, int64_t length) : length_(length), memory_(rows * length), first_(memory_.data()) {}

    T* row(int64_t i) const { return first_ + i * length_; }

   private:
    int64_t length_;
    Aligned<T> memory_;
    T* first_;
};

// What multiplies the slopes in one combination of them; slopes with the weight zero are left out.
template <class T>
struct Weights {
    int64_t count = 0;
    int64_t which[STAGES];
    T value[STAGES];

    void add(int64_t slope, double weight) {
        if (weight == 0.0) return;
        which[count] = slope;
        value[count++] = static_cast<T>(weight);
    }
};

template <int J, class T, class Take>
inline void combined(int64_t length, const T* x, T h, const Weights<T>& weights, const T* slopes, int64_t stride,
                     Take take) {
    using V = Vec<T>;
    const T* k[J];
    typename V::type w[J];
    for (int j = 0; j < J; j++) {
        k[j] = slopes + weights.which[j] * stride;
        w[j] = V::broadcast(weights.value[j]);
    }
    for (int64_t u = 0; u < length; u += V::width) {
        auto sum = w[0] * V::load(k[0] + u);
        for (int j = 1; j < J; j++) sum += w[j] * V::load(k[j] + u);
        take(u, V::load(x + u) + h * sum);
    }
}

// take(unit, vector) for all of x + h sum_j weight_j slope_j, slope j at slopes + j stride.
template <class T, class Take>
void combine(int64_t length, const T* x, T h, const Weights<T>& weights, const T* slopes, int64_t stride, Take take) {
    switch (weights.count) {
        case 0:
            for (int64_t u = 0; u < length; u += Vec<T>::width) take(u, Vec<T>::load(x + u));
            break;
        case 1: combined<1>(length, x, h, weights, slopes, stride, take); break;
        case 2: combined<2>(length, x, h, weights, slopes, stride, take); break;
        case 3: combined<3>(length, x, h, weights, slopes, stride, take); break;
        case 4: combined<4>(length, x, h, weights, slopes, stride, take); break;
        case 5: combined<5>(length, x, h, weights, slopes, stride, take); break;
        case 6: combined<6>(length, x, h, weights, slopes, stride, take); break;
        default: combined<7>(length, x, h, weights, slopes, stride, take);
    }
}

// For `combine`: what puts the vectors into a row of n numbers, and nothing behind them.
template <class T>
auto into(T* row, int64_t n) {
    return [row, n](int64_t u, typename Vec<T>::type value) { Vec<T>::store(row + u, value, n - u); };
}

// A step of one row: where it lies in the timeline.
struct Step {
    int64_t interval;
    double offset, dt;
};

// Where a step lies in the drive: from which fraction of which interval, and how much of it.
struct Place {
    int64_t interval;
    double begin, width;

    Place() = default;
    Place(const ctrnn_adaptive_run& run, int64_t row, const Step& step) : interval(run.interval[step.interval]) {
        const double scale = run.width[step.interval] / run.length[step.interval * run.rows + row];
        begin = run.begin[step.interval] + step.offset * scale;
        width = step.dt * scale;
    }

    // The fraction of the interval at which a stage looks.
    double at(double c) const { return begin + c * width; }
};

template <class T>
struct Method {
    int64_t stages, powers;
    Weights<T> a[STAGES], error;
    const double *c, *dense;

    explicit Method(const ctrnn_adaptive_run& run)
        : stages(run.stages), powers(run.powers), c(run.c), dense(run.dense) {
        for (int64_t i = 0; i < stages; i++) {
            for (int64_t j = 0; j < i; j++) a[i].add(j, run.a[i * stages + j]);
            error.add(i, run.b_error[i]);
        }
    }

    // Weights of the slopes at the fraction theta of the step.
    Weights<T> between(double theta) const {
        Weights<T> weights;
        for (int64_t i = 0; i < stages; i++) {
            double total = 0;
            for (int64_t p = powers; p-- > 0;) total = (total + dense[i * powers + p]) * theta;
            weights.add(i, total);
        }
        return weights;
    }
};

// The network and its drive, with rows padded.
template <class T>
class Network {
   public:
    const int64_t n, length;
    const int pre, post;
    const Matrix<T> forth, back;  // W^T, and W where it is needed
    const Block<T> parts;         // 1 / tau, gain, theta

    Network(const ctrnn_adaptive_run& run, bool backward)
        : n(run.n),
          length((n + LANES<T> - 1) / LANES<T> * LANES<T>),
          pre(static_cast<int>(run.pre)),
          post(static_cast<int>(run.post)),
          forth(static_cast<const T*>(run.W), n, n, true),
          back(static_cast<const T*>(run.W), backward ? n : 0, n, false),
          parts(3, length),
          run_(run),
          scaled_(run.gain != nullptr),
          shifted_(run.theta != nullptr) {
        for (int64_t i = 0; i < n; i++) {
            rate()[i] = T(1) / static_cast<const T*>(run.tau)[i];
            gain()[i] = scaled_ ? static_cast<const T*>(run.gain)[i] : T(1);
            theta()[i] = shifted_ ? static_cast<const T*>(run.theta)[i] : T(0);
        }
    }

    T* rate() const { return parts.row(0); }
    T* gain() const { return parts.row(1); }
    T* theta() const { return parts.row(2); }

    // The drive of a row at the fraction s of one of its intervals.
    void drive(int64_t row, int64_t interval, double s, T* out) const {
        using V = Vec<T>;
        const int64_t stride = run_.coefficient_stride;
        const T* highest = static_cast<const T*>(run_.drive) + (run_.coefficients - 1) * stride +
                           interval * run_.interval_stride + row * run_.row_stride;
        const T fraction = static_cast<T>(s);
        for (int64_t u = 0; u < n; u += V::width) {
            const T* c = highest + u;
            auto value = V::load(c, n - u);
            for (int64_t p = run_.coefficients - 1; p-- > 0;) value = V::load(c -= stride, n - u) + fraction * value;
            V::store(out + u, value);
        }
    }

    // Targets of rows beside one another at states y: `target` holds the drive before, `sent` is pre(gain y + theta).
    void aim(int64_t rows, const T* y, T* sent, T* target) const {
        const int64_t all = rows * length;
        if (scaled_ || shifted_) {
            for (int64_t i = 0; i < rows; i++) {
                const T *from = y + i * length, *g = gain(), *b = theta();
                T* to = sent + i * length;
#pragma GCC ivdep
                for (int64_t u = 0; u < length; u++) to[u] = g[u] * from[u] + b[u];
            }
            activate<T>(pre, sent, sent, all);
        } else {
            activate<T>(pre, y, sent, all);
        }
        accumulate<T>(sent, length, rows, forth, target, length);
        activate<T>(post, target, target, all);
    }

    // slope = (target - y) / tau, in place of the target. Where there is no unit it is zero.
    void relax(int64_t rows, const T* y, T* target) const {
        using V = Vec<T>;
        for (int64_t i = 0; i < rows; i++) {
            const T* from = y + i * length;
            T* to = target + i * length;
            for (int64_t u = 0; u < length; u += V::width)
                V::store(to + u, (V::load(to + u) - V::load(from + u)) * V::load(rate() + u));
        }
    }

   private:
    const ctrnn_adaptive_run& run_;
    const bool scaled_, shifted_;
};

}  // namespace ctrnn::CTRNN_ISA
