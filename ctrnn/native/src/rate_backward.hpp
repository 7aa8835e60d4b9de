// A block of rows back through all steps of a rate network's run, from the states after every step.
#pragma once

#include "rate.hpp"
#include "weight_gradient.hpp"

namespace ctrnn::CTRNN_ISA {

template <class T>
struct RateBackward : RateBlock<T> {
    using V = Vec<T>;
    using RateBlock<T>::run, RateBlock<T>::size, RateBlock<T>::n, RateBlock<T>::length, RateBlock<T>::plane;

    static int64_t planes(const ctrnn_rate_run& run) { return 4 + 4 * (run.stages > 1 ? run.stages : 1); }

    const ctrnn_rate_back& back;
    const Matrix<T>& W_back;  // [to, from], which a gradient meets as (k, n)
    WeightGradient<T>* const grad_W;
    InputGradient<T>* const grad_in;
    const int64_t stages = run.stages > 1 ? run.stages : 1;
    // x is the state before the step, g the gradient of the state after it; each stage has a plane of the other four.
    T *const x, *const g, *const delta, *const arrived, *const at_stage, *const F, *const room, *const slopes;

    RateBackward(const RateBlock<T>& block, const ctrnn_rate_back& back, const Matrix<T>& W_back,
                 WeightGradient<T>* grad_W, InputGradient<T>* grad_in, T* memory)
        : RateBlock<T>(block),
          back(back),
          W_back(W_back),
          grad_W(grad_W),
          grad_in(grad_in),
          x(memory),
          g(x + plane),
          delta(g + plane),
          arrived(delta + plane),
          at_stage(arrived + plane),
          F(at_stage + stages * plane),
          room(F + stages * plane),
          slopes(room + stages * plane) {}

    void operator()() {
        begin();
        for (int64_t step = run.steps - 1; step >= 0; --step) {
            const int64_t live = this->live(step);
            for (int64_t row = 0; row < size; ++row) {
                if (slot(step) >= 0) add(this->at(back.grad_xs, slot(step), row), g + row * length);
                this->take(before(step, row), x + row * length);
                finish(step, row, row < live);
            }
            if (run.stages) runge_kutta(step, live);
            else relax_at_once(step, live);
        }
        for (int64_t row = 0; row < size; ++row) this->give(g + row * length, this->at(back.grad_x0, 0, row));
    }

    // Where the gradient of the state after a step lies, -1 for nowhere.
    int64_t slot(int64_t step) const {
        return !back.grad_xs ? -1 : back.keep_of_grad ? back.keep_of_grad[step] : step;
    }

    const T* before(int64_t step, int64_t row) const {
        return step ? this->at(back.states, step - 1, row) : this->at(run.x0, 0, row);
    }

    void ask_for(int64_t step, int64_t row) const {
        this->soon(before(step, row), n);
        if (slot(step) >= 0) this->soon(this->at(back.grad_xs, slot(step), row), n);
        if (back.targets) this->soon(this->at(back.targets, step, row), n);
        if (back.delta) this->soon(this->at(back.delta, step, row), n);
        if (grad_in) this->soon(this->v.input_at(step, row), run.inputs);
    }

    void begin() {
        for (int64_t row = 0; row < size; ++row) {
            clear(g + row * length, length);
            if (back.grad_end) add(this->at(back.grad_end, 0, row), g + row * length);
            if (back.grad_rates) clear(grad_rates(0, row), run.kinds * n);
            if (back.grad_gain) clear(this->at(back.grad_gain, 0, row), n);
            if (back.grad_theta) clear(this->at(back.grad_theta, 0, row), n);
        }
    }

    // What a step leaves to the caller for rows that do not take it, and the gradient of its kick.
    void finish(int64_t step, int64_t row, bool alive) {
        for (int64_t s = 0; back.delta && !alive && s < stages; ++s)
            clear(this->at(back.delta, s * run.steps + step, row), n);
        if (!back.grad_kicks) return;
        if (alive) this->give(g + row * length, this->at(back.grad_kicks, step, row));
        else clear(this->at(back.grad_kicks, step, row), n);
    }

    void relax_at_once(int64_t step, int64_t live) {
        const T *sent = this->sent(x, live, room), *alpha = this->rates(step);
        for (int64_t row = 0; row < live; ++row) {
            const T* F = back.targets ? this->at(back.targets, step, row) : nullptr;
            T *d = delta + row * length, *by = g + row * length;
            if (run.post == IDENTITY) for (int64_t i = 0; i < n; i += V::width) V::store(d + i, V::broadcast(T(1)));
            else this->take(F, d), slope_of_value<T>(run.post, d, d, length);
            if (back.grad_rates) add_to_rates(step, row, by, F, x + row * length);
            for (int64_t i = 0; i < n; i += V::width) {
                const auto weight = V::load(alpha + i, n - i), grad = V::load(by + i);
                V::store(d + i, V::load(d + i) * (weight * grad));
                V::store(by + i, (T(1) - weight) * grad);
            }
        }
        through_product(step, 0, live, x, sent, g);
    }

    void runge_kutta(int64_t step, int64_t live) {
        const T* rate = this->rates(step);
        for (int64_t s = 0; s < stages; ++s) {
            this->combine(x, run.a + s * stages, s, slopes, live, at_stage + s * plane);
            this->target(step, run.c[s], at_stage + s * plane, live, room + s * plane, F + s * plane);
            this->relax(rate, F + s * plane, at_stage + s * plane, live, slopes + s * plane);
        }
        // From here on a stage's slope is no longer needed, and its plane holds the gradient of the stage's state.
        for (int64_t s = stages - 1; s >= 0; --s) {
            const T* from = at_stage + s * plane;
            for (int64_t row = 0; row < live; ++row) stage_slope(step, s, row, rate);
            const bool itself = run.pre == IDENTITY && !this->gain && !this->theta;
            through_product(step, s, live, from, itself ? from : room + s * plane, slopes + s * plane);
        }
        for (int64_t s = 0; s < stages; ++s)
            for (int64_t row = 0; row < live; ++row)
                for (int64_t i = row * length; i < (row + 1) * length; i += V::width)
                    V::store(g + i, V::load(g + i) + V::load(slopes + s * plane + i));
    }

    // The gradient of the slope of stage s, b_s g + sum_j a_js (gradient of the state of stage j), through
    // rate (F - x) and post.
    void stage_slope(int64_t step, int64_t s, int64_t row, const T* rate) {
        T *d = delta + row * length, *by = arrived + row * length;
        const int64_t here = s * plane + row * length;
        for (int64_t i = 0; i < length; i += V::width) {
            auto sum = T(run.b[s]) * V::load(g + row * length + i);
            for (int64_t j = s + 1; j < stages; ++j)
                if (run.a[j * stages + s] != 0)
                    sum += T(run.a[j * stages + s]) * V::load(slopes + j * plane + row * length + i);
            V::store(by + i, sum);
        }
        if (back.grad_rates) add_to_rates(step, row, by, F + here, at_stage + here);
        slope_of_value<T>(run.post, F + here, d, length);
        for (int64_t i = 0; i < n; i += V::width) {
            const auto grad = V::load(rate + i, n - i) * V::load(by + i);
            V::store(d + i, V::load(d + i) * grad);
            V::store(slopes + here + i, -grad);
        }
    }

    // From delta, the gradient of the argument of post, to that of the state, which is added to `into`.
    void through_product(int64_t step, int64_t stage, int64_t live, const T* state, const T* sent, T* into) {
        for (int64_t row = 0; row < live; ++row) {
            if (back.delta) this->give(delta + row * length, this->at(back.delta, stage * run.steps + step, row));
            T* u = grad_in ? grad_in->add(delta + row * length) : nullptr;
            if (back.grad_W_in) this->v.input(step, run.stages ? run.c[stage] : 0, row, u);
            if (grad_W) grad_W->add(delta + row * length, sent + row * length);
        }
        clear(arrived, live * length);
        accumulate(delta, length, live, W_back, arrived, length);
        for (int64_t row = 0; row < live; ++row) {
            T* slope = delta + row * length;
            if (step > 0 && stage == 0) ask_for(step - 1, row);
            slope_of_value<T>(run.pre, sent + row * length, slope, length);
            through_sent(row, state + row * length, slope, into + row * length);
        }
    }

    void through_sent(int64_t row, const T* state, const T* slope, T* into) {
        T* by_gain = back.grad_gain ? this->at(back.grad_gain, 0, row) : nullptr;
        T* by_theta = back.grad_theta ? this->at(back.grad_theta, 0, row) : nullptr;
        for (int64_t i = 0; i < n; i += V::width) {
            auto grad = V::load(arrived + row * length + i) * V::load(slope + i);
            if (by_theta) V::store(by_theta + i, V::load(by_theta + i, n - i) + grad, n - i);
            if (by_gain) V::store(by_gain + i, V::load(by_gain + i, n - i) + grad * V::load(state + i), n - i);
            if (this->gain) grad *= V::load(this->gain + i, n - i);
            V::store(into + i, V::load(into + i) + grad);
        }
    }

    T* grad_rates(int64_t kind, int64_t row) const {
        return static_cast<T*>(back.grad_rates) + (this->rows[row] * run.kinds + kind) * n;
    }

    void add_to_rates(int64_t step, int64_t row, const T* grad, const T* F, const T* state) {
        T* to = grad_rates(run.kind ? run.kind[step] : 0, row);
        for (int64_t i = 0; i < n; i += V::width)
            V::store(to + i, V::load(to + i, n - i) + V::load(grad + i) * (V::load(F + i, n - i) - V::load(state + i)),
                     n - i);
    }

    void add(const T* from, T* to) const {
        for (int64_t i = 0; i < n; i += V::width) V::store(to + i, V::load(to + i) + V::load(from + i, n - i));
    }

    static void clear(T* at, int64_t count) { std::memset(at, 0, count * sizeof(T)); }
};

}  // namespace ctrnn::CTRNN_ISA
