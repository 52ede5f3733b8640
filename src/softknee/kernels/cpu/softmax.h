// Softmax and log-softmax of x/T along one dimension, and their derivatives. A row is an element of that dimension's
// complement. It lies either along memory (Row: its elements side by side, a vector holds many of one row) or across
// it (Columns: as many rows side by side as a vector has lanes). The arithmetic is written once for both.
//
// A sum's terms are associated by their index alone, so that its bits depend neither on the instructions nor on the
// layout: index i goes to place i mod 32, pieces of 1024 are summed place by place in float, the 32 places by halves,
// and the pieces in double.
#pragma once

namespace softknee {
namespace SOFTKNEE_ISA {

constexpr int places = 32;
constexpr int64_t piece = 1024;

template <class T>
struct View {
  T* start;
  int64_t stride;  // from one step of a line to the next
};

// The step-th vector of a line. whole: all its lanes are in use.
template <bool whole>
struct Cell {
  int64_t step;
  int count;

  template <class T>
  SOFTKNEE_INLINE V load(View<const T> from) const {
    const T* p = from.start + step * from.stride;
    if constexpr (whole) return SOFTKNEE_ISA::load(p);
    return SOFTKNEE_ISA::load(p, count);
  }
  // what is beyond the line reads as `outside`
  template <class T>
  SOFTKNEE_INLINE V load(View<const T> from, float outside) const {
    if constexpr (whole) return load(from);
    return select(number_of_lane() < V(static_cast<float>(count)), load(from), V(outside));
  }
  template <class T>
  SOFTKNEE_INLINE void store(View<T> to, V a) const {
    T* p = to.start + step * to.stride;
    if constexpr (whole) {
      SOFTKNEE_ISA::store(p, a);
    } else {
      SOFTKNEE_ISA::store(p, a, count);
    }
  }
  static SOFTKNEE_INLINE V number_of_lane() {
    static const float numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return SOFTKNEE_ISA::load(numbers);
  }
};

struct Row {
  static constexpr int width = 1;               // rows at once
  static constexpr int slots = places / lanes;  // vectors that hold all places
  int64_t size;

  static constexpr int64_t stride(int64_t) { return lanes; }
  static constexpr int64_t steps_in(int64_t elements) { return elements / lanes; }
  int64_t steps() const { return (size + lanes - 1) / lanes; }

  // function(slot, cell) for the steps from `begin`, a multiple of `slots`, to `end`
  template <class F>
  SOFTKNEE_INLINE void each(int64_t begin, int64_t end, F function) const {
    const int64_t full = size / lanes < end ? size / lanes : end;
    int64_t step = begin;
    for (; step + slots <= full; step += slots) {
#pragma GCC unroll 4
      for (int k = 0; k < slots; ++k) function(k, Cell<true>{step + k, lanes});
    }
#pragma GCC unroll 4
    for (int k = 0; k < slots; ++k) {
      if (step + k < full) function(k, Cell<true>{step + k, lanes});
      if (step + k == full && full < end) function(k, Cell<false>{full, static_cast<int>(size - full * lanes)});
    }
  }
  static SOFTKNEE_INLINE V highest(V a) { return V(SOFTKNEE_ISA::highest(a)); }
  static SOFTKNEE_INLINE void add(double* totals, V a) { totals[0] += SOFTKNEE_ISA::total(a); }
  static SOFTKNEE_INLINE V vector_of(const double* totals) { return V(static_cast<float>(totals[0])); }
};

template <bool whole>
struct Columns {
  static constexpr int width = lanes;
  static constexpr int slots = places;
  int64_t size;
  int count;

  static constexpr int64_t stride(int64_t own) { return own; }
  static constexpr int64_t steps_in(int64_t elements) { return elements; }
  int64_t steps() const { return size; }

  template <class F>
  SOFTKNEE_INLINE void each(int64_t begin, int64_t end, F function) const {
    for (int64_t step = begin; step < end; step += slots) {
      const int part = static_cast<int>(end - step < slots ? end - step : slots);
      for (int k = 0; k < part; ++k) function(k, Cell<whole>{step + k, count});
    }
  }
  static SOFTKNEE_INLINE V highest(V a) { return a; }
  static SOFTKNEE_INLINE void add(double* totals, V a) {
    float values[lanes];
    store(values, a);
    for (int l = 0; l < lanes; ++l) totals[l] += values[l];
  }
  static SOFTKNEE_INLINE V vector_of(const double* totals) {
    float values[lanes];
    for (int l = 0; l < lanes; ++l) values[l] = static_cast<float>(totals[l]);
    return load(values);
  }
};

// `count` sums at once, of what term(cell, sums) adds to each
template <int count, class Line, class F>
SOFTKNEE_INLINE void sums(const Line& line, double (*totals)[Line::width], F term) {
  for (int c = 0; c < count; ++c) {
    for (int l = 0; l < Line::width; ++l) totals[c][l] = 0.0;
  }
  const int64_t steps = line.steps();
  for (int64_t begin = 0; begin < steps; begin += Line::steps_in(piece)) {
    const int64_t end = begin + Line::steps_in(piece) < steps ? begin + Line::steps_in(piece) : steps;
    V parts[Line::slots][count];
    // what is left out is +0, and adding that changes nothing; few places stay in registers
    int used = Line::slots;
    if constexpr (Line::slots > 4) {
      while (used > 1 && used / 2 >= end - begin) used /= 2;
    }
#pragma GCC unroll 4
    for (int k = 0; k < used; ++k) {
      for (int c = 0; c < count; ++c) parts[k][c] = V(0.0f);
    }
    line.each(begin, end, [&](int k, auto cell) __attribute__((always_inline)) { term(cell, parts[k]); });
#pragma GCC unroll 4
    for (int half = used / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
      for (int k = 0; k < half; ++k) {
        for (int c = 0; c < count; ++c) parts[k][c] = parts[k][c] + parts[k + half][c];
      }
    }
    for (int c = 0; c < count; ++c) Line::add(totals[c], parts[0][c]);
  }
}

// Σ of what term(cell, sum) adds to `sum`
template <class Line, class F>
SOFTKNEE_INLINE void sum(const Line& line, double* totals, F term) {
  sums<1>(line, reinterpret_cast<double(*)[Line::width]>(totals),
          [&](auto cell, V* sum) __attribute__((always_inline)) { sum[0] = term(cell, sum[0]); });
}

// A NaN may be passed over: it shows in what is subtracted from the maximum.
template <class T, class Line>
SOFTKNEE_INLINE V maximum_of(const Line& line, View<const T> x) {
  V tops[4] = {V(-infinity), V(-infinity), V(-infinity), V(-infinity)};
  line.each(0, line.steps(), [&](int k, auto cell) __attribute__((always_inline)) {
    tops[k & 3] = larger(tops[k & 3], cell.load(x, -infinity));
  });
  return Line::highest(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])));
}

// exp((x − top)/T), 1.5 ULPs of what the rounded difference gives. With d = (x − top)·unit and T′ = T·unit: d =
// n·T′·ln 2 + r·T′ as in Math::reduced, and a polynomial in r·T′. It is at most 1, so its exponent needs no care.
template <class T>
struct Decay {
  V top, unit, least, inverse, period, rest, reciprocal;
  const Temperature& t;
  Decay(V top, const Temperature& t)
      : top(top), unit(t.unit), least(t.least), inverse(t.inverse), period(t.period), rest(t.rest),
        reciprocal(t.reciprocal), t(t) {}

  SOFTKNEE_INLINE V operator()(V x) const {
    const V d = larger(least, (x - top) * unit), n = round(d * inverse);
    const V r = fnma(n, period, d);
    if constexpr (sizeof(T) == 4) return scale(polynomial(t.exp_full, fnma(n, rest, r)), n);
    return scale(polynomial(t.exp_half, r), n);  // the rest is below what they see
  }
};

// log y for y > 0, within 2⁻²³ where y is near 1: as its products are summed, it needs no relative accuracy. Math::log,
// which has that, divides and takes three times as long.
template <class T>
SOFTKNEE_INLINE V logarithm(V y) {
  const V t = mantissa(y) - V(1.0f);
  return fma(exponent(y), V(0.693147182f), t * polynomial(Polynomials<T>::log1p_c, t));
}

template <class T, class Line>
struct Softmax {
  // y = e/Σe. `room` keeps e where it holds a row; else it is computed twice.
  static SOFTKNEE_INLINE void forward(const Line& line, const Slice& s, View<const T> x, View<T> y, float* room) {
    const Decay<T> decay(maximum_of(line, x), *s.temperature);
    double totals[Line::width];
    V reciprocal, lost;
    const auto divide = [&]() __attribute__((always_inline)) {
      const V total = Line::vector_of(totals);
      reciprocal = V(1.0f) / total;
      lost = fnma(total, reciprocal, V(1.0f)) * reciprocal;
    };
    if (room != nullptr) {
      const View<float> kept{room, lanes};
      sum(line, totals, [&](auto cell, V sum) __attribute__((always_inline)) {
        const V e = decay(cell.load(x, -infinity));
        SOFTKNEE_ISA::store(kept.start + cell.step * lanes, e);
        return sum + e;
      });
      divide();
      line.each(0, line.steps(), [&](int, auto cell) __attribute__((always_inline)) {
        const V e = SOFTKNEE_ISA::load(kept.start + cell.step * lanes);
        cell.store(y, fma(e, reciprocal, e * lost));
      });
    } else {
      sum(line, totals, [&](auto cell, V sum) __attribute__((always_inline)) {
        return sum + decay(cell.load(x, -infinity));
      });
      divide();
      line.each(0, line.steps(), [&](int, auto cell) __attribute__((always_inline)) {
        const V e = decay(cell.load(x));
        cell.store(y, fma(e, reciprocal, e * lost));
      });
    }
  }

  // ∂/∂x: y·(g − Σg·y)/T. ∂/∂T: −Σ ∂/∂xᵢ·xᵢ/T, where xᵢ/T = log yᵢ but for a constant, and Σ ∂/∂xᵢ = 0.
  template <bool tempered>
  static SOFTKNEE_INLINE void backward(const Line& line, const Slice& s, View<const T> grad, View<const T> y,
                                       View<T> out, double* slopes) {
    double totals[Line::width];
    sum(line, totals, [&](auto cell, V sum) __attribute__((always_inline)) {
      return fma(cell.load(grad), cell.load(y), sum);
    });
    const V mean = Line::vector_of(totals), slope(s.temperature->slope);
    const auto part = [&](auto cell, V value) __attribute__((always_inline)) {
      const V product = value * (cell.load(grad) - mean);
      cell.store(out, product * slope);
      return product;
    };
    if constexpr (tempered) {
      sum(line, slopes, [&](auto cell, V sum) __attribute__((always_inline)) {
        const V value = cell.load(y);
        return fma(part(cell, value), only(value > V(0.0f), logarithm<T>(value)), sum);
      });
      for (int l = 0; l < Line::width; ++l) slopes[l] *= -s.temperature->slope_wide;
    } else {
      line.each(0, line.steps(), [&](int, auto cell) __attribute__((always_inline)) { part(cell, cell.load(y)); });
    }
  }
};

template <class T, class Line>
struct LogSoftmax {
  // (x − top)/T − log Σe. The largest, whose e is 1, are summed apart: log(1 + the rest) has the digits of a small rest.
  static SOFTKNEE_INLINE void forward(const Line& line, const Slice& s, View<const T> x, View<T> y, float*) {
    const Decay<T> decay(maximum_of(line, x), *s.temperature);
    double totals[2][Line::width];
    sums<2>(line, totals, [&](auto cell, V* sums) __attribute__((always_inline)) {
      const V value = cell.load(x, -infinity), e = decay(value);
      const M top = value >= decay.top;
      sums[0] = add_where(top, sums[0], e);
      sums[1] = select(top, sums[1], sums[1] + e);
    });
    const V rest = (Line::vector_of(totals[0]) - V(1.0f)) + Line::vector_of(totals[1]);
    const V minus_log = -Math<float>::log1p(rest);
    line.each(0, line.steps(), [&](int, auto cell) __attribute__((always_inline)) {
      cell.store(y, fma((cell.load(x) - decay.top) * decay.unit, decay.reciprocal, minus_log));
    });
  }

  // ∂/∂x: (g − eʸ·Σg)/T. ∂/∂T: −Σ ∂/∂xᵢ·(xᵢ − top)/T, where that quotient is yᵢ − max y; nothing from a masked −∞.
  template <bool tempered>
  static SOFTKNEE_INLINE void backward(const Line& line, const Slice& s, View<const T> grad, View<const T> y,
                                       View<T> out, double* slopes) {
    double totals[Line::width];
    sum(line, totals, [&](auto cell, V sum) __attribute__((always_inline)) { return sum + cell.load(grad); });
    const V total = Line::vector_of(totals), slope(s.temperature->slope);
    const auto part = [&](auto cell, V value) __attribute__((always_inline)) {
      const V difference = fnma(Math<float>::decay_exp(value), total, cell.load(grad));
      cell.store(out, difference * slope);
      return difference;
    };
    if constexpr (tempered) {
      const V top = maximum_of(line, y);
      sum(line, slopes, [&](auto cell, V sum) __attribute__((always_inline)) {
        const V value = cell.load(y, -infinity);
        const V term = part(cell, value) * (value - top);
        return select(value <= V(-infinity), sum, sum + term);
      });
      for (int l = 0; l < Line::width; ++l) slopes[l] *= -s.temperature->slope_wide;
    } else {
      line.each(0, line.steps(), [&](int, auto cell) __attribute__((always_inline)) { part(cell, cell.load(y)); });
    }
  }
};

template <template <class, class> class F>
struct Normalizer {
  // function(line, rows before it) for the row, or for the columns a vector at a time
  template <class Function>
  static SOFTKNEE_INLINE void lines(const Slice& s, Function function) {
    if (s.columns == 0) {
      function(Row{s.size}, 0);
      return;
    }
    int64_t j = 0;
    for (; j + lanes <= s.columns; j += lanes) function(Columns<true>{s.size, lanes}, j);
    if (j < s.columns) function(Columns<false>{s.size, static_cast<int>(s.columns - j)}, j);
  }

  template <class T>
  static void forward(const Slice* s) {
    lines(*s, [s](auto line, int64_t j) __attribute__((always_inline)) {
      using Line = decltype(line);
      const View<const T> x{static_cast<const T*>(s->inputs[0]) + j, Line::stride(s->strides[0])};
      const View<T> y{static_cast<T*>(s->output) + j, Line::stride(s->output_stride)};
      F<T, Line>::forward(line, *s, x, y, line.steps() * lanes <= s->room_size ? s->room : nullptr);
    });
  }

  template <class T>
  static void backward(const Slice* s) {
    lines(*s, [s](auto line, int64_t j) __attribute__((always_inline)) {
      using Line = decltype(line);
      const View<const T> grad{static_cast<const T*>(s->inputs[0]) + j, Line::stride(s->strides[0])};
      const View<const T> y{static_cast<const T*>(s->inputs[1]) + j, Line::stride(s->strides[1])};
      const View<T> out{static_cast<T*>(s->output) + j, Line::stride(s->output_stride)};
      if (s->slopes == nullptr) {
        F<T, Line>::template backward<false>(line, *s, grad, y, out, nullptr);
        return;
      }
      double slopes[Line::width];
      F<T, Line>::template backward<true>(line, *s, grad, y, out, slopes);
      const int64_t rows = Line::width == 1 ? 1 : s->columns - j < lanes ? s->columns - j : lanes;
      for (int64_t l = 0; l < rows; ++l) s->slopes[j + l] = slopes[l];
    });
  }

  static constexpr SliceLoops loops = {{forward<float>, forward<half>, forward<bfloat>},
                                       {backward<float>, backward<half>, backward<bfloat>}};
};

static const SliceLoops normalizers[] = {Normalizer<Softmax>::loops, Normalizer<LogSoftmax>::loops};

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
