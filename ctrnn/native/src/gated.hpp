// The gated recurrent unit along fixed steps, and the way back. A block of rows takes all steps before the next block.
//
// Forward keeps r, z, c and q of every stage if there will be a way back: to compute them again would cost the product
// with W a second time, which takes longer than to write and read 4 n numbers.
#pragma once

#include "gated.h"
#include "gated_block.hpp"

namespace ctrnn::CTRNN_ISA {

template <class T>
struct GRUBlock : GatedBlock<T, ctrnn_gated_run, 3> {
    using Block = GatedBlock<T, ctrnn_gated_run, 3>;
    using Block::Block, Block::line, Block::n, Block::rows;

    // sum_j weights_j k_j of the first slopes of a row, k (stages, rows, line).
    template <class P>
    auto combined(P part, const double* weights, int64_t count, const T* k, int64_t row) const {
        auto sum = part.zero();
        for (int64_t j = 0; j < count; ++j) sum += T(weights[j]) * part.load(k + (j * rows + row) * line);
        return sum;
    }

    // y = x + rate sum_j weights_j k_j
    void advance(const T* x, const T* rate, const double* weights, int64_t count, const T* k, int64_t row, T* y) const {
        along<T>(n, [&](auto part) {
            part.store(y, part.load(x) + part.load(rate) * combined(part, weights, count, k, row));
        });
    }
};

// W h + b + v, except that the candidate's block of v is left out, before the product is added.
template <class T>
void begin_sum(int64_t n, const T* v, const T* b_rec, T* sum) {
    along<T>(2 * n, [&](auto part) { part.store(sum, b_rec ? part.load(v) + part.load(b_rec) : part.load(v)); });
    along<T>(n, [&](auto part) { part.store(sum + 2 * n, b_rec ? part.load(b_rec + 2 * n) : part.zero()); });
}

// The gates of one row, kept if asked to, and what `use` makes of the target.
template <class T, class Use>
inline void gates_of(int64_t n, const T* sum, const T* v, const T* h, T* kept, Use use) {
    along<T>(n, [&](auto part) {
        const auto r = logistic<T>(part.load(sum)), z = logistic<T>(part.load(sum + n)), q = part.load(sum + 2 * n);
        const auto c = hyperbolic_tangent<T>(part.load(v + 2 * n) + r * q), x = part.load(h);
        if (kept) {
            part.store(kept, r);
            part.store(kept + n, z);
            part.store(kept + 2 * n, c);
            part.store(kept + 3 * n, q);
        }
        use(part, x, (x - c) * z + c);
    });
}

// Numbers of scratch that a block needs.
template <class T>
int64_t gated_forward_room(const ctrnn_gated_run& run, int64_t rows) {
    return rows * padded<T>(run.n) * (1 + (run.stages ? 1 + run.stages : 0)) +
           rows * padded<T>(3 * run.n) * (run.coefficients > 1 ? 2 : 1) +
           Drive<T, ctrnn_gated_run>::size(run, rows, 3 * run.n);
}

template <class T>
struct GatedForward : GRUBlock<T> {
    using Block = GRUBlock<T>;
    using Block::line, Block::long_line, Block::lerps, Block::n, Block::rows, Block::run, Block::stages;
    const Matrix<T>& W;  // (n, 3 n)
    Room<T> room;
    Drive<T, ctrnn_gated_run> driven;
    T *x, *sum, *v, *y, *k;

    GatedForward(const ctrnn_gated_run& run, const Matrix<T>& W, const Matrix<T>& W_in, int64_t first, int64_t last,
                 T* scratch)
        : Block(run, first, last),
          W(W),
          room{scratch},
          driven(run, W_in, nullptr, first, rows, 3 * n, room.take(Drive<T, ctrnn_gated_run>::size(run, rows, 3 * n))) {
        x = room.take(rows * line), sum = room.take(rows * long_line);
        v = room.take(run.coefficients > 1 ? rows * long_line : 0);
        y = room.take(lerps ? 0 : rows * line), k = room.take(lerps ? 0 : stages * rows * line);
    }

    void operator()() {
        const T* x0 = static_cast<const T*>(run.x0) + this->first * n;
        for (int64_t row = 0; row < rows; ++row) std::copy_n(x0 + row * n, n, x + row * line);
        for (int64_t step = 0; step < run.steps; ++step) {
            const int64_t live = this->live(step), slot = run.keep ? run.keep[step] : step;
            for (int64_t stage = 0; stage < stages; ++stage) evaluate(stage, step, live);
            for (int64_t row = 0; row < live; ++row)
                if (this->takes(row, step)) finish(step, row);
            if (slot >= 0) write(this->at(static_cast<T*>(run.xs), 0, slot, 0, n));
        }
        write(static_cast<T*>(run.end) + this->first * n);
    }

    void write(T* to) const {
        for (int64_t row = 0; row < rows; ++row) std::copy_n(x + row * line, n, to + row * n);
    }

    // x becomes the lerp to the target, or k holds the slope of a stage.
    void evaluate(int64_t stage, int64_t step, int64_t live) {
        const T *rate = this->rate(step), *b_rec = static_cast<const T*>(run.b_rec);
        T* here = stage ? y : x;
        for (int64_t row = 0; row < live; ++row) {
            if (stage) this->advance(x + row * line, rate, run.a + stage * stages, stage, k, row, y + row * line);
            begin_sum(n, this->drive(driven, stage, step, row, v + row * long_line), b_rec, sum + row * long_line);
        }
        accumulate(here, line, live, W, sum, long_line);
        for (int64_t row = 0; row < live; ++row) {
            if (!this->takes(row, step)) continue;
            const T* drive = run.coefficients > 1 ? v + row * long_line : driven.at(step, 0, row);
            T* kept = run.gates ? this->at(static_cast<T*>(run.gates), stage, step, row, 4 * n) : nullptr;
            T *h = here + row * line, *slope = k + (stage * rows + row) * line;
            const auto to_lerp = [=](auto part, auto x, auto target) { part.store(h, lerp(x, target, part.load(rate))); };
            const auto to_slope = [=](auto part, auto x, auto target) { part.store(slope, target - x); };
            if (lerps) gates_of(n, sum + row * long_line, drive, h, kept, to_lerp);
            else gates_of(n, sum + row * long_line, drive, h, kept, to_slope);
        }
    }

    void finish(int64_t step, int64_t row) {
        T* state = x + row * line;
        if (!lerps) this->advance(state, this->rate(step), run.b, stages, k, row, state);
        if (!run.kicks) return;
        const T* kick = this->at(static_cast<const T*>(run.kicks), 0, step, row, n);
        along<T>(n, [&](auto part) { part.store(state, part.load(state) + part.load(kick)); });
    }
};

template <class T>
int64_t gated_backward_room(const ctrnn_gated_run& run, int64_t rows) {
    return rows * padded<T>(run.n) * (run.stages ? 1 + 3 * run.stages : 2);
}

template <class T>
struct GatedBackward : GRUBlock<T> {
    using Block = GRUBlock<T>;
    using Block::first, Block::line, Block::lerps, Block::n, Block::rows, Block::run, Block::stages;
    const ctrnn_gated_back& back;
    const Matrix<T>&W_gates, &W_q;  // (2 n, n), (n, n)
    T *g, *gy, *y, *k;   // gradients of the state after a step and of that in each stage; states in the stages, slopes

    GatedBackward(const ctrnn_gated_run& run, const ctrnn_gated_back& back, const Matrix<T>& W_gates,
                  const Matrix<T>& W_q, int64_t first, int64_t last, T* scratch)
        : Block(run, first, last), back(back), W_gates(W_gates), W_q(W_q) {
        Room<T> room{scratch};
        const int64_t size = rows * line;
        g = room.take(size), gy = room.take(stages * size);
        y = room.take(lerps ? 0 : stages * size), k = room.take(lerps ? 0 : stages * size);
    }

    void operator()() {
        std::fill_n(g, rows * line, T(0));
        if (back.grad_end) receive(static_cast<const T*>(back.grad_end) + first * n);
        clear(back.grad_rates, run.kinds * n);
        clear(back.grad_b_rec, 3 * n);
        for (int64_t step = run.steps - 1; step >= 0; --step) {
            const int64_t live = this->live(step), slot = back.keep_of_grad ? back.keep_of_grad[step] : step;
            if (back.grad_xs && slot >= 0) receive(this->at(static_cast<const T*>(back.grad_xs), 0, slot, 0, n));
            if (back.grad_kicks) kick(step);
            for (int64_t row = 0; row < rows && !lerps; ++row) repeat(step, row);
            for (int64_t stage = stages - 1; stage >= 0; --stage) pull(stage, step, live);
            if (lerps) std::swap(g, gy);
            for (int64_t row = 0; row < live && !lerps; ++row)
                if (this->takes(row, step)) collect(step, row);
        }
        T* grad_x0 = static_cast<T*>(back.grad_x0) + first * n;
        for (int64_t row = 0; row < rows; ++row) std::copy_n(g + row * line, n, grad_x0 + row * n);
    }

    void clear(void* array, int64_t width) const {
        if (array) std::fill_n(static_cast<T*>(array) + first * width, rows * width, T(0));
    }

    T* row_of(void* array, int64_t stage, int64_t step, int64_t row, int64_t width) const {
        return this->at(static_cast<T*>(array), stage, step, row, width);
    }

    const T* state_before(int64_t step, int64_t row) const {
        return step ? this->at(static_cast<const T*>(back.states), 0, step - 1, row, n)
                    : static_cast<const T*>(run.x0) + (first + row) * n;
    }

    void receive(const T* given) {
        for (int64_t row = 0; row < rows; ++row, given += n) {
            T* to = g + row * line;
            along<T>(n, [&](auto part) { part.store(to, part.load(to) + part.load(given)); });
        }
    }

    void kick(int64_t step) const {
        for (int64_t row = 0; row < rows; ++row) {
            T* to = row_of(back.grad_kicks, 0, step, row, n);
            if (this->takes(row, step)) std::copy_n(g + row * line, n, to);
            else std::fill_n(to, n, T(0));
        }
    }

    // The states and slopes of the stages, from the gates.
    void repeat(int64_t step, int64_t row) {
        const T *x = state_before(step, row), *rate = this->rate(step);
        const bool takes = this->takes(row, step);
        for (int64_t stage = 0; stage < stages; ++stage) {
            T *here = y + (stage * rows + row) * line, *slope = k + (stage * rows + row) * line;
            if (!takes || !stage) std::copy_n(x, n, here);
            else this->advance(x, rate, run.a + stage * stages, stage, k, row, here);
            if (back.sent) std::copy_n(here, n, row_of(back.sent, stage, step, row, n));
            if (!takes) continue;
            const T* kept = row_of(run.gates, stage, step, row, 4 * n);
            along<T>(n, [&](auto part) {
                const auto h = part.load(here), z = part.load(kept + n), c = part.load(kept + 2 * n);
                part.store(slope, (h - c) * z + c - h);
            });
        }
    }

    // The gradients of one stage's sums and, in gy, of its state.
    void pull(int64_t stage, int64_t step, int64_t live) {
        T* into = gy + stage * rows * line;
        for (int64_t row = 0; row < rows; ++row) {
            if (this->takes(row, step)) {
                pull_gates(stage, step, row, into + row * line);
                continue;
            }
            std::fill_n(row_of(back.delta, stage, step, row, 3 * n), 3 * n, T(0));
            std::fill_n(row_of(back.delta_q, stage, step, row, n), n, T(0));
            if (lerps) std::copy_n(g + row * line, n, into + row * line);
            else std::fill_n(into + row * line, n, T(0));
        }
        const T *delta = row_of(back.delta, stage, step, 0, 3 * n), *delta_q = row_of(back.delta_q, stage, step, 0, n);
        accumulate(delta, 3 * n, live, W_gates, into, line);
        accumulate(delta_q, n, live, W_q, into, line);
    }

    void pull_gates(int64_t stage, int64_t step, int64_t row, T* into) {
        const T *kept = row_of(run.gates, stage, step, row, 4 * n), *rate = this->rate(step), *out = g + row * line;
        const T* here = lerps ? state_before(step, row) : y + (stage * rows + row) * line;
        T *delta = row_of(back.delta, stage, step, row, 3 * n), *delta_q = row_of(back.delta_q, stage, step, row, n);
        T* bias = back.grad_b_rec ? static_cast<T*>(back.grad_b_rec) + (first + row) * 3 * n : nullptr;
        T* rates = lerps && back.grad_rates ? rates_of(step, row) : nullptr;
        along<T>(n, [&](auto part) {
            const auto r = part.load(kept), z = part.load(kept + n), c = part.load(kept + 2 * n);
            const auto q = part.load(kept + 3 * n), h = part.load(here), alpha = part.load(rate);
            const auto given = part.load(out), target = alpha * (lerps ? given : of_slope(part, stage, row, given));
            const auto d_c = target * (1 - z) * (1 - c * c), d_q = d_c * r;
            const auto d_r = d_q * q * (1 - r), d_z = target * (h - c) * z * (1 - z);
            part.store(delta, d_r);
            part.store(delta + n, d_z);
            part.store(delta + 2 * n, d_c);
            part.store(delta_q, d_q);
            part.store(into, lerps ? given * (1 - alpha) + target * z : target * z - target);
            if (bias) {
                part.store(bias, part.load(bias) + d_r);
                part.store(bias + n, part.load(bias + n) + d_z);
                part.store(bias + 2 * n, part.load(bias + 2 * n) + d_q);
            }
            if (rates) part.store(rates, part.load(rates) + given * ((h - c) * z + c - h));
        });
    }

    // The gradient of rate k_i: b_i times that of the new state, and a_ji times those of the later stages.
    template <class P, class V>
    V of_slope(P part, int64_t stage, int64_t row, V given) const {
        V sum = T(run.b[stage]) * given;
        for (int64_t j = stage + 1; j < stages; ++j)
            sum += T(run.a[j * stages + stage]) * part.load(gy + (j * rows + row) * line);
        return sum;
    }

    T* rates_of(int64_t step, int64_t row) const {
        return static_cast<T*>(back.grad_rates) + ((first + row) * run.kinds + this->kind(step)) * n;
    }

    // The gradients of the state before a Runge-Kutta step, and of its rate.
    void collect(int64_t step, int64_t row) {
        T *state = g + row * line, *rates = back.grad_rates ? rates_of(step, row) : nullptr;
        along<T>(n, [&](auto part) {
            auto sum = part.load(state), of_rate = sum * this->combined(part, run.b, stages, k, row);
            for (int64_t stage = 0; stage < stages; ++stage) {
                const auto here = part.load(gy + (stage * rows + row) * line);
                sum += here;
                of_rate += here * this->combined(part, run.a + stage * stages, stage, k, row);
            }
            part.store(state, sum);
            if (rates) part.store(rates, part.load(rates) + of_rate);
        });
    }
};

}  // namespace ctrnn::CTRNN_ISA
