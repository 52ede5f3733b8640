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

// How results become bfloat16. A tie of float32's is a tie of the true value only where that is rational: elsewhere it
// lies on either side, and away from 0 is as right as to even, at a third of the operations. none: it is one already.
enum class Rounding { even, away, none };

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

// A primitive of math.h by itself.
struct Primitive {
  const char* name;  // null after the last
  Loop* loops[floats];
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

// Two interleaved sequences of n elements each, apart or together; by the size of an element, 2 << i bytes.
struct Interleaving {
  void (*split[3])(int64_t n, const void* from, void* even, void* odd);
  void (*join[3])(int64_t n, const void* even, const void* odd, void* to);
};
extern const Interleaving interleaving_avx512;
extern const Interleaving interleaving_avx2;
extern const Interleaving interleaving_portable;

// By kind, and by the activation's index in parameters.h.
extern const Loops* const loops_avx512[floats];
extern const Loops* const loops_avx2[floats];
extern const Loops* const loops_portable[floats];
extern const Loops* const loops_double;

extern const Primitive* const primitives_avx512;
extern const Primitive* const primitives_avx2;
extern const Primitive* const primitives_portable;

}  // namespace softknee
