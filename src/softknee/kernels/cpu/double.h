// Two doubles in the vectors that GCC and Clang have on every processor: the vocabulary of simd_portable.h, and math.h's
// primitives by the C library, which errs by about 1 ULP itself, one lane at a time. Nothing is Wide, since |x·f′|·ε is
// allowed for what rounding an argument does.
//
// A product with a decaying factor e takes it in two halves, h = √e, the second last: (a·h)·h is rounded into the
// subnormal range once.
#pragma once

#include <cmath>

namespace softknee {
namespace SOFTKNEE_ISA {

#define SOFTKNEE_INLINE inline __attribute__((always_inline))

typedef double real;
constexpr int lanes = 2;
constexpr double infinity = __builtin_inf();

typedef double Doubles __attribute__((vector_size(16)));
typedef long long Bits __attribute__((vector_size(16)));

struct V {
  Doubles v;
  V() = default;
  SOFTKNEE_INLINE V(Doubles x) : v(x) {}
  SOFTKNEE_INLINE explicit V(double x) : v{x, x} {}
};
struct M {
  Bits m;
};

constexpr double rest(double) { return 0.0; }
constexpr double bound(double, double exact) { return exact; }

SOFTKNEE_INLINE V operator+(V a, V b) { return a.v + b.v; }
SOFTKNEE_INLINE V operator-(V a, V b) { return a.v - b.v; }
SOFTKNEE_INLINE V operator*(V a, V b) { return a.v * b.v; }
SOFTKNEE_INLINE V operator/(V a, V b) { return a.v / b.v; }
SOFTKNEE_INLINE V operator-(V a) { return -a.v; }
// rounded twice: without the instruction, one rounding costs more than it saves
SOFTKNEE_INLINE V fma(V a, V b, V c) { return a * b + c; }
SOFTKNEE_INLINE V fnma(V a, V b, V c) { return c - a * b; }

SOFTKNEE_INLINE M operator<(V a, V b) { return {a.v < b.v}; }
SOFTKNEE_INLINE M operator<=(V a, V b) { return {a.v <= b.v}; }
SOFTKNEE_INLINE M operator>(V a, V b) { return {a.v > b.v}; }
SOFTKNEE_INLINE M operator>=(V a, V b) { return {a.v >= b.v}; }
SOFTKNEE_INLINE M operator&(M a, M b) { return {a.m & b.m}; }
SOFTKNEE_INLINE V select(M m, V a, V b) {
  return reinterpret_cast<Doubles>((m.m & reinterpret_cast<Bits>(a.v)) | (~m.m & reinterpret_cast<Bits>(b.v)));
}
SOFTKNEE_INLINE V smaller(V a, V b) { return select(a < b, a, b); }
SOFTKNEE_INLINE V larger(V a, V b) { return select(a > b, a, b); }
SOFTKNEE_INLINE V abs(V a) { return reinterpret_cast<Doubles>(reinterpret_cast<Bits>(a.v) & (Bits{} + 0x7fffffffffffffff)); }

SOFTKNEE_INLINE V load(const double* p) {
  V a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
SOFTKNEE_INLINE void store(double* p, V a) { __builtin_memcpy(p, &a, sizeof a); }

template <class T>
struct Block {
  static constexpr int vectors = 1;
  V v[1];
  SOFTKNEE_INLINE void load(const T* p) { v[0] = SOFTKNEE_ISA::load(p); }
  SOFTKNEE_INLINE void store(T* p) const { SOFTKNEE_ISA::store(p, v[0]); }
};

template <class F>
SOFTKNEE_INLINE V by_lane(F function, V a) {
  return Doubles{function(a.v[0]), function(a.v[1])};
}

template <class T>
struct Math {
  static SOFTKNEE_INLINE V wide(double x) { return V(x); }
  static SOFTKNEE_INLINE V wide(double x, double) { return V(x); }
  static SOFTKNEE_INLINE V wide(V x, V) { return x; }
  static SOFTKNEE_INLINE V product(V a, V b) { return a * b; }
  static SOFTKNEE_INLINE V sum(V a, V b) { return a + b; }
  static SOFTKNEE_INLINE V minus(V a) { return -a; }
  static SOFTKNEE_INLINE V odd_cubic(V x, double c, double c_rest, double k, double) {
    return x * (V(k) * (x * x) + V(c + c_rest));
  }
  using Exact = Math;

#define SOFTKNEE_LIBRARY(name) \
  static SOFTKNEE_INLINE V name(V a) { return by_lane([](double x) { return std::name(x); }, a); }
  SOFTKNEE_LIBRARY(exp)
  SOFTKNEE_LIBRARY(expm1)
  SOFTKNEE_LIBRARY(tanh)
  SOFTKNEE_LIBRARY(erf)
  SOFTKNEE_LIBRARY(erfc)
  SOFTKNEE_LIBRARY(log)
  SOFTKNEE_LIBRARY(log1p)
  SOFTKNEE_LIBRARY(sqrt)
  SOFTKNEE_LIBRARY(sin)
  SOFTKNEE_LIBRARY(cos)
  SOFTKNEE_LIBRARY(atan)
#undef SOFTKNEE_LIBRARY

  static SOFTKNEE_INLINE V abs(V a) { return SOFTKNEE_ISA::abs(a); }
  static SOFTKNEE_INLINE V sign(V x) {
    const V zero(0.0);
    return select(x > zero, V(1.0), select(x < zero, V(-1.0), x));
  }
  static SOFTKNEE_INLINE V finite(V x) { return smaller(V(0x1p1016), larger(V(-0x1p1016), x)); }
  static SOFTKNEE_INLINE V maximum(V a, V b) { return select(a <= a, larger(a, b), a); }
  static SOFTKNEE_INLINE V minimum(V a, V b) { return select(a <= a, smaller(a, b), a); }
  static SOFTKNEE_INLINE V where(M m, V a, V b) { return select(m, a, b); }

  // the largest finite number for ±∞
  static SOFTKNEE_INLINE V held(V a) {
    const V largest(0x1.fffffffffffffp+1023);
    return smaller(largest, larger(-largest, a));
  }
  static SOFTKNEE_INLINE V held_where(M m, V a) { return select(m, held(a), a); }
  // exp(−|u|/2)
  static SOFTKNEE_INLINE V half_decay(V u) { return exp(V(-0.5) * abs(u)); }
  static SOFTKNEE_INLINE V left_times(M left, V a, V h) { return select(left, (held(a) * h) * h, a); }

  static SOFTKNEE_INLINE V exp_times(V a, V u) {
    const V h = exp(V(0.5) * u);
    return held_where(u < V(0.0), a) * h * h;
  }
  static SOFTKNEE_INLINE V decay_exp(V u) { return exp(u); }
  static SOFTKNEE_INLINE V decay_expm1(V u) { return expm1(u); }
  static SOFTKNEE_INLINE V decay_exp_times(V a, V u) { return exp_times(a, u); }

  // e/(1 + e) on the left, 1/(1 + e) on the right, e = exp(−|u|)
  static SOFTKNEE_INLINE V sigmoid(V u) {
    const V e = exp(-abs(u));
    return select(u < V(0.0), e, V(1.0)) / (V(1.0) + e);
  }
  static SOFTKNEE_INLINE V sigmoid_minus(V u) {
    const V e = exp(-abs(u));
    return select(u > V(0.0), e, V(1.0)) / (V(1.0) + e);
  }
  static SOFTKNEE_INLINE V sigmoid_times(V a, V u) {
    const V h = half_decay(u);
    return left_times(u < V(0.0), a, h) / (V(1.0) + h * h);
  }
  static SOFTKNEE_INLINE V sigmoid_minus_times(V a, V u) {
    const V h = half_decay(u);
    return left_times(u > V(0.0), a, h) / (V(1.0) + h * h);
  }
  // Float32 shares the exponential between functions of one u.
  static SOFTKNEE_INLINE V joint_sigmoid(V u) { return sigmoid(u); }
  static SOFTKNEE_INLINE V joint_sigmoid_times(V a, V u) { return sigmoid_times(a, u); }
  static SOFTKNEE_INLINE V joint_sigmoid_minus(V u) { return sigmoid_minus(u); }
  static SOFTKNEE_INLINE V joint_sigmoid_minus_times(V a, V u) { return sigmoid_minus_times(a, u); }
  static SOFTKNEE_INLINE V joint_sigmoid_minus_sum(V a, V u, V b) { return sigmoid_minus_times(a, u) + b; }
  static SOFTKNEE_INLINE V joint_sech2_half(V u) { return sech2_half(u); }
  static SOFTKNEE_INLINE V joint_sech2_half_times(V a, V u) { return sech2_half_times(a, u); }
  // σ(u)·(a + b·σ(−u))
  static SOFTKNEE_INLINE V sigmoid_slope(V a, V b, V u) {
    const V h = half_decay(u), e = h * h, below = V(1.0) + e;
    const M left = u < V(0.0);
    const V inner = a + held_where(u > V(0.0), b) * select(left, V(1.0), e) / below;
    return left_times(left, inner, h) / below;
  }
  // a·4e/(1 + e)², e = exp(−|w|); 4·a may overflow where a·h does not
  static SOFTKNEE_INLINE V sech2_half_times(V a, V w) {
    const V h = half_decay(w), below = V(1.0) + h * h;
    return (held(a) * h) * (V(4.0) * h) / (below * below);
  }
  static SOFTKNEE_INLINE V sech2_half(V w) {
    const V e = exp(-abs(w)), below = V(1.0) + e;
    return V(4.0) * e / (below * below);
  }
  static SOFTKNEE_INLINE V softplus(V u) { return larger(V(0.0), u) + log1p(exp(-abs(u))); }

  static SOFTKNEE_INLINE V erfc(V u, V, V) { return erfc(u); }
  static SOFTKNEE_INLINE V erfc_times(V a, V u, V, V) {
    return Doubles{erfc_times(a.v[0], u.v[0]), erfc_times(a.v[1], u.v[1])};
  }
  // erfc(u) is subnormal from 26.5 on, where a·erfc(u) need not be. Beyond 20, exp(−u²)/(u·√π) times the first terms of
  // 1 − 1/(2u²) + 3/(4u⁴) − …, the ninth below 2⁻⁵⁷; u² with what its rounding loses, which exp amplifies.
  static double erfc_times(double a, double u) {
    if (!(u > 20.0)) return a * std::erfc(u);
    const double last = u < 40.0 ? u : 40.0;  // exp(−u²/2) is 0 beyond
    const double square = last * last, lost = std::fma(last, last, -square), z = 0.5 / square;
    double sum = 1.0;
    for (int k = 8; k > 0; --k) sum = 1.0 - (2 * k - 1) * z * sum;
    const double h = std::exp(-0.5 * square) * (1.0 - 0.5 * lost);
    return held(V(a)).v[0] * (sum / (last * 1.7724538509055161)) * h * h;
  }

  // x·Φ(x), and its derivative Φ(x) + x·φ(x)
  static SOFTKNEE_INLINE V x_phi(V x) { return x_phi_times(V(1.0), x); }
  static SOFTKNEE_INLINE V x_phi_times(V a, V x) {
    const V u = V(-0.70710678118654757) * x;
    return erfc_times(V(0.5) * a * x, u, u, u);
  }
  static SOFTKNEE_INLINE V x_phi_slope(V x) {
    const V u = V(-0.70710678118654757) * x;
    return erfc_times(V(0.5), u, u, u) + exp_times(V(0.3989422804014327) * x, V(-0.5) * x * x);
  }
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee

#include "simd_partial.h"
