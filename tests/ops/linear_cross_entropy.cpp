// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/linear_cross_entropy.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace linear_cross_entropy_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class T>
struct loss_case {
  using M = accumulator_t<T>;
  tensor<T> x, head;
  tensor<M> d_head_before;
  tensor<std::int32_t> targets;
  double scale = 0.375;

  // Every third token has no target.
  loss_case(index_t tokens, index_t width, index_t vocabulary)
      : x(tensor<T>::random(tokens, width, 1)),
        head(tensor<T>::random(vocabulary, width, 2)),
        d_head_before(tensor<M>::random(vocabulary, width, 3)) {
    targets.rows = 1, targets.columns = tokens;
    const random_source source{4, random_stream::data};
    for (index_t t = 0; t < tokens; ++t) {
      const auto drawn = source.below(static_cast<std::uint64_t>(vocabulary), 0, static_cast<std::uint64_t>(t));
      targets.values.push_back(t % 3 == 1 ? -1 : static_cast<std::int32_t>(drawn));
    }
  }
};

template <class T>
struct loss_result {
  using M = accumulator_t<T>;
  tensor<M> losses, losses_alone, d_head;
  tensor<T> d_x;
  bool operator==(const loss_result& other) const {
    return same_bits(losses, other.losses) && same_bits(losses_alone, other.losses_alone) &&
           same_bits(d_head, other.d_head) && same_bits(d_x, other.d_x);
  }
};

template <class T, class Context>
loss_result<T> run(Context& ctx, const loss_case<T>& c) {
  loss_result<T> r;
  r.losses = r.losses_alone = tensor<accumulator_t<T>>(1, c.x.rows, 5);
  r.d_head = c.d_head_before;
  r.d_x = tensor<T>(c.x.rows, c.x.columns, 5);
  linear_cross_entropy(ctx, r.losses_alone.vector(), c.x.matrix(), c.head.matrix(), c.targets.vector());
  linear_cross_entropy_backward(ctx, r.losses.vector(), r.d_x.matrix(), r.d_head.matrix(), c.x.matrix(),
                                c.head.matrix(), c.targets.vector(), c.scale);
  return r;
}

template <class T>
void check_values(const loss_case<T>& c, const loss_result<T>& r) {
  using M = accumulator_t<T>;
  const index_t tokens = c.x.rows, width = c.x.columns, vocabulary = c.head.rows;
  const tensor<double> x = c.x.wide(), head = c.head.wide(), logits = reference_linear(x, head),
                       p = reference_softmax(logits);
  tensor<double> losses(1, tokens), losses_error(1, tokens), d_x(tokens, width), d_x_error(tokens, width);
  tensor<double> d_head = c.d_head_before.wide(), d_head_error(vocabulary, width), d_head_magnitude(vocabulary, width);
  const double u = unit_roundoff<M> * (std::is_same_v<T, double> ? 2 : 1);  // in fp64 the reference errs as well
  for (index_t v = 0; v < vocabulary; ++v)
    for (index_t i = 0; i < width; ++i) d_head_magnitude(v, i) = std::abs(d_head.at(v, i));
  for (index_t t = 0; t < tokens; ++t) {
    const std::int32_t target = c.targets.values[static_cast<std::size_t>(t)];
    if (target < 0) continue;
    double sum = 0, top = logits.at(t, 0), logit_magnitude = 0;
    for (index_t v = 0; v < vocabulary; ++v) top = std::max(top, logits.at(t, v));
    for (index_t v = 0; v < vocabulary; ++v) {
      sum += std::exp(logits.at(t, v) - top);
      double magnitude = 0;
      for (index_t i = 0; i < width; ++i) magnitude += std::abs(x.at(t, i) * head.at(v, i));
      logit_magnitude = std::max(logit_magnitude, magnitude);
    }
    losses(0, t) = std::log(sum) + top - logits.at(t, target);
    // A logit is a sum of `width` products. A probability depends on the difference of two logits (the largest, and
    // itself) and of the sum over the vocabulary of exponentials, each off by 5 units. A loss adds a logarithm and two
    // more operations.
    const double logit_error = (static_cast<double>(width) + 1) * u * logit_magnitude;
    const double relative = 4 * logit_error + (static_cast<double>(vocabulary) + 16) * u;
    losses_error(0, t) = 1.01 * (relative + 4 * u * (std::abs(top) + std::abs(logits.at(t, target)) + std::log(sum)));
    for (index_t v = 0; v < vocabulary; ++v) {
      const double at_target = v == target ? 1 : 0;
      const double d_logit = c.scale * (p.at(t, v) - at_target);
      // A gradient of a logit is rounded to T, then enters two products.
      const double d_logit_error =
          unit_roundoff<T> * std::abs(d_logit) + (relative + 2 * u) * c.scale * (p.at(t, v) + at_target);
      for (index_t i = 0; i < width; ++i) {
        d_x(t, i) += d_logit * head.at(v, i);
        d_x_error(t, i) +=
            (d_logit_error + (static_cast<double>(vocabulary) + 1) * u * std::abs(d_logit)) * std::abs(head.at(v, i));
        d_head(v, i) += d_logit * x.at(t, i);
        d_head_error(v, i) += d_logit_error * std::abs(x.at(t, i));
        d_head_magnitude(v, i) += std::abs(d_logit * x.at(t, i));
      }
    }
  }
  CHECK(mismatch(r.losses, losses, [&](index_t, index_t t) { return losses_error.at(0, t) + 0x1p-1000; }) == "");
  CHECK(mismatch(r.losses_alone, losses, [&](index_t, index_t t) { return losses_error.at(0, t) + 0x1p-1000; }) == "");
  CHECK(mismatch(r.d_x, d_x,
                 [&](index_t t, index_t i) { return bound<T>(d_x.at(t, i), 0, 0) + 1.01 * d_x_error.at(t, i); }) == "");
  // Chunks of tokens add to d_head one after another: no more operations than tokens, and the first value.
  CHECK(mismatch(r.d_head, d_head, [&](index_t v, index_t i) {
          return bound<M>(d_head.at(v, i), static_cast<double>(tokens) + 2, d_head_magnitude.at(v, i)) +
                 1.01 * d_head_error.at(v, i);
        }) == "");
  // A token without a target has loss 0 and leaves no trace.
  int wrong = 0;
  for (index_t t = 0; t < tokens; ++t) {
    if (c.targets.values[static_cast<std::size_t>(t)] >= 0) continue;
    if (r.losses.at(0, t) != 0 || r.losses_alone.at(0, t) != 0) ++wrong;
    for (index_t i = 0; i < width; ++i)
      if (r.d_x.at(t, i) != 0) ++wrong;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("linear_cross_entropy: values forward and backward", "[ops]", double, float, bfloat16) {
  context<cpu> ctx(context_options{1});
  shuffled_context shuffled(6);
  const index_t tokens = GENERATE(1, 5, 40), width = GENERATE(1, 24), vocabulary = GENERATE(1, 2, 75);
  CAPTURE(tokens, width, vocabulary);
  const loss_case<TestType> c(tokens, width, vocabulary);
  check_values(c, run(ctx, c));
  check_values(c, run(shuffled, c));
}

TEMPLATE_TEST_CASE("linear_cross_entropy: more tokens than logits are held at once", "[ops][slow]", float, bfloat16) {
  // A vocabulary of 2^13 leaves room for 128 tokens, fewer than the fewest: chunks of 256, 256 and 5.
  static_assert(detail::logit_budget / 8192 < 256 && detail::fewest_logit_rows == 256,
                "the test expects chunks of 256 tokens. Choose its sizes anew.");
  context<cpu> one(context_options{1}), two(context_options{2});
  const loss_case<TestType> c(517, 3, 8192);
  const loss_result<TestType> r = run(one, c);
  check_values(c, r);
  CHECK(r == run(two, c));
  CHECK(two.workspace().peak_bytes() <= 256 * 8192 * (sizeof(float) + sizeof(TestType)) + 4096);  // never (T, V)
}

TEMPLATE_TEST_CASE("linear_cross_entropy: the same bits on one thread and on two", "[ops]", double, float, bfloat16) {
  context<cpu> one(context_options{1}), two(context_options{2});
  const loss_case<TestType> c(300, 40, 600);  // more than one block of every product
  CHECK(run(one, c) == run(two, c));
}

TEMPLATE_TEST_CASE("linear_cross_entropy: a frozen head, and no target at all", "[ops]", double, float, bfloat16) {
  using T = TestType;
  context<cpu> ctx(context_options{1});
  loss_case<T> c(20, 8, 30);
  const loss_result<T> all = run(ctx, c);
  loss_result<T> r = all;
  r.d_x = tensor<T>(20, 8, 5);
  linear_cross_entropy_backward(ctx, r.losses.vector(), r.d_x.matrix(), {}, c.x.matrix(), c.head.matrix(),
                                c.targets.vector(), c.scale);
  CHECK(same_bits(r.d_x, all.d_x));
  CHECK(same_bits(r.losses, all.losses));

  std::fill(c.targets.values.begin(), c.targets.values.end(), -1);
  check_values(c, run(ctx, c));
  CHECK(same_bits(run(ctx, c).d_head, c.d_head_before));
}

TEMPLATE_TEST_CASE("linear_cross_entropy: logits whose exponentials overflow", "[ops]", double, float, bfloat16) {
  using T = TestType;
  context<cpu> ctx(context_options{1});
  // Logits of 4000, 3999 and -4000: a softmax that does not subtract the largest gives infinities.
  loss_case<T> c(2, 1, 3);
  c.x(0, 0) = c.x(1, 0) = narrow<T>(1);
  c.head(0, 0) = narrow<T>(4000), c.head(1, 0) = narrow<T>(3968), c.head(2, 0) = narrow<T>(-4000);
  c.targets.values = {1, 2};
  check_values(c, run(ctx, c));
}

TEST_CASE("linear_cross_entropy: gradient by central differences", "[ops]") {
  context<cpu> ctx(context_options{1});
  loss_case<double> c(7, 4, 9);
  c.d_head_before = tensor<double>(9, 4);
  const loss_result<double> r = run(ctx, c);
  const auto f = [&] {
    tensor<double> losses(1, 7);
    linear_cross_entropy(ctx, losses.vector(), std::as_const(c.x).matrix(), c.head.matrix(), c.targets.vector());
    double sum = 0;
    for (const double loss : losses.values) sum += c.scale * loss;
    return sum;
  };
  CHECK(gradient_mismatch(f, c.x.values, r.d_x.values) == "");
  CHECK(gradient_mismatch(f, c.head.values, r.d_head.values) == "");
}

}  // namespace linear_cross_entropy_tests
