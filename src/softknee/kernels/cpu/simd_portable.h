// One float: no intrinsics, for any processor. This is also what the vocabulary means.
//
//   smaller, larger    b where a and b compare neither way (a NaN, or zeros of two signs), as x86 does it
//   round              to the nearest whole number, ties to even
//   scale(a, n)        a·2ⁿ for whole n, rounded once unless the result is subnormal
//   select(m, a, b)    a where m, else b;  only(m, a): a where m, else 0
//   add_where(m, …)    a + b where m, else a (or a + 0); likewise sub_where
//   sub_to(m, a, b, c) b − c where m, else a
//   fma_where(m, …)    a·b + c where m, else c
//   scale_where(m, …)  a·2ⁿ where m, else 0, n then of any kind
//   not_less(a, b)     a ≥ b, or either is NaN
//   signed_as(a, b)    |a| with b's sign bit
//   finite_where(m, a) where m, ±∞ becomes the largest finite number of that sign
//   fma, fms           a·b + c and a·b − c, rounded once;  fnma, fnms: −a·b + c and −a·b − c
//   total, highest     of the lanes: the sum by halves (lane l and l + lanes/2 first), the largest
//   lookup(table, w)   the entry whose number is in bits 21 to 24 of w: which quarter of an octave, for four octaves
#pragma once

namespace softknee {
namespace SOFTKNEE_ISA {

#define SOFTKNEE_INLINE inline __attribute__((always_inline))

constexpr int lanes = 1;

struct V {
  float v;
  V() = default;
  SOFTKNEE_INLINE explicit V(float x) : v(x) {}
};
struct M {
  bool m;
};

SOFTKNEE_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
SOFTKNEE_INLINE float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// a·b + c with one rounding. Without the instruction: the product is exact in double, the sum is rounded to odd there
// (its last bit says that something was lost), so that rounding to float sees on which side of a tie it lies.
__attribute__((noinline)) static float fused(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
  return __builtin_fmaf(a, b, c);
#else
  const double product = static_cast<double>(a) * b, sum = product + c;
  const double other = sum - product, lost = (product - (sum - other)) + (c - other);
  uint64_t bits;
  __builtin_memcpy(&bits, &sum, sizeof bits);
  // finite, inexact and even: one step towards what was lost
  if (lost != 0.0 && lost - lost == 0.0 && (bits & 1) == 0) bits += ((lost > 0.0) == (sum > 0.0)) ? 1 : -1;
  double odd;
  __builtin_memcpy(&odd, &bits, sizeof odd);
  return static_cast<float>(odd);
#endif
}

SOFTKNEE_INLINE V operator+(V a, V b) { return V(a.v + b.v); }
SOFTKNEE_INLINE V operator-(V a, V b) { return V(a.v - b.v); }
SOFTKNEE_INLINE V operator*(V a, V b) { return V(a.v * b.v); }
SOFTKNEE_INLINE V operator/(V a, V b) { return V(a.v / b.v); }
SOFTKNEE_INLINE V operator-(V a) { return V(float_of(bits_of(a.v) ^ 0x80000000u)); }
SOFTKNEE_INLINE V fma(V a, V b, V c) { return V(fused(a.v, b.v, c.v)); }
SOFTKNEE_INLINE V fms(V a, V b, V c) { return V(fused(a.v, b.v, -c.v)); }
SOFTKNEE_INLINE V fnma(V a, V b, V c) { return V(fused(-a.v, b.v, c.v)); }
SOFTKNEE_INLINE V fnms(V a, V b, V c) { return V(fused(-a.v, b.v, -c.v)); }
SOFTKNEE_INLINE V smaller(V a, V b) { return V(a.v < b.v ? a.v : b.v); }
SOFTKNEE_INLINE V larger(V a, V b) { return V(a.v > b.v ? a.v : b.v); }
SOFTKNEE_INLINE V sqrt(V a) { return V(__builtin_sqrtf(a.v)); }
SOFTKNEE_INLINE V abs(V a) { return V(float_of(bits_of(a.v) & 0x7fffffffu)); }
// 1.5·2²³ leaves no room for a fraction
SOFTKNEE_INLINE V round(V a) { return V((a.v + 0x1.8p23f) - 0x1.8p23f); }
// 2ⁿ in two factors, normal numbers but for n < −252, where they are 0
SOFTKNEE_INLINE V scale(V a, V n) {
  const float bounded = n.v < 254.0f ? (n.v > -254.0f ? n.v : -254.0f) : 254.0f;
  const int whole = static_cast<int>(bounded), part = whole >> 1, rest = whole - part;
  return V(a.v * float_of(static_cast<uint32_t>(part + 127) << 23) * float_of(static_cast<uint32_t>(rest + 127) << 23));
}

SOFTKNEE_INLINE M operator<(V a, V b) { return {a.v < b.v}; }
SOFTKNEE_INLINE M operator<=(V a, V b) { return {a.v <= b.v}; }
SOFTKNEE_INLINE M operator>(V a, V b) { return {a.v > b.v}; }
SOFTKNEE_INLINE M operator>=(V a, V b) { return {a.v >= b.v}; }
SOFTKNEE_INLINE M not_less(V a, V b) { return {!(a.v < b.v)}; }
SOFTKNEE_INLINE M unordered(V a) { return {!(a.v == a.v)}; }
SOFTKNEE_INLINE M operator&(M a, M b) { return {a.m && b.m}; }
SOFTKNEE_INLINE bool any(M a) { return a.m; }
SOFTKNEE_INLINE M all() { return {true}; }
SOFTKNEE_INLINE V select(M m, V a, V b) { return V(m.m ? a.v : b.v); }
SOFTKNEE_INLINE V only(M m, V a) { return V(m.m ? a.v : 0.0f); }
SOFTKNEE_INLINE V add_where(M m, V a, V b) { return a + only(m, b); }
SOFTKNEE_INLINE V sub_where(M m, V a, V b) { return a - only(m, b); }
SOFTKNEE_INLINE V sub_to(M m, V a, V b, V c) { return select(m, b - c, a); }
SOFTKNEE_INLINE V fma_where(M m, V a, V b, V c) { return select(m, fma(a, b, c), c); }
SOFTKNEE_INLINE V scale_where(M m, V a, V n) { return only(m, scale(a, n)); }
SOFTKNEE_INLINE V signed_as(V size, V sign) {
  return V(float_of((bits_of(size.v) & 0x7fffffffu) | (bits_of(sign.v) & 0x80000000u)));
}
SOFTKNEE_INLINE V finite_where(M m, V a) {
  const V largest(0x1.fffffep+127f);
  return select(m, smaller(largest, larger(-largest, a)), a);
}
SOFTKNEE_INLINE V lookup(const float (&table)[16], V w) { return V(table[(bits_of(w.v) >> 21) & 15]); }
// 2ᵉ ≤ |a| < 2ᵉ⁺¹, for a > 0 of any size: subnormal numbers by way of normal ones
SOFTKNEE_INLINE V raised(V a, V& shift) {
  const M small = a < V(0x1p-126f);
  shift = only(small, V(-32.0f));
  return select(small, a * V(0x1p32f), a);
}
SOFTKNEE_INLINE V exponent(V a) {
  V shift;
  const V b = raised(a, shift);
  return V(static_cast<float>(static_cast<int>((bits_of(b.v) >> 23) & 0xff) - 127) + shift.v);
}
SOFTKNEE_INLINE V mantissa(V a) {
  V shift;
  const V b = raised(a, shift);
  return V(float_of((bits_of(b.v) & 0x007fffffu) | 0x3f800000u));
}

SOFTKNEE_INLINE float total(V a) { return a.v; }
SOFTKNEE_INLINE float highest(V a) { return a.v; }

SOFTKNEE_INLINE V load(const float* p) { return V(*p); }
SOFTKNEE_INLINE void store(float* p, V a) { *p = a.v; }
SOFTKNEE_INLINE V load(const bfloat* p) { return V(float_of(static_cast<uint32_t>(p->bits) << 16)); }
SOFTKNEE_INLINE void store(bfloat* p, V a) {
  // to nearest, ties to even; a NaN of bfloat16 stays one, since its low half is 0
  const uint32_t bits = bits_of(a.v);
  p->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
// What rounds to the nearest when the low half is dropped, ties away from 0; and the low half dropped.
SOFTKNEE_INLINE V plus_half(V a, bfloat) { return V(float_of(bits_of(a.v) + 0x8000u)); }
SOFTKNEE_INLINE V high_half(V a, bfloat) { return V(float_of(bits_of(a.v) & 0xffff0000u)); }
SOFTKNEE_INLINE V load(const half* p) {
  const uint32_t sign = (p->bits & 0x8000u) << 16, size = p->bits & 0x7fffu;
  // the exponent's bias 15 becomes 127; ∞ and NaN keep all ones; a subnormal is a whole number of 2⁻²⁴
  const float normal = float_of((size << 13) + (size >= 0x7c00u ? (224u << 23) : (112u << 23)));
  const float value = size < 0x0400u ? static_cast<float>(static_cast<int>(size)) * 0x1p-24f : normal;
  return V(float_of(bits_of(value) | sign));
}
SOFTKNEE_INLINE void store(half* p, V a) {
  const uint32_t bits = bits_of(a.v), size = bits & 0x7fffffffu;
  uint32_t h;
  if (size > 0x7f800000u) {
    h = 0x7e00u | ((size >> 13) & 0x3ffu);
  } else if (size >= 0x477ff000u) {  // halfway from the largest, 65504, to the next
    h = 0x7c00u;
  } else if (size < 0x38800000u) {  // below 2⁻¹⁴: to multiples of 2⁻²⁴, which is the last bit of numbers near ½
    h = bits_of(float_of(size) + 0.5f) - 0x3f000000u;
  } else {
    h = (size + 0xfffu + ((size >> 13) & 1u) - (112u << 23)) >> 13;
  }
  p->bits = static_cast<uint16_t>(h | ((bits >> 16) & 0x8000u));
}

// What a loop takes at once.
template <class T>
struct Block {
  static constexpr int vectors = 1;
  V v[1];
  SOFTKNEE_INLINE void load(const T* p) { v[0] = SOFTKNEE_ISA::load(p); }
  SOFTKNEE_INLINE void store(T* p) const { SOFTKNEE_ISA::store(p, v[0]); }
  SOFTKNEE_INLINE void store_high(T* p) const { SOFTKNEE_ISA::store(p, high_half(v[0], T())); }
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee

#include "simd_partial.h"
