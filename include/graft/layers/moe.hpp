// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The mixture-of-experts layer: y = sum over the slots of a token of weight * FFN_expert(x).

#include <cstdint>

#include <graft/core/transformer_shape.hpp>
#include <graft/layers/compute.hpp>
#include <graft/layers/routing.hpp>
#include <graft/ops/permutation.hpp>
#include <graft/ops/swiglu.hpp>
#include <graft/policies/expert_layout/expert_layout.hpp>

namespace graft {

template <class Leaf>
struct expert_parameters {
  BOOST_HANA_DEFINE_STRUCT(expert_parameters, (Leaf, w13), (Leaf, w2));
};

// Named as in a Mixtral checkpoint: gate is the router; of each expert w1 is the gate, w3 up, w2 down.
template <class Leaf>
struct moe_parameters {
  BOOST_HANA_DEFINE_STRUCT(moe_parameters, (Leaf, gate), (expert_parameters<Leaf>, experts));
};

// The policies of a mixture as one value. Their options travel with it.
template <Router R, Balancer B, ExpertLayout L>
struct moe_policies {
  using router_type = R;
  using balancer_type = B;
  using layout_type = L;
  static constexpr int slots = R::spec.experts_per_token;
  static_assert(L::spec.experts == dynamic_experts || slots <= L::spec.experts,
                "graft::moe_policies: the router selects more experts than the layout has. Lower K or add experts.");
  static_assert(!B::spec.logit_gradients || R::spec.logit_gradients,
                "graft::moe_policies: the balancer pushes on logits and the router has none. Use no_balancer or a "
                "router with logits.");

  R router{};
  B balancer{};
  L layout{};

  constexpr moe_parameters<parameter_spec> specs(const transformer_shape& shape) const {
    const initializer into = initializer::normal(0.02);
    const index_t experts = layout.experts(shape), hidden = layout.hidden(shape);
    moe_parameters<parameter_spec> specs;
    specs.gate = parameter_spec::matrix(role::router, experts, shape.width, into);
    specs.experts.w13 =
        parameter_spec::fused(role::ffn, {{"w1", hidden}, {"w3", hidden}}, shape.width, into).stacked(experts);
    specs.experts.w2 = parameter_spec::matrix(role::ffn, shape.width, hidden, into).stacked(experts);
    return specs;
  }
  void check(const transformer_shape& shape) const {
    GRAFT_CHECK(layout.experts(shape) >= slots,
                "moe: expected experts_per_token <= experts, got experts_per_token=", slots,
                ", experts=", layout.experts(shape));
    GRAFT_CHECK(L::spec.experts == dynamic_experts || L::spec.experts == shape.experts, "moe: the layout fixes ",
                L::spec.experts, " experts, the shape has ", shape.experts);
  }
};

template <class Compute>
struct moe_saved {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  view<M, 2, space> logits;               // (T, E)
  view<std::int32_t, 2, space> selected;  // (T, K)
  view<M, 2, space> weights;              // (T, K)
  routing_statistics<M, space> statistics;
  dispatch_plan<space> plan;
  view<T, 2, space> rows;     // (T K, D) tokens, grouped by expert
  view<T, 2, space> gate_up;  // (T K, 2F)
  view<T, 2, space> hidden;   // (T K, F)
  view<T, 2, space> results;  // (T K, D)
};

// out[t] = sum_k weights[t, k] FFN_{selected[t, k]}(x[t]).
// Shapes: x, out (T, D). balance_groups: into how many runs of tokens the balancer's statistics are split.
template <class Compute, class Policies>
moe_saved<Compute> moe_forward(typename Compute::context_type& context, const Policies& policies,
                               const moe_parameters<typename Compute::weight>& weights,
                               view<const typename Compute::storage, 2, typename Compute::space> x,
                               view<typename Compute::storage, 2, typename Compute::space> out,
                               index_t balance_groups) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  constexpr int slots = Policies::slots;
  const index_t tokens = x.extent(0), experts = weights.gate.rows, hidden = weights.experts.w2.columns;
  moe_saved<Compute> saved;
  saved.logits = context.template allocate<M>(tokens, experts);
  saved.selected = context.template allocate<std::int32_t>(tokens, slots);
  saved.weights = context.template allocate<M>(tokens, slots);
  gemm_nt(context, saved.logits, x, weights.gate.matrix(), accumulate::no);
  route_forward(context, policies.router, saved.selected, saved.weights, saved.logits);
  saved.statistics = measure_routing(context, saved.logits, saved.selected, balance_groups);
  saved.plan = policies.layout.dispatch(
      context, view<const std::int32_t, 1, space>(saved.selected.data, tokens * slots), experts, slots);

  saved.rows = context.template allocate<T>(tokens * slots, x.extent(1));
  saved.gate_up = context.template allocate<T>(tokens * slots, 2 * hidden);
  saved.hidden = context.template allocate<T>(tokens * slots, hidden);
  saved.results = context.template allocate<T>(tokens * slots, x.extent(1));
  gather_tokens(context, saved.rows, x, saved.plan);
  grouped_gemm_nt(context, saved.gate_up, saved.rows, weights.experts.w13.stacked(), saved.plan.offsets,
                  accumulate::no);
  swiglu_forward(context, saved.hidden, saved.gate_up, saved.plan.row_count());
  grouped_gemm_nt(context, saved.results, saved.hidden, weights.experts.w2.stacked(), saved.plan.offsets,
                  accumulate::no);
  combine_rows(context, out, saved.results, saved.weights, saved.plan, accumulate::no);
  return saved;
}

// d_x = the gradient to x; gradients of the weights are added where they are present. auxiliary_scale multiplies the
// balancer's loss. Overwrites what was saved.
template <class Compute, class Policies>
void moe_backward(typename Compute::context_type& context, const Policies& policies,
                  const moe_parameters<typename Compute::weight>& weights,
                  const moe_parameters<typename Compute::gradient>& gradients, const moe_saved<Compute>& saved,
                  view<const typename Compute::storage, 2, typename Compute::space> x,
                  view<typename Compute::storage, 2, typename Compute::space> d_x,
                  view<const typename Compute::storage, 2, typename Compute::space> d_out, double auxiliary_scale) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  workspace_scope scope(context);
  const auto offsets = saved.plan.offsets;
  const std::int32_t* row_count = saved.plan.row_count();

  auto d_weights = context.template allocate<M>(saved.weights.extent(0), saved.weights.extent(1));
  const auto d_results = saved.results;  // in place: a result is spent once its dot product with the gradient is known
  combine_rows_backward(context, d_results, d_weights, d_out, saved.results, saved.weights, saved.plan);
  if (gradients.experts.w2.present())
    grouped_gemm_tn(context, gradients.experts.w2.stacked(), d_results, saved.hidden, offsets, accumulate::yes);
  const auto d_hidden = saved.hidden;
  grouped_gemm_nn(context, d_hidden, d_results, weights.experts.w2.stacked(), offsets, accumulate::no);
  const auto d_gate_up = saved.gate_up;
  swiglu_backward(context, d_gate_up, d_hidden, saved.gate_up, row_count);
  if (gradients.experts.w13.present())
    grouped_gemm_tn(context, gradients.experts.w13.stacked(), d_gate_up, saved.rows, offsets, accumulate::yes);
  const auto d_rows = saved.results;  // (T K, D): free again
  grouped_gemm_nn(context, d_rows, d_gate_up, weights.experts.w13.stacked(), offsets, accumulate::no);
  combine_rows(context, d_x, d_rows, view<const M, 2, typename Compute::space>{}, saved.plan, accumulate::no);

  auto d_logits = context.template allocate<T>(saved.logits.extent(0), saved.logits.extent(1));
  route_backward(context, policies.router, policies.balancer, d_logits, saved.statistics, saved.logits, saved.selected,
                 saved.weights, d_weights, auxiliary_scale);
  gemm_nn(context, d_x, d_logits, weights.gate.matrix(), accumulate::yes);
  if (gradients.gate.present()) gemm_tn(context, gradients.gate.matrix(), d_logits, x, accumulate::yes);
}

}  // namespace graft
