// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The mixture-of-experts layer: y = sum over the slots of a token of weight * FFN_expert(x), and what a shared expert
// gives.

#include <cstdint>

#include <graft/core/transformer_shape.hpp>
#include <graft/layers/compute.hpp>
#include <graft/layers/routing.hpp>
#include <graft/layers/shared_expert.hpp>
#include <graft/ops/permutation.hpp>
#include <graft/policies/expert_layout/expert_layout.hpp>
#include <graft/policies/experts/swiglu_experts.hpp>
#include <graft/policies/gate/linear_gate.hpp>

namespace graft {

// Named as in a Mixtral checkpoint: gate is the router. selection_bias: what the balancer moves, absent when it has
// none. shared_expert and its gate: absent when the layout has none.
template <class Leaf, class Gate, class Experts>
struct moe_parameters {
  using gate_parameters = typename Gate::template parameters<Leaf>;
  using expert_parameters = typename Experts::template parameters<Leaf>;
  BOOST_HANA_DEFINE_STRUCT(moe_parameters, (gate_parameters, gate), (Leaf, selection_bias),
                           (expert_parameters, experts), (swiglu_ffn_parameters<Leaf>, shared_expert),
                           (Leaf, shared_expert_gate));
};

// The policies of a mixture as one value. Their options travel with it.
template <Router R, Balancer B, ExpertLayout L>
struct moe_policies {
  using router_type = R;
  using balancer_type = B;
  using layout_type = L;
  using gate_type = detail::gate_type<R>;
  using experts_type = detail::experts_type<L>;
  static constexpr int slots = R::spec.experts_per_token;
  static constexpr shared_expert_mode shared = L::spec.shared;
  static_assert(L::spec.experts == dynamic_experts || slots <= L::spec.experts,
                "graft::moe_policies: the router selects more experts than the layout has. Lower K or add experts.");
  static_assert(!detail::pushes_on_logits<B> || R::spec.logits,
                "graft::moe_policies: the balancer pushes on logits and the router has none. Use no_balancer or a "
                "router with logits.");
  static_assert(!detail::pushes_on_weights<B> || R::spec.logit_gradients,
                "graft::moe_policies: the balancer pushes on the weights of the experts and those of this router have "
                "no gradient. Use a balancer over scores or a router with logits.");
  static_assert(!detail::keeps_selection_bias<B> || R::spec.selection_bias,
                "graft::moe_policies: the balancer keeps a selection bias and the router does not read one. Use a "
                "router with spec.selection_bias, such as sigmoid_top_k, or another balancer.");
  template <class Leaf>
  using parameters = moe_parameters<Leaf, gate_type, experts_type>;

  R router{};
  B balancer{};
  L layout{};

  constexpr parameters<parameter_spec> specs(const transformer_shape& shape) const {
    const index_t experts = layout.experts(shape);
    parameters<parameter_spec> specs;
    specs.gate = detail::gate_of(router).specs(shape, experts + R::spec.extra_logits);
    if constexpr (detail::keeps_selection_bias<B>) specs.selection_bias = parameter_spec::state(role::router, experts);
    specs.experts = detail::experts_of(layout).specs(shape.width, layout.hidden(shape), experts);
    if constexpr (shared != shared_expert_mode::none)
      specs.shared_expert = swiglu_ffn_specs(shape.width, shape.shared_hidden);
    if constexpr (shared == shared_expert_mode::sigmoid_gated)
      specs.shared_expert_gate =
          parameter_spec::matrix(role::router, 1, shape.width, initializer::normal(linear_gate{}.stddev));
    return specs;
  }
  // Parameters of one such layer that a token uses.
  constexpr double active_parameters(const parameters<parameter_spec>& specs, const transformer_shape& shape,
                                     index_t block) const {
    const double used = detail::slots_used(router, block, layout.experts(shape));
    double count = 0;
    for_each_leaf(specs, [&](const parameter_spec& spec) {
      if (!spec.present()) return;
      // Experts of different widths count as their mean. Every token meets the router's rows of all experts.
      count += spec.experts > 0 && spec.kind != role::router
                   ? used * static_cast<double>(spec.size()) / static_cast<double>(spec.experts)
                   : static_cast<double>(spec.size());
    });
    return count;
  }
  void check(const transformer_shape& shape) const {
    GRAFT_CHECK(layout.experts(shape) >= slots,
                "moe: expected experts_per_token <= experts, got experts_per_token=", slots,
                ", experts=", layout.experts(shape));
    detail::check_experts(router, layout.experts(shape));
    GRAFT_CHECK(L::spec.experts == dynamic_experts || L::spec.experts == shape.experts, "moe: the layout fixes ",
                L::spec.experts, " experts, the shape has ", shape.experts);
    GRAFT_CHECK((shared != shared_expert_mode::none) == (shape.shared_hidden > 0), "moe: the layout ", L::name,
                shared != shared_expert_mode::none ? " has a shared expert, expected shared_hidden above 0, got "
                                                   : " has no shared expert, expected shared_hidden=0, got ",
                shape.shared_hidden);
  }
};

template <class Compute, class Policies>
struct moe_saved {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  typename Policies::gate_type::template saved<Compute> gate;
  view<M, 2, space> logits;               // (T, N); absent for a router that reads none
  view<std::int32_t, 2, space> selected;  // (T, K)
  view<M, 2, space> weights;              // (T, K)
  routing_statistics<M, space> statistics;
  dispatch_plan<space> plan;
  view<T, 2, space> rows;  // (R, D) tokens, grouped by expert; R: rows of the plan. Absent where products gather them
  typename Policies::experts_type::template saved<Compute> experts;
  shared_expert_saved<Compute> shared;  // absent when the layout has no shared expert
};

namespace detail {

// The rows of x by a plan, for experts; copy: absent where products gather them.
template <class Compute>
gathered_rows<typename Compute::storage, typename Compute::space> rows_for_experts(
    view<const typename Compute::storage, 2, typename Compute::space> x,
    const dispatch_plan<typename Compute::space>& plan,
    view<const typename Compute::storage, 2, typename Compute::space> copy) {
  return {x, plan.slot_of_row, plan.slots, copy};
}

}  // namespace detail

// out[t] = sum_k weights[t, k] FFN_{selected[t, k]}(x[t]); with a shared expert as shared_routed.hpp says.
// Shapes: x, out (T, D). pass: where these tokens stand; pass.load and pass.loss are added to.
template <class Compute, class Policies>
moe_saved<Compute, Policies> moe_forward(
    typename Compute::context_type& context, const Policies& policies,
    const typename Policies::template parameters<typename Compute::weight>& weights,
    const routing_pass<typename Compute::master, typename Compute::space>& pass,
    view<const typename Compute::storage, 2, typename Compute::space> x,
    view<typename Compute::storage, 2, typename Compute::space> out) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using router_type = typename Policies::router_type;
  constexpr int slots = Policies::slots;
  const index_t tokens = x.extent(0), experts = pass.experts;
  moe_saved<Compute, Policies> saved;
  if constexpr (router_type::spec.logits) {
    saved.logits = context.template allocate<M>(tokens, experts + router_type::spec.extra_logits);
    saved.gate =
        detail::gate_of(policies.router).template forward<Compute>(context, pass, weights.gate, saved.logits, x);
  }
  saved.selected = context.template allocate<std::int32_t>(tokens, slots);
  saved.weights = context.template allocate<M>(tokens, slots);
  saved.statistics =
      route_forward(context, policies.router, policies.balancer, pass, saved.selected, saved.weights, saved.logits);
  if (pass.observer != nullptr) pass.observer->routed(pass, saved.selected, saved.weights);
  saved.plan = policies.layout.dispatch(context, saved.selected, saved.weights, experts,
                                        detail::filled_rows(policies.router, tokens, experts), pass.load);

  if constexpr (!detail::experts_gather_rows<typename Policies::experts_type, typename Compute::backend, T>()) {
    saved.rows = context.template allocate<T>(saved.plan.rows(), x.extent(1));
    gather_tokens(context, saved.rows, x, saved.plan);
  }
  saved.experts = detail::experts_of(policies.layout)
                      .template forward<Compute>(context, weights.experts, saved.plan.offsets,
                                                 detail::rows_for_experts<Compute>(x, saved.plan, saved.rows));
  combine_rows(context, out, saved.experts.results, saved.weights, saved.plan, accumulate::no);
  if constexpr (Policies::shared != shared_expert_mode::none)
    saved.shared = shared_expert_forward<Policies::shared, slots, Compute>(context, weights.shared_expert,
                                                                           weights.shared_expert_gate, pass, x, out);
  return saved;
}

// d_x = the gradient to x; gradients of the weights are added where they are present. auxiliary_scale multiplies the
// balancer's loss. Overwrites what was saved.
template <class Compute, class Policies>
void moe_backward(typename Compute::context_type& context, const Policies& policies,
                  const typename Policies::template parameters<typename Compute::weight>& weights,
                  const typename Policies::template parameters<typename Compute::gradient>& gradients,
                  const routing_pass<typename Compute::master, typename Compute::space>& pass,
                  const moe_saved<Compute, Policies>& saved,
                  view<const typename Compute::storage, 2, typename Compute::space> x,
                  view<typename Compute::storage, 2, typename Compute::space> d_x,
                  view<const typename Compute::storage, 2, typename Compute::space> d_out, double auxiliary_scale) {
  using M = typename Compute::master;
  workspace_scope scope(context);
  constexpr bool has_shared = Policies::shared != shared_expert_mode::none;
  auto d_routed = d_out;
  if constexpr (has_shared)
    d_routed = shared_expert_backward<Policies::shared, Policies::slots, Compute>(
        context, weights.shared_expert, weights.shared_expert_gate, gradients.shared_expert,
        gradients.shared_expert_gate, pass, saved.shared, x, d_x, d_out);
  auto d_weights = context.template allocate<M>(saved.weights.extent(0), saved.weights.extent(1));
  // In place: a result is spent once its dot product with the gradient is known.
  combine_rows_backward(context, saved.experts.results, d_weights, d_routed, saved.experts.results, saved.weights,
                        saved.plan);
  const auto d_rows =
      detail::experts_of(policies.layout)
          .template backward<Compute>(context, weights.experts, gradients.experts, saved.experts, saved.plan.offsets,
                                      detail::rows_for_experts<Compute>(x, saved.plan, saved.rows));
  combine_rows(context, d_x, d_rows, view<const M, 2, typename Compute::space>{}, saved.plan,
               has_shared ? accumulate::yes : accumulate::no);

  if constexpr (Policies::router_type::spec.logits) {
    auto d_logits = context.template allocate<M>(saved.logits.extent(0), saved.logits.extent(1));
    route_backward(context, policies.router, policies.balancer, pass, d_logits, saved.statistics, saved.logits,
                   saved.selected, saved.weights, d_weights, auxiliary_scale);
    detail::gate_of(policies.router)
        .template backward<Compute>(context, pass, weights.gate, gradients.gate, saved.gate, d_logits, x, d_x);
  }
}

}  // namespace graft
