// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// capacity<Base, Rule>: no expert takes more than its capacity, what is beyond is dropped and counted.

#include <algorithm>
#include <cstdint>
#include <tuple>

#include <graft/ops/capacity.hpp>
#include <graft/policies/expert_layout/composed_name.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/options.hpp>

namespace graft {

// Which slots an overfull expert drops.
enum class drop_by {
  position,     // the later tokens'; of one token, the later slot's
  probability,  // those of lower weight, ties to the higher slot
};

namespace detail {
template <drop_by Rule>
struct capacity_name {
  static constexpr const char* text = Rule == drop_by::position ? "capacity" : "capacity_by_probability";
};
}  // namespace detail

// An expert takes at most C = min(T, ceil(factor R / E)) slots, R = K T, or what the router says that it fills of those
// (filled_rows). A dropped slot gives nothing: its token keeps the
// residual stream and what its other slots give, and the weights of those are not scaled up.
//
// T counts the tokens of a pass, padding included: micro-batches of other sizes drop other slots, and a shorter
// sequence leaves less room. By probability a token may lose its place to a later one: such a layout is not causal. A
// model may be trained with it and run with Base, which has the same parameters.
// Source: Fedus, Zoph, Shazeer, "Switch Transformers", 2021, arXiv 2101.03961 (by position); Riquelme et al., "Scaling
// vision with sparse mixture of experts", 2021, arXiv 2106.05974 (batch-prioritised routing, by probability).
template <ExpertLayout Base = routed, drop_by Rule = drop_by::position>
struct capacity {
  static constexpr expert_layout_spec spec{.experts = Base::spec.experts,
                                           .dropless = false,
                                           .causal = Base::spec.causal && Rule == drop_by::position,
                                           .shared = Base::spec.shared};
  static constexpr const char* name = detail::composed_name<Base, detail::capacity_name<Rule>>::value;

  static constexpr auto options() { return std::tuple(option("factor", &capacity::factor)); }

  Base base{};
  double factor = 1.25;

  constexpr index_t experts(const transformer_shape& shape) const { return base.experts(shape); }
  constexpr index_t hidden(const transformer_shape& shape) const { return base.hidden(shape); }
  index_t capacity_of(index_t tokens, index_t filled_rows, index_t experts) const {
    return expert_capacity(factor, filled_rows, experts, tokens);
  }

  template <class Context, class M>
  dispatch_plan<typename Context::space> dispatch(Context& context,
                                                  const view<std::int32_t, 2, typename Context::space>& selected,
                                                  const view<M, 2, typename Context::space>& weights, index_t experts,
                                                  index_t filled_rows,
                                                  const view<M, 1, typename Context::space>& load) const {
    const index_t room = capacity_of(selected.extent(0), filled_rows, experts);
    const auto kept = context.template allocate<std::int32_t>(selected.extent(0), selected.extent(1));
    keep_within_capacity<Context, M>(
        context, reshape(kept, kept.size()), reshape(selected, selected.size()),
        Rule == drop_by::probability ? reshape(weights, weights.size()) : view<M, 1, typename Context::space>{},
        experts, room, load.data != nullptr ? load.rows(load.extent(0) - 1, load.extent(0)) : load);
    return base.dispatch(context, kept, weights, experts, std::min(filled_rows, experts * room), load);
  }
};

namespace detail {
struct padded_name {
  static constexpr const char* text = "padded";
};
}  // namespace detail

// Every expert has C rows, filled up with zeros: sizes do not depend on what the router chose. The result is that of
// Base, up to the order of the sums in products; with a factor above 1 it costs more memory and work.
template <ExpertLayout Base>
struct pad_to_capacity {
  static_assert(
      requires(const Base& layout) { layout.capacity_of(index_t{}, index_t{}, index_t{}); },
      "graft::pad_to_capacity: the layout has no capacity. Give it one, as in pad_to_capacity<capacity<routed>>.");
  static constexpr expert_layout_spec spec = Base::spec;
  static constexpr const char* name = detail::composed_name<Base, detail::padded_name>::value;

  Base base{};

  constexpr index_t experts(const transformer_shape& shape) const { return base.experts(shape); }
  constexpr index_t hidden(const transformer_shape& shape) const { return base.hidden(shape); }
  index_t capacity_of(index_t tokens, index_t filled_rows, index_t experts) const {
    return base.capacity_of(tokens, filled_rows, experts);
  }

  template <class Context, class M>
  dispatch_plan<typename Context::space> dispatch(Context& context,
                                                  const view<std::int32_t, 2, typename Context::space>& selected,
                                                  const view<M, 2, typename Context::space>& weights, index_t experts,
                                                  index_t filled_rows,
                                                  const view<M, 1, typename Context::space>& load) const {
    const auto compact = base.dispatch(context, selected, weights, experts, filled_rows, load);
    return pad_dispatch_plan(context, compact, reshape(selected, selected.size()),
                             capacity_of(selected.extent(0), filled_rows, experts));
  }
};

}  // namespace graft
