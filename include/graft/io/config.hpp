// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// config.json of the families Llama, Mixtral, Qwen3, Qwen3-MoE, Qwen2-MoE without biases and the first DeepSeekMoE, and
// graft's own for what none of them computes. What graft does not compute is refused by name; keys that mean nothing to
// a computation are passed over from a fixed list; any other key is an error.

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include <graft/core/error.hpp>
#include <graft/core/transformer_shape.hpp>
#include <graft/io/family/family.hpp>
#include <graft/io/family/mixture_keys.hpp>
#include <graft/io/family/model_config.hpp>
#include <graft/io/file_dtype.hpp>
#include <graft/io/json.hpp>

namespace graft {

namespace detail {

inline void ignore_harmless_keys(json_reader& config) {
  config.ignore({"architectures", "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache",
                 "initializer_range", "pretraining_tp", "bos_token_id", "pad_token_id", "sep_token_id", "unk_token_id",
                 "decoder_start_token_id", "tokenizer_class", "is_decoder", "output_router_logits",
                 "router_aux_loss_coef", "max_window_layers", "max_sequence_length"});
  // What older transformers write into every config: output options and settings of generation.
  config.ignore({"return_dict", "return_dict_in_generate", "output_hidden_states", "output_attentions", "output_scores",
                 "torchscript", "use_bfloat16", "tf_legacy_loss", "prefix"});
  config.ignore(
      {"task_specific_params", "problem_type", "finetuning_task", "id2label", "label2id", "chunk_size_feed_forward"});
  config.ignore({"min_length", "max_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
                 "diversity_penalty", "temperature", "top_k", "top_p", "typical_p"});
  config.ignore({"repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
                 "bad_words_ids", "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id",
                 "remove_invalid_values", "exponential_decay_length_penalty"});
  config.ignore({"suppress_tokens", "begin_suppress_tokens", "cache_implementation", "attn_implementation",
                 "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal"});
}

// Keys with one value that graft computes.
inline void refuse_other_computations(json_reader& config, const family_traits& traits) {
  const nlohmann::json* activation = config.find("hidden_act");
  if (activation != nullptr && *activation != "silu" && *activation != "swish")
    config.wrong("hidden_act", "\"silu\"", *activation);
  for (const char* key : {"attention_bias", "mlp_bias", "qkv_bias", "use_sliding_window", "add_cross_attention",
                          "is_encoder_decoder", "tie_encoder_decoder", "rope_interleaved"})
    config.expect(key, false);
  for (const char* key : {"quantization_config", "cross_attention_hidden_size"}) config.expect(key, nullptr);
  for (const char* key : {"attention_dropout", "router_jitter_noise"}) config.expect(key, 0);
  config.expect("partial_rotary_factor", 1);
  config.expect("pruned_heads", nlohmann::json::object());
  // Qwen's files carry a width that use_sliding_window switches off.
  const bool unused_window = traits.qk_norm || traits.family == model_family::qwen2_moe;
  if (unused_window) {
    config.ignore({"sliding_window"});
  } else {
    config.expect("sliding_window", nullptr);
  }
  if (const nlohmann::json* types = config.find("layer_types")) {
    if (!types->is_array()) config.wrong("layer_types", "an array", *types);
    for (const auto& type : *types)
      if (type != "full_attention") config.wrong("layer_types", "\"full_attention\" everywhere", type);
  }
}

struct rope_settings {
  double theta = 0;  // 0: not given
  rope_scaling scaling{};
  bool operator==(const rope_settings&) const = default;
};

// The object under "rope_scaling" (old) or "rope_parameters" (new, with the base in it).
inline rope_settings read_rope(json_reader rope) {
  rope_settings settings;
  settings.theta = rope.number_or("rope_theta", 0);
  const std::string type = rope.text_or("rope_type", rope.text_or("type", "default"));
  rope.expect("type", type);
  rope.expect("partial_rotary_factor", 1);
  if (type == "llama3") {
    settings.scaling = {rope.number("factor"), rope.number("low_freq_factor"), rope.number("high_freq_factor"),
                        rope.positive("original_max_position_embeddings")};
    GRAFT_CHECK(settings.scaling.factor >= 1 && settings.scaling.low_frequency_factor > 0 &&
                    settings.scaling.high_frequency_factor > settings.scaling.low_frequency_factor,
                rope.place(), ": expected factor >= 1 and 0 < low_freq_factor < high_freq_factor, got factor=",
                settings.scaling.factor, ", low_freq_factor=", settings.scaling.low_frequency_factor,
                ", high_freq_factor=", settings.scaling.high_frequency_factor);
  } else {
    GRAFT_CHECK(type == "default", rope.place(), ": expected the rope_type \"default\" or \"llama3\", got ",
                in_quotes(type));
  }
  rope.finish();
  return settings;
}

inline void read_rope_keys(json_reader& config, transformer_shape& shape, bool theta_required) {
  rope_settings old_keys, new_keys;
  old_keys.theta = config.number_or("rope_theta", 0);
  const bool has_old = config.find("rope_theta") != nullptr || config.find("rope_scaling") != nullptr;
  if (config.find("rope_scaling") != nullptr) old_keys.scaling = read_rope(config.object("rope_scaling")).scaling;
  const bool has_new = config.find("rope_parameters") != nullptr;
  if (has_new) new_keys = read_rope(config.object("rope_parameters"));
  if (has_new && new_keys.theta == 0) new_keys.theta = old_keys.theta;
  if (has_new && old_keys.theta == 0) old_keys.theta = new_keys.theta;
  GRAFT_CHECK(!has_old || !has_new || old_keys == new_keys, config.place(), ": rope_theta=", old_keys.theta,
              " and rope_scaling (factor=", old_keys.scaling.factor,
              ") contradict rope_parameters (rope_theta=", new_keys.theta, ", factor=", new_keys.scaling.factor, ")");
  const rope_settings& settings = has_new ? new_keys : old_keys;
  GRAFT_CHECK(settings.theta != 0 || !theta_required, config.place(), ": the key \"rope_theta\" is missing");
  shape.rope_theta = settings.theta != 0 ? settings.theta : 10000.0;
  shape.scaling = settings.scaling;
  GRAFT_CHECK(shape.rope_theta > 0, config.place(), ": expected \"rope_theta\" to be positive, got ", shape.rope_theta);
}

// Families that are well known, and what keeps graft from computing them.
struct refused_family {
  const char* model_type;
  const char* reason;
};
inline constexpr refused_family refused_families[] = {
    {"olmoe", "it normalises queries and keys over the whole vector, graft computes a norm for each head"},
    {"flex_olmo", "it normalises queries and keys over the whole vector and the output of its layers"},
    {"olmo2", "it normalises queries and keys over the whole vector and the output of its layers"},
    {"qwen2", "its query, key and value projections have biases"},
    {"deepseek_v2", "its attention is multi-head latent attention"},
    {"deepseek_v3", "its attention is multi-head latent attention"},
};

}  // namespace detail

// The family that a config.json is of.
inline const family_traits& read_family(const nlohmann::json& root, const std::string& place) {
  const std::string type = json_reader(root, place).text("model_type");
  std::string known;
  for (const family_traits& traits : all_families) {
    if (type == traits.model_type) return traits;
    known += (known.empty() ? "" : ", ") + std::string(traits.model_type);
  }
  for (const detail::refused_family& refused : detail::refused_families)
    GRAFT_CHECK(type != refused.model_type, place, ": graft does not compute the model_type ", detail::in_quotes(type),
                ": ", refused.reason);
  detail::raise(place, ": expected a model_type of ", known, ", got ", detail::in_quotes(type));
}

// Errors: graft::error naming `place`, key, value and what was expected.
inline model_config parse_config(const nlohmann::json& root, const std::string& place) {
  json_reader config(root, place);
  const family_traits& traits = read_family(root, place);
  config.ignore({"model_type"});

  model_config result;
  transformer_shape& shape = result.shape;
  shape.vocabulary = config.positive("vocab_size");
  shape.width = config.positive("hidden_size");
  shape.blocks = config.positive("num_hidden_layers");
  shape.heads = config.positive("num_attention_heads");
  const bool mixture = traits.family == model_family::graft ? config.find("num_experts") != nullptr : traits.mixture;
  shape.hidden = config.positive(mixture ? traits.hidden_key : "intermediate_size");
  shape.positions = config.positive("max_position_embeddings");
  shape.norm_eps = config.number("rms_norm_eps");
  GRAFT_CHECK(shape.norm_eps >= 0, place, ": expected \"rms_norm_eps\" not to be negative, got ", shape.norm_eps);
  shape.tied = config.flag_or("tie_word_embeddings", false);
  shape.qk_norm = traits.family == model_family::graft ? config.flag_or("qk_norm", false) : traits.qk_norm;
  // Defaults that transformers has too. Where its classes differ from Llama's, the key must be there.
  const bool is_llama = traits.family == model_family::llama;
  shape.kv_heads =
      is_llama ? config.positive_or("num_key_value_heads", shape.heads) : config.positive("num_key_value_heads");
  if (traits.family == model_family::qwen3 || config.find("head_dim") != nullptr) {
    shape.head_dim = config.positive("head_dim");
  } else {
    GRAFT_CHECK(shape.width % shape.heads == 0, place,
                ": expected hidden_size to be a multiple of num_attention_heads where head_dim is not given, got ",
                shape.width, " and ", shape.heads);
    shape.head_dim = shape.width / shape.heads;
  }
  detail::read_rope_keys(config, shape, traits.family == model_family::mixtral);
  if (mixture) detail::read_mixture_keys(config, traits, result);
  const nlohmann::json* end_of_text = config.find("eos_token_id");
  if (end_of_text != nullptr && end_of_text->is_number_integer()) result.end_of_text = end_of_text->get<index_t>();
  detail::refuse_other_computations(config, traits);
  detail::ignore_harmless_keys(config);
  config.finish("which may change what the model computes and which graft does not know");
  try {
    check_shape(shape);
  } catch (const error& problem) {
    detail::raise(place, ": ", problem.what());
  }
  return result;
}

inline model_config read_config(const std::filesystem::path& path) {
  return parse_config(read_json_file(path), path.string());
}

// The contents of config.json for a model of a family whose weights are saved as `dtype`. Keys that transformers 5
// renamed are written under both names. Errors: a configuration that the family does not compute.
inline nlohmann::json config_to_json(const model_config& config, file_dtype dtype, model_family family) {
  using nlohmann::json;
  const transformer_shape& shape = config.shape;
  check_shape(shape);
  GRAFT_CHECK((shape.experts == 0) == (config.experts_per_token == 0) && config.experts_per_token <= shape.experts,
              "config_to_json: expected experts_per_token from 1 to the number of experts (0 when dense), got "
              "experts_per_token=",
              config.experts_per_token, ", experts=", shape.experts);
  GRAFT_CHECK((config.shared == shared_expert_mode::none) == (shape.shared_hidden == 0),
              "config_to_json: expected a hidden width of the shared expert where there is one and only there, got ",
              shape.shared_hidden, " for the mode ", name_of(config.shared));
  const family_traits& traits = traits_of(family);
  GRAFT_CHECK(computes(family, config), "config_to_json: models of the family ", traits.model_type,
              " do not compute what this configuration says, expected one of the family ",
              family_of(config).model_type);
  const char* dtype_name = dtype == file_dtype::bf16 ? "bfloat16" : dtype == file_dtype::f64 ? "float64" : "float32";
  json rope = {{"rope_type", "default"}};
  if (shape.scaling.factor != 1)
    rope = {{"rope_type", "llama3"},
            {"factor", shape.scaling.factor},
            {"low_freq_factor", shape.scaling.low_frequency_factor},
            {"high_freq_factor", shape.scaling.high_frequency_factor},
            {"original_max_position_embeddings", shape.scaling.original_positions}};
  json result = {{"architectures", {traits.architecture}},
                 {"model_type", traits.model_type},
                 {"attention_bias", false},
                 {"attention_dropout", 0.0},
                 {"bos_token_id", nullptr},
                 {"eos_token_id", config.end_of_text >= 0 ? json(config.end_of_text) : json(nullptr)},
                 {"dtype", dtype_name},
                 {"torch_dtype", dtype_name},
                 {"head_dim", shape.head_dim},
                 {"hidden_act", "silu"},
                 {"hidden_size", shape.width},
                 {"initializer_range", 0.02},
                 {"max_position_embeddings", shape.positions},
                 {"num_attention_heads", shape.heads},
                 {"num_hidden_layers", shape.blocks},
                 {"num_key_value_heads", shape.kv_heads},
                 {"rms_norm_eps", shape.norm_eps},
                 {"rope_scaling", shape.scaling.factor != 1 ? rope : json(nullptr)},
                 {"rope_theta", shape.rope_theta},
                 {"tie_word_embeddings", shape.tied},
                 {"use_cache", true},
                 {"vocab_size", shape.vocabulary}};
  rope["rope_theta"] = shape.rope_theta;
  result["rope_parameters"] = rope;
  result["intermediate_size"] = shape.hidden;
  if (shape.experts > 0) {
    result[traits.hidden_key] = shape.hidden;
    detail::write_mixture_keys(result, traits, config);
  }
  if (family == model_family::llama) result["mlp_bias"] = false;
  if (family == model_family::graft) {
    result["qk_norm"] = shape.qk_norm;
  } else if (traits.qk_norm || family == model_family::qwen2_moe) {
    result.update({{"use_sliding_window", false}, {"sliding_window", nullptr}});
  }
  return result;
}
inline nlohmann::json config_to_json(const model_config& config, file_dtype dtype) {
  return config_to_json(config, dtype, family_of(config).family);
}

}  // namespace graft
