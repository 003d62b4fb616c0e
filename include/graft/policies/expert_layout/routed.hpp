// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// routed: E experts of one width, every one chosen by the router, no token dropped.

#include <graft/policies/expert_layout/expert_layout.hpp>

namespace graft {

// Experts = dynamic_experts takes E from the shape (config.json); a number fixes it, and rules about it are checked
// when compiling.
template <index_t Experts = dynamic_experts>
struct routed_experts {
  static_assert(Experts == dynamic_experts || Experts >= 1,
                "graft::routed_experts: the number of experts is below 1. Give at least one.");
  static constexpr expert_layout_spec spec{.experts = Experts, .dropless = true};
  static constexpr const char* name = "routed";

  constexpr index_t experts(const transformer_shape& shape) const {
    return Experts == dynamic_experts ? shape.experts : Experts;
  }
  constexpr index_t hidden(const transformer_shape& shape) const { return shape.hidden; }

  template <class Context, class M>
  dispatch_plan<typename Context::space> dispatch(Context& context,
                                                  const view<std::int32_t, 2, typename Context::space>& selected,
                                                  const view<M, 2, typename Context::space>&, index_t experts,
                                                  index_t filled_rows,
                                                  const view<M, 1, typename Context::space>&) const {
    return make_dispatch_plan(context, reshape(selected, selected.size()), experts, selected.extent(1), filled_rows);
  }
};

using routed = routed_experts<>;

}  // namespace graft
