// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The expert that every token uses, beside those that the router chooses (policies/expert_layout/shared_routed.hpp).

#include <graft/layers/compute.hpp>
#include <graft/layers/swiglu_ffn.hpp>
#include <graft/ops/shared_expert.hpp>
#include <graft/policies/expert_layout/expert_layout.hpp>
#include <graft/policies/gate/linear_gate.hpp>

namespace graft {

namespace detail {

// y = routed * routed(x) + shared * s FFN_shared(x)
struct shared_shares {
  double routed = 1, shared = 1;
};
constexpr shared_shares shares_of(shared_expert_mode mode, int slots) {
  if (mode != shared_expert_mode::averaged) return {};
  return {slots / (slots + 1.0), 1 / (slots + 1.0)};
}

}  // namespace detail

template <class Compute>
struct shared_expert_saved {
  using space = typename Compute::space;
  swiglu_ffn_saved<Compute> ffn;
  view<typename Compute::storage, 2, space> result;  // (T, D)
  view<typename Compute::master, 2, space> logits;   // (T, 1); absent without a gate
  linear_gate::saved<Compute> gate;
};

// out = routed_share out + shared_share s FFN_shared(x), with the shares of the mode; s = sigmoid(x gate^T) when it is
// sigmoid_gated, else 1. Shapes: x, out (T, D); gate (1, D).
template <shared_expert_mode Mode, int Slots, class Compute>
shared_expert_saved<Compute> shared_expert_forward(
    typename Compute::context_type& context, const swiglu_ffn_parameters<typename Compute::weight>& weights,
    const typename Compute::weight& gate, const routing_pass<typename Compute::master, typename Compute::space>& pass,
    view<const typename Compute::storage, 2, typename Compute::space> x,
    view<typename Compute::storage, 2, typename Compute::space> out) {
  constexpr detail::shared_shares share = detail::shares_of(Mode, Slots);
  shared_expert_saved<Compute> saved;
  saved.result = context.template allocate<typename Compute::storage>(x.extent(0), x.extent(1));
  saved.ffn = swiglu_ffn_forward<Compute>(context, weights, x, saved.result);
  if constexpr (Mode == shared_expert_mode::sigmoid_gated) {
    saved.logits = context.template allocate<typename Compute::master>(x.extent(0), index_t{1});
    saved.gate = linear_gate{}.template forward<Compute>(context, pass, gate, saved.logits, x);
  }
  blend_shared(context, out, saved.result, saved.logits, share.routed, share.shared);
  return saved;
}

// d_x = the gradient to x through the shared expert, d_routed what the routed experts' sum gets: memory of its own, or
// d_out where the share is 1. Gradients of the weights are added where they are present. Overwrites what was saved.
template <shared_expert_mode Mode, int Slots, class Compute>
view<const typename Compute::storage, 2, typename Compute::space> shared_expert_backward(
    typename Compute::context_type& context, const swiglu_ffn_parameters<typename Compute::weight>& weights,
    const typename Compute::weight& gate, const swiglu_ffn_parameters<typename Compute::gradient>& gradients,
    const typename Compute::gradient& gate_gradient,
    const routing_pass<typename Compute::master, typename Compute::space>& pass,
    const shared_expert_saved<Compute>& saved, view<const typename Compute::storage, 2, typename Compute::space> x,
    view<typename Compute::storage, 2, typename Compute::space> d_x,
    view<const typename Compute::storage, 2, typename Compute::space> d_out) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  constexpr detail::shared_shares share = detail::shares_of(Mode, Slots);
  view<T, 2, typename Compute::space> d_routed;
  view<M, 2, typename Compute::space> d_logits;
  if constexpr (Mode == shared_expert_mode::averaged) d_routed = context.template allocate<T>(x.extent(0), x.extent(1));
  if constexpr (Mode == shared_expert_mode::sigmoid_gated)
    d_logits = context.template allocate<M>(x.extent(0), index_t{1});
  const auto d_result = saved.result;  // in place
  blend_shared_backward(context, d_routed, d_result, d_logits, d_out, saved.result, saved.logits, share.routed,
                        share.shared);
  swiglu_ffn_backward<Compute>(context, weights, gradients, saved.ffn, x, d_x, d_result);
  if constexpr (Mode == shared_expert_mode::sigmoid_gated)
    linear_gate{}.template backward<Compute>(context, pass, gate, gate_gradient, saved.gate, d_logits, x, d_x);
  return Mode == shared_expert_mode::averaged ? view<const T, 2, typename Compute::space>(d_routed) : d_out;
}

}  // namespace graft
