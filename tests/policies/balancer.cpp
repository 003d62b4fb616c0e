// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The balancers of graft keep the laws of balancers, and each computes its equation.

#include "catch.hpp"

#include <cmath>
#include <vector>

#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/balancer/z_loss.hpp>

#include "laws/balancer_laws.hpp"

using namespace graft;
using namespace graft::test;

namespace {

using both = all<switch_loss, z_loss>;
using three = all<no_balancer, z_loss, switch_loss>;

template <class B>
B at_scale_one() {
  if constexpr (std::is_same_v<B, switch_loss>)
    return switch_loss{.coefficient = 1};
  else if constexpr (std::is_same_v<B, z_loss>)
    return z_loss{.coefficient = 0.5};
  else if constexpr (std::is_same_v<B, both>)
    return both{.balancers = {switch_loss{.coefficient = 0.75}, {z_loss{.coefficient = 0.25}}}};
  else
    return B{};
}

static_assert(Balancer<both> && Balancer<no_balancer> && !Balancer<int>);
static_assert(!no_balancer::spec.logit_gradients && both::spec.logit_gradients &&
              !all<no_balancer>::spec.logit_gradients);
static_assert(std::is_trivially_copyable_v<three>);

}  // namespace

TEMPLATE_TEST_CASE("balancer: the laws hold", "[policies]", no_balancer, switch_loss, z_loss, both) {
  balancer_laws(at_scale_one<TestType>());
}

TEST_CASE("balancer: switch_loss is its coefficient at balance, for every number of slots", "[policies]") {
  for (const index_t experts : {1, 3, 8}) {
    for (const index_t slots : {1, 2, 5}) {
      const auto uniform = owned_statistics<double>::proportional(
          std::vector<double>(static_cast<std::size_t>(experts), 1.0 / static_cast<double>(experts)), slots);
      CHECK(std::abs(switch_loss{.coefficient = 0.25}.loss(uniform.view()) - 0.25) <= 16 * 0x1p-53);
    }
  }
  // All tokens to one of four experts with certainty: 4.
  const auto collapsed = owned_statistics<double>::proportional({0, 1, 0, 0}, 1);
  CHECK(switch_loss{.coefficient = 1}.loss(collapsed.view()) == 4.0);
  CHECK(switch_loss{}.coefficient == 0.01);
}

TEST_CASE("balancer: z_loss is the mean squared logsumexp, at zero logits the squared logarithm of the experts",
          "[policies]") {
  owned_statistics<double> at = owned_statistics<double>::proportional({0.25, 0.25, 0.25, 0.25}, 2);
  at.mean_squared_lse = std::log(4.0) * std::log(4.0);
  CHECK(z_loss{.coefficient = 0.5}.loss(at.view()) == 0.5 * std::log(4.0) * std::log(4.0));
  CHECK(z_loss{.coefficient = 0.5}.d_log_sum_exp(3.0) == 3.0);
  CHECK(z_loss{}.coefficient == 0.001);
}

TEST_CASE("balancer: all adds its balancers", "[policies]") {
  const auto at = owned_statistics<double>::proportional({0.5, 0.25, 0.25}, 2);
  const switch_loss load{.coefficient = 0.75};
  const z_loss size{.coefficient = 0.25};
  const both sum{.balancers = {load, {size}}};
  CHECK(sum.loss(at.view()) == load.loss(at.view()) + size.loss(at.view()));
  for (index_t i = 0; i < 3; ++i) CHECK(sum.d_mean_score(at.view(), i) == load.d_mean_score(at.view(), i));
  CHECK(sum.d_log_sum_exp(1.5) == size.d_log_sum_exp(1.5));
  const three reordered{.balancers = {no_balancer{}, {size, {load}}}};
  CHECK(reordered.loss(at.view()) == sum.loss(at.view()));  // two terms: their order is free
}
