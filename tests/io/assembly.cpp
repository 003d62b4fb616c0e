// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Assemblies: what is written is read back, wherever the run is moved to, and every mistake is one sentence.

#include "catch.hpp"

#include <numeric>

#include <graft/io/assembly.hpp>
#include <graft/models/transformer.hpp>

#include "io_test.hpp"

namespace assembly_tests {

using namespace graft;
using io_test::read_bytes;
using io_test::scratch_folder;
using io_test::write_bytes;
namespace fs = std::filesystem;

namespace {

void save_member(const fs::path& folder, index_t vocabulary = 260, const std::string& tokenizer = "byte") {
  model_config config;
  config.shape = {.vocabulary = vocabulary,
                  .width = 8,
                  .blocks = 1,
                  .heads = 2,
                  .kv_heads = 1,
                  .head_dim = 4,
                  .hidden = 8,
                  .positions = 16};
  config.end_of_text = 256;
  const parameter_layout layout = make_layout(transformer_specs(config.shape));
  const std::vector<float> values(static_cast<std::size_t>(layout.size), 0.5f);
  model_card card;
  card.tokenizer.kind = tokenizer;
  save_model(folder, config, layout, values.data(), card);
}

parameter_layout own_layout() {
  parameter_layout layout;
  layout.tensors.push_back({"stitches.0.gate.weight", 0, 3, 2, role::router});
  layout.tensors.push_back({"stitches.0.projections.0.weight", 64, 5, 0, role::adapter});
  layout.size = 128;
  return layout;
}

assembly_card card_in(const scratch_folder& folder) {
  assembly_card card;
  card.kind = "stitched";
  card.members = {{"seed", "", folder / "models" / "seed"}, {"code", "cpp", folder / "models" / "code" / ""}};
  card.policy = {"hub_and_spokes", {{"stitches", 4}, {"dropout", 0.1}, {"carry", "projected"}}};
  card.provenance = {{"method", "bts"}, {"train_tokens", 12}};
  return card;
}

std::string text_of(const std::string& members, const std::string& more = "") {
  return R"({"graft": "0.1.0", "kind": "forest", "members": )" + members +
         R"(, "policy": {"name": "prefix"}, "tokenizer": {"kind": "byte", "vocabulary": 257})" + more + "}";
}
std::string parse_error(const std::string& text) {
  return io_test::message_of([&] { parse_assembly_card(parse_json(text, "f/graft.json"), "f/graft.json"); });
}

}  // namespace

// scratch_folder has operator/ for one name only.
#define MODELS (folder / "models")

TEST_CASE("assembly: what is written is read back, in another place too") {
  const scratch_folder folder;
  save_member(MODELS / "seed");
  save_member(MODELS / "code");
  const assembly_card card = card_in(folder);
  const parameter_layout layout = own_layout();
  std::vector<float> values(128);
  std::iota(values.begin(), values.end(), 1.0f);
  save_assembly(MODELS / "bts", card, layout, values.data());

  CHECK(is_assembly(MODELS / "bts"));
  CHECK_FALSE(is_assembly(MODELS / "seed"));
  CHECK_FALSE(is_assembly(MODELS));
  fs::rename(MODELS, folder / "moved");
  const fs::path moved = folder / "moved" / "bts";
  const assembly_info info = load_assembly_info(moved);
  CHECK(info.folder == moved);
  assembly_card expected = card;
  expected.members[0].folder = folder / "moved" / "seed";
  expected.members[1].folder = folder / "moved" / "code";
  CHECK(info.card == expected);
  REQUIRE(info.members.size() == 2);
  CHECK(info.members[1].folder == folder / "moved" / "code");

  // Elements between tensors are not touched.
  std::vector<float> loaded(128, -7.0f);
  load_assembly_parameters(moved, layout, loaded.data());
  for (std::size_t i = 0; i < loaded.size(); ++i) {
    const bool own = i < 6 || (i >= 64 && i < 69);
    CHECK(loaded[i] == (own ? values[i] : -7.0f));
  }
  CHECK(own_parameter_count(moved) == 11);

  // Over it, one without parameters: the weights go.
  save_assembly(moved, expected);
  CHECK(own_parameter_count(moved) == 0);
  load_assembly_parameters(moved, {}, loaded.data());
}

TEST_CASE("assembly: graft.json that makes no sense is refused with key and value") {
  const std::string two = R"([{"name": "a", "folder": "x"}, {"name": "b", "folder": "y"}])";
  CHECK(parse_error(text_of(two)).empty());
  const auto lacks = [](const std::string& message, std::initializer_list<std::string> pieces) {
    INFO(message);
    CHECK(io_test::lacking(message, pieces).empty());
  };
  lacks(parse_error(text_of(two, R"(, "mood": 1)")), {"f/graft.json", "unknown key \"mood\"", "1"});
  std::string misspelt = text_of(two);
  misspelt.replace(misspelt.find("forest"), 6, "florist");
  lacks(parse_error(misspelt), {"f/graft.json", "\"kind\"", "stitched, forest, expert_routing", "\"florist\""});
  lacks(parse_error(text_of("3")), {"\"members\"", "an array of objects", "3"});
  lacks(parse_error(text_of(R"([{"name": "a", "folder": "x"}])")), {"at least two members", "got 1"});
  lacks(parse_error(text_of(R"([{"name": "a", "folder": "x"}, {"name": "a", "folder": "y"}])")),
        {"different names", "\"a\" twice"});
  lacks(parse_error(text_of(R"([{"name": "a", "folder": "x"}, {"name": "b"}])")),
        {"member 1", "\"folder\" is missing"});
  lacks(parse_error(text_of(R"([{"name": "a", "folder": "x"}, {"name": "b", "folder": ""}])")),
        {"member 1", "\"folder\"", "\"\""});
  lacks(parse_error(text_of(R"([{"name": "a", "folder": "x", "weight": 1}, {"name": "b", "folder": "y"}])")),
        {"member 0", "unknown key \"weight\""});
  lacks(parse_error(R"({"graft": "0.1.0", "kind": "forest", "members": )" + two +
                    R"(, "tokenizer": {"kind": "byte", "vocabulary": 257}})"),
        {"\"policy\" is missing"});
}

TEST_CASE("assembly: members that cannot be used are named") {
  const scratch_folder folder;
  save_member(MODELS / "seed");
  save_member(MODELS / "code");
  save_member(MODELS / "large", 300);
  save_member(MODELS / "spoken", 260, "sentencepiece");
  const fs::path out = MODELS / "bts", file = out / "graft.json";
  const auto put = [&](const std::string& name, const std::string& other) {
    fs::create_directories(MODELS / name);
    write_bytes(MODELS / name / "graft.json",
                text_of(R"([{"name": "a", "folder": "../seed"}, {"name": "b", "folder": ")" + other + R"("}])"));
  };
  put("bts", "../code");
  CHECK(load_assembly_info(out).members.size() == 2);
  put("bts", "../gone");
  CHECK_ERROR(load_assembly_info(out), file.string(), "member \"b\"", (MODELS / "gone").string(),
              "nothing at this path");
  fs::create_directories(MODELS / "empty");
  put("bts", "../empty");
  CHECK_ERROR(load_assembly_info(out), "member \"b\"", (MODELS / "empty").string(), "no config.json");
  put("bts", "../large");
  CHECK_ERROR(load_assembly_info(out), "member \"b\"", "vocabulary of member \"a\"", "260", "300");
  put("bts", "../spoken");
  CHECK_ERROR(load_assembly_info(out), "member \"b\"", "tokenizer byte", "sentencepiece");

  // Itself, a circle of two, and an assembly that leads nowhere back.
  put("bts", "../bts");
  CHECK_ERROR(load_assembly_info(out), "lead in a circle", out.string() + " -> " + out.string());
  put("bts", "../other");
  put("other", "../bts");
  CHECK_ERROR(load_assembly_info(out), "lead in a circle",
              out.string() + " -> " + (MODELS / "other").string() + " -> " + out.string());
  put("other", "../code");
  CHECK_ERROR(load_assembly_info(out), "member \"b\"", (MODELS / "other").string(), "put together of models itself");
  CHECK_ERROR(load_assembly_info(MODELS / "empty"), "no graft.json");
  CHECK_ERROR(load_assembly_info(MODELS / "gone"), "nothing at this path");
  write_bytes(file, "{");
  CHECK_ERROR(is_assembly(out), file.string(), "expected JSON");

  // What could not be read is not written either.
  assembly_card card = card_in(folder);
  card.members[1].folder = MODELS / "large";
  CHECK_ERROR(save_assembly(MODELS / "new", card), "member \"code\"", "300");
  card = card_in(folder);
  card.members[1].name = "seed";
  CHECK_ERROR(save_assembly(MODELS / "new", card), "\"seed\" twice");
  CHECK_FALSE(fs::exists(MODELS / "new"));
  CHECK_ERROR(save_assembly(MODELS / "seed", card_in(folder)), (MODELS / "seed").string(), "holds a model");
}

TEST_CASE("assembly: parameters of another shape or name are refused") {
  const scratch_folder folder;
  save_member(MODELS / "seed");
  save_member(MODELS / "code");
  const fs::path out = MODELS / "bts";
  const std::vector<float> values(128, 1.0f);
  save_assembly(out, card_in(folder), own_layout(), values.data());
  std::vector<float> arena(256, -7.0f);
  parameter_layout other = own_layout();
  other.tensors[0].rows = 4;
  CHECK_ERROR(load_assembly_parameters(out, other, arena.data()), "model.safetensors", "stitches.0.gate.weight",
              "[3, 2]", "[4, 2]");
  other = own_layout();
  other.tensors[1].name = "stitches.1.projections.0.weight";
  CHECK_ERROR(load_assembly_parameters(out, other, arena.data()), out.string(), "stitches.1.projections.0.weight",
              "missing", "stitches.0.projections.0.weight", "left over");
  CHECK(std::all_of(arena.begin(), arena.end(), [](float x) { return x == -7.0f; }));
}

}  // namespace assembly_tests
