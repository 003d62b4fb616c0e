// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// One file or shards with an index: what is read back, and which indexes are refused.

#include "catch.hpp"

#include <graft/io/tensor_files.hpp>

#include "io_test.hpp"

namespace tensor_files_tests {

using namespace graft;
using io_test::scratch_folder;
using io_test::write_bytes;

namespace {

const float values[6] = {1, 2, 3, 4, 5, 6};

// Tensors t0, t1, ... of 1, 2, ... floats, that is 4, 8, ... bytes.
std::vector<tensor_source> sources(int count) {
  std::vector<tensor_source> tensors;
  for (int i = 0; i < count; ++i)
    tensors.push_back(
        make_tensor_source("t" + std::to_string(i), {static_cast<std::uint64_t>(i) + 1}, values, file_dtype::f32));
  return tensors;
}

void save(const std::filesystem::path& folder, int count, std::uint64_t shard_bytes) {
  atomic_folder out(folder, "config.json");
  add_tensor_files(out, sources(count), {}, shard_bytes);
  out.commit();
}

std::string index_of(const std::string& map) { return R"({"metadata":{"total_size":1},"weight_map":)" + map + "}"; }

}  // namespace

TEST_CASE("tensor_files: one file or shards, the same tensors") {
  scratch_folder folder;
  using names = std::vector<std::string>;
  const auto check = [&] {
    const tensor_files files(folder.path());
    REQUIRE(files.tensors().size() == 5);
    for (int i = 0; i < 5; ++i) {
      const located_tensor* tensor = files.find("t" + std::to_string(i));
      REQUIRE(tensor != nullptr);
      float back[5] = {};
      tensor->read(0, static_cast<std::uint64_t>(i) + 1, back);
      for (int k = 0; k <= i; ++k) CHECK(back[k] == values[k]);
    }
    CHECK(files.find("t5") == nullptr);
  };
  save(folder.path(), 5, default_shard_bytes);
  CHECK(folder.names() == names{"model.safetensors"});
  check();

  // 4 + 8 | 12 | 16 (above the limit, alone) | 20: shards of at most 12 bytes.
  save(folder.path(), 5, 12);
  CHECK(folder.names() == names{"model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
                                "model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors",
                                "model.safetensors.index.json"});
  const nlohmann::json index = read_json_file(folder / "model.safetensors.index.json");
  CHECK(index["metadata"]["total_size"] == 60);
  CHECK(index["weight_map"]["t1"] == "model-00001-of-00004.safetensors");
  CHECK(index["weight_map"]["t3"] == "model-00003-of-00004.safetensors");
  check();

  // Fewer shards: none of the old ones is left.
  save(folder.path(), 5, 40);
  CHECK(folder.names() ==
        names{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"});
  check();
  write_bytes(folder / "model-notes.safetensors", "not a shard");
  save(folder.path(), 5, 60);
  CHECK(folder.names() == names{"model-notes.safetensors", "model.safetensors"});
  check();
}

TEST_CASE("tensor_files: shards under any name, tensors in any order") {
  scratch_folder folder;
  write_safetensors(folder / "z.safetensors", {sources(3)[0], sources(3)[2]});
  write_safetensors(folder / "a.safetensors", {sources(3)[1]});
  write_bytes(folder / "model.safetensors.index.json",
              R"({"weight_map":{"t2":"z.safetensors","t0":"z.safetensors","t1":"a.safetensors"}})");
  const tensor_files files(folder.path());
  CHECK(files.tensors().size() == 3);
  float back[3] = {};
  files.find("t2")->read(2, 1, back);
  CHECK(back[0] == 3);
}

TEST_CASE("tensor_files: folders and indexes that are refused") {
  scratch_folder folder;
  const auto open = [&] { return tensor_files(folder.path()).tensors().size(); };
  const auto index = [&](const std::string& text) { write_bytes(folder / "model.safetensors.index.json", text); };
  CHECK_ERROR(tensor_files(folder / "none"), (folder / "none").string(), "nothing at this path");
  CHECK_ERROR(open(), folder.path().string(), "model.safetensors.index.json", "neither");

  write_safetensors(folder / "a", {sources(2)[0]});
  write_safetensors(folder / "b", {sources(2)[1]});
  index(index_of(R"({"t0":"a","t1":"b"})"));
  CHECK(open() == 2);

  const std::string index_path = (folder / "model.safetensors.index.json").string();
  index(index_of(R"({"t0":"a","t1":"a"})"));
  CHECK_ERROR(open(), (folder / "a").string(), "\"t1\"", "missing");
  index(index_of(R"({"t0":"a","t1":"b","t9":"b"})"));
  CHECK_ERROR(open(), (folder / "b").string(), "\"t9\"", "missing");
  index(index_of(R"({"t0":"b","t1":"b"})"));
  CHECK_ERROR(open(), (folder / "b").string(), "\"t0\"", "missing");
  index(index_of(R"({"t0":"b","t1":"a"})"));
  CHECK_ERROR(open(), (folder / "a").string(), "\"t0\"", "expects in \"b\"");
  index(index_of(R"({"t0":"a","t1":"c"})"));
  CHECK_ERROR(open(), (folder / "c").string(), "No such file");
  for (const std::string name : {"../a", "/a", "", "..", ".", "x\\\\a", "a\\u0000"}) {
    CAPTURE(name);
    index(index_of(R"({"t0":")" + name + R"(","t1":"b"})"));
    CHECK_ERROR(open(), index_path, "\"t0\"", "same folder");
  }
  index(index_of(R"({"t0":3})"));
  CHECK_ERROR(open(), index_path, "\"t0\"", "file name", "got 3");
  index(index_of(R"({"t0":"a","t0":"b","t1":"b"})"));
  CHECK_ERROR(open(), index_path, "\"t0\"", "twice");
  index(R"({"weight_map":[]})");
  CHECK_ERROR(open(), index_path, "weight_map", "object");
  index(R"({"metadata":{}})");
  CHECK_ERROR(open(), index_path, "\"weight_map\" is missing");
  index(R"({"weight_map":{"t0":"a"},"extra":1})");
  CHECK_ERROR(open(), index_path, "unknown key \"extra\"", "weight_map");

  // A tensor that a listed file holds and the index does not.
  write_safetensors(folder / "b", sources(3));
  index(index_of(R"({"t0":"a","t1":"b","t2":"b"})"));
  CHECK_ERROR(open(), "\"t0\"", "also in");
  write_safetensors(folder / "b", {sources(3)[1], sources(3)[2]});
  index(index_of(R"({"t0":"a","t1":"b"})"));
  CHECK_ERROR(open(), (folder / "b").string(), "\"t2\"", "not listed");

  write_safetensors(folder / "model.safetensors", sources(1));
  CHECK_ERROR(open(), folder.path().string(), "both", "Remove one");
}

}  // namespace tensor_files_tests
