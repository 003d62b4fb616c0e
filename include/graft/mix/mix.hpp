// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Mixing: fills the parameters of a new model from those of its branches by a recipe and a plan of its experts.

#include <span>
#include <vector>

#include <graft/mix/mix_source.hpp>
#include <graft/mix/mixer.hpp>
#include <graft/mix/recipe.hpp>

namespace graft {

// Fills target (target_layout.size elements) from the branches. Every tensor of the target is set exactly once, and
// every tensor of every branch is used exactly once, or the call fails and names the tensor; with a plan of experts
// every hidden unit of every branch is used at least once, but for experts that are left out. Order: branches in the
// order given; sums in fp64, rounded once. Equal models average to themselves bit for bit.
template <class M>
void mix(const recipe& how, const std::vector<mix_source<M>>& sources, const parameter_layout& target_layout,
         std::span<M> target, const mix_options& options = {}) {
  check_mixable(sources, !options.experts.empty());
  GRAFT_CHECK(static_cast<index_t>(target.size()) >= target_layout.size, "mix: expected room for ", target_layout.size,
              " elements, got ", target.size());
  detail::mixer<M>(how, sources, options).fill(target_layout, target.data());
}

}  // namespace graft
