// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The statistics of a layer's routing against naive ones, and the gradient of router and balancer together.

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/balancer/z_loss.hpp>
#include <graft/policies/router/top_k.hpp>

#include "gradient_check.hpp"
#include "laws/balancer_laws.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

using namespace graft;
using namespace graft::test;

namespace {

template <class M>
struct measured {
  tensor<M> counts, mean_scores, mean_squared_lse;
};

template <class M, class Context>
measured<M> measure(Context& ctx, tensor<M> logits, const tensor<std::int32_t>& selected, index_t groups) {
  workspace_scope scope(ctx);
  const std::size_t before = ctx.workspace().live_bytes();
  const auto statistics = measure_routing(ctx, logits.matrix(), selected.matrix(), groups);
  CHECK(statistics.slots == selected.columns);
  CHECK(statistics.tokens_per_group == logits.rows / groups);
  CHECK(ctx.workspace().live_bytes() - before <=
        3 * static_cast<std::size_t>(groups * (logits.columns + 8)) * sizeof(M) + 256);
  measured<M> result{tensor<M>(groups, logits.columns), tensor<M>(groups, logits.columns), tensor<M>(1, groups)};
  for (index_t g = 0; g < groups; ++g) {
    for (index_t i = 0; i < logits.columns; ++i) {
      result.counts(g, i) = statistics.counts(g, i);
      result.mean_scores(g, i) = statistics.mean_scores(g, i);
    }
    result.mean_squared_lse(0, g) = statistics.mean_squared_lse[g];
  }
  return result;
}

template <class M>
tensor<std::int32_t> naive_selection(const tensor<M>& logits) {
  tensor<std::int32_t> selected(logits.rows, 2);
  context<cpu> ctx({.threads = 1});
  tensor<M> weights(logits.rows, 2);
  route_forward(ctx, top_k<2>{}, selected.matrix(), weights.matrix(), logits.matrix());
  return selected;
}

}  // namespace

// Groups of 1, 63, 64, 65 and 192 tokens: below, at and above a chunk of 64.
TEMPLATE_TEST_CASE("routing: statistics against naive sums, for several balance groups", "[layers]", float, double) {
  struct size {
    index_t tokens, groups;
  };
  const size at = GENERATE(size{1, 1}, size{192, 1}, size{192, 3}, size{126, 2}, size{195, 3}, size{12, 12});
  const index_t experts = GENERATE(2, 5);
  tensor<TestType> logits = tensor<TestType>::random(at.tokens, experts, 3, 2.0);
  tensor<std::int32_t> selected = naive_selection(logits);
  selected(0, 1) = -1;  // an empty slot counts for nobody

  context<cpu> one({.threads = 1}), two({.threads = 2});
  const measured<TestType> got = measure(one, logits, selected, at.groups);
  const measured<TestType> got_two = measure(two, logits, selected, at.groups);
  CHECK(same_bits(got.counts, got_two.counts));
  CHECK(same_bits(got.mean_scores, got_two.mean_scores));
  CHECK(same_bits(got.mean_squared_lse, got_two.mean_squared_lse));
  shuffled_context shuffled(9);
  const measured<TestType> got_shuffled = measure(shuffled, logits, selected, at.groups);

  const index_t length = at.tokens / at.groups;
  const tensor<double> scores = reference_softmax(logits.wide());
  tensor<double> counts(at.groups, experts), means(at.groups, experts), squared(1, at.groups);
  for (index_t t = 0; t < at.tokens; ++t) {
    const index_t g = t / length;
    double sum = 0;
    for (index_t i = 0; i < experts; ++i) {
      sum += std::exp(logits.at(t, i));
      means(g, i) += scores.at(t, i) / static_cast<double>(length);
      for (index_t k = 0; k < 2; ++k) counts(g, i) += selected.matrix()(t, k) == i ? 1 : 0;
    }
    squared(0, g) += std::log(sum) * std::log(sum) / static_cast<double>(length);
  }
  CHECK(mismatch(got.counts, counts, [](index_t, index_t) { return 1e-30; }) == "");  // whole numbers
  // Each score is a softmax over E (exp off by 5 u, a sum of E terms), then length / 64 + 64 additions at most; scores
  // add up to at most 1. The squared logsumexp: the same on numbers of its size, twice.
  const double operations = static_cast<double>(experts + length + 16);
  CHECK(mismatch(got.mean_scores, means,
                 [&](index_t g, index_t i) { return bound<TestType>(means.at(g, i), operations, 1); }) == "");
  CHECK(mismatch(got.mean_squared_lse, squared, [&](index_t, index_t g) {
          return bound<TestType>(squared.at(0, g), 2 * operations, 1 + squared.at(0, g));
        }) == "");
  CHECK(same_bits(got_shuffled.counts, got.counts));
  CHECK(mismatch(got_shuffled.mean_scores, means,
                 [&](index_t g, index_t i) { return bound<TestType>(means.at(g, i), operations, 1); }) == "");
}

TEST_CASE("routing: balance groups that do not divide the tokens are refused", "[layers]") {
  context<cpu> ctx({.threads = 1});
  tensor<double> logits(10, 3);
  tensor<std::int32_t> selected(10, 1);
  CHECK_THROWS_WITH(
      measure_routing(ctx, logits.matrix(), selected.matrix(), 3),
      "measure_routing: expected a number of balance groups that divides the tokens, got 3 groups, 10 tokens");
  CHECK_THROWS_AS(measure_routing(ctx, logits.matrix(), selected.matrix(), 0), error);
}

// f(l) = sum_tk d_w weight(l) + scale * mean over groups of loss(l), selection and counts held where they are.
TEST_CASE("routing: gradients of router and balancer add up", "[layers]") {
  using balancer_type = all<switch_loss, z_loss>;
  const balancer_type balancer{.balancers = {switch_loss{.coefficient = 0.5}, {z_loss{.coefficient = 0.25}}}};
  const top_k<2> router;
  const index_t tokens = 12, experts = 5, groups = GENERATE(1, 3, 12);
  const double scale = 0.75;
  context<cpu> ctx({.threads = 1});
  tensor<double> logits = tensor<double>::random(tokens, experts, 8), d_logits(tokens, experts);
  tensor<double> weights(tokens, 2);
  const tensor<double> d_weights = tensor<double>::random(tokens, 2, 9);
  tensor<std::int32_t> selected(tokens, 2);
  const auto loss = [&] {
    workspace_scope scope(ctx);
    tensor<std::int32_t> now(tokens, 2);
    route_forward(ctx, router, now.matrix(), weights.matrix(), logits.matrix());
    if (selected.values != now.values)
      selected = now;  // only the first time: perturbations are far smaller than any gap
    double sum = 0;
    for (std::size_t i = 0; i < weights.values.size(); ++i)
      sum += weights.values[i] * d_weights.values[i] / static_cast<double>(tokens);
    double auxiliary = 0;
    add_balance_loss(ctx, balancer, measure_routing(ctx, logits.matrix(), now.matrix(), groups),
                     vector_view<double>(&auxiliary, 1));
    return sum + scale * auxiliary;
  };
  loss();
  const tensor<std::int32_t> chosen = selected;
  {
    workspace_scope scope(ctx);
    tensor<double> upstream = d_weights;
    for (double& d : upstream.values) d /= static_cast<double>(tokens);
    const auto statistics = measure_routing(ctx, logits.matrix(), selected.matrix(), groups);
    route_backward(ctx, router, balancer, d_logits.matrix(), statistics, logits.matrix(), selected.matrix(),
                   weights.matrix(), upstream.matrix(), scale);
  }
  CHECK(gradient_mismatch(loss, logits.values, d_logits.values) == "");
  CHECK(selected.values == chosen.values);
}
