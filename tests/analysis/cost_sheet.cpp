// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The cost sheet against model cards, the tables of the BTS paper, graft's own types and counts by hand. Longer than
// 400 lines: a case for each published number.

#include "catch.hpp"

#include <unistd.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <graft/analysis/cost_sheet.hpp>
#include <graft/io/atomic_file.hpp>
#include <graft/io/attention_card.hpp>
#include <graft/policies/router/sample_top_1.hpp>
#include <graft/policies/router/soft.hpp>

namespace cost_sheet_tests {

using namespace graft;
using nlohmann::json;

namespace {

const std::filesystem::path configs = std::filesystem::path(GRAFT_TEST_DATA_DIR) / "configs";

json config(const std::string& name) { return read_json_file(configs / (name + ".json")); }
json with(json value, const std::string& key, json other) {
  value[key] = std::move(other);
  return value;
}
counted_model parsed(const json& value) {
  counted_model model = parse_counted_model(value, "config.json");
  model.name = "model";
  return model;
}
cost_row row_of(const json& value, const cost_options& options = {}) {
  return sheet_of_models({parsed(value)}, options).rows.front();
}
cost_row method_row(const std::vector<counted_model>& models, const std::string& method,
                    const cost_options& options = {}) {
  return sheet_of_methods(models, {method}, options).rows.front();
}
void check_refused(const std::function<void()>& call, const std::vector<std::string>& parts) {
  try {
    call();
    FAIL("expected a refusal");
  } catch (const error& problem) {
    for (const std::string& part : parts) {
      INFO(problem.what() << "\nexpected: " << part);
      CHECK(std::string(problem.what()).find(part) != std::string::npos);
    }
  }
}

// Width 6, two blocks, vocabulary 11; one block: norms 12, attention 6 x (8 + 2 x 4) + 8 x 6, FFN 3 x 6 x 5.
json tiny() {
  return json::parse(
      R"({"model_type": "llama", "vocab_size": 11, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 5, "max_position_embeddings": 8, "rms_norm_eps": 1e-5})");
}
constexpr double tiny_block = 12 + 96 + 48 + 90, tiny_count = 2 * 66 + 6 + 2 * tiny_block;

}  // namespace

TEST_CASE("cost_sheet: parameters are those of the model cards", "[analysis]") {
  struct card {
    const char* file;
    double total;
    std::string total_text, active_text;  // as published; empty: no figure that counts what is counted here
  };
  const card cards[] = {
      {"llama_2_7b", 6'738'415'616, "6.7B", "6.7B"},          {"mixtral_8x7b", 46'702'792'704, "46.7B", "12.9B"},
      {"qwen1_5_moe_a2_7b", 14'315'784'192, "14.3B", "2.7B"}, {"qwen3_30b_a3b", 30'532'122'624, "30.5B", ""},
      {"olmoe_1b_7b", 6'919'161'856, "6.9B", "1.3B"},         {"flex_olmo_7x7b", 33'270'665'216, "33.3B", ""},
      {"deepseek_moe_16b", 16'375'728'128, "16.4B", "2.8B"},  {"deepseek_v2_lite", 15'706'484'224, "15.7B", ""},
      {"deepseek_v3", 671'026'419'200, "671B", ""},
  };
  for (const card& card : cards) {
    INFO(card.file);
    const cost_row row = row_of(config(card.file));
    CHECK(row.total == card.total);
    CHECK(count_text(row.total) == card.total_text);
    if (!card.active_text.empty()) CHECK(count_text(row.active) == card.active_text);
  }
  // DeepSeek-V3's 37B leave out the embedding.
  const cost_row v3 = row_of(config("deepseek_v3"));
  CHECK(count_text((v3.active - 129280.0 * 7168.0)) == "36.6B");
  CHECK(v3.trained == v3.total - 58 * 256);  // the balancer's biases
  REQUIRE(v3.notes.size() == 3);
  CHECK(v3.notes[0].find("latent attention") != std::string::npos);
  CHECK(v3.notes[1].find("num_nextn_predict_layers") != std::string::npos);
  CHECK(row_of(config("mixtral_8x7b")).notes.empty());
  CHECK(row_of(config("deepseek_moe_16b")).notes.empty());
  // FlexOlmo's paper: eight experts, four active: 37B, 20B.
  json eight = config("flex_olmo_7x7b");
  eight["num_experts"] = 8;
  eight["num_experts_per_tok"] = 4;
  CHECK(row_of(eight).total / 1e9 == Approx(37.6).margin(0.05));
  CHECK(row_of(eight).active / 1e9 == Approx(20.3).margin(0.05));
}

TEST_CASE("cost_sheet: FLOPs are those of the types", "[analysis]") {
  using mixtral_type = mixture<top_k<2>, no_balancer, routed>;
  for (const char* file : {"llama_2_7b", "mixtral_8x7b", "qwen3_30b_a3b"}) {
    INFO(file);
    // One reader for models that graft builds and one for the sheet: they agree.
    model_config built = parse_config(config(file), file);
    const counted_model counted = parsed(config(file));
    built.shape.rope_theta = transformer_shape{}.rope_theta;
    built.shape.norm_eps = transformer_shape{}.norm_eps;
    CHECK(counted.shape == built.shape);
    CHECK(counted.experts_per_token == built.experts_per_token);
    CHECK(has_type(counted));
  }
  const transformer_shape mixtral = parsed(config("mixtral_8x7b")).shape, llama = parsed(config("llama_2_7b")).shape;
  const cost_row moe = row_of(config("mixtral_8x7b")), dense = row_of(config("llama_2_7b"));
  CHECK(moe.active == static_cast<double>(active_parameter_count(mixtral, mixtral_type{})));
  CHECK(moe.forward == flops_per_token(mixtral, 4096, mixtral_type{}).forward);
  CHECK(moe.train == flops_per_token(mixtral, 4096, mixtral_type{}).train);
  CHECK(dense.forward == flops_per_token(llama, 4096).forward);
  CHECK(row_of(config("llama_2_7b"), {.positions = 100}).forward == flops_per_token(llama, 100).forward);

  const counted_model tied = parsed(with(tiny(), "tie_word_embeddings", true));
  const cost_row row = sheet_of_models({tied}, {}).rows.front();
  CHECK(row.total == tiny_count - 66);
  CHECK(row.forward == flops_per_token(tied.shape, 8).forward);  // 8 positions is all it takes

  // The types of the routers count as the sheet does.
  const counted_model seed = parsed(config("bts_seed"));
  transformer_shape four = seed.shape;
  four.experts = 4;
  const auto sampled = mixture<sample_top_1<4>, no_balancer, routed>{};
  CHECK(method_row({seed}, "btx-sample").active == static_cast<double>(active_parameter_count(four, sampled)));
  CHECK(method_row({seed}, "btx-soft").total ==
        static_cast<double>(parameter_count(four, mixture<soft<4>, no_balancer, routed>{})));
  const auto bam = with_attention_experts(mixture<soft<4>, no_balancer, routed>{});
  CHECK(method_row({seed}, "bam").total == static_cast<double>(parameter_count(four, bam)));
  CHECK(method_row({seed}, "bam", {.positions = 100}).train == flops_per_token(four, 100, bam).train);
}

TEST_CASE("cost_sheet: the table of the BTS paper", "[analysis]") {
  const counted_model seed = parsed(config("bts_seed"));
  // Trained, total and active as arXiv 2502.00075 prints them, in billions.
  struct line {
    const char* method;
    double trained, total, active;
  };
  const line lines[] = {{"seed", 2.7, 2.7, 2.7},       {"btx-sample", 7.2, 7.2, 2.9},   {"btx-soft", 7.2, 7.2, 7.2},
                        {"bam", 8.4, 8.4, 8.4},        {"soup", 0, 2.7, 2.7},           {"btm", 0, 10.8, 10.8},
                        {"routing", 15e-6, 10.8, 2.7}, {"bam-adapters", 1.5, 9.9, 9.9}, {"bts", 0.264, 11.0, 11.0}};
  for (const line& line : lines) {
    INFO(line.method);
    for (const auto& models : {std::vector{seed}, std::vector(4, seed)}) {
      const cost_row row = method_row(models, line.method);
      CHECK(row.total / 1e9 == Approx(line.total).margin(0.05));
      CHECK(row.active / 1e9 == Approx(line.active).margin(0.05));
      CHECK(row.trained / 1e9 == Approx(line.trained).epsilon(0.03));
    }
  }
  CHECK(method_row({seed}, "bts").trained == 264'241'152);
  CHECK(method_row({seed}, "bts").total == 4 * 2'689'723'392.0 + 264'241'152);
  CHECK(method_row({seed}, "routing").trained == 15'360);
  CHECK(method_row({seed}, "routing").notes ==
        std::vector<std::string>{"the router is counted as in the paper, with a row more than models: 5 x 3072"});
  // Two stitches into the experts have a block of the gate for the hub that nothing reads.
  CHECK(
      method_row({seed}, "bts").notes ==
      std::vector<std::string>{"of the stitches 18874368 parameters are read by nothing; they count as trained, as in "
                               "the paper"});
  CHECK(method_row({seed}, "btx").name == "btx");
  CHECK(method_row({seed}, "btx").total == method_row({seed}, "btx-top2").total);

  // The FLOPs of its efficiency table, 4,857,028,608, are those of one model with heads of their own keys and values at
  // 8192 keys, with four projections, a scalar gate for each of four experts, and a feed-forward layer of 3 d 12288.
  json heads = with(config("bts_seed"), "num_key_value_heads", 24);
  const counted_model model = parsed(heads);
  const role_counts counts = count_by_role(model);
  const double width = 3072;
  const stitch_plan plan = hub_and_spokes{}.plan(20, 1, 5);
  double projections = 0, merged = 0;
  const auto declared = stitch_specs(plan.steps[0], std::vector<index_t>(5, 3072));
  for_each_leaf(declared.proj, [&](const parameter_spec& spec) { projections += static_cast<double>(spec.size()); });
  for (const stitch_merge& merge : plan.steps[0].merges) merged += static_cast<double>(merge.from.size());
  CHECK(merged == 4);
  CHECK(2 * counts[role::attention] + 2 * scores_per_token(model, 8191) + 20 * 3 * width * 12288 + 2 * projections +
            2 * merged * width ==
        4'857'028'608);
}

TEST_CASE("cost_sheet: methods by hand", "[analysis]") {
  const counted_model seed = parsed(tiny());
  const double ffn = 90, attention = 144, experts = 4, blocks = 2, width = 6, scores = 2 * 2 * 8 * 4.5;
  const double shared = tiny_count - blocks * ffn;
  const auto row = [&](const char* method) { return method_row({seed}, method); };
  const double mixture = shared + blocks * (experts * ffn + experts * width);

  CHECK(row("dense").total == tiny_count);
  CHECK(row("upcycling").total == mixture);
  CHECK(row("btx").active == shared + blocks * (2 * ffn + experts * width));
  CHECK(method_row({seed}, "btx", {.experts_per_token = 3}).active == shared + blocks * (3 * ffn + experts * width));
  CHECK(row("bam").total == mixture + blocks * (3 * attention + experts * width));
  CHECK(row("bam").forward == 2 * (row("bam").total - 66) + 4 * 2 * scores);
  CHECK(row("bam").train == 3 * row("bam").forward);
  const double keys_values = 3 * 6 * 8;
  CHECK(row("bam-shared-kv").total == row("bam").total - blocks * keys_values);
  CHECK(row("bam-shared-kv").forward == row("bam").forward - 2 * blocks * keys_values);
  CHECK(row("bam-adapters").trained == 2 * blocks * experts * (width * width + width));
  CHECK(row("bam-adapters").train ==
        2 * row("bam-adapters").forward + 4 * 2 * scores + 2 * row("bam-adapters").trained);

  CHECK(row("flexolmo").total == mixture + blocks * experts);
  CHECK(row("flexolmo").trained == 0);
  CHECK(row("flexolmo").train == 0);
  CHECK(row("flexolmo-owner").total == shared + blocks * 2 * (ffn + width + 1));
  CHECK(row("flexolmo-owner").trained == blocks * (ffn + width + 1));
  CHECK(row("flexolmo-routers").trained == blocks * experts * (width + 1));
  // Forward, as much again for the gradients to activations, and the product of the weights' gradients.
  CHECK(row("flexolmo-owner").train ==
        2 * row("flexolmo-owner").forward + 2 * scores + 2 * row("flexolmo-owner").trained);
  CHECK(row("adapters").trained == blocks * experts * (width * width + width));
  CHECK(method_row({seed}, "lora", {.rank = 3}).trained == blocks * experts * (3 * 3 * (width + 5) + width));
  CHECK(method_row({seed}, "lora", {.rank = 3}).total == mixture + blocks * experts * 3 * 3 * (width + 5));

  CHECK(row("btm").forward == 4 * row("seed").forward);
  CHECK(row("routing").train == 4 * row("seed").forward + 6 * 5 * width / 8);
  CHECK(row("soup").train == 0);

  // Two stitches, of which the lower is behind block 1 and goes into the experts: 7 squares of the width each, one of
  // the lower idle; three experts' heads fall away. Two blocks have no more than two stitches.
  const cost_row bts = method_row({seed}, "bts");
  const double square = width * width, head = 66;
  CHECK(bts.total == 4 * tiny_count + 14 * square);
  CHECK(bts.trained == 14 * square);
  CHECK(bts.forward == 4 * row("seed").forward - 3 * 2 * head + 2 * 13 * square);
  const double above = head + 4 * tiny_block + 7 * square;
  CHECK(bts.train == bts.forward + 2 * above + 4 * (4 * scores / 2) + 2 * 13 * square);
  CHECK(method_row({seed}, "bts", {.stitches = 1}).trained == 7 * square);
  // Other topologies: every member into every other, at the end into the hub alone; 7 squares each time.
  const cost_row mesh = method_row({seed}, "bts", {.topology = "all_to_all"});
  CHECK(mesh.trained == (4 * 7 + 7) * square);
  CHECK(mesh.forward == 4 * row("seed").forward - 3 * 2 * head + 2 * 35 * square);
  CHECK(mesh.notes.empty());
  CHECK(method_row({seed}, "bts", {.topology = "stitch_at_end"}).trained == 7 * square);
  CHECK(method_row({seed}, "bts", {.topology = "into_hub"}).forward == bts.forward + 2 * square);
  CHECK(method_row({seed}, "bts", {.models = 2, .topology = "pair"}).trained == (2 + 3) * square);
  check_refused([&] { method_row({seed}, "bts", {.topology = "ring"}); }, {"hub_and_spokes", "ring"});
  // A model of one block has every method.
  CHECK(sheet_of_methods({parsed(with(tiny(), "num_hidden_layers", 1))}, cost_method_names(), {}).rows.size() ==
        cost_method_names().size());

  // Branches of other widths may be stitched, ensembled and routed to.
  const counted_model wide = parsed(with(tiny(), "intermediate_size", 7));
  CHECK(method_row({seed, wide}, "btm").total == 2 * tiny_count + blocks * 3 * 6 * 2);
  CHECK(method_row({seed, wide}, "bts", {.stitches = 1}).total == 2 * tiny_count + 72 + 3 * 36);
  // An expert of width 8: a gate of two blocks (6, 6) and a projection (6, 8).
  json other_width = with(tiny(), "hidden_size", 8);
  CHECK(method_row({seed, parsed(other_width)}, "bts", {.topology = "stitch_at_end"}).trained == 2 * 36 + 48);
}

TEST_CASE("cost_sheet: what graft does not build is counted exactly", "[analysis]") {
  const auto total = [](const json& value) { return row_of(value).total; };
  json value = tiny();
  value["attention_bias"] = true;  // of q, k, v and o
  CHECK(total(value) == tiny_count + 2 * (16 + 6));
  value["mlp_bias"] = true;  // of gate, up and down
  CHECK(total(value) == tiny_count + 2 * (16 + 6) + 2 * (5 + 5 + 6));
  CHECK_FALSE(has_type(parsed(value)));
  CHECK(total(with(tiny(), "model_type", "qwen2")) == tiny_count + 2 * 16);
  CHECK(total(with(tiny(), "model_type", "qwen3")) == tiny_count + 2 * 8);
  CHECK(total(with(tiny(), "model_type", "olmo2")) == tiny_count + 2 * (8 + 4));

  // Five keys at most, of eight positions: (1 + 2 + 3 + 4 + 5 + 5 + 5 + 5) / 8 of them.
  const counted_model window = parsed(with(with(tiny(), "model_type", "mistral"), "sliding_window", 5));
  CHECK(scores_per_token(window, 8) == 2 * 2 * 8 * 30.0 / 8);
  CHECK(scores_per_token(window, 5) == 2 * 2 * 8 * 3.0);

  // Latent attention: W_q (6, 2 (4 + 2)), W_kva (6, 3 + 2), a norm of 3, W_kvb (3, 2 (4 + 5)), W_o (2 x 5, 6).
  json latent = json::parse(
      R"({"model_type": "deepseek_v3", "vocab_size": 11, "hidden_size": 6, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 5, "moe_intermediate_size": 3, "q_lora_rank": null, "kv_lora_rank": 3, "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2, "v_head_dim": 5, "first_k_dense_replace": 1, "n_routed_experts": 7, "n_shared_experts": 2,
    "num_experts_per_tok": 2, "max_position_embeddings": 9})");
  const double attention = 72 + 30 + 3 + 54 + 60, dense = 90, routed = 9 * 54 + 7 * 6 + 7;
  CHECK(total(latent) == 2 * 66 + 6 + 3 * (12 + attention) + dense + 2 * routed);
  CHECK(row_of(latent).active == row_of(latent).total - 2 * 5 * 54);
  CHECK(row_of(latent).trained == row_of(latent).total - 2 * 7);
  CHECK(scores_per_token(parsed(latent), 9) == 3 * 2 * (6 + 5) * 5.0);
  latent["q_lora_rank"] = 4;  // W_qa (6, 4), a norm of 4, W_qb (4, 12) in the place of W_q
  CHECK(total(latent) == 2 * 66 + 6 + 3 * (12 + attention - 72 + 24 + 4 + 48) + dense + 2 * routed);

  // Layers without experts, by both of Qwen's keys, and by DeepSeek's.
  json qwen = with(with(config("qwen3_30b_a3b"), "decoder_sparse_step", 2), "mlp_only_layers", json::array({1, 3}));
  std::size_t with_experts = 0;
  for (const bool routed_block : parsed(qwen).routed_blocks) with_experts += routed_block ? 1 : 0;
  CHECK(with_experts == 22);
  const double whole = total(config("qwen3_30b_a3b")), expert = 3 * 2048.0 * 768, router = 2048.0 * 128;
  CHECK(total(qwen) == whole - 26 * (128 * expert + router) + 26 * 3 * 2048.0 * 6144);
  json deepseek = with(config("deepseek_moe_16b"), "moe_layer_freq", 2);
  CHECK_FALSE(parsed(deepseek).routed_blocks[1]);
  CHECK(parsed(deepseek).routed_blocks[2]);
}

TEST_CASE("cost_sheet: graft's own models with their policies", "[analysis]") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("graft-cost-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  model_config config{.shape = parsed(tiny()).shape, .experts_per_token = 2};
  config.shape.experts = 3;
  config.shape.moe_period = 2;
  config.shape.qk_norm = true;
  model_card card;
  card.kind = "moe";
  card.router = policy_card{"flex_olmo", json::object()};
  card.layout = policy_card{"routed", json::object()};
  card.attention = card_of(attention_experts{.shared_kv = true});
  const auto read = [&] {
    write_file(folder / "config.json", config_to_json(config, file_dtype::f32, model_family::graft).dump());
    write_file(folder / "graft.json", to_json(card).dump());
    return read_counted_model(folder);
  };
  using plain = mixture<top_k<2>, no_balancer, routed>;
  // Attention experts in both blocks, experts of feed-forward layers in the second.
  const double attention = 3 * (6 * 8 + 8 * 6) + 6 * 8 + 3 * 6 + 3 * 4 + 4, dense = 90, experts = 3 * 90 + 3 * 7;
  CHECK(sheet_of_models({read()}, {}).rows[0].total == 2 * 66 + 6 + 2 * (12 + attention) + dense + experts);
  card.router->name = "top_k";
  const counted_model model = read();
  CHECK(has_type(model));
  const auto bam = with_attention_experts(plain(), attention_experts{.shared_kv = true});
  const cost_row row = sheet_of_models({model}, {}).rows[0];
  CHECK(row.active == static_cast<double>(active_parameter_count(config.shape, bam)));
  CHECK(row.forward == flops_per_token(config.shape, 8, bam).forward);
  card.attention.reset();
  CHECK(sheet_of_models({read()}, {}).rows[0].total == static_cast<double>(parameter_count(config.shape, plain())));

  // Routers that fill other than K slots: one drawn and all in the first block, and a factor of the tokens.
  config.shape.moe_period = 1;
  config.experts_per_token = 3;
  card.router->name = "sample_top_1";
  CHECK(sheet_of_models({read()}, {}).rows[0].active ==
        static_cast<double>(active_parameter_count(config.shape, mixture<sample_top_1<3>, no_balancer, routed>())));
  card.router = policy_card{"expert_choice", json{{"capacity_factor", 1.0}}};
  mixture<expert_choice<3>, no_balancer, routed> choosing;
  choosing.router.capacity_factor = 1;
  const cost_row chosen = sheet_of_models({read()}, {}).rows[0];
  CHECK(chosen.active == static_cast<double>(active_parameter_count(config.shape, choosing)));
  card.router->name = "soft";
  CHECK(sheet_of_models({read()}, {}).rows[0].activations == chosen.activations);  // rows are kept for slots

  card.router->name = "context_top_k";
  check_refused(read, {"config.json", "router context_top_k", "does not count"});
  fs::remove(folder / "config.json");  // what an assembly of models looks like
  check_refused([&] { return read_counted_model(folder); }, {folder.string(), "got an assembly of models"});
  fs::remove_all(folder);
}

TEST_CASE("cost_sheet: what it does not know it refuses by name", "[analysis]") {
  const auto refuse = [](const json& value, const std::vector<std::string>& parts) {
    check_refused([&] { parse_counted_model(value, "some/config.json"); }, parts);
  };
  refuse(with(tiny(), "model_type", "deepseek_v32"),
         {"some/config.json", "model_type", "deepseek_v3,", "deepseek_v32"});
  refuse(with(tiny(), "index_head_dim", 128), {"some/config.json", "unknown key \"index_head_dim\"", "128"});
  refuse(with(tiny(), "kv_lora_rank", 512), {"\"kv_lora_rank\"", "no latent attention", "512"});
  refuse(with(tiny(), "layer_types", json::array({"full_attention", "linear_attention"})),
         {"\"layer_types\"", "linear_attention"});
  refuse(with(tiny(), "hidden_size", 0), {"\"hidden_size\"", "0"});
  refuse(with(tiny(), "num_key_value_heads", 3), {"num_key_value_heads", "2 and 3"});
  refuse(with(tiny(), "sliding_window", 4), {"\"sliding_window\"", "null", "4"});
  refuse(with(config("deepseek_v3"), "layer_types", json::array({"sliding_attention"})), {"\"layer_types\""});
  refuse(with(config("qwen3_30b_a3b"), "use_sliding_window", true), {"\"use_sliding_window\"", "false"});
  refuse(with(config("mixtral_8x7b"), "num_experts_per_tok", 9), {"num_experts_per_tok", "9 and 8"});
  refuse(with(config("mixtral_8x7b"), "mlp_bias", true), {"\"mlp_bias\"", "false"});
  refuse(with(config("mixtral_8x7b"), "num_experts", 9), {"\"num_experts\"", "8", "9"});
  refuse(with(config("qwen3_30b_a3b"), "mlp_only_layers", json::array({48})), {"\"mlp_only_layers\"", "48"});
  refuse(with(config("deepseek_v3"), "attention_bias", true), {"\"attention_bias\"", "latent attention"});
  refuse(with(config("deepseek_v3"), "qk_head_dim", 128), {"\"qk_head_dim\"", "192", "128"});
  refuse(with(config("deepseek_v3"), "first_k_dense_replace", 61), {"no layer with experts"});
  for (const char* key : {"vocab_size", "hidden_size", "num_experts_per_tok", "n_routed_experts", "q_lora_rank",
                          "v_head_dim", "moe_intermediate_size", "intermediate_size"}) {
    json value = config("deepseek_v3");
    value.erase(key);
    refuse(value, {"some/config.json", "\"" + std::string(key) + "\"", "is missing"});
  }

  const counted_model seed = parsed(tiny());
  counted_model other = parsed(with(tiny(), "intermediate_size", 7));
  other.place = "other.json";
  check_refused(
      [&] {
        method_row({seed, other}, "btx");
      },
      {"other.json", "btx", "hidden width", "config.json", "7", "5"});
  other = parsed(with(tiny(), "model_type", "qwen2"));
  check_refused([&] { method_row({seed, other}, "soup"); }, {"soup", "qwen2", "llama"});
  other = parsed(with(tiny(), "num_hidden_layers", 3));
  check_refused([&] { method_row({seed, other}, "bts"); }, {"bts", "blocks", "3 and 2"});
  other = parsed(with(tiny(), "vocab_size", 12));
  check_refused([&] { method_row({seed, other}, "btm"); }, {"btm", "vocabulary", "12 and 11"});
  const counted_model mixtral = parsed(config("mixtral_8x7b"));
  check_refused([&] { method_row({mixtral}, "btx"); }, {"btx", "dense", "8 experts"});
  CHECK(method_row({mixtral}, "soup").total == 46'702'792'704);
  check_refused([&] { method_row({seed}, "btx", {.experts_per_token = 5}); }, {"experts_per_token=5", "experts=4"});
  check_refused([&] { method_row({seed}, "bts", {.stitches = 3}); }, {"stitches=3", "blocks=2"});
  check_refused([&] { method_row({seed}, "stitch"); }, {"btx-soft", "\"stitch\""});
  check_refused([&] { sheet_of_models({seed}, {.positions = 9}); }, {"config.json", "8 positions", "9"});
}

TEST_CASE("cost_sheet: numbers as people read them, exact ones in JSON", "[analysis]") {
  CHECK(count_text(0) == "0");
  CHECK(count_text(640) == "640");
  CHECK(count_text(15'360) == "15.4k");
  CHECK(count_text(264'241'152) == "264M");
  CHECK(count_text(999'600'000) == "1.0B");
  CHECK(count_text(46'702'792'704) == "46.7B");
  CHECK(count_text(99'960'000'000) == "100B");
  CHECK(count_text(1.5e15) == "1500T");
  CHECK(flops_text(2'626'490'368) == "2.6G");
  CHECK(bytes_text(93'405'585'408) == "93.4GB");

  const counted_model seed = parsed(config("bts_seed"));
  const cost_sheet sheet = sheet_of_methods({seed}, {"seed", "soup", "bts"}, {.sequences = 2, .positions = 1024});
  const auto written = sheet.to_json();
  REQUIRE(written["rows"].size() == 3);
  CHECK(written["rows"][2]["name"] == "bts");
  CHECK(written["rows"][2]["parameters"]["trained"].dump() == "264241152");
  CHECK(written["rows"][1]["parameters"]["trained"] == 0);
  CHECK(written["rows"][0]["flops_per_token"]["train"] ==
        3 * written["rows"][0]["flops_per_token"]["forward"].get<long>());
  CHECK(written["rows"][0]["bytes"]["weights"] == 2 * 2'689'723'392);
  CHECK(written["positions"] == 1024);
  const std::string text = sheet.to_text();
  CHECK(text.starts_with("model"));
  CHECK(text.find("264M") != std::string::npos);
  CHECK(text.find("2 x 1024 tokens") != std::string::npos);
  // Lines of the table are of one length.
  std::vector<std::size_t> lengths;
  for (std::size_t at = 0, line = 0; line < 5; ++line) {
    const std::size_t end = text.find('\n', at);
    lengths.push_back(end - at);
    at = end + 1;
  }
  CHECK(lengths == std::vector<std::size_t>(5, lengths.front()));
}

}  // namespace cost_sheet_tests
