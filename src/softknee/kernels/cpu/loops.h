// The loop over contiguous memory. Whole blocks first, then vectors of which the last may be partial, through the same
// arithmetic, so that a value does not depend on where it stands.
#pragma once

namespace softknee {
namespace SOFTKNEE_ISA {

// Loops without arithmetic, which the compiler turns into permutations of vectors: 3 to 8 times as fast as one by one.
#if defined(__GNUC__) && !defined(__clang__)
#define SOFTKNEE_VECTORIZED __attribute__((optimize("O3")))
#else
#define SOFTKNEE_VECTORIZED
#endif
template <class E>
SOFTKNEE_VECTORIZED static void split(int64_t n, const void* from, void* even, void* odd) {
  const E* __restrict p = static_cast<const E*>(from);
  E *__restrict a = static_cast<E*>(even), *__restrict b = static_cast<E*>(odd);
  for (int64_t i = 0; i < n; ++i) {
    a[i] = p[2 * i];
    b[i] = p[2 * i + 1];
  }
}
template <class E>
SOFTKNEE_VECTORIZED static void join(int64_t n, const void* even, const void* odd, void* to) {
  const E *__restrict a = static_cast<const E*>(even), *__restrict b = static_cast<const E*>(odd);
  E* __restrict p = static_cast<E*>(to);
  for (int64_t i = 0; i < n; ++i) {
    p[2 * i] = a[i];
    p[2 * i + 1] = b[i];
  }
}
constexpr Interleaving interleaving = {{split<uint16_t>, split<uint32_t>, split<uint64_t>},
                                       {join<uint16_t>, join<uint32_t>, join<uint64_t>}};

template <class T>
constexpr bool is_bfloat = false;
template <>
constexpr bool is_bfloat<bfloat> = true;

// function(const V* inputs, V* outputs)
template <class T, int reads, int writes, Rounding asked = Rounding::even, class F>
SOFTKNEE_INLINE void each(int64_t n, const void* const* inputs, void* const* outputs, F function) {
  const T* from[reads];
  T* to[writes];
#pragma GCC unroll 4
  for (int r = 0; r < reads; ++r) from[r] = static_cast<const T*>(inputs[r]);
#pragma GCC unroll 4
  for (int w = 0; w < writes; ++w) to[w] = static_cast<T*>(outputs[w]);
  constexpr Rounding rounding = is_bfloat<T> ? asked : Rounding::even;
  constexpr int vectors = Block<T>::vectors, step = vectors * lanes;
  const int64_t blocks = n / step;
  // The processor takes a load for one of what it is about to store where their addresses are equal modulo 4096, and
  // waits: half as long again for an output that begins 64 bytes after an input, as one allocation after another may.
  // From the end to the beginning it is not so.
  bool after = false, before = false;
#pragma GCC unroll 4
  for (int r = 0; r < reads; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < writes; ++w) {
      const auto apart = (reinterpret_cast<uintptr_t>(to[w]) - reinterpret_cast<uintptr_t>(from[r])) % 4096;
      after |= apart > 0 && apart <= 256;
      before |= apart >= 4096 - 256;
    }
  }
  const bool down = after && !before;
  int64_t i = down ? (blocks - 1) * step : 0;
  for (int64_t left = blocks; left > 0; --left, i += down ? -step : step) {
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
      for (int w = 0; w < writes; ++w) {
        if constexpr (rounding == Rounding::away) b[w] = plus_half(b[w], T());
        out[w].v[k] = b[w];
      }
    }
#pragma GCC unroll 4
    for (int w = 0; w < writes; ++w) {
      if constexpr (rounding == Rounding::even) {
        out[w].store(to[w] + i);
      } else {
        out[w].store_high(to[w] + i);
      }
    }
  }
  i = blocks * step;
  for (; i < n; i += lanes) {
    const int count = n - i < lanes ? static_cast<int>(n - i) : lanes;
    V a[reads], b[writes];
#pragma GCC unroll 4
    for (int r = 0; r < reads; ++r) a[r] = load(from[r] + i, count);
    function(a, b);
#pragma GCC unroll 4
    for (int w = 0; w < writes; ++w) {
      if constexpr (rounding == Rounding::away) b[w] = high_half(plus_half(b[w], T()), T());
      store(to[w] + i, b[w], count);
    }
  }
}

template <class F, class T>
struct Unary {
  static void forward(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const real* __restrict u = static_cast<const real*>(uniforms);
    each<T, 1, 1, F::rounding_forward>(n, inputs, outputs, [u](const V* a, V* b) __attribute__((always_inline)) {
      b[0] = F::template forward<Math<T>>(a[0], u);
    });
  }
  static void backward(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const real* __restrict u = static_cast<const real*>(uniforms);
    each<T, 2, 1, F::rounding_backward>(n, inputs, outputs, [u](const V* a, V* b) __attribute__((always_inline)) {
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
    each<T, 2, 1, F::rounding_forward>(n, inputs, outputs, [u](const V* a, V* b) __attribute__((always_inline)) {
      b[0] = F::template forward<Math<T>>(a[0], a[1], u);
    });
  }
  static void backward(int64_t n, const void* const* inputs, void* const* outputs, const void* uniforms) {
    const real* __restrict u = static_cast<const real*>(uniforms);
    each<T, 3, 2, F::rounding_backward>(n, inputs, outputs, [u](const V* a, V* b) __attribute__((always_inline)) {
      F::template backward<Math<T>>(a[0], a[1], a[2], u, b[0], b[1]);
    });
  }
  static constexpr Loops loops = {forward, backward, nullptr, nullptr, nullptr};
};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
