// What the compiled loops of the normalizers offer to softmax.cpp. Plain C types only, as in kernels.h.
#pragma once

#include "kernels.h"

namespace softknee {

// What the loops need of T. unit: the power of two that brings T to T′ = T·unit in [1, 2), as far as one can.
// T′·r, not r, is what the loops have at hand: the division by T is in the coefficients.
struct Temperature {
  float unit;
  float least;         // −200·T′: exp is 0 from there on
  float inverse;       // log₂e/T′
  float period, rest;  // T′·ln 2 as a float and what that leaves
  float reciprocal;    // 1/T′
  float exp_full[7];   // of (r·T′)ᵏ in eʳ: for float32
  float exp_half[6];   // for bfloat16 too, whose own error would add up in the sum
  float slope;         // 1/T
  double slope_wide;
};

// Rows that are computed at once: one whose elements lie side by side (columns = 0), or that many side by side, whose
// elements are `stride` apart.
struct Slice {
  int64_t size;  // of a row
  int64_t columns;
  const void* inputs[2];
  int64_t strides[2];
  void* output;
  int64_t output_stride;
  const Temperature* temperature;
  float* room;
  int64_t room_size;
  double* slopes;  // ∂/∂T of each row, where it is wanted
};
typedef void SliceLoop(const Slice*);

struct SliceLoops {
  SliceLoop* forward[floats];   // inputs x
  SliceLoop* backward[floats];  // inputs grad, y
};

enum { softmax, log_softmax };  // in the order of these
extern const SliceLoops* const normalizers_avx512;
extern const SliceLoops* const normalizers_avx2;
extern const SliceLoops* const normalizers_portable;

}  // namespace softknee
