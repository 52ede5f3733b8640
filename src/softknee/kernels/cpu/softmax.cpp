// The operators of softmax and log_softmax with a temperature, around the loops of slices.h.
//
//   softknee::softmax(Tensor x, int dim, float temperature) -> Tensor
//   softknee::softmax.Tensor(Tensor x, int dim, Tensor temperature) -> Tensor
//   softknee::softmax_backward(Tensor grad, Tensor y, int dim, float temperature) -> Tensor
//   softknee::softmax_backward.Tensor(Tensor grad, Tensor y, int dim, Tensor temperature) -> (Tensor, Tensor)
//
// x: float32, float16 or bfloat16, any strides; the result is contiguous, as PyTorch's is. temperature: a contiguous
// float64 tensor that broadcasts with x and has one element along `dim`; the last result is its gradient, a sum over
// rows in their order, in double. Registered one at a time by `softknee_register_normalizer`.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "polynomials.h"
#include "slices.h"

extern "C" const char* softknee_isa();

namespace softknee {
namespace {

using torch::stable::Tensor;
using torch::stable::detail::StableLibrary;

constexpr int64_t grain = 16384;        // elements for which another thread is worth waking
constexpr int64_t most_room = 1 << 15;  // floats: 128 KiB, within a core's second cache
constexpr int64_t band = 64;            // columns of a task
enum { first, second, result, temperatures, walked };  // what a walk has strides of

const SliceLoops* loops() {
  static const SliceLoops* const chosen = [] {
    const std::string isa = softknee_isa();
#if defined(__x86_64__)
    if (isa == "avx512") return normalizers_avx512;
    if (isa == "avx2") return normalizers_avx2;
#endif
    return normalizers_portable;
  }();
  return chosen;
}

int kind_of(const Tensor& x) {
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

Tensor empty(const std::vector<int64_t>& shape, const Tensor& model) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0; stride *= std::max<int64_t>(shape[d], 1)) strides[d] = stride;
  int32_t dtype = 0, device = 0, index = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(model.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(model.get(), &device));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(model.get(), &index));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(),
                                                         strides.data(), dtype, device, index, &handle));
  return Tensor(handle);
}

// T below the smallest normal number counts as that one, and beyond 2²⁴⁶ as infinite.
Temperature prepared(double value) {
  const double given = value < 0x1p-126 ? 0x1p-126 : value;
  int exponent = 127;
  if (std::isfinite(given)) std::frexp(given, &exponent);
  const double unit = std::ldexp(1.0, std::clamp(1 - exponent, -126, 126));
  const double scaled = given * unit > 0x1p120 ? 0x1p120 : given * unit;
  const double period = scaled * 0.69314718055994530942;
  Temperature t;
  t.unit = static_cast<float>(unit);
  t.least = static_cast<float>(-200.0 * scaled);
  t.inverse = static_cast<float>(1.44269504088896340736 / scaled);
  t.period = static_cast<float>(period);
  t.rest = static_cast<float>(period - t.period);
  t.reciprocal = static_cast<float>(1.0 / scaled);
  double power = 2.0;  // the polynomials give a half
  for (int k = 0; k < 7; ++k, power /= scaled) {
    t.exp_full[k] = static_cast<float>(polynomials::half_exp_full[k] * power);
    if (k < 6) t.exp_half[k] = static_cast<float>(polynomials::half_exp_half[k] * power);
  }
  t.slope_wide = 1.0 / given;
  t.slope = static_cast<float>(t.slope_wide);
  return t;
}

// The dimensions besides the one that is reduced, as few as the strides of all tensors allow.
struct Walk {
  int64_t rows = 1;
  std::vector<int64_t> sizes;
  std::vector<std::array<int64_t, walked>> strides;
  std::array<int64_t, walked> along{};  // the reduced dimension's

  void push(int64_t size, const std::array<int64_t, walked>& own) {
    rows *= size;
    if (size == 1) return;
    bool joins = !sizes.empty();
    for (int t = 0; joins && t < walked; ++t) joins = strides.back()[t] == own[t] * size;
    if (joins) {
      sizes.back() *= size;
      strides.back() = own;
    } else {
      sizes.push_back(size);
      strides.push_back(own);
    }
  }
};

// Offsets of consecutive rows.
struct Place {
  const Walk& walk;
  size_t dimensions;
  std::vector<int64_t> index;
  std::array<int64_t, walked> offset{};

  Place(const Walk& walk, size_t dimensions, int64_t row) : walk(walk), dimensions(dimensions), index(dimensions) {
    for (size_t d = dimensions; d-- > 0; row /= walk.sizes[d]) {
      index[d] = row % walk.sizes[d];
      for (int t = 0; t < walked; ++t) offset[t] += index[d] * walk.strides[d][t];
    }
  }
  void next() {
    for (size_t d = dimensions; d-- > 0;) {
      const bool over = ++index[d] == walk.sizes[d];
      const int64_t moved = over ? 1 - walk.sizes[d] : 1;
      for (int t = 0; t < walked; ++t) offset[t] += moved * walk.strides[d][t];
      if (!over) return;
      index[d] = 0;
    }
  }
};

template <class T>
void copy(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i * to_stride] = from[i * from_stride];
}

struct Job {
  SliceLoop* loop;
  const void* inputs[2];
  int reads;
  void* output;
  const double* temperature;
  int64_t size;
  double* slopes;  // a row's, or null
  Walk walk;
};

// Each row by itself: in place where its elements lie side by side, otherwise by way of a copy of the row.
template <class T>
void by_rows(const Job& job, int64_t begin, int64_t end, float* room, int64_t room_size) {
  const Walk& w = job.walk;
  const bool scattered = w.along[result] != 1;
  const int copies = (scattered ? 1 : 0) + (w.along[first] != 1 ? 1 : 0) + (job.reads > 1 && w.along[second] != 1 ? 1 : 0);
  std::unique_ptr<T[]> buffer(copies ? new T[copies * job.size] : nullptr);
  Slice s{job.size, 0, {}, {}, nullptr, 0, nullptr, room, room_size, nullptr};
  Temperature temperature = prepared(*job.temperature);
  int64_t known = 0;
  s.temperature = &temperature;
  Place place(w, w.sizes.size(), begin);
  for (int64_t row = begin; row < end; ++row, place.next()) {
    T* next = buffer.get();
    for (int t = 0; t < job.reads; ++t) {
      const T* from = static_cast<const T*>(job.inputs[t]) + place.offset[t];
      if (w.along[t] != 1) {
        copy(from, w.along[t], next, 1, job.size);
        from = next;
        next += job.size;
      }
      s.inputs[t] = from;
    }
    T* to = static_cast<T*>(job.output) + place.offset[result];
    s.output = scattered ? next : to;
    if (place.offset[temperatures] != known) temperature = prepared(job.temperature[known = place.offset[temperatures]]);
    if (job.slopes) s.slopes = job.slopes + row;
    job.loop(&s);
    if (scattered) copy<T>(next, 1, to, w.along[result], job.size);
  }
}

// Rows that lie side by side, a band of them at a time; `begin` and `end` count bands.
template <class T>
void by_columns(const Job& job, int64_t begin, int64_t end, float* room, int64_t room_size) {
  const Walk& w = job.walk;
  const int64_t side = w.sizes.back(), bands = (side + band - 1) / band;
  Slice s{job.size, 0, {}, {}, nullptr, 0, nullptr, room, room_size, nullptr};
  for (int t = 0; t < job.reads; ++t) s.strides[t] = w.along[t];
  s.output_stride = w.along[result];
  Place place(w, w.sizes.size() - 1, begin / bands);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t column = task % bands * band;
    s.columns = std::min(band, side - column);
    for (int t = 0; t < job.reads; ++t) s.inputs[t] = static_cast<const T*>(job.inputs[t]) + place.offset[t] + column;
    s.output = static_cast<T*>(job.output) + place.offset[result] + column;
    const Temperature temperature = prepared(job.temperature[place.offset[temperatures]]);
    s.temperature = &temperature;
    if (job.slopes) s.slopes = job.slopes + task / bands * side + column;
    job.loop(&s);
    if (task % bands == bands - 1) place.next();
  }
}

bool side_by_side(const Job& job) {
  const Walk& w = job.walk;
  if (w.sizes.empty() || w.along[result] == 1 || w.strides.back()[temperatures] != 0) return false;
  bool dense = w.strides.back()[result] == 1;
  for (int t = 0; t < job.reads; ++t) dense = dense && w.strides.back()[t] == 1;
  return dense;
}

void run(const Job& job, int kind, bool keeps) {
  const bool columns = side_by_side(job);
  const int64_t tasks = columns ? job.walk.rows / job.walk.sizes.back() * ((job.walk.sizes.back() + band - 1) / band)
                                : job.walk.rows;
  // a row of vectors: at most 16 floats for each of its elements across memory
  const int64_t needed = columns ? 16 * job.size : job.size + 15;
  const int64_t room_size = keeps && needed <= most_room ? needed : 0;
  const auto part = [&](int64_t begin, int64_t end) {
    const std::unique_ptr<float[]> room(room_size ? new float[room_size] : nullptr);
    if (kind == float32) {
      (columns ? by_columns<float> : by_rows<float>)(job, begin, end, room.get(), room_size);
    } else {
      (columns ? by_columns<uint16_t> : by_rows<uint16_t>)(job, begin, end, room.get(), room_size);
    }
  };
  const int64_t each = job.size * (columns ? std::min(band, job.walk.sizes.back()) : 1);
  if (tasks * each <= grain) {
    part(0, tasks);
  } else {
    torch::stable::parallel_for(0, tasks, std::max<int64_t>(1, grain / each), part);
  }
}

struct Arguments {
  const Tensor* inputs[2];
  int reads;
  int64_t dim;
  double value;
  const Tensor* temperature;  // or null: `value`
};

int64_t stride_of(const Tensor& x, size_t dimension, size_t dimensions) {
  const size_t missing = dimensions - static_cast<size_t>(x.dim());
  if (dimension < missing || x.size(dimension - missing) == 1) return 0;
  return x.stride(dimension - missing);
}

void compute(const char* name, int which, const Arguments& a, Tensor& out, Tensor* slope) {
  const Tensor& x = *a.inputs[a.reads - 1];
  const std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  const int64_t dimensions = x.dim(), limit = std::max<int64_t>(dimensions, 1);
  const int kind = kind_of(x);
  STD_TORCH_CHECK(kind >= 0, "softknee::", name, " takes float32, float16 or bfloat16; convert the input");
  STD_TORCH_CHECK(-limit <= a.dim && a.dim < limit, "softknee::", name, ": dim must be from ", -limit, " to ", limit - 1,
                  ", got ", a.dim);
  const int64_t dim = a.dim < 0 ? a.dim + limit : a.dim;
  if (a.reads > 1) {
    const Tensor& grad = *a.inputs[0];
    STD_TORCH_CHECK(kind_of(grad) == kind && grad.sizes().size() == shape.size() &&
                        std::equal(shape.begin(), shape.end(), grad.sizes().begin()),
                    "softknee::", name, "_backward: grad must have the dtype and the shape of y");
  }
  if (a.temperature != nullptr) {
    const Tensor& t = *a.temperature;
    bool fits = t.scalar_type() == torch::headeronly::ScalarType::Double && t.is_contiguous() && t.dim() <= dimensions;
    for (int64_t d = dimensions; fits && d-- > dimensions - t.dim();) {
      const int64_t size = t.size(d - (dimensions - t.dim()));
      fits = size == 1 || (size == shape[d] && d != dim);
    }
    STD_TORCH_CHECK(fits, "softknee::", name, ": temperature must be contiguous, float64, and of one element along dim");
  }
  out = empty(shape, x);
  if (slope) *slope = empty({a.temperature->sizes().begin(), a.temperature->sizes().end()}, *a.temperature);
  int32_t device = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device));
  if (device != aoti_torch_device_type_cpu()) return;  // a meta tensor has a shape and no values

  Job job{};
  job.size = dimensions ? shape[dim] : 1;
  job.reads = a.reads;
  job.walk.along.fill(1);
  for (int64_t d = 0; d < dimensions; ++d) {
    std::array<int64_t, walked> own{};
    for (int t = 0; t < a.reads; ++t) own[t] = stride_of(*a.inputs[t], d, dimensions);
    own[result] = out.stride(d);
    if (a.temperature != nullptr) own[temperatures] = stride_of(*a.temperature, d, dimensions);
    if (d != dim) {
      job.walk.push(shape[d], own);
    } else if (job.size != 1) {
      job.walk.along = own;
    }
  }
  double* sums = slope ? static_cast<double*>(slope->mutable_data_ptr()) : nullptr;
  if (slope) std::fill(sums, sums + slope->numel(), 0.0);
  if (job.walk.rows == 0 || job.size == 0) return;
  for (int t = 0; t < a.reads; ++t) job.inputs[t] = a.inputs[t]->const_data_ptr();
  job.output = out.mutable_data_ptr();
  job.temperature = a.temperature ? static_cast<const double*>(a.temperature->const_data_ptr()) : &a.value;
  const std::unique_ptr<double[]> slopes(slope ? new double[job.walk.rows] : nullptr);
  job.slopes = slopes.get();
  const SliceLoops& own = loops()[which];
  job.loop = (a.reads > 1 ? own.backward : own.forward)[kind];
  run(job, kind, a.reads == 1 && which == softmax);
  if (slope) {
    Place place(job.walk, job.walk.sizes.size(), 0);
    for (int64_t row = 0; row < job.walk.rows; ++row, place.next()) sums[place.offset[temperatures]] += slopes[row];
  }
}

constexpr const char* names[] = {"softmax", "log_softmax"};

template <int which, int reads, bool tensor>
void kernel(StableIValue* stack, uint64_t, uint64_t) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::vector<Tensor> given;
  given.reserve(3);
  for (int t = 0; t < reads; ++t) given.push_back(to<Tensor>(stack[t]));
  Arguments a{{}, reads, to<int64_t>(stack[reads]), 1.0, nullptr};
  for (int t = 0; t < reads; ++t) a.inputs[t] = &given[t];
  if constexpr (tensor) {
    given.push_back(to<Tensor>(stack[reads + 1]));
    a.temperature = &given[reads];
  } else {
    a.value = to<double>(stack[reads + 1]);
  }
  Tensor out = given[0], slope = given[0];
  constexpr bool both = tensor && reads > 1;
  compute(names[which], which, a, out, both ? &slope : nullptr);
  stack[0] = from(out);
  if constexpr (both) stack[1] = from(slope);
}

template <int which>
void define() {
  const std::string base = names[which], backward = base + "_backward";
  auto& definitions = *new StableLibrary(StableLibrary::Kind::FRAGMENT, "softknee", nullptr, __FILE__, __LINE__);
  definitions.def((base + "(Tensor x, int dim, float temperature) -> Tensor").c_str());
  definitions.def((base + ".Tensor(Tensor x, int dim, Tensor temperature) -> Tensor").c_str());
  definitions.def((backward + "(Tensor grad, Tensor y, int dim, float temperature) -> Tensor").c_str());
  definitions.def((backward + ".Tensor(Tensor grad, Tensor y, int dim, Tensor temperature) -> (Tensor, Tensor)").c_str());
  for (const char* key : {"CPU", "Meta"}) {
    auto& library = *new StableLibrary(StableLibrary::Kind::IMPL, "softknee", key, __FILE__, __LINE__);
    library.impl(base.c_str(), kernel<which, 1, false>);
    library.impl((base + ".Tensor").c_str(), kernel<which, 1, true>);
    library.impl(backward.c_str(), kernel<which, 2, false>);
    library.impl((backward + ".Tensor").c_str(), kernel<which, 2, true>);
  }
}

}  // namespace
}  // namespace softknee

// Registers the operators of one normalizer, once. Returns 0, or 1 for a name that has no kernels.
extern "C" __attribute__((visibility("default"))) int softknee_register_normalizer(const char* name) {
  using namespace softknee;
  if (std::strcmp(name, names[softmax]) == 0) {
    define<softmax>();
  } else if (std::strcmp(name, names[log_softmax]) == 0) {
    define<log_softmax>();
  } else {
    return 1;
  }
  return 0;
}
