// The loop over contiguous memory. Whole blocks first, then vectors of which the last may be partial, through the same
// arithmetic, so that a value does not depend on where it stands.
#pragma once

namespace softknee {
namespace SOFTKNEE_ISA {

// function(const V* inputs, V* outputs)
template <class T, int reads, int writes, class F>
SOFTKNEE_INLINE void each(int64_t n, const void* const* inputs, void* const* outputs, F function) {
  const T* from[reads];
  T* to[writes];
#pragma GCC unroll 4
  for (int r = 0; r < reads; ++r) from[r] = static_cast<const T*>(inputs[r]);
#pragma GCC unroll 4
  for (int w = 0; w < writes; ++w) to[w] = static_cast<T*>(outputs[w]);
  constexpr int vectors = Block<T>::vectors;
  int64_t i = 0;
  for (; i + vectors * lanes <= n; i += vectors * lanes) {
    Block<T> in[reads], out[writes];
#pragma GCC unroll 4
    for (int r = 0; r < reads; ++r) in[r].load(from[r] + i);
#pragma GCC unroll 4
    for (int k = 0; k < vectors; ++k) {
      V a[reads], b[writes];
#pragma GCC unroll 4
      for (int r = 0; r < reads; ++r) a[r] = in[r].v[k];
      function(a, b);
#pragma GCC unroll 4
      for (int w = 0; w < writes; ++w) out[w].v[k] = b[w];
    }
#pragma GCC unroll 4
    for (int w = 0; w < writes; ++w) out[w].store(to[w] + i);
  }
  for (; i < n; i += lanes) {
    const int count = n - i < lanes ? static_cast<int>(n - i) : lanes;
    V a[reads], b[writes];
#pragma GCC unroll 4
    for (int r = 0; r < reads; ++r) a[r] = load(from[r] + i, count);
    function(a, b);
#pragma GCC unroll 4
    for (int w = 0; w < writes; ++w) store(to[w] + i, b[w], count);
  }
}

template <class F, class T>
struct Unary {
  static void forward(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const real* __restrict u = static_cast<const real*>(uniforms);
    each<T, 1, 1>(n, inputs, outputs, [u](const V* a, V* b) __attribute__((always_inline)) {
      b[0] = F::template forward<Math<T>>(a[0], u);
    });
  }
  static void backward(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const real* __restrict u = static_cast<const real*>(uniforms);
    each<T, 2, 1>(n, inputs, outputs, [u](const V* a, V* b) __attribute__((always_inline)) {
      b[0] = F::template backward<Math<T>>(a[0], a[1], u);
    });
  }
  static constexpr Loops loops = {forward, backward};
};

template <class F, class T>
struct Gated {
  static void forward(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const real* __restrict u = static_cast<const real*>(uniforms);
    each<T, 2, 1>(n, inputs, outputs, [u](const V* a, V* b) __attribute__((always_inline)) {
      b[0] = F::template forward<Math<T>>(a[0], a[1], u);
    });
  }
  static void backward(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const real* __restrict u = static_cast<const real*>(uniforms);
    each<T, 3, 2>(n, inputs, outputs, [u](const V* a, V* b) __attribute__((always_inline)) {
      F::template backward<Math<T>>(a[0], a[1], a[2], u, b[0], b[1]);
    });
  }
  static constexpr Loops loops = {forward, backward};
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
