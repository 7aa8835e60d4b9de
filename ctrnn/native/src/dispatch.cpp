// What the loader asks before it binds a kernel: do the two fit together, and which instruction set has this machine?

#define CTRNN_EXPORTED extern "C" __attribute__((visibility("default")))

// Raised whenever the signature or the meaning of a kernel changes; library.py holds the number that it was written for.
CTRNN_EXPORTED int ctrnn_abi() { return 4; }

// The largest set of which everything is there; the operating system must save its registers, which the builtin asks too.
CTRNN_EXPORTED const char* ctrnn_isa() {
#ifdef CTRNN_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return "avx512";
    if (avx2) return "avx2";
#endif
    return "baseline";
}
