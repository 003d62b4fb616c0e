// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The laws of the concept Balancer (policies/balancer/balancer.hpp). A test of a balancer of your own:
//
//   #include "catch.hpp"
//   #include "laws/balancer_laws.hpp"
//   TEST_CASE("my_balancer keeps the laws of balancers") { graft::test::balancer_laws(my_balancer{}); }
//
// Scale its coefficient so that its loss is about 1: tolerances of the gradient checks are made for that.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/core/philox.hpp>
#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/router/top_k.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace graft::test {

// The statistics of one balance group, with memory.
template <class M>
struct owned_statistics {
  std::vector<M> counts, mean_scores;
  M mean_squared_lse = M(2);
  index_t slots = 2, tokens = 48;

  balance_statistics<M> view() const {
    return {counts.data(), mean_scores.data(), mean_squared_lse, static_cast<index_t>(counts.size()), slots, tokens};
  }
  // Counts in proportion to the scores given.
  static owned_statistics proportional(const std::vector<double>& scores, index_t slots) {
    owned_statistics result;
    result.slots = slots;
    for (const double score : scores) {
      result.mean_scores.push_back(static_cast<M>(score));
      result.counts.push_back(static_cast<M>(score * static_cast<double>(result.slots * result.tokens)));
    }
    return result;
  }
};

namespace detail {

inline std::vector<double> random_scores(index_t experts, std::uint64_t seed) {
  const tensor<double> values = tensor<double>::random(1, experts, seed);
  return reference_softmax(values).values;
}

template <class B>
void balancer_derivative_laws(const B& balancer, index_t experts) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    owned_statistics<double> at = owned_statistics<double>::proportional(random_scores(experts, seed), 2);
    at.counts = owned_statistics<double>::proportional(random_scores(experts, 50 + seed), 2).counts;  // not the scores'
    std::vector<double> derivative;
    for (index_t i = 0; i < experts; ++i) derivative.push_back(balancer.d_mean_score(at.view(), i));
    const auto loss = [&] { return balancer.loss(at.view()); };
    REQUIRE(std::isfinite(loss()));
    if (std::all_of(derivative.begin(), derivative.end(), [](double d) { return d == 0; })) {
      const double before = loss();
      for (double& score : at.mean_scores) {
        score += 0.1;
        REQUIRE(loss() == before);
        score -= 0.1;
      }
    } else {
      REQUIRE(gradient_mismatch(loss, at.mean_scores, derivative) == "");
    }

    // One token: mean_squared_lse is lse^2, and d_log_sum_exp the derivative of the loss to lse.
    std::vector<double> lse = {0.3 + static_cast<double>(seed)};
    const std::vector<double> through = {balancer.d_log_sum_exp(lse[0])};
    const auto loss_of_lse = [&] {
      owned_statistics<double> one = at;
      one.mean_squared_lse = lse[0] * lse[0];
      return balancer.loss(one.view());
    };
    if (through[0] == 0) {
      const double before = loss_of_lse();
      lse[0] += 0.5;
      REQUIRE(loss_of_lse() == before);
    } else {
      REQUIRE(gradient_mismatch(loss_of_lse, lse, through) == "");
    }
    if (!B::spec.logit_gradients) {
      REQUIRE(through[0] == 0);
      for (const double d : derivative) REQUIRE(d == 0);
    }

    // float: a few operations and a sum of E terms.
    owned_statistics<float> narrow;
    narrow.counts.assign(at.counts.begin(), at.counts.end());
    narrow.mean_scores.assign(at.mean_scores.begin(), at.mean_scores.end());
    REQUIRE(std::abs(static_cast<double>(balancer.loss(narrow.view())) - loss()) <=
            2.0 * static_cast<double>(experts + 8) * 0x1p-24 * (1 + std::abs(loss())));
  }
}

// At its minimum at uniform routing, where counts go with scores; the numbering of experts means nothing.
template <class B>
void balancer_load_laws(const B& balancer, index_t experts) {
  const double share = 1.0 / static_cast<double>(experts);
  const auto uniform =
      owned_statistics<double>::proportional(std::vector<double>(static_cast<std::size_t>(experts), share), 2);
  const double least = balancer.loss(uniform.view());
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    std::vector<double> scores = random_scores(experts, seed);
    const auto uneven = owned_statistics<double>::proportional(scores, 2);
    const double loss = balancer.loss(uneven.view());
    const double allowed =
        4.0 * static_cast<double>(experts + 8) * 0x1p-53 * (1 + std::abs(loss));  // sums of E terms in two orders
    REQUIRE(loss >= least - allowed);
    std::reverse(scores.begin(), scores.end());
    REQUIRE(std::abs(balancer.loss(owned_statistics<double>::proportional(scores, 2).view()) - loss) <= allowed);
  }
}

// The gradient of a layer's routing to the logits is that of sum of d_weights weights + scale * mean over groups of the
// balancer's loss, with the counts held where they are. scores and logsumexp are computed naively here.
template <class B>
void balancer_logit_gradient_law(const B& balancer, index_t experts, index_t groups) {
  constexpr int slots = 1;
  const index_t tokens = 4 * groups, per_group = 4;
  const double scale = 1.5;
  context<cpu> ctx({.threads = 1});
  const top_k<slots> router;  // its weights are 1: all gradient is the balancer's
  tensor<double> logits = tensor<double>::random(tokens, experts, 5);
  tensor<std::int32_t> selected(tokens, slots);
  tensor<double> weights(tokens, slots), d_weights(tokens, slots, 1.0), d_logits(tokens, experts);
  route_forward(ctx, router, selected.matrix(), weights.matrix(), logits.matrix());
  workspace_scope scope(ctx);
  const auto statistics = measure_routing(ctx, logits.matrix(), selected.matrix(), groups);
  std::vector<double> counts(statistics.counts.data, statistics.counts.data + groups * experts);

  double measured = 0.25;
  add_balance_loss(ctx, balancer, statistics, vector_view<double>(&measured, 1));
  const auto auxiliary = [&] {
    const tensor<double> scores = reference_softmax(logits);
    double sum = 0;
    for (index_t g = 0; g < groups; ++g) {
      owned_statistics<double> group;
      group.slots = slots;
      group.tokens = per_group;
      group.counts.assign(counts.begin() + g * experts, counts.begin() + (g + 1) * experts);
      group.mean_scores.assign(static_cast<std::size_t>(experts), 0.0);
      group.mean_squared_lse = 0;
      for (index_t t = g * per_group; t < (g + 1) * per_group; ++t) {
        double total = 0;
        for (index_t i = 0; i < experts; ++i) {
          total += std::exp(logits.at(t, i));
          group.mean_scores[static_cast<std::size_t>(i)] += scores.at(t, i) / static_cast<double>(per_group);
        }
        group.mean_squared_lse += std::log(total) * std::log(total) / static_cast<double>(per_group);
      }
      sum += balancer.loss(group.view());
    }
    return sum / static_cast<double>(groups);
  };
  // add_balance_loss adds to what is there. Sums of E and T terms of about 1.
  REQUIRE(std::abs(measured - 0.25 - auxiliary()) <=
          8.0 * static_cast<double>(experts + tokens) * 0x1p-53 * (1 + std::abs(auxiliary())));

  route_backward(ctx, router, balancer, d_logits.matrix(), statistics, logits.matrix(), selected.matrix(),
                 weights.matrix(), d_weights.matrix(), scale);
  const bool silent =
      std::all_of(d_logits.values.begin(), d_logits.values.end(), [](double d) { return std::abs(d) < 1e-14; });
  if (silent) {  // with one expert the softmax is 1, and a balancer without gradients has none
    REQUIRE((experts == 1 || !B::spec.logit_gradients));
    return;
  }
  REQUIRE(gradient_mismatch([&] { return scale * auxiliary(); }, logits.values, d_logits.values) == "");
}

}  // namespace detail

template <Balancer B>
void balancer_laws(const B& balancer) {
  static_assert(check_balancer<B>());
  for (const index_t experts : {1, 2, 3, 8, 21}) {
    CAPTURE(B::name, experts);
    detail::balancer_derivative_laws(balancer, experts);
    detail::balancer_load_laws(balancer, experts);
    for (const index_t groups : {1, 3}) detail::balancer_logit_gradient_law(balancer, experts, groups);
  }
}

}  // namespace graft::test
