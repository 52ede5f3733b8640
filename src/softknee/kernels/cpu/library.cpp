// The operators `torch.ops.softknee.*`: arguments, memory and threads around the loops of kernels.h. Stable ABI only,
// so that one build runs on every torch from 2.10 on.
//
//   softknee::silu(Tensor x) -> Tensor                          a parameter is a float after the inputs
//   softknee::silu.out(Tensor x, *, Tensor(a!) out) -> ()
//   softknee::silu_backward(Tensor grad, Tensor x) -> Tensor
//   softknee::swiglu(Tensor gate, Tensor up) -> Tensor
//   softknee::swiglu_backward(Tensor grad, Tensor gate, Tensor up) -> (Tensor, Tensor)
//   softknee::swiglu_backward.out(Tensor grad, Tensor gate, Tensor up, *, Tensor(a!) of_gate, Tensor(b!) of_up) -> ()
//   softknee::prelu_learned(Tensor x, Tensor weight) -> Tensor  a parameter that modules learn is a tensor
//   softknee::prelu_learned_backward(Tensor grad, Tensor x, Tensor weight) -> (Tensor, Tensor)
//
// Autograd does not see through them: called with a tensor whose gradient it would lose, each raises. The overloads
// `silu.own`, `silu.own_out` and so on do not ask; they are for softknee's calls, which have an autograd.Function around
// them. A profile names both by the operator.
//
// Inputs: one dtype of float64, float32, float16 and bfloat16, any strides, broadcast with each other. Operators are registered
// one activation at a time, by `softknee_register`, since all of them would add a tenth of a second to the import.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "kernels.h"

namespace softknee {

struct Entry {
  const char* name;
  int inputs;
  int parameters;
  const char* declared;
  int size;  // of the uniforms
  void (*floats)(const double* parameters, float* uniforms);
  void (*doubles)(const double* parameters, double* uniforms);
  int learned;  // a bit for each parameter that may be a tensor
  const char* tensors;
};

namespace parameters {

// A double as a float and what that leaves, or rounded in one direction.
static void value(double x, float* u) {
  u[0] = static_cast<float>(x);
  u[1] = std::isfinite(u[0]) ? static_cast<float>(x - u[0]) : 0.0f;
}
static void up(double x, float* u) {
  u[0] = static_cast<float>(x);
  if (u[0] < x) u[0] = std::nextafter(u[0], INFINITY);
}
static void down(double x, float* u) {
  u[0] = static_cast<float>(x);
  if (u[0] > x) u[0] = std::nextafter(u[0], -INFINITY);
}

static void value(double x, double* u) {
  u[0] = x;
  u[1] = 0.0;
}
static void up(double x, double* u) { u[0] = x; }
static void down(double x, double* u) { u[0] = x; }

// The primitives of the op table on numbers.
using std::abs;
using std::atan;
using std::cos;
using std::erf;
using std::erfc;
using std::exp;
using std::expm1;
using std::log;
using std::log1p;
using std::sin;
using std::sqrt;
using std::tanh;
[[maybe_unused]] static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
[[maybe_unused]] static double softplus(double x) { return (x > 0.0 ? x : 0.0) + log1p(exp(-abs(x))); }
[[maybe_unused]] static double sech2(double x) { return 1.0 / (cosh(x) * cosh(x)); }
[[maybe_unused]] static double maximum(double a, double b) { return a > b ? a : b; }
[[maybe_unused]] static double minimum(double a, double b) { return a < b ? a : b; }

}  // namespace parameters
}  // namespace softknee

#include "parameters.h"

namespace softknee {

using torch::stable::Tensor;
using torch::stable::detail::StableLibrary;

// --- which instructions ---------------------------------------------------------------------------------------------

struct Isa {
  const char* name;
  const Loops* const* loops;
  const Interleaving* interleaving;
  bool runs;
};

static const std::array<Isa, 3>& isas() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  static const std::array<Isa, 3> known{
      {{"avx512", loops_avx512, &interleaving_avx512, avx512},
       {"avx2", loops_avx2, &interleaving_avx2, avx2},
       {"portable", loops_portable, &interleaving_portable, true}}};
#else
  static const std::array<Isa, 3> known{
      {{"avx512", nullptr, nullptr, false},
       {"avx2", nullptr, nullptr, false},
       {"portable", loops_portable, &interleaving_portable, true}}};
#endif
  return known;
}

static const Isa& isa() {
  static const Isa& chosen = [&]() -> const Isa& {
    const char* wanted = std::getenv("SOFTKNEE_ISA");
    const bool any = wanted == nullptr || *wanted == '\0';
    for (const Isa& each : isas()) {
      if (each.runs && (any || std::strcmp(wanted, each.name) == 0)) return each;
    }
    return isas().back();  // what the Python side reports as an error
  }();
  return chosen;
}

// --- tensors as rows ------------------------------------------------------------------------------------------------

constexpr int64_t grain = 16384;  // elements for which another thread is worth waking
constexpr int most = 3;           // tensors that a loop reads
constexpr int all = most + 2;     // and writes

static int kind_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return float32;
    case torch::headeronly::ScalarType::Half:
      return float16;
    case torch::headeronly::ScalarType::BFloat16:
      return bfloat16;
    case torch::headeronly::ScalarType::Double:
      return float64;
    default:
      return -1;
  }
}
static int kind_of(int32_t dtype) {
  if (dtype == aoti_torch_dtype_float32()) return float32;
  if (dtype == aoti_torch_dtype_bfloat16()) return bfloat16;
  if (dtype == aoti_torch_dtype_float16()) return float16;
  return dtype == aoti_torch_dtype_float64() ? float64 : -1;
}

// The tensors' common shape, as few dimensions as their strides allow, largest strides of the output first.
struct Walk {
  int tensors = 0;
  int written = 0;        // how many of the tensors, the last ones, are outputs with strides of their own; else the
  int64_t elements = 1;   // outputs are dense in this order
  std::vector<int64_t> sizes;
  std::vector<std::array<int64_t, all>> strides;  // per dimension, of each tensor
};

static std::vector<int64_t> broadcast(const Tensor* const* inputs, int count) {
  std::vector<int64_t> shape;
  for (int t = 0; t < count; ++t) {
    const auto sizes = inputs[t]->sizes();
    if (sizes.size() > shape.size()) shape.insert(shape.begin(), sizes.size() - shape.size(), 1);
    for (size_t d = 0; d < sizes.size(); ++d) {
      int64_t& size = shape[shape.size() - sizes.size() + d];
      STD_TORCH_CHECK(size == sizes[d] || size == 1 || sizes[d] == 1, "softknee: the inputs' shapes do not broadcast");
      if (size == 1) size = sizes[d];
    }
  }
  return shape;
}

static int64_t stride_of(const Tensor& x, size_t dimension, size_t dimensions) {
  const size_t missing = dimensions - static_cast<size_t>(x.dim());
  if (dimension < missing || x.size(dimension - missing) == 1) return 0;
  return x.stride(dimension - missing);
}

// The dimensions from the largest stride of `model` to the smallest; what is broadcast keeps its place.
static std::vector<size_t> order_of(const Tensor& model, const std::vector<int64_t>& shape) {
  std::vector<size_t> order(shape.size());
  for (size_t d = 0; d < order.size(); ++d) order[d] = d;
  std::vector<int64_t> strides(shape.size());
  for (size_t d = 0; d < order.size(); ++d) strides[d] = stride_of(model, d, shape.size());
  bool sorted = true;
  for (size_t d = 1; d < order.size(); ++d) sorted = sorted && (strides[d - 1] >= strides[d] || shape[d] == 1);
  if (!sorted) {
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return strides[a] > strides[b] && strides[b] != 0;
    });
  }
  return order;
}

static Walk walk(const Tensor* const* inputs, int count, const std::vector<int64_t>& shape,
                 const std::vector<size_t>& order) {
  Walk w;
  w.tensors = count;
  for (size_t d : order) {
    w.elements *= shape[d];
    if (shape[d] == 1) continue;
    std::array<int64_t, all> strides{};
    for (int t = 0; t < count; ++t) strides[t] = stride_of(*inputs[t], d, shape.size());
    bool joins = !w.sizes.empty();
    for (int t = 0; joins && t < count; ++t) joins = w.strides.back()[t] == strides[t] * shape[d];
    if (joins) {
      w.sizes.back() *= shape[d];
      w.strides.back() = strides;
    } else {
      w.sizes.push_back(shape[d]);
      w.strides.push_back(strides);
    }
  }
  if (w.sizes.empty()) {
    w.sizes.push_back(1);
    w.strides.push_back({1, 1, 1, 1, 1});
  }
  return w;
}

// One row's worth of tensors, to or from buffers. Two that are interleaved go together.
template <class T>
static void gather(const T* const* from, const int64_t* strides, int tensors, int64_t n, T (*to)[1024], int64_t at) {
  const int size = sizeof(T) == 2 ? 0 : sizeof(T) == 4 ? 1 : 2;
  for (int t = 0; t < tensors; ++t) {
    T* one = to[t] + at;
    const int64_t apart = t + 1 < tensors && strides[t] == 2 && strides[t + 1] == 2 ? from[t + 1] - from[t] : 0;
    if (apart == 1 || apart == -1) {
      T* other = to[++t] + at;
      isa().interleaving->split[size](n, apart == 1 ? from[t - 1] : from[t], apart == 1 ? one : other, apart == 1 ? other : one);
    } else if (strides[t] == 1) {
      std::memcpy(one, from[t], static_cast<size_t>(n) * sizeof(T));
    } else {
      for (int64_t i = 0; i < n; ++i) one[i] = from[t][i * strides[t]];
    }
  }
}
template <class T>
static void scatter(T (*from)[1024], int64_t at, const int64_t* strides, int tensors, int64_t n, T* const* to) {
  const int size = sizeof(T) == 2 ? 0 : sizeof(T) == 4 ? 1 : 2;
  for (int t = 0; t < tensors; ++t) {
    const T* one = from[t] + at;
    const int64_t apart = t + 1 < tensors && strides[t] == 2 && strides[t + 1] == 2 ? to[t + 1] - to[t] : 0;
    if (apart == 1 || apart == -1) {
      const T* other = from[++t] + at;
      isa().interleaving->join[size](n, apart == 1 ? one : other, apart == 1 ? other : one, apart == 1 ? to[t - 1] : to[t]);
    } else {
      for (int64_t i = 0; i < n; ++i) to[t][i * strides[t]] = one[i];
    }
  }
}

// Elements [begin, end) of the walk: rows that lie close together are read in place, others by way of a buffer; likewise
// written.
template <class T>
static void rows(const Walk& w, int64_t begin, int64_t end, const void* const* inputs, void* const* outputs,
                 int written, Loop* loop, const void* uniforms) {
  constexpr int64_t piece = 1024;
  const size_t inner = w.sizes.size() - 1;
  const int64_t length = w.sizes[inner];
  const int reads = w.tensors - w.written;
  bool dense = true;
  for (int t = 0; t < w.tensors; ++t) dense = dense && w.strides[inner][t] == 1;
  alignas(64) T buffer[all][piece];
  std::vector<int64_t> index(w.sizes.size()), first(w.sizes.size());
  int64_t rest = begin;
  for (size_t d = inner + 1; d-- > 0; rest /= w.sizes[d]) index[d] = rest % w.sizes[d];
  int64_t at = begin;
  const auto offset = [&](int t) {
    int64_t sum = 0;
    for (size_t d = 0; d <= inner; ++d) sum += index[d] * w.strides[d][t];
    return sum;
  };
  const auto source = [&](int t) { return static_cast<const T*>(inputs[t]) + offset(t); };
  const auto target = [&](int o) {
    return static_cast<T*>(outputs[o]) + (w.written ? offset(reads + o) : at);
  };
  const auto advance = [&](int64_t n) {
    index[inner] += n;
    for (size_t d = inner; d > 0 && index[d] == w.sizes[d]; --d) {
      index[d] = 0;
      ++index[d - 1];
    }
  };
  const bool direct = dense && (length >= 64 || inner == 0);
  while (at < end) {
    const void* from[most];
    void* to[2];
    int64_t n = 0;
    if (direct) {
      n = std::min(end - at, length - index[inner]);
      for (int t = 0; t < reads; ++t) from[t] = source(t);
      for (int o = 0; o < written; ++o) to[o] = target(o);
      loop(n, from, to, uniforms);
      advance(n);
    } else {
      first = index;
      while (n < piece && at + n < end) {
        const int64_t part = std::min({piece - n, end - at - n, length - index[inner]});
        const T* sources[most];
        for (int t = 0; t < reads; ++t) sources[t] = source(t);
        gather(sources, w.strides[inner].data(), reads, part, buffer, n);
        advance(part);
        n += part;
      }
      for (int t = 0; t < reads; ++t) from[t] = buffer[t];
      for (int o = 0; o < written; ++o) to[o] = w.written ? buffer[reads + o] : target(o);
      loop(n, from, to, uniforms);
      if (w.written) {
        index.swap(first);
        for (int64_t done = 0; done < n;) {
          const int64_t part = std::min(n - done, length - index[inner]);
          T* targets[2];
          for (int o = 0; o < written; ++o) targets[o] = target(o);
          scatter(buffer + reads, done, w.strides[inner].data() + reads, written, part, targets);
          advance(part);
          done += part;
        }
      }
    }
    at += n;
  }
}

static void run(const Walk& w, int kind, const void* const* inputs, void* const* outputs, int written, Loop* loop,
                const void* uniforms) {
  const auto part = [&](int64_t begin, int64_t end) {
    if (kind == float32) {
      rows<float>(w, begin, end, inputs, outputs, written, loop, uniforms);
    } else if (kind == float64) {
      rows<double>(w, begin, end, inputs, outputs, written, loop, uniforms);
    } else {
      rows<uint16_t>(w, begin, end, inputs, outputs, written, loop, uniforms);
    }
  };
  if (w.elements <= grain) {
    if (w.elements > 0) part(0, w.elements);
  } else {
    torch::stable::parallel_for(0, w.elements, grain, part);
  }
}

// A tensor of this shape, dense in this order of dimensions.
static Tensor empty(const Tensor& model, const std::vector<int64_t>& shape, const std::vector<size_t>& order) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[order[d]] = stride;
    stride *= std::max<int64_t>(shape[order[d]], 1);
  }
  int32_t dtype = 0, device = 0, index = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(model.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(model.get(), &device));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(model.get(), &index));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(shape.size()), shape.data(), strides.data(), dtype, device, index, &handle));
  return Tensor(handle);
}

static bool dense_in(const Tensor& x, const std::vector<int64_t>& shape, const std::vector<size_t>& order) {
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[order[d]] != 1 && x.stride(order[d]) != stride) return false;
    stride *= std::max<int64_t>(shape[order[d]], 1);
  }
  return true;
}

// --- parameters that are tensors ------------------------------------------------------------------------------------

// The i-th element in memory takes the parameters' value i/stride % count.
struct Channels {
  int64_t count = 1;
  int64_t stride = 1;
};

template <class F>
static void as_numbers(int kind, F function) {
  if (kind == float32) {
    function(static_cast<float*>(nullptr));
  } else if (kind == float64) {
    function(static_cast<double*>(nullptr));
  } else if (kind == float16) {
    function(static_cast<torch::headeronly::Half*>(nullptr));
  } else {
    function(static_cast<torch::headeronly::BFloat16*>(nullptr));
  }
}

// A tensor of one value per channel, or one for all; in double.
static double number(const Tensor& x, int64_t channel) {
  int64_t offset = 0;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (x.size(d) > 1) offset = channel * x.stride(d);
  }
  double value = 0.0;
  as_numbers(kind_of(x), [&](auto* type) {
    using N = std::remove_pointer_t<decltype(type)>;
    value = static_cast<double>(static_cast<const N*>(x.const_data_ptr())[offset]);
  });
  return value;
}

// One pass over dense memory, in parts that depend on the sizes alone, so that the sums do not depend on the number of
// threads. At most 16 numbers are added in R, whose rounding then loses less than a term's own errors; a part's sums are
// kept in double, and the parts' are added in their order.
template <class R>
struct Pass {
  const Entry& entry;
  const Loops& loops;
  bool backward;
  int bytes;  // of an element
  int64_t total;
  Channels channels;
  const double* values;  // [channel][parameter]
  const char* inputs[2];
  char* output;
  double* sums;  // [learned][channel]

  static constexpr int64_t part = 1 << 16;  // elements
  static constexpr int64_t few = 16;

  int learned() const { return __builtin_popcount(static_cast<unsigned>(entry.learned)); }
  void uniforms(int64_t channel, R* to) const {
    if constexpr (sizeof(R) == sizeof(double)) {
      entry.doubles(values + channel * entry.parameters, to);
    } else {
      entry.floats(values + channel * entry.parameters, to);
    }
  }
  template <class F>
  void over(int64_t parts, F function) const {
    const auto some = [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) function(p);
    };
    if (parts <= 1) {
      some(0, parts);
    } else {
      torch::stable::parallel_for(0, parts, 1, some);
    }
  }
  void apply(Loop* loop, int64_t at, int64_t n, R* const* further, const void* uniforms) const {
    const void* from[2] = {inputs[0] + at * bytes, backward ? inputs[1] + at * bytes : nullptr};
    void* to[1 + 8] = {output + at * bytes};
    for (int k = 0; backward && k < learned(); ++k) to[1 + k] = further[k];
    loop(n, from, to, uniforms);
  }

  // Runs of one channel each.
  void by_runs() const {
    const int more = learned();
    std::vector<R> table(static_cast<size_t>(channels.count * std::max(entry.size, 1)));
    for (int64_t c = 0; c < channels.count; ++c) uniforms(c, &table[static_cast<size_t>(c * entry.size)]);
    const int64_t parts = (total + part - 1) / part;
    // a part's run has a place of its own: the next part may go on with it
    std::vector<double> partial(backward ? static_cast<size_t>((total / channels.stride + parts + 1) * more) : 0);
    over(parts, [&](int64_t p) {
      const int64_t end = std::min(total, (p + 1) * part);
      for (int64_t at = p * part; at < end;) {
        const int64_t run = at / channels.stride;
        int64_t n = std::min(end, (run + 1) * channels.stride) - at;
        const R* u = &table[static_cast<size_t>(run % channels.count * entry.size)];
        if (backward) {
          R several[8][ways];
          R* further[8];
          for (int k = 0; k < more; ++k) further[k] = several[k];
          n = std::min<int64_t>(n, few * ways);
          apply(loops.sums, at, n, further, u);
          for (int k = 0; k < more; ++k) {
            double sum = 0.0;
            for (R one : several[k]) sum += one;
            partial[static_cast<size_t>((run + p) * more + k)] += sum;
          }
        } else {
          apply(loops.forward, at, n, nullptr, u);
        }
        at += n;
      }
    });
    for (int64_t p = 0; backward && p < parts; ++p) {
      const int64_t first = p * part / channels.stride;
      const int64_t last = (std::min(total, (p + 1) * part) - 1) / channels.stride;
      for (int64_t run = first; run <= last; ++run) {
        for (int k = 0; k < more; ++k) {
          sums[k * channels.count + run % channels.count] += partial[static_cast<size_t>((run + p) * more + k)];
        }
      }
    }
  }

  // Rows of whole periods, where the channel changes from element to element.
  void by_rows() const {
    const int more = learned();
    const int64_t period = channels.stride * channels.count;
    const int64_t length = std::max<int64_t>(1, std::min<int64_t>(1024, total) / period) * period;
    std::vector<R> table(static_cast<size_t>(entry.size * length)), one(static_cast<size_t>(std::max(entry.size, 1)));
    for (int64_t c = 0; c < channels.count; ++c) {
      uniforms(c, one.data());
      for (int k = 0; k < entry.size; ++k) {
        for (int64_t start = c * channels.stride; start < length; start += period) {
          std::fill_n(&table[static_cast<size_t>(k * length + start)], channels.stride, one[static_cast<size_t>(k)]);
        }
      }
    }
    const Table uniforms{table.data(), length};
    const int64_t rows = (total + length - 1) / length, together = std::max<int64_t>(32, part / length);
    const int64_t parts = (rows + together - 1) / together;
    const size_t kept = static_cast<size_t>(more * channels.count);
    std::vector<double> partial(backward ? static_cast<size_t>(parts) * kept : 0);
    over(parts, [&](int64_t p) {
      std::vector<R> added(backward ? static_cast<size_t>(more * length) : 0);
      R* further[8];
      for (int k = 0; backward && k < more; ++k) further[k] = &added[static_cast<size_t>(k * length)];
      const int64_t last = std::min(rows, (p + 1) * together);
      for (int64_t row = p * together; row < last; ++row) {
        const int64_t at = row * length;
        apply(backward ? loops.gradients : loops.forwards, at, std::min(length, total - at), further, &uniforms);
        if (!backward || ((row + 1) % few != 0 && row + 1 != last)) continue;
        for (int k = 0; k < more; ++k) {
          double* to = &partial[static_cast<size_t>(p) * kept + static_cast<size_t>(k * channels.count)];
          for (int64_t i = 0; i < length;) {
            for (int64_t c = 0; c < channels.count; ++c) {
              for (int64_t s = 0; s < channels.stride; ++s) to[c] += further[k][i++];
            }
          }
        }
        std::fill(added.begin(), added.end(), R(0));
      }
    });
    for (int64_t p = 0; backward && p < parts; ++p) {
      for (size_t i = 0; i < kept; ++i) sums[i] += partial[static_cast<size_t>(p) * kept + i];
    }
  }

  void run() const {
    if (total == 0) return;
    if (channels.count > 1 && channels.stride < 64) {
      by_rows();
    } else {
      by_runs();
    }
  }
};

// x, and before it grad, dense and laid out alike; parameters with one value, or one per place along one and the same
// dimension of x.
static void learned(const Entry& entry, bool backward, StableIValue* stack) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  const int first = backward ? 2 : 1;
  std::vector<Tensor> inputs, parameters;
  for (int t = 0; t < first; ++t) inputs.push_back(to<Tensor>(stack[t]));
  const Tensor& x = inputs.back();
  const int kind = kind_of(x);
  STD_TORCH_CHECK(kind >= 0 && kind_of(inputs[0]) == kind, "softknee::", entry.name, "_learned takes one of four dtypes");
  const std::vector<int64_t> shape = broadcast(std::array<const Tensor*, 1>{&x}.data(), 1);
  const auto order = order_of(x, shape);
  bool alike = dense_in(x, shape, order) && inputs[0].dim() == x.dim();
  for (int64_t d = 0; alike && d < x.dim(); ++d) alike = inputs[0].size(d) == x.size(d);
  STD_TORCH_CHECK(alike && dense_in(inputs[0], shape, order), "softknee::", entry.name, "_learned: x and grad must be dense and alike");
  Channels channels;
  channels.stride = std::max<int64_t>(1, x.numel());
  double scalars[8];
  for (int p = 0; p < entry.parameters; ++p) {
    if (!(entry.learned >> p & 1)) {
      scalars[p] = to<double>(stack[first + p]);
      continue;
    }
    parameters.push_back(to<Tensor>(stack[first + p]));
    const Tensor& parameter = parameters.back();
    STD_TORCH_CHECK(kind_of(parameter) >= 0 && parameter.dim() <= x.dim(), "softknee::", entry.name, ": a parameter does not fit");
    for (int64_t d = 0; d < parameter.dim(); ++d) {
      if (parameter.size(d) == 1) continue;
      const int64_t at = x.dim() - parameter.dim() + d;
      const bool same = channels.count == 1 || (channels.count == x.size(at) && channels.stride == x.stride(at));
      STD_TORCH_CHECK(same && parameter.size(d) == x.size(at), "softknee::", entry.name, ": a parameter does not fit");
      channels = {x.size(at), x.stride(at)};
    }
  }
  int32_t device = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device));
  std::vector<Tensor> results{empty(x, shape, order)};
  for (const Tensor& parameter : parameters) {
    if (!backward) break;
    const std::vector<int64_t> own = broadcast(std::array<const Tensor*, 1>{&parameter}.data(), 1);
    std::vector<size_t> plain(own.size());
    for (size_t d = 0; d < plain.size(); ++d) plain[d] = d;
    results.push_back(empty(parameter, own, plain));
  }
  if (device == aoti_torch_device_type_cpu()) {
    std::vector<double> values(static_cast<size_t>(channels.count * entry.parameters));
    for (int64_t c = 0; c < channels.count; ++c) {
      for (int p = 0, t = 0; p < entry.parameters; ++p) {
        values[static_cast<size_t>(c * entry.parameters + p)] =
            entry.learned >> p & 1 ? number(parameters[static_cast<size_t>(t++)], c) : scalars[p];
      }
    }
    std::vector<double> sums(backward ? parameters.size() * static_cast<size_t>(channels.count) : 0);
    const Loops& loops = (kind == float64 ? loops_double : isa().loops[kind])[&entry - parameters::entries];
    const auto pass = [&](auto real, int bytes) {
      Pass<decltype(real)> pass{entry, loops, backward, bytes, x.numel(), channels, values.data(), {}, {}, sums.data()};
      for (size_t t = 0; t < inputs.size(); ++t) pass.inputs[t] = static_cast<const char*>(inputs[t].const_data_ptr());
      pass.output = static_cast<char*>(results[0].mutable_data_ptr());
      pass.run();
    };
    if (kind == float64) {
      pass(0.0, 8);
    } else {
      pass(0.0f, kind == float32 ? 4 : 2);
    }
    for (size_t t = 0; backward && t < parameters.size(); ++t) {
      const Tensor& parameter = parameters[t];
      const int64_t count = parameter.numel();
      const double* all = &sums[t * static_cast<size_t>(channels.count)];
      as_numbers(kind_of(parameter), [&](auto* type) {
        using N = std::remove_pointer_t<decltype(type)>;
        N* to = static_cast<N*>(results[1 + t].mutable_data_ptr());
        if (count == 1) {
          double sum = 0.0;
          for (int64_t c = 0; c < channels.count; ++c) sum += all[c];
          *to = static_cast<N>(sum);
        } else {
          for (int64_t c = 0; c < count; ++c) to[c] = static_cast<N>(all[c]);
        }
      });
    }
  }
  for (size_t t = 0; t < results.size(); ++t) stack[t] = from(results[t]);
}

// --- operators ------------------------------------------------------------------------------------------------------

enum Form { forward_form, out_form, backward_form, backward_out_form, learned_form, learned_backward_form };
constexpr int forms = 6;

static void compute(const Entry& entry, Form form, const Tensor* const* inputs, int count, const double* values,
                    Tensor* outputs, int written) {
  const int kind = kind_of(*inputs[0]);
  STD_TORCH_CHECK(kind >= 0, "softknee::", entry.name, " takes float64, float32, float16 or bfloat16; convert the input");
  for (int t = 1; t < count; ++t) {
    STD_TORCH_CHECK(kind_of(*inputs[t]) == kind, "softknee::", entry.name, ": the inputs must have one dtype");
  }
  const auto shape = broadcast(inputs, count);
  // the gradient of a sum has no strides of its own: the layout is that of the input
  const Tensor& model = *inputs[form == backward_form || form == backward_out_form ? 1 : 0];
  const auto order = order_of(model, shape);
  if (form == out_form) {
    const Tensor& out = outputs[0];
    const auto sizes = out.sizes();
    STD_TORCH_CHECK(kind_of(out) == kind && sizes.size() == shape.size() && std::equal(shape.begin(), shape.end(), sizes.begin()),
                    "softknee::", entry.name, ": out must have the dtype and the shape of the result");
    STD_TORCH_CHECK(dense_in(out, shape, order), "softknee::", entry.name, ": out must be laid out as the input is");
  } else if (form == backward_out_form) {
    for (int o = 0; o < written; ++o) {
      const auto sizes = outputs[o].sizes();
      STD_TORCH_CHECK(kind_of(outputs[o]) == kind && sizes.size() == shape.size() && std::equal(shape.begin(), shape.end(), sizes.begin()),
                      "softknee::", entry.name, "_backward: an output must have the dtype and the shape of the result");
    }
  } else {
    for (int o = 0; o < written; ++o) outputs[o] = empty(model, shape, order);
  }
  int32_t device = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(model.get(), &device));
  if (device != aoti_torch_device_type_cpu()) return;  // a meta tensor has a shape and no values
  const Tensor* tensors[all];
  int walked = 0;
  for (; walked < count; ++walked) tensors[walked] = inputs[walked];
  for (int o = 0; form == backward_out_form && o < written; ++o) tensors[walked++] = &outputs[o];
  Walk w = walk(tensors, walked, shape, order);
  w.written = walked - count;
  if (w.elements == 0) return;
  float floats[parameters::most_uniforms];
  double doubles[parameters::most_uniforms];
  if (kind == float64) {
    entry.doubles(values, doubles);
  } else {
    entry.floats(values, floats);
  }
  const void* from[most];
  void* to[2];
  for (int t = 0; t < count; ++t) from[t] = inputs[t]->const_data_ptr();
  for (int o = 0; o < written; ++o) to[o] = outputs[o].mutable_data_ptr();
  const Loops& loops = (kind == float64 ? loops_double : isa().loops[kind])[&entry - parameters::entries];
  Loop* loop = form == backward_form || form == backward_out_form ? loops.backward : loops.forward;
  run(w, kind, from, to, written, loop, kind == float64 ? static_cast<const void*>(doubles) : floats);
}

// Tensors that are this side's to delete: a call's arguments are, and results until they are handed over.
struct Handles {
  AtenTensorHandle at[all];
  int count = 0;
  ~Handles() {
    for (int t = 0; t < count; ++t) aoti_torch_delete_tensor_object(at[t]);
  }
};

// The commonest call, of contiguous CPU tensors that are alike, with as little around the loop as there can be: what a
// small tensor costs. False, and nothing done, where that is not it.
static bool plainly(const Entry& entry, Form form, StableIValue* stack) {
  const bool backward = form == backward_form || form == backward_out_form;
  const bool given = form == out_form || form == backward_out_form;
  const int count = entry.inputs + (backward ? 1 : 0), written = backward ? entry.inputs : 1;
  const int tensors = count + (given ? written : 0);
  AtenTensorHandle at[all];
  int64_t dimensions = 0, *sizes = nullptr;
  int32_t dtype = 0;
  for (int t = 0; t < tensors; ++t) {
    at[t] = torch::stable::detail::to<AtenTensorHandle>(stack[t < count ? t : t + entry.parameters]);
    int64_t own_dimensions = 0, *own_sizes = nullptr;
    int32_t own_dtype = 0, device = 0;
    bool contiguous = false;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(at[t], &device));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_is_contiguous(at[t], &contiguous));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(at[t], &own_dtype));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(at[t], &own_dimensions));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(at[t], &own_sizes));
    if (t == 0) dimensions = own_dimensions, sizes = own_sizes, dtype = own_dtype;
    const bool alike = own_dtype == dtype && own_dimensions == dimensions && std::equal(sizes, sizes + dimensions, own_sizes);
    if (!contiguous || !alike || device != aoti_torch_device_type_cpu()) return false;
  }
  const int kind = kind_of(dtype);
  int64_t strides[8], elements = 1;
  if (kind < 0 || dimensions > 8) return false;
  for (int64_t d = dimensions; d-- > 0; elements *= sizes[d]) strides[d] = elements;
  if (elements == 0) return false;
  double values[8];
  for (int p = 0; p < entry.parameters; ++p) values[p] = torch::stable::detail::to<double>(stack[count + p]);
  union {
    float floats[parameters::most_uniforms];
    double doubles[parameters::most_uniforms];
  } uniforms;
  if (kind == float64) {
    entry.doubles(values, uniforms.doubles);
  } else {
    entry.floats(values, uniforms.floats);
  }
  Handles arguments, results;
  for (; arguments.count < tensors; ++arguments.count) arguments.at[arguments.count] = at[arguments.count];
  for (; !given && results.count < written; ++results.count) {
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dimensions, sizes, strides, dtype, aoti_torch_device_type_cpu(),
                                                           -1, &results.at[results.count]));
  }
  const void* from[most];
  void* to[2];
  for (int t = 0; t < count; ++t) STABLE_TORCH_ERROR_CODE_CHECK(torch_get_const_data_ptr(at[t], &from[t]));
  for (int o = 0; o < written; ++o) {
    STABLE_TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(given ? at[count + o] : results.at[o], &to[o]));
  }
  const Loops& loops = (kind == float64 ? loops_double : isa().loops[kind])[&entry - parameters::entries];
  Loop* loop = backward ? loops.backward : loops.forward;
  const int64_t bytes = kind == float64 ? 8 : kind == float32 ? 4 : 2;
  const auto part = [&](int64_t begin, int64_t end) {
    const void* sources[most];
    void* targets[2];
    for (int t = 0; t < count; ++t) sources[t] = static_cast<const char*>(from[t]) + begin * bytes;
    for (int o = 0; o < written; ++o) targets[o] = static_cast<char*>(to[o]) + begin * bytes;
    loop(end - begin, sources, targets, &uniforms);
  };
  if (elements <= grain) {
    part(0, elements);
  } else {
    torch::stable::parallel_for(0, elements, grain, part);
  }
  for (int o = 0; o < results.count; ++o) stack[o] = torch::stable::detail::from(results.at[o]);
  results.count = 0;
  return true;
}

static void boxed(const Entry& entry, Form form, StableIValue* stack) {
  if (plainly(entry, form, stack)) return;
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  const bool backward = form == backward_form || form == backward_out_form;
  const int count = entry.inputs + (backward ? 1 : 0), written = backward ? entry.inputs : 1;
  std::vector<Tensor> tensors, results;
  tensors.reserve(most);
  for (int t = 0; t < count; ++t) tensors.push_back(to<Tensor>(stack[t]));
  double values[8];
  for (int p = 0; p < entry.parameters; ++p) values[p] = to<double>(stack[count + p]);
  results.reserve(2);
  const Tensor* inputs[most];
  for (int t = 0; t < count; ++t) inputs[t] = &tensors[t];
  if (form == out_form || form == backward_out_form) {
    for (int o = 0; o < written; ++o) results.push_back(to<Tensor>(stack[count + entry.parameters + o]));
    compute(entry, form, inputs, count, values, results.data(), written);
    return;
  }
  for (int o = 0; o < written; ++o) results.push_back(tensors[0]);
  compute(entry, form, inputs, count, values, results.data(), written);
  for (int o = 0; o < written; ++o) stack[o] = from(results[o]);
}

template <int index, Form form>
static void kernel(StableIValue* stack, uint64_t, uint64_t) {
  const Entry& entry = parameters::entries[index];
  if (form < learned_form) {
    boxed(entry, form, stack);
  } else {
    learned(entry, form == learned_backward_form, stack);
  }
}

typedef void Boxed(StableIValue*, uint64_t, uint64_t);

// --- gradients that would be lost -----------------------------------------------------------------------------------

// The stable ABI does not tell whether a tensor requires grad; but a view of one that does is no leaf.
static bool requires_grad(const Tensor& x) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  const auto is_leaf = [](const Tensor& y) {
    StableIValue stack[1] = {from(y)};
    STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::is_leaf", "", stack, TORCH_ABI_VERSION));
    return to<bool>(stack[0]);
  };
  if (!is_leaf(x)) return true;
  StableIValue stack[1] = {from(x)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::alias", "", stack, TORCH_ABI_VERSION));
  return !is_leaf(to<Tensor>(stack[0]));
}

static bool takes_grad(Form form) {
  return form == backward_form || form == backward_out_form || form == learned_backward_form;
}

static std::string name_of(const Entry& entry, Form form) {
  return std::string(entry.name) + (form >= learned_form ? "_learned" : "") + (takes_grad(form) ? "_backward" : "");
}

static const char* overload_of(Form form, bool own) {
  const bool out = form == out_form || form == backward_out_form;
  return own ? (out ? "own_out" : "own") : (out ? "out" : "");
}

// The operator as others call it: the question, then softknee's own, which whatever looks in sees in its place.
template <int index, Form form>
static void checked(StableIValue* stack, uint64_t, uint64_t) {
  const Entry& entry = parameters::entries[index];
  const int inputs = entry.inputs + takes_grad(form);
  const int count = inputs + (form >= learned_form ? entry.parameters : 0);
  for (int t = 0; t < count && aoti_torch_grad_mode_is_enabled(); ++t) {
    if (t >= inputs && !(entry.learned >> (t - inputs) & 1)) continue;
    AtenTensorHandle same = nullptr;  // the stack keeps its own
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_new_tensor_handle(torch::stable::detail::to<AtenTensorHandle>(stack[t]), &same));
    STD_TORCH_CHECK(!requires_grad(Tensor(same)), "softknee::", entry.name,
                    " has no derivative of its own; call softknee.functional.", entry.name,
                    ", which has, or pass tensors that do not require grad: x.detach()");
  }
  const std::string name = "softknee::" + name_of(entry, form);
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher(name.c_str(), overload_of(form, true), stack, TORCH_ABI_VERSION));
}

struct Forms {
  Boxed *own[forms], *checked[forms];
};

template <int index, int... form>
static Forms forms_of(std::integer_sequence<int, form...>) {
  return {{kernel<index, static_cast<Form>(form)>...}, {checked<index, static_cast<Form>(form)>...}};
}

template <int... index>
static std::array<Forms, sizeof...(index)> forms_of_all(std::integer_sequence<int, index...>) {
  return {forms_of<index>(std::make_integer_sequence<int, forms>())...};
}

// Arguments and results, without the name.
static std::string schema_of(const Entry& entry, Form form) {
  const std::string inputs = form >= learned_form ? std::string("Tensor x") + entry.tensors
                                                  : (entry.inputs == 1 ? "Tensor x" : "Tensor gate, Tensor up") + std::string(entry.declared);
  std::string gradients = "Tensor";
  for (int rest = form >= learned_form ? entry.learned : entry.inputs - 1; rest; rest &= rest - 1) gradients += ", Tensor";
  if (gradients.size() > 6) gradients = "(" + gradients + ")";
  switch (form) {
    case out_form:
      return "(" + inputs + ", *, Tensor(a!) out) -> ()";
    case backward_out_form:
      return "(Tensor grad, " + inputs + ", *, Tensor(a!) of_gate, Tensor(b!) of_up) -> ()";
    case backward_form:
    case learned_backward_form:
      return "(Tensor grad, " + inputs + ") -> " + gradients;
    default:
      return "(" + inputs + ") -> Tensor";
  }
}

}  // namespace softknee

extern "C" {

// The instructions in use, of those that this processor has; SOFTKNEE_ISA names one.
__attribute__((visibility("default"))) const char* softknee_isa() { return softknee::isa().name; }

// Registers the operators of one activation, once, whichever thread asks first. Returns 0, or 1 for a name that has no
// kernels.
__attribute__((visibility("default"))) int softknee_register(const char* name) {
  using namespace softknee;
  static const auto kernels = forms_of_all(std::make_integer_sequence<int, parameters::count>());
  static std::mutex mutex;
  static std::array<bool, parameters::count> registered{};
  const std::lock_guard<std::mutex> lock(mutex);
  for (int i = 0; i < parameters::count; ++i) {
    const Entry& entry = parameters::entries[i];
    if (std::strcmp(entry.name, name) != 0) continue;
    if (std::exchange(registered[static_cast<size_t>(i)], true)) return 0;
    const auto library_of = [](StableLibrary::Kind kind, const char* key) -> StableLibrary& {
      return *new StableLibrary(kind, "softknee", key, __FILE__, __LINE__);
    };
    auto& definitions = library_of(StableLibrary::Kind::FRAGMENT, nullptr);
    auto& cpu = library_of(StableLibrary::Kind::IMPL, "CPU");
    auto& meta = library_of(StableLibrary::Kind::IMPL, "Meta");
    auto& others = library_of(StableLibrary::Kind::IMPL, "CompositeImplicitAutograd");
    for (int f = 0; f < forms; ++f) {
      const Form form = static_cast<Form>(f);
      if (form == backward_out_form ? entry.inputs != 2 : form >= learned_form && !entry.learned) continue;
      const std::string schema = schema_of(entry, form);
      for (const bool own : {false, true}) {  // the first is what a call without an overload takes
        const std::string overload = overload_of(form, own);
        const std::string full = name_of(entry, form) + (overload.empty() ? "" : "." + overload);
        definitions.def((full + schema).c_str());
        if (own) {
          cpu.impl(full.c_str(), kernels[i].own[f]);
          meta.impl(full.c_str(), kernels[i].own[f]);
        } else {
          others.impl(full.c_str(), kernels[i].checked[f]);
        }
      }
    }
    return 0;
  }
  return 1;
}
}

STABLE_TORCH_LIBRARY(softknee, library) { (void)library; }
