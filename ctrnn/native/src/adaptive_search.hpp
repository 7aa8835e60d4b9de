// The search: every row finds its own steps, and writes down what is to be saved on the way.
//
// The controller, the first step and the outcomes are those of _search.py, to rounding.
#pragma once

#include <memory>
#include <vector>

#include "adaptive.hpp"

namespace ctrnn::CTRNN_ISA {

enum Status : int64_t { REACHED = 0, STEP_SIZE_UNDERFLOW = 1, MAX_STEPS_REACHED = 2, NON_FINITE_STATE = 3 };

// What one thread found, in the order in which it did.
template <class T>
class Log {
   public:
    struct Entry {
        int64_t row, number;
        Step step;
    };
    static constexpr int64_t CHUNK = 512;  // states that are allocated at a time

    explicit Log(int64_t n) : n_(n) {}

    void add(const Entry& entry, const T* state) {
        if (state != nullptr) {
            const int64_t at = static_cast<int64_t>(entries_.size()) % CHUNK;
            if (at == 0) states_.emplace_back(new T[static_cast<size_t>(CHUNK * n_)]);
            std::copy_n(state, n_, states_.back().get() + at * n_);
        }
        entries_.push_back(entry);
    }

    void collect(const ctrnn_adaptive_steps& steps) const {
        for (size_t i = 0; i < entries_.size(); i++) {
            const Entry& entry = entries_[i];
            const int64_t to = steps.first[entry.row] + entry.number;
            steps.interval[to] = entry.step.interval;
            steps.offset[to] = entry.step.offset;
            steps.dt[to] = entry.step.dt;
            if (steps.states != nullptr)
                std::copy_n(states_[i / CHUNK].get() + static_cast<int64_t>(i % CHUNK) * n_, n_,
                            static_cast<T*>(steps.states) + to * n_);
        }
    }

   private:
    const int64_t n_;
    std::vector<Entry> entries_;
    std::vector<std::unique_ptr<T[]>> states_;
};

template <int64_t COUNT>
double root_mean_square(int64_t n, const double (&lanes)[COUNT]) {
    double total = 0;
    for (double lane : lanes) total += lane;
    return std::sqrt(total / static_cast<double>(n));
}

// Of a vector in units of the tolerance at x.
template <class T>
double norm(int64_t n, int64_t length, const T* value, const T* x, T atol, T rtol) {
    double lanes[LANES<T>] = {};
    for (int64_t u = 0; u < length; u += LANES<T>)
        for (int64_t l = 0; l < LANES<T>; l++) {
            const T scale = atol + rtol * std::abs(x[u + l]);
            const T ratio = value[u + l] == T(0) ? T(0) : value[u + l] / scale;
            lanes[l] += static_cast<double>(ratio) * static_cast<double>(ratio);
        }
    return root_mean_square(n, lanes);
}

// The error of a step in units of the tolerance; infinite where it or the new state is not finite.
template <class T>
double step_error(int64_t n, int64_t length, const T* error, const T* x, const T* fresh, T atol, T rtol) {
    double lanes[LANES<T>] = {};
    T bad[LANES<T>] = {};
    for (int64_t u = 0; u < length; u += LANES<T>)
        for (int64_t l = 0; l < LANES<T>; l++) {
            const T a = std::abs(x[u + l]), b = std::abs(fresh[u + l]), scale = atol + rtol * (a > b ? a : b);
            const T ratio = error[u + l] == T(0) ? T(0) : error[u + l] / scale;
            lanes[l] += static_cast<double>(ratio) * static_cast<double>(ratio);
            bad[l] += fresh[u + l] * T(0);
        }
    const double result = root_mean_square(n, lanes);
    bool finite = std::isfinite(result);
    for (T lane : bad) finite = finite && lane == T(0);
    return finite ? result : std::numeric_limits<double>::infinity();
}

// What a row under way carries beside its state and slopes.
struct Traveller {
    int64_t row;
    Step step;  // where it is, and the step it wants next
    double last_error;
    bool stale, held_back;  // its slope must be evaluated again; the step before was rejected
    int64_t saved;          // how many of its saves are done
    double tried;           // the step under trial, and whether it ends the interval
    bool ends;
    double total, slack;  // how long its timeline is, and what of a time is rounding
};

// Minimum and maximum that pass NaN on, as torch's do.
inline double least(double a, double b) { return std::isnan(a) || a < b ? a : b; }
inline double most(double a, double b) { return std::isnan(a) || a > b ? a : b; }

template <class T>
class Search {
   public:
    Search(const ctrnn_adaptive_run& run, const Network<T>& network, Log<T>& log)
        : run_(run),
          network_(network),
          method_(run),
          log_(log),
          n_(run.n),
          length_(network.length),
          x_(SLOTS, length_),
          y_(SLOTS, length_),
          sent_(SLOTS, length_),
          other_(SLOTS, length_),
          zero_(1, length_),
          slopes_(STAGES * SLOTS, length_) {}

    void rows(int64_t first, int64_t last) {
        const int64_t all = last - first;
        const bool reports = run_.report != nullptr && first == 0;
        int64_t active = 0;
        while (active > 0 || first < last) {
            while (active < SLOTS && first < last) active += enter(active, first++);
            if (active == 0) break;
            if (reports && !reported(active, first, all)) return;
            refresh(active);
            attempt(active);
            for (int64_t slot = active; slot-- > 0;)
                if (judge(slot)) move(--active, slot);
        }
    }

   private:
    T* slope(int64_t stage, int64_t slot) const { return slopes_.row(stage * SLOTS + slot); }
    double start(const Traveller& who) const { return run_.start[who.step.interval * run_.rows + who.row]; }
    double length(const Traveller& who) const { return run_.length[who.step.interval * run_.rows + who.row]; }
    double wanted(const Traveller& who) const { return run_.wanted[who.saved * run_.rows + who.row]; }
    T atol() const { return static_cast<T>(run_.atol); }
    T rtol() const { return static_cast<T>(run_.rtol); }

    // Say how far this share is, of which `entered` rows have entered a slot; false if the search is to end.
    bool reported(int64_t active, int64_t entered, int64_t all) {
        double done = static_cast<double>(entered - active);
        for (int64_t slot = 0; slot < active; slot++) {
            const Traveller& who = who_[slot];
            done += (start(who) + who.step.offset - run_.start[who.row]) / who.total;
        }
        done /= static_cast<double>(all);
        if (done < told_ + 0.01 || done >= 1) return true;
        told_ = done;
        return run_.report(done) == 0;
    }

    // Put a row into a slot; false if it has no way to go.
    bool enter(int64_t slot, int64_t row) {
        Traveller& who = who_[slot] = Traveller{row, {0, 0.0, 1.0}, 1.0, true, false, 0, 0.0, false, 0.0, 0.0};
        std::copy_n(static_cast<const T*>(run_.x0) + row * n_, n_, x_.row(slot));
        run_.accepted[row] = run_.rejected[row] = run_.evaluations[row] = 0;
        run_.status[row] = REACHED;
        run_.failed_at[row] = std::numeric_limits<double>::quiet_NaN();
        begin_saves(who, x_.row(slot));
        if (run_.count[row] == 0) {
            while (who.saved < run_.saves) keep(who, x_.row(slot), -1);
            return false;
        }
        if (run_.dt0 > 0) {
            who.step.dt = run_.dt0;
        } else {
            who.step.dt = first_step(slot);
            who.stale = false;
        }
        return true;
    }

    // Saves before the start are not reached, those at it are x0.
    void begin_saves(Traveller& who, const T* x) {
        const int64_t last = run_.count[who.row] - 1;
        const double from = run_.start[who.row];
        for (int64_t i = 0; i < run_.intervals; i++) who.total += run_.length[i * run_.rows + who.row];
        const int64_t at = last * run_.rows + who.row;
        who.slack = 1e-12 * (std::abs(last < 0 ? from : run_.start[at] + run_.length[at]) + who.total);
        while (who.saved < run_.saves && wanted(who) < from - who.slack) keep(who, x, -2);
        while (who.saved < run_.saves && std::abs(wanted(who) - from) <= who.slack) keep(who, x, -1);
    }

    // The next save of a row: its state, the step that holds it, and where in it; NaN: at its end.
    void keep(Traveller& who, const T* x, int64_t holder, double fraction = std::numeric_limits<double>::quiet_NaN()) {
        const int64_t at = who.saved++ * run_.rows + who.row;
        run_.holder[at] = holder;
        run_.fraction[at] = fraction;
        std::copy_n(x, n_, static_cast<T*>(run_.xs) + at * n_);
    }

    // Slopes of rows beside one another, at states `y` and the fraction c of given steps.
    void evaluate(int64_t rows, const int64_t* slots, const Step* steps, double c, const T* y, T* out) {
        for (int64_t i = 0; i < rows; i++) {
            const int64_t row = who_[slots[i]].row;
            network_.drive(row, steps[i].interval, place(run_, row, steps[i], c), out + i * length_);
            run_.evaluations[row]++;
        }
        network_.aim(rows, y, sent_.row(0), out);
        network_.relax(rows, y, out);
    }

    // Hairer, Norsett & Wanner (1993), II.4; the slope at the start stays.
    double first_step(int64_t slot) {
        const Traveller& who = who_[slot];
        T *x = x_.row(slot), *k = slope(0, slot), *later = other_.row(0);
        Step step{0, 0.0, 0.0};
        evaluate(1, &slot, &step, 0.0, x, k);
        const double span = length(who), d0 = norm(n_, length_, x, x, atol(), rtol());
        const double d1 = norm(n_, length_, k, x, atol(), rtol());
        const double guess = least(d0 < 1e-5 || d1 < 1e-5 ? 1e-6 * span : 0.01 * d0 / d1, span);
        Weights<T> one;
        one.add(0, 1.0);
        combine(length_, x, static_cast<T>(guess), one, k, 0, y_.row(0));
        step.dt = guess;
        evaluate(1, &slot, &step, 1.0, y_.row(0), later);
        for (int64_t u = 0; u < length_; u++) later[u] -= k[u];
        const double steepest = most(d1, norm(n_, length_, later, x, atol(), rtol()) / guess);
        const double power = 1.0 / static_cast<double>(run_.error_order + 1);
        const double refined = steepest <= 1e-15 ? std::max(1e-3 * guess, 1e-6) : std::pow(0.01 / steepest, power);
        double dt = least(100 * guess, refined);
        if (!(std::isfinite(dt) && dt > 0)) dt = 1e-6 * span;
        return std::min(std::max(dt, run_.dt_min), who.total);
    }

    // Evaluate the slopes that the step before did not leave: where the drive jumped, or at the start.
    void refresh(int64_t active) {
        int64_t slots[SLOTS], count = 0;
        Step steps[SLOTS];
        for (int64_t slot = 0; slot < active; slot++) {
            if (!who_[slot].stale) continue;
            slots[count] = slot;
            steps[count] = who_[slot].step;
            std::copy_n(x_.row(slot), length_, y_.row(count++));
            who_[slot].stale = false;
        }
        if (count == 0) return;
        evaluate(count, slots, steps, 0.0, y_.row(0), other_.row(0));
        for (int64_t i = 0; i < count; i++) std::copy_n(other_.row(i), length_, slope(0, slots[i]));
    }

    // The stages of one step of every row; y is then the new state.
    void attempt(int64_t active) {
        int64_t slots[SLOTS];
        Step steps[SLOTS];
        for (int64_t slot = 0; slot < active; slot++) {
            Traveller& who = who_[slot];
            const double remaining = length(who) - who.step.offset;
            who.ends = who.step.dt >= remaining * (1 - 1e-10);
            // Two equal steps to an edge are better than a long one and a crumb.
            who.tried = who.ends ? remaining : std::min(who.step.dt, 0.5 * remaining);
            slots[slot] = slot;
            steps[slot] = {who.step.interval, who.step.offset, who.tried};
        }
        for (int64_t i = 1; i < method_.stages; i++) {
            for (int64_t slot = 0; slot < active; slot++)
                combine(length_, x_.row(slot), static_cast<T>(who_[slot].tried), method_.a[i], slope(0, slot),
                        SLOTS * length_, y_.row(slot));
            evaluate(active, slots, steps, method_.c[i], y_.row(0), slope(i, 0));
        }
    }

    // Accept or reject the step of a slot; true if its row is through or cannot go on.
    bool judge(int64_t slot) {
        Traveller& who = who_[slot];
        const int64_t row = who.row;
        T *x = x_.row(slot), *fresh = y_.row(slot), *error = other_.row(0);
        combine(length_, zero_.row(0), static_cast<T>(who.tried), method_.error, slope(0, slot), SLOTS * length_, error);
        const double wrong = step_error(n_, length_, error, x, fresh, atol(), rtol());
        const double t = start(who) + who.step.offset, before = who.step.dt;
        const bool accept = wrong <= 1.0;
        who.step.dt = next_step(who, wrong, accept);
        if (accept) {
            // An edge is no reason to slow down.
            if (who.tried < before) who.step.dt = std::max(who.step.dt, before);
            arrive(slot, t);
            std::copy_n(fresh, length_, x);
            std::copy_n(slope(method_.stages - 1, slot), length_, slope(0, slot));
            who.last_error = std::max(wrong, 1e-4);
            who.stale = who.ends && run_.jumps;
            who.step.offset = who.ends ? 0.0 : who.step.offset + who.tried;
            who.step.interval += who.ends;
        } else {
            run_.rejected[row]++;
        }
        who.held_back = !accept;
        return leave(who, x, t, wrong);
    }

    // The PI controller of Hairer, Norsett & Wanner's DOPRI5 (1993); after a rejection the plain rule, then no growth.
    double next_step(const Traveller& who, double wrong, bool accept) const {
        const double k = static_cast<double>(run_.error_order + 1);
        double factor;
        if (accept) {
            factor = 0.9 * std::pow(std::max(wrong, 1e-10), -0.85 / k) * std::pow(who.last_error, 0.2 / k);
            if (who.held_back) factor = std::min(factor, 1.0);
        } else {
            factor = std::min(std::isfinite(wrong) ? 0.9 * std::pow(wrong, -1 / k) : 0.1, 0.9);
        }
        return who.tried * std::min(std::max(factor, 0.1), 10.0);
    }

    // Note an accepted step that began at t, and the saves that lie in it.
    void arrive(int64_t slot, double t) {
        Traveller& who = who_[slot];
        const int64_t number = run_.accepted[who.row]++;
        const double stop = t + who.tried, slack = who.slack;
        if (run_.keep > 0)
            log_.add({who.row, number, {who.step.interval, who.step.offset, who.tried}},
                     run_.keep > 1 ? x_.row(slot) : nullptr);
        while (who.saved < run_.saves && wanted(who) - slack <= stop) {
            const double time = wanted(who);
            if (std::abs(time - stop) <= slack) {
                keep(who, y_.row(slot), number);
                continue;
            }
            const double theta = (time - t) / who.tried;
            T* between = other_.row(0);
            combine(length_, x_.row(slot), static_cast<T>(who.tried), method_.between(theta), slope(0, slot),
                    SLOTS * length_, between);
            keep(who, between, number, theta);
        }
    }

    // A finished row keeps its last state; a failed one, which gave up at t, has none from there on.
    bool leave(Traveller& who, const T* x, double t, double wrong) {
        const int64_t row = who.row;
        const bool through = who.step.interval >= run_.count[row];
        if (!through) {
            const double tiny = std::max(run_.dt_min, static_cast<double>(std::numeric_limits<T>::min()));
            const bool stuck = who.step.dt < std::max(16 * std::numeric_limits<double>::epsilon() * std::abs(t), tiny);
            if (!stuck && run_.accepted[row] + run_.rejected[row] < run_.max_steps) return false;
            run_.status[row] = !stuck ? MAX_STEPS_REACHED : std::isinf(wrong) ? NON_FINITE_STATE : STEP_SIZE_UNDERFLOW;
            run_.failed_at[row] = t;
        }
        while (who.saved < run_.saves) keep(who, x, through ? run_.accepted[row] - 1 : -2);
        return true;
    }

    void move(int64_t from, int64_t to) {
        if (from == to) return;
        who_[to] = who_[from];
        std::copy_n(x_.row(from), length_, x_.row(to));
        std::copy_n(slope(0, from), length_, slope(0, to));
    }

    const ctrnn_adaptive_run& run_;
    const Network<T>& network_;
    const Method<T> method_;
    Log<T>& log_;
    const int64_t n_, length_;
    Block<T> x_, y_, sent_, other_, zero_, slopes_;
    Traveller who_[SLOTS];
    double told_ = 0;  // of the fraction done
};

}  // namespace ctrnn::CTRNN_ISA
