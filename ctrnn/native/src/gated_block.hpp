// What runs of gated networks on fixed steps share: a block of rows takes all steps before the next block begins.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "activations.hpp"
#include "drive.hpp"
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
    const T* drive(Drive<T, Run>& v, int64_t stage, int64_t step, int64_t row, T* room) const {
        if (run.coefficients == 1) return v.at(step, 0, row);
        const T s = T(run.begin[step] + (lerps ? 0.0 : run.c[stage]) * run.width[step]);
        for (int64_t power = run.coefficients - 1; power >= 0; --power) {
            const T* value = v.at(step, power, row);
            const bool highest = power + 1 == run.coefficients;
            along<T>(GATES * n, [&](auto part) {
                part.store(room, highest ? part.load(value) : part.load(value) + s * part.load(room));
            });
        }
        return room;
    }
};

// torch.lerp, which is the target itself at rate 1.
template <class V>
inline V lerp(V x, V target, V rate) {
    const V way = target - x;
    return rate < V{} + 0.5f ? x + rate * way : target - way * (1 - rate);
}

// Rows of the largest block.
template <class Run>
int64_t block_rows(const Run& run) {
    const int64_t threads = std::max(1, run.threads);
    return std::min(GATED_ROWS, (run.batch + threads - 1) / threads);
}

// body(first, last, scratch) for each block of rows; the scratch of each thread, `room` numbers, is there before it starts.
template <class T, class Run, class Body>
void in_blocks(const Run& run, int64_t room, Body body) {
    const int64_t threads = std::min<int64_t>(std::max(1, run.threads), run.batch);
    Aligned<T> scratch(threads * room);
    parallel(threads, int(threads), [&](int64_t thread, int64_t) {
        const int64_t first = thread * run.batch / threads, last = (thread + 1) * run.batch / threads;
        const int64_t blocks = (last - first + GATED_ROWS - 1) / GATED_ROWS;
        for (int64_t i = 0; i < blocks; ++i) {
            const int64_t begin = first + i * (last - first) / blocks, end = first + (i + 1) * (last - first) / blocks;
            body(begin, end, scratch.data() + thread * room);
        }
    });
}

}  // namespace ctrnn::CTRNN_ISA
