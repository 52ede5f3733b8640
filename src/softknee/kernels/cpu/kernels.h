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

enum Kind { float32, float16, bfloat16 };  // in the order of the tables below
constexpr int kinds = 3;

// n elements of contiguous inputs to contiguous outputs, which may be the same memory. uniforms: what depends on the
// parameters alone, see activations.h.
typedef void Loop(int64_t n, const void* const* inputs, void* const* outputs, const float* uniforms);

struct Loops {
  Loop* forward[kinds];   // inputs x, or gate and up
  Loop* backward[kinds];  // inputs grad, x → grad·f′; or grad, gate, up → both
};

// A primitive of math.h by itself.
struct Primitive {
  const char* name;  // null after the last
  Loop* loops[kinds];
};

// By the activation's index in parameters.h.
extern const Loops* const loops_avx512;
extern const Loops* const loops_avx2;
extern const Loops* const loops_portable;

extern const Primitive* const primitives_avx512;
extern const Primitive* const primitives_avx2;
extern const Primitive* const primitives_portable;

}  // namespace softknee
