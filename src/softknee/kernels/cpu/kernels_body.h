// The body of each translation unit of loops, which defines SOFTKNEE_ISA and includes its vectors and their Math first.
#include "loops.h"
#include "activations.h"

namespace softknee {
namespace SOFTKNEE_ISA {

template <class T>
static constexpr Loops table[] = {
#define SOFTKNEE_UNARY(name) Unary<activations::name, T>::loops,
#define SOFTKNEE_GATED(name) Gated<activations::name, T>::loops,
#define SOFTKNEE_LEARNED(name) Learned<activations::name, T>::loops,
    SOFTKNEE_ACTIVATIONS
#undef SOFTKNEE_LEARNED
#undef SOFTKNEE_UNARY
#undef SOFTKNEE_GATED
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee

#define SOFTKNEE_LOOPS(isa)                                            \
  const softknee::Loops* const softknee::loops_##isa[] = {             \
      softknee::isa::table<float>, softknee::isa::table<softknee::half>, softknee::isa::table<softknee::bfloat>};
