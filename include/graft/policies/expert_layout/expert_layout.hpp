// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Concept ExpertLayout: which experts exist and how tokens are laid out for them.

#include <concepts>
#include <cstdint>

#include <graft/core/host_device.hpp>
#include <graft/core/transformer_shape.hpp>
#include <graft/ops/permutation.hpp>
#include <graft/policies/archetypes.hpp>

namespace graft {

// As the extent of a std::span: the number of experts may be known at compile time or at run time.
inline constexpr index_t dynamic_experts = -1;

// How an expert that every token uses joins those that the router chose; policies/expert_layout/shared_routed.hpp.
enum class shared_expert_mode { none, sum, sigmoid_gated, averaged };

struct expert_layout_spec {
  index_t experts = dynamic_experts;  // E, or dynamic_experts
  bool dropless = true;               // every filled slot is computed
  bool causal = true;                 // whether a slot is computed does not depend on later tokens
  shared_expert_mode shared = shared_expert_mode::none;
};

// Concept ExpertLayout
//
// Minimal definition:
//   static constexpr expert_layout_spec spec;
//   static constexpr const char* name;
//   index_t experts(const transformer_shape&) const                E of a layer
//   index_t hidden(const transformer_shape&) const                 F of one expert
//   dispatch(context, selected (T, K), weights (T, K), E, filled_rows, load) -> dispatch_plan
//       which row works for which slot. filled_rows: at most so many slots are filled. load: routing_load of the layer
//       or absent; how many filled slots were dropped is added to its last element
//
// Optional members:
//   experts_form    what the experts compute (policies/experts/); of a layout over another one, that one's
//   base            the layout that this one changes
//   index_t capacity_of(index_t tokens, index_t filled_rows, index_t experts) const    the most rows of one expert
//
// Models: routed, capacity<Base>, pad_to_capacity<Base>, shared_routed<Mode, Base>, with_experts<Form, Base>.
//
// Laws: rows of a plan are sorted by expert, ties by slot; a dropless plan has one row for every filled slot, another
// one counts those that it drops; an expert has at most capacity_of rows, and none is dropped while it has fewer; no
// host synchronisation; same bits twice, whatever the number of threads.
namespace detail {

template <class L>
concept dispatches = requires(const L& layout, context_archetype& context,
                              const view<std::int32_t, 2, host_space>& selected,
                              const view<float, 2, host_space>& weights, const view<float, 1, host_space>& load) {
  {
    layout.dispatch(context, selected, weights, index_t{}, index_t{}, load)
    } -> std::same_as<dispatch_plan<host_space>>;
};

}  // namespace detail

template <class L>
concept ExpertLayout = requires(const L& layout, const transformer_shape& shape) {
  { L::spec } -> std::convertible_to<expert_layout_spec>;
  { L::name } -> std::convertible_to<const char*>;
  { layout.experts(shape) } -> std::same_as<index_t>;
  { layout.hidden(shape) } -> std::same_as<index_t>;
}
&&detail::dispatches<L>;

// Usage: static_assert(graft::check_expert_layout<my_layout>());
template <class L>
consteval bool check_expert_layout() {
  static_assert(
      requires {
        { L::spec } -> std::convertible_to<expert_layout_spec>;
      },
      "graft::check_expert_layout: the layout has no static constexpr expert_layout_spec spec. Add one.");
  static_assert(
      requires {
        { L::name } -> std::convertible_to<const char*>;
      },
      "graft::check_expert_layout: the layout has no static constexpr const char* name. Add one.");
  static_assert(
      requires(const L& l, const transformer_shape& s) {
        { l.experts(s) } -> std::same_as<index_t>;
      },
      "graft::check_expert_layout: the layout has no experts(const transformer_shape&) const returning index_t. Add "
      "one.");
  static_assert(
      requires(const L& l, const transformer_shape& s) {
        { l.hidden(s) } -> std::same_as<index_t>;
      },
      "graft::check_expert_layout: the layout has no hidden(const transformer_shape&) const returning index_t. Add "
      "one.");
  static_assert(detail::dispatches<L>,
                "graft::check_expert_layout: the layout has no dispatch(context, selected, weights, experts, "
                "filled_rows, load) const returning a dispatch_plan. Add one.");
  return true;
}

}  // namespace graft
