// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/swiglu.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace swiglu_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class T>
struct swiglu_case {
  tensor<T> gate_up, d_out;
  // Gates from a spread of magnitudes, far into both tails of the sigmoid.
  swiglu_case(index_t rows, index_t hidden)
      : gate_up(tensor<T>::random(rows, 2 * hidden, 1, 4)), d_out(tensor<T>::random(rows, hidden, 2)) {
    const double extremes[] = {0, -30, 30, -90, 90, -200, 200};
    for (index_t i = 0; i < 7 && i < hidden; ++i) gate_up(rows - 1, i) = narrow<T>(extremes[i]);
  }
};

template <class T>
struct swiglu_result {
  tensor<T> out, d_gate_up;
};

template <class T, class Context>
swiglu_result<T> run(Context& ctx, const swiglu_case<T>& c, const std::int32_t* row_count = nullptr) {
  swiglu_result<T> r{tensor<T>(c.d_out.rows, c.d_out.columns, 7), tensor<T>(c.d_out.rows, c.gate_up.columns, 7)};
  swiglu_forward(ctx, r.out.matrix(), c.gate_up.matrix(), row_count);
  swiglu_backward(ctx, r.d_gate_up.matrix(), c.d_out.matrix(), c.gate_up.matrix(), row_count);
  return r;
}

template <class T>
void check_values(const swiglu_case<T>& c, const swiglu_result<T>& r) {
  const index_t rows = c.d_out.rows, hidden = c.d_out.columns;
  const tensor<double> out = reference_swiglu(c.gate_up.wide());
  // exp in fp32 is off by 5 units roundoff (core/math.hpp); about five operations follow. Below e^-87.3 exp in fp32 is
  // 0, where silu(x) is less than 200 * 2^-125: `tiny` allows for that.
  const double tiny = std::is_same_v<T, double> ? 0 : 0x1p-110;
  CHECK(mismatch(r.out, out, [&](index_t t, index_t i) {
          return bound<T>(out.at(t, i), 12, std::abs(out.at(t, i))) + tiny;
        }) == "");

  tensor<double> gradient(rows, 2 * hidden), magnitude(rows, 2 * hidden);
  for (index_t t = 0; t < rows; ++t) {
    for (index_t i = 0; i < hidden; ++i) {
      const double g = c.gate_up.at(t, i), u = c.gate_up.at(t, hidden + i), d = c.d_out.at(t, i);
      const double s = 1 / (1 + std::exp(-g));
      gradient(t, i) = d * u * (s + g * s * (1 - s));
      magnitude(t, i) = std::abs(d * u) * s * (1 + std::abs(g));  // 1 - s is only as good as s is
      gradient(t, hidden + i) = d * g * s;
      magnitude(t, hidden + i) = std::abs(d * g * s);
    }
  }
  CHECK(mismatch(r.d_gate_up, gradient, [&](index_t t, index_t i) {
          return bound<T>(gradient.at(t, i), 16, magnitude.at(t, i)) + tiny;
        }) == "");
}

}  // namespace

TEMPLATE_TEST_CASE("swiglu: values forward and backward", "[ops]", double, float, bfloat16) {
  context<cpu> ctx(context_options{1});
  shuffled_context shuffled(3);
  const index_t rows = GENERATE(1, 5), hidden = GENERATE(1, 8, 100);
  CAPTURE(rows, hidden);
  const swiglu_case<TestType> c(rows, hidden);
  const swiglu_result<TestType> r = run(ctx, c);
  check_values(c, r);
  const swiglu_result<TestType> other = run(shuffled, c);  // no sums: the order changes nothing but how exp is compiled
  check_values(c, other);
}

TEMPLATE_TEST_CASE("swiglu: the same bits on one thread and on two", "[ops]", double, float, bfloat16) {
  context<cpu> one(context_options{1}), two(context_options{2});
  const swiglu_case<TestType> c(301, 100);
  const auto a = run(one, c), b = run(two, c);
  CHECK(same_bits(a.out, b.out));
  CHECK(same_bits(a.d_gate_up, b.d_gate_up));
}

TEMPLATE_TEST_CASE("swiglu: the gradient in the memory of the input", "[ops]", double, float, bfloat16) {
  context<cpu> ctx(context_options{1});
  const swiglu_case<TestType> c(9, 37);
  tensor<TestType> in_place = c.gate_up;
  swiglu_backward(ctx, in_place.matrix(), c.d_out.matrix(), in_place.matrix());
  CHECK(same_bits(in_place, run(ctx, c).d_gate_up));
}

TEST_CASE("swiglu: rows beyond the row count are not touched", "[ops]") {
  context<cpu> ctx(context_options{1});
  const swiglu_case<float> c(6, 9);
  const swiglu_result<float> all = run(ctx, c);
  for (const std::int32_t count : {0, 1, 4, 6}) {
    CAPTURE(count);
    const swiglu_result<float> r = run(ctx, c, &count);
    int wrong = 0;
    for (index_t t = 0; t < 6; ++t) {
      for (index_t i = 0; i < 9; ++i)
        if (r.out.at(t, i) != (t < count ? all.out.at(t, i) : 7)) ++wrong;
      for (index_t i = 0; i < 18; ++i)
        if (r.d_gate_up.at(t, i) != (t < count ? all.d_gate_up.at(t, i) : 7)) ++wrong;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("swiglu: gradient by central differences", "[ops]") {
  context<cpu> ctx(context_options{1});
  swiglu_case<double> c(3, 10);
  for (double& v : c.gate_up.values) v = std::clamp(v / 4, -3.0, 3.0);
  const swiglu_result<double> r = run(ctx, c);
  const auto f = [&] {
    const swiglu_result<double> now = run(ctx, c);
    double sum = 0;
    for (std::size_t i = 0; i < now.out.values.size(); ++i) sum += c.d_out.values[i] * now.out.values[i];
    return sum;
  };
  CHECK(gradient_mismatch(f, c.gate_up.values, r.d_gate_up.values) == "");
}

}  // namespace swiglu_tests
