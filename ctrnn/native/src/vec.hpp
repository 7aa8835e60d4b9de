// Vectors as wide as the registers of the instruction set, in the vector extension that GCC and clang share.
//
// Arithmetic and comparisons are the operators; `condition ? a : b` picks lane by lane. Memory need not be aligned.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifndef CTRNN_ISA
#error "CTRNN_ISA names the instruction set: see CMakeLists.txt"
#endif

namespace ctrnn::CTRNN_ISA {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
constexpr int REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
constexpr int REGISTERS = 16;
#else
constexpr int VECTOR_BYTES = 16;
constexpr int REGISTERS = 16;
#endif

template <class T>
struct Integer;
template <>
struct Integer<float> {
    using type = uint32_t;
};
template <>
struct Integer<double> {
    using type = uint64_t;
};

template <class T>
struct Vec {
    static constexpr int width = VECTOR_BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(VECTOR_BYTES)));
    typedef typename Integer<T>::type bits __attribute__((vector_size(VECTOR_BYTES)));  // a lane's bits

    // value - 0 and not value + 0, which is +0 for -0.
    static type broadcast(T value) { return value - type{}; }

    static type load(const T* from) {
        type v;
        std::memcpy(&v, from, sizeof v);
        return v;
    }

    static void store(T* to, type v) { std::memcpy(to, &v, sizeof v); }

    // The first `count` elements, and zeros; nothing behind them is read, and store writes nothing there.
    static type load(const T* from, int64_t count) {
        if (count >= width) return load(from);
#ifdef __AVX512F__
        if constexpr (sizeof(T) == 4) return (type)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
        else return (type)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), from);
#else
        type v{};
        for (int64_t i = 0; i < count; ++i) v[i] = from[i];
        return v;
#endif
    }

    static void store(T* to, type v, int64_t count) {
        if (count >= width) return store(to, v);
#ifdef __AVX512F__
        if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)v);
        else _mm512_mask_storeu_pd(to, (__mmask8)((1u << count) - 1), (__m512d)v);
#else
        for (int64_t i = 0; i < count; ++i) to[i] = v[i];
#endif
    }

    static bits as_bits(type v) { return (bits)v; }
    static type from_bits(bits v) { return (type)v; }
    static type absolute(type v) { return from_bits(as_bits(v) & ~sign_bit()); }
    static type with_sign_of(type magnitude, type sign) {
        return from_bits((as_bits(magnitude) & ~sign_bit()) | (as_bits(sign) & sign_bit()));
    }

private:
    static bits sign_bit() { return as_bits(broadcast(T(-0.0))); }
};

// n rounded up to whole vectors: the row length of every array of our own.
template <class T>
constexpr int64_t padded(int64_t n) {
    return (n + Vec<T>::width - 1) / Vec<T>::width * Vec<T>::width;
}

// Zeros that begin on a cache line, so that no load of a whole vector touches two.
template <class T>
class Aligned {
public:
    explicit Aligned(int64_t size) : values(static_cast<T*>(::operator new(size * sizeof(T), LINE))) {
        std::memset(values.get(), 0, size * sizeof(T));
    }

    T* data() { return values.get(); }
    const T* data() const { return values.get(); }

private:
    static constexpr std::align_val_t LINE{64};
    struct Free {
        void operator()(T* from) const { ::operator delete(from, LINE); }
    };
    std::unique_ptr<T, Free> values;
};

}  // namespace ctrnn::CTRNN_ISA
