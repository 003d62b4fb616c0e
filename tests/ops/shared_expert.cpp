// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <cmath>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/shared_expert.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace shared_expert_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class T>
struct blend_case {
  using M = accumulator_t<T>;
  tensor<T> routed, shared, d_out;
  tensor<M> logits;
  bool gated;
  double routed_share, shared_share;

  blend_case(index_t tokens, index_t width, bool is_gated, double r, double s)
      : routed(tensor<T>::random(tokens, width, 1)),
        shared(tensor<T>::random(tokens, width, 2)),
        d_out(tensor<T>::random(tokens, width, 3)),
        logits(tensor<M>::random(tokens, 1, 4, 2)),
        gated(is_gated),
        routed_share(r),
        shared_share(s) {}
  double gate(index_t t) const { return gated ? 1 / (1 + std::exp(-logits.at(t))) : 1; }
};

template <class T>
struct blend_result {
  tensor<T> out, d_routed, d_shared;
  tensor<accumulator_t<T>> d_logits;
};

template <class T, class Context>
blend_result<T> run(Context& ctx, const blend_case<T>& c) {
  using M = accumulator_t<T>;
  const auto logits = c.gated ? c.logits.matrix() : matrix_view<const M>{};
  blend_result<T> r{c.routed, tensor<T>(c.d_out.rows, c.d_out.columns, 7), c.shared, tensor<M>(c.d_out.rows, 1, 7)};
  blend_shared(ctx, r.out.matrix(), c.shared.matrix(), logits, c.routed_share, c.shared_share);
  // d_shared in the memory of shared.
  blend_shared_backward(ctx, r.d_routed.matrix(), r.d_shared.matrix(), r.d_logits.matrix(), c.d_out.matrix(),
                        r.d_shared.matrix(), logits, c.routed_share, c.shared_share);
  return r;
}

template <class T>
void check_values(const blend_case<T>& c, const blend_result<T>& r) {
  using M = accumulator_t<T>;
  const index_t tokens = c.d_out.rows, width = c.d_out.columns;
  tensor<double> out(tokens, width), magnitude = out, d_routed = out, d_shared = out, d_logits(tokens, 1),
                                     d_logits_magnitude = d_logits;
  for (index_t t = 0; t < tokens; ++t) {
    const double s = c.gate(t);
    for (index_t i = 0; i < width; ++i) {
      const double a = c.routed_share * c.routed.at(t, i), b = c.shared_share * s * c.shared.at(t, i);
      out(t, i) = a + b;
      magnitude(t, i) = std::abs(a) + std::abs(b);
      d_routed(t, i) = c.routed_share * c.d_out.at(t, i);
      d_shared(t, i) = c.shared_share * s * c.d_out.at(t, i);
      const double term = c.shared_share * s * (1 - s) * c.d_out.at(t, i) * c.shared.at(t, i);
      d_logits(t, 0) += term;
      d_logits_magnitude(t, 0) += std::abs(term);
    }
  }
  // The shares are rounded to M, exp in fp32 is off by 5 units roundoff, about four operations of the sigmoid follow,
  // then at most four products and sums.
  const double operations = 16;
  CHECK(mismatch(r.out, out,
                 [&](index_t t, index_t i) { return bound<T>(out.at(t, i), operations, magnitude.at(t, i)); }) == "");
  CHECK(mismatch(r.d_routed, d_routed, [&](index_t t, index_t i) {
          return bound<T>(d_routed.at(t, i), 2, std::abs(d_routed.at(t, i)));
        }) == "");
  CHECK(mismatch(r.d_shared, d_shared, [&](index_t t, index_t i) {
          return bound<T>(d_shared.at(t, i), operations, std::abs(d_shared.at(t, i)));
        }) == "");
  if (!c.gated) return;
  // 1 - s is as good as s is: within 10 u s / (1 - s) of itself, where s / (1 - s) = exp(logit).
  CHECK(mismatch(r.d_logits, d_logits, [&](index_t t, index_t) {
          return bound<M>(d_logits.at(t), static_cast<double>(width) + 12 + 10 * std::exp(c.logits.at(t)),
                          d_logits_magnitude.at(t));
        }) == "");
}

}  // namespace

TEMPLATE_TEST_CASE("shared_expert: blend, forward and backward", "[ops]", double, float, bfloat16) {
  context<cpu> ctx({.threads = 1});
  shuffled_context shuffled(3);
  const index_t tokens = GENERATE(1, 7), width = GENERATE(1, 37);
  for (const auto& [gated, routed, shared] :
       {std::tuple(false, 1.0, 1.0), {true, 1.0, 1.0}, {false, 2.0 / 3, 1.0 / 3}}) {
    CAPTURE(tokens, width, gated, routed);
    const blend_case<TestType> c(tokens, width, gated, routed, shared);
    check_values(c, run(ctx, c));
    check_values(c, run(shuffled, c));
  }
}

TEST_CASE("shared_expert: the same bits on one thread and on two", "[ops]") {
  context<cpu> one({.threads = 1}), two({.threads = 2});
  const blend_case<float> c(3000, 24, true, 1, 1);
  const auto a = run(one, c), b = run(two, c);
  CHECK((same_bits(a.out, b.out) && same_bits(a.d_routed, b.d_routed) && same_bits(a.d_shared, b.d_shared) &&
         same_bits(a.d_logits, b.d_logits)));
}

TEST_CASE("shared_expert: gradients by central differences", "[ops]") {
  context<cpu> ctx({.threads = 1});
  blend_case<double> c(5, 6, true, 0.75, 0.25);
  const auto r = run(ctx, c);
  const auto f = [&] {
    const auto now = run(ctx, c);
    double sum = 0;
    for (std::size_t i = 0; i < now.out.values.size(); ++i) sum += c.d_out.values[i] * now.out.values[i];
    return sum;
  };
  CHECK(gradient_mismatch(f, c.routed.values, r.d_routed.values) == "");
  CHECK(gradient_mismatch(f, c.shared.values, r.d_shared.values) == "");
  CHECK(gradient_mismatch(f, c.logits.values, r.d_logits.values) == "");
}

}  // namespace shared_expert_tests
