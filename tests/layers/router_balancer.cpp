// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Every router with every balancer that goes with it: the layer's loss is that of the definition, and the gradient to
// the logits is that of weights and losses together, by central differences in double precision. Groups, sequences,
// steps of several passes, padding. Routers that differ in their gate alone stand here once.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/all_balancers.hpp>
#include <graft/policies/router/all_routers.hpp>
#include <graft/policies/router/ermoe.hpp>
#include <graft/policies/router/expert_choice.hpp>

#include "laws/balancer_laws.hpp"

namespace router_balancer_tests {

using namespace graft;
using namespace graft::test;

namespace {

constexpr index_t expert_count = 6;

// Options under which each router does what sets it apart.
template <class R>
R make_router() {
  R router{};
  if constexpr (requires { router.select.kept_groups; }) {
    router.select.groups = 3;
    router.select.kept_groups = 2;
  }
  if constexpr (requires { router.weigh.scale; }) router.weigh.scale = 2.5;
  return router;
}

template <class R, class B>
constexpr bool go_together = (!graft::detail::pushes_on_logits<B> || R::spec.logits) &&
                             (!graft::detail::pushes_on_weights<B> || R::spec.logit_gradients) &&
                             (!graft::detail::keeps_selection_bias<B> || R::spec.selection_bias);

template <class R, class B>
void check_pair(const R& router) {
  if constexpr (go_together<R, B>) {
    CAPTURE(R::name, B::name);
    for (routed_pass pass : routed_passes(expert_count, expert_count + R::spec.extra_logits, 40)) {
      CAPTURE(pass.groups);
      if (R::spec.selection_bias) pass.bias = {0.3, -0.2, 0, 0.1, -0.4, 0.2};
      graft::test::detail::balancer_layer_law(router, with_coefficient<B>(0.75), pass);
    }
  }
}

template <class R, class... Balancers>
void check_router() {
  const R router = make_router<R>();
  (check_pair<R, Balancers>(router), ...);
}

using every_loss = all<btx_loss, switch_loss, sequence_loss, global_batch_loss, z_loss, dirichlet_prior>;

}  // namespace

TEMPLATE_TEST_CASE("routing: every router with every balancer", "[layers]", top_k<1>, top_k<2>, softmax_top_k<2>,
                   renormalised_top_k<2>, switch_top_1, sample_top_1<>, sample_top_1<6>, sigmoid_top_k<2>,
                   group_limited_top_k<2>, null_top_k<2>, soft<6>, ermoe<2>, expert_choice<6>) {
  check_router<TestType, no_balancer, switch_loss, sequence_loss, global_batch_loss, btx_loss, z_loss, loss_free_bias,
               dirichlet_prior, every_loss, all<loss_free_bias, sequence_loss>>();
}

// Tokens whose logits are one another's rotations: the mean probability of every expert is 1/E, and the loss is its
// coefficient, however many of its slots a router fills.
TEMPLATE_TEST_CASE("routing: losses over the load are 1 at even probabilities for every router", "[layers]", top_k<2>,
                   switch_top_1, sample_top_1<6>, sigmoid_top_k<2>, group_limited_top_k<2>, soft<6>, ermoe<2>,
                   expert_choice<6>) {
  context<cpu> ctx({.threads = 1});
  routed_pass pass;
  pass.experts = expert_count, pass.positions = 6;
  pass.logits = tensor<double>(12, expert_count);
  const tensor<double> base = tensor<double>::random(1, expert_count, 9);
  for (index_t t = 0; t < 12; ++t)
    for (index_t i = 0; i < expert_count; ++i) pass.logits(t, i) = base.at(0, (t + i) % expert_count);
  using losses = all<switch_loss, sequence_loss, global_batch_loss>;
  const losses balancer{
      .balancers = {{.coefficient = 1}, {sequence_loss{.coefficient = 0.5}, {global_batch_loss{.coefficient = 0.25}}}}};
  CHECK(std::abs(route(ctx, make_router<TestType>(), balancer, pass).loss - 1.75) <= 1e-14);
}

// A router without logits: what it does is counted, and there is nothing to push on.
TEST_CASE("routing: a hash router's load", "[layers]") {
  context<cpu> ctx({.threads = 1});
  routed_pass pass;
  pass.experts = expert_count;
  pass.logits = tensor<double>(40, expert_count);  // not read
  for (index_t t = 0; t < 40; ++t) pass.ids.push_back(t % 8 == 7 ? -1 : static_cast<std::int32_t>(t % 5));
  pass.load.assign(static_cast<std::size_t>(routing_load{expert_count}.size()), 0.0);
  const routing_result routed = route(ctx, hash_router<2>{}, no_balancer{}, pass);
  std::vector<double> counts(pass.load.size(), 0.0);
  counts[static_cast<std::size_t>(expert_count)] = 35;
  for (const std::int32_t expert : routed.selected.values)
    if (expert >= 0) counts[static_cast<std::size_t>(expert)] += 1;
  CHECK(routed.load == counts);
  CHECK(std::accumulate(counts.begin(), counts.begin() + expert_count, 0.0) == 70);
  CHECK(routed.loss == 0);
}

// With the M copies of the null logit written out: the load loss over N + M slots and the z-loss over N + M logits.
TEST_CASE("routing: null copies against copies that exist", "[layers]") {
  const index_t experts = 6, tokens = 10;
  context<cpu> ctx({.threads = 1});
  for (const double rho : {0.5, 0.75, 0.25, 1.0}) {
    CAPTURE(rho);
    null_top_k<3> router;
    router.select.rho = rho;
    const index_t copies = null_copies(rho, experts), all_slots = experts + copies;
    routed_pass pass;
    pass.experts = experts;
    pass.logits = tensor<double>::random(tokens, experts + 1, 14);
    pass.load.assign(static_cast<std::size_t>(routing_load{experts + 1}.size()), 0.0);
    tensor<double> written(tokens, all_slots);
    for (index_t t = 0; t < tokens; ++t)
      for (index_t i = 0; i < all_slots; ++i) written(t, i) = pass.logits.at(t, std::min(i, experts));
    const tensor<double> p = reference_softmax(written);
    const routing_result load = route(ctx, router, switch_loss{.coefficient = 1}, pass);
    const routing_result size = route(ctx, router, z_loss{.coefficient = 1}, pass);
    std::vector<double> counts(static_cast<std::size_t>(experts), 0.0), mean(static_cast<std::size_t>(all_slots), 0.0);
    double empty = 0, want_size = 0, entropy = 0;
    for (index_t t = 0; t < tokens; ++t) {
      double total = 0;
      for (index_t i = 0; i < all_slots; ++i) {
        mean[static_cast<std::size_t>(i)] += p.at(t, i) / static_cast<double>(tokens);
        total += std::exp(written.at(t, i));
        entropy -= p.at(t, i) * std::log(p.at(t, i));
      }
      want_size += std::log(total) * std::log(total) / static_cast<double>(tokens);
      for (index_t k = 0; k < 3; ++k) {
        const std::int32_t expert = load.selected.matrix()(t, k);
        if (expert < 0)
          empty += 1;
        else
          counts[static_cast<std::size_t>(expert)] += 1;
      }
    }
    double want_load = 0;  // copies share the empty slots in any way: their probabilities are equal
    for (index_t i = 0; i < experts; ++i)
      want_load += counts[static_cast<std::size_t>(i)] * mean[static_cast<std::size_t>(i)];
    if (copies > 0) want_load += empty * mean[static_cast<std::size_t>(experts)];
    want_load *= static_cast<double>(all_slots) / (3.0 * static_cast<double>(tokens));
    CHECK(std::abs(load.loss - want_load) <= 1e-14 * want_load);
    CHECK(std::abs(size.loss - want_size) <= 1e-14 * want_size);
    CHECK(load.load[static_cast<std::size_t>(experts)] == empty);
    CHECK((empty > 0) == (copies > 0));
    CHECK(std::abs(load.load[static_cast<std::size_t>(routing_load{experts + 1}.entropy())] - entropy) <= 1e-12);
  }
}

// Tokens that all lean on the same experts: the bias evens the load of a layer without a loss. MaxVio is the largest
// load over the mean, less 1.
TEST_CASE("routing: loss_free_bias evens the load of sigmoid_top_k", "[layers]") {
  const index_t tokens = 300;
  context<cpu> ctx({.threads = 1});
  const loss_free_bias balancer{.rate = 0.01};
  routed_pass pass;
  pass.experts = expert_count;
  pass.logits = tensor<double>::random(tokens, expert_count, 3);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t i = 0; i < expert_count; ++i) pass.logits(t, i) += 0.4 * static_cast<double>(i);
  pass.bias.assign(static_cast<std::size_t>(expert_count), 0.0);
  const auto step = [&] {
    pass.load.assign(static_cast<std::size_t>(routing_load{expert_count}.size()), 0.0);
    std::vector<double> load = route(ctx, sigmoid_top_k<2>{}, balancer, pass).load;
    end_balance_step(ctx, balancer, vector_view<double>(pass.bias.data(), expert_count),
                     vector_view<double>(load.data(), static_cast<index_t>(load.size())));
    return *std::max_element(load.begin(), load.begin() + expert_count) * 6 / (2.0 * 300) - 1;
  };
  const double first = step();
  for (int i = 0; i < 100; ++i) step();
  const double last = step();
  CHECK(first > 0.8);
  CHECK(last < 0.1);
}

}  // namespace router_balancer_tests
