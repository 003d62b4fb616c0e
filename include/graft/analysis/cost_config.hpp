// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// config.json of more families than graft builds, read for what its keys cost and not for what the model computes. For
// graft's own model_type also graft.json, which says what config.json has no keys for.
// Keys that change no size are passed over from a fixed list; a key that is not known is an error, since it may stand
// for weights. An attention that is not counted exactly is refused by name.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/analysis/counted_model.hpp>
#include <graft/io/config.hpp>
#include <graft/io/json.hpp>
#include <graft/mix/card_layout.hpp>
#include <graft/policies/router/expert_choice.hpp>
#include <graft/policies/router/sample_top_1.hpp>

namespace graft {

namespace detail {

struct counted_family {
  const char* model_type;
  const char* experts_key;  // nullptr: dense
  const char* hidden_key;   // of an expert, or of the dense layer
  qk_norm_width qk_norm = qk_norm_width::none;
  bool qkv_bias = false;       // unless a key says otherwise
  bool latent = false;         // multi-head latent attention
  bool head_dim_key = false;   // "head_dim" must be there
  bool kv_heads_key = true;    // "num_key_value_heads" must be there, else it is num_attention_heads
  bool always_window = false;  // "sliding_window" holds without use_sliding_window
};

inline constexpr counted_family counted_families[] = {
    {.model_type = "llama", .experts_key = nullptr, .hidden_key = "intermediate_size", .kv_heads_key = false},
    {.model_type = "mistral", .experts_key = nullptr, .hidden_key = "intermediate_size", .always_window = true},
    {.model_type = "mixtral",
     .experts_key = "num_local_experts",
     .hidden_key = "intermediate_size",
     .always_window = true},
    {.model_type = "qwen2", .experts_key = nullptr, .hidden_key = "intermediate_size", .qkv_bias = true},
    {.model_type = "qwen3",
     .experts_key = nullptr,
     .hidden_key = "intermediate_size",
     .qk_norm = qk_norm_width::head,
     .head_dim_key = true},
    {.model_type = "qwen2_moe", .experts_key = "num_experts", .hidden_key = "moe_intermediate_size", .qkv_bias = true},
    {.model_type = "qwen3_moe",
     .experts_key = "num_experts",
     .hidden_key = "moe_intermediate_size",
     .qk_norm = qk_norm_width::head},
    {.model_type = "olmo2",
     .experts_key = nullptr,
     .hidden_key = "intermediate_size",
     .qk_norm = qk_norm_width::whole,
     .kv_heads_key = false},
    {.model_type = "olmoe",
     .experts_key = "num_experts",
     .hidden_key = "intermediate_size",
     .qk_norm = qk_norm_width::whole,
     .kv_heads_key = false},
    {.model_type = "flex_olmo",
     .experts_key = "num_experts",
     .hidden_key = "intermediate_size",
     .qk_norm = qk_norm_width::whole,
     .kv_heads_key = false},
    {.model_type = "deepseek", .experts_key = "n_routed_experts", .hidden_key = "moe_intermediate_size"},
    {.model_type = "deepseek_v2",
     .experts_key = "n_routed_experts",
     .hidden_key = "moe_intermediate_size",
     .latent = true},
    {.model_type = "deepseek_v3",
     .experts_key = "n_routed_experts",
     .hidden_key = "moe_intermediate_size",
     .latent = true},
};

inline bool starts_like(const std::string& text, const char* start) { return text.rfind(start, 0) == 0; }

// An integer of at least 0.
inline index_t count_or(json_reader& config, const char* key, index_t otherwise) {
  const nlohmann::json* value = config.find(key);
  if (value == nullptr) return otherwise;
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const bool huge = value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(most);
  if (!value->is_number_integer() || huge || value->get<std::int64_t>() < 0 || value->get<std::int64_t>() > most)
    config.wrong(key, "an integer from 0 to " + std::to_string(most), *value);
  return value->get<index_t>();
}

// Keys of other computations with the same weights, beside those that io/config.hpp passes over.
inline void ignore_keys_without_size(json_reader& config) {
  ignore_harmless_keys(config);
  config.ignore({"hidden_act", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "rope_interleave",
                 "rope_interleaved", "partial_rotary_factor", "attention_dropout", "router_jitter_noise", "clip_qkv",
                 "norm_topk_prob", "routed_scaling_factor", "scoring_func", "n_group", "topk_group", "auto_map",
                 "eos_token_id"});
  config.ignore({"ep_size", "aux_loss_alpha", "seq_aux", "router_z_loss_coef", "hidden_dropout", "resid_pdrop",
                 "embd_pdrop", "initializer_cutoff_factor", "pruned_heads", "is_encoder_decoder"});
}

// Attention that sees less than everything before it costs less: a window of all layers is counted, other patterns are
// refused.
inline void read_window(json_reader& config, const counted_family& family, counted_model& model) {
  const bool used = config.flag_or("use_sliding_window", family.always_window);
  const index_t window = count_or(config, "sliding_window", 0);
  if (used && !family.always_window)
    config.wrong("use_sliding_window", "false, a window of some layers is not counted", true);
  if (used) model.window = window;
  // Qwen's files carry a width that use_sliding_window switches off; elsewhere nothing says what a width means.
  if (!family.always_window && !starts_like(model.family, "qwen")) config.expect("sliding_window", nullptr);
  if (const nlohmann::json* types = config.find("layer_types")) {
    if (!types->is_array()) config.wrong("layer_types", "an array", *types);
    for (const auto& type : *types)
      if (type != "full_attention" && !(type == "sliding_attention" && model.window > 0))
        config.wrong("layer_types", "\"full_attention\" everywhere, other attention is not counted", type);
  }
}

inline void read_attention(json_reader& config, const counted_family& family, const nlohmann::json& root,
                           counted_model& model) {
  transformer_shape& shape = model.shape;
  shape.heads = config.positive("num_attention_heads");
  const bool bias = config.flag_or("attention_bias", false);
  model.qkv_bias = config.flag_or("qkv_bias", family.qkv_bias) || bias;
  model.output_bias = bias;
  read_window(config, family, model);
  if (family.latent) {
    if (bias) config.wrong("attention_bias", "false, biases of latent attention are not counted", true);
    latent_attention latent;
    // null means that queries are not compressed; the class of transformers has another default.
    GRAFT_CHECK(root.contains("q_lora_rank"), config.place(), ": the key \"q_lora_rank\" is missing");
    latent.query_rank = count_or(config, "q_lora_rank", 0);
    latent.kv_rank = config.positive("kv_lora_rank");
    latent.plain_dim = config.positive("qk_nope_head_dim");
    latent.rope_dim = config.positive("qk_rope_head_dim");
    latent.value_dim = config.positive("v_head_dim");
    config.expect("qk_head_dim", latent.key_dim());
    config.ignore({"head_dim", "num_key_value_heads"});
    shape.kv_heads = shape.heads;
    shape.head_dim = latent.key_dim();
    model.latent = latent;
    return;
  }
  for (const char* key : {"kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"})
    if (const nlohmann::json* value = config.find(key))
      config.wrong(key, "absent in a " + model.family + ", which has no latent attention", *value);
  shape.kv_heads = family.kv_heads_key ? config.positive("num_key_value_heads")
                                       : config.positive_or("num_key_value_heads", shape.heads);
  GRAFT_CHECK(shape.heads % shape.kv_heads == 0, config.place(),
              ": expected num_attention_heads to be a multiple of num_key_value_heads, got ", shape.heads, " and ",
              shape.kv_heads);
  if (family.head_dim_key || config.find("head_dim") != nullptr) {
    shape.head_dim = config.positive("head_dim");
  } else {
    GRAFT_CHECK(shape.width % shape.heads == 0, config.place(),
                ": expected hidden_size to be a multiple of num_attention_heads where head_dim is not given, got ",
                shape.width, " and ", shape.heads);
    shape.head_dim = shape.width / shape.heads;
  }
}

// Which blocks have experts.
inline void read_routed_blocks(json_reader& config, counted_model& model) {
  transformer_shape& shape = model.shape;
  const std::string type = model.family;
  const auto blocks = static_cast<std::size_t>(shape.blocks);
  model.routed_blocks.assign(blocks, true);
  if (starts_like(type, "deepseek")) {
    shape.first_dense = count_or(config, "first_k_dense_replace", 0);
    const index_t every = config.positive_or("moe_layer_freq", 1);
    for (std::size_t block = 0; block < blocks; ++block)
      model.routed_blocks[block] =
          static_cast<index_t>(block) >= shape.first_dense && static_cast<index_t>(block) % every == 0;
  } else if (starts_like(type, "qwen")) {
    shape.moe_period = config.positive_or("decoder_sparse_step", 1);
    for (std::size_t block = 0; block < blocks; ++block)
      model.routed_blocks[block] = static_cast<index_t>(block + 1) % shape.moe_period == 0;
    if (const nlohmann::json* dense = config.find("mlp_only_layers")) {
      if (!dense->is_array()) config.wrong("mlp_only_layers", "an array", *dense);
      for (const nlohmann::json& layer : *dense) {
        if (!layer.is_number_integer() || layer.get<index_t>() < 0 || layer.get<index_t>() >= shape.blocks)
          config.wrong("mlp_only_layers", "numbers of layers below " + std::to_string(shape.blocks), layer);
        model.routed_blocks[layer.get<std::size_t>()] = false;
      }
    }
  }
  if (std::find(model.routed_blocks.begin(), model.routed_blocks.end(), false) != model.routed_blocks.end())
    shape.dense_hidden = config.positive("intermediate_size");
  GRAFT_CHECK(std::find(model.routed_blocks.begin(), model.routed_blocks.end(), true) != model.routed_blocks.end(),
              config.place(), ": the keys of the dense layers leave no layer with experts");
}

inline void read_experts(json_reader& config, const counted_family& family, counted_model& model) {
  transformer_shape& shape = model.shape;
  // transformers 5 writes num_local_experts for some families that had another word.
  std::string key = family.experts_key;
  for (const char* other : {"num_local_experts", "num_experts"})
    if (config.find(key) == nullptr && config.find(other) != nullptr) key = other;
  shape.experts = config.positive(config.find(key) != nullptr ? key : family.experts_key);
  for (const char* other : {"num_local_experts", "num_experts", "n_routed_experts"})
    config.expect(other, shape.experts);
  model.experts_per_token = config.positive("num_experts_per_tok");
  GRAFT_CHECK(model.experts_per_token <= shape.experts, config.place(), ": expected num_experts_per_tok <= ", key,
              ", got ", model.experts_per_token, " and ", shape.experts);
  read_routed_blocks(config, model);
  if (starts_like(model.family, "deepseek")) {
    shape.shared_hidden = count_or(config, "n_shared_experts", 0) * shape.hidden;
    const std::string method = config.text_or("topk_method", model.family == "deepseek_v3" ? "noaux_tc" : "greedy");
    model.selection_bias = method == "noaux_tc";
  }
  if (model.family == "qwen2_moe") {
    shape.shared_hidden = config.positive("shared_expert_intermediate_size");
    model.shared_gate = true;
  }
  config.ignore({"intermediate_size"});
}

// A config.json of graft's own model_type.
inline counted_model parse_own_model(const nlohmann::json& root, const std::string& place) {
  const model_config config = parse_config(root, place);
  counted_model model;
  model.place = place;
  model.family = "graft";
  model.shape = config.shape;
  model.experts_per_token = config.experts_per_token;
  for (index_t block = 0; block < config.shape.blocks; ++block)
    model.routed_blocks.push_back(config.shape.routed_block(block));
  if (config.shape.qk_norm) model.qk_norm = qk_norm_width::head;
  model.shared_gate = config.shared == shared_expert_mode::sigmoid_gated;
  return model;
}

// What its policies add. Errors: parameters that the sheet does not count, experts of different widths among them.
inline void add_policies(counted_model& model, const model_card& card) {
  const std::string layout = card.layout ? card.layout->name : std::string();
  if (part_of_name(layout, adapted::name)) model.addition = expert_addition::adapter;
  if (part_of_name(layout, lora::name)) {
    model.addition = expert_addition::lora;
    model.rank = card.layout->options.value("rank", lora_experts{}.rank);
  }
  const std::string router = card.router ? card.router->name : std::string();
  if (router == sample_top_1<2>::name) model.slots = slots_rule{1, true};
  if (router == expert_choice<2>::name)
    model.slots = slots_rule{card.router->options.value("capacity_factor", expert_choice<2>{}.capacity_factor)};
  model.owner_gate = card.router && card.router->name.starts_with("flex_olmo");
  for (const policy_card& balancer : card.balancers)
    model.selection_bias = model.selection_bias || balancer.name == "loss_free_bias";
  if (card.attention) model.attention = attention_experts_of(*card.attention);
  const double counted = count_by_role(model).sum();
  const auto declared = static_cast<double>(layout_of(model.shape, card).parameter_count());
  GRAFT_CHECK(counted == declared, model.place, ": the policies of graft.json beside it (router ",
              router.empty() ? "none" : router, ", layout ", layout.empty() ? "none" : layout,
              ") have parameters that the cost sheet does not count: expected ", static_cast<index_t>(declared),
              ", got ", static_cast<index_t>(counted));
}

}  // namespace detail

// Errors: graft::error naming `place`, key, value and what was expected.
inline counted_model parse_counted_model(const nlohmann::json& root, const std::string& place) {
  json_reader config(root, place);
  counted_model model;
  model.place = place;
  model.family = config.text("model_type");
  if (model.family == "graft") return detail::parse_own_model(root, place);
  const detail::counted_family* family = nullptr;
  std::string known;
  for (const detail::counted_family& candidate : detail::counted_families) {
    if (model.family == candidate.model_type) family = &candidate;
    known += (known.empty() ? "" : ", ") + std::string(candidate.model_type);
  }
  GRAFT_CHECK(family != nullptr, place, ": expected a model_type of ", known, ", graft, got ",
              detail::in_quotes(model.family));

  transformer_shape& shape = model.shape;
  shape.vocabulary = config.positive("vocab_size");
  shape.width = config.positive("hidden_size");
  shape.blocks = config.positive("num_hidden_layers");
  shape.hidden = config.positive(family->hidden_key);
  shape.positions = config.positive_or("max_position_embeddings", 0);
  shape.tied = config.flag_or("tie_word_embeddings", false);
  model.qk_norm = family->qk_norm;
  shape.qk_norm = model.qk_norm == qk_norm_width::head;
  detail::read_attention(config, *family, root, model);
  model.routed_blocks.assign(static_cast<std::size_t>(shape.blocks), false);
  if (family->experts_key != nullptr) detail::read_experts(config, *family, model);
  model.ffn_bias = config.flag_or("mlp_bias", false);
  if (model.ffn_bias && family->experts_key != nullptr)
    config.wrong("mlp_bias", "false, biases of experts are not counted", true);

  if (const auto missing = layers_without_type(model); !missing.empty())
    model.notes.push_back("counted by formula, graft has no layers for " + detail::joined(missing));
  const index_t predicted = detail::count_or(config, "num_nextn_predict_layers", 0);
  if (predicted > 0)
    model.notes.push_back("num_nextn_predict_layers = " + std::to_string(predicted) +
                          ": blocks that predict further tokens are not counted");
  if (config.find("quantization_config") != nullptr)
    model.notes.push_back("quantization_config: bytes are those of the precision asked for");
  for (const char* key : {"add_cross_attention", "tie_encoder_decoder"}) config.expect(key, false);
  config.expect("cross_attention_hidden_size", nullptr);
  detail::ignore_keys_without_size(config);
  config.finish("which may stand for weights and which the cost sheet does not know");
  return model;
}

// path: a config.json or a folder that holds one. The name is the folder's, or the file's where it is not called
// config.json. Beside one of graft's own model_type graft.json is read too, where there is one.
inline counted_model read_counted_model(const std::filesystem::path& path) {
  const bool folder = std::filesystem::is_directory(path);
  const std::filesystem::path file = folder ? path / "config.json" : path;
  GRAFT_CHECK(!folder || std::filesystem::exists(file) || !std::filesystem::exists(path / "graft.json"), path.string(),
              ": expected a folder with a config.json, got an assembly of models: ask for a method over its members");
  counted_model model = parse_counted_model(read_json_file(file), file.string());
  if (const auto card = file.parent_path() / "graft.json"; model.family == "graft" && std::filesystem::exists(card))
    detail::add_policies(model, read_model_card(card));
  const std::filesystem::path whole = std::filesystem::absolute(file).lexically_normal();
  model.name = file.filename() == "config.json" ? whole.parent_path().filename().string() : file.stem().string();
  return model;
}

}  // namespace graft
