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
  static constexpr Loops loops = {forward, backward, nullptr, nullptr, nullptr};
};

// The uniforms of `lanes` elements of a Table.
struct Lanes {
  const real* at;
  int64_t stride;
  SOFTKNEE_INLINE V operator[](int k) const { return load(at + k * stride); }
};
struct FewLanes {
  const real* at;
  int64_t stride;
  int count;
  SOFTKNEE_INLINE V operator[](int k) const { return load(at + k * stride, count); }
};

template <class F, class T>
struct Learned : Unary<F, T> {
  using A = Math<T>;
  static constexpr int learned = F::learned;

  static void sums(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const real* __restrict u = static_cast<const real*>(uniforms);
    const T *grad = static_cast<const T*>(inputs[0]), *x = static_cast<const T*>(inputs[1]);
    T* to = static_cast<T*>(outputs[0]);
    V total[ways / lanes][learned];
    for (auto& each : total) {
      for (V& sum : each) sum = V(0.0);
    }
    int64_t i = 0;
    for (; i + ways <= n; i += ways) {
#pragma GCC unroll 2
      for (int j = 0; j < ways / lanes; ++j) {
        const int64_t at = i + j * lanes;
        V of[1 + learned];
        F::template gradients<A>(load(grad + at), load(x + at), u, of);
        store(to + at, of[0]);
#pragma GCC unroll 4
        for (int k = 0; k < learned; ++k) total[j][k] = total[j][k] + of[1 + k];
      }
    }
    for (int j = 0; i < n; i += lanes, ++j) {
      const int count = n - i < lanes ? static_cast<int>(n - i) : lanes;
      V of[1 + learned];
      F::template gradients<A>(load(grad + i, count), load(x + i, count), u, of);
      store(to + i, of[0], count);
      // lanes that are not there hold 0, whose product with a gradient of 0 is no more
      for (int k = 0; k < learned; ++k) total[j][k] = total[j][k] + of[1 + k];
    }
    for (int j = 0; j < ways / lanes; ++j) {
      for (int k = 0; k < learned; ++k) store(static_cast<real*>(outputs[1 + k]) + j * lanes, total[j][k]);
    }
  }

  static void forwards(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const Table& table = *static_cast<const Table*>(uniforms);
    const real* u = static_cast<const real*>(table.values);
    const T* x = static_cast<const T*>(inputs[0]);
    T* to = static_cast<T*>(outputs[0]);
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      store(to + i, F::template forward<A>(load(x + i), Lanes{u + i, table.stride}));
    }
    if (i < n) {
      const int count = static_cast<int>(n - i);
      store(to + i, F::template forward<A>(load(x + i, count), FewLanes{u + i, table.stride, count}), count);
    }
  }

  static void gradients(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const Table& table = *static_cast<const Table*>(uniforms);
    const real* u = static_cast<const real*>(table.values);
    const T *grad = static_cast<const T*>(inputs[0]), *x = static_cast<const T*>(inputs[1]);
    T* to = static_cast<T*>(outputs[0]);
    V of[1 + learned];
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      F::template gradients<A>(load(grad + i), load(x + i), Lanes{u + i, table.stride}, of);
      store(to + i, of[0]);
#pragma GCC unroll 4
      for (int k = 0; k < learned; ++k) {
        real* sum = static_cast<real*>(outputs[1 + k]) + i;
        store(sum, load(sum) + of[1 + k]);
      }
    }
    if (i < n) {
      const int count = static_cast<int>(n - i);
      F::template gradients<A>(load(grad + i, count), load(x + i, count), FewLanes{u + i, table.stride, count}, of);
      store(to + i, of[0], count);
      for (int k = 0; k < learned; ++k) {
        real* sum = static_cast<real*>(outputs[1 + k]) + i;
        store(sum, load(sum, count) + of[1 + k], count);
      }
    }
  }
  static constexpr Loops loops = {Unary<F, T>::forward, Unary<F, T>::backward, sums, forwards, gradients};
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
  static constexpr Loops loops = {forward, backward, nullptr, nullptr, nullptr};
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
