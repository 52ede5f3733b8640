// The primitives of the op table over a vector of floats, each written once, for every instruction set.
//
// Math<T> is accurate for results rounded to T: to about 2 ULPs of float32, or to a few thousandths of a ULP of
// float16 or bfloat16, for which shorter polynomials do. Errors are in ULPs of float32, wherever the result is a normal
// number; tests/kernels/test_primitives.py reads them here and holds each instruction set to them. A function without a
// figure is part of another or a form of it.
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

// first + Σ cₖ·tᵏ, k ≥ 1, of the piece that w numbers
template <int count>
SOFTKNEE_INLINE V polynomial(const float (&c)[count][16], V t, V w, V first) {
  V sum = lookup(c[count - 1], w);
#pragma GCC unroll 16
  for (int k = count - 2; k >= 1; --k) sum = fma(sum, t, lookup(c[k], w));
  return fma(sum, t, first);
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
  static constexpr auto& exp_c = polynomials::exp_##kind;               \
  static constexpr auto& expm1_c = polynomials::expm1_##kind;           \
  static constexpr auto& log1p_c = polynomials::log1p_##kind;           \
  static constexpr auto& atanh_c = polynomials::atanh_##kind;           \
  static constexpr auto& gauss_c = polynomials::gauss_##kind;           \
  static constexpr auto& tail_c = polynomials::tail_##kind;             \
  static constexpr auto& sin_c = polynomials::sin_##kind;               \
  static constexpr auto& cos_c = polynomials::cos_##kind;               \
  static constexpr auto& atan_c = polynomials::atan_##kind;             \
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
  static SOFTKNEE_INLINE V odd_cubic(V x, float c, float c_rest, float k, float) {
    return x * fma(V(k), x * x, V(c + c_rest));
  }
  static SOFTKNEE_INLINE V high(V a) { return a; }
  static SOFTKNEE_INLINE V nearest(V a) { return a; }
  static SOFTKNEE_INLINE V size_of(V a) { return abs(a); }
  static SOFTKNEE_INLINE V reduced_twice(M, V r, V, V) { return r; }
  static SOFTKNEE_INLINE V reduced_by(V r, V, V) { return r; }
  static SOFTKNEE_INLINE V low_times(M, V, V, V c) { return c; }
  static SOFTKNEE_INLINE V refined_twice(V r, V) { return r; }
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
    return Pair(hi, fms(a, b, hi));
  }
  static SOFTKNEE_INLINE Pair product(Pair a, V b) {
    const V hi = a.hi * b;
    return Pair(hi, fma(a.lo, b, fms(a.hi, b, hi)));
  }
  static SOFTKNEE_INLINE Pair product(V a, Pair b) { return product(b, a); }
  static SOFTKNEE_INLINE Pair product(Pair a, Pair b) {
    const V hi = a.hi * b.hi;
    return Pair(hi, fma(a.hi, b.lo, fma(a.lo, b.hi, fms(a.hi, b.hi, hi))));
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
  // x·(C + K·x²), C and K of one sign: C = c + c_rest, c of 12 bits, so that what c + K·x² has rounded is found exactly
  static SOFTKNEE_INLINE Pair odd_cubic(V x, float c, float c_rest, float k, float k_rest) {
    const V square = x * x, sum = fma(V(k), square, V(c)), hi = x * sum;
    const V lost = fma(V(k_rest), square, fma(V(k), square, V(c) - sum) + V(c_rest));
    return Pair(hi, fma(x, fma(V(k), fms(x, x, square), lost), fms(x, sum, hi)));
  }
  static SOFTKNEE_INLINE V high(V a) { return a; }
  static SOFTKNEE_INLINE V high(Pair a) { return a.hi; }
  // the float nearest to it: a product's low part may be more than half an ULP
  static SOFTKNEE_INLINE V nearest(V a) { return a; }
  static SOFTKNEE_INLINE V nearest(Pair a) { return a.hi + a.lo; }
  static SOFTKNEE_INLINE Pair size_of(V a) { return Pair(abs(a)); }
  static SOFTKNEE_INLINE Pair size_of(Pair a) { return Pair(abs(a.hi), select(a.hi < V(0.0f), -a.lo, a.lo)); }
  // The second step of a reduction, with u's low part where m: that of ±∞ is NaN, and beyond `farthest` it makes no
  // difference.
  static SOFTKNEE_INLINE V reduced_twice(M, V r, V n, V) { return fnma(n, V(-1.9046542e-09f), r); }
  static SOFTKNEE_INLINE V reduced_twice(M m, V r, V n, Pair u) {
    return SOFTKNEE_ISA::add_where(m, r, fnma(n, V(-1.9046542e-09f), u.lo));
  }
  static SOFTKNEE_INLINE V reduced_by(V r, V n, V) { return fnma(n, V(-1.9046542e-09f), r); }
  static SOFTKNEE_INLINE V reduced_by(V r, V n, Pair u) {
    return sub_where(u.hi < V(126.0f), r, fma(n, V(-1.9046542e-09f), u.lo));
  }
  static SOFTKNEE_INLINE V refined_twice(V r, V) { return r; }
  static SOFTKNEE_INLINE V refined_twice(V r, Pair u) {
    const Pair size = size_of(u);
    return SOFTKNEE_ISA::fma_where(size.hi < V(10.0f), size.lo, V(-2.0f), r);
  }
  // a's low part times b, plus c where m, else c
  static SOFTKNEE_INLINE V low_times(M, V, V, V c) { return c; }
  static SOFTKNEE_INLINE V low_times(M m, Pair a, V b, V c) { return SOFTKNEE_ISA::fma_where(m, a.lo, b, c); }
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

// x = k·π/2 + r with |r| ≤ π/4, for any x: k modulo 4, and r to 2⁻⁶⁰. x·2/π modulo 4 in whole numbers: x = m·2ᵉ, and the
// bits of 2/π that count are the 96 after the first e − 2, since those multiply m·2ᵉ to multiples of 4.
__attribute__((noinline)) static double reduced_far(float x, float& k) {
  // 2⁻³²·2/π, a word of 32 bits after the other
  static constexpr uint32_t words[] = {0x00000000u, 0xA2F9836Eu, 0x4E441529u, 0xFC2757D1u,
                                       0xF534DDC0u, 0xDB629599u, 0x3C439041u, 0xFE5163ABu};
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const int e = static_cast<int>((bits >> 23) & 0xff) - 150;
  if (e == 105) return x - x;  // ±∞ and NaN
  const uint64_t m = (bits & 0x007fffffu) | 0x00800000u;
  const int skipped = e + 30, shift = skipped % 32;
  const uint32_t* w = words + skipped / 32;
  const uint64_t first = static_cast<uint64_t>(w[0]) << 32 | w[1], second = static_cast<uint64_t>(w[2]) << 32 | w[3];
  const uint64_t high = shift ? first << shift | second >> (64 - shift) : first, low = (second << shift) >> 32;
  const uint64_t part = m * high + (m * low >> 32);  // of 2⁶⁴ for 4 quarters
  const uint64_t quarter = (part + (uint64_t{1} << 61)) >> 62;
  const double r = static_cast<double>(static_cast<int64_t>(part - (quarter << 62))) * 0x1.921fb54442d18p-62;
  const bool negative = bits >> 31;
  k = negative ? -static_cast<float>(quarter) : static_cast<float>(quarter);
  return negative ? -r : r;
}

// eᵘ = part·2ⁿ for u ≤ 0, part as in Power. Where not alive, below −200, a product with eᵘ is 0 whatever else is in it,
// and part may be anything.
struct Fall {
  V part, n;
  M alive;
};

// σ(u) = 2ʳᵉˢᵗ/below and σ(−u) = e/below, below = 1 + e: e = exp(−u) where that is less than 2⁶¹, and beyond it what is
// left after a factor of 2⁻ʳᵉˢᵗ, so that a quotient comes before the exponent that may make it subnormal. Below −200 a
// product with σ(u) is 0 whatever else is in it, from 126 on e·x is 0 for every x.
struct Logistic {
  V e, below, rest;
  M alive;
};

// Whether what lies below 2⁻⁴⁰ of a factor rounds to 0, so that no exponent need be kept back.
template <class T>
constexpr bool narrow = false;
template <>
constexpr bool narrow<half> = true;

template <class T>
struct Math : Arithmetic<T>, Polynomials<T> {
  using A = Arithmetic<T>;
  using Exact = Arithmetic<float>;  // for arguments that every T must know exactly
  using P = Polynomials<T>;
  using Wide = typename A::Wide;
  static constexpr bool full = sizeof(T) == 4;

  // u = n·ln 2 + r, |r| ≤ ln 2/2. n·ln2_hi is a multiple of 2⁻²⁴ and so is u where it matters: the first step is
  // exact, and the second, which half precision does not see, leaves 2⁻²⁷. v: u, at most `farthest` in size where m.
  template <class U>
  static SOFTKNEE_INLINE V reduced(M m, V v, V& n, U u) {
    n = round(v * V(1.44269504f));
    return A::reduced_twice(m, fnma(n, V(0.693147182f), v), n, u);
  }

  template <class U>
  static SOFTKNEE_INLINE Power power(U u) {
    V n;
    const V h = A::high(u), v = smaller(V(farthest), larger(V(-farthest), h));
    const V r = reduced(abs(h) < V(farthest), v, n, u);
    return {polynomial(P::half_exp_c, r), n + V(1.0f)};
  }
  // for u ≤ 0
  template <class U>
  static SOFTKNEE_INLINE Power decay(U u) {
    V n;
    const V h = A::high(u), r = reduced(h > V(-farthest), larger(V(-farthest), h), n, u);
    return {polynomial(P::half_exp_c, r), n + V(1.0f)};
  }

  template <class U>
  static SOFTKNEE_INLINE Fall falling(U u) {
    V n;
    const V h = A::high(u), r = reduced(h > V(-farthest), h, n, u);
    return {polynomial(P::half_exp_c, r), n + V(1.0f), not_less(h, V(-farthest))};
  }

  // 1 ULP
  template <class U>
  static SOFTKNEE_INLINE V exp(U u) {
    const Power p = power(u);
    return scale(p.half, p.n);
  }

  // a·eᵘ, 1.5 ULPs; the first two for u ≤ 0 only. Where eᵘ is 0, so is the product. Without a factor, no half is needed.
  template <class U>
  static SOFTKNEE_INLINE V decay_exp(U u) {
    V n;
    const V h = A::high(u), r = reduced(h > V(-farthest), h, n, u);
    return scale_where(not_less(h, V(-farthest)), polynomial(P::exp_c, r), n);
  }
  template <class U>
  static SOFTKNEE_INLINE V decay_exp_times(V a, U u) {
    const Fall p = falling(u);
    return scale_where(p.alive, a * p.part, p.n);
  }
  template <class U>
  static SOFTKNEE_INLINE V exp_times(V a, U u) {
    const Power p = power(u);
    return scale(finite_where(A::high(u) < V(0.0f), a) * p.half, p.n);
  }

  template <class U>
  static SOFTKNEE_INLINE Logistic logistic(U u) {
    const V v = smaller(V(126.0f), A::high(u)), n = round(v * V(-1.44269504f));
    const V r = A::reduced_by(fnms(n, V(0.693147182f), v), n, u);
    const V most = narrow<T> ? n : smaller(V(60.0f), n), e = scale(polynomial(P::exp_c, r), most);
    return {e, V(1.0f) + e, most - n, not_less(A::high(u), V(-farthest))};
  }
  static SOFTKNEE_INLINE V scaled(V a, const Logistic& l) {
    return narrow<T> ? only(l.alive, a) : scale_where(l.alive, a, l.rest);
  }
  // a·σ(u), 2.5 ULPs
  template <class U>
  static SOFTKNEE_INLINE V sigmoid_times(V a, U u) {
    const Logistic l = logistic(u);
    return scaled(a / l.below, l);
  }
  template <class U>
  static SOFTKNEE_INLINE V sigmoid(U u) {
    return sigmoid_times(V(1.0f), u);
  }
  // Beside others of the same u: half precision takes one division for all of them.
  template <class U>
  static SOFTKNEE_INLINE V joint_sigmoid_times(V a, U u) {
    if constexpr (full) return sigmoid_times(a, u);
    const Logistic l = logistic(u);
    return scaled(a * (V(1.0f) / l.below), l);
  }
  template <class U>
  static SOFTKNEE_INLINE V joint_sigmoid(U u) {
    return sigmoid(u);
  }
  // σ(−u), 2.5 ULPs: e·w, w = 1/below, on the right; 1 − w on the left, 1 ULP
  template <class U>
  static SOFTKNEE_INLINE V complement(const Logistic& l, V w, U u) {
    return sub_to(A::high(u) < V(0.0f), l.e * w, V(1.0f), w);
  }
  template <class U>
  static SOFTKNEE_INLINE V joint_sigmoid_minus(U u) {
    const Logistic l = logistic(u);
    V w = V(1.0f) / l.below;
    if constexpr (full) w = fnma(w * (l.e - (l.below - V(1.0f))), w, w);  // what the sum has rounded, found exactly
    return complement(l, w, u);
  }
  template <class U>
  static SOFTKNEE_INLINE V joint_sigmoid_minus_times(V a, U u) {
    return only(A::high(u) < V(126.0f), a * joint_sigmoid_minus(u));
  }

  // a·σ(−u) + b
  template <class U>
  static SOFTKNEE_INLINE V joint_sigmoid_minus_sum(V a, U u, V b) {
    return fma_where(A::high(u) < V(126.0f), a, joint_sigmoid_minus(u), b);
  }
  // a·sech²(u/2) = 4a·σ(u)·σ(−u)
  template <class U>
  static SOFTKNEE_INLINE V joint_sech2_half_times(V a, U u) {
    if constexpr (full) return sech2_half_times(a, u);
    const Logistic l = logistic(u);
    const V w = V(1.0f) / l.below;
    return only(A::high(u) < V(126.0f), scaled(a * w * (V(4.0f) * complement(l, w, u)), l));
  }
  template <class U>
  static SOFTKNEE_INLINE V joint_sech2_half(U u) {
    return joint_sech2_half_times(V(1.0f), u);
  }

  // σ(u)·(a + b·σ(−u)), the derivative of what σ gates. b: Wide where its rounding counts, near a root.
  template <class B, class U>
  static SOFTKNEE_INLINE V sigmoid_slope(V a, B b, U u) {
    const Logistic l = logistic(u);
    // on the left, where the sum has its root, a + b·(1 − w) as (a + b) − b·w, but for the low part of b
    const M left = A::high(u) < V(0.0f), steady = A::high(u) < V(126.0f);
    const V w = V(1.0f) / l.below, right = l.e * w, factor = sub_to(left, right, V(0.0f), w);
    const V rest = A::low_times(steady, b, sub_to(left, right, V(1.0f), w), add_where(left, a, A::high(b)));
    return scaled(fma_where(steady, A::high(b), factor, rest) * w, l);
  }

  // a·sech²(w/2) = a·4e/(1 + e)², e = exp(−|w|), 2.5 ULPs. (1 + e)² as 1 + e·(2 + e), which rounds less.
  template <class U>
  static SOFTKNEE_INLINE V sech2_half_times(V a, U w) {
    const Fall p = falling(A::minus_size(w));
    const V e = scale(p.part, p.n), below = fma(e, V(2.0f) + e, V(1.0f));
    if constexpr (narrow<T>) return only(p.alive, V(4.0f) * a * e / below);
    return scale_where(p.alive, a * p.part / below, p.n + V(2.0f));
  }
  template <class U>
  static SOFTKNEE_INLINE V sech2_half(U w) {
    return sech2_half_times(V(1.0f), w);
  }

  // eʳ − 1 = r + r²·P(r) for the reduced argument; eᵘ − 1 = 2ⁿ·(eʳ − 1) + (2ⁿ − 1), whose second part is exact where
  // it counts. 1.5 ULPs. Halves, since 2ⁿ may overflow where the result does not.
  static SOFTKNEE_INLINE V expm1(V u) {
    V n;
    const V v = smaller(V(89.0f), larger(V(-farthest), u));  // from 88.8 on it is ∞, and 2ⁿ⁻¹ is not
    const V r = reduced(all(), v, n, v);
    const V q = fma(r * r, polynomial(P::expm1_c, r), r);
    const V size = scale(V(0.5f), n), halved = fma(size, q, size - V(0.5f));
    return signed_as(halved + halved, u);
  }

  // for u ≤ 0, where −1 + 2ⁿ·eʳ shrinks what one step of the reduction leaves
  static SOFTKNEE_INLINE V decay_expm1(V u) {
    const V v = larger(V(-20.0f), u), n = round(v * V(1.44269504f)), r = fnma(n, V(0.693147182f), v);
    const V q = fma(r * r, polynomial(P::expm1_c, r), r), one = scale(V(1.0f), n);
    return signed_as(fma(one, q, one - V(1.0f)), u);
  }

  // u: Wide where its rounding would be tanh's. tanh|u| = −t/(2 + t), t = exp(−2|u|) − 1, 2.5 ULPs. From 10 on it is 1.
  template <class U>
  static SOFTKNEE_INLINE V tanh(U u) {
    const V size = smaller(V(10.0f), abs(A::high(u))), twice = size + size, n = round(size * V(-2.88539008f));
    // exp(−2|u|) is off by n·2⁻²⁹, of which tanh sees 2·exp(−2|u|)
    const V r = A::refined_twice(fnms(n, V(0.693147182f), twice), u);
    const V q = fma(r * r, polynomial(P::expm1_c, r), r);
    const V one = scale(V(1.0f), n), t = fma(one, q, one - V(1.0f));
    return signed_as(t / (V(2.0f) + t), A::high(u));
  }

  // log(1 + eᵘ) = max(u, 0) + log(1 + e), e = exp(−|u|) ≤ 1, 2 ULPs
  template <class U>
  static SOFTKNEE_INLINE V softplus(U u) {
    const V e = decay_exp(A::minus_size(u));
    return larger(V(0.0f), A::high(u)) + fma(e * e, polynomial<1>(P::log1p_c, e), e);
  }

  // e^(y²/2)·Φ(y) for 0 ≥ y > −20, Φ the normal distribution function: by pieces, without a division. sloped: plus
  // y/√2π, before anything is rounded to the size of the two, which cancel near y = −0.75.
  template <bool sloped = false>
  static SOFTKNEE_INLINE V tail(V y) {
    const V w = fma(y, V(-0.75f), V(1.0f)), first = lookup(P::tail_c[0], w);
    const V t = y - lookup(polynomials::tail_centres, w);
    return polynomial(P::tail_c, t, w, sloped ? fma(y, V(0.39894228f), first) : first);
  }
  // −|x|, or where that is farther, where any float32 times Φ is 0
  static SOFTKNEE_INLINE V left_of(V x) { return larger(V(-19.99f), -abs(x)); }
  // e^(−y²/2) as factor·2ⁿ for 0 ≥ y > −20. y² = −2n·ln 2 + t
  static SOFTKNEE_INLINE V gauss(V y, V& n) {
    const V square = y * y;
    n = round(square * V(-0.72134752f));
    V t = fma(n, V(1.38629436f), square);
    // what y² and the constant lost; the others' squares are exact
    if constexpr (full) t = t - fma(n, V(3.8093084e-09f), fnma(y, y, square));
    return polynomial(P::gauss_c, t);
  }

  // x·Φ(x) = max(x, 0) − |x|·Φ(−|x|), 3 ULPs. Sixteen floats take 18 cycles at 2.6 GHz (Zen 4); by erfc, with
  // a division and selections, 32.
  static SOFTKNEE_INLINE V x_phi(V x) {
    V n;
    const V y = left_of(x), factor = gauss(y, n);
    return larger(V(-0.0f), x) + scale(y * tail(y) * factor, n);  // −0 + −0 keeps the sign
  }
  // a·x·Φ(x)
  static SOFTKNEE_INLINE V x_phi_times(V a, V x) {
    V n;
    const V y = left_of(x), factor = gauss(y, n);
    const V left = scale(y * tail(y) * factor * finite_where(all(), a), n);
    return select(x > V(0.0f), fma(a, x, left), left);
  }
  // (x·Φ(x))′ = Φ(x) + x·φ(x) = e^(−y²/2)·(tail + y/√2π) on the left, 1 minus that on the right: 4 ULPs, of 2⁻⁴ where
  // it is smaller
  static SOFTKNEE_INLINE V x_phi_slope(V x) {
    V n;
    const V y = left_of(x), factor = gauss(y, n);
    const V left = scale(tail<true>(y) * factor, n);
    return select(x > V(0.0f), V(1.0f) - left, left);
  }

  // exp(y²/2)·erfc(y/√2) for y ≥ 0; of ∞ − ∞, as the float nearest to an infinite Pair, as of ∞
  static SOFTKNEE_INLINE V erfcx_half(V y) {
    const V half = tail(larger(-y, V(-19.99f)));
    return half + half;
  }

  // a·erfc(u), 3 ULPs, from y = √2·u and −u²: erfc|u| = erfcx|u|·exp(−u²), and 2 − erfc|u| on the left
  template <class U, class Y, class S>
  static SOFTKNEE_INLINE V erfc_times(V a, U, Y y, S minus_square) {
    const Power p = decay(minus_square);
    const V size = erfcx_half(abs(A::nearest(y))) * p.half;
    const M right = A::high(y) > V(0.0f);
    return scale(finite_where(right, a) * select(right, size, V(2.0f) - scale(size, p.n)), only(right, p.n));
  }
  template <class U, class Y, class S>
  static SOFTKNEE_INLINE V erfc(U u, Y y, S minus_square) {
    return erfc_times(V(1.0f), u, y, minus_square);
  }

  // x + x·P(x²) up to 1, then 1 − erfc; 1.5 ULPs
  static SOFTKNEE_INLINE V erf(V x) {
    const V size = abs(x), square = x * x;
    const V near = fma(size, polynomial(P::erf_c, smaller(V(1.0f), square)), size);
    const Power p = decay(A::product(-size, size));
    const V far = V(1.0f) - scale(erfcx_half(size * V(1.41421356f)) * p.half, p.n);
    return signed_as(select(size < V(1.0f), near, far), x);
  }

  // x = k·π/2 + r, |r| ≤ π/4, k whole, or modulo 4. Cody and Waite's: k·π/2 in three parts, of which the first is
  // subtracted exactly. From 2¹⁷ on, where that ends, by number.
  static SOFTKNEE_INLINE V reduced_quarter(Pair x, V& k) {
    k = round(x.hi * V(0.636619772f));
    V r = fma(k, V(4.371139e-08f), fma(k, V(-1.57079637f), x.hi)) + fma(k, V(1.7151245e-15f), x.lo);
    const M far = abs(x.hi) >= V(0x1p17f);
    if (any(far)) {
      float hi[lanes], lo[lanes], number[lanes], rest[lanes];
      store(hi, x.hi), store(lo, x.lo), store(number, k), store(rest, r);
      for (int i = 0; i < lanes; ++i) {
        if (__builtin_fabsf(hi[i]) >= 0x1p17f) rest[i] = static_cast<float>(reduced_far(hi[i], number[i]) + lo[i]);
      }
      r = load(rest), k = load(number);
    }
    return r;
  }
  // sin(k·π/2 + r)
  static SOFTKNEE_INLINE V sin_from(V k, V r) {
    const V t = r * r, q = fnma(V(4.0f), round(k * V(0.25f)), k);  // −2 to 2
    const V s = fma(r * t, polynomial(P::sin_c, t), r);
    const V c = fma(t * t, polynomial(P::cos_c, t), fma(t, V(-0.5f), V(1.0f)));
    const M odd = abs(abs(q) - V(1.0f)) < V(0.5f);
    return select(odd, q * c, (V(1.0f) - abs(q)) * s);
  }
  // 1.75 ULPs, x of any size
  template <class U>
  static SOFTKNEE_INLINE V sin(U u) {
    V k;
    const Pair x(u);
    const V r = reduced_quarter(x, k);
    return select(abs(x.hi) < V(0x1p-13f), x.hi, sin_from(k, r));  // keeps −0
  }
  // 1.75 ULPs, x of any size
  template <class U>
  static SOFTKNEE_INLINE V cos(U u) {
    V k;
    const V r = reduced_quarter(Pair(u), k);
    return sin_from(k + V(1.0f), r);
  }

  // a + a³·P(a²) up to 1, then π/2 − atan(1/x), 1.5 ULPs
  static SOFTKNEE_INLINE V atan(V x) {
    const V size = abs(x);
    const M far = size > V(1.0f);
    const V a = select(far, V(-1.0f) / size, size), t = a * a;
    const V value = fma(a * t, polynomial(P::atan_c, t), a);
    return signed_as(select(far, V(1.57079637f) + (value - V(4.371139e-08f)), value), x);
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
  // log(1 + x) with the rounding error of 1 + x, 1 ULP
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

  // 0.5 ULPs: rounded correctly
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
