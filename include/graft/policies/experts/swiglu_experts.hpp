// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// swiglu_experts: E feed-forward layers of one width, as in Mixtral.

#include <cstdint>
#include <utility>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/ops/grouped_swiglu.hpp>
#include <graft/policies/experts/experts.hpp>

namespace graft {

// FFN_e(x) = (silu(x W1_e^T) * (x W3_e^T)) W2_e^T. Named as in a Mixtral checkpoint: w1 is the gate, w3 up, w2 down.
// Shapes: W1_e, W3_e (F, D), W2_e (D, F).
struct swiglu_experts {
  static constexpr const char* name = "swiglu";
  static constexpr bool takes_gathered_rows = true;

  template <class Leaf>
  struct parameters {
    BOOST_HANA_DEFINE_STRUCT(parameters, (Leaf, w13), (Leaf, w2));
  };

  constexpr parameters<parameter_spec> specs(index_t width, index_t hidden, index_t experts) const {
    const initializer into = initializer::normal(0.02);
    parameters<parameter_spec> specs;
    specs.w13 = parameter_spec::fused(role::ffn, {{"w1", hidden}, {"w3", hidden}}, width, into).stacked(experts);
    specs.w2 = parameter_spec::matrix(role::ffn, width, hidden, into).stacked(experts);
    return specs;
  }

  template <class Compute>
  struct saved {
    view<typename Compute::storage, 2, typename Compute::space> gate_up;  // (R, 2F)
    view<typename Compute::storage, 2, typename Compute::space> hidden;   // (R, F)
    view<typename Compute::storage, 2, typename Compute::space> results;  // (R, D)
  };

  // rows: a view, or gathered_rows.
  template <class Compute, class Rows>
  saved<Compute> forward(typename Compute::context_type& context, const parameters<typename Compute::weight>& weights,
                         view<const std::int32_t, 1, typename Compute::space> offsets, const Rows& rows) const {
    using T = typename Compute::storage;
    const index_t count = rows.extent(0), hidden = weights.w2.columns;
    saved<Compute> saved;
    saved.gate_up = context.template allocate<T>(count, 2 * hidden);
    saved.hidden = context.template allocate<T>(count, hidden);
    saved.results = context.template allocate<T>(count, rows.extent(1));
    grouped_swiglu_forward(context, saved.gate_up, saved.hidden, rows, weights.w13.stacked(), offsets);
    grouped_gemm_nt(context, saved.results, saved.hidden, weights.w2.stacked(), offsets, accumulate::no);
    return saved;
  }

  template <class Compute, class Rows>
  view<typename Compute::storage, 2, typename Compute::space> backward(
      typename Compute::context_type& context, const parameters<typename Compute::weight>& weights,
      const parameters<typename Compute::gradient>& gradients, const saved<Compute>& saved,
      view<const std::int32_t, 1, typename Compute::space> offsets, const Rows& rows) const {
    const auto d_results = saved.results;
    if (gradients.w2.present())
      grouped_gemm_tn(context, gradients.w2.stacked(), d_results, saved.hidden, offsets, accumulate::yes);
    const auto d_gate_up = saved.gate_up;
    grouped_swiglu_backward(context, d_gate_up, saved.hidden, d_results, weights.w2.stacked(), saved.gate_up, offsets);
    if (gradients.w13.present())
      grouped_gemm_tn(context, gradients.w13.stacked(), d_gate_up, rows, offsets, accumulate::yes);
    const auto d_rows = saved.results;  // free again
    grouped_gemm_nn(context, d_rows, d_gate_up, weights.w13.stacked(), offsets, accumulate::no);
    return d_rows;
  }
};
static_assert(
    Experts<swiglu_experts>,
    "graft::swiglu_experts: it is not of the concept Experts. See what policies/experts/experts.hpp asks for.");

namespace detail {

// What the experts of a layout are: its own form, else that of the layout that it changes.
template <class L>
constexpr auto experts_of(const L& layout) {
  if constexpr (requires { layout.experts_form; })
    return layout.experts_form;
  else if constexpr (requires { layout.base; })
    return experts_of(layout.base);
  else
    return swiglu_experts{};
}
template <class L>
using experts_type = decltype(experts_of(std::declval<const L&>()));

}  // namespace detail

}  // namespace graft
