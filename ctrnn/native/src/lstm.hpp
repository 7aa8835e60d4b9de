// Long short-term memory along fixed steps, and the way back. Forward keeps the gates if there will be a way back.
#pragma once

#include "gated_block.hpp"
#include "lstm.h"

namespace ctrnn::CTRNN_ISA {

template <class T>
struct LSTMBlock : GatedBlock<T, ctrnn_lstm_run, 4> {
    using Block = GatedBlock<T, ctrnn_lstm_run, 4>;
    using Block::Block, Block::first, Block::n, Block::rows, Block::line, Block::run;

    template <class U>
    U* in(U* array, int64_t step, int64_t row, int64_t width) const {
        return array ? this->at(array, 0, step, row, width) : nullptr;
    }
    const T* in(const void* array, int64_t step, int64_t row, int64_t width) const {
        return in(static_cast<const T*>(array), step, row, width);
    }
    T* in(void* array, int64_t step, int64_t row, int64_t width) const {
        return in(static_cast<T*>(array), step, row, width);
    }

    const T* rate_c(int64_t step) const { return static_cast<const T*>(run.rates_c) + this->kind(step) * n; }

    void read(const void* from, T* to) const {
        const T* row = static_cast<const T*>(from) + first * n;
        for (int64_t i = 0; i < rows; ++i) std::copy_n(row + i * n, n, to + i * line);
    }
    void write(const T* from, void* to) const {
        T* row = static_cast<T*>(to) + first * n;
        for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * line, n, row + i * n);
    }
};

template <class T>
int64_t lstm_forward_room(const ctrnn_lstm_run& run, int64_t rows) {
    return rows * (2 * padded<T>(run.n) + padded<T>(4 * run.n)) + Drive<T, ctrnn_lstm_run>::size(run, rows, 4 * run.n);
}

template <class T>
struct LSTMForward : LSTMBlock<T> {
    using Block = LSTMBlock<T>;
    using Block::first, Block::in, Block::line, Block::long_line, Block::n, Block::rows, Block::run;
    const Matrix<T>& W;  // (n, 4 n)
    Room<T> room;
    Drive<T, ctrnn_lstm_run> driven;
    T *h, *c, *sum;

    LSTMForward(const ctrnn_lstm_run& run, const Matrix<T>& W, const Matrix<T>& W_in, int64_t first, int64_t last,
                T* scratch)
        : Block(run, first, last),
          W(W),
          room{scratch},
          driven(run, W_in, nullptr, first, rows, 4 * n, room.take(Drive<T, ctrnn_lstm_run>::size(run, rows, 4 * n))) {
        h = room.take(rows * line), c = room.take(rows * line), sum = room.take(rows * long_line);
    }

    void operator()() {
        this->read(run.x0, h);
        this->read(run.c0, c);
        for (int64_t step = 0; step < run.steps; ++step) {
            const int64_t live = this->live(step), slot = run.keep ? run.keep[step] : step;
            for (int64_t row = 0; row < live; ++row) {
                T* into = sum + row * long_line;
                const T* v = this->drive(driven, 0, step, row, into);
                if (v != into) std::copy_n(v, 4 * n, into);
            }
            accumulate(h, line, live, W, sum, long_line);
            for (int64_t row = 0; row < live; ++row)
                if (this->takes(row, step)) advance(step, row);
            if (slot < 0) continue;
            this->write(h, static_cast<T*>(run.xs) + slot * run.batch * n);
            this->write(c, static_cast<T*>(run.cs) + slot * run.batch * n);
        }
        this->write(h, run.end);
        this->write(c, run.end_c);
    }

    void advance(int64_t step, int64_t row) {
        const T *from = sum + row * long_line, *rate = this->rate(step), *rate_c = this->rate_c(step);
        const T *kick = in(run.kicks, step, row, n), *kick_c = in(run.kicks_c, step, row, n);
        T *my_h = h + row * line, *my_c = c + row * line, *kept = in(run.gates, step, row, 4 * n);
        along<T>(n, [=, n = n](auto part) {
            const auto i = logistic<T>(part.load(from)), f = logistic<T>(part.load(from + n));
            const auto g = hyperbolic_tangent<T>(part.load(from + 2 * n)), o = logistic<T>(part.load(from + 3 * n));
            const auto was = part.load(my_c), cell = lerp(was, f * was + i * g, part.load(rate_c));
            const auto sent = lerp(part.load(my_h), o * hyperbolic_tangent<T>(cell), part.load(rate));
            part.store(my_c, kick_c ? cell + part.load(kick_c) : cell);
            part.store(my_h, kick ? sent + part.load(kick) : sent);
            if (!kept) return;
            part.store(kept, i);
            part.store(kept + n, f);
            part.store(kept + 2 * n, g);
            part.store(kept + 3 * n, o);
        });
    }
};

template <class T>
int64_t lstm_backward_room(const ctrnn_lstm_run& run, int64_t rows) {
    return rows * 3 * padded<T>(run.n);
}

template <class T>
struct LSTMBackward : LSTMBlock<T> {
    using Block = LSTMBlock<T>;
    using Block::first, Block::in, Block::line, Block::n, Block::rows, Block::run;
    const ctrnn_lstm_back& back;
    const Matrix<T>& W;   // (4 n, n)
    T *gh, *gc, *before;  // gradients of the state after a step, and of h before it

    LSTMBackward(const ctrnn_lstm_run& run, const ctrnn_lstm_back& back, const Matrix<T>& W, int64_t first,
                 int64_t last, T* scratch)
        : Block(run, first, last), back(back), W(W) {
        Room<T> room{scratch};
        gh = room.take(rows * line), gc = room.take(rows * line), before = room.take(rows * line);
    }

    void operator()() {
        std::fill_n(gh, 2 * rows * line, T(0));
        receive(back.grad_end, 0, gh);
        receive(back.grad_end_c, 0, gc);
        for (void* rates : {back.grad_rates, back.grad_rates_c})
            if (rates) std::fill_n(static_cast<T*>(rates) + first * run.kinds * n, rows * run.kinds * n, T(0));
        for (int64_t step = run.steps - 1; step >= 0; --step) {
            const int64_t live = this->live(step), slot = back.keep_of_grad ? back.keep_of_grad[step] : step;
            if (slot >= 0) receive(back.grad_hs, slot, gh), receive(back.grad_cs, slot, gc);
            for (int64_t row = 0; row < rows; ++row) this->takes(row, step) ? pull(step, row) : pass(step, row);
            accumulate(in(back.delta, step, 0, 4 * n), 4 * n, live, W, before, line);
            std::swap(gh, before);
        }
        this->write(gh, back.grad_h0);
        this->write(gc, back.grad_c0);
    }

    void receive(const void* given, int64_t slot, T* gradient) {
        for (int64_t row = 0; given && row < rows; ++row) {
            const T* from = in(given, slot, row, n);
            T* to = gradient + row * line;
            along<T>(n, [=](auto part) { part.store(to, part.load(to) + part.load(from)); });
        }
    }

    // A row that does not take the step keeps its state.
    void pass(int64_t step, int64_t row) {
        std::copy_n(gh + row * line, n, before + row * line);
        std::fill_n(in(back.delta, step, row, 4 * n), 4 * n, T(0));
        for (void* kicks : {back.grad_kicks, back.grad_kicks_c})
            if (kicks) std::fill_n(in(kicks, step, row, n), n, T(0));
    }

    T* rates_of(void* array, int64_t step, int64_t row) const {
        return array ? static_cast<T*>(array) + ((first + row) * run.kinds + this->kind(step)) * n : nullptr;
    }

    void pull(int64_t step, int64_t row) {
        const T* kept = in(static_cast<const void*>(run.gates), step, row, 4 * n);
        const T *was_h = step ? in(back.hs, step - 1, row, n) : static_cast<const T*>(run.x0) + (first + row) * n;
        const T *was_c = step ? in(back.cs, step - 1, row, n) : static_cast<const T*>(run.c0) + (first + row) * n;
        const T *rate = this->rate(step), *rate_c = this->rate_c(step);
        T *kick = in(back.grad_kicks, step, row, n), *kick_c = in(back.grad_kicks_c, step, row, n);
        T *rates = rates_of(back.grad_rates, step, row), *rates_c = rates_of(back.grad_rates_c, step, row);
        T *delta = in(back.delta, step, row, 4 * n), *my_gh = gh + row * line, *my_gc = gc + row * line;
        T* into = before + row * line;
        along<T>(n, [=, n = n](auto part) {
            const auto i = part.load(kept), f = part.load(kept + n), g = part.load(kept + 2 * n);
            const auto o = part.load(kept + 3 * n), c = part.load(was_c), alpha = part.load(rate);
            const auto alpha_c = part.load(rate_c), target_c = f * c + i * g;
            const auto seen = hyperbolic_tangent<T>(lerp(c, target_c, alpha_c));
            const auto of_h = part.load(my_gh), of_target = alpha * of_h;
            const auto of_c = part.load(my_gc) + of_target * o * (1 - seen * seen), of_target_c = alpha_c * of_c;
            if (kick) part.store(kick, of_h);
            if (kick_c) part.store(kick_c, part.load(my_gc));
            if (rates) part.store(rates, part.load(rates) + of_h * (o * seen - part.load(was_h)));
            if (rates_c) part.store(rates_c, part.load(rates_c) + of_c * (target_c - c));
            part.store(delta, of_target_c * g * i * (1 - i));
            part.store(delta + n, of_target_c * c * f * (1 - f));
            part.store(delta + 2 * n, of_target_c * i * (1 - g * g));
            part.store(delta + 3 * n, of_target * seen * o * (1 - o));
            part.store(my_gc, of_c * (1 - alpha_c) + of_target_c * f);
            part.store(into, of_h * (1 - alpha));
        });
    }
};

}  // namespace ctrnn::CTRNN_ISA
