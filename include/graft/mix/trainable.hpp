// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is trained after a mix.

#include <string_view>

#include <graft/core/error.hpp>
#include <graft/models/parameter_store.hpp>

namespace graft {

enum class mix_training { all, all_but_experts, routers };

constexpr std::string_view name_of(mix_training what) {
  constexpr std::string_view names[] = {"all", "all-but-experts", "routers"};
  return names[static_cast<int>(what)];
}

// The rule for a trainer. all: as in the BTX paper; all_but_experts: its ablation; routers: what some tool kits do.
inline trainable_rule trainable_after_mix(mix_training what) {
  switch (what) {
    case mix_training::all:
      return {};
    case mix_training::all_but_experts:
      return [](const tensor_entry& entry) { return entry.expert < 0; };
    case mix_training::routers:
      return [](const tensor_entry& entry) { return entry.kind == role::router; };
  }
  detail::raise("trainable_after_mix: unknown kind of training ", static_cast<int>(what));
}

}  // namespace graft
