// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where the tensors of a mixture layer lie in a file. Three ways are in use: Mixtral's and Qwen's names, one tensor
// per expert and matrix, and the fused tensors that transformers 5 holds in memory and sometimes writes. Which one a
// file has is decided layer by layer from its names.

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/transformer_shape.hpp>
#include <graft/io/family/family.hpp>

namespace graft {

enum class expert_naming {
  mixtral,  // block_sparse_moe.gate.weight, block_sparse_moe.experts.{e}.w1|w2|w3.weight; graft's own names too
  qwen,     // mlp.gate.weight, mlp.experts.{e}.gate_proj|down_proj|up_proj.weight
  fused     // mlp.gate.weight, mlp.experts.gate_up_proj [E, 2F, D] (gate rows first), mlp.experts.down_proj [E, D, F]
};

// A layout's tensor as a range of elements of a file's tensor.
struct tensor_location {
  std::string name;
  std::uint64_t first = 0;           // element at which the range starts
  std::vector<std::uint64_t> shape;  // of the whole tensor of the file
};

constexpr expert_naming naming_of(model_family family) {
  return family == model_family::qwen3_moe || family == model_family::qwen2_moe || family == model_family::deepseek
             ? expert_naming::qwen
             : expert_naming::mixtral;
}
// What stands before the matrices of an expert that every token uses, where experts are not named as in Mixtral.
constexpr std::string_view shared_expert_name(model_family family) {
  return family == model_family::deepseek ? "shared_experts" : "shared_expert";
}

// Where a layout's tensor (a name as in Llama and Mixtral, its extents in `own`) lies in a file of this naming.
inline tensor_location locate(const std::string& name, const std::vector<std::uint64_t>& own, expert_naming naming,
                              index_t experts, std::string_view shared_expert = "shared_expert") {
  const auto [layer, rest] = detail::split_layer(name);
  constexpr std::string_view head = "block_sparse_moe.";
  if (naming == expert_naming::mixtral || layer < 0 || !rest.starts_with(head)) return {name, 0, own};
  const std::string prefix = name.substr(0, name.size() - rest.size()) + "mlp.";
  const std::string_view tail = rest.substr(head.size());
  if (constexpr std::string_view shared = "shared_expert."; tail.starts_with(shared))
    return {prefix + std::string(shared_expert) + "." + std::string(tail.substr(shared.size())), 0, own};
  if (!tail.starts_with("experts.")) return {prefix + std::string(tail), 0, own};

  const auto numbered = detail::leading_number(tail.substr(std::string_view("experts.").size()));
  GRAFT_CHECK(
      numbered.has_value() && own.size() == 2 &&
          (numbered->second == "w1.weight" || numbered->second == "w2.weight" || numbered->second == "w3.weight"),
      "locate: expected an expert's matrix w1, w2 or w3, got the tensor ", name);
  const auto [expert, matrix] = *numbered;
  const char part = matrix[1];
  if (naming == expert_naming::qwen) {
    const char* names[] = {"gate_proj", "down_proj", "up_proj"};
    return {prefix + "experts." + std::to_string(expert) + "." + names[part - '1'] + ".weight", 0, own};
  }
  const auto count = static_cast<std::uint64_t>(experts), index = static_cast<std::uint64_t>(expert);
  const std::uint64_t size = own[0] * own[1];
  if (part == '2') return {prefix + "experts.down_proj", index * size, {count, own[0], own[1]}};
  return {prefix + "experts.gate_up_proj", (2 * index + (part == '3' ? 1 : 0)) * size, {count, 2 * own[0], own[1]}};
}

// What the names in a file say about its layers.
struct file_layers {
  std::map<index_t, expert_naming> naming;  // of the layers that have experts
  std::map<index_t, index_t> experts;       // highest number plus one, of the layers with one tensor per expert
  index_t count = 0;                        // highest layer plus one
};

// Errors: graft::error naming two tensors of one layer that follow different namings.
template <class Names>
file_layers survey_layers(const Names& names, const std::string& place) {
  file_layers layers;
  std::map<index_t, std::string> first_name;
  for (const std::string& name : names) {
    const auto [layer, rest] = detail::split_layer(name);
    if (layer < 0) continue;
    layers.count = std::max(layers.count, layer + 1);
    const std::size_t experts = rest.find(".experts.");
    if (experts == std::string_view::npos) continue;
    const bool mixtral = rest.substr(0, experts) == "block_sparse_moe";
    if (!mixtral && rest.substr(0, experts) != "mlp") continue;
    const auto numbered = detail::leading_number(rest.substr(experts + std::string_view(".experts.").size()));
    const expert_naming naming = mixtral    ? expert_naming::mixtral
                                 : numbered ? expert_naming::qwen
                                            : expert_naming::fused;
    const auto [at, is_new] = layers.naming.emplace(layer, naming);
    first_name.emplace(layer, name);
    GRAFT_CHECK(at->second == naming, place, ": layer ", layer, " mixes two ways of storing experts, it has both ",
                first_name.at(layer), " and ", name);
    if (numbered) {
      index_t& highest = layers.experts[layer];
      highest = std::max(highest, numbered->first + 1);
    }
  }
  return layers;
}

}  // namespace graft
