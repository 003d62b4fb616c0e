// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// shared_routed<Mode, Base>: beside the experts that the router chooses, one that every token uses.

#include <cstdint>

#include <graft/policies/expert_layout/composed_name.hpp>
#include <graft/policies/expert_layout/routed.hpp>

namespace graft {

namespace detail {
template <shared_expert_mode Mode>
struct shared_name {
  static constexpr const char* text = Mode == shared_expert_mode::sum             ? "shared"
                                      : Mode == shared_expert_mode::sigmoid_gated ? "shared_gated"
                                                                                  : "shared_averaged";
};
}  // namespace detail

//   sum             y = FFN_shared(x) + routed(x)
//   sigmoid_gated   y = sigmoid(x w^T) FFN_shared(x) + routed(x), w of shape (1, D)
//   averaged        y = 1 / (K + 1) FFN_shared(x) + K / (K + 1) routed(x)
// The hidden width of the shared expert is transformer_shape::shared_hidden. Several shared experts of width F that are
// added up are one of width n F.
// Source: Dai et al., "DeepSeekMoE", 2024, arXiv 2401.06066, equation 9 (sum); Qwen2-MoE (sigmoid_gated); OLMo-core
// (averaged).
template <shared_expert_mode Mode = shared_expert_mode::sum, ExpertLayout Base = routed>
struct shared_routed {
  static_assert(Mode != shared_expert_mode::none,
                "graft::shared_routed: the mode is none. Use the layout without shared_routed.");
  static_assert(Base::spec.shared == shared_expert_mode::none,
                "graft::shared_routed: the layout has a shared expert already. Add up their widths instead.");
  static constexpr expert_layout_spec spec{
      .experts = Base::spec.experts, .dropless = Base::spec.dropless, .causal = Base::spec.causal, .shared = Mode};
  static constexpr const char* name = detail::composed_name<Base, detail::shared_name<Mode>>::value;

  Base base{};

  constexpr index_t experts(const transformer_shape& shape) const { return base.experts(shape); }
  constexpr index_t hidden(const transformer_shape& shape) const { return base.hidden(shape); }
  index_t capacity_of(index_t tokens, index_t filled_rows, index_t experts) const requires
      requires(const Base& layout) {
    layout.capacity_of(tokens, filled_rows, experts);
  }
  { return base.capacity_of(tokens, filled_rows, experts); }

  template <class Context, class M>
  dispatch_plan<typename Context::space> dispatch(Context& context,
                                                  const view<std::int32_t, 2, typename Context::space>& selected,
                                                  const view<M, 2, typename Context::space>& weights, index_t experts,
                                                  index_t filled_rows,
                                                  const view<M, 1, typename Context::space>& load) const {
    return base.dispatch(context, selected, weights, experts, filled_rows, load);
  }
};

}  // namespace graft
