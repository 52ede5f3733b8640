// Sixteen floats in an AVX-512 register (F, BW, DQ, VL). See simd_portable.h for what each operation means.
#pragma once

#include <immintrin.h>

namespace softknee {
namespace SOFTKNEE_ISA {

#define SOFTKNEE_INLINE inline __attribute__((always_inline))

constexpr int lanes = 16;

struct V {
  __m512 v;
  V() = default;
  SOFTKNEE_INLINE V(__m512 x) : v(x) {}
  SOFTKNEE_INLINE explicit V(float x) : v(_mm512_set1_ps(x)) {}
};
struct M {
  __mmask16 m;
};

SOFTKNEE_INLINE V operator+(V a, V b) { return _mm512_add_ps(a.v, b.v); }
SOFTKNEE_INLINE V operator-(V a, V b) { return _mm512_sub_ps(a.v, b.v); }
SOFTKNEE_INLINE V operator*(V a, V b) { return _mm512_mul_ps(a.v, b.v); }
SOFTKNEE_INLINE V operator/(V a, V b) { return _mm512_div_ps(a.v, b.v); }
SOFTKNEE_INLINE V operator-(V a) { return _mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f)); }
SOFTKNEE_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
SOFTKNEE_INLINE V fms(V a, V b, V c) { return _mm512_fmsub_ps(a.v, b.v, c.v); }
SOFTKNEE_INLINE V fnma(V a, V b, V c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }
SOFTKNEE_INLINE V fnms(V a, V b, V c) { return _mm512_fnmsub_ps(a.v, b.v, c.v); }
SOFTKNEE_INLINE V smaller(V a, V b) { return _mm512_min_ps(a.v, b.v); }
SOFTKNEE_INLINE V larger(V a, V b) { return _mm512_max_ps(a.v, b.v); }
SOFTKNEE_INLINE V sqrt(V a) { return _mm512_sqrt_ps(a.v); }
SOFTKNEE_INLINE V abs(V a) { return _mm512_abs_ps(a.v); }
SOFTKNEE_INLINE V round(V a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SOFTKNEE_INLINE V scale(V a, V n) { return _mm512_scalef_ps(a.v, n.v); }

SOFTKNEE_INLINE M operator<(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
SOFTKNEE_INLINE M operator<=(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
SOFTKNEE_INLINE M operator>(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
SOFTKNEE_INLINE M operator>=(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
SOFTKNEE_INLINE M not_less(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ)}; }
SOFTKNEE_INLINE M unordered(V a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
SOFTKNEE_INLINE M operator&(M a, M b) { return {static_cast<__mmask16>(a.m & b.m)}; }
SOFTKNEE_INLINE bool any(M a) { return a.m != 0; }
SOFTKNEE_INLINE M all() { return {0xffff}; }
SOFTKNEE_INLINE V select(M m, V a, V b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }
SOFTKNEE_INLINE V only(M m, V a) { return _mm512_maskz_mov_ps(m.m, a.v); }
SOFTKNEE_INLINE V add_where(M m, V a, V b) { return _mm512_mask_add_ps(a.v, m.m, a.v, b.v); }
SOFTKNEE_INLINE V sub_where(M m, V a, V b) { return _mm512_mask_sub_ps(a.v, m.m, a.v, b.v); }
SOFTKNEE_INLINE V sub_to(M m, V a, V b, V c) { return _mm512_mask_sub_ps(a.v, m.m, b.v, c.v); }
SOFTKNEE_INLINE V fma_where(M m, V a, V b, V c) { return _mm512_mask3_fmadd_ps(a.v, b.v, c.v, m.m); }
SOFTKNEE_INLINE V scale_where(M m, V a, V n) { return _mm512_maskz_scalef_ps(m.m, a.v, n.v); }
SOFTKNEE_INLINE V signed_as(V size, V sign) {
  // bitwise: sign of the one, the rest of the other
  const __m512i rest = _mm512_set1_epi32(0x7fffffff);
  return _mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(rest, _mm512_castps_si512(size.v), _mm512_castps_si512(sign.v), 0xCA));
}
SOFTKNEE_INLINE V finite_where(M m, V a) {
  // the table answers −∞ (class 4) and +∞ (class 5) with the finite numbers nearest to them, and keeps the rest
  return _mm512_mask_fixupimm_ps(a.v, m.m, a.v, _mm512_set1_epi32(0x00EF0000), 0);
}
SOFTKNEE_INLINE V lookup(const float (&table)[16], V w) {
  return _mm512_permutexvar_ps(_mm512_srli_epi32(_mm512_castps_si512(w.v), 21), _mm512_load_ps(table));
}
// 2ᵉ ≤ |a| < 2ᵉ⁺¹, for a > 0 of any size
SOFTKNEE_INLINE V exponent(V a) { return _mm512_getexp_ps(a.v); }
SOFTKNEE_INLINE V mantissa(V a) { return _mm512_getmant_ps(a.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src); }

SOFTKNEE_INLINE float total(V a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
SOFTKNEE_INLINE float highest(V a) { return _mm512_reduce_max_ps(a.v); }

SOFTKNEE_INLINE __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1u); }

SOFTKNEE_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
SOFTKNEE_INLINE V load(const float* p, int count) { return _mm512_maskz_loadu_ps(first(count), p); }
SOFTKNEE_INLINE void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
SOFTKNEE_INLINE void store(float* p, V a, int count) { _mm512_mask_storeu_ps(p, first(count), a.v); }

SOFTKNEE_INLINE V widened(__m256i bits, bfloat) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
SOFTKNEE_INLINE V widened(__m256i bits, half) { return _mm512_cvtph_ps(bits); }
// The nearest bfloat16, ties to even, in the high half; a NaN of bfloat16 stays one, since its low half is 0.
SOFTKNEE_INLINE __m512i rounded(V a) {
  const __m512i bits = _mm512_castps_si512(a.v), sum = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  return _mm512_mask_add_epi32(sum, odd, sum, _mm512_set1_epi32(1));
}
// What rounds to the nearest when the low half is dropped, ties away from 0; and the low half dropped.
SOFTKNEE_INLINE V plus_half(V a, bfloat) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x8000)));
}
SOFTKNEE_INLINE V high_half(V a, bfloat) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
SOFTKNEE_INLINE __m256i narrowed(V a, bfloat) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded(a), 16)); }
SOFTKNEE_INLINE __m256i narrowed(V a, half) {
  return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
template <class T>
SOFTKNEE_INLINE V load(const T* p) {
  return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), T());
}
template <class T>
SOFTKNEE_INLINE V load(const T* p, int count) {
  return widened(_mm256_maskz_loadu_epi16(first(count), p), T());
}
template <class T>
SOFTKNEE_INLINE void store(T* p, V a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrowed(a, T()));
}
template <class T>
SOFTKNEE_INLINE void store(T* p, V a, int count) {
  _mm256_mask_storeu_epi16(p, first(count), narrowed(a, T()));
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
    const __m512i words = _mm512_loadu_si512(reinterpret_cast<const __m512i*>(p));
    v[0] = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
    v[1] = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  SOFTKNEE_INLINE void store(bfloat* p) const {
    store(p, rounded(v[0]), rounded(v[1]));
  }
  SOFTKNEE_INLINE void store_high(bfloat* p) const {
    store(p, _mm512_castps_si512(v[0].v), _mm512_castps_si512(v[1].v));
  }
  static SOFTKNEE_INLINE void store(bfloat* p, __m512i even, __m512i odd) {
    const __m512i words = _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(even, 16), odd);
    _mm512_storeu_si512(reinterpret_cast<__m512i*>(p), words);
  }
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
