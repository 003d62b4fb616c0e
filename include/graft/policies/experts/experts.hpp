// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Concept Experts: what the experts of a layer compute once their tokens lie together, and with which parameters. An
// ExpertLayout names one as its member `experts_form`; without one it is swiglu_experts.

#include <concepts>
#include <type_traits>

#include <graft/backend/gathered_rows.hpp>
#include <graft/core/parameter_tree.hpp>

namespace graft {

// Concept Experts
//
// Minimal definition:
//   static constexpr const char* name;
//   template <class Leaf> parameters               a Hana struct, named `experts` in a checkpoint
//   specs(width, hidden, E) -> parameters<parameter_spec>     constexpr; every parameter stacked over E
//   template <class Compute> saved                 with results (R, D), which backward takes the gradient in; copyable
//   forward<Compute>(context, weights, offsets (E + 1), rows (R, D)) const -> saved
//   backward<Compute>(context, weights, gradients, saved, offsets, rows) const -> d_rows (R, D)
//       saved.results holds the gradient to the results; adds to gradients that are present; may overwrite what was
//       saved; d_rows may be any memory of saved
// Optional:
//   static constexpr bool takes_gathered_rows = true;   `rows` is a view or a gathered_rows
//   (backend/gathered_rows.hpp),
//       whose copy may be absent; without this member it is a view
// Rows [offsets[e], offsets[e+1]) are expert e's; nothing is read or written beyond offsets[E]. Compute: as in
// layers/compute.hpp. weights: parameters<Compute::weight>, gradients: parameters<Compute::gradient>.
//
// Models: swiglu_experts, adapted_experts, lora_experts, mixed_width_experts.
//
// Laws: gradients by finite differences; a row's result does not depend on the other rows; an expert without rows has
// a gradient of zero; nothing is computed for a gradient that is absent.
template <class E>
concept Experts = std::is_trivially_copyable_v<E> && requires(const E& experts, index_t n) {
  { E::name } -> std::convertible_to<const char*>;
  { experts.specs(n, n, n) } -> std::same_as<typename E::template parameters<parameter_spec>>;
};

namespace detail {

// Whether a form takes rows of T that the backend's products gather by themselves, so that nobody needs to copy them.
template <class E, class Backend, class T>
constexpr bool experts_gather_rows() {
  if constexpr (requires { E::takes_gathered_rows; })
    return E::takes_gathered_rows && gathers_rows<Backend, T>;
  else
    return false;
}

}  // namespace detail

}  // namespace graft
