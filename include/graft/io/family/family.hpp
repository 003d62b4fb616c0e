// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The Hugging Face model families that graft reads and writes: which configuration belongs to which, what their
// config.json calls the sizes, and the extents of each tensor in those words.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <graft/core/transformer_shape.hpp>
#include <graft/io/family/model_config.hpp>

namespace graft {

enum class model_family { llama, mixtral, qwen3, qwen3_moe, qwen2_moe, deepseek, graft };

struct family_traits {
  model_family family;
  const char* model_type;    // config.json
  const char* architecture;  // config.json
  bool mixture;
  bool qk_norm;
  const char* hidden_key;  // what config.json calls transformer_shape::hidden
};

// The last is graft's own, for what no family of the hub computes: config.json has every size in the words of the
// families, tensors are named as in graft's parameter trees, and graft.json beside it names the policies.
inline constexpr family_traits all_families[] = {
    {model_family::llama, "llama", "LlamaForCausalLM", false, false, "intermediate_size"},
    {model_family::mixtral, "mixtral", "MixtralForCausalLM", true, false, "intermediate_size"},
    {model_family::qwen3, "qwen3", "Qwen3ForCausalLM", false, true, "intermediate_size"},
    {model_family::qwen3_moe, "qwen3_moe", "Qwen3MoeForCausalLM", true, true, "moe_intermediate_size"},
    {model_family::qwen2_moe, "qwen2_moe", "Qwen2MoeForCausalLM", true, false, "moe_intermediate_size"},
    {model_family::deepseek, "deepseek", "DeepseekForCausalLM", true, false, "moe_intermediate_size"},
    {model_family::graft, "graft", "GraftForCausalLM", true, true, "moe_intermediate_size"},
};

constexpr const family_traits& traits_of(model_family family) {
  for (const family_traits& traits : all_families)
    if (traits.family == family) return traits;
  return all_families[0];
}

// Whether models of the family compute what this configuration says.
//   mixtral     every block has experts, weights sum to one
//   qwen3_moe   some blocks may be dense
//   qwen2_moe   the same with a gated shared expert (without the biases of Qwen's own checkpoints)
//   deepseek    the first blocks may be dense; shared experts of the width of the others are added; weights of a single
//               slot are not renormalised. The first DeepSeekMoE, whose attention is Llama's
constexpr bool computes(model_family family, const model_config& config) {
  const transformer_shape& shape = config.shape;
  const bool experts = shape.experts > 0, plain = config.shared == shared_expert_mode::none && shape.shared_hidden == 0;
  switch (family) {
    case model_family::llama:
      return !experts && !shape.qk_norm;
    case model_family::qwen3:
      return !experts && shape.qk_norm;
    case model_family::mixtral:
      return experts && !shape.qk_norm && plain && !has_dense_blocks(shape) && config.normalised_weights;
    case model_family::qwen3_moe:
      return experts && shape.qk_norm && plain;
    case model_family::qwen2_moe:
      return experts && !shape.qk_norm && config.shared == shared_expert_mode::sigmoid_gated;
    case model_family::deepseek:
      return experts && !shape.qk_norm && shape.moe_period == 1 &&
             (plain || (config.shared == shared_expert_mode::sum && shape.shared_hidden % shape.hidden == 0)) &&
             !(config.normalised_weights && config.experts_per_token == 1);
    case model_family::graft:
      return true;
  }
  return false;
}

// The first family that does.
constexpr const family_traits& family_of(const model_config& config) {
  for (const family_traits& traits : all_families)
    if (computes(traits.family, config)) return traits;
  return traits_of(model_family::graft);
}
constexpr const family_traits& family_of(const transformer_shape& shape) {
  return family_of(model_config{.shape = shape});
}

// Extents of a tensor and the words of config.json that they come from.
struct expected_extents {
  std::vector<std::uint64_t> shape;
  std::string keys;  // "num_attention_heads * head_dim, hidden_size"
};

namespace detail {

// "model.layers.3.mlp.up_proj.weight" in pieces: layer 3, "mlp.up_proj.weight". Layer -1 and the whole name otherwise.
struct layer_name {
  index_t layer = -1;
  std::string_view rest;
};

// Reads the number at the start of text and what follows its dot.
inline std::optional<std::pair<index_t, std::string_view>> leading_number(std::string_view text) {
  const std::size_t dot = text.find('.');
  if (dot == 0 || dot > 9 || text.substr(0, dot).find_first_not_of("0123456789") != std::string_view::npos)
    return std::nullopt;
  return std::pair{static_cast<index_t>(std::stol(std::string(text.substr(0, dot)))), text.substr(dot + 1)};
}

inline layer_name split_layer(std::string_view name) {
  constexpr std::string_view head = "model.layers.";
  if (name.starts_with(head))
    if (const auto number = leading_number(name.substr(head.size()))) return {number->first, number->second};
  return {-1, name};
}

}  // namespace detail

// What config.json implies for a tensor of a layout (names as in Llama and Mixtral); nothing for names it does not
// know.
inline std::optional<expected_extents> extents_from_config(std::string_view name, const transformer_shape& shape,
                                                           const family_traits& traits) {
  const auto of = [](std::string keys, auto... extents) {
    return expected_extents{{static_cast<std::uint64_t>(extents)...}, std::move(keys)};
  };
  const std::string hidden = shape.experts > 0 ? traits.hidden_key : "intermediate_size";
  const std::string_view rest = detail::split_layer(name).rest;
  if (rest == "model.embed_tokens.weight" || rest == "lm_head.weight")
    return of("vocab_size, hidden_size", shape.vocabulary, shape.width);
  if (rest == "model.norm.weight" || rest == "input_layernorm.weight" || rest == "post_attention_layernorm.weight")
    return of("hidden_size", shape.width);
  if (rest == "self_attn.q_proj.weight")
    return of("num_attention_heads * head_dim, hidden_size", shape.query_width(), shape.width);
  if (rest == "self_attn.k_proj.weight" || rest == "self_attn.v_proj.weight")
    return of("num_key_value_heads * head_dim, hidden_size", shape.kv_width(), shape.width);
  if (rest == "self_attn.o_proj.weight")
    return of("hidden_size, num_attention_heads * head_dim", shape.width, shape.query_width());
  if (rest == "self_attn.q_norm.weight" || rest == "self_attn.k_norm.weight") return of("head_dim", shape.head_dim);
  if (rest == "mlp.gate_proj.weight" || rest == "mlp.up_proj.weight")
    return of("intermediate_size, hidden_size", shape.dense_block_hidden(), shape.width);
  if (rest == "mlp.down_proj.weight")
    return of("hidden_size, intermediate_size", shape.width, shape.dense_block_hidden());
  // A router of graft's own may have logits beyond one for each expert.
  if (rest == "block_sparse_moe.gate.weight" && traits.family == model_family::graft) return std::nullopt;
  if (rest == "block_sparse_moe.gate.weight") return of("number of experts, hidden_size", shape.experts, shape.width);
  const std::string shared = traits.family == model_family::deepseek ? "n_shared_experts * moe_intermediate_size"
                                                                     : "shared_expert_intermediate_size";
  if (rest == "block_sparse_moe.shared_expert.gate_proj.weight" ||
      rest == "block_sparse_moe.shared_expert.up_proj.weight")
    return of(shared + ", hidden_size", shape.shared_hidden, shape.width);
  if (rest == "block_sparse_moe.shared_expert.down_proj.weight")
    return of("hidden_size, " + shared, shape.width, shape.shared_hidden);
  if (rest == "block_sparse_moe.shared_expert_gate.weight") return of("1, hidden_size", 1, shape.width);
  if (rest.starts_with("block_sparse_moe.experts.")) {
    if (rest.ends_with(".w1.weight") || rest.ends_with(".w3.weight"))
      return of(hidden + ", hidden_size", shape.hidden, shape.width);
    if (rest.ends_with(".w2.weight")) return of("hidden_size, " + hidden, shape.width, shape.hidden);
  }
  return std::nullopt;
}

}  // namespace graft
