// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Model directories: what is saved is loaded bit for bit, under every naming of experts, and a directory in which
// anything is missing, left over or contradictory is refused with names. Longer than 400 lines: every refusal is a
// case.

#include "catch.hpp"

#include <csignal>
#include <cstring>
#include <random>
#include <set>

#include <sys/resource.h>

#include <graft/io/model_directory.hpp>

#include "edited_directory.hpp"
#include "io_test.hpp"

namespace model_directory_tests {

using namespace graft;
using io_test::change_config;
using io_test::edited_directory;
using io_test::loaded;
using io_test::same_bits;
using io_test::scratch_folder;
using io_test::write_bytes;
using nlohmann::json;

namespace {

// The layout that a model of this shape has: fused weights and stacked experts as contiguous ranges, and gaps between
// parameters.
parameter_layout layout_of(const transformer_shape& shape) {
  parameter_layout layout;
  const auto align = [&] { layout.size = (layout.size + 63) / 64 * 64; };
  const auto add = [&](const std::string& name, index_t rows, index_t columns, role kind, int expert = -1) {
    layout.tensors.push_back({name, layout.size, rows, columns, kind, expert, {}, true});
    layout.size += layout.tensors.back().size();
  };
  add("model.embed_tokens.weight", shape.vocabulary, shape.width, role::embedding);
  align();
  for (index_t l = 0; l < shape.blocks; ++l) {
    const std::string block = "model.layers." + std::to_string(l) + ".";
    add(block + "input_layernorm.weight", shape.width, 0, role::norm);
    align();
    add(block + "self_attn.q_proj.weight", shape.query_width(), shape.width, role::attention);
    add(block + "self_attn.k_proj.weight", shape.kv_width(), shape.width, role::attention);
    add(block + "self_attn.v_proj.weight", shape.kv_width(), shape.width, role::attention);
    align();
    add(block + "self_attn.o_proj.weight", shape.width, shape.query_width(), role::attention);
    align();
    if (shape.qk_norm) {
      add(block + "self_attn.q_norm.weight", shape.head_dim, 0, role::norm);
      align();
      add(block + "self_attn.k_norm.weight", shape.head_dim, 0, role::norm);
      align();
    }
    add(block + "post_attention_layernorm.weight", shape.width, 0, role::norm);
    align();
    if (shape.experts == 0) {
      add(block + "mlp.gate_proj.weight", shape.hidden, shape.width, role::ffn);
      add(block + "mlp.up_proj.weight", shape.hidden, shape.width, role::ffn);
      align();
      add(block + "mlp.down_proj.weight", shape.width, shape.hidden, role::ffn);
    } else {
      add(block + "block_sparse_moe.gate.weight", shape.experts, shape.width, role::router);
      align();
      for (int e = 0; e < shape.experts; ++e)
        for (const char* part : {"w1", "w3"})
          add(block + "block_sparse_moe.experts." + std::to_string(e) + "." + part + ".weight", shape.hidden,
              shape.width, role::ffn, e);
      align();
      for (int e = 0; e < shape.experts; ++e)
        add(block + "block_sparse_moe.experts." + std::to_string(e) + ".w2.weight", shape.width, shape.hidden,
            role::ffn, e);
    }
    align();
  }
  add("model.norm.weight", shape.width, 0, role::norm);
  align();
  if (!shape.tied) add("lm_head.weight", shape.vocabulary, shape.width, role::head);
  align();
  return layout;
}

struct test_model {
  model_config config;
  parameter_layout layout;
  std::vector<float> arena;
  model_card card;

  test_model(index_t experts, bool qk_norm, bool tied) {
    transformer_shape& shape = config.shape;
    shape = {.vocabulary = 260,
             .width = 12,
             .blocks = 2,
             .heads = 4,
             .kv_heads = 2,
             .head_dim = 4,
             .hidden = 10,
             .positions = 32};
    shape.experts = experts;
    shape.qk_norm = qk_norm;
    shape.tied = tied;
    config.experts_per_token = experts > 0 ? 2 : 0;
    config.end_of_text = 256;
    layout = layout_of(shape);
    // Gaps hold a mark that no load may touch.
    arena.assign(static_cast<std::size_t>(layout.size), -7.0f);
    std::mt19937 random(5);
    // Values that bfloat16 holds exactly: then both types of file give the same bits back.
    for (const tensor_entry& entry : layout.tensors)
      for (index_t i = 0; i < entry.size(); ++i)
        arena[static_cast<std::size_t>(entry.offset + i)] =
            static_cast<float>(bfloat16(static_cast<float>(random()) * 0x1p-31f - 1.0f));
    card.kind = experts > 0 ? "moe" : "dense";
    for (index_t e = 0; e < experts; ++e) card.experts.push_back({"expert" + std::to_string(e), "domain"});
  }

  void save(const std::filesystem::path& folder, const save_options& options = {}) const {
    save_model(folder, config, layout, arena.data(), card, options);
  }
};

}  // namespace

TEST_CASE("model_directory: what is saved is loaded bit for bit") {
  const index_t experts = GENERATE(0, 1, 3);
  const bool qk_norm = GENERATE(false, true);
  const bool tied = GENERATE(false, true);
  const auto dtype = GENERATE(file_dtype::f32, file_dtype::bf16, file_dtype::f64);
  CAPTURE(experts, qk_norm, tied, name_of(dtype));
  test_model model(experts, qk_norm, tied);
  if (experts == 1) model.config.experts_per_token = 1;
  scratch_folder folder;
  model.save(folder / "m", {.dtype = dtype});
  const model_info info = load_model_info(folder / "m");
  CHECK(info.config == model.config);
  REQUIRE(info.card.has_value());
  CHECK(*info.card == model.card);
  CHECK(same_bits(loaded(folder / "m", layout_of(info.config.shape)), model.arena));

  // In shards of a few hundred bytes, over what was there.
  model.save(folder / "m", {.dtype = dtype, .shard_bytes = 700});
  CHECK_FALSE(std::filesystem::exists(folder / "m/model.safetensors"));
  CHECK(same_bits(loaded(folder / "m", model.layout), model.arena));

  std::vector<double> wide(model.arena.size(), -7.0);
  load_parameters(folder / "m", model.layout, wide.data());
  CHECK(std::equal(wide.begin(), wide.end(), model.arena.begin()));
}

TEST_CASE("model_directory: names in the files are those of the family") {
  scratch_folder folder;
  test_model(2, false, false).save(folder / "mixtral");
  test_model(2, true, false).save(folder / "qwen3_moe");
  CHECK(tensor_files(folder / "mixtral").find("model.layers.1.block_sparse_moe.experts.1.w2.weight") != nullptr);
  const tensor_files qwen(folder / "qwen3_moe");
  const test_model model(2, true, false);
  const tensor_entry* w3 = model.layout.find("model.layers.1.block_sparse_moe.experts.1.w3.weight");
  const located_tensor* up = qwen.find("model.layers.1.mlp.experts.1.up_proj.weight");
  REQUIRE(up != nullptr);
  float first = 0;
  up->read(0, 1, &first);
  CHECK(first == model.arena[static_cast<std::size_t>(w3->offset)]);
  CHECK(qwen.find("model.layers.0.mlp.gate.weight") != nullptr);
  CHECK(qwen.find("model.layers.0.mlp.experts.0.gate_proj.weight") != nullptr);
}

TEST_CASE("model_directory: fused and per-expert files give the same weights, layer by layer") {
  const auto dtype = GENERATE(file_dtype::f32, file_dtype::bf16);
  const int fused_layers = GENERATE(1, 2);
  scratch_folder folder;
  const test_model model(3, false, false);
  model.save(folder / "m", {.dtype = dtype});
  edited_directory directory(folder / "m");
  for (int layer = 0; layer < fused_layers; ++layer) directory.fuse("model.layers." + std::to_string(layer) + ".", 3);
  directory.write();
  CHECK(tensor_files(folder / "m").find("model.layers.0.mlp.experts.gate_up_proj") != nullptr);
  CHECK(same_bits(loaded(folder / "m", model.layout), model.arena));
}

TEST_CASE("model_directory: a layer that mixes two namings is refused") {
  scratch_folder folder;
  const test_model model(3, false, false);
  model.save(folder / "m");
  const auto load = [&] { return loaded(folder / "m", model.layout); };
  SECTION("one of the fused tensors beside the single ones") {
    edited_directory directory(folder / "m");
    directory.fuse("model.layers.1.", 3);
    directory.erased.clear();
    directory.write();
    CHECK_ERROR(load(), (folder / "m").string(), "layer 1", "mixes",
                "model.layers.1.block_sparse_moe.experts.0.w1.weight", "model.layers.1.mlp.experts.down_proj");
  }
  SECTION("one expert renamed") {
    edited_directory directory(folder / "m");
    directory.rename("model.layers.0.block_sparse_moe.experts.2.w1.weight",
                     "model.layers.0.mlp.experts.2.gate_proj.weight");
    directory.write();
    CHECK_ERROR(load(), "layer 0", "mixes", "mlp.experts.2.gate_proj.weight");
  }
  SECTION("a fused tensor of another size") {
    edited_directory directory(folder / "m");
    directory.fuse("model.layers.1.", 3);
    directory.tensors[directory.at("model.layers.1.mlp.experts.gate_up_proj")].shape = {3, 12, 20};
    directory.write();
    CHECK_ERROR(load(), "model.layers.1.mlp.experts.gate_up_proj", "[3, 12, 20]", "expected [3, 20, 12]",
                "2 * intermediate_size");
  }
}

TEST_CASE("model_directory: every tensor once, every parameter once") {
  scratch_folder folder;
  const test_model model(2, false, false);
  model.save(folder / "m");
  edited_directory directory(folder / "m");
  std::vector<float> arena(model.arena.size(), -7.0f);
  const auto load = [&] { load_parameters(folder / "m", model.layout, arena.data()); };
  const std::string place = (folder / "m").string();

  SECTION("left over") {
    directory.add("model.layers.0.block_sparse_moe.extra", file_dtype::f32, {1}, std::vector<std::byte>(4));
    directory.write();
    CHECK_ERROR(load(), place, "1 tensor (model.layers.0.block_sparse_moe.extra) is left over");
  }
  SECTION("missing") {
    directory.erase("model.norm.weight");
    directory.erase("model.layers.0.block_sparse_moe.experts.1.w2.weight");
    directory.write();
    CHECK_ERROR(load(), place, "2 tensors (", "model.norm.weight",
                "model.layers.0.block_sparse_moe.experts.1.w2.weight", "are missing");
  }
  SECTION("both, and no more than five names") {
    for (int i = 0; i < 7; ++i)
      directory.add("extra" + std::to_string(i), file_dtype::f32, {1}, std::vector<std::byte>(4));
    directory.erase("lm_head.weight");
    directory.write();
    CHECK_ERROR(load(),
                "1 tensor (lm_head.weight) is missing, and 7 tensors (extra0, extra1, extra2, extra3, extra4, ...) are "
                "left over");
  }
  SECTION("a whole expert gone") {
    for (const char* part : {"w1", "w2", "w3"})
      directory.erase("model.layers.1.block_sparse_moe.experts.1." + std::string(part) + ".weight");
    directory.write();
    CHECK_ERROR(load(), "config.json", "number of experts is 2", "layer 1", "of 1 experts");
  }
  SECTION("a type that is no weight") {
    directory.tensors[directory.at("model.norm.weight")].dtype = file_dtype::i32;
    directory.write();
    CHECK_ERROR(load(), "model.norm.weight", "F64, F32, BF16 or F16", "I32");
  }
  CHECK(std::all_of(arena.begin(), arena.end(), [](float value) { return value == -7.0f; }));
}

TEST_CASE("model_directory: config.json that contradicts the tensors") {
  scratch_folder folder;
  const test_model model(2, false, false);
  model.save(folder / "m");
  // As a program does: the layout is made from config.json.
  const auto load = [&] { return loaded(folder / "m", layout_of(load_model_info(folder / "m").config.shape)); };
  CHECK(same_bits(load(), model.arena));
  const std::string weights = (folder / "m/model.safetensors").string();
  SECTION("hidden_size") {
    change_config(folder / "m", "hidden_size", 16);
    CHECK_ERROR(load(), weights, "\"model.embed_tokens.weight\"", "[260, 12]", "expected [260, 16]",
                "vocab_size, hidden_size in config.json");
  }
  SECTION("head_dim") {
    change_config(folder / "m", "head_dim", 6);
    CHECK_ERROR(load(), "self_attn.q_proj.weight", "[16, 12]", "expected [24, 12]", "num_attention_heads * head_dim");
  }
  SECTION("intermediate_size") {
    change_config(folder / "m", "intermediate_size", 11);
    CHECK_ERROR(load(), "w1.weight", "[10, 12]", "expected [11, 12]", "intermediate_size, hidden_size");
  }
  SECTION("layers") {
    change_config(folder / "m", "num_hidden_layers", 3);
    CHECK_ERROR(load(), "config.json", "num_hidden_layers is 3", "2 layers");
  }
  SECTION("experts") {
    change_config(folder / "m", "num_local_experts", 3);
    CHECK_ERROR(load(), "graft.json", "names 2 experts", "3");
    std::filesystem::remove(folder / "m/graft.json");
    CHECK_ERROR(load(), "config.json", "number of experts is 3", "2 experts");
  }
  SECTION("tied") {
    change_config(folder / "m", "tie_word_embeddings", true);
    CHECK_ERROR(load(), weights, "lm_head.weight differs from model.embed_tokens.weight", "tie_word_embeddings");
  }
  SECTION("a layout of another model") {
    test_model other(2, false, false);
    other.config.shape.hidden = 8;
    CHECK_ERROR(loaded(folder / "m", layout_of(other.config.shape)), "config.json", "w1.weight", "[8, 12]", "[10, 12]",
                "intermediate_size");
    CHECK_ERROR(save_model(folder / "x", model.config, layout_of(other.config.shape), model.arena.data(), model.card),
                "w1.weight", "[8, 12]");
    CHECK_FALSE(std::filesystem::exists(folder / "x"));
  }
}

TEST_CASE("model_directory: a tied model whose file holds the head all the same") {
  scratch_folder folder;
  const test_model model(0, false, true);
  model.save(folder / "m");
  edited_directory directory(folder / "m");
  const std::size_t embedding = directory.at("model.embed_tokens.weight");
  directory.add("lm_head.weight", directory.tensors[embedding].dtype, directory.tensors[embedding].shape,
                directory.contents[embedding]);
  directory.write();
  std::vector<float> arena(model.arena.size(), -7.0f);
  const load_report report = load_parameters(folder / "m", model.layout, arena.data());
  CHECK(same_bits(arena, model.arena));
  REQUIRE(report.notes.size() == 1);
  CHECK(io_test::lacking(report.notes[0], {"lm_head.weight", "tied"}) == "");

  directory.contents.back().back() ^= std::byte{1};
  directory.write();
  CHECK_ERROR(loaded(folder / "m", model.layout), "lm_head.weight differs");
}

TEST_CASE("model_directory: what is no model directory") {
  scratch_folder folder;
  CHECK_ERROR(load_model_info(folder / "none"), (folder / "none").string(), "nothing at this path");
  CHECK_ERROR(load_model_info(folder.path()), folder.path().string(), "no config.json");
  write_bytes(folder / "file", "");
  CHECK_ERROR(load_model_info(folder / "file"), "no folder");
  const test_model model(0, false, false);
  model.save(folder / "m");
  std::filesystem::remove(folder / "m/model.safetensors");
  CHECK_ERROR(loaded(folder / "m", model.layout), "neither");
  model.save(folder / "m");
  json card = read_json_file(folder / "m/graft.json");
  card["surprise"] = 1;
  write_bytes(folder / "m/graft.json", card.dump());
  CHECK_ERROR(load_model_info(folder / "m"), (folder / "m/graft.json").string(), "unknown key \"surprise\"");
}

TEST_CASE("model_directory: a directory of the hub has no card") {
  scratch_folder folder;
  const test_model model(2, false, false);
  model.save(folder / "m");
  std::filesystem::remove(folder / "m/graft.json");
  CHECK_FALSE(load_model_info(folder / "m").card.has_value());
  CHECK(same_bits(loaded(folder / "m", model.layout), model.arena));
}

TEST_CASE("model_directory: a save that fails leaves what was there") {
  scratch_folder folder;
  const test_model before(0, false, false);
  before.save(folder / "m");
  test_model after(0, false, false);
  for (float& value : after.arena) value += 1.0f;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  rlimit limited = old;
  limited.rlim_cur = 20'000;  // the weights are larger
  ::setrlimit(RLIMIT_FSIZE, &limited);
  const std::string over = io_test::message_of([&] { after.save(folder / "m"); });
  const std::string fresh = io_test::message_of([&] { after.save(folder / "fresh"); });
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, old_handler);
  CHECK(io_test::lacking(over, {(folder / "m/model.safetensors").string(), "File too large"}) == "");
  CHECK(io_test::lacking(fresh, {(folder / "fresh/model.safetensors").string(), "File too large"}) == "");
  CHECK(folder.names() == std::vector<std::string>{"m"});
  CHECK(same_bits(loaded(folder / "m", before.layout), before.arena));

  // The card is checked before anything is written.
  after.card.kind = "moe";
  CHECK_ERROR(after.save(folder / "m"), "kind \"moe\"", "0 experts");
  after.card.kind = "dense";
  after.card.tokenizer.vocabulary = 1000;
  CHECK_ERROR(after.save(folder / "m"), "1000 ids", "260");
  CHECK(same_bits(loaded(folder / "m", before.layout), before.arena));
}

TEST_CASE("model_directory: saving over the directory that is being read") {
  scratch_folder folder;
  const test_model model(0, false, false);
  model.save(folder / "m");
  const tensor_files open(folder / "m");
  test_model changed(0, false, false);
  for (float& value : changed.arena) value *= 2.0f;
  changed.save(folder / "m");
  float first = 0;
  open.find("model.embed_tokens.weight")->read(0, 1, &first);
  CHECK(first == model.arena[0]);
  CHECK(loaded(folder / "m", changed.layout)[0] == changed.arena[0]);
}

TEST_CASE("model_directory: the byte tokenizer as the hub knows it") {
  scratch_folder folder;
  test_model(0, false, false).save(folder / "m");
  const json tokenizer = read_json_file(folder / "m/tokenizer.json");
  const json& vocabulary = tokenizer["model"]["vocab"];
  REQUIRE(vocabulary.size() == 256);
  std::set<int> ids;
  for (const auto& id : vocabulary) ids.insert(id.get<int>());
  CHECK(*ids.begin() == 0);
  CHECK(*ids.rbegin() == 255);
  CHECK(ids.size() == 256);
  // Known characters of GPT-2's table: letters are themselves, space is U+0120, newline U+010A, zero U+0100, 0x7f
  // U+0121, 0xad U+0143.
  CHECK(vocabulary["A"] == 'A');
  CHECK(vocabulary["~"] == '~');
  CHECK(vocabulary["\u0120"] == ' ');
  CHECK(vocabulary["\u010a"] == '\n');
  CHECK(vocabulary["\u0100"] == 0);
  CHECK(vocabulary["\u0121"] == 0x7f);
  CHECK(vocabulary["\u0143"] == 0xad);
  CHECK(vocabulary["\u00ff"] == 0xff);
  CHECK(tokenizer["added_tokens"][0]["content"] == "<|endoftext|>");
  CHECK(tokenizer["added_tokens"][0]["id"] == 256);
  CHECK(read_json_file(folder / "m/tokenizer_config.json")["eos_token"] == "<|endoftext|>");
}

}  // namespace model_directory_tests
