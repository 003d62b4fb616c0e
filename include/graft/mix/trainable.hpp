// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is trained after a mix.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/io/graft_json.hpp>
#include <graft/models/parameter_store.hpp>

namespace graft {

enum class mix_training { all, all_but_experts, routers, adapters, routers_and_adapters };

inline constexpr mix_training all_mix_trainings[] = {mix_training::all, mix_training::all_but_experts,
                                                     mix_training::routers, mix_training::adapters,
                                                     mix_training::routers_and_adapters};

constexpr std::string_view name_of(mix_training what) {
  constexpr std::string_view names[] = {"all", "all-but-experts", "routers", "adapters", "routers-and-adapters"};
  return names[static_cast<int>(what)];
}

// The rule for a trainer. all: as in the BTX paper; all_but_experts: its ablation, in which the experts' feed-forward
// layers are frozen; routers: what some tool kits do; routers_and_adapters: BAM with adapters; adapters: LoRA experts.
inline trainable_rule trainable_after_mix(mix_training what) {
  switch (what) {
    case mix_training::all:
      return {};
    case mix_training::all_but_experts:
      return [](const tensor_entry& entry) { return entry.expert < 0 || entry.kind != role::ffn; };
    case mix_training::routers:
      return [](const tensor_entry& entry) { return entry.kind == role::router; };
    case mix_training::adapters:
      return [](const tensor_entry& entry) { return entry.kind == role::adapter; };
    case mix_training::routers_and_adapters:
      return [](const tensor_entry& entry) { return entry.kind == role::router || entry.kind == role::adapter; };
  }
  detail::raise("trainable_after_mix: unknown kind of training ", static_cast<int>(what));
}

// As `rule`, but nothing of these experts is trained: feed-forward layers, adapters, and rows of the router where they
// are tensors of their own (owner_gate). The rows of a linear gate are one tensor, which the rule decides on.
inline trainable_rule except_experts(trainable_rule rule, std::vector<int> experts) {
  return [rule = std::move(rule), experts = std::move(experts)](const tensor_entry& entry) {
    if (std::find(experts.begin(), experts.end(), entry.expert) != experts.end()) return false;
    return !rule || rule(entry);
  };
}

// Only what belongs to these experts is trained: an owner of FlexOlmo trains expert 1, FFN, row and bias, beside the
// public expert 0, with everything else frozen. Source: Shi et al., "FlexOlmo", 2025, arXiv 2507.07024.
inline trainable_rule only_experts(std::vector<int> experts) {
  return [experts = std::move(experts)](const tensor_entry& entry) {
    return std::find(experts.begin(), experts.end(), entry.expert) != experts.end();
  };
}

// The places of experts by name. Errors: a name that the model does not have, with those that it has.
inline std::vector<int> experts_named(const std::vector<expert_card>& experts, const std::vector<std::string>& names) {
  std::vector<int> places;
  for (const std::string& name : names) {
    const auto at = std::find_if(experts.begin(), experts.end(), [&](const auto& each) { return each.name == name; });
    if (at == experts.end()) {
      std::string known;
      for (const expert_card& each : experts) known += (known.empty() ? "" : ", ") + each.name;
      detail::raise("expected one of the experts ", known.empty() ? "(it has no names)" : known, ", got ", name);
    }
    places.push_back(static_cast<int>(at - experts.begin()));
  }
  return places;
}

}  // namespace graft
