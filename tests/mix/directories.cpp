// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Mixing of model directories that graft did not write: their tokenizer goes along, and tokenizers that differ or are
// unknown are refused.

#include "catch.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <graft/mix/model_directories.hpp>

namespace directories_tests {

using namespace graft;
namespace fs = std::filesystem;

namespace {

struct scratch {
  fs::path path = fs::temp_directory_path() / ("graft-mix-" + std::to_string(::getpid()));
  scratch() { fs::create_directories(path); }
  ~scratch() { fs::remove_all(path); }
};

constexpr transformer_shape shape{.vocabulary = 300,
                                  .width = 8,
                                  .blocks = 1,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 4,
                                  .hidden = 12,
                                  .positions = 16};

// As another program would leave it: weights and config.json, its own tokenizer.json or none, no graft.json.
fs::path foreign_model(const fs::path& folder, std::uint64_t seed, const std::string& tokenizer) {
  const parameter_layout layout = layout_of(shape);
  std::vector<float> values(static_cast<std::size_t>(layout.size), 0.0f);
  for (const tensor_entry& entry : layout.tensors) draw_initial(entry, seed, values.data() + entry.offset);
  save_model(folder, {.shape = shape, .experts_per_token = 0}, layout, values.data(), model_card{});
  for (const char* name : {"graft.json", "tokenizer.json", "tokenizer_config.json"}) fs::remove(folder / name);
  if (!tokenizer.empty()) write_file(folder / "tokenizer.json", tokenizer);
  return folder;
}

std::string contents(const fs::path& path) {
  std::ifstream in(path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::string refusal(const std::vector<branch_directory>& branches, const fs::path& out) {
  try {
    mix_directories(soup_recipe, branches, out);
  } catch (const graft::error& problem) {
    return problem.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("mix_directories: a foreign tokenizer goes along", "[mix]") {
  const scratch folder;
  const std::string words = R"({"model": {"vocab": {"a": 0}}})";
  const fs::path a = foreign_model(folder.path / "a", 1, words), b = foreign_model(folder.path / "b", 2, words);
  mix_directories(btx_recipe, {{a, "a", ""}, {b, "b", "law"}}, folder.path / "mix");
  const model_info info = load_model_info(folder.path / "mix");
  CHECK(info.tokenizer.kind == load_model_info(a).tokenizer.kind);
  CHECK(info.tokenizer.kind.starts_with("files-"));
  CHECK(info.tokenizer.vocabulary == 300);
  CHECK(contents(folder.path / "mix" / "tokenizer.json") == words);
  REQUIRE(info.card->experts.size() == 2);
  CHECK((info.card->experts[1].name == "b" && info.card->experts[1].domain == "law"));
}

TEST_CASE("mix_directories: tokenizers that differ or are unknown are refused", "[mix]") {
  const scratch folder;
  const fs::path a = foreign_model(folder.path / "a", 1, R"({"model": 1})"),
                 b = foreign_model(folder.path / "b", 2, R"({"model": 2})"),
                 none = foreign_model(folder.path / "none", 3, "");
  CHECK(refusal({{a, "a", ""}, {b, "b", ""}}, folder.path / "out").find("expected the same tokenizer, got files-") !=
        std::string::npos);
  CHECK(refusal({{none, "n", ""}, {a, "a", ""}}, folder.path / "out")
            .find("none has neither graft.json nor tokenizer files") != std::string::npos);
  CHECK(refusal({{a, "same", ""}, {a, "same", ""}}, folder.path / "out").find("got same twice") != std::string::npos);
  CHECK(!fs::exists(folder.path / "out"));
}

TEST_CASE("identify_tokenizer: the byte tokenizer is known by its file", "[mix]") {
  const scratch folder;
  const fs::path a = foreign_model(folder.path / "a", 1, byte_tokenizer_json().dump());
  CHECK(load_model_info(a).tokenizer == tokenizer_card{"byte", 257});
}

}  // namespace directories_tests
