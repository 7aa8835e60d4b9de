// Runs of rate networks on fixed steps, as C functions.
//
//     F = post(W pre(gain x + theta) + v(t)),   tau dx/dt = F - x,   v = W_in u + b.
//
// All arrays but the drive are contiguous, of `dtype` where it says void; 0 stands for an absent one. What a row yields
// depends neither on the rows beside it nor on the number of threads.
#pragma once

#include <stdint.h>

struct ctrnn_rate_run {
    int32_t dtype;  // 0: float, 1: double
    int32_t threads;
    int32_t pre, post;  // codes of activations.hpp
    int64_t n, batch, steps;
    int32_t stages;           // 0: x <- lerp(x, F, rate); else of an explicit Runge-Kutta method of rate (F - x)
    const double *a, *b, *c;  // its tableau, a (stages, stages)
    const void* W;            // (n, n): [to, from]
    const void *gain, *theta; // (n), 0: ones and zeros
    const void* rates;        // (kinds, n): alpha of a lerp, or dt / tau
    int64_t kinds;
    const int32_t* kind;      // (steps): which rates a step takes; 0: the first
    int64_t coefficients;     // of the drive, a polynomial in begin + c width, lowest power first
    const void* drive;        // u (coefficients, intervals, batch, inputs) by three strides in elements, which may be 0
    int64_t drive_coefficient, drive_interval, drive_row;
    int64_t inputs;           // n without W_in
    const void* W_in;         // (n, inputs): [to, from]; 0: u is what arrives at each unit
    const void* b_in;         // (n), 0: zeros
    const int64_t* interval;  // (steps), never falling; 0: step k sees interval k
    const double *begin, *width; // (steps), where there are several coefficients
    const void* x0;           // (batch, n)
    const void* kicks;        // (steps, batch, n), added after each step, or 0
    const int64_t* count;     // (batch): steps of each row, which then keeps its state; 0: all of them
    const int64_t* keep;      // (steps): slot of the state after a step, -1 for none; 0: slot k after step k
    void* xs;                 // out (slots, batch, n) or 0
    void* end;                // out (batch, n)
    void* targets;            // out (steps, batch, n) or 0: F of each step of a lerp
};

// The gradient of a run; its xs, end and targets are not written again.
struct ctrnn_rate_back {
    const void* states;       // (steps, batch, n): the state after every step
    const void* targets;      // as above; a lerp needs them unless post is the identity and grad_rates is absent
    const void* grad_xs;      // (slots, batch, n) or 0
    const int64_t* keep_of_grad; // its slots, as in `keep`
    const void* grad_end;     // (batch, n) or 0
    void* delta;              // out (stages or 1, steps, batch, n) or 0: gradient of the argument of `post`, hence of v
    void* grad_W;             // out (n, n) or 0; to rounding, these three depend on the number of threads
    void* grad_W_in;          // out (n, inputs) or 0
    void* grad_b;             // out (n) or 0
    void* grad_x0;            // out (batch, n)
    void* grad_rates;         // out (batch, kinds, n) or 0
    void *grad_gain, *grad_theta; // out (batch, n) or 0
    void* grad_kicks;         // out (steps, batch, n) or 0
};
