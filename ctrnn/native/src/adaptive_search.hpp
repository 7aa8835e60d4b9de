// The search: every row finds its own steps, and writes down what is to be saved on the way.
//
// The controller, the first step and the outcomes are those of _search.py, to rounding.
#pragma once

#include <atomic>
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

// As many doubles as a vector has lanes.
template <class T>
struct Doubles;
template <>
struct Doubles<float> {
    typedef double type __attribute__((vector_size(2 * VECTOR_BYTES)));
};
template <>
struct Doubles<double> {
    typedef double type __attribute__((vector_size(VECTOR_BYTES)));
};

// The root mean square of a row in units of the tolerance.
template <class T>
class Norm {
   public:
    Norm(T atol, T rtol) : atol_(atol), rtol_(rtol) {}

    void add(typename Vec<T>::type value, typename Vec<T>::type size) {
        const auto ratio = value == typename Vec<T>::type{} ? typename Vec<T>::type{} : value / (atol_ + rtol_ * size);
        // The square of a float may be more than a float holds.
        const auto wide = __builtin_convertvector(ratio, typename Doubles<T>::type);
        total_ += wide * wide;
    }

    double of(int64_t n) const {
        double total = 0;
        for (int l = 0; l < Vec<T>::width; l++) total += total_[l];
        return std::sqrt(total / static_cast<double>(n));
    }

   private:
    const T atol_, rtol_;
    typename Doubles<T>::type total_{};
};

// What a row under way carries beside its state and slopes.
struct Traveller {
    int64_t row = 0;
    Step step{0, 0.0, 1.0};            // where it is, and the step it wants next
    double log_error = 0;              // of the step before
    bool stale = true;                 // its slope must be evaluated again
    bool held_back = false;            // the step before was rejected
    double tried = 0;                  // the step under trial, and whether it ends the interval
    bool ends = false;
    double total = 0, slack = 0;       // how long its timeline is, and what of a time is rounding
    int64_t saved = 0;                 // how many of its saves are done
    bool broken = false;               // one of them is not finite
    int64_t accepted = 0, rejected = 0, evaluations = 0;
};

// The rows that no thread has taken yet, and how many are through. Who takes which changes nothing that is found.
struct Queue {
    const int64_t rows;
    std::atomic<int64_t> next{0}, through{0};
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

    // Take rows from the queue until it is empty, at most `slots` at a time; one thread `reports` for all.
    void run(Queue& queue, int64_t slots, bool reports) {
        int64_t active = 0;
        while (true) {
            for (int64_t row; active < slots && (row = queue.next++) < queue.rows;) {
                if (enter(active, row)) active++;
                else queue.through++;
            }
            if (active == 0) return;
            if (reports && !reported(active, queue)) {
                queue.next = queue.rows;
                return;
            }
            refresh(active);
            attempt(active);
            for (int64_t slot = active; slot-- > 0;) {
                if (!judge(slot)) continue;
                move(--active, slot);
                queue.through++;
            }
        }
    }

   private:
    using V = Vec<T>;

    T* slope(int64_t stage, int64_t slot) const { return slopes_.row(stage * SLOTS + slot); }
    double start(const Traveller& who) const { return run_.start[who.step.interval * run_.rows + who.row]; }
    double length(const Traveller& who) const { return run_.length[who.step.interval * run_.rows + who.row]; }
    double wanted(const Traveller& who) const { return run_.wanted[who.saved * run_.rows + who.row]; }
    T atol() const { return static_cast<T>(run_.atol); }
    T rtol() const { return static_cast<T>(run_.rtol); }

    // Say how much is done, of what the other threads have under way nothing; false if the search is to end.
    bool reported(int64_t active, const Queue& queue) {
        double done = static_cast<double>(queue.through);
        for (int64_t slot = 0; slot < active; slot++) {
            const Traveller& who = who_[slot];
            done += (start(who) + who.step.offset - run_.start[who.row]) / who.total;
        }
        done /= static_cast<double>(queue.rows);
        if (done < told_ + 0.01 || done >= 1) return true;
        told_ = done;
        return run_.report(done) == 0;
    }

    // Put a row into a slot; false if it has no way to go.
    bool enter(int64_t slot, int64_t row) {
        Traveller& who = who_[slot] = Traveller();
        who.row = row;
        std::copy_n(static_cast<const T*>(run_.x0) + row * n_, n_, x_.row(slot));
        begin_saves(who, x_.row(slot));
        if (run_.count[row] == 0) {
            finish(who, REACHED, x_.row(slot), -1);
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

    // Where the state of the next save of a row goes, and note the step that holds it, and where in it; NaN: at its end.
    T* next_save(Traveller& who, int64_t holder, double fraction) {
        const int64_t at = who.saved++ * run_.rows + who.row;
        run_.holder[at] = holder;
        run_.fraction[at] = fraction;
        return static_cast<T*>(run_.xs) + at * n_;
    }

    void keep(Traveller& who, const T* x, int64_t holder) {
        std::copy_n(x, n_, next_save(who, holder, std::numeric_limits<double>::quiet_NaN()));
    }

    // Slopes of rows beside one another, at states `y` and the fraction c of steps in the drive.
    void evaluate(int64_t rows, const int64_t* slots, const Place* places, double c, const T* y, T* out) {
        for (int64_t i = 0; i < rows; i++) {
            Traveller& who = who_[slots[i]];
            network_.drive(who.row, places[i].interval, places[i].at(c), out + i * length_);
            who.evaluations++;
        }
        network_.aim(rows, y, sent_.row(0), out);
        network_.relax(rows, y, out);
    }

    double norm(const T* value, const T* x) const {
        Norm<T> norm(atol(), rtol());
        for (int64_t u = 0; u < length_; u += V::width) norm.add(V::load(value + u), V::absolute(V::load(x + u)));
        return norm.of(n_);
    }

    // Hairer, Norsett & Wanner (1993), II.4; the slope at the start stays.
    double first_step(int64_t slot) {
        const Traveller& who = who_[slot];
        T *x = x_.row(slot), *k = slope(0, slot), *later = other_.row(0);
        Place place(run_, who.row, {0, 0.0, 0.0});
        evaluate(1, &slot, &place, 0.0, x, k);
        const double span = length(who), d0 = norm(x, x), d1 = norm(k, x);
        const double guess = least(d0 < 1e-5 || d1 < 1e-5 ? 1e-6 * span : 0.01 * d0 / d1, span);
        Weights<T> one;
        one.add(0, 1.0);
        combine(length_, x, static_cast<T>(guess), one, k, 0, into(y_.row(0), length_));
        place = Place(run_, who.row, {0, 0.0, guess});
        evaluate(1, &slot, &place, 1.0, y_.row(0), later);
        for (int64_t u = 0; u < length_; u++) later[u] -= k[u];
        const double steepest = most(d1, norm(later, x) / guess);
        const double power = 1.0 / static_cast<double>(run_.error_order + 1);
        const double refined = steepest <= 1e-15 ? std::max(1e-3 * guess, 1e-6) : std::pow(0.01 / steepest, power);
        double dt = least(100 * guess, refined);
        if (!(std::isfinite(dt) && dt > 0)) dt = 1e-6 * span;
        return std::min(std::max(dt, run_.dt_min), who.total);
    }

    // Evaluate the slopes that the step before did not leave: where the drive jumped, or at the start.
    void refresh(int64_t active) {
        int64_t slots[SLOTS], count = 0;
        Place places[SLOTS];
        for (int64_t slot = 0; slot < active; slot++) {
            if (!who_[slot].stale) continue;
            slots[count] = slot;
            places[count] = Place(run_, who_[slot].row, who_[slot].step);
            std::copy_n(x_.row(slot), length_, y_.row(count++));
            who_[slot].stale = false;
        }
        if (count == 0) return;
        evaluate(count, slots, places, 0.0, y_.row(0), other_.row(0));
        for (int64_t i = 0; i < count; i++) std::copy_n(other_.row(i), length_, slope(0, slots[i]));
    }

    // The stages of one step of every row; y is then the new state.
    void attempt(int64_t active) {
        int64_t slots[SLOTS];
        Place places[SLOTS];
        for (int64_t slot = 0; slot < active; slot++) {
            Traveller& who = who_[slot];
            const double remaining = length(who) - who.step.offset;
            who.ends = who.step.dt >= remaining * (1 - 1e-10);
            // Two equal steps to an edge are better than a long one and a crumb.
            who.tried = who.ends ? remaining : std::min(who.step.dt, 0.5 * remaining);
            slots[slot] = slot;
            places[slot] = Place(run_, who.row, {who.step.interval, who.step.offset, who.tried});
        }
        for (int64_t i = 1; i < method_.stages; i++) {
            for (int64_t slot = 0; slot < active; slot++)
                between(slot, x_.row(slot), method_.a[i], length_, into(y_.row(slot), length_));
            evaluate(active, slots, places, method_.c[i], y_.row(0), slope(i, 0));
        }
    }

    // take(unit, vector) for all of x + tried sum_j weight_j slope_j.
    template <class Take>
    void between(int64_t slot, const T* x, const Weights<T>& weights, int64_t length, Take take) const {
        combine(length, x, static_cast<T>(who_[slot].tried), weights, slope(0, slot), SLOTS * length_, take);
    }

    // The error of a step in units of the tolerance; infinite where it or the new state is not finite.
    double error(int64_t slot) const {
        const T *x = x_.row(slot), *fresh = y_.row(slot);
        Norm<T> norm(atol(), rtol());
        auto bad = V::broadcast(T(0));
        between(slot, zero_.row(0), method_.error, length_, [&](int64_t u, typename V::type error) {
            const auto after = V::load(fresh + u), a = V::absolute(V::load(x + u)), b = V::absolute(after);
            norm.add(error, a > b ? a : b);
            bad += after * T(0);
        });
        const double wrong = norm.of(n_);
        return is_zero(bad) && std::isfinite(wrong) ? wrong : std::numeric_limits<double>::infinity();
    }

    // What a sum of zero times numbers is if they are all finite.
    static bool is_zero(typename V::type sum) {
        bool zero = true;
        for (int l = 0; l < V::width; l++) zero = zero && sum[l] == T(0);
        return zero;
    }

    // Accept or reject the step of a slot; true if its row is through or cannot go on.
    bool judge(int64_t slot) {
        Traveller& who = who_[slot];
        T *x = x_.row(slot), *fresh = y_.row(slot);
        const double wrong = error(slot), log_error = std::log(std::max(wrong, 1e-10));
        const double t = start(who) + who.step.offset, before = who.step.dt;
        const bool accept = wrong <= 1.0;
        who.step.dt = next_step(who, log_error, accept);
        if (accept) {
            // An edge is no reason to slow down.
            if (who.tried < before) who.step.dt = std::max(who.step.dt, before);
            arrive(slot, t);
            std::copy_n(fresh, length_, x);
            std::copy_n(slope(method_.stages - 1, slot), length_, slope(0, slot));
            who.log_error = std::max(log_error, std::log(1e-4));
            who.stale = who.ends && run_.jumps;
            who.step.offset = who.ends ? 0.0 : who.step.offset + who.tried;
            who.step.interval += who.ends;
        } else {
            who.rejected++;
        }
        who.held_back = !accept;
        return leave(who, x, t, wrong);
    }

    // The PI controller of Hairer, Norsett & Wanner's DOPRI5 (1993); after a rejection the plain rule, then no growth.
    double next_step(const Traveller& who, double log_error, bool accept) const {
        const double k = static_cast<double>(run_.error_order + 1);
        double factor;
        if (accept) {
            factor = 0.9 * std::exp((0.2 * who.log_error - 0.85 * log_error) / k);
            if (who.held_back) factor = std::min(factor, 1.0);
        } else {
            factor = std::min(0.9 * std::exp(-log_error / k), 0.9);
        }
        return who.tried * std::min(std::max(factor, 0.1), 10.0);
    }

    // Note an accepted step that began at t, and the saves that lie in it.
    void arrive(int64_t slot, double t) {
        Traveller& who = who_[slot];
        const int64_t number = who.accepted++;
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
            auto bad = V::broadcast(T(0));
            const auto put = into(next_save(who, number, theta), n_);
            between(slot, x_.row(slot), method_.between(theta), n_, [&](int64_t u, typename V::type state) {
                put(u, state);
                bad += state * T(0);
            });
            who.broken = who.broken || !is_zero(bad);
        }
    }

    // A finished row keeps its last state; a failed one, which gave up at t, has none from there on.
    bool leave(Traveller& who, const T* x, double t, double wrong) {
        if (who.step.interval >= run_.count[who.row]) {
            finish(who, who.broken ? NON_FINITE_STATE : REACHED, x, who.accepted - 1);
            return true;
        }
        const double tiny = std::max(run_.dt_min, static_cast<double>(std::numeric_limits<T>::min()));
        const bool stuck = who.step.dt < std::max(16 * std::numeric_limits<double>::epsilon() * std::abs(t), tiny);
        if (!stuck && who.accepted + who.rejected < run_.max_steps) return false;
        finish(who, !stuck ? MAX_STEPS_REACHED : std::isinf(wrong) ? NON_FINITE_STATE : STEP_SIZE_UNDERFLOW, x, -2, t);
        return true;
    }

    void finish(Traveller& who, Status status, const T* x, int64_t holder,
                double failed_at = std::numeric_limits<double>::quiet_NaN()) {
        while (who.saved < run_.saves) keep(who, x, holder);
        run_.accepted[who.row] = who.accepted;
        run_.rejected[who.row] = who.rejected;
        run_.evaluations[who.row] = who.evaluations;
        run_.status[who.row] = status;
        run_.failed_at[who.row] = failed_at;
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
