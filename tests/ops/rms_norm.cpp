// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/rms_norm.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace rms_norm_tests {

using namespace graft;
using namespace graft::test;

namespace {

constexpr double eps = 1e-5;

template <class T>
struct norm_case {
  using M = accumulator_t<T>;
  tensor<T> x, delta, weight, d_out, d_residual_in;
  tensor<M> d_weight_in;

  norm_case(index_t tokens, index_t width)
      : x(tensor<T>::random(tokens, width, 1)),
        delta(tensor<T>::random(tokens, width, 2)),
        weight(tensor<T>::random(1, width, 3)),
        d_out(tensor<T>::random(tokens, width, 4)),
        d_residual_in(tensor<T>::random(tokens, width, 5)),
        d_weight_in(tensor<M>::random(1, width, 6)) {}
};

template <class T>
struct norm_result {
  using M = accumulator_t<T>;
  tensor<T> residual, out, d_residual;
  tensor<M> inverse_rms, d_weight;

  bool operator==(const norm_result& other) const {
    return same_bits(residual, other.residual) && same_bits(out, other.out) &&
           same_bits(d_residual, other.d_residual) && same_bits(inverse_rms, other.inverse_rms) &&
           same_bits(d_weight, other.d_weight);
  }
};

template <class T, class Context>
norm_result<T> run(Context& ctx, const norm_case<T>& c, bool with_delta, accumulate add) {
  norm_result<T> r;
  r.residual = r.out = tensor<T>(c.x.rows, c.x.columns, 99);
  r.inverse_rms = tensor<accumulator_t<T>>(1, c.x.rows);
  r.d_residual = c.d_residual_in;
  r.d_weight = c.d_weight_in;
  view<const T, 2> delta;
  if (with_delta) delta = c.delta.matrix();
  add_rms_norm_forward(ctx, r.residual.matrix(), r.out.matrix(), r.inverse_rms.vector(), c.x.matrix(), delta,
                       c.weight.vector(), eps);
  rms_norm_backward(ctx, r.d_residual.matrix(), r.d_weight.vector(), c.d_out.matrix(), r.residual.matrix(),
                    r.inverse_rms.vector(), c.weight.vector(), add);
  return r;
}

template <class T>
void check_values(const norm_case<T>& c, const norm_result<T>& r, bool with_delta, accumulate add) {
  const index_t tokens = c.x.rows, width = c.x.columns;
  const auto n = static_cast<double>(width);
  tensor<double> sum = c.x.wide();
  for (index_t t = 0; t < tokens; ++t)
    for (index_t i = 0; i < width; ++i)
      if (with_delta) sum(t, i) += c.delta.at(t, i);
  CHECK(mismatch(r.residual, sum, [&](index_t t, index_t i) {
          return bound<T>(sum.at(t, i), 2, std::abs(c.x.at(t, i)) + std::abs(c.delta.at(t, i)));
        }) == "");

  // From here on the reference starts at the residual as stored. The mean of squares has n + 2 operations, and its
  // error halves in the root; three more follow.
  const tensor<double> x = r.residual.wide();
  const tensor<double> out = reference_rms_norm(x, c.weight.wide(), eps);
  CHECK(mismatch(r.out, out, [&](index_t t, index_t i) {
          return bound<T>(out.at(t, i), n / 2 + 6, std::abs(out.at(t, i)));
        }) == "");

  tensor<double> scale(1, tokens), d_x(tokens, width), d_x_magnitude(tokens, width), d_w(1, width),
      d_w_magnitude(1, width);
  for (index_t t = 0; t < tokens; ++t) {
    double square = 0, dot = 0, dot_magnitude = 0;
    for (index_t i = 0; i < width; ++i) {
      const double term = c.d_out.at(t, i) * c.weight.at(0, i) * x.at(t, i);
      square += x.at(t, i) * x.at(t, i) / n;
      dot += term / n;
      dot_magnitude += std::abs(term) / n;
    }
    const double s = scale(0, t) = 1 / std::sqrt(square + eps);
    for (index_t i = 0; i < width; ++i) {
      const double through = c.d_out.at(t, i) * c.weight.at(0, i);
      const double before = add == accumulate::yes ? c.d_residual_in.at(t, i) : 0;
      d_x(t, i) = before + s * (through - x.at(t, i) * s * s * dot);
      d_x_magnitude(t, i) = std::abs(before) + s * (std::abs(through) + std::abs(x.at(t, i)) * s * s * dot_magnitude);
      d_w(0, i) += c.d_out.at(t, i) * x.at(t, i) * s;
      d_w_magnitude(0, i) += std::abs(c.d_out.at(t, i) * x.at(t, i) * s);
    }
  }
  for (index_t i = 0; i < width; ++i) {
    d_w(0, i) += c.d_weight_in.at(0, i);
    d_w_magnitude(0, i) += std::abs(c.d_weight_in.at(0, i));
  }
  using M = accumulator_t<T>;
  CHECK(mismatch(r.inverse_rms, scale,
                 [&](index_t, index_t t) { return bound<M>(scale.at(0, t), n / 2 + 4, scale.at(0, t)); }) == "");
  // Three factors of the inverse root, n / 2 + 4 operations each, and a sum of n + 3.
  CHECK(mismatch(r.d_residual, d_x, [&](index_t t, index_t i) {
          return bound<T>(d_x.at(t, i), 2.5 * n + 20, d_x_magnitude.at(t, i));
        }) == "");
  CHECK(mismatch(r.d_weight, d_w, [&](index_t, index_t i) {
          return bound<M>(d_w.at(0, i), n / 2 + 8 + static_cast<double>(tokens), d_w_magnitude.at(0, i));
        }) == "");
}

}  // namespace

TEMPLATE_TEST_CASE("rms_norm: values forward and backward", "[ops]", double, float, bfloat16) {
  context<cpu> ctx(context_options{1});
  const index_t tokens = GENERATE(1, 2, 64, 65, 130);  // chunks of 64 rows: partial, whole, whole and one
  const index_t width = GENERATE(1, 7, 16, 50);
  const bool with_delta = GENERATE(true, false);
  const accumulate add = with_delta ? accumulate::yes : accumulate::no;
  CAPTURE(tokens, width, with_delta);
  const norm_case<TestType> c(tokens, width);
  check_values(c, run(ctx, c, with_delta, add), with_delta, add);
  check_values(c, run(ctx, c, with_delta, accumulate::no), with_delta, accumulate::no);
}

TEMPLATE_TEST_CASE("rms_norm: values when rows and elements are visited in any order", "[ops]", double, float,
                   bfloat16) {
  shuffled_context ctx(7);
  const norm_case<TestType> c(130, 50);
  check_values(c, run(ctx, c, true, accumulate::yes), true, accumulate::yes);
  check_values(c, run(ctx, c, false, accumulate::no), false, accumulate::no);
}

TEMPLATE_TEST_CASE("rms_norm: the same bits on one thread and on two", "[ops]", double, float, bfloat16) {
  context<cpu> one(context_options{1}), two(context_options{2});
  const norm_case<TestType> c(64 * 17 + 3, 1000);  // 18 chunks of rows: enough work for two threads backward too
  CHECK(run(one, c, true, accumulate::yes) == run(two, c, true, accumulate::yes));
}

TEMPLATE_TEST_CASE("rms_norm: in place, and without the weight's gradient", "[ops]", double, float, bfloat16) {
  using T = TestType;
  context<cpu> ctx(context_options{1});
  const norm_case<T> c(70, 33);
  for (const bool with_delta : {true, false}) {
    const norm_result<T> apart = run(ctx, c, with_delta, accumulate::no);
    norm_result<T> r;
    r.residual = c.x;  // residual is x
    r.out = tensor<T>(70, 33);
    r.inverse_rms = tensor<accumulator_t<T>>(1, 70);
    view<const T, 2> delta;
    if (with_delta) delta = c.delta.matrix();
    add_rms_norm_forward(ctx, r.residual.matrix(), r.out.matrix(), r.inverse_rms.vector(), r.residual.matrix(), delta,
                         c.weight.vector(), eps);
    CHECK(same_bits(r.residual, apart.residual));
    CHECK(same_bits(r.out, apart.out));
    CHECK(same_bits(r.inverse_rms, apart.inverse_rms));

    r.d_residual = c.d_residual_in;
    rms_norm_backward(ctx, r.d_residual.matrix(), {}, c.d_out.matrix(), r.residual.matrix(), r.inverse_rms.vector(),
                      c.weight.vector(), accumulate::no);
    CHECK(same_bits(r.d_residual, apart.d_residual));
  }
}

TEST_CASE("rms_norm: a row of zeros has a finite gradient", "[ops]") {
  context<cpu> ctx(context_options{1});
  norm_case<float> c(2, 8);
  std::fill(c.x.values.begin(), c.x.values.begin() + 8, 0.0f);
  const norm_result<float> r = run(ctx, c, false, accumulate::no);
  CHECK(std::abs(r.inverse_rms.at(0, 0) * std::sqrt(eps) - 1) < 4 * 0x1p-24);
  check_values(c, r, false, accumulate::no);
}

TEST_CASE("rms_norm: columns of a wider matrix", "[ops]") {
  // Rows with a stride: the op must not take its operands for contiguous.
  context<cpu> ctx(context_options{1});
  const norm_case<double> c(5, 6);
  const norm_result<double> apart = run(ctx, c, true, accumulate::yes);
  tensor<double> wide_x(5, 20, 3), wide_delta(5, 20, 4), wide_residual(5, 20, 5), wide_out(5, 20, 6);
  for (index_t t = 0; t < 5; ++t)
    for (index_t i = 0; i < 6; ++i) wide_x(t, 2 + i) = c.x.at(t, i), wide_delta(t, 9 + i) = c.delta.at(t, i);
  tensor<double> inverse(1, 5);
  add_rms_norm_forward(ctx, wide_residual.matrix().columns(1, 7), wide_out.matrix().columns(4, 10), inverse.vector(),
                       wide_x.matrix().columns(2, 8), wide_delta.matrix().columns(9, 15), c.weight.vector(), eps);
  int wrong = 0;
  for (index_t t = 0; t < 5; ++t) {
    for (index_t i = 0; i < 20; ++i) {
      if (wide_out.at(t, i) != (i >= 4 && i < 10 ? apart.out.at(t, i - 4) : 6)) ++wrong;
      if (wide_residual.at(t, i) != (i >= 1 && i < 7 ? apart.residual.at(t, i - 1) : 5)) ++wrong;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("rms_norm: gradient by central differences", "[ops]") {
  context<cpu> ctx(context_options{1});
  const index_t tokens = GENERATE(1, 66);
  norm_case<double> c(tokens, 5);
  c.d_weight_in = tensor<double>(1, 5);
  // f = <d_out, out> + <d_residual_in, residual>, brought to about 1.
  for (double& v : c.d_out.values) v /= 10;
  for (double& v : c.d_residual_in.values) v /= 10;
  const norm_result<double> r = run(ctx, c, true, accumulate::yes);
  const auto f = [&] {
    const norm_result<double> now = run(ctx, c, true, accumulate::yes);
    double sum = 0;
    for (std::size_t i = 0; i < c.x.values.size(); ++i)
      sum += c.d_out.values[i] * now.out.values[i] + c.d_residual_in.values[i] * now.residual.values[i];
    return sum;
  };
  CHECK(gradient_mismatch(f, c.x.values, r.d_residual.values) == "");
  CHECK(gradient_mismatch(f, c.delta.values, r.d_residual.values) == "");
  CHECK(gradient_mismatch(f, c.weight.values, r.d_weight.values) == "");
}

}  // namespace rms_norm_tests
