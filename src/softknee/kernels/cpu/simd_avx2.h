// Eight floats in an AVX register, with AVX2, FMA and F16C. See simd_portable.h for what each operation means.
#pragma once

#include <immintrin.h>

namespace softknee {
namespace SOFTKNEE_ISA {

#define SOFTKNEE_INLINE inline __attribute__((always_inline))

constexpr int lanes = 8;

struct V {
  __m256 v;
  V() = default;
  SOFTKNEE_INLINE V(__m256 x) : v(x) {}
  SOFTKNEE_INLINE explicit V(float x) : v(_mm256_set1_ps(x)) {}
};
struct M {
  __m256 m;
};

SOFTKNEE_INLINE V operator+(V a, V b) { return _mm256_add_ps(a.v, b.v); }
SOFTKNEE_INLINE V operator-(V a, V b) { return _mm256_sub_ps(a.v, b.v); }
SOFTKNEE_INLINE V operator*(V a, V b) { return _mm256_mul_ps(a.v, b.v); }
SOFTKNEE_INLINE V operator/(V a, V b) { return _mm256_div_ps(a.v, b.v); }
SOFTKNEE_INLINE V operator-(V a) { return _mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f)); }
SOFTKNEE_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
SOFTKNEE_INLINE V fms(V a, V b, V c) { return _mm256_fmsub_ps(a.v, b.v, c.v); }
SOFTKNEE_INLINE V fnma(V a, V b, V c) { return _mm256_fnmadd_ps(a.v, b.v, c.v); }
SOFTKNEE_INLINE V fnms(V a, V b, V c) { return _mm256_fnmsub_ps(a.v, b.v, c.v); }
SOFTKNEE_INLINE V smaller(V a, V b) { return _mm256_min_ps(a.v, b.v); }
SOFTKNEE_INLINE V larger(V a, V b) { return _mm256_max_ps(a.v, b.v); }
SOFTKNEE_INLINE V sqrt(V a) { return _mm256_sqrt_ps(a.v); }
SOFTKNEE_INLINE V abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v); }
SOFTKNEE_INLINE V round(V a) { return _mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// 2ⁿ in two factors, normal numbers but for n < −252, where they are 0
SOFTKNEE_INLINE V scale(V a, V n) {
  const __m256i most = _mm256_set1_epi32(254), least = _mm256_set1_epi32(-254), bias = _mm256_set1_epi32(127);
  const __m256i whole = _mm256_max_epi32(least, _mm256_min_epi32(most, _mm256_cvtps_epi32(n.v)));
  const __m256i part = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, part);
  const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(part, bias), 23));
  const __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(a.v, first), second);
}

SOFTKNEE_INLINE M operator<(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
SOFTKNEE_INLINE M operator<=(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
SOFTKNEE_INLINE M operator>(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
SOFTKNEE_INLINE M operator>=(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
SOFTKNEE_INLINE M not_less(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NLT_UQ)}; }
SOFTKNEE_INLINE M unordered(V a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
SOFTKNEE_INLINE M operator&(M a, M b) { return {_mm256_and_ps(a.m, b.m)}; }
SOFTKNEE_INLINE bool any(M a) { return _mm256_movemask_ps(a.m) != 0; }
SOFTKNEE_INLINE M all() { return {_mm256_castsi256_ps(_mm256_set1_epi32(-1))}; }
SOFTKNEE_INLINE V select(M m, V a, V b) { return _mm256_blendv_ps(b.v, a.v, m.m); }
SOFTKNEE_INLINE V only(M m, V a) { return _mm256_and_ps(m.m, a.v); }
SOFTKNEE_INLINE V add_where(M m, V a, V b) { return a + only(m, b); }
SOFTKNEE_INLINE V sub_where(M m, V a, V b) { return a - only(m, b); }
SOFTKNEE_INLINE V sub_to(M m, V a, V b, V c) { return select(m, b - c, a); }
SOFTKNEE_INLINE V fma_where(M m, V a, V b, V c) { return select(m, fma(a, b, c), c); }
SOFTKNEE_INLINE V scale_where(M m, V a, V n) { return only(m, scale(a, n)); }
SOFTKNEE_INLINE V signed_as(V size, V sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(bit, size.v), _mm256_and_ps(bit, sign.v));
}
SOFTKNEE_INLINE V finite_where(M m, V a) {
  const V largest(0x1.fffffep+127f);
  return select(m, smaller(largest, larger(-largest, a)), a);
}
SOFTKNEE_INLINE V lookup(const float (&table)[16], V w) {
  // eight of each half, then the half by bit 24, which a blend wants in bit 31
  const __m256i number = _mm256_srli_epi32(_mm256_castps_si256(w.v), 21);
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), number);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), number);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(w.v), 7)));
}
// 2ᵉ ≤ |a| < 2ᵉ⁺¹, for a > 0 of any size: subnormal numbers by way of normal ones
SOFTKNEE_INLINE V raised(V a, V& shift) {
  const M small = a < V(0x1p-126f);
  shift = only(small, V(-32.0f));
  return select(small, a * V(0x1p32f), a);
}
SOFTKNEE_INLINE V exponent(V a) {
  V shift;
  const __m256i bits = _mm256_castps_si256(raised(a, shift).v);
  const __m256i biased = _mm256_srli_epi32(_mm256_slli_epi32(bits, 1), 24);
  return V(_mm256_cvtepi32_ps(_mm256_sub_epi32(biased, _mm256_set1_epi32(127)))) + shift;
}
SOFTKNEE_INLINE V mantissa(V a) {
  V shift;
  const __m256 digits = _mm256_and_ps(raised(a, shift).v, _mm256_castsi256_ps(_mm256_set1_epi32(0x007fffff)));
  return _mm256_or_ps(digits, _mm256_set1_ps(1.0f));
}

SOFTKNEE_INLINE float total(V a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
SOFTKNEE_INLINE float highest(V a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

SOFTKNEE_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
SOFTKNEE_INLINE void store(float* p, V a) { _mm256_storeu_ps(p, a.v); }
SOFTKNEE_INLINE V load(const bfloat* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
// The nearest bfloat16, ties to even, in the high half; a NaN of bfloat16 stays one, since its low half is 0.
SOFTKNEE_INLINE __m256i rounded(V a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), even);
}
// What rounds to the nearest when the low half is dropped, ties away from 0; and the low half dropped.
SOFTKNEE_INLINE V plus_half(V a, bfloat) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v), _mm256_set1_epi32(0x8000)));
}
SOFTKNEE_INLINE V high_half(V a, bfloat) {
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(a.v), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
SOFTKNEE_INLINE void store(bfloat* p, V a) {
  const __m256i high = _mm256_srli_epi32(rounded(a), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0xD8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
SOFTKNEE_INLINE V load(const half* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
SOFTKNEE_INLINE void store(half* p, V a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

// What a loop takes at once.
template <class T>
struct Block {
  static constexpr int vectors = 1;
  V v[1];
  SOFTKNEE_INLINE void load(const T* p) { v[0] = SOFTKNEE_ISA::load(p); }
  SOFTKNEE_INLINE void store(T* p) const { SOFTKNEE_ISA::store(p, v[0]); }
};
// Two vectors of bfloat16 at once: the even elements and the odd ones, which lie in the halves of 32-bit words, so that
// nothing has to cross lanes.
template <>
struct Block<bfloat> {
  static constexpr int vectors = 2;
  V v[2];
  SOFTKNEE_INLINE void load(const bfloat* p) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    v[0] = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
    v[1] = _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  SOFTKNEE_INLINE void store(bfloat* p) const {
    store(p, rounded(v[0]), rounded(v[1]));
  }
  SOFTKNEE_INLINE void store_high(bfloat* p) const {
    store(p, _mm256_castps_si256(v[0].v), _mm256_castps_si256(v[1].v));
  }
  static SOFTKNEE_INLINE void store(bfloat* p, __m256i even, __m256i odd) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xAA));
  }
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee

#include "simd_partial.h"
