// What a set of compiled loops offers to the library that calls them. Plain C types only: this header is also seen by
// the translation units that are compiled for wider instructions.
#pragma once

#include <stdint.h>

namespace softknee {

struct half {
  uint16_t bits;
};
struct bfloat {
  uint16_t bits;
};

enum Kind { float32, float16, bfloat16, float64 };  // the first three in the order of the tables below
constexpr int floats = 3;

// n elements of contiguous inputs to contiguous outputs, which may be the same memory. uniforms: what depends on the
// parameters alone, see activations.h; doubles for float64, else floats.
typedef void Loop(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms);

// Uniforms that differ from element to element: the k-th of element i at values[k·stride + i].
struct Table {
  const void* values;
  int64_t stride;
};

struct Loops {
  Loop* forward;   // inputs x, or gate and up
  Loop* backward;  // inputs grad, x → grad·f′; or grad, gate, up → both
  // Where parameters are learned, else null. Further outputs are of the uniforms' type, one per learned parameter:
  Loop* sums;       // grad, x → grad·f′, and `ways` sums each of grad·∂f/∂parameter, element i in sum i % ways
  Loop* forwards;   // uniforms: a Table
  Loop* gradients;  // uniforms: a Table; grad, x → grad·f′, and per element grad·∂f/∂parameter, added to what is there
};
constexpr int ways = 16;  // so that no sum depends on the vectors' width

// By kind, and by the activation's index in parameters.h.
extern const Loops* const loops_avx512[floats];
extern const Loops* const loops_avx2[floats];
extern const Loops* const loops_portable[floats];
extern const Loops* const loops_double;

}  // namespace softknee
