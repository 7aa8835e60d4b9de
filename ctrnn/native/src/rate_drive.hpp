// The drive of a block of rows, W_in u + b, made as the block gets there: it is never in memory for the whole run.
#pragma once

#include <algorithm>
#include <cstring>

#include "product.hpp"
#include "rate.h"

namespace ctrnn::CTRNN_ISA {

// Rows of a product that make good use of what is read of W_in: a small block projects several intervals at once.
constexpr int64_t DRIVE_ROWS = 48;

template <class T>
class RateDrive {
    using V = Vec<T>;

public:
    // W_in is 0 where u is what arrives at each unit.
    RateDrive(const ctrnn_rate_run& run, const Matrix<T>* W_in, const int64_t* rows, int64_t size)
        : run(run),
          W_in(W_in),
          rows(rows),
          size(run.drive_row ? size : 1),
          length(padded<T>(run.n)),
          ahead(std::clamp(DRIVE_ROWS / this->size, int64_t{1}, last() + 1)),
          gathered(W_in ? ahead * this->size * run.inputs : 0),
          projected(run.coefficients * ahead * this->size * length) {}

    // Where a coefficient's first row of whole vectors lies; the next one is `stride()` further.
    const T* at(int64_t step, int64_t coefficient) {
        const int64_t here = interval(step);
        if (here / ahead != chunk) make(here / ahead);
        return projected.data() + (coefficient * ahead + here % ahead) * size * length;
    }

    int64_t stride() const { return size > 1 ? length : 0; }

    // u at the fraction c of a step, the polynomial of its coefficients.
    void input(int64_t step, double c, int64_t row, T* out) const {
        const T s = run.coefficients > 1 ? T(run.begin[step] + c * run.width[step]) : T(0);
        const T* from = row_of(interval(step), row);
        for (int64_t i = 0; i < run.inputs; i += V::width) {
            int64_t power = run.coefficients - 1;
            auto u = V::load(from + power * run.drive_coefficient + i, run.inputs - i);
            while (--power >= 0) u = V::load(from + power * run.drive_coefficient + i, run.inputs - i) + s * u;
            V::store(out + i, u, run.inputs - i);
        }
    }

    // Of one row, in an interval of the drive.
    const T* row_of(int64_t interval, int64_t row) const {
        return static_cast<const T*>(run.drive) + interval * run.drive_interval + rows[row] * run.drive_row;
    }

    int64_t interval(int64_t step) const {
        return run.drive_interval == 0 ? 0 : run.interval ? run.interval[step] : step;
    }

private:
    int64_t last() const { return interval(run.steps - 1); }

    void make(int64_t wanted) {
        chunk = wanted;
        const int64_t first = chunk * ahead, count = std::min(ahead, last() + 1 - first);
        for (int64_t k = 0; k < run.coefficients; ++k) {
            T* to = projected.data() + k * ahead * size * length;
            for (int64_t i = 0; i < count * size; ++i) begin(k, row_of(first + i / size, i % size), i, to + i * length);
            if (W_in) accumulate(gathered.data(), run.inputs, count * size, *W_in, to, length);
        }
    }

    // b in the lowest power, to which a product is added, or u itself.
    void begin(int64_t power, const T* row, int64_t place, T* to) {
        const T *u = row + power * run.drive_coefficient, *b = power ? nullptr : static_cast<const T*>(run.b_in);
        if (W_in) std::memcpy(gathered.data() + place * run.inputs, u, run.inputs * sizeof(T));
        for (int64_t i = 0; i < run.n; i += V::width) {
            auto v = b ? V::load(b + i, run.n - i) : typename V::type{};
            if (!W_in) v += V::load(u + i, run.n - i);
            V::store(to + i, v);
        }
    }

    const ctrnn_rate_run& run;
    const Matrix<T>* W_in;
    const int64_t* rows;
    const int64_t size, length, ahead;  // rows, or 1 that all share; intervals in a chunk
    int64_t chunk = -1;
    Aligned<T> gathered, projected;
};

}  // namespace ctrnn::CTRNN_ISA
