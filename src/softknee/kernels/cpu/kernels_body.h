// The body of each ISA's translation unit, which defines SOFTKNEE_ISA and includes its simd header first.
#include "math.h"
#include "loops.h"
#include "activations.h"
#include "slices.h"
#include "softmax.h"
#include "primitives.h"

namespace softknee {
namespace SOFTKNEE_ISA {

static const Loops table[] = {
#define SOFTKNEE_UNARY(name) Unary<activations::name>::loops,
#define SOFTKNEE_GATED(name) Gated<activations::name>::loops,
    SOFTKNEE_ACTIVATIONS
#undef SOFTKNEE_UNARY
#undef SOFTKNEE_GATED
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
