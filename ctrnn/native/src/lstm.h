// Runs of long short-term memory on fixed steps, as C functions.
//
// Blocks of n: i, f, g, o. With v the drive (W_in u + both biases), both parts of the state, h and c, are lerps:
//
//     i, f, o = sigmoid(v + W h),   g = tanh(v + W h),
//     c <- lerp(c, f c + i g, rate of c),   h <- lerp(h, o tanh(c), rate of h), which reads the new c.
//
// All arrays are contiguous, in `dtype` where it says void; 0 stands for an absent one.
#pragma once

#include <stdint.h>

struct ctrnn_lstm_run {
    int32_t dtype;  // 0: float, 1: double
    int32_t threads;
    int64_t n, batch, steps;
    int32_t stages;          // 0
    const double *a, *b, *c; // 0
    const void* W;           // (4 n, n)
    const void* rates;       // (kinds, n): of h
    int64_t kinds;
    const int32_t* kind;     // (steps) or 0: kind 0
    int64_t coefficients;    // of the drive, a polynomial in begin + c width on each interval
    const void* drive;       // u (coefficients, intervals, batch, inputs) by its three strides, which may be 0
    int64_t drive_coefficient, drive_interval, drive_row;
    int64_t inputs;
    const void *W_in, *b_in; // (4 n, inputs), (4 n): v = W_in u + b_in; without W_in inputs are 4 n or 0
    const int64_t* interval; // (steps), never falling, or 0: step k sees interval k
    const double *begin, *width; // (steps), where there are several coefficients
    const void* x0;          // (batch, n): h
    const void* kicks;       // (steps, batch, n) or 0: added to h after each step
    const int64_t* count;    // (batch) or 0: steps of each row
    const int64_t* keep;     // (steps) or 0: slot of the state after each step, -1 for none; 0: slot k
    void* xs;                // out (slots, batch, n): h
    void* end;               // out (batch, n): h
    const void* rates_c;     // the same for c
    const void* c0;
    const void* kicks_c;
    void* cs;
    void* end_c;
    void* gates;             // out, or in of a backward pass: (steps, batch, 4 n); 0: not kept
};

struct ctrnn_lstm_back {
    const void *hs, *cs;     // (steps, batch, n), after each step
    const void *grad_hs, *grad_cs;  // (slots, batch, n) or 0
    const int64_t* keep_of_grad;    // (steps) or 0: slot k
    const void *grad_end, *grad_end_c;  // (batch, n) or 0
    void* delta;             // out (steps, batch, 4 n): of v + W h
    void *grad_h0, *grad_c0; // out (batch, n)
    void *grad_rates, *grad_rates_c;  // out (batch, kinds, n) or 0: of each row
    void *grad_kicks, *grad_kicks_c;  // out (steps, batch, n) or 0
};
