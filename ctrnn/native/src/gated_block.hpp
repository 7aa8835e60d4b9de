// What runs of gated networks on fixed steps share: a block of rows takes all steps before the next block begins.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "activations.hpp"
#include "product.hpp"
#include "threads.hpp"
#include "vec.hpp"

namespace ctrnn::CTRNN_ISA {

// Rows of a block: many share what is read of W, and what belongs to them alone stays in the second-level cache.
constexpr int64_t GATED_ROWS = 48;

// One vector of a row, or what is left of it.
template <class T, bool whole>
struct Part {
    using V = typename Vec<T>::type;
    int64_t begin, count;

    static V zero() { return V{}; }
    V load(const T* row) const {
        if constexpr (whole) return Vec<T>::load(row + begin);
        else return Vec<T>::load(row + begin, count);
    }
    void store(T* row, V value) const {
        if constexpr (whole) Vec<T>::store(row + begin, value);
        else Vec<T>::store(row + begin, value, count);
    }
};

template <class T, class Body>
inline void along(int64_t n, Body body) {
    int64_t begin = 0;
    for (; begin + Vec<T>::width <= n; begin += Vec<T>::width) body(Part<T, true>{begin, Vec<T>::width});
    if (begin < n) body(Part<T, false>{begin, n - begin});
}

// Room for arrays of one block, taken one after another.
template <class T>
struct Room {
    T* next;
    T* take(int64_t size) { return std::exchange(next, next + size); }
};

// What both directions ask of a run, for the rows of one block.
template <class T, class Run, int GATES>
struct GatedBlock {
    const Run& run;
    const int64_t n, first, rows, stages;
    const int64_t line, long_line;  // length of a row of n, or of all gates, in an array of our own
    const bool lerps;

    GatedBlock(const Run& run, int64_t first, int64_t last)
        : run(run), n(run.n), first(first), rows(last - first), stages(std::max(run.stages, 1)),
          line(padded<T>(n)), long_line(padded<T>(GATES * n)), lerps(!run.stages) {}

    bool takes(int64_t row, int64_t step) const { return !run.count || run.count[first + row] > step; }

    // Rows up to the last one that takes the step: no others, where rows stand in the order of their counts.
    int64_t live(int64_t step) const {
        int64_t last = rows;
        while (last > 0 && !takes(last - 1, step)) --last;
        return last;
    }

    // A row of an array (stages, steps, batch, width).
    template <class U>
    U* at(U* array, int64_t stage, int64_t step, int64_t row, int64_t width) const {
        return array + ((stage * run.steps + step) * run.batch + first + row) * width;
    }

    int64_t kind(int64_t step) const { return run.kind ? run.kind[step] : 0; }
    const T* rate(int64_t step) const { return static_cast<const T*>(run.rates) + kind(step) * n; }

    // The drive's value in a stage: where it lies, or, if it is a polynomial, in `room`.
    const T* drive(int64_t stage, int64_t step, int64_t row, T* room) const {
        const T* value = static_cast<const T*>(run.drive) + (first + row) * run.drive_row +
                         (run.interval ? run.interval[step] : step) * run.drive_interval;
        if (run.coefficients == 1) return value;
        const T s = T(run.begin[step] + (lerps ? 0.0 : run.c[stage]) * run.width[step]);
        along<T>(GATES * n, [&](auto part) {
            auto sum = part.load(value + (run.coefficients - 1) * run.drive_coefficient);
            for (int64_t p = run.coefficients - 2; p >= 0; --p)
                sum = part.load(value + p * run.drive_coefficient) + s * sum;
            part.store(room, sum);
        });
        return room;
    }
};

// torch.lerp, which is the target itself at rate 1.
template <class V>
inline V lerp(V x, V target, V rate) {
    const V way = target - x;
    return rate < V{} + 0.5f ? x + rate * way : target - way * (1 - rate);
}

// body(first, last, scratch) for each block of rows; what each row needs of scratch is there before threads start.
template <class T, class Run, class Body>
void in_blocks(const Run& run, int64_t room, Body body) {
    std::vector<T> scratch(run.batch * room);
    parallel(run.batch, run.threads, [&](int64_t first, int64_t last) {
        const int64_t blocks = (last - first + GATED_ROWS - 1) / GATED_ROWS;
        for (int64_t i = 0; i < blocks; ++i) {
            const int64_t begin = first + i * (last - first) / blocks, end = first + (i + 1) * (last - first) / blocks;
            body(begin, end, scratch.data() + begin * room);
        }
    });
}

}  // namespace ctrnn::CTRNN_ISA
