// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The mixture layer with routers that bring a gate of their own, and with experts that choose: gradients by central
// differences through gate, router, dispatch and experts, with padding among the tokens.

#include "catch.hpp"

#include <vector>

#include <graft/layers/moe.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/context_router.hpp>
#include <graft/policies/router/ermoe.hpp>
#include <graft/policies/router/expert_choice.hpp>
#include <graft/policies/router/flex_olmo.hpp>

#include "moe_check.hpp"

namespace gated_moe_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class R>
using policies_of = moe_policies<R, balancers, routed>;

template <class R>
using layer_of = owned_layer<policies_of<R>::template parameters>;

// Normal numbers; what starts as a constant starts so here, where it has a gradient.
template <class R>
layer_of<R> make_layer(const policies_of<R>& policies, index_t experts) {
  layer_of<R> layer(policies.specs(shape_with_experts(experts)));
  for (const tensor_entry& entry : layer.layout.tensors)
    if (entry.init.distribution == initializer::kind::constant)
      for (index_t i = 0; i < entry.size(); ++i)
        layer.values[static_cast<std::size_t>(entry.offset + i)] = entry.init.value;
  return layer;
}

}  // namespace

TEMPLATE_TEST_CASE("layers: moe gradients through other gates by central differences", "[layers]", flex_olmo<2>,
                   flex_olmo_renormalised<3>, context_top_1, context_top_k<2>, sequence_context_top_k<2>, ermoe<2>,
                   expert_choice<5>) {
  constexpr index_t experts = 5;
  const bool padded = GENERATE(false, true);
  CAPTURE(TestType::name, padded);
  context<cpu> ctx({.threads = 1});
  const policies_of<TestType> policies{.balancer = strong};
  layer_of<TestType> layer = make_layer(policies, experts);
  tensor<double> x = tensor<double>::random(12, 6, 2);
  std::vector<std::int32_t> ids(12, 3);
  if (padded) ids[2] = ids[5] = ids[11] = -1;
  routing_pass<double, host_space> pass = pass_of(experts);
  pass.positions = 6;
  pass.ids = view<const std::int32_t, 1>(ids.data(), 12);
  const double scale = 0.75;
  CHECK(layer_mismatch(
            ctx, layer, x,
            [&](const auto& weights, auto in, auto out) {
              return moe_forward<exact>(ctx, policies, weights, pass, in, out);
            },
            [&](const auto& saved) {
              double auxiliary = 0;
              add_balance_loss(ctx, policies.balancer, saved.statistics, vector_view<double>(&auxiliary, 1));
              return scale * auxiliary;
            },
            [&](const auto& weights, const auto& gradients, const auto& saved, auto in, auto d_in, auto d_out) {
              moe_backward<exact>(ctx, policies, weights, gradients, pass, saved, in, d_in, d_out, scale);
            }) == "");
  // Every parameter of the gate took part.
  for (const tensor_entry& entry : layer.layout.tensors) {
    if (entry.kind != role::router || entry.name.find("0.bias") != std::string::npos) continue;
    double largest = 0;
    for (index_t i = 0; i < entry.size(); ++i)
      largest = std::max(largest, std::abs(layer.gradients[static_cast<std::size_t>(entry.offset + i)]));
    CAPTURE(entry.name);
    CHECK(largest > 1e-6);
  }
}

TEST_CASE("layers: with expert choice of all tokens the mixture is the soft one", "[layers]") {
  constexpr index_t experts = 3;
  moe_policies<expert_choice<3>, no_balancer, routed> policies;
  policies.router.capacity_factor = 3;  // each expert takes every token
  owned_moe layer(policies.specs(shape_with_experts(experts)));
  const tensor<double> x = tensor<double>::random(9, 6, 3);
  context<cpu> ctx({.threads = 1});
  workspace_scope scope(ctx);
  tensor<double> out(9, 6), want(9, 6);
  routing_pass<double, host_space> pass = pass_of(experts);
  pass.positions = 9;
  moe_forward<exact>(ctx, policies, layer.weights(), pass, x.matrix(), out.matrix());
  const tensor<double> weights = reference_softmax(reference_linear(x, values_of(layer, "gate")));
  for (index_t e = 0; e < experts; ++e) {
    const tensor<double> y = expert_output(layer, e, x);
    for (index_t t = 0; t < 9; ++t)
      for (index_t i = 0; i < 6; ++i) want(t, i) += weights.at(t, e) * y.at(t, i);
  }
  // Sums of 6, 5 and 3 terms of about 1, a softmax of 3.
  CHECK(mismatch(out, want, [](index_t, index_t) { return 1e-13; }) == "");
}

TEST_CASE("layers: every token meets all rows of a gate, and K experts", "[layers]") {
  const transformer_shape shape = shape_with_experts(5);
  const policies_of<flex_olmo<2>> owned{};
  const policies_of<expert_choice<5>> chosen{};
  const double expert = 3 * 6 * 5;
  CHECK(owned.active_parameters(owned.specs(shape), shape, 0) == 2 * expert + 5 * (6 + 1));
  CHECK(chosen.active_parameters(chosen.specs(shape), shape, 0) == 2 * expert + 5 * 6);
}

}  // namespace gated_moe_tests
