// The gradient of frozen adaptive steps: each row goes back from its last step to its first. The stages of a step are
// computed again from the state before it.
#pragma once

#include "adaptive.hpp"
#include "weight_gradient.hpp"

namespace ctrnn::CTRNN_ISA {

template <class T>
class Pullback {
   public:
    Pullback(const ctrnn_adaptive_run& run, const ctrnn_adaptive_steps& steps, const ctrnn_adaptive_gradient& gradient,
             const Network<T>& network)
        : run_(run),
          steps_(steps),
          gradient_(gradient),
          network_(network),
          method_(run),
          n_(run.n),
          length_(network.length),
          weights_(n_),
          sums_(3, length_),
          lambda_(SLOTS, length_),
          into_(SLOTS, length_),
          states_(STAGES * SLOTS, length_),
          slopes_(STAGES * SLOTS, length_),
          bends_(STAGES * SLOTS, length_),
          back_(STAGES * SLOTS, length_),
          sent_(STAGES * SLOTS, length_),
          delta_(SLOTS, length_) {}

    void rows(int64_t first, int64_t last) {
        int64_t active = 0;
        while (active > 0 || first < last) {
            while (active < SLOTS && first < last) active += enter(active, first++);
            if (active == 0) break;
            const int64_t stages = seed(active);
            forth(active, stages);
            for (int64_t i = stages; i-- > 0;) back(active, i);
            for (int64_t slot = active; slot-- > 0;)
                if (leave(slot)) move(--active, slot);
        }
    }

    // Add what this thread found to the sums over all rows.
    void add() {
        if (gradient_.W != nullptr) weights_.add_to(static_cast<T*>(gradient_.W));
        void* const parts[] = {gradient_.tau, gradient_.gain, gradient_.theta};
        for (int64_t i = 0; i < 3; i++)
            if (parts[i] != nullptr) add_row(static_cast<T*>(parts[i]), sums_.row(i));
    }

   private:
    struct Traveller {
        int64_t row, number, saved;  // the step to go back through is number - 1, the save to take up saved - 1
    };

    T* at(const Block<T>& block, int64_t stage, int64_t slot) const { return block.row(stage * SLOTS + slot); }
    int64_t index(const Traveller& who) const { return steps_.first[who.row] + who.number - 1; }
    Step step(const Traveller& who) const {
        const int64_t i = index(who);
        return {steps_.interval[i], steps_.offset[i], steps_.dt[i]};
    }

    void add_row(T* to, const T* from) const {
        for (int64_t u = 0; u < n_; u++) to[u] += from[u];
    }

    bool enter(int64_t slot, int64_t row) {
        who_[slot] = {row, steps_.first[row + 1] - steps_.first[row], run_.saves};
        std::fill_n(lambda_.row(slot), length_, T(0));
        if (who_[slot].number > 0) return true;
        finish(slot);
        return false;
    }

    // What the saves of the step bring: lambda at its end, `into` at its start, `back` for its slopes; how many stages
    // have any.
    int64_t seed(int64_t active) {
        int64_t stages = method_.stages - 1;
        for (int64_t slot = 0; slot < active; slot++) {
            Traveller& who = who_[slot];
            T *lambda = lambda_.row(slot), *into = into_.row(slot);
            const T h = static_cast<T>(step(who).dt);
            for (int64_t i = 0; i < method_.stages; i++) std::fill_n(at(back_, i, slot), length_, T(0));
            std::fill_n(into, length_, T(0));
            for (; who.saved > 0; who.saved--) {
                const int64_t save = (who.saved - 1) * run_.rows + who.row, holder = run_.holder[save];
                if (holder != -2 && holder < who.number - 1) break;
                if (holder == -2) continue;
                const T* given = static_cast<const T*>(gradient_.xs) + save * n_;
                if (std::isnan(run_.fraction[save])) {
                    add_row(lambda, given);
                    continue;
                }
                add_row(into, given);
                spread(method_.between(run_.fraction[save]), h, given, n_, slot);
                stages = method_.stages;
            }
            spread(method_.a[method_.stages - 1], h, lambda, length_, slot);
            for (int64_t u = 0; u < length_; u++) into[u] += lambda[u];
        }
        return stages;
    }

    // The gradient of x + h sum_j weight_j slope_j goes into its slopes.
    void spread(const Weights<T>& weights, T h, const T* given, int64_t length, int64_t slot) {
        for (int64_t j = 0; j < weights.count; j++) {
            T* to = at(back_, weights.which[j], slot);
            const T weight = h * weights.value[j];
#pragma GCC ivdep
            for (int64_t u = 0; u < length; u++) to[u] += weight * given[u];
        }
    }

    void forth(int64_t active, int64_t stages) {
        for (int64_t i = 0; i < stages; i++) {
            for (int64_t slot = 0; slot < active; slot++) {
                const Traveller& who = who_[slot];
                const Step here = step(who);
                T *x = at(states_, 0, slot), *y = at(states_, i, slot);
                if (i == 0) std::copy_n(static_cast<const T*>(steps_.states) + index(who) * n_, n_, x);
                else combine(length_, x, static_cast<T>(here.dt), method_.a[i], at(slopes_, 0, slot), SLOTS * length_,
                             into(y, length_));
                const Place place(run_, who.row, here);
                network_.drive(who.row, place.interval, place.at(method_.c[i]), at(slopes_, i, slot));
            }
            T* k = at(slopes_, i, 0);
            network_.aim(active, at(states_, i, 0), at(sent_, i, 0), k);
            if (network_.post != IDENTITY) slope_of_value<T>(network_.post, k, at(bends_, i, 0), active * length_);
            network_.relax(active, at(states_, i, 0), k);
        }
    }

    // From the gradients of stage i's slopes to those of the slopes before it, of `into` and of all that is shared.
    void back(int64_t active, int64_t i) {
        T *delta = delta_.row(0), *sent = at(sent_, i, 0);
        for (int64_t slot = 0; slot < active; slot++) {
            const T *k = at(slopes_, i, slot), *rate = network_.rate(), *bend = at(bends_, i, slot);
            T *from = at(back_, i, slot), *to = delta + slot * length_, *tau = sums_.row(0);
            const bool bent = network_.post != IDENTITY;
#pragma GCC ivdep
            for (int64_t u = 0; u < length_; u++) {
                tau[u] -= from[u] * k[u] * rate[u];
                from[u] *= rate[u];
                to[u] = bent ? from[u] * bend[u] : from[u];
            }
            if (gradient_.drive != nullptr) drive(slot, i, to);
            if (gradient_.W != nullptr) weights_.add(to, at(sent_, i, slot));
        }
        // `bends` of this stage has served; what lies at its place now is the gradient of what was sent.
        T* received = at(bends_, i, 0);
        std::fill_n(received, active * length_, T(0));
        accumulate<T>(delta, length_, active, network_.back, received, length_);
        T* slopes_of_sent = at(slopes_, i, 0);
        slope_of_value<T>(network_.pre, sent, slopes_of_sent, active * length_);
        for (int64_t slot = 0; slot < active; slot++) arrive(slot, i, received + slot * length_);
    }

    void arrive(int64_t slot, int64_t i, const T* received) {
        const T *bend = at(slopes_, i, slot), *y = at(states_, i, slot), *g = network_.gain();
        T *from = at(back_, i, slot), *into = into_.row(slot), *gain = sums_.row(1), *theta = sums_.row(2);
#pragma GCC ivdep
        for (int64_t u = 0; u < length_; u++) {
            const T inner = received[u] * bend[u], outer = inner * g[u] - from[u];
            gain[u] += inner * y[u];
            theta[u] += inner;
            from[u] = outer;
            into[u] += outer;
        }
        spread(method_.a[i], static_cast<T>(step(who_[slot]).dt), from, length_, slot);
    }

    void drive(int64_t slot, int64_t i, const T* delta) {
        const Traveller& who = who_[slot];
        const Place place(run_, who.row, step(who));
        const T fraction = static_cast<T>(place.at(method_.c[i]));
        T* to = static_cast<T*>(gradient_.drive) + place.interval * gradient_.interval_stride +
                who.row * gradient_.row_stride;
        T power = 1;
        for (int64_t p = 0; p < run_.coefficients; p++, to += gradient_.coefficient_stride, power *= fraction)
            for (int64_t u = 0; u < n_; u++) to[u] += power * delta[u];
    }

    // True if the row is back at its start.
    bool leave(int64_t slot) {
        std::swap_ranges(lambda_.row(slot), lambda_.row(slot) + length_, into_.row(slot));
        if (--who_[slot].number > 0) return false;
        finish(slot);
        return true;
    }

    void finish(int64_t slot) {
        Traveller& who = who_[slot];
        T* lambda = lambda_.row(slot);
        for (; who.saved > 0; who.saved--) {
            const int64_t save = (who.saved - 1) * run_.rows + who.row;
            if (run_.holder[save] == -1) add_row(lambda, static_cast<const T*>(gradient_.xs) + save * n_);
        }
        if (gradient_.x0 != nullptr) std::copy_n(lambda, n_, static_cast<T*>(gradient_.x0) + who.row * n_);
    }

    void move(int64_t from, int64_t to) {
        if (from == to) return;
        who_[to] = who_[from];
        std::copy_n(lambda_.row(from), length_, lambda_.row(to));
    }

    const ctrnn_adaptive_run& run_;
    const ctrnn_adaptive_steps& steps_;
    const ctrnn_adaptive_gradient& gradient_;
    const Network<T>& network_;
    const Method<T> method_;
    const int64_t n_, length_;
    WeightGradient<T> weights_;
    Block<T> sums_, lambda_, into_, states_, slopes_, bends_, back_, sent_, delta_;
    Traveller who_[SLOTS];
};

}  // namespace ctrnn::CTRNN_ISA
