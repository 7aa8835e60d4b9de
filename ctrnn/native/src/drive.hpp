// The drive of a block of rows, W_in u + b, made as the block gets there: it is never in memory for the whole run.
#pragma once

#include <algorithm>
#include <cstring>

#include "product.hpp"

namespace ctrnn::CTRNN_ISA {

// Rows of a product that make good use of what is read of W_in: a small block projects several intervals at once.
constexpr int64_t DRIVE_ROWS = 48;

template <class T, class Run>
class Drive {
    using V = Vec<T>;

public:
    // The rows of the batch are those listed in `order`, or without it `first` and those after it. W_in (inputs, width) is
    // empty where there are no inputs, or as many as columns, which arrive as they are. `room` holds `size` numbers.
    Drive(const Run& run, const Matrix<T>& W_in, const int64_t* order, int64_t first, int64_t rows, int64_t width, T* room)
        : run(run),
          W_in(W_in),
          order(order),
          first(first),
          rows(run.drive_row ? rows : 1),
          width(width),
          length(padded<T>(width)),
          ahead(std::clamp(DRIVE_ROWS / this->rows, int64_t{1}, last() + 1)),
          projected(room),
          gathered(room + run.coefficients * ahead * this->rows * length) {}

    static int64_t size(const Run& run, int64_t rows, int64_t width) {
        return std::max(rows, DRIVE_ROWS) * (run.coefficients * padded<T>(width) + run.inputs);
    }

    // A row of v's coefficient in the interval of a step, in whole vectors.
    const T* at(int64_t step, int64_t coefficient, int64_t row) {
        const int64_t here = interval(step);
        if (here / ahead != chunk) make(here / ahead);
        return projected + ((coefficient * ahead + here % ahead) * rows + (rows > 1 ? row : 0)) * length;
    }

    // u at the fraction c of a step, the polynomial of its coefficients.
    void input(int64_t step, double c, int64_t row, T* out) const {
        const T s = run.coefficients > 1 ? T(run.begin[step] + c * run.width[step]) : T(0);
        const T* from = input_of(interval(step), row);
        for (int64_t i = 0; i < run.inputs; i += V::width) {
            int64_t power = run.coefficients - 1;
            auto u = V::load(from + power * run.drive_coefficient + i, run.inputs - i);
            while (--power >= 0) u = V::load(from + power * run.drive_coefficient + i, run.inputs - i) + s * u;
            V::store(out + i, u, run.inputs - i);
        }
    }

    // Where the lowest coefficient of u lies, of a row in the interval of a step.
    const T* input_at(int64_t step, int64_t row) const { return input_of(interval(step), row); }

private:
    int64_t interval(int64_t step) const {
        return run.drive_interval == 0 ? 0 : run.interval ? run.interval[step] : step;
    }

    int64_t last() const { return interval(run.steps - 1); }

    const T* input_of(int64_t interval, int64_t row) const {
        const int64_t place = order ? order[row] : first + row;
        return static_cast<const T*>(run.drive) + interval * run.drive_interval + place * run.drive_row;
    }

    void make(int64_t wanted) {
        chunk = wanted;
        const int64_t begin = chunk * ahead, count = std::min(ahead, last() + 1 - begin) * rows;
        for (int64_t power = 0; power < run.coefficients; ++power) {
            T* to = projected + power * ahead * rows * length;
            for (int64_t i = 0; i < count; ++i)
                start(power, input_of(begin + i / rows, i % rows) + power * run.drive_coefficient, i, to + i * length);
            if (W_in.k) accumulate(gathered, run.inputs, count, W_in, to, length);
        }
    }

    // b in the lowest power, to which a product is added, or u itself.
    void start(int64_t power, const T* u, int64_t place, T* to) {
        const T* b = power ? nullptr : static_cast<const T*>(run.b_in);
        if (W_in.k) std::copy_n(u, run.inputs, gathered + place * run.inputs);
        for (int64_t i = 0; i < width; i += V::width) {
            auto v = b ? V::load(b + i, width - i) : typename V::type{};
            if (!W_in.k && run.inputs) v += V::load(u + i, width - i);
            V::store(to + i, v);
        }
    }

    const Run& run;
    const Matrix<T>& W_in;
    const int64_t* order;
    const int64_t first, rows, width, length, ahead;  // rows, or 1 that all share; intervals in a chunk
    T *const projected, *const gathered;
    int64_t chunk = -1;
};

}  // namespace ctrnn::CTRNN_ISA
