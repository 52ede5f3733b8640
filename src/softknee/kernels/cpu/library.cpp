// The operators `torch.ops.softknee.*`: arguments, memory and threads around the loops of kernels.h. Stable ABI only,
// so that one build runs on every torch from 2.10 on.
//
//   softknee::silu(Tensor x) -> Tensor                          a parameter is a float after the inputs
//   softknee::silu.out(Tensor x, *, Tensor(a!) out) -> ()
//   softknee::silu_backward(Tensor grad, Tensor x) -> Tensor
//   softknee::swiglu(Tensor gate, Tensor up) -> Tensor
//   softknee::swiglu_backward(Tensor grad, Tensor gate, Tensor up) -> (Tensor, Tensor)
//
// Autograd does not see through them: called with a tensor whose gradient it would lose, each raises. `softknee::_silu`
// and so on are the same without that question, for softknee's own calls, which have an autograd.Function around them.
//
// Inputs: one dtype of float32, float16 and bfloat16, any strides, broadcast with each other. Operators are registered
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
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"

namespace softknee {

struct Entry {
  const char* name;
  int inputs;
  int parameters;
  const char* declared;
  void (*uniforms)(const double* parameters, float* uniforms);
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
  const Loops* loops;
  bool runs;
};

static const std::array<Isa, 3>& isas() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  static const std::array<Isa, 3> known{
      {{"avx512", loops_avx512, avx512}, {"avx2", loops_avx2, avx2}, {"portable", loops_portable, true}}};
#else
  static const std::array<Isa, 3> known{
      {{"avx512", nullptr, false}, {"avx2", nullptr, false}, {"portable", loops_portable, true}}};
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

static int kind_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return float32;
    case torch::headeronly::ScalarType::Half:
      return float16;
    case torch::headeronly::ScalarType::BFloat16:
      return bfloat16;
    default:
      return -1;
  }
}

// The tensors' common shape, as few dimensions as their strides allow, largest strides of the output first.
struct Walk {
  int tensors = 0;
  int64_t elements = 1;
  std::vector<int64_t> sizes;
  std::vector<std::array<int64_t, most>> strides;  // per dimension, of each input; the output is dense in this order
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
    std::array<int64_t, most> strides{};
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
    w.strides.push_back({1, 1, 1});
  }
  return w;
}

template <class T>
static void gather(const T* from, int64_t stride, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
}

// Elements [begin, end) of the walk: rows that lie close together are read in place, others by way of a buffer.
template <class T>
static void rows(const Walk& w, int64_t begin, int64_t end, const void* const* inputs, void* const* outputs,
                 int written, Loop* loop, const float* uniforms) {
  constexpr int64_t piece = 1024;
  const size_t inner = w.sizes.size() - 1;
  const int64_t length = w.sizes[inner];
  bool dense = true;
  for (int t = 0; t < w.tensors; ++t) dense = dense && w.strides[inner][t] == 1;
  alignas(64) T buffer[most][piece];
  std::vector<int64_t> index(w.sizes.size());
  int64_t rest = begin;
  for (size_t d = inner + 1; d-- > 0; rest /= w.sizes[d]) index[d] = rest % w.sizes[d];
  int64_t at = begin;
  const auto source = [&](int t) {
    int64_t offset = 0;
    for (size_t d = 0; d <= inner; ++d) offset += index[d] * w.strides[d][t];
    return static_cast<const T*>(inputs[t]) + offset;
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
      for (int t = 0; t < w.tensors; ++t) from[t] = source(t);
      advance(n);
    } else {
      while (n < piece && at + n < end) {
        const int64_t part = std::min({piece - n, end - at - n, length - index[inner]});
        for (int t = 0; t < w.tensors; ++t) gather(source(t), w.strides[inner][t], part, buffer[t] + n);
        advance(part);
        n += part;
      }
      for (int t = 0; t < w.tensors; ++t) from[t] = buffer[t];
    }
    for (int o = 0; o < written; ++o) to[o] = static_cast<T*>(outputs[o]) + at;
    loop(n, from, to, uniforms);
    at += n;
  }
}

static void run(const Walk& w, int kind, const void* const* inputs, void* const* outputs, int written, Loop* loop,
                const float* uniforms) {
  const auto part = [&](int64_t begin, int64_t end) {
    if (kind == float32) {
      rows<float>(w, begin, end, inputs, outputs, written, loop, uniforms);
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
    stride *= shape[order[d]];
  }
  return true;
}

// --- operators ------------------------------------------------------------------------------------------------------

enum Form { forward_form, out_form, backward_form };

static void compute(const Entry& entry, Form form, const Tensor* const* inputs, int count, const double* values,
                    Tensor* outputs, int written) {
  const int kind = kind_of(*inputs[0]);
  STD_TORCH_CHECK(kind >= 0, "softknee::", entry.name, " takes float32, float16 or bfloat16; convert the input");
  for (int t = 1; t < count; ++t) {
    STD_TORCH_CHECK(kind_of(*inputs[t]) == kind, "softknee::", entry.name, ": the inputs must have one dtype");
  }
  const auto shape = broadcast(inputs, count);
  // the gradient of a sum has no strides of its own: the layout is that of the input
  const Tensor& model = *inputs[form == backward_form ? 1 : 0];
  const auto order = order_of(model, shape);
  if (form == out_form) {
    const Tensor& out = outputs[0];
    const auto sizes = out.sizes();
    STD_TORCH_CHECK(kind_of(out) == kind && sizes.size() == shape.size() && std::equal(shape.begin(), shape.end(), sizes.begin()),
                    "softknee::", entry.name, ": out must have the dtype and the shape of the result");
    STD_TORCH_CHECK(dense_in(out, shape, order), "softknee::", entry.name, ": out must be laid out as the input is");
  } else {
    for (int o = 0; o < written; ++o) outputs[o] = empty(model, shape, order);
  }
  int32_t device = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(model.get(), &device));
  if (device != aoti_torch_device_type_cpu()) return;  // a meta tensor has a shape and no values
  const Walk w = walk(inputs, count, shape, order);
  if (w.elements == 0) return;
  float uniforms[parameters::most_uniforms];
  entry.uniforms(values, uniforms);
  const void* from[most];
  void* to[2];
  for (int t = 0; t < count; ++t) from[t] = inputs[t]->const_data_ptr();
  for (int o = 0; o < written; ++o) to[o] = outputs[o].mutable_data_ptr();
  const Loops& loops = isa().loops[&entry - parameters::entries];
  run(w, kind, from, to, written, (form == backward_form ? loops.backward : loops.forward)[kind], uniforms);
}

static void boxed(const Entry& entry, Form form, StableIValue* stack) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  const int count = entry.inputs + (form == backward_form ? 1 : 0);
  const int written = form == backward_form ? entry.inputs : 1;
  std::vector<Tensor> tensors, results;
  tensors.reserve(most);
  for (int t = 0; t < count; ++t) tensors.push_back(to<Tensor>(stack[t]));
  double values[8];
  for (int p = 0; p < entry.parameters; ++p) values[p] = to<double>(stack[count + p]);
  results.reserve(2);
  const Tensor* inputs[most];
  for (int t = 0; t < count; ++t) inputs[t] = &tensors[t];
  if (form == out_form) {
    results.push_back(to<Tensor>(stack[count + entry.parameters]));
    compute(entry, form, inputs, count, values, results.data(), 1);
    return;
  }
  for (int o = 0; o < written; ++o) results.push_back(tensors[0]);
  compute(entry, form, inputs, count, values, results.data(), written);
  for (int o = 0; o < written; ++o) stack[o] = from(results[o]);
}

template <int index, Form form>
static void kernel(StableIValue* stack, uint64_t, uint64_t) {
  boxed(parameters::entries[index], form, stack);
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

// The operator as others call it: the question, then softknee's own, which whatever looks in sees in its place.
template <int index, Form form>
static void checked(StableIValue* stack, uint64_t, uint64_t) {
  const Entry& entry = parameters::entries[index];
  const int count = entry.inputs + (form == backward_form ? 1 : 0);
  for (int t = 0; t < count && aoti_torch_grad_mode_is_enabled(); ++t) {
    AtenTensorHandle same = nullptr;  // the stack keeps its own
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_new_tensor_handle(torch::stable::detail::to<AtenTensorHandle>(stack[t]), &same));
    STD_TORCH_CHECK(!requires_grad(Tensor(same)), "softknee::", entry.name,
                    " has no derivative of its own; call softknee.functional.", entry.name,
                    ", which has, or pass tensors that do not require grad: x.detach()");
  }
  const std::string name = std::string("softknee::_") + entry.name + (form == backward_form ? "_backward" : "");
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher(name.c_str(), form == out_form ? "out" : "", stack, TORCH_ABI_VERSION));
}

template <int... index>
static std::array<std::array<Boxed*, 3>, sizeof...(index)> kernels_of(std::integer_sequence<int, index...>) {
  return {{{kernel<index, forward_form>, kernel<index, out_form>, kernel<index, backward_form>}...}};
}

template <int... index>
static std::array<std::array<Boxed*, 3>, sizeof...(index)> checks_of(std::integer_sequence<int, index...>) {
  return {{{checked<index, forward_form>, checked<index, out_form>, checked<index, backward_form>}...}};
}

}  // namespace softknee

extern "C" {

// The instructions in use, of those that this processor has; SOFTKNEE_ISA names one.
__attribute__((visibility("default"))) const char* softknee_isa() { return softknee::isa().name; }

// Registers the operators of one activation, once. Returns 0, or 1 for a name that has no kernels.
__attribute__((visibility("default"))) int softknee_register(const char* name) {
  using namespace softknee;
  static const auto kernels = kernels_of(std::make_integer_sequence<int, parameters::count>());
  static const auto checks = checks_of(std::make_integer_sequence<int, parameters::count>());
  for (int i = 0; i < parameters::count; ++i) {
    const Entry& entry = parameters::entries[i];
    if (std::strcmp(entry.name, name) != 0) continue;
    const std::string own = entry.declared, inputs = entry.inputs == 1 ? "Tensor x" : "Tensor gate, Tensor up";
    const std::string both = entry.inputs == 1 ? "Tensor" : "(Tensor, Tensor)";
    auto& definitions = *new StableLibrary(StableLibrary::Kind::FRAGMENT, "softknee", nullptr, __FILE__, __LINE__);
    const auto implement = [](const char* key, const std::string& base, const std::array<Boxed*, 3>& forms) {
      auto& library = *new StableLibrary(StableLibrary::Kind::IMPL, "softknee", key, __FILE__, __LINE__);
      library.impl(base.c_str(), forms[forward_form]);
      library.impl((base + ".out").c_str(), forms[out_form]);
      library.impl((base + "_backward").c_str(), forms[backward_form]);
    };
    for (const std::string& base : {std::string("_") + entry.name, std::string(entry.name)}) {
      definitions.def((base + "(" + inputs + own + ") -> Tensor").c_str());
      definitions.def((base + ".out(" + inputs + own + ", *, Tensor(a!) out) -> ()").c_str());
      definitions.def((base + "_backward(Tensor grad, " + inputs + own + ") -> " + both).c_str());
    }
    implement("CPU", std::string("_") + entry.name, kernels[i]);
    implement("Meta", std::string("_") + entry.name, kernels[i]);
    implement("CompositeImplicitAutograd", entry.name, checks[i]);
    return 0;
  }
  return 1;
}
}

STABLE_TORCH_LIBRARY(softknee, library) { (void)library; }
