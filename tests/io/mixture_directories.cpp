// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Model directories of mixtures with dense blocks and experts that every token uses, under the names of the families
// that have them, and of models that no family computes.

#include "catch.hpp"

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <graft/models/transformer.hpp>
#include <graft/policies/balancer/loss_free_bias.hpp>
#include <graft/policies/expert_layout/shared_routed.hpp>
#include <graft/policies/router/sigmoid_top_k.hpp>
#include <graft/policies/router/top_k.hpp>

#include "edited_directory.hpp"
#include "io_test.hpp"

namespace mixture_directories_tests {

using namespace graft;
using io_test::change_config;
using io_test::edited_directory;
using io_test::loaded;
using io_test::same_bits;
using io_test::scratch_folder;
using nlohmann::json;

namespace {

template <shared_expert_mode Mode>
parameter_layout layout_with(const transformer_shape& shape) {
  if constexpr (Mode == shared_expert_mode::none)
    return make_layout(transformer_specs(shape, mixture<top_k<2>, no_balancer, routed>{}));
  else
    return make_layout(transformer_specs(shape, mixture<top_k<2>, no_balancer, shared_routed<Mode>>{}));
}

parameter_layout layout_of(const model_config& config) {
  switch (config.shared) {
    case shared_expert_mode::sum:
      return layout_with<shared_expert_mode::sum>(config.shape);
    case shared_expert_mode::sigmoid_gated:
      return layout_with<shared_expert_mode::sigmoid_gated>(config.shape);
    case shared_expert_mode::averaged:
      return layout_with<shared_expert_mode::averaged>(config.shape);
    default:
      return layout_with<shared_expert_mode::none>(config.shape);
  }
}

// Three experts of width 10, two for a token.
model_config plain_config() {
  model_config config;
  config.shape = {.vocabulary = 260,
                  .width = 12,
                  .blocks = 4,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 4,
                  .hidden = 10,
                  .positions = 32,
                  .experts = 3};
  config.experts_per_token = 2;
  return config;
}

model_card moe_card() {
  model_card card;
  card.kind = "moe";
  return card;
}

// Values that bfloat16 holds exactly; the gaps hold the mark of loaded().
std::vector<float> values_for(const parameter_layout& layout) {
  std::vector<float> arena(static_cast<std::size_t>(layout.size), -7.0f);
  std::mt19937 random(5);
  for (const tensor_entry& entry : layout.tensors)
    for (index_t i = 0; i < entry.size(); ++i)
      arena[static_cast<std::size_t>(entry.offset + i)] =
          static_cast<float>(bfloat16(static_cast<float>(random()) * 0x1p-31f - 1.0f));
  return arena;
}

// Saves, loads and compares; gives the model_type.
std::string round_trip(const std::filesystem::path& folder, const model_config& config, const parameter_layout& layout,
                       const model_card& card = moe_card()) {
  const std::vector<float> arena = values_for(layout);
  save_model(folder, config, layout, arena.data(), card, {.dtype = file_dtype::bf16});
  const model_info info = load_model_info(folder);
  CHECK(info.config == config);
  CHECK(*info.card == card);
  CHECK(same_bits(loaded(folder, layout), arena));
  return read_json_file(folder / "config.json")["model_type"];
}

bool has(const std::filesystem::path& folder, const std::string& name) {
  return tensor_files(folder).find(name) != nullptr;
}

// The tensor of the file holds the elements of the tensor of the layout.
bool same_elements(const std::filesystem::path& folder, const std::string& file_name, const parameter_layout& layout,
                   const std::string& name) {
  const tensor_files files(folder);
  const located_tensor* source = files.find(file_name);
  const tensor_entry* entry = layout.find(name);
  if (source == nullptr || entry == nullptr) return false;
  std::vector<float> elements(static_cast<std::size_t>(entry->size()));
  source->read(0, static_cast<std::uint64_t>(entry->size()), elements.data());
  const std::vector<float> arena = values_for(layout);
  return std::equal(elements.begin(), elements.end(), arena.begin() + entry->offset);
}

}  // namespace

TEST_CASE("mixture_directories: blocks of both kinds and shared experts, under the names of their family") {
  scratch_folder folder;
  model_config config = plain_config();
  const std::filesystem::path place = folder / "m";
  SECTION("the first block dense and shared experts: deepseek") {
    config.shape.first_dense = 1;
    config.shape.dense_hidden = 14;
    config.shape.shared_hidden = 20;
    config.shared = shared_expert_mode::sum;
    const parameter_layout layout = layout_of(config);
    CHECK(round_trip(place, config, layout) == "deepseek");
    CHECK(same_elements(place, "model.layers.0.mlp.up_proj.weight", layout, "model.layers.0.mlp.up_proj.weight"));
    CHECK(
        same_elements(place, "model.layers.1.mlp.gate.weight", layout, "model.layers.1.block_sparse_moe.gate.weight"));
    CHECK(same_elements(place, "model.layers.2.mlp.experts.1.up_proj.weight", layout,
                        "model.layers.2.block_sparse_moe.experts.1.w3.weight"));
    CHECK(same_elements(place, "model.layers.3.mlp.shared_experts.down_proj.weight", layout,
                        "model.layers.3.block_sparse_moe.shared_expert.down_proj.weight"));
    CHECK_FALSE(has(place, "model.layers.0.mlp.gate.weight"));
  }
  SECTION("every second block and a gated shared expert: qwen2_moe") {
    config.shape.moe_period = 2;
    config.shape.shared_hidden = 7;
    config.shared = shared_expert_mode::sigmoid_gated;
    config.normalised_weights = false;
    const parameter_layout layout = layout_of(config);
    CHECK(round_trip(place, config, layout) == "qwen2_moe");
    CHECK(same_elements(place, "model.layers.3.mlp.shared_expert.gate_proj.weight", layout,
                        "model.layers.3.block_sparse_moe.shared_expert.gate_proj.weight"));
    CHECK(same_elements(place, "model.layers.1.mlp.shared_expert_gate.weight", layout,
                        "model.layers.1.block_sparse_moe.shared_expert_gate.weight"));
    CHECK(has(place, "model.layers.2.mlp.gate_proj.weight"));
  }
  SECTION("norms of heads and blocks of both kinds: qwen3_moe") {
    config.shape.qk_norm = true;
    config.shape.first_dense = 2;
    config.shape.moe_period = 2;
    config.shape.dense_hidden = 14;
    const parameter_layout layout = layout_of(config);
    CHECK(round_trip(place, config, layout) == "qwen3_moe");
    CHECK(has(place, "model.layers.3.mlp.experts.0.gate_proj.weight"));
    CHECK_FALSE(has(place, "model.layers.1.mlp.gate.weight"));
  }
  SECTION("an averaged shared expert: graft's own names") {
    config.shape.first_dense = 1;
    config.shape.shared_hidden = 10;
    config.shared = shared_expert_mode::averaged;
    CHECK(round_trip(place, config, layout_of(config)) == "graft");
    CHECK(has(place, "model.layers.3.block_sparse_moe.shared_expert.up_proj.weight"));
    CHECK(has(place, "model.layers.3.block_sparse_moe.experts.2.w2.weight"));
  }
  // In shards of a few hundred bytes.
  const parameter_layout layout = layout_of(config);
  const std::vector<float> arena = values_for(layout);
  save_model(place, config, layout, arena.data(), moe_card(), {.dtype = file_dtype::f32, .shard_bytes = 700});
  CHECK(same_bits(loaded(place, layout), arena));
}

TEST_CASE("mixture_directories: the card decides how weights are normalised and the shared expert is added") {
  scratch_folder folder;
  model_config config = plain_config();
  config.shape.shared_hidden = 10;
  model_card card = moe_card();
  card.router = policy_card{"softmax_top_k", {{"experts_per_token", 2}, {"gate.stddev", 0.02}}};
  card.layout = policy_card{"shared_gated+capacity", {{"factor", 1.25}}};
  model_config want = config;
  want.shared = shared_expert_mode::sigmoid_gated;
  want.normalised_weights = false;
  const parameter_layout layout = layout_of(want);
  save_model(folder / "m", config, layout, values_for(layout).data(), card);
  CHECK(load_model_info(folder / "m").config == want);
  CHECK(load_model_info(folder / "m").family == model_family::qwen2_moe);

  change_config(folder / "m", "norm_topk_prob", true);
  CHECK_ERROR(load_model_info(folder / "m"), "graft.json", "softmax_top_k", "does not give", "norm_topk_prob");
  change_config(folder / "m", "norm_topk_prob", false);
  card.layout->name = "shared+capacity";
  io_test::write_bytes(folder / "m/graft.json", to_json(card).dump());
  CHECK_ERROR(load_model_info(folder / "m"), "graft.json", "shared+capacity", "sum", "sigmoid_gated");
}

TEST_CASE("mixture_directories: what no family computes is saved as graft's own") {
  scratch_folder folder;
  const model_config config = plain_config();
  model_card card = moe_card();
  const auto type_of = [&](const parameter_layout& layout) { return round_trip(folder / "m", config, layout, card); };
  CHECK(type_of(layout_of(config)) == "mixtral");
  card.router = policy_card{"top_k", {{"experts_per_token", 2}, {"gate.stddev", 0.02}, {"gate.jitter", 0.0}}};
  CHECK(type_of(layout_of(config)) == "mixtral");
  card.router->name = "hash_router";
  CHECK(type_of(layout_of(config)) == "graft");
  card.router = policy_card{"top_k", {{"weigh.scale", 2.5}}};  // nothing in the families' files says so
  CHECK(type_of(layout_of(config)) == "graft");
  // Tensors that no family has: here the selection bias.
  card.router = std::nullopt;
  const parameter_layout biased =
      make_layout(transformer_specs(config.shape, mixture<sigmoid_top_k<2>, loss_free_bias, routed>{}));
  REQUIRE(biased.find("model.layers.0.block_sparse_moe.selection_bias.weight") != nullptr);
  CHECK(type_of(biased) == "graft");
  CHECK(has(folder / "m", "model.layers.0.block_sparse_moe.selection_bias.weight"));

  // Nobody else knows what the model is made of.
  std::filesystem::remove(folder / "m/graft.json");
  CHECK_ERROR(load_model_info(folder / "m"), "config.json", "described by graft.json");
}

TEST_CASE("mixture_directories: a directory of the hub implies its policies") {
  scratch_folder folder;
  model_config config = plain_config();
  config.shape.first_dense = 1;
  config.shape.dense_hidden = 14;
  config.shape.shared_hidden = 20;
  config.shared = shared_expert_mode::sum;
  config.normalised_weights = false;
  const parameter_layout layout = layout_of(config);
  const std::vector<float> arena = values_for(layout);
  save_model(folder / "m", config, layout, arena.data(), moe_card());
  std::filesystem::remove(folder / "m/graft.json");
  const model_info info = load_model_info(folder / "m");
  CHECK_FALSE(info.card.has_value());
  CHECK(info.family == model_family::deepseek);
  const model_card card = card_of(info);
  CHECK(card.kind == "moe");
  CHECK(card.router->name == "softmax_top_k");
  CHECK(card.router->options["experts_per_token"] == 2);
  CHECK(card.layout->name == "shared");
  CHECK(same_bits(loaded(folder / "m", layout), arena));
  // Saved again under that card it is the same model.
  save_model(folder / "again", info.config, layout, arena.data(), card);
  CHECK(load_model_info(folder / "again").config == config);
  CHECK(load_model_info(folder / "again").family == model_family::deepseek);
}

TEST_CASE("mixture_directories: fused experts beside a shared expert") {
  const bool gated = GENERATE(false, true);  // qwen2_moe, else deepseek
  scratch_folder folder;
  model_config config = plain_config();
  config.shape.first_dense = 1;
  config.shape.shared_hidden = 10;
  config.shared = gated ? shared_expert_mode::sigmoid_gated : shared_expert_mode::sum;
  const parameter_layout layout = layout_of(config);
  const std::vector<float> arena = values_for(layout);
  save_model(folder / "m", config, layout, arena.data(), moe_card());
  edited_directory directory(folder / "m");
  const std::string experts = "model.layers.2.mlp.experts.";
  std::vector<std::byte> gate_up, down;
  for (int e = 0; e < 3; ++e)
    for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
      const std::string name = experts + std::to_string(e) + "." + part + ".weight";
      const std::vector<std::byte>& bytes = directory.contents[directory.at(name)];
      auto& to = std::string(part) == "down_proj" ? down : gate_up;
      to.insert(to.end(), bytes.begin(), bytes.end());
      directory.erase(name);
    }
  directory.add(experts + "gate_up_proj", file_dtype::f32, {3, 20, 12}, gate_up);
  directory.add(experts + "down_proj", file_dtype::f32, {3, 12, 10}, down);
  directory.write();
  CHECK(same_bits(loaded(folder / "m", layout), arena));
}

TEST_CASE("mixture_directories: every tensor of both kinds of blocks once") {
  scratch_folder folder;
  model_config config = plain_config();
  config.shape.first_dense = 1;
  config.shape.shared_hidden = 10;
  config.shared = shared_expert_mode::sum;
  const parameter_layout layout = layout_of(config);
  const std::filesystem::path place = folder / "m";
  save_model(place, config, layout, values_for(layout).data(), moe_card());
  edited_directory directory(place);
  // As a program does: the layout is made from config.json.
  const auto load = [&] { return loaded(place, layout_of(load_model_info(place).config)); };
  SECTION("a shared expert is missing") {
    directory.erase("model.layers.2.mlp.shared_experts.up_proj.weight");
    directory.write();
    CHECK_ERROR(load(), "1 tensor (model.layers.2.mlp.shared_experts.up_proj.weight) is missing");
  }
  SECTION("a shared expert under the name of another family") {
    directory.rename("model.layers.2.mlp.shared_experts.up_proj.weight",
                     "model.layers.2.mlp.shared_expert.up_proj.weight");
    directory.write();
    CHECK_ERROR(load(), "shared_experts.up_proj.weight) is missing", "shared_expert.up_proj.weight) is left over");
  }
  SECTION("a gate of the shared expert, which the family does not have") {
    directory.add("model.layers.2.mlp.shared_expert_gate.weight", file_dtype::f32, {1, 12}, std::vector<std::byte>(48));
    directory.write();
    CHECK_ERROR(load(), "1 tensor (model.layers.2.mlp.shared_expert_gate.weight) is left over");
  }
  SECTION("a dense block that config.json calls a mixture") {
    change_config(place, "first_k_dense_replace", 0);
    CHECK_ERROR(load(), "model.layers.0.mlp.gate.weight", "missing", "model.layers.0.mlp.up_proj.weight", "left over");
  }
  SECTION("a mixture that config.json calls dense") {
    change_config(place, "first_k_dense_replace", 2);
    CHECK_ERROR(load(), "model.layers.1.mlp.up_proj.weight", "missing", "left over");
  }
  SECTION("another number of shared experts") {
    change_config(place, "n_shared_experts", 2);
    CHECK_ERROR(load(), "shared_experts", "[10, 12]", "expected [20, 12]", "n_shared_experts * moe_intermediate_size");
  }
  SECTION("another width of dense blocks") {
    change_config(place, "intermediate_size", 11);
    CHECK_ERROR(load(), "model.layers.0.mlp", "[10, 12]", "expected [11, 12]", "intermediate_size, hidden_size");
  }
}

}  // namespace mixture_directories_tests
