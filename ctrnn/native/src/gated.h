// Runs of torch's gated recurrent unit on fixed steps, as C functions.
//
// Blocks of n: r, z, candidate. With v = W_in u + b_in the drive and q = W_n h + b_n,
//
//     r, z = sigmoid(v + W h + b),   c = tanh(v_n + r q),   F = (1 - z) c + z h.
//
// All arrays are contiguous, in `dtype` where it says void; 0 stands for an absent one.
#pragma once

#include <stdint.h>

struct ctrnn_gated_run {
    int32_t dtype;  // 0: float, 1: double
    int32_t threads;
    int64_t n, batch, steps;
    int32_t stages;          // 0: x <- lerp(x, F, rate); else of an explicit Runge-Kutta method of rate (F - x)
    const double *a, *b, *c; // its tableau, a (stages, stages)
    const void* W;           // (3 n, n)
    const void* rates;       // (kinds, n): alpha, or dt / tau
    int64_t kinds;
    const int32_t* kind;     // (steps) or 0: kind 0
    int64_t coefficients;    // of the drive, a polynomial in begin + c width on each interval
    const void* drive;       // u (coefficients, intervals, batch, inputs) by its three strides, which may be 0
    int64_t drive_coefficient, drive_interval, drive_row;
    int64_t inputs;
    const void *W_in, *b_in; // (3 n, inputs), (3 n): v = W_in u + b_in; without W_in inputs are 3 n or 0
    const int64_t* interval; // (steps), never falling, or 0: step k sees interval k
    const double *begin, *width; // (steps), where there are several coefficients
    const void* x0;          // (batch, n)
    const void* kicks;       // (steps, batch, n) or 0: added after each step
    const int64_t* count;    // (batch) or 0: steps of each row
    const int64_t* keep;     // (steps) or 0: slot of the state after each step, -1 for none; 0: slot k
    void* xs;                // out (slots, batch, n)
    void* end;               // out (batch, n)
    const void* b_rec;       // (3 n) or 0
    void* gates;             // out, or in of a backward pass: (stages or 1, steps, batch, 4 n) of r, z, c, q; 0: not kept
};

struct ctrnn_gated_back {
    const void* states;      // (steps, batch, n), after each step
    const void* grad_xs;     // (slots, batch, n) or 0
    const int64_t* keep_of_grad; // (steps) or 0: slot k
    const void* grad_end;    // (batch, n) or 0
    void* delta;             // out (stages or 1, steps, batch, 3 n): of the drive's value in each stage
    void* delta_q;           // out (stages or 1, steps, batch, n): of q; in the other blocks W h + b has the drive's
    void* sent;              // out (stages, steps, batch, n) or 0: the state in each stage
    void* grad_x0;           // out (batch, n)
    void* grad_b_rec;        // out (batch, 3 n) or 0: of each row
    void* grad_rates;        // out (batch, kinds, n) or 0: of each row
    void* grad_kicks;        // out (steps, batch, n) or 0
};
