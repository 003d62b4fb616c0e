// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What config.json says of experts, family by family: how many there are, which blocks have them, how their weights are
// normalised, and an expert that every token uses.

#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include <graft/core/error.hpp>
#include <graft/io/family/family.hpp>
#include <graft/io/json.hpp>

namespace graft {

// The mode of a shared expert by name; of graft's own config.json.
constexpr const char* name_of(shared_expert_mode mode) {
  constexpr const char* names[] = {"none", "sum", "sigmoid_gated", "averaged"};
  return names[static_cast<int>(mode)];
}

namespace detail {

// 0 when absent.
inline index_t count_or_zero(json_reader& config, const std::string& key) {
  const nlohmann::json* value = config.find(key);
  if (value == nullptr || *value == 0) return 0;
  return config.positive(key);
}

inline void read_expert_count(json_reader& config, const char* own_key, model_config& result) {
  const bool old_name = config.find("num_experts") != nullptr;
  const bool new_name = config.find("num_local_experts") != nullptr;
  // transformers 5 maps one to the other.
  const std::string key = std::string(own_key) == "n_routed_experts" ? own_key
                          : !new_name && old_name                    ? "num_experts"
                          : new_name                                 ? "num_local_experts"
                                                                     : own_key;
  result.shape.experts = config.positive(key);
  if (old_name && new_name) config.expect("num_experts", result.shape.experts);
  result.experts_per_token = config.positive("num_experts_per_tok");
  GRAFT_CHECK(result.experts_per_token <= result.shape.experts, config.place(),
              ": expected num_experts_per_tok <= ", key, ", got ", result.experts_per_token, " and ",
              result.shape.experts);
}

// decoder_sparse_step and mlp_only_layers: block b has experts when (b + 1) % step == 0 and b is not listed.
inline void read_qwen_blocks(json_reader& config, transformer_shape& shape) {
  shape.moe_period = config.positive_or("decoder_sparse_step", 1);
  if (const nlohmann::json* listed = config.find("mlp_only_layers")) {
    std::set<index_t> dense;
    bool valid = listed->is_array();
    if (valid)
      for (const auto& block : *listed) {
        valid = valid && block.is_number_integer();
        if (valid) dense.insert(block.get<index_t>());
      }
    index_t next = 0;
    for (const index_t block : dense) valid = valid && block == next++;
    if (!valid) config.wrong("mlp_only_layers", "the first blocks, as in [0, 1, 2]", *listed);
    shape.first_dense = static_cast<index_t>(dense.size());
  }
}

// intermediate_size is the width of dense blocks; of a model without them it says nothing.
inline void read_dense_width(json_reader& config, transformer_shape& shape) {
  if (!has_dense_blocks(shape)) {
    config.ignore({"intermediate_size"});
    return;
  }
  const index_t width = config.positive("intermediate_size");
  shape.dense_hidden = width == shape.hidden ? 0 : width;
}

inline void read_shared(json_reader& config, shared_expert_mode mode, index_t width, model_config& result) {
  GRAFT_CHECK((mode == shared_expert_mode::none) == (width == 0), config.place(),
              ": expected a width of the shared expert where there is one and only there, got shared_expert_mode=",
              name_of(mode), ", width=", width);
  result.shared = mode;
  result.shape.shared_hidden = width;
}

inline void read_mixture_keys(json_reader& config, const family_traits& traits, model_config& result) {
  transformer_shape& shape = result.shape;
  switch (traits.family) {
    case model_family::mixtral:
      read_expert_count(config, "num_local_experts", result);
      return;
    case model_family::qwen3_moe:
    case model_family::qwen2_moe:
      read_expert_count(config, "num_experts", result);
      result.normalised_weights = config.flag_or("norm_topk_prob", false);
      read_qwen_blocks(config, shape);
      read_dense_width(config, shape);
      if (traits.family == model_family::qwen3_moe) return;
      GRAFT_CHECK(config.find("qkv_bias") != nullptr, config.place(),
                  ": expected \"qkv_bias\" to be false, got none, which means true in this family: graft computes no "
                  "biases");
      read_shared(config, shared_expert_mode::sigmoid_gated, config.positive("shared_expert_intermediate_size"),
                  result);
      return;
    case model_family::deepseek: {
      read_expert_count(config, "n_routed_experts", result);
      // Its code renormalises where there is more than one slot.
      result.normalised_weights = config.flag_or("norm_topk_prob", false) && result.experts_per_token > 1;
      shape.first_dense = count_or_zero(config, "first_k_dense_replace");
      read_dense_width(config, shape);
      config.expect("moe_layer_freq", 1);
      config.expect("scoring_func", "softmax");
      config.ignore({"aux_loss_alpha", "seq_aux", "auto_map"});
      const index_t shared = count_or_zero(config, "n_shared_experts");
      read_shared(config, shared > 0 ? shared_expert_mode::sum : shared_expert_mode::none, shared * shape.hidden,
                  result);
      return;
    }
    case model_family::graft: {
      read_expert_count(config, "num_experts", result);
      result.normalised_weights = config.flag_or("norm_topk_prob", true);
      shape.first_dense = count_or_zero(config, "first_k_dense_replace");
      shape.moe_period = config.positive_or("decoder_sparse_step", 1);
      read_dense_width(config, shape);
      const std::string mode = config.text_or("shared_expert_mode", "none");
      for (const auto each : {shared_expert_mode::none, shared_expert_mode::sum, shared_expert_mode::sigmoid_gated,
                              shared_expert_mode::averaged})
        if (mode == name_of(each)) {
          read_shared(config, each, count_or_zero(config, "shared_expert_intermediate_size"), result);
          return;
        }
      config.wrong("shared_expert_mode", "none, sum, sigmoid_gated or averaged", mode);
    }
    default:
      return;
  }
}

inline void write_mixture_keys(nlohmann::json& json, const family_traits& traits, const model_config& config) {
  const transformer_shape& shape = config.shape;
  json["num_experts_per_tok"] = config.experts_per_token;
  json["output_router_logits"] = false;
  if (traits.family == model_family::mixtral) {
    json["num_local_experts"] = shape.experts;
    json["sliding_window"] = nullptr;
    return;
  }
  json["norm_topk_prob"] = config.normalised_weights;
  json["intermediate_size"] = has_dense_blocks(shape) ? shape.dense_block_hidden() : shape.hidden;
  if (traits.family == model_family::deepseek) {
    json["n_routed_experts"] = shape.experts;
    json["n_shared_experts"] =
        shape.shared_hidden > 0 ? nlohmann::json(shape.shared_hidden / shape.hidden) : nlohmann::json(nullptr);
    json["first_k_dense_replace"] = shape.first_dense;
    json["moe_layer_freq"] = 1;
    json["scoring_func"] = "softmax";
    return;
  }
  json["num_experts"] = shape.experts;
  json["decoder_sparse_step"] = shape.moe_period;
  if (traits.family == model_family::graft) {
    json["first_k_dense_replace"] = shape.first_dense;
    json["shared_expert_mode"] = name_of(config.shared);
    json["shared_expert_intermediate_size"] = shape.shared_hidden;
    return;
  }
  json["mlp_only_layers"] = nlohmann::json::array();
  for (index_t block = 0; block < shape.first_dense; ++block) json["mlp_only_layers"].push_back(block);
  if (traits.family == model_family::qwen2_moe) {
    json["qkv_bias"] = false;
    json["shared_expert_intermediate_size"] = shape.shared_hidden;
  }
}

}  // namespace detail

}  // namespace graft
