// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Layouts of experts inside the layer: capacity with drops, padded rows, and experts that every token uses. Gradients
// by central differences and the equalities that tell how the pieces add up.

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/expert_layout/capacity.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/expert_layout/shared_routed.hpp>
#include <graft/policies/router/top_k.hpp>

#include "moe_check.hpp"

namespace moe_layouts_tests {

using namespace graft;
using namespace graft::test;

namespace {

using by_position = capacity<>;
using by_probability = capacity<routed, drop_by::probability>;
using summed = shared_routed<shared_expert_mode::sum>;
using gated = shared_routed<shared_expert_mode::sigmoid_gated>;
using averaged = shared_routed<shared_expert_mode::averaged>;
using gated_capacity = capacity<gated, drop_by::probability>;
using averaged_padded = shared_routed<shared_expert_mode::averaged, pad_to_capacity<by_position>>;

template <class L, int K = 2>
using policies_over = moe_policies<top_k<K>, balancers, L>;

// E experts of width 5, where the layout has a shared expert one of width 4.
template <class L>
transformer_shape shape_for(index_t experts) {
  transformer_shape shape = shape_with_experts(experts);
  if (L::spec.shared != shared_expert_mode::none) shape.shared_hidden = 4;
  return shape;
}

template <class L, int K = 2>
policies_over<L, K> policies_at(double factor) {
  policies_over<L, K> policies{.balancer = strong};
  if constexpr (!L::spec.dropless) set_option(policies.layout, "factor", factor);
  return policies;
}

// What a layer with counts gives: out, and how many filled slots were dropped.
struct counted_output {
  tensor<double> out;
  std::vector<double> load;
};
template <class Policies>
counted_output run_counted(const Policies& policies, owned_moe& layer, const tensor<double>& x,
                           const std::vector<std::int32_t>& ids = {}) {
  context<cpu> ctx({.threads = 1});
  workspace_scope scope(ctx);
  const index_t experts = layer.specs.experts.w13.experts;
  counted_output result{tensor<double>(x.rows, x.columns),
                        std::vector<double>(static_cast<std::size_t>(routing_load{experts}.size()))};
  auto pass = pass_of(experts);
  pass.load = vector_view<double>(result.load.data(), static_cast<index_t>(result.load.size()));
  if (!ids.empty()) pass.ids = vector_view<const std::int32_t>(ids.data(), x.rows);
  moe_forward<exact>(ctx, policies, layer.weights(), pass, x.matrix(), result.out.matrix());
  return result;
}

tensor<double> shared_by_hand(owned_moe& layer, const tensor<double>& x) {
  return ffn_by_hand(x, values_of(layer, "shared_expert.gate_proj"), values_of(layer, "shared_expert.up_proj"),
                     values_of(layer, "shared_expert.down_proj"));
}

void set_zero(owned_moe& layer, const std::string& name) {
  const tensor_entry& entry = layer.find(name + ".weight");
  std::fill_n(layer.values.data() + entry.offset, entry.size(), 0.0);
}

// Sums of 6, 5 and 3 terms of about 1, a softmax of 3.
const auto rounding = [](index_t, index_t) { return 1e-13; };

}  // namespace

TEMPLATE_TEST_CASE("layers: moe gradients by central differences under every layout", "[layers]", by_position,
                   by_probability, pad_to_capacity<by_position>, pad_to_capacity<by_probability>, summed, gated,
                   averaged, gated_capacity, averaged_padded) {
  const index_t experts = GENERATE(1, 2, 5);
  const index_t groups = GENERATE(1, 2);
  const double factor = 0.6;
  CAPTURE(TestType::name, experts, groups);
  context<cpu> ctx({.threads = 1});
  tensor<double> x = tensor<double>::random(8, 6, 2);
  const auto check = [&](const auto& policies) {
    owned_moe layer(policies.specs(shape_for<TestType>(experts)));
    CHECK(moe_mismatch(ctx, layer, x, policies, pass_of(experts, groups)) == "");
    // The case is one with drops, where the layout drops at all.
    const double dropped = run_counted(policies, layer, x).load.back();
    if (TestType::spec.dropless)
      CHECK(dropped == 0);
    else
      CHECK(dropped > 0);
  };
  check(policies_at<TestType, 1>(factor));
  if (experts >= 2) check(policies_at<TestType, 2>(factor));  // with 2 experts: all of them
}

TEMPLATE_TEST_CASE("layers: moe with room for every token equals the dropless layer bit for bit, backward too",
                   "[layers]", by_position, by_probability) {
  const auto roomy = policies_at<TestType>(5);
  const policies_over<routed> dropless{.balancer = strong};
  owned_moe layer(dropless.specs(shape_with_experts(5))), other(dropless.specs(shape_with_experts(5)));
  const tensor<double> x = tensor<double>::random(9, 6, 3), d_out = tensor<double>::random(9, 6, 4);
  context<cpu> ctx({.threads = 1});
  const auto run = [&](const auto& policies, owned_moe& of) {
    workspace_scope scope(ctx);
    tensor<double> out(9, 6), d_x(9, 6);
    const auto saved = moe_forward<exact>(ctx, policies, of.weights(), pass_of(5), x.matrix(), out.matrix());
    moe_backward<exact>(ctx, policies, of.weights(), of.gradient_views(), pass_of(5), saved, x.matrix(), d_x.matrix(),
                        d_out.matrix(), 1.0);
    return std::pair(out.values, d_x.values);
  };
  CHECK(run(roomy, layer) == run(dropless, other));
  CHECK(layer.gradients == other.gradients);
}

TEMPLATE_TEST_CASE("layers: moe with padded rows equals the compact one", "[layers]", by_position, by_probability) {
  const double factor = GENERATE(0.5, 1.0, 2.5);
  CAPTURE(factor);
  const auto compact = policies_at<TestType>(factor);
  const auto padded = policies_at<pad_to_capacity<TestType>>(factor);
  owned_moe layer(compact.specs(shape_with_experts(5))), other(compact.specs(shape_with_experts(5)));
  const tensor<double> x = tensor<double>::random(9, 6, 3), d_out = tensor<double>::random(9, 6, 4);
  const counted_output want = run_counted(compact, layer, x), got = run_counted(padded, layer, x);
  CHECK(mismatch(got.out, want.out, rounding) == "");
  CHECK(got.load == want.load);
  context<cpu> ctx({.threads = 1});
  const auto backward = [&](const auto& policies, owned_moe& of) {
    workspace_scope scope(ctx);
    tensor<double> out(9, 6), d_x(9, 6);
    const auto saved = moe_forward<exact>(ctx, policies, of.weights(), pass_of(5), x.matrix(), out.matrix());
    moe_backward<exact>(ctx, policies, of.weights(), of.gradient_views(), pass_of(5), saved, x.matrix(), d_x.matrix(),
                        d_out.matrix(), 1.0);
    return d_x;
  };
  const tensor<double> want_d_x = backward(compact, layer), got_d_x = backward(padded, other);
  CHECK(mismatch(got_d_x, want_d_x, rounding) == "");
  for (std::size_t i = 0; i < layer.gradients.size(); ++i)
    REQUIRE(std::abs(layer.gradients[i] - other.gradients[i]) <= 1e-12);  // sums of up to 9 more terms
}

TEST_CASE("layers: moe drops what is beyond the capacity, counts it, and leaves the rest as it is", "[layers]") {
  // Both slots of every token go to experts 1 and 3 of 5: C = ceil(1.0 * 16 / 5) = 4, so 4 of 8 slots of each are
  // dropped, those of the tokens 4 to 7.
  const auto policies = policies_at<by_position>(1.0);
  owned_moe layer(policies.specs(shape_with_experts(5)));
  tensor<double> x = tensor<double>::random(8, 6, 2);
  double* gate = layer.tensor_values("gate.weight");
  for (index_t t = 0; t < x.rows; ++t) x(t, 0) = 1;
  for (index_t e = 0; e < 5; e += 2) gate[e * 6] = -20;
  const counted_output got = run_counted(policies, layer, x);
  const tensor<double> dropless = moe_output(policies_over<routed>{}, layer, x);
  CHECK(got.load[routing_load{5}.dropped()] == 8);
  CHECK(std::vector<double>(got.load.begin(), got.load.begin() + 5) == std::vector<double>{0, 8, 0, 8, 0});  // chosen
  for (index_t t = 0; t < 8; ++t)
    for (index_t i = 0; i < 6; ++i) {
      if (t < 4)
        CHECK(std::abs(got.out.at(t, i) - dropless.at(t, i)) <= 1e-13);
      else
        CHECK(got.out.at(t, i) == 0);
    }
}

TEMPLATE_TEST_CASE("layers: moe with a shared expert against the equation", "[layers]", summed, gated, averaged) {
  constexpr shared_expert_mode mode = TestType::spec.shared;
  const moe_policies<top_k<2>, no_balancer, TestType> policies{};
  owned_moe layer(policies.specs(shape_for<TestType>(3)));
  const tensor<double> x = tensor<double>::random(9, 6, 3);
  const tensor<double> chosen = moe_output(moe_policies<top_k<2>, no_balancer, routed>{}, layer, x);
  const tensor<double> shared = shared_by_hand(layer, x);
  tensor<double> want(9, 6);
  for (index_t t = 0; t < 9; ++t) {
    double share = mode == shared_expert_mode::averaged ? 1.0 / 3 : 1,
           rest = mode == shared_expert_mode::averaged ? 2.0 / 3 : 1;
    if (mode == shared_expert_mode::sigmoid_gated) {
      double logit = 0;
      for (index_t i = 0; i < 6; ++i) logit += layer.tensor_values("shared_expert_gate.weight")[i] * x.at(t, i);
      share = 1 / (1 + std::exp(-logit));
    }
    for (index_t i = 0; i < 6; ++i) want(t, i) = rest * chosen.at(t, i) + share * shared.at(t, i);
  }
  CHECK(mismatch(moe_output(policies, layer, x), want, rounding) == "");

  // Where the router routes nothing (padding), the shared expert works alone.
  const counted_output alone = run_counted(policies, layer, x, std::vector<std::int32_t>(9, -1));
  for (index_t t = 0; t < 9; ++t)
    for (index_t i = 0; i < 6; ++i) {
      const double rest = mode == shared_expert_mode::averaged ? 2.0 / 3 : 1;
      CHECK(std::abs(alone.out.at(t, i) - (want.at(t, i) - rest * chosen.at(t, i))) <= 1e-13);
    }
  for (const double count : alone.load) CHECK(count == 0);

  // A shared expert that gives nothing: what the router chose, by its share.
  set_zero(layer, "shared_expert.down_proj");
  const tensor<double> without = moe_output(policies, layer, x);
  for (index_t t = 0; t < 9; ++t)
    for (index_t i = 0; i < 6; ++i)
      CHECK(without.at(t, i) == (mode == shared_expert_mode::averaged ? 2.0 / 3 : 1) * chosen.at(t, i));
}

TEST_CASE("layers: moe of identical experts, the shared one too, averaged, equals the dense layer", "[layers]") {
  const moe_policies<top_k<2>, no_balancer, averaged> policies{};
  transformer_shape shape = shape_with_experts(4);
  shape.shared_hidden = shape.hidden;
  owned_moe layer(policies.specs(shape));
  for (const auto& [part, shared] : {std::pair{"w1", "gate_proj"}, {"w3", "up_proj"}, {"w2", "down_proj"}}) {
    const double* from = layer.tensor_values(std::string("experts.0.") + part + ".weight");
    for (index_t e = 1; e < 4; ++e)
      std::copy_n(from, 30, layer.tensor_values("experts." + std::to_string(e) + "." + part + ".weight"));
    std::copy_n(from, 30, layer.tensor_values(std::string("shared_expert.") + shared + ".weight"));
  }
  const tensor<double> x = tensor<double>::random(9, 6, 3);
  CHECK(mismatch(moe_output(policies, layer, x), expert_output(layer, 0, x), rounding) == "");
}

TEST_CASE("layers: a frozen shared expert gets no gradient and lets it through", "[layers]") {
  const moe_policies<top_k<2>, no_balancer, gated> policies{};
  owned_moe layer(policies.specs(shape_for<gated>(3)));
  const tensor<double> x = tensor<double>::random(9, 6, 3), d_out = tensor<double>::random(9, 6, 4);
  context<cpu> ctx({.threads = 1});
  const auto backward = [&](bool frozen) {
    std::fill(layer.gradients.begin(), layer.gradients.end(), 0.0);
    workspace_scope scope(ctx);
    tensor<double> out(9, 6), d_x(9, 6);
    auto gradients = layer.gradient_views();
    if (frozen) gradients.shared_expert = {}, gradients.shared_expert_gate = {};
    const auto saved = moe_forward<exact>(ctx, policies, layer.weights(), pass_of(3), x.matrix(), out.matrix());
    moe_backward<exact>(ctx, policies, layer.weights(), gradients, pass_of(3), saved, x.matrix(), d_x.matrix(),
                        d_out.matrix(), 1.0);
    return d_x.values;
  };
  const auto free_d_x = backward(false);
  const std::vector<double> free_gradients = layer.gradients;
  CHECK(backward(true) == free_d_x);
  for (const tensor_entry& entry : layer.layout.tensors) {
    const bool shared = entry.name.rfind("shared_expert", 0) == 0;
    for (index_t i = entry.offset; i < entry.offset + entry.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      REQUIRE(layer.gradients[at] == (shared ? 0 : free_gradients[at]));
      if (shared) REQUIRE(free_gradients[at] != 0);
    }
  }
}

TEST_CASE("layers: parameters of a layer with a shared expert", "[layers]") {
  constexpr transformer_shape plain{.vocabulary = 1, .width = 6, .hidden = 5, .experts = 4};
  constexpr transformer_shape with{.vocabulary = 1, .width = 6, .hidden = 5, .experts = 4, .shared_hidden = 7};
  // gate 4 x 6; experts 3 x 5 x 6; shared 3 x 7 x 6; its gate 6
  static_assert(count_parameters(moe_policies<top_k<2>, no_balancer, routed>{}.specs(plain)) == 24 + 4 * 90);
  static_assert(count_parameters(moe_policies<top_k<2>, no_balancer, summed>{}.specs(with)) == 24 + 4 * 90 + 126);
  static_assert(count_parameters(moe_policies<top_k<2>, no_balancer, averaged>{}.specs(with)) == 24 + 4 * 90 + 126);
  static_assert(count_parameters(moe_policies<top_k<2>, no_balancer, gated>{}.specs(with)) == 24 + 4 * 90 + 126 + 6);
  constexpr moe_policies<top_k<2>, no_balancer, gated> policies{};
  static_assert(policies.active_parameters(policies.specs(with), with, 0) == 24 + 2 * 90 + 126 + 6);
  const parameter_layout layout = make_layout(policies.specs(with));
  REQUIRE(layout.find("shared_expert.up_proj.weight") != nullptr);
  CHECK(layout.find("shared_expert.up_proj.weight")->expert == -1);
  CHECK(layout.find("shared_expert.up_proj.weight")->kind == role::ffn);
  CHECK(layout.find("shared_expert_gate.weight")->rows == 1);
  CHECK(layout.find("shared_expert_gate.weight")->kind == role::router);

  CHECK_THROWS_WITH(policies.check(plain),
                    "moe: the layout shared_gated has a shared expert, expected shared_hidden above 0, got 0");
  CHECK_THROWS_WITH((moe_policies<top_k<2>, no_balancer, routed>{}.check(with)),
                    "moe: the layout routed has no shared expert, expected shared_hidden=0, got 7");
}

}  // namespace moe_layouts_tests
