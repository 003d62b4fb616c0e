// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Forms of experts inside the mixture layer, alone and under other layouts: gradients by central differences, and equal
// widths against the plain layer bit for bit.

#include "catch.hpp"

#include <algorithm>
#include <vector>

#include <graft/policies/expert_layout/capacity.hpp>
#include <graft/policies/expert_layout/shared_routed.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>
#include <graft/policies/router/top_k.hpp>

#include "moe_check.hpp"

namespace experts_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class L>
using policies_over = moe_policies<top_k<2>, balancers, L>;

template <class L>
struct tree_of {
  template <class Leaf>
  using type = typename policies_over<L>::template parameters<Leaf>;
};

// Sets what the layouts under test have: three experts of different widths, a rank below the widths.
template <class L>
void set_up(L& layout) {
  if constexpr (requires { layout.experts_form.widths; }) layout.experts_form.widths = {5, 2, 7};
  if constexpr (requires { layout.experts_form.rank; }) layout.experts_form.rank = 2;
  if constexpr (requires { layout.base; }) set_up(layout.base);
}
template <class L>
transformer_shape shape_of() {
  transformer_shape shape = test::shape_with_experts(3);
  if (L::spec.shared != shared_expert_mode::none) shape.shared_hidden = 4;
  return shape;
}

}  // namespace

TEMPLATE_TEST_CASE("layers: gradients of moe with every form of experts", "[layers]", adapted, lora, mixed_width,
                   capacity<adapted>, (shared_routed<shared_expert_mode::sum, lora>), pad_to_capacity<capacity<lora>>,
                   (graft::with_experts<mixed_width_experts, capacity<>>)) {
  CAPTURE(TestType::name);
  context<cpu> ctx({.threads = 1});
  policies_over<TestType> policies{.balancer = strong};
  set_up(policies.layout);
  owned_layer<tree_of<TestType>::template type> layer(policies.specs(shape_of<TestType>()));
  tensor<double> x = tensor<double>::random(8, 6, 2);
  const auto pass = pass_of(3);
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
}

TEST_CASE("layers: experts of one width are the plain layer, bit for bit, and lie in memory as it does", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const transformer_shape shape = test::shape_with_experts(3);
  const policies_over<routed> plain{.balancer = strong};
  policies_over<mixed_width> equal{.balancer = strong};
  equal.layout.experts_form.widths = {5, 5, 5};
  owned_layer<tree_of<routed>::type> a(plain.specs(shape));
  owned_layer<tree_of<mixed_width>::type> b(equal.specs(shape));
  REQUIRE(a.layout.size == b.layout.size);
  for (std::size_t i = 0; i < a.layout.tensors.size(); ++i) {
    CHECK(a.layout.tensors[i].name == b.layout.tensors[i].name);
    CHECK(a.layout.tensors[i].offset == b.layout.tensors[i].offset);
  }
  REQUIRE(a.values == b.values);
  const tensor<double> x = tensor<double>::random(9, 6, 3), d_out = tensor<double>::random(9, 6, 4);
  const auto run = [&](const auto& policies, auto& layer, tensor<double>& out, tensor<double>& d_x) {
    workspace_scope scope(ctx);
    const auto saved = moe_forward<exact>(ctx, policies, layer.weights(), pass_of(3), x.matrix(), out.matrix());
    moe_backward<exact>(ctx, policies, layer.weights(), layer.gradient_views(), pass_of(3), saved, x.matrix(),
                        d_x.matrix(), d_out.matrix(), 1.0);
  };
  tensor<double> out_a(9, 6), out_b(9, 6), d_a(9, 6), d_b(9, 6);
  run(plain, a, out_a, d_a);
  run(equal, b, out_b, d_b);
  CHECK(out_a.values == out_b.values);
  CHECK(d_a.values == d_b.values);
  CHECK(a.gradients == b.gradients);
}

TEST_CASE("layers: parameters that a token uses, with forms of experts", "[layers]") {
  const transformer_shape shape = test::shape_with_experts(3);
  const auto active = [&](const auto& policies) { return policies.active_parameters(policies.specs(shape), shape, 0); };
  const double gate = 3 * 6;
  policies_over<mixed_width> mixed;
  mixed.layout.experts_form.widths = {5, 2, 7};
  CHECK(active(mixed) == Approx(gate + 2.0 / 3.0 * 3 * 6 * 14));
  CHECK(active(policies_over<adapted>{}) == gate + 2 * (3 * 6 * 5 + 36));
  policies_over<lora> low;
  low.layout.experts_form.rank = 2;
  CHECK(active(low) == gate + 2 * (3 * 6 * 5 + 3 * 2 * 11));
}

}  // namespace experts_tests
