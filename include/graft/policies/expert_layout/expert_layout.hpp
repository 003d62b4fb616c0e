// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Concept ExpertLayout: which experts exist and how tokens are laid out for them.

#include <concepts>
#include <cstdint>

#include <graft/core/host_device.hpp>
#include <graft/core/transformer_shape.hpp>
#include <graft/ops/permutation.hpp>

namespace graft {

// As the extent of a std::span: the number of experts may be known at compile time or at run time.
inline constexpr index_t dynamic_experts = -1;

struct expert_layout_spec {
  index_t experts = dynamic_experts;  // E, or dynamic_experts
  bool dropless = true;               // every filled slot is computed
};

// Concept ExpertLayout
//
// Minimal definition:
//   static constexpr expert_layout_spec spec;
//   static constexpr const char* name;
//   index_t experts(const transformer_shape&) const                E of a layer
//   index_t hidden(const transformer_shape&) const                 F of one expert
//   dispatch(context, experts_of_slots, E, K) -> dispatch_plan     which row works for which slot
//
// Models: routed.
//
// Laws: rows of a plan are sorted by expert; a dropless plan has one row for every filled slot.
namespace detail {

// A context that is only declared: enough to ask whether dispatch accepts one.
struct dispatch_archetype {
  using space = host_space;
  template <class T, class... Extents>
  view<T, static_cast<int>(sizeof...(Extents)), host_space> allocate(Extents...);
};
template <class L>
concept dispatches = requires(const L& layout, dispatch_archetype& context,
                              const view<const std::int32_t, 1, host_space>& slots) {
  { layout.dispatch(context, slots, index_t{}, index_t{}) } -> std::same_as<dispatch_plan<host_space>>;
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
                "graft::check_expert_layout: the layout has no dispatch(context, experts_of_slots, experts, slots) "
                "const returning a dispatch_plan. Add one.");
  return true;
}

}  // namespace graft
