// Each unary primitive of math.h as a loop of its own, for the tests of its stated error. Included by kernels_body.h.
#pragma once

#define SOFTKNEE_PRIMITIVES                                          \
  SOFTKNEE_PRIMITIVE(exp, A::exp(x))                                 \
  SOFTKNEE_PRIMITIVE(expm1, A::expm1(x))                             \
  SOFTKNEE_PRIMITIVE(log, A::log(x))                                 \
  SOFTKNEE_PRIMITIVE(log1p, A::log1p(x))                             \
  SOFTKNEE_PRIMITIVE(sqrt, A::sqrt(x))                               \
  SOFTKNEE_PRIMITIVE(sin, A::sin(x))                                 \
  SOFTKNEE_PRIMITIVE(cos, A::cos(x))                                 \
  SOFTKNEE_PRIMITIVE(atan, A::atan(x))                               \
  SOFTKNEE_PRIMITIVE(tanh, A::tanh(x))                               \
  SOFTKNEE_PRIMITIVE(sech2, A::sech2_half(x + x))                    \
  SOFTKNEE_PRIMITIVE(sigmoid, A::sigmoid(x))                         \
  SOFTKNEE_PRIMITIVE(softplus, A::softplus(x))                       \
  SOFTKNEE_PRIMITIVE(erf, A::erf(x))                                 \
  SOFTKNEE_PRIMITIVE(erfc, A::erfc(x, A::product(A::wide(1.4142135623730951), x), A::product(-x, x))) \
  SOFTKNEE_PRIMITIVE(x_phi, A::x_phi(x))                             \
  SOFTKNEE_PRIMITIVE(x_phi_slope, A::x_phi_slope(x))                 \
  SOFTKNEE_PRIMITIVE(abs, A::abs(x))                                 \
  SOFTKNEE_PRIMITIVE(sign, A::sign(x))

namespace softknee {
namespace SOFTKNEE_ISA {

#define SOFTKNEE_PRIMITIVE(name, value)                                                        \
  struct name##_loop {                                                                         \
    template <class T>                                                                         \
    static void run(int64_t n, const void* const* inputs, void* const* outputs, const void*) { \
      using A = Math<T>;                                                                       \
      each<T, 1, 1>(n, inputs, outputs, [](const V* a, V* b) __attribute__((always_inline)) {  \
        const V x = a[0];                                                                      \
        b[0] = value;                                                                          \
      });                                                                                      \
    }                                                                                          \
  };
SOFTKNEE_PRIMITIVES
#undef SOFTKNEE_PRIMITIVE

static const Primitive primitives[] = {
#define SOFTKNEE_PRIMITIVE(name, value) \
  {#name, {name##_loop::run<float>, name##_loop::run<half>, name##_loop::run<bfloat>}},
    SOFTKNEE_PRIMITIVES
#undef SOFTKNEE_PRIMITIVE
    {nullptr, {}}};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
