// The loops over contiguous memory: one for each number of inputs and outputs. Whole vectors first, then one partial
// vector through the same arithmetic, so that a value does not depend on where it stands.
#pragma once

namespace softknee {
namespace SOFTKNEE_ISA {

template <class F, class T>
void forward1(int64_t n, const void* const* inputs, void* const* outputs, const float* __restrict uniforms) {
  const T* x = static_cast<const T*>(inputs[0]);
  T* y = static_cast<T*>(outputs[0]);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(y + i, F::template forward<Math<T>>(load(x + i), uniforms));
  if (const int rest = static_cast<int>(n - i)) {
    store(y + i, F::template forward<Math<T>>(load(x + i, rest), uniforms), rest);
  }
}

template <class F, class T>
void backward1(int64_t n, const void* const* inputs, void* const* outputs, const float* __restrict uniforms) {
  const T* grad = static_cast<const T*>(inputs[0]);
  const T* x = static_cast<const T*>(inputs[1]);
  T* y = static_cast<T*>(outputs[0]);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    store(y + i, F::template backward<Math<T>>(load(grad + i), load(x + i), uniforms));
  }
  if (const int rest = static_cast<int>(n - i)) {
    store(y + i, F::template backward<Math<T>>(load(grad + i, rest), load(x + i, rest), uniforms), rest);
  }
}

template <class F, class T>
void forward2(int64_t n, const void* const* inputs, void* const* outputs, const float* __restrict uniforms) {
  const T* gate = static_cast<const T*>(inputs[0]);
  const T* up = static_cast<const T*>(inputs[1]);
  T* y = static_cast<T*>(outputs[0]);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    store(y + i, F::template forward<Math<T>>(load(gate + i), load(up + i), uniforms));
  }
  if (const int rest = static_cast<int>(n - i)) {
    store(y + i, F::template forward<Math<T>>(load(gate + i, rest), load(up + i, rest), uniforms), rest);
  }
}

template <class F, class T>
void backward2(int64_t n, const void* const* inputs, void* const* outputs, const float* __restrict uniforms) {
  const T* grad = static_cast<const T*>(inputs[0]);
  const T* gate = static_cast<const T*>(inputs[1]);
  const T* up = static_cast<const T*>(inputs[2]);
  T* grad_gate = static_cast<T*>(outputs[0]);
  T* grad_up = static_cast<T*>(outputs[1]);
  V of_gate, of_up;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    F::template backward<Math<T>>(load(grad + i), load(gate + i), load(up + i), uniforms, of_gate, of_up);
    store(grad_gate + i, of_gate);
    store(grad_up + i, of_up);
  }
  if (const int rest = static_cast<int>(n - i)) {
    F::template backward<Math<T>>(
        load(grad + i, rest), load(gate + i, rest), load(up + i, rest), uniforms, of_gate, of_up);
    store(grad_gate + i, of_gate, rest);
    store(grad_up + i, of_up, rest);
  }
}

template <class F>
struct Unary {
  static constexpr Loops loops = {
      {forward1<F, float>, forward1<F, half>, forward1<F, bfloat>},
      {backward1<F, float>, backward1<F, half>, backward1<F, bfloat>}};
};

template <class F>
struct Gated {
  static constexpr Loops loops = {
      {forward2<F, float>, forward2<F, half>, forward2<F, bfloat>},
      {backward2<F, float>, backward2<F, half>, backward2<F, bfloat>}};
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
