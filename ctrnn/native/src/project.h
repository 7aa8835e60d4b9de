// What a drive becomes before a run: W u + b for every sample of it.
#pragma once

#include <stdint.h>

struct ctrnn_project_run {
    int32_t dtype;   // 0: float, 1: double
    int32_t threads;
    int64_t rows, k, n;
    const void* u;   // (rows, k)
    const void* W;   // (n, k): [to, from]
    const void* b;   // (n), 0: zeros
    void* v;         // out (rows, n)
};
