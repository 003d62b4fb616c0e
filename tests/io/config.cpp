// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// config.json: files as the hub has them, both spellings of what was renamed, and a refusal by name of all else.

#include "catch.hpp"

#include <graft/io/config.hpp>

#include "io_test.hpp"

namespace config_tests {

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

// Qwen1.5-MoE-A2.7B, which says nothing of its biases.
json qwen2_moe() {
  return json::parse(
      R"({"architectures":["Qwen2MoeForCausalLM"],"attention_dropout":0.0,"bos_token_id":151643,"decoder_sparse_step":1,"eos_token_id":151643,"hidden_act":"silu",
    "hidden_size":2048,"initializer_range":0.02,"intermediate_size":5632,"max_position_embeddings":8192,"max_window_layers":21,"mlp_only_layers":[],"model_type":"qwen2_moe",
    "moe_intermediate_size":1408,"norm_topk_prob":false,"num_attention_heads":16,"num_experts":60,"num_experts_per_tok":4,"num_hidden_layers":24,"num_key_value_heads":16,
    "output_router_logits":false,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"router_aux_loss_coef":0.001,"shared_expert_intermediate_size":5632,"sliding_window":32768,
    "tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.39.0.dev0","use_cache":true,"use_sliding_window":false,"vocab_size":151936})");
}

// deepseek-moe-16b-base.
json deepseek() {
  return json::parse(
      R"({"architectures":["DeepseekForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"auto_map":{"AutoConfig":"configuration_deepseek.DeepseekConfig"},
    "aux_loss_alpha":0.001,"bos_token_id":100000,"eos_token_id":100001,"first_k_dense_replace":1,"hidden_act":"silu","hidden_size":2048,"initializer_range":0.02,
    "intermediate_size":10944,"max_position_embeddings":4096,"model_type":"deepseek","moe_intermediate_size":1408,"moe_layer_freq":1,"n_routed_experts":64,
    "n_shared_experts":2,"norm_topk_prob":false,"num_attention_heads":16,"num_experts_per_tok":6,"num_hidden_layers":28,"num_key_value_heads":16,"pretraining_tp":1,
    "rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":10000,"scoring_func":"softmax","seq_aux":true,"tie_word_embeddings":false,"torch_dtype":"bfloat16",
    "transformers_version":"4.36.0","use_cache":true,"vocab_size":102400})");
}

json with(json config, const char* key, json value) {
  config[key] = std::move(value);
  return config;
}
json without(json config, const char* key) {
  config.erase(key);
  return config;
}
json unbiased(json config) { return with(std::move(config), "qkv_bias", false); }
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
  CHECK(experts.normalised_weights);
  CHECK(experts.shape.first_dense == 0);
  CHECK(experts.shape.moe_period == 1);
  CHECK(experts.shape.dense_hidden == 0);

  const model_config gated = parse(unbiased(qwen2_moe()));
  CHECK(gated.shape.experts == 60);
  CHECK(gated.shape.hidden == 1408);
  CHECK(gated.shared == shared_expert_mode::sigmoid_gated);
  CHECK(gated.shape.shared_hidden == 5632);
  CHECK_FALSE(gated.normalised_weights);
  CHECK_FALSE(gated.shape.qk_norm);

  const model_config shared = parse(deepseek());
  CHECK(shared.shape.experts == 64);
  CHECK(shared.experts_per_token == 6);
  CHECK(shared.shape.hidden == 1408);
  CHECK(shared.shape.first_dense == 1);
  CHECK(shared.shape.dense_hidden == 10944);
  CHECK(shared.shared == shared_expert_mode::sum);
  CHECK(shared.shape.shared_hidden == 2816);
  CHECK_FALSE(shared.normalised_weights);
}

TEST_CASE("config: which blocks have experts, and how wide the others are") {
  // Qwen: block b has experts when (b + 1) % step == 0 and it is not listed.
  json file = with(with(qwen3_moe(), "decoder_sparse_step", 2), "mlp_only_layers", {1, 0, 2});
  model_config config = parse(file);
  CHECK(config.shape.first_dense == 3);
  CHECK(config.shape.moe_period == 2);
  CHECK(config.shape.dense_hidden == 6144);
  CHECK_FALSE(config.shape.routed_block(1));
  CHECK_FALSE(config.shape.routed_block(2));
  CHECK(config.shape.routed_block(3));
  CHECK_FALSE(config.shape.routed_block(4));
  CHECK(parse(config_to_json(config, file_dtype::f32)) == config);
  CHECK(parse(with(file, "intermediate_size", 768)).shape.dense_hidden == 0);  // as wide as an expert
  CHECK(parse(with(file, "norm_topk_prob", false)).normalised_weights == false);
  CHECK(parse(without(file, "norm_topk_prob")).normalised_weights == false);

  config = parse(with(deepseek(), "n_shared_experts", nullptr));
  CHECK(config.shared == shared_expert_mode::none);
  CHECK(config.shape.shared_hidden == 0);
  CHECK(parse(without(deepseek(), "first_k_dense_replace")).shape.dense_hidden == 0);
  // Its code renormalises where there is more than one slot.
  CHECK(parse(with(deepseek(), "norm_topk_prob", true)).normalised_weights);
  CHECK_FALSE(parse(with(with(deepseek(), "norm_topk_prob", true), "num_experts_per_tok", 1)).normalised_weights);
}

TEST_CASE("config: a model is of the first family that computes it, and else of graft's own") {
  model_config config = parse(mixtral());
  const auto family = [&] { return std::string(family_of(config).model_type); };
  const auto round_trip = [&] { return parse(config_to_json(config, file_dtype::f32)) == config; };
  CHECK(family() == "mixtral");
  config.normalised_weights = false;
  CHECK(family() == "deepseek");
  CHECK(round_trip());
  config.normalised_weights = true;
  config.shape.first_dense = 2;
  CHECK(family() == "deepseek");
  CHECK(round_trip());
  config.experts_per_token = 1;  // whose weight DeepSeek's code does not make 1
  CHECK(family() == "graft");
  CHECK(round_trip());
  config.experts_per_token = 2;
  config.shape.moe_period = 2;
  CHECK(family() == "graft");
  CHECK(round_trip());
  config.shape.moe_period = 1;
  config.shape.shared_hidden = 2 * config.shape.hidden;
  config.shared = shared_expert_mode::sum;
  CHECK(family() == "deepseek");
  CHECK(round_trip());
  config.shape.shared_hidden += 2;  // not a number of experts
  CHECK(family() == "graft");
  CHECK(round_trip());
  config.shared = shared_expert_mode::sigmoid_gated;
  CHECK(family() == "qwen2_moe");
  CHECK(round_trip());
  config.shape.moe_period = 3;
  config.shape.dense_hidden = 40;
  CHECK(family() == "qwen2_moe");
  CHECK(round_trip());
  config.shared = shared_expert_mode::averaged;
  CHECK(family() == "graft");
  CHECK(round_trip());
  const json own = config_to_json(config, file_dtype::f32);
  CHECK(own["architectures"] == json{"GraftForCausalLM"});
  CHECK(own["shared_expert_mode"] == "averaged");
  CHECK_FALSE(own.contains("num_local_experts"));
  config.shape.qk_norm = true;
  CHECK(family() == "graft");
  CHECK(round_trip());
  config.shared = shared_expert_mode::none;
  config.shape.shared_hidden = 0;
  CHECK(family() == "qwen3_moe");
  CHECK(round_trip());

  // Graft's own can say everything, dense models too.
  for (const json& file : {llama_32(), mixtral(), qwen3(), qwen3_moe(), unbiased(qwen2_moe()), deepseek()})
    CHECK(parse(config_to_json(parse(file), file_dtype::f32, model_family::graft)) == parse(file));

  CHECK_ERROR(config_to_json(parse(deepseek()), file_dtype::f32, model_family::mixtral), "mixtral", "do not compute",
              "deepseek");
  config.shape.shared_hidden = 8;
  CHECK_ERROR(config_to_json(config, file_dtype::f32), "shared expert", "got 8", "mode none");
}

TEST_CASE("config: what is written is read back the same") {
  for (const json& file : {llama_32(), mixtral(), qwen3(), qwen3_moe(), unbiased(qwen2_moe()), deepseek()}) {
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
    const bool no_dense_block = file.contains("mlp_only_layers");
    for (const char* key :
         {"hidden_size", "intermediate_size", "num_key_value_heads", "num_local_experts", "num_experts",
          "moe_intermediate_size", "rope_theta", "rms_norm_eps", "norm_topk_prob", "decoder_sparse_step",
          "mlp_only_layers", "shared_expert_intermediate_size", "qkv_bias", "n_routed_experts", "n_shared_experts",
          "first_k_dense_replace", "moe_layer_freq", "scoring_func"})
      if (file.contains(key) && !(no_dense_block && std::string(key) == "intermediate_size"))
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
  CHECK_ERROR(parse(with(llama_32(), "model_type", "gpt2")), "model_type",
              "llama, mixtral, qwen3, qwen3_moe, qwen2_moe, deepseek, graft", "got \"gpt2\"");
  CHECK_ERROR(parse(with(llama_32(), "quantization_config", {{"bits", 4}})), "\"quantization_config\"", "null");
  CHECK_ERROR(parse(with(llama_32(), "attention_dropout", 0.1)), "\"attention_dropout\"", "got 0.1");
  CHECK_ERROR(parse(with(mixtral(), "router_jitter_noise", 0.01)), "\"router_jitter_noise\"", "got 0.01");
  CHECK_ERROR(parse(with(llama_32(), "partial_rotary_factor", 0.5)), "\"partial_rotary_factor\"", "got 0.5");
  CHECK_ERROR(parse(with(llama_32(), "logit_scale", 2)), "unknown key \"logit_scale\"", "value 2");
  CHECK_ERROR(parse(with(llama_32(), "num_local_experts", 8)), "unknown key \"num_local_experts\"");
  CHECK_ERROR(parse(with(qwen3_moe(), "mlp_only_layers", {1})), "\"mlp_only_layers\"", "the first blocks", "got [1]");
  CHECK_ERROR(parse(with(qwen3_moe(), "mlp_only_layers", {0, 2})), "\"mlp_only_layers\"", "got [0,2]");
  CHECK_ERROR(parse(with(qwen3_moe(), "mlp_only_layers", {"0"})), "\"mlp_only_layers\"");
  CHECK_ERROR(parse(with(qwen3_moe(), "mlp_only_layers", 3)), "\"mlp_only_layers\"", "got 3");
  CHECK_ERROR(parse(with(qwen3_moe(), "decoder_sparse_step", 0)), "\"decoder_sparse_step\"", "got 0");
  CHECK_ERROR(parse(qwen2_moe()), "\"qkv_bias\"", "false", "no biases");
  CHECK_ERROR(parse(with(qwen2_moe(), "qkv_bias", true)), "\"qkv_bias\"", "got true");
  CHECK_ERROR(parse(without(unbiased(qwen2_moe()), "shared_expert_intermediate_size")),
              "\"shared_expert_intermediate_size\"", "missing");
  CHECK_ERROR(parse(with(deepseek(), "moe_layer_freq", 2)), "\"moe_layer_freq\"", "got 2");
  CHECK_ERROR(parse(with(deepseek(), "scoring_func", "sigmoid")), "\"scoring_func\"", "got \"sigmoid\"");
  CHECK_ERROR(parse(with(deepseek(), "first_k_dense_replace", -1)), "\"first_k_dense_replace\"", "got -1");
  CHECK_ERROR(parse(with(deepseek(), "first_k_dense_replace", 28)), "first_dense=28", "blocks=28");
  CHECK_ERROR(parse(with(deepseek(), "topk_method", "noaux_tc")), "unknown key \"topk_method\"");
  for (const char* type : {"olmoe", "flex_olmo", "deepseek_v2", "deepseek_v3", "qwen2"})
    CHECK_ERROR(parse(with(qwen3_moe(), "model_type", type)), "config.json", "does not compute",
                "\"" + std::string(type) + "\"");
  CHECK_ERROR(parse(with(qwen3_moe(), "model_type", "olmoe")), "over the whole vector");
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

}  // namespace config_tests
