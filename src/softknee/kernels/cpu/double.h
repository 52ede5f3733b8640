// One double: the vocabulary of simd_portable.h, and math.h's primitives by the C library, which errs by about 1 ULP
// itself. The definitions are the same; nothing is Wide, since |x·f′|·ε is allowed for what rounding an argument does.
//
// A product with a decaying factor e takes it in two halves, h = √e, the second last: (a·h)·h is rounded into the
// subnormal range once.
#pragma once

#include <cmath>

namespace softknee {
namespace SOFTKNEE_ISA {

#define SOFTKNEE_INLINE inline __attribute__((always_inline))

typedef double real;
constexpr int lanes = 1;
constexpr double infinity = __builtin_inf();

struct V {
  double v;
  V() = default;
  SOFTKNEE_INLINE explicit V(double x) : v(x) {}
};
struct M {
  bool m;
};

constexpr double rest(double) { return 0.0; }
constexpr double bound(double, double exact) { return exact; }

SOFTKNEE_INLINE V operator+(V a, V b) { return V(a.v + b.v); }
SOFTKNEE_INLINE V operator-(V a, V b) { return V(a.v - b.v); }
SOFTKNEE_INLINE V operator*(V a, V b) { return V(a.v * b.v); }
SOFTKNEE_INLINE V operator/(V a, V b) { return V(a.v / b.v); }
SOFTKNEE_INLINE V operator-(V a) { return V(-a.v); }
// rounded twice: a call for one rounding would cost more than it saves
SOFTKNEE_INLINE V fma(V a, V b, V c) { return V(a.v * b.v + c.v); }
SOFTKNEE_INLINE V fnma(V a, V b, V c) { return V(c.v - a.v * b.v); }
SOFTKNEE_INLINE V smaller(V a, V b) { return V(a.v < b.v ? a.v : b.v); }
SOFTKNEE_INLINE V larger(V a, V b) { return V(a.v > b.v ? a.v : b.v); }

SOFTKNEE_INLINE M operator<(V a, V b) { return {a.v < b.v}; }
SOFTKNEE_INLINE M operator<=(V a, V b) { return {a.v <= b.v}; }
SOFTKNEE_INLINE M operator>(V a, V b) { return {a.v > b.v}; }
SOFTKNEE_INLINE M operator>=(V a, V b) { return {a.v >= b.v}; }
SOFTKNEE_INLINE M operator&(M a, M b) { return {a.m && b.m}; }
SOFTKNEE_INLINE V select(M m, V a, V b) { return V(m.m ? a.v : b.v); }

SOFTKNEE_INLINE V load(const double* p) { return V(*p); }
SOFTKNEE_INLINE void store(double* p, V a) { *p = a.v; }

template <class T>
struct Block {
  static constexpr int vectors = 1;
  V v[1];
  SOFTKNEE_INLINE void load(const T* p) { v[0] = SOFTKNEE_ISA::load(p); }
  SOFTKNEE_INLINE void store(T* p) const { SOFTKNEE_ISA::store(p, v[0]); }
};

template <class T>
struct Math {
  static SOFTKNEE_INLINE V wide(double x) { return V(x); }
  static SOFTKNEE_INLINE V wide(V x, V) { return x; }
  static SOFTKNEE_INLINE V wide(double x, double) { return V(x); }
  static SOFTKNEE_INLINE V product(V a, V b) { return a * b; }
  static SOFTKNEE_INLINE V sum(V a, V b) { return a + b; }
  static SOFTKNEE_INLINE V minus(V a) { return -a; }

  // the largest finite number for ±∞
  static SOFTKNEE_INLINE double held(double a) {
    constexpr double largest = 0x1.fffffffffffffp+1023;
    return a > largest ? largest : a < -largest ? -largest : a;
  }
  // e/(1 + e) on the left, 1/(1 + e) on the right
  static SOFTKNEE_INLINE double logistic(double u) {
    const double e = std::exp(-std::fabs(u));
    return (u < 0.0 ? e : 1.0) / (1.0 + e);
  }
  static SOFTKNEE_INLINE double logistic_times(double a, double u) {
    const double h = std::exp(-0.5 * std::fabs(u));
    return (u < 0.0 ? (held(a) * h) * h : a) / (1.0 + h * h);
  }

  static SOFTKNEE_INLINE V exp(V u) { return V(std::exp(u.v)); }
  static SOFTKNEE_INLINE V exp_times(V a, V u) {
    const double h = std::exp(0.5 * u.v);
    return V((u.v < 0.0 ? held(a.v) : a.v) * h * h);
  }
  static SOFTKNEE_INLINE V decay_exp(V u) { return exp(u); }
  static SOFTKNEE_INLINE V decay_exp_times(V a, V u) {
    const double h = std::exp(0.5 * u.v);
    return V((held(a.v) * h) * h);
  }
  static SOFTKNEE_INLINE V sigmoid(V u) { return V(logistic(u.v)); }
  static SOFTKNEE_INLINE V sigmoid_minus(V u) { return V(logistic(-u.v)); }
  static SOFTKNEE_INLINE V sigmoid_times(V a, V u) { return V(logistic_times(a.v, u.v)); }
  static SOFTKNEE_INLINE V sigmoid_minus_times(V a, V u) { return V(logistic_times(a.v, -u.v)); }
  // σ(u)·(a + b·σ(−u))
  static SOFTKNEE_INLINE V sigmoid_slope(V a, V b, V u) {
    const double h = std::exp(-0.5 * std::fabs(u.v)), e = h * h, below = 1.0 + e;
    const double inner = a.v + (u.v > 0.0 ? held(b.v) : b.v) * (u.v < 0.0 ? 1.0 : e) / below;
    return V((u.v < 0.0 ? (held(inner) * h) * h : inner) / below);
  }
  // a·4e/(1 + e)², e = exp(−|w|); 4·a may overflow where a·h does not
  static SOFTKNEE_INLINE V sech2_half_times(V a, V w) {
    const double h = std::exp(-0.5 * std::fabs(w.v)), below = 1.0 + h * h;
    return V((held(a.v) * h) * (4.0 * h) / (below * below));
  }
  static SOFTKNEE_INLINE V sech2_half(V w) {
    const double e = std::exp(-std::fabs(w.v)), below = 1.0 + e;
    return V(4.0 * e / (below * below));
  }
  static SOFTKNEE_INLINE V softplus(V u) { return larger(V(0.0), u) + V(std::log1p(std::exp(-std::fabs(u.v)))); }

  // erfc(u) is subnormal from 26.5 on, where a·erfc(u) need not be. Beyond 20, exp(−u²)/(u·√π) times the first terms of
  // 1 − 1/(2u²) + 3/(4u⁴) − …, the ninth below 2⁻⁵⁷; u² with what its rounding loses, which exp amplifies.
  static SOFTKNEE_INLINE V erfc_times(V a, V u, V) {
    if (!(u.v > 20.0)) return V(a.v * std::erfc(u.v));
    return V(tail(a.v, u.v));
  }
  static __attribute__((noinline)) double tail(double a, double u) {
    const double last = u < 40.0 ? u : 40.0;  // exp(−u²/2) is 0 beyond
    const double square = last * last, lost = std::fma(last, last, -square), z = 0.5 / square;
    double sum = 1.0;
    for (int k = 8; k > 0; --k) sum = 1.0 - (2 * k - 1) * z * sum;
    const double h = std::exp(-0.5 * square) * (1.0 - 0.5 * lost);
    return held(a) * (sum / (last * 1.7724538509055161)) * h * h;
  }
  static SOFTKNEE_INLINE V erfc(V u, V) { return V(std::erfc(u.v)); }

  static SOFTKNEE_INLINE V expm1(V u) { return V(std::expm1(u.v)); }
  static SOFTKNEE_INLINE V tanh(V u) { return V(std::tanh(u.v)); }
  static SOFTKNEE_INLINE V erf(V u) { return V(std::erf(u.v)); }
  static SOFTKNEE_INLINE V log(V x) { return V(std::log(x.v)); }
  static SOFTKNEE_INLINE V log1p(V x) { return V(std::log1p(x.v)); }
  static SOFTKNEE_INLINE V sqrt(V x) { return V(std::sqrt(x.v)); }
  static SOFTKNEE_INLINE V sin(V x) { return V(std::sin(x.v)); }
  static SOFTKNEE_INLINE V cos(V x) { return V(std::cos(x.v)); }
  static SOFTKNEE_INLINE V atan(V x) { return V(std::atan(x.v)); }
  static SOFTKNEE_INLINE V abs(V x) { return V(std::fabs(x.v)); }
  static SOFTKNEE_INLINE V sign(V x) { return V(x.v > 0.0 ? 1.0 : x.v < 0.0 ? -1.0 : x.v); }
  static SOFTKNEE_INLINE V finite(V x) { return smaller(V(0x1p1016), larger(V(-0x1p1016), x)); }
  static SOFTKNEE_INLINE V maximum(V a, V b) { return std::isnan(a.v) ? a : larger(a, b); }
  static SOFTKNEE_INLINE V minimum(V a, V b) { return std::isnan(a.v) ? a : smaller(a, b); }
  static SOFTKNEE_INLINE V where(M m, V a, V b) { return select(m, a, b); }
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee

#include "simd_partial.h"
