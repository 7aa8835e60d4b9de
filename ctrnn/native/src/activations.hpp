// The activations that ctrnn names, and their slopes, within a few ulp of torch's and with torch's special values.
#pragma once

#include "vec.hpp"

namespace ctrnn::CTRNN_ISA {

enum Activation { IDENTITY = 0, TANH = 1, RELU = 2, SIGMOID = 3, SOFTPLUS = 4, RETANH = 5 };

// The polynomials interpolate at Chebyshev nodes, which is within a small factor of the best of their degree:
// EXP is (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2, LOG1P is (atanh(s) - s) / s^3 in z = s^2 on z <= 1 / 9.
template <class T>
struct Constants;

template <>
struct Constants<float> {
    // Added and subtracted again, it rounds to an integer, which meanwhile stands in the low bits.
    static constexpr float SHIFTER = 0x1.8p23f;
    static constexpr int MANTISSA = 23;
    // ln(2) = LN2_HIGH + LN2_LOW; an exponent times LN2_HIGH is exact.
    static constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440054690583e-4f;
    static constexpr float EXP_MIN = -104.0f, EXP_MAX = 89.0f;  // exp is 0 below and infinite above
    static constexpr float TANH_ONE = 10.0f;                    // tanh is 1 above
    static constexpr float EXP[] = {0.5f, 0.166665769896987757f, 0.0416665546172045742f, 0.00836317905272257737f,
                                    0.00139261835877134945f};
    static constexpr float LOG1P[] = {0.333333336602637062f, 0.199998531659648587f, 0.142961789971514189f,
                                      0.108532879004401863f, 0.116121646120116744f};
};

template <>
struct Constants<double> {
    static constexpr double SHIFTER = 0x1.8p52;
    static constexpr int MANTISSA = 52;
    static constexpr double LN2_HIGH = 0.693145751953125, LN2_LOW = 1.428606820309417232121e-6;
    static constexpr double EXP_MIN = -746.0, EXP_MAX = 710.0;
    static constexpr double TANH_ONE = 20.0;
    static constexpr double EXP[] = {0.500000000000000102,    0.166666666666666675,    0.0416666666666241279,
                                     0.00833333333333006183,  0.00138888889172137169,  0.000198412698630536169,
                                     0.0000248015212959543751, 2.75572684599970648e-6, 2.76200884454097482e-7,
                                     2.51003854955103191e-8};
    static constexpr double LOG1P[] = {0.333333333333333293, 0.200000000000072913, 0.142857142835543786,
                                       0.111111113587139315, 0.0909089471806642908, 0.0769278503247931155,
                                       0.0665707210482746807, 0.0600053640479535627, 0.0440036924307233692,
                                       0.0808202280597176615};
};

// A scalar constant stands in every lane, and its terms come from the highest power down.
template <class T, int TERMS>
inline typename Vec<T>::type polynomial(const T (&terms)[TERMS], typename Vec<T>::type x) {
    auto sum = Vec<T>::broadcast(terms[TERMS - 1]);
    for (int i = TERMS - 2; i >= 0; --i) sum = sum * x + terms[i];
    return sum;
}

// exp(x) = 2^exponent (1 + tail) with an integer exponent and |tail| below one half.
template <class T>
struct Exponential {
    typename Vec<T>::type exponent, tail;

    explicit Exponential(typename Vec<T>::type x) {
        using C = Constants<T>;
        exponent = (x * T(1.44269504088896340736) + C::SHIFTER) - C::SHIFTER;
        const auto r = (x - exponent * C::LN2_HIGH) - exponent * C::LN2_LOW;
        tail = r * r * polynomial(C::EXP, r) + r;
    }

    // 2^power, where power is an integer in the range of normal numbers.
    static typename Vec<T>::type two_to(typename Vec<T>::type power) {
        using V = Vec<T>;
        using C = Constants<T>;
        return V::from_bits((V::as_bits(power + C::SHIFTER) << C::MANTISSA) + V::as_bits(V::broadcast(T(1))));
    }

    // exp(x) - 1, where exp(x) is a normal number.
    typename Vec<T>::type minus_one() const {
        const auto scale = two_to(exponent);
        return scale * tail + (scale - T(1));
    }

    // exp(x); in two factors, of which neither overflows or is subnormal where the product does or is.
    typename Vec<T>::type value() const {
        using C = Constants<T>;
        const auto half = (exponent * T(0.5) + C::SHIFTER) - C::SHIFTER;
        return (tail * two_to(half) + two_to(half)) * two_to(exponent - half);
    }
};

template <class T>
inline typename Vec<T>::type exponential(typename Vec<T>::type x) {
    using V = Vec<T>;
    const auto low = V::broadcast(Constants<T>::EXP_MIN), high = V::broadcast(Constants<T>::EXP_MAX);
    x = x < low ? low : x;
    return Exponential<T>(x > high ? high : x).value();
}

template <class T>
inline typename Vec<T>::type hyperbolic_tangent(typename Vec<T>::type x) {
    using V = Vec<T>;
    const auto size = V::absolute(x), one = V::broadcast(Constants<T>::TANH_ONE);
    const auto e = Exponential<T>(T(2) * (size > one ? one : size)).minus_one();
    return V::with_sign_of(e / (e + T(2)), x);
}

template <class T>
inline typename Vec<T>::type rectified(typename Vec<T>::type x) {
    return x < typename Vec<T>::type{} ? typename Vec<T>::type{} : x;
}

template <class T>
inline typename Vec<T>::type logistic(typename Vec<T>::type x) {
    return T(1) / (T(1) + exponential<T>(-x));
}

// max(x, 0) + log1p(exp(-|x|)), with log1p(e) = 2 atanh(e / (2 + e)). Beyond torch's threshold of 20 it is x already,
// in float32; in float64 the second part has to go.
template <class T>
inline typename Vec<T>::type softplus(typename Vec<T>::type x) {
    using V = Vec<T>;
    const auto e = exponential<T>(-V::absolute(x));
    const auto s = e / (T(2) + e);
    const auto z = s * s;
    const auto sum = rectified<T>(x) + T(2) * (s * z * polynomial(Constants<T>::LOG1P, z) + s);
    return x > V::broadcast(T(20)) ? x : sum;
}

// Where softplus is y, exp(y) - 1 = exp(x), so its slope exp(x) / (1 + exp(x)) is 1 - exp(-y), up to softplus(20).
template <class T>
inline typename Vec<T>::type softplus_slope(typename Vec<T>::type y) {
    using V = Vec<T>;
    const auto threshold = V::broadcast(T(20.00000000206116));
    const auto slope = -Exponential<T>(-(y > threshold ? threshold : y)).minus_one();
    return y > threshold ? V::broadcast(T(1)) : slope;
}

template <class T, class Function>
inline void each(const T* in, T* out, int64_t n, Function f) {
    for (int64_t i = 0; i < n; i += Vec<T>::width) Vec<T>::store(out + i, f(Vec<T>::load(in + i, n - i)), n - i);
}

// out = activation(in); they may be the same.
template <class T>
void activate(int code, const T* in, T* out, int64_t n) {
    using V = typename Vec<T>::type;
    switch (code) {
        case TANH: return each(in, out, n, [](V x) { return hyperbolic_tangent<T>(x); });
        case RELU: return each(in, out, n, [](V x) { return rectified<T>(x); });
        case SIGMOID: return each(in, out, n, [](V x) { return logistic<T>(x); });
        case SOFTPLUS: return each(in, out, n, [](V x) { return softplus<T>(x); });
        case RETANH: return each(in, out, n, [](V x) { return rectified<T>(hyperbolic_tangent<T>(x)); });
        default:
            if (out != in) std::memcpy(out, in, n * sizeof(T));
    }
}

// slope = derivative of the activation, expressed by its value; they may be the same. NaN counts as above zero, as in
// torch.
template <class T>
void slope_of_value(int code, const T* value, T* slope, int64_t n) {
    using V = typename Vec<T>::type;
    const V one = Vec<T>::broadcast(T(1));
    switch (code) {
        case TANH: return each(value, slope, n, [](V y) { return T(1) - y * y; });
        case RELU: return each(value, slope, n, [one](V y) { return y <= V{} ? V{} : one; });
        case SIGMOID: return each(value, slope, n, [](V y) { return (T(1) - y) * y; });
        case SOFTPLUS: return each(value, slope, n, [](V y) { return softplus_slope<T>(y); });
        case RETANH: return each(value, slope, n, [](V y) { return y <= V{} ? V{} : T(1) - y * y; });
        default: return each(value, slope, n, [one](V) { return one; });
    }
}

}  // namespace ctrnn::CTRNN_ISA
