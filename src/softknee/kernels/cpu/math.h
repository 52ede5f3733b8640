// The primitives of the op table over a vector of floats, each written once, for every instruction set.
//
// Math<T> is accurate for results rounded to T: to about 2 ULPs of float32, or to a few thousandths of a ULP of
// float16 or bfloat16, for which shorter polynomials do. Errors are in ULPs of float32, the sum of what each step rounds,
// wherever the result is a normal number; what is measured and enforced are the activations' (accuracy.json).
//
// A Wide number is the argument of a function that amplifies relative errors of its argument, as exp does in its
// tails (by 88, near underflow): float32 keeps the rounding error beside the rounded value, the others do without.
#pragma once

#include "polynomials.h"

namespace softknee {
namespace SOFTKNEE_ISA {

typedef float real;
constexpr float infinity = __builtin_inff();
// What rounding a number leaves, and of two numbers the one that is a float: for a comparison, rounded in one direction.
constexpr float rest(double x) { return static_cast<float>(x - static_cast<float>(x)); }
constexpr float bound(double near, double) { return static_cast<float>(near); }
// Beyond ±200, exp of the argument is 0 or ∞ whatever float32 it is multiplied by: 2⁻²⁸⁸·2¹²⁸ < 2⁻¹⁵⁰.
constexpr float farthest = 200.0f;

// Σ cₖ·tᵏ⁻ˢᵏⁱᵖ for k ≥ skip
template <int skip = 0, int count>
SOFTKNEE_INLINE V polynomial(const float (&c)[count], V t) {
  V sum(c[count - 1]);
#pragma GCC unroll 16
  for (int k = count - 2; k >= skip; --k) sum = fma(sum, t, V(c[k]));
  return sum;
}

// The unevaluated sum of two floats, |lo| ≤ ulp(hi)/2.
struct Pair {
  V hi, lo;
  Pair() = default;
  SOFTKNEE_INLINE Pair(V x) : hi(x), lo(V(0.0f)) {}
  SOFTKNEE_INLINE Pair(V x, V y) : hi(x), lo(y) {}
};

#define SOFTKNEE_POLYNOMIALS(kind)                                      \
  static constexpr auto& half_exp_c = polynomials::half_exp_##kind;     \
  static constexpr auto& expm1_c = polynomials::expm1_##kind;           \
  static constexpr auto& log1p_c = polynomials::log1p_##kind;           \
  static constexpr auto& atanh_c = polynomials::atanh_##kind;           \
  static constexpr auto& erfcx_c = polynomials::erfcx_##kind;           \
  static constexpr auto& erf_c = polynomials::erf_##kind;

// Wide arithmetic. A product's rounding error is what fma finds; a sum's is Knuth's.
template <class T>
struct Arithmetic {
  using Wide = V;
  static SOFTKNEE_INLINE V wide(double x) { return V(static_cast<float>(x)); }
  static SOFTKNEE_INLINE V wide(float hi, float) { return V(hi); }
  static SOFTKNEE_INLINE V wide(V hi, V) { return hi; }
  static SOFTKNEE_INLINE V product(V a, V b) { return a * b; }
  static SOFTKNEE_INLINE V sum(V a, V b) { return a + b; }
  static SOFTKNEE_INLINE V high(V a) { return a; }
  static SOFTKNEE_INLINE V size_of(V a) { return abs(a); }
  static SOFTKNEE_INLINE V refined(V r, V) { return r; }
  static SOFTKNEE_INLINE V refined_decay(V r, V) { return r; }
  static SOFTKNEE_INLINE V minus_size(V a) { return -abs(a); }
  static SOFTKNEE_INLINE V minus(V a) { return -a; }
  static SOFTKNEE_INLINE V twice(V a) { return a + a; }
};

template <>
struct Arithmetic<float> {
  using Wide = Pair;
  static SOFTKNEE_INLINE Pair wide(double x) { return Pair(V(static_cast<float>(x)), V(rest(x))); }
  static SOFTKNEE_INLINE Pair wide(float hi, float lo) { return Pair(V(hi), V(lo)); }
  static SOFTKNEE_INLINE Pair wide(V hi, V lo) { return Pair(hi, lo); }
  static SOFTKNEE_INLINE Pair product(V a, V b) {
    const V hi = a * b;
    return Pair(hi, fma(a, b, -hi));
  }
  static SOFTKNEE_INLINE Pair product(Pair a, V b) {
    const V hi = a.hi * b;
    return Pair(hi, fma(a.lo, b, fma(a.hi, b, -hi)));
  }
  static SOFTKNEE_INLINE Pair product(V a, Pair b) { return product(b, a); }
  static SOFTKNEE_INLINE Pair product(Pair a, Pair b) {
    const V hi = a.hi * b.hi;
    return Pair(hi, fma(a.hi, b.lo, fma(a.lo, b.hi, fma(a.hi, b.hi, -hi))));
  }
  static SOFTKNEE_INLINE Pair sum(V a, V b) {
    const V hi = a + b, other = hi - a;
    return Pair(hi, (a - (hi - other)) + (b - other));
  }
  static SOFTKNEE_INLINE Pair sum(Pair a, Pair b) {
    const Pair s = sum(a.hi, b.hi);
    return Pair(s.hi, s.lo + (a.lo + b.lo));
  }
  static SOFTKNEE_INLINE Pair sum(Pair a, V b) {
    const Pair s = sum(a.hi, b);
    return Pair(s.hi, s.lo + a.lo);
  }
  static SOFTKNEE_INLINE Pair sum(V a, Pair b) { return sum(b, a); }
  static SOFTKNEE_INLINE V high(V a) { return a; }
  static SOFTKNEE_INLINE V high(Pair a) { return a.hi; }
  static SOFTKNEE_INLINE Pair size_of(V a) { return Pair(abs(a)); }
  static SOFTKNEE_INLINE Pair size_of(Pair a) { return Pair(abs(a.hi), select(a.hi < V(0.0f), -a.lo, a.lo)); }
  static SOFTKNEE_INLINE V refined(V r, V) { return r; }
  // the low part of ±∞ is NaN, and beyond `farthest` it makes no difference
  static SOFTKNEE_INLINE V refined(V r, Pair u) { return add_where(abs(u.hi) < V(farthest), r, u.lo); }
  static SOFTKNEE_INLINE V refined_decay(V r, Pair u) { return add_where(u.hi > V(-farthest), r, u.lo); }
  static SOFTKNEE_INLINE V refined_decay(V r, V) { return r; }
  static SOFTKNEE_INLINE V minus(V a) { return -a; }
  static SOFTKNEE_INLINE Pair minus(Pair a) { return Pair(-a.hi, -a.lo); }
  static SOFTKNEE_INLINE V minus_size(V a) { return -abs(a); }
  static SOFTKNEE_INLINE Pair minus_size(Pair a) {
    const M right = a.hi > V(0.0f);
    return Pair(-abs(a.hi), select(right, -a.lo, a.lo));
  }
  static SOFTKNEE_INLINE V twice(V a) { return a + a; }
  static SOFTKNEE_INLINE Pair twice(Pair a) { return Pair(a.hi + a.hi, a.lo + a.lo); }
};

template <class T>
struct Polynomials;
template <>
struct Polynomials<float> {
  SOFTKNEE_POLYNOMIALS(full)
};
template <>
struct Polynomials<half> {
  SOFTKNEE_POLYNOMIALS(half)
};
template <>
struct Polynomials<bfloat> {
  SOFTKNEE_POLYNOMIALS(bfloat)
};

// eᵘ = half·2ⁿ with ½·2^(−½) ≤ half ≤ ½·2^½. Kept apart so that a factor comes in before the exponent: the product is
// then rounded into the subnormal range once, and no factor overflows (half < 1).
struct Power {
  V half, n;
};

template <class T>
struct Math : Arithmetic<T>, Polynomials<T> {
  using A = Arithmetic<T>;
  using P = Polynomials<T>;
  using Wide = typename A::Wide;
  static constexpr bool full = sizeof(T) == 4;

  // u = n·ln 2 + r, |r| ≤ ln 2/2. n·ln2_hi is a multiple of 2⁻²⁴ and so is u where it matters: the first step is
  // exact, and the second leaves 2⁻²⁷. u: at most `farthest` in size.
  static SOFTKNEE_INLINE V reduced(V u, V& n) {
    n = round(u * V(1.44269504f));
    if constexpr (!full) return fnma(n, V(0.693147182f), u);  // the second step is below what they see
    return fnma(n, V(-1.9046542e-09f), fnma(n, V(0.693147182f), u));
  }

  template <class U>
  static SOFTKNEE_INLINE Power power(U u) {
    V n;
    const V r = A::refined(reduced(smaller(V(farthest), larger(V(-farthest), A::high(u))), n), u);
    return {polynomial(P::half_exp_c, r), n + V(1.0f)};
  }
  // for u ≤ 0
  template <class U>
  static SOFTKNEE_INLINE Power decay(U u) {
    V n;
    const V r = A::refined_decay(reduced(larger(V(-farthest), A::high(u)), n), u);
    return {polynomial(P::half_exp_c, r), n + V(1.0f)};
  }

  // 1 ULP
  template <class U>
  static SOFTKNEE_INLINE V exp(U u) {
    const Power p = power(u);
    return scale(p.half, p.n);
  }

  // a·eᵘ, 1.5 ULPs. Where eᵘ is 0, so is the product.
  template <class U>
  static SOFTKNEE_INLINE V decay_exp(U u) {
    const Power p = decay(u);
    return scale(p.half, p.n);
  }
  template <class U>
  static SOFTKNEE_INLINE V decay_exp_times(V a, U u) {
    const Power p = decay(u);
    return scale(finite_where(all(), a) * p.half, p.n);
  }
  template <class U>
  static SOFTKNEE_INLINE V exp_times(V a, U u) {
    const Power p = power(u);
    return scale(finite_where(A::high(u) < V(0.0f), a) * p.half, p.n);
  }

  // a·σ(u), 2.5 ULPs. With e = exp(−|u|): 1/(1 + e) on the right, e/(1 + e) on the left, there the exponent last.
  // Likewise a·σ(−u), from the same e.
  template <class U>
  static SOFTKNEE_INLINE V sigmoid_times(V a, U u) {
    return logistic_times(a, decay(A::minus_size(u)), A::high(u) < V(0.0f));
  }
  template <class U>
  static SOFTKNEE_INLINE V sigmoid_minus_times(V a, U u) {
    return logistic_times(a, decay(A::minus_size(u)), A::high(u) > V(0.0f));
  }
  static SOFTKNEE_INLINE V logistic_times(V a, Power p, M left) {
    const V below = V(1.0f) + scale(p.half, p.n);
    return scale(finite_where(left, a) * select(left, p.half, V(1.0f)) / below, only(left, p.n));
  }
  // 2 ULPs
  template <class U>
  static SOFTKNEE_INLINE V sigmoid(U u) {
    return logistic(decay(A::minus_size(u)), A::high(u) < V(0.0f));
  }
  template <class U>
  static SOFTKNEE_INLINE V sigmoid_minus(U u) {
    return logistic(decay(A::minus_size(u)), A::high(u) > V(0.0f));
  }
  static SOFTKNEE_INLINE V logistic(Power p, M left) {
    return scale(select(left, p.half, V(1.0f)) / (V(1.0f) + scale(p.half, p.n)), only(left, p.n));
  }

  // σ(u)·(a + b·σ(−u)), the derivative of what σ gates, 3 ULPs of the larger term
  template <class U>
  static SOFTKNEE_INLINE V sigmoid_slope(V a, V b, U u) {
    const Power p = decay(A::minus_size(u));
    const M left = A::high(u) < V(0.0f), right = A::high(u) > V(0.0f);
    const V e = scale(p.half, p.n), below = V(1.0f) + e;
    const V inner = fma(finite_where(right, b), select(left, V(1.0f), e) / below, a);
    return scale(finite_where(left, inner) * select(left, p.half, V(1.0f)) / below, only(left, p.n));
  }

  // a·sech²(w/2) = a·4e/(1 + e)², e = exp(−|w|), 3 ULPs
  template <class U>
  static SOFTKNEE_INLINE V sech2_half_times(V a, U w) {
    const Power p = decay(A::minus_size(w));
    const V below = V(1.0f) + scale(p.half, p.n);
    return scale(finite_where(all(), a) * p.half / (below * below), p.n + V(2.0f));
  }
  template <class U>
  static SOFTKNEE_INLINE V sech2_half(U w) {
    return sech2_half_times(V(1.0f), w);
  }

  // eʳ − 1 = r + r²·P(r) for the reduced argument; eᵘ − 1 = 2ⁿ·(eʳ − 1) + (2ⁿ − 1), whose second part is exact where
  // it counts. 1.5 ULPs. Halves, since 2ⁿ may overflow where the result does not.
  static SOFTKNEE_INLINE V expm1(V u) {
    V n;
    const V r = reduced(smaller(V(farthest), larger(V(-farthest), u)), n);
    const V q = fma(r * r, polynomial(P::expm1_c, r), r);
    const V size = scale(V(0.5f), n), halved = fma(size, q, size - V(0.5f));
    return signed_as(halved + halved, u);
  }

  // With t = exp(−2|u|) − 1: tanh|u| = −t/(2 + t), 2.5 ULPs. Above 0.55 float32 takes 1 − 2(1 + t)/(2 + t) for 1.5.
  static SOFTKNEE_INLINE V tanh(V u) {
    V n;
    const V size = abs(u), r = reduced(larger(V(-farthest), -(size + size)), n);
    const V q = fma(r * r, polynomial(P::expm1_c, r), r);
    const V one = scale(V(1.0f), n), t = fma(one, q, one - V(1.0f));
    if constexpr (!full) return signed_as(t / (V(2.0f) + t), u);
    const V e = fma(one, q, one);
    const M far = t < V(-0.71f);
    const V ratio = select(far, e + e, t) / (V(2.0f) + t);
    return signed_as(select(far, V(1.0f) - ratio, ratio), u);
  }

  // log(1 + eᵘ) = max(u, 0) + log(1 + e), e = exp(−|u|) ≤ 1, 2 ULPs
  template <class U>
  static SOFTKNEE_INLINE V softplus(U u) {
    const Power p = decay(A::minus_size(u));
    const V e = scale(p.half, p.n);
    return larger(V(0.0f), A::high(u)) + fma(e * e, polynomial<1>(P::log1p_c, e), e);
  }

  // exp(v²)·erfc(v) for 0 ≤ v ≤ 15, 2 ULPs: a polynomial in q = (v − 2)/(v + 2) = 1 − 4t, times t = 1/(v + 2). Float32
  // amends q and t by what v, the sum and the quotient lost.
  static SOFTKNEE_INLINE V erfcx(V v) {
    const V t = V(1.0f) / (v + V(2.0f));
    return polynomial(P::erfcx_c, fnma(V(4.0f), t, V(1.0f))) * t;
  }
  static SOFTKNEE_INLINE V erfcx(Pair v) {
    const V below = v.hi + V(2.0f), t = V(1.0f) / below;
    const V lost = fnma(t, (v.hi - (below - V(2.0f))) + v.lo, fnma(t, below, V(1.0f)));
    const V value = polynomial(P::erfcx_c, fnma(V(4.0f) * t, lost, fnma(V(4.0f), t, V(1.0f)))) * t;
    return fma(value, lost, value);
  }

  // a·erfc(u), 3 ULPs, from u and −u²: erfc|u| = erfcx|u|·exp(−u²), and 2 − erfc|u| on the left. Beyond 15, where the
  // polynomial ends, exp(−u²) is 0.
  template <class U, class S>
  static SOFTKNEE_INLINE V erfc_times(V a, U u, S minus_square) {
    const Power p = decay(minus_square);
    const V y = erfcx(bounded(A::size_of(u))) * p.half;
    const M right = A::high(u) > V(0.0f);
    return scale(finite_where(right, a) * select(right, y, V(2.0f) - scale(y, p.n)), only(right, p.n));
  }
  template <class U, class S>
  static SOFTKNEE_INLINE V erfc(U u, S minus_square) {
    return erfc_times(V(1.0f), u, minus_square);
  }
  static SOFTKNEE_INLINE V bounded(V v) { return full ? smaller(V(15.0f), v) : v; }  // ∞ may be there: 1/∞ is 0
  static SOFTKNEE_INLINE Pair bounded(Pair v) { return Pair(bounded(v.hi), only(v.hi < V(15.0f), v.lo)); }

  // x·(2/√π + x²·P(x²)) up to 1, then 1 − erfc; 1.5 ULPs
  static SOFTKNEE_INLINE V erf(V x) {
    const V size = abs(x), square = x * x;
    const V near = size * polynomial(P::erf_c, smaller(V(1.0f), square));
    const Power p = decay(A::product(-size, size));
    const V far = V(1.0f) - scale(erfcx(bounded(A::size_of(size))) * p.half, p.n);
    return signed_as(select(size < V(1.0f), near, far), x);
  }

  // x = 2ᵉ·m with √½ ≤ m < √2: e·ln 2 + 2·atanh((m − 1)/(m + 1)), 1 ULP
  static SOFTKNEE_INLINE V log(V x) {
    V e = exponent(x), m = mantissa(x);
    const M large = m > V(1.41421356f);
    m = select(large, m * V(0.5f), m);
    e = select(large, e + V(1.0f), e);
    const V value = log_sum(e, m - V(1.0f), V(0.0f));
    const V ends = select(x < V(infinity), V(-infinity), V(infinity));
    const M inside = (x > V(0.0f)) & (x < V(infinity));
    return select(inside, value, select(x >= V(0.0f), ends, x + V(__builtin_nanf(""))));
  }
  // log(1 + x) with the rounding error of 1 + x, 1.5 ULPs
  static SOFTKNEE_INLINE V log1p(V x) {
    const V whole = V(1.0f) + x;
    V e = exponent(whole), m = mantissa(whole);
    const M large = m > V(1.41421356f);
    m = select(large, m * V(0.5f), m);
    e = select(large, e + V(1.0f), e);
    // what 1 + x lost, in the unit of m
    const V lost = scale(select(x > V(1.0f), V(1.0f) - (whole - x), x - (whole - V(1.0f))), -e);
    const V value = log_sum(e, m - V(1.0f), lost);
    const V ends = select(x < V(0.0f), V(-infinity), V(infinity));
    const M inside = (whole > V(0.0f)) & (x < V(infinity));
    const V rest = select(whole >= V(0.0f), ends, x + V(__builtin_nanf("")));
    return select(abs(x) < V(1e-10f), x, select(inside, value, rest));
  }
  // e·ln 2 + log(1 + f + lost), lost a correction below half a ULP of 1 + f
  static SOFTKNEE_INLINE V log_sum(V e, V f, V lost) {
    // log(1 + f) = f − f²/2 + s·(f²/2 + R), Tang's arrangement of 2·atanh(s), s = f/(2 + f)
    const V s = f / (V(2.0f) + f), z = s * s, square = V(0.5f) * f * f;
    const V rest = V(2.0f) * z * polynomial(P::atanh_c, z);
    const V small = fma(s, square + rest, fma(e, V(-1.9046542e-09f), lost / (V(1.0f) + f)));
    return fma(e, V(0.693147182f), f - (square - small));
  }

  // a NaN for ±∞
  static SOFTKNEE_INLINE V sqrt(V x) { return SOFTKNEE_ISA::sqrt(x); }
  static SOFTKNEE_INLINE V abs(V x) { return SOFTKNEE_ISA::abs(x); }
  // ±1, and x itself where that is ±0 or NaN
  static SOFTKNEE_INLINE V sign(V x) { return select(abs(x) > V(0.0f), signed_as(V(1.0f), x), x); }
  static SOFTKNEE_INLINE V finite(V x) {
    return smaller(V(0x1p120f), larger(V(-0x1p120f), x));
  }
  // NaN if either is. The processor's answers with the second where they compare neither way, so a number goes first.
  static SOFTKNEE_INLINE V maximum(V a, V b) { return select(unordered(a), a, larger(a, b)); }
  static SOFTKNEE_INLINE V minimum(V a, V b) { return select(unordered(a), a, smaller(a, b)); }
  static SOFTKNEE_INLINE V where(M m, V a, V b) { return select(m, a, b); }
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
