// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// config.json: files as the hub has them, both spellings of what was renamed, and a refusal by name of all else.

#include "catch.hpp"

#include <graft/io/config.hpp>

#include "io_test.hpp"

using namespace graft;
using nlohmann::json;

namespace {

// The config of Llama-3.2-1B as transformers 4.45 wrote it.
json llama_32() {
  return json::parse(
      R"({"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":128000,"eos_token_id":128001,
    "head_dim":64,"hidden_act":"silu","hidden_size":2048,"initializer_range":0.02,"intermediate_size":8192,"max_position_embeddings":131072,"mlp_bias":false,
    "model_type":"llama","num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,"pretraining_tp":1,"rms_norm_eps":1e-05,
    "rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},
    "rope_theta":500000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.45.0.dev0","use_cache":true,"vocab_size":128256})");
}

// Mixtral-8x7B-v0.1.
json mixtral() {
  return json::parse(
      R"({"architectures":["MixtralForCausalLM"],"attention_dropout":0.0,"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":4096,
    "initializer_range":0.02,"intermediate_size":14336,"max_position_embeddings":32768,"model_type":"mixtral","num_attention_heads":32,"num_experts_per_tok":2,
    "num_hidden_layers":32,"num_key_value_heads":8,"num_local_experts":8,"output_router_logits":false,"rms_norm_eps":1e-05,"rope_theta":1000000.0,
    "router_aux_loss_coef":0.02,"sliding_window":null,"tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.36.0.dev0","use_cache":true,
    "vocab_size":32000})");
}

// Qwen3-0.6B.
json qwen3() {
  return json::parse(
      R"({"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":151643,"eos_token_id":151645,"head_dim":128,
    "hidden_act":"silu","hidden_size":1024,"initializer_range":0.02,"intermediate_size":3072,"max_position_embeddings":40960,"max_window_layers":28,"model_type":"qwen3",
    "num_attention_heads":16,"num_hidden_layers":28,"num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000,"sliding_window":null,
    "tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.51.0","use_cache":true,"use_sliding_window":false,"vocab_size":151936})");
}

// Qwen3-30B-A3B.
json qwen3_moe() {
  return json::parse(
      R"({"architectures":["Qwen3MoeForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":151643,"decoder_sparse_step":1,
    "eos_token_id":151645,"head_dim":128,"hidden_act":"silu","hidden_size":2048,"initializer_range":0.02,"intermediate_size":6144,"max_position_embeddings":40960,
    "max_window_layers":48,"mlp_only_layers":[],"model_type":"qwen3_moe","moe_intermediate_size":768,"norm_topk_prob":true,"num_attention_heads":32,"num_experts":128,
    "num_experts_per_tok":8,"num_hidden_layers":48,"num_key_value_heads":4,"output_router_logits":false,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000.0,
    "router_aux_loss_coef":0.001,"sliding_window":null,"tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.51.0","use_cache":true,
    "use_sliding_window":false,"vocab_size":151936})");
}

json with(json config, const char* key, json value) {
  config[key] = std::move(value);
  return config;
}
json without(json config, const char* key) {
  config.erase(key);
  return config;
}
model_config parse(const json& config) { return parse_config(config, "config.json"); }

}  // namespace

TEST_CASE("config: files of the hub") {
  const model_config llama = parse(llama_32());
  transformer_shape shape;
  shape.vocabulary = 128256;
  shape.width = 2048;
  shape.blocks = 16;
  shape.heads = 32;
  shape.kv_heads = 8;
  shape.head_dim = 64;
  shape.hidden = 8192;
  shape.positions = 131072;
  shape.rope_theta = 500000;
  shape.scaling = {32, 1, 4, 8192};
  shape.norm_eps = 1e-5;
  shape.tied = true;
  CHECK(llama.shape == shape);
  CHECK(llama.experts_per_token == 0);
  CHECK(llama.end_of_text == 128001);

  const model_config mixture = parse(mixtral());
  CHECK(mixture.shape.experts == 8);
  CHECK(mixture.experts_per_token == 2);
  CHECK(mixture.shape.head_dim == 128);
  CHECK(mixture.shape.hidden == 14336);
  CHECK(mixture.shape.rope_theta == 1e6);
  CHECK(mixture.shape.scaling == rope_scaling{});
  CHECK_FALSE(mixture.shape.tied);

  const model_config qwen = parse(qwen3());
  CHECK(qwen.shape.qk_norm);
  CHECK(qwen.shape.head_dim == 128);
  CHECK(qwen.shape.query_width() == 2048);

  const model_config experts = parse(qwen3_moe());
  CHECK(experts.shape.qk_norm);
  CHECK(experts.shape.hidden == 768);
  CHECK(experts.shape.experts == 128);
  CHECK(experts.experts_per_token == 8);
}

TEST_CASE("config: what is written is read back the same") {
  for (const json& file : {llama_32(), mixtral(), qwen3(), qwen3_moe()}) {
    CAPTURE(file.dump());
    const model_config config = parse(file);
    const json written = config_to_json(config, file_dtype::bf16);
    CHECK(parse(written) == config);
    CHECK(written["model_type"] == file["model_type"]);
    CHECK(written["architectures"] == file["architectures"]);
    CHECK(written["dtype"] == "bfloat16");
    CHECK(written["torch_dtype"] == "bfloat16");
    // Both spellings, each enough alone.
    CHECK(parse(without(without(written, "rope_theta"), "rope_scaling")) == config);
    CHECK(parse(without(written, "rope_parameters")) == config);
    // Every key of the hub's file that says something about sizes is written with the same value.
    for (const char* key : {"hidden_size", "intermediate_size", "num_key_value_heads", "num_local_experts",
                            "num_experts", "moe_intermediate_size", "rope_theta", "rms_norm_eps"})
      if (file.contains(key) && !(file["model_type"] == "qwen3_moe" && std::string(key) == "intermediate_size"))
        CHECK(written[key] == file[key]);
  }
  model_config config = parse(mixtral());
  config.experts_per_token = 9;
  CHECK_ERROR(config_to_json(config, file_dtype::f32), "experts_per_token=9", "experts=8");
  CHECK(config_to_json(parse(llama_32()), file_dtype::f32)["dtype"] == "float32");
}

TEST_CASE("config: defaults and alternative spellings") {
  json old = without(without(without(llama_32(), "num_key_value_heads"), "head_dim"), "rope_theta");
  old["rope_scaling"] = nullptr;
  old["eos_token_id"] = {1, 2};
  const model_config config = parse(old);
  CHECK(config.shape.kv_heads == 32);
  CHECK(config.shape.head_dim == 64);
  CHECK(config.shape.rope_theta == 10000);
  CHECK(config.end_of_text == -1);
  json typed = llama_32();
  typed["rope_scaling"].erase("rope_type");
  typed["rope_scaling"]["type"] = "llama3";
  CHECK(parse(typed) == parse(llama_32()));
  json renamed = without(qwen3_moe(), "num_experts");
  renamed["num_local_experts"] = 128;
  CHECK(parse(renamed) == parse(qwen3_moe()));
  CHECK(parse(with(qwen3(), "sliding_window", 4096)) == parse(qwen3()));
  CHECK(parse(with(qwen3(), "layer_types", {"full_attention", "full_attention"})) == parse(qwen3()));
}

TEST_CASE("config: what graft does not compute is refused by name") {
  CHECK_ERROR(parse(with(llama_32(), "attention_bias", true)), "config.json", "\"attention_bias\"", "false",
              "got true");
  CHECK_ERROR(parse(with(llama_32(), "mlp_bias", true)), "\"mlp_bias\"", "got true");
  CHECK_ERROR(parse(with(llama_32(), "hidden_act", "gelu")), "\"hidden_act\"", "silu", "got \"gelu\"");
  CHECK_ERROR(parse(with(mixtral(), "sliding_window", 4096)), "\"sliding_window\"", "null", "got 4096");
  CHECK_ERROR(parse(with(qwen3(), "use_sliding_window", true)), "\"use_sliding_window\"", "got true");
  CHECK_ERROR(parse(with(qwen3(), "layer_types", {"full_attention", "sliding_attention"})), "\"layer_types\"",
              "sliding_attention");
  CHECK_ERROR(parse(with(llama_32(), "rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}})), "rope_scaling",
              "rope_type", "got \"yarn\"");
  CHECK_ERROR(parse(with(llama_32(), "rope_scaling", {{"type", "linear"}, {"factor", 2.0}})), "rope_type",
              "got \"linear\"");
  CHECK_ERROR(parse(with(llama_32(), "model_type", "gpt2")), "model_type", "llama, mixtral, qwen3, qwen3_moe",
              "got \"gpt2\"");
  CHECK_ERROR(parse(with(llama_32(), "quantization_config", {{"bits", 4}})), "\"quantization_config\"", "null");
  CHECK_ERROR(parse(with(llama_32(), "attention_dropout", 0.1)), "\"attention_dropout\"", "got 0.1");
  CHECK_ERROR(parse(with(mixtral(), "router_jitter_noise", 0.01)), "\"router_jitter_noise\"", "got 0.01");
  CHECK_ERROR(parse(with(llama_32(), "partial_rotary_factor", 0.5)), "\"partial_rotary_factor\"", "got 0.5");
  CHECK_ERROR(parse(with(llama_32(), "logit_scale", 2)), "unknown key \"logit_scale\"", "value 2");
  CHECK_ERROR(parse(with(llama_32(), "num_local_experts", 8)), "unknown key \"num_local_experts\"");
  CHECK_ERROR(parse(without(qwen3_moe(), "norm_topk_prob")), "\"norm_topk_prob\"", "true", "got false");
  CHECK_ERROR(parse(with(qwen3_moe(), "mlp_only_layers", {0})), "\"mlp_only_layers\"", "got [0]");
  CHECK_ERROR(parse(with(qwen3_moe(), "decoder_sparse_step", 2)), "\"decoder_sparse_step\"", "got 2");
}

TEST_CASE("config: sizes that are missing, wrong or contradict each other") {
  for (const char* key : {"model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                          "intermediate_size", "max_position_embeddings", "rms_norm_eps"}) {
    CAPTURE(key);
    CHECK_ERROR(parse(without(llama_32(), key)), "config.json", "\"" + std::string(key) + "\"", "missing");
  }
  for (const char* key : {"num_local_experts", "num_experts_per_tok", "num_key_value_heads", "rope_theta"}) {
    CAPTURE(key);
    CHECK_ERROR(parse(without(mixtral(), key)), "\"" + std::string(key) + "\"", "missing");
  }
  CHECK_ERROR(parse(with(llama_32(), "hidden_size", "2048")), "\"hidden_size\"", "integer", "got \"2048\"");
  CHECK_ERROR(parse(with(llama_32(), "hidden_size", 2048.5)), "\"hidden_size\"", "got 2048.5");
  CHECK_ERROR(parse(with(llama_32(), "hidden_size", -1)), "\"hidden_size\"", "got -1");
  CHECK_ERROR(parse(with(llama_32(), "hidden_size", 0)), "\"hidden_size\"", "got 0");
  CHECK_ERROR(parse(with(llama_32(), "vocab_size", 1e10)), "\"vocab_size\"");
  CHECK_ERROR(parse(with(llama_32(), "tie_word_embeddings", 1)), "\"tie_word_embeddings\"", "true or false", "got 1");
  CHECK_ERROR(parse(with(llama_32(), "rms_norm_eps", -1)), "\"rms_norm_eps\"", "-1");
  CHECK_ERROR(parse(with(llama_32(), "rope_theta", -1)), "\"rope_theta\"", "-1");
  CHECK_ERROR(parse(with(llama_32(), "num_key_value_heads", 5)), "config.json", "heads=32", "kv_heads=5");
  CHECK_ERROR(parse(with(llama_32(), "head_dim", 63)), "even head_dim", "63");
  CHECK_ERROR(parse(with(without(llama_32(), "head_dim"), "num_attention_heads", 24)),
              "multiple of num_attention_heads", "2048", "24");
  CHECK_ERROR(parse(with(mixtral(), "num_experts_per_tok", 9)), "num_experts_per_tok <= num_local_experts", "9", "8");
  CHECK_ERROR(parse(with(mixtral(), "num_experts", 9)), "\"num_experts\"", "8", "got 9");
  CHECK_ERROR(parse(with(llama_32(), "rope_parameters", {{"rope_theta", 10000.0}, {"rope_type", "default"}})),
              "rope_theta=500000", "rope_theta=10000", "contradict");
  CHECK_ERROR(parse(with(mixtral(), "rope_parameters", {{"rope_theta", 1e6}, {"rope_type", "default"}, {"beta", 1}})),
              "rope_parameters", "unknown key \"beta\"");
  json scaling = llama_32();
  scaling["rope_scaling"]["high_freq_factor"] = 1.0;
  CHECK_ERROR(parse(scaling), "low_freq_factor < high_freq_factor", "high_freq_factor=1");
  scaling["rope_scaling"].erase("high_freq_factor");
  CHECK_ERROR(parse(scaling), "rope_scaling", "\"high_freq_factor\" is missing");
  CHECK_ERROR(parse(json::array()), "config.json", "expected an object");
}
