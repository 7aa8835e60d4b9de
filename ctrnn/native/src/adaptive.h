// Adaptive steps of rate networks, as C sees them: tau dx/dt = F - x, F = post(W pre(gain x + theta) + v), v the drive.
// Everything is contiguous, times are float64, states are float or double. Null stands for what is not there.
#pragma once

#include <cstdint>

extern "C" {

struct ctrnn_adaptive_run {
    int64_t single;  // 1: float, 0: double
    int64_t rows, n, threads;
    const void *x0, *W, *tau, *gain, *theta;  // (row, unit), (to, from), (unit,), (unit,), (unit,)
    int64_t pre, post;

    const void* drive;  // (coefficient, interval, row, unit), lowest power first; strides of 0 where one stands for all
    int64_t coefficients, coefficient_stride, interval_stride, row_stride;

    int64_t intervals;              // of the timeline
    const double *start, *length;   // (interval, row)
    const int64_t* count;           // (row,): how many intervals a row has
    const int64_t* interval;        // (interval,): which of the drive it lies in ...
    const double *begin, *width;    // ... from which fraction of it, and how much of it

    int64_t stages;                        // of a method whose last stage is the slope at the end of the step
    const double *a, *b_error, *c, *dense; // (stage, stage), (stage,), (stage,), (stage, power) from theta^1 on
    int64_t powers, error_order;

    double rtol, atol, dt0, dt_min;  // dt0 <= 0: chosen from the slope
    int64_t jumps, max_steps;        // jumps: the drive does at the intervals' ends

    int64_t saves;
    const double* wanted;  // (save, row): times, not decreasing
    void* xs;              // (save, row, unit)
    int64_t* holder;       // (save, row): number of the step that holds it, -1: x0, -2: not reached
    double* fraction;      // (save, row): where in that step, NaN: at its end

    int64_t *accepted, *rejected, *evaluations, *status;  // (row,)
    double* failed_at;                                    // (row,): where the step began that could not be made, or NaN
    int64_t keep;                                         // 0: no step, 1: steps, 2: steps and the states before them
    void* log;                                            // where they are until they are collected or discarded
    int (*report)(double);  // of the fraction done, by the calling thread; anything but 0 ends the search; or null
};

// The accepted steps of all rows, one row after another.
struct ctrnn_adaptive_steps {
    const int64_t* first;  // (row + 1,): where the steps of each row begin
    int64_t* interval;     // (step,): of the timeline
    double *offset, *dt;   // (step,): from the start of the interval; its length
    void* states;          // (step, unit): before each step
};

struct ctrnn_adaptive_gradient {
    const void* xs;       // (save, row, unit): what comes back
    void* x0;             // (row, unit)
    void *W, *tau;        // tau: sum of slope times its gradient, which is -tau times the gradient of tau
    void *gain, *theta;   // (unit,)
    void* drive;          // (coefficient, interval, row, unit), zero on entry
    int64_t coefficient_stride, interval_stride, row_stride;
};

}
