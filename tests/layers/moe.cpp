// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The mixture-of-experts layer: gradients by central differences in all the cases that break such layers (experts
// without a token, one expert, a number that is no power of two, all experts), and the layers that it is known to
// equal.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include <graft/layers/block.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

#include "moe_check.hpp"

namespace moe_tests {

using namespace graft;
using namespace graft::test;

namespace {

struct switch_router : row_router<softmax_score, select_top<1>, selected_score> {
  static constexpr const char* name = "switch";
};
template <int K>
struct soft_router : row_router<softmax_score, select_top<K>, selected_score> {
  static constexpr const char* name = "soft";
};

template <class R>
using policies_of = moe_policies<R, balancers, routed>;

using mixture_type = mixture<top_k<2>, balancers, routed>;
template <class Leaf>
using mixture_block = block_parameters<Leaf, mixture_type>;

}  // namespace

TEMPLATE_TEST_CASE("layers: moe gradients by central differences", "[layers]", top_k<1>, top_k<2>, top_k<3>,
                   switch_router) {
  const index_t experts = GENERATE(1, 3, 5);
  const index_t groups = GENERATE(1, 2);
  if (experts < TestType::spec.experts_per_token) return;
  CAPTURE(TestType::name, TestType::spec.experts_per_token, experts, groups);
  context<cpu> ctx({.threads = 1});
  const policies_of<TestType> policies{.balancer = strong};
  owned_moe layer(policies.specs(shape_with_experts(experts)));
  tensor<double> x = tensor<double>::random(8, 6, 2);
  CHECK(moe_mismatch(ctx, layer, x, policies, pass_of(experts, groups)) == "");
}

TEST_CASE("layers: moe experts with no token get a gradient of zero", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const policies_of<top_k<2>> policies{.balancer = strong};
  owned_moe layer(policies.specs(shape_with_experts(5)));
  // The first input is 1 throughout; experts 0, 2 and 4 have a logit far below: all tokens go to 1 and 3.
  tensor<double> x = tensor<double>::random(8, 6, 2);
  double* gate = layer.tensor_values("gate.weight");
  for (index_t t = 0; t < x.rows; ++t) x(t, 0) = 1;
  for (index_t e = 0; e < 5; e += 2) gate[e * 6] = -20;
  CHECK(moe_mismatch(ctx, layer, x, policies, pass_of(5)) == "");
  for (const index_t e : {0, 2, 4})
    for (const char* part : {"w1", "w2", "w3"}) {
      const std::string name = "experts." + std::to_string(e) + "." + part + ".weight";
      for (index_t i = 0; i < 30; ++i) REQUIRE(layer.tensor_gradients(name)[i] == 0);
    }
  CHECK(layer.tensor_gradients("experts.1.w2.weight")[0] != 0);
  CHECK(layer.tensor_gradients("experts.3.w1.weight")[0] != 0);
}

TEST_CASE("layers: moe with all experts equals the soft mixture and the sum by hand", "[layers]") {
  const transformer_shape shape = shape_with_experts(3);
  owned_moe layer(moe_policies<top_k<3>, no_balancer, routed>{}.specs(shape));
  const tensor<double> x = tensor<double>::random(9, 6, 3);
  const tensor<double> hard = moe_output(moe_policies<top_k<3>, no_balancer, routed>{}, layer, x);
  const tensor<double> soft = moe_output(moe_policies<soft_router<3>, no_balancer, routed>{}, layer, x);

  tensor<double> gate(3, 6), by_hand(9, 6);
  std::copy_n(layer.tensor_values("gate.weight"), gate.values.size(), gate.values.begin());
  const tensor<double> weights = reference_softmax(reference_linear(x, gate));
  for (index_t e = 0; e < 3; ++e) {
    const tensor<double> y = expert_output(layer, e, x);
    for (index_t t = 0; t < 9; ++t)
      for (index_t i = 0; i < 6; ++i) by_hand(t, i) += weights.at(t, e) * y.at(t, i);
  }
  // Sums of 6, 5 and 3 terms of about 1, a softmax of 3.
  const auto allowed = [](index_t, index_t) { return 1e-13; };
  CHECK(mismatch(hard, by_hand, allowed) == "");
  CHECK(mismatch(soft, by_hand, allowed) == "");
  CHECK(mismatch(hard, soft, allowed) == "");
}

TEST_CASE("layers: moe takes whole experts by the weights of its router", "[layers]") {
  const transformer_shape shape = shape_with_experts(5);
  owned_moe layer(moe_policies<top_k<2>, no_balancer, routed>{}.specs(shape));
  const tensor<double> x = tensor<double>::random(9, 6, 3);
  const tensor<double> got = moe_output(moe_policies<top_k<2>, no_balancer, routed>{}, layer, x);
  tensor<double> gate(5, 6), want(9, 6);
  std::copy_n(layer.tensor_values("gate.weight"), gate.values.size(), gate.values.begin());
  const tensor<double> logits = reference_linear(x, gate);
  for (index_t t = 0; t < 9; ++t) {
    std::vector<index_t> order = {0, 1, 2, 3, 4};
    std::sort(order.begin(), order.end(), [&](index_t a, index_t b) { return logits.at(t, a) > logits.at(t, b); });
    const double first = std::exp(logits.at(t, order[0])), second = std::exp(logits.at(t, order[1]));
    for (index_t i = 0; i < 6; ++i)
      want(t, i) =
          (first * expert_output(layer, order[0], x).at(t, i) + second * expert_output(layer, order[1], x).at(t, i)) /
          (first + second);
  }
  CHECK(mismatch(got, want, [](index_t, index_t) { return 1e-13; }) == "");  // as above
}

TEMPLATE_TEST_CASE("layers: moe of identical experts equals the dense layer when weights sum to one", "[layers]",
                   top_k<1>, top_k<2>, top_k<4>, soft_router<4>) {
  const transformer_shape shape = shape_with_experts(4);
  const moe_policies<TestType, no_balancer, routed> policies{};
  owned_moe layer(policies.specs(shape));
  for (const char* part : {"w1", "w2", "w3"})
    for (index_t e = 1; e < 4; ++e)
      std::copy_n(layer.tensor_values(std::string("experts.0.") + part + ".weight"), 30,
                  layer.tensor_values("experts." + std::to_string(e) + "." + part + ".weight"));
  const tensor<double> x = tensor<double>::random(9, 6, 3);
  CHECK(mismatch(moe_output(policies, layer, x), expert_output(layer, 0, x), [](index_t, index_t) { return 1e-13; }) ==
        "");
}

TEST_CASE("layers: moe of one expert equals the dense layer bit for bit, backward too", "[layers]") {
  const transformer_shape shape = shape_with_experts(1);
  const moe_policies<top_k<1>, no_balancer, routed> policies{};
  owned_moe mixture(policies.specs(shape));
  owned_layer<swiglu_ffn_parameters> dense(swiglu_ffn_specs(shape.width, shape.hidden));
  std::copy_n(mixture.tensor_values("experts.0.w1.weight"), 30, dense.tensor_values("gate_proj.weight"));
  std::copy_n(mixture.tensor_values("experts.0.w3.weight"), 30, dense.tensor_values("up_proj.weight"));
  std::copy_n(mixture.tensor_values("experts.0.w2.weight"), 30, dense.tensor_values("down_proj.weight"));
  const tensor<double> x = tensor<double>::random(9, 6, 3), d_out = tensor<double>::random(9, 6, 4);
  tensor<double> out(9, 6), dense_out(9, 6), d_x(9, 6), dense_d_x(9, 6);
  context<cpu> ctx({.threads = 1});
  const auto saved = moe_forward<exact>(ctx, policies, mixture.weights(), pass_of(1), x.matrix(), out.matrix());
  moe_backward<exact>(ctx, policies, mixture.weights(), mixture.gradient_views(), pass_of(1), saved, x.matrix(),
                      d_x.matrix(), d_out.matrix(), 1.0);
  const auto dense_saved = swiglu_ffn_forward<exact>(ctx, dense.weights(), x.matrix(), dense_out.matrix());
  swiglu_ffn_backward<exact>(ctx, dense.weights(), dense.gradient_views(), dense_saved, x.matrix(), dense_d_x.matrix(),
                             d_out.matrix());
  CHECK(out.values == dense_out.values);
  CHECK(d_x.values == dense_d_x.values);
  for (const auto& [part, name] :
       {std::pair{"w1", "gate_proj.weight"}, {"w3", "up_proj.weight"}, {"w2", "down_proj.weight"}})
    CHECK(std::equal(dense.tensor_gradients(name), dense.tensor_gradients(name) + 30,
                     mixture.tensor_gradients(std::string("experts.0.") + part + ".weight")));
  for (index_t i = 0; i < 6; ++i) CHECK(mixture.tensor_gradients("gate.weight")[i] == 0);
}

// What a token gives depends on no other token: a dropless layer has no capacity.
TEST_CASE("layers: moe gives each token the same, alone or in a batch, in any order", "[layers]") {
  owned_moe layer(policies_of<top_k<2>>{}.specs(shape_with_experts(5)));
  const tensor<double> x = tensor<double>::random(9, 6, 3);
  const tensor<double> together = moe_output(policies_of<top_k<2>>{}, layer, x);
  for (index_t t = 0; t < 9; ++t) {
    tensor<double> one(1, 6);
    for (index_t i = 0; i < 6; ++i) one(0, i) = x.at(t, i);
    const tensor<double> alone = moe_output(policies_of<top_k<2>>{}, layer, one);
    // A product of one row may add its terms in another order than one of many.
    for (index_t i = 0; i < 6; ++i) CHECK(std::abs(alone.at(0, i) - together.at(t, i)) <= 1e-13);
  }
}

TEST_CASE("layers: moe refuses more slots than experts and experts that contradict the shape", "[layers]") {
  CHECK_THROWS_WITH((moe_policies<top_k<4>, no_balancer, routed>{}.check(shape_with_experts(3))),
                    "moe: expected experts_per_token <= experts, got experts_per_token=4, experts=3");
  CHECK_THROWS_WITH((moe_policies<top_k<2>, no_balancer, routed_experts<4>>{}.check(shape_with_experts(3))),
                    "moe: the layout fixes 4 experts, the shape has 3");
  CHECK_THROWS_AS(no_mixture{}.check(shape_with_experts(3)), error);
  CHECK_NOTHROW((moe_policies<top_k<3>, no_balancer, routed>{}.check(shape_with_experts(3))));
}

TEST_CASE("layers: mixture block gradients by central differences", "[layers]") {
  const transformer_shape shape = shape_with_experts(3);
  const index_t positions = 4;
  context<cpu> ctx({.threads = 1});
  mixture_type mixed;
  mixed.balancer = strong;
  owned_layer<mixture_block> layer(block_specs(shape, mixed, 0));
  tensor<double> x = tensor<double>::random(2 * positions, shape.width, 2);
  const std::vector<double> table = rope_table<double>(shape, positions);
  const block_pass<exact> pass{ctx, shape, matrix_view<const double>(table.data(), positions, shape.head_dim),
                               positions, pass_of(3, 2)};
  CHECK(layer_mismatch(
            ctx, layer, x,
            [&](const auto& weights, matrix_view<double> in, matrix_view<double> out) {
              auto stream = ctx.allocate<double>(x.rows, x.columns), delta = ctx.allocate<double>(x.rows, x.columns);
              std::copy_n(in.data, in.size(), stream.data);
              const auto saved = block_forward<mixture_type, exact>(pass, mixed, weights, stream, {}, delta, true);
              for (index_t i = 0; i < out.size(); ++i) out.data[i] = stream.data[i] + delta.data[i];
              return saved;
            },
            [&](const auto& saved) {
              double auxiliary = 0;
              add_balance_loss(ctx, mixed.balancer, saved.moe.statistics, vector_view<double>(&auxiliary, 1));
              return 0.5 * auxiliary;
            },
            [&](const auto& weights, const auto& gradients, const auto& saved, auto, matrix_view<double> d_in,
                auto d_out) {
              std::copy_n(d_out.data, d_out.size(), d_in.data);
              block_backward<mixture_type, exact>(pass, mixed, weights, gradients, saved, d_in, 0.5);
            }) == "");
}

}  // namespace moe_tests
