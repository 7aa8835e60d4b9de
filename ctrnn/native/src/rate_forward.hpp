// A block of rows through all steps of a rate network's run.
#pragma once

#include "rate.hpp"

namespace ctrnn::CTRNN_ISA {

template <class T>
struct RateForward : RateBlock<T> {
    using V = Vec<T>;
    using RateBlock<T>::run, RateBlock<T>::size, RateBlock<T>::n, RateBlock<T>::length, RateBlock<T>::plane;

    static int64_t planes(const ctrnn_rate_run& run) { return 4 + run.stages; }

    T *const x, *const sent, *const F, *const stage, *const slopes;

    RateForward(const RateBlock<T>& block, T* room)
        : RateBlock<T>(block),
          x(room),
          sent(x + plane),
          F(sent + plane),
          stage(F + plane),
          slopes(stage + plane) {}

    void operator()() {
        for (int64_t row = 0; row < size; ++row) this->take(this->at(run.x0, 0, row), x + row * length);
        for (int64_t step = 0; step < run.steps; ++step) {
            const int64_t live = this->live(step);
            if (run.stages) runge_kutta(step, live);
            else relax_at_once(step, live);
            if (run.kicks) kick(step, live);
            for (int64_t row = 0; row < size; ++row) {
                if (slot(step) >= 0) this->give(x + row * length, this->at(run.xs, slot(step), row));
                if (step + 1 < run.steps) ask_for(step + 1, row);
            }
        }
        for (int64_t row = 0; row < size; ++row) this->give(x + row * length, this->at(run.end, 0, row));
    }

    // Where the state after a step goes, -1 for nowhere.
    int64_t slot(int64_t step) const { return !run.xs ? -1 : run.keep ? run.keep[step] : step; }

    void ask_for(int64_t step, int64_t row) const {
        this->soon(this->v.input_at(step, row), run.inputs);
        if (slot(step) >= 0) this->soon(this->at(run.xs, slot(step), row), n);
        if (run.targets) this->soon(this->at(run.targets, step, row), n);
    }

    void relax_at_once(int64_t step, int64_t live) {
        this->target(step, 0, x, live, sent, F);
        const T* alpha = this->rates(step);
        for (int64_t row = 0; row < live; ++row) {
            T *from = x + row * length, *to = F + row * length;
            if (run.targets) this->give(to, this->at(run.targets, step, row));
            for (int64_t i = 0; i < n; i += V::width)
                V::store(from + i, lerp<T>(V::load(from + i), V::load(to + i), V::load(alpha + i, n - i)));
        }
    }

    void runge_kutta(int64_t step, int64_t live) {
        for (int64_t s = 0; s < run.stages; ++s) {
            const T* now = x;
            if (s > 0) this->combine(x, run.a + s * run.stages, s, slopes, live, stage), now = stage;
            this->target(step, run.c[s], now, live, sent, F);
            this->relax(this->rates(step), F, now, live, slopes + s * plane);
        }
        this->combine(x, run.b, run.stages, slopes, live, x);
    }

    void kick(int64_t step, int64_t live) {
        for (int64_t row = 0; row < live; ++row) {
            const T* by = this->at(run.kicks, step, row);
            T* to = x + row * length;
            for (int64_t i = 0; i < n; i += V::width) V::store(to + i, V::load(to + i) + V::load(by + i, n - i));
        }
    }
};

}  // namespace ctrnn::CTRNN_ISA
