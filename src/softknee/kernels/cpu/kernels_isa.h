// The body of each instruction set's translation unit: the loops in float32 and both halves, those of the normalizers,
// the primitives by themselves.
#include "kernels_body.h"
#include "slices.h"
#include "softmax.h"
#include "primitives.h"

#define SOFTKNEE_LOOPS(isa)                                            \
  const softknee::Loops* const softknee::loops_##isa[] = {             \
      softknee::isa::table<float>, softknee::isa::table<softknee::half>, softknee::isa::table<softknee::bfloat>}; \
  const softknee::Interleaving softknee::interleaving_##isa = softknee::isa::interleaving; \
  const softknee::SliceLoops* const softknee::normalizers_##isa = softknee::isa::normalizers; \
  const softknee::Primitive* const softknee::primitives_##isa = softknee::isa::primitives;
