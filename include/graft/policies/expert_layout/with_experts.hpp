// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// with_experts<Form, Base>: a layout whose experts compute something else than plain feed-forward layers.

#include <cstdint>

#include <graft/policies/expert_layout/composed_name.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/experts/adapted_experts.hpp>
#include <graft/policies/experts/lora_experts.hpp>
#include <graft/policies/experts/mixed_width_experts.hpp>

namespace graft {

namespace detail {
template <class Form>
struct form_name {
  static constexpr const char* text = Form::name;
};
}  // namespace detail

// Tokens are laid out as by Base; what the experts compute is Form's (policies/experts/).
template <Experts Form, ExpertLayout Base = routed>
struct with_experts {
  static constexpr expert_layout_spec spec = Base::spec;
  static constexpr const char* name = detail::composed_name<Base, detail::form_name<Form>>::value;

  Base base{};
  Form experts_form{};

  constexpr index_t experts(const transformer_shape& shape) const { return base.experts(shape); }
  constexpr index_t hidden(const transformer_shape& shape) const {
    if constexpr (requires(const Form& form) { form.widths.largest(); })
      return experts_form.widths.largest();
    else
      return base.hidden(shape);
  }
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

using adapted = with_experts<adapted_experts>;
using lora = with_experts<lora_experts>;
using mixed_width = with_experts<mixed_width_experts>;

static_assert(
    ExpertLayout<adapted> && ExpertLayout<lora> && ExpertLayout<mixed_width>,
    "graft::with_experts: it is not an ExpertLayout. See what policies/expert_layout/expert_layout.hpp asks for.");

}  // namespace graft
