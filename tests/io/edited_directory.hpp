// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Model directories in tests: what they load to, and how to change what is in them.

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <graft/io/model_directory.hpp>

#include "io_test.hpp"

namespace io_test {

using namespace graft;

inline std::vector<float> loaded(const std::filesystem::path& folder, const parameter_layout& layout) {
  std::vector<float> arena(static_cast<std::size_t>(layout.size), -7.0f);
  load_parameters(folder, layout, arena.data());
  return arena;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The tensors of a directory as sources, to be changed and written back.
struct edited_directory {
  std::filesystem::path folder;
  std::vector<std::vector<std::byte>> contents;
  std::vector<tensor_source> tensors;

  explicit edited_directory(const std::filesystem::path& path) : folder(path) {
    const tensor_files files(path);
    for (const auto& [name, located] : files.tensors()) {
      const auto bytes = located.file->bytes(*located.tensor);
      add(name, located.tensor->dtype, located.tensor->shape, {bytes.begin(), bytes.end()});
    }
  }
  void add(const std::string& name, file_dtype dtype, std::vector<std::uint64_t> shape, std::vector<std::byte> bytes) {
    contents.push_back(std::move(bytes));
    tensors.push_back({name, dtype, std::move(shape),
                       [this, i = contents.size() - 1](std::uint64_t first, std::span<std::byte> piece) {
                         std::memcpy(piece.data(), contents[i].data() + first, piece.size());
                       }});
  }
  std::size_t at(const std::string& name) const {
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (tensors[i].name == name) return i;
    throw std::runtime_error("no tensor " + name);
  }
  void rename(const std::string& from, const std::string& to) { tensors[at(from)].name = to; }
  // Keeps contents and tensors in step.
  void erase(const std::string& name) { erased.insert(name); }
  void write() {
    std::vector<tensor_source> kept;
    for (const tensor_source& tensor : tensors)
      if (!erased.contains(tensor.name)) kept.push_back(tensor);
    write_safetensors(folder / "model.safetensors", kept);
  }
  std::set<std::string> erased;

  // One layer's experts as transformers 5 holds them in memory.
  void fuse(const std::string& layer, std::size_t experts) {
    const std::string moe = layer + "block_sparse_moe.", mlp = layer + "mlp.";
    std::vector<std::byte> gate_up, down;
    const auto append = [&](std::vector<std::byte>& to, const std::string& name) {
      const auto& bytes = contents[at(name)];
      to.insert(to.end(), bytes.begin(), bytes.end());
      erase(name);
    };
    const auto shape = tensors[at(moe + "experts.0.w1.weight")].shape;
    const file_dtype dtype = tensors[at(moe + "experts.0.w1.weight")].dtype;
    for (std::size_t e = 0; e < experts; ++e) {
      const std::string expert = moe + "experts." + std::to_string(e) + ".";
      append(gate_up, expert + "w1.weight");
      append(gate_up, expert + "w3.weight");
      append(down, expert + "w2.weight");
    }
    add(mlp + "experts.gate_up_proj", dtype, {experts, 2 * shape[0], shape[1]}, gate_up);
    add(mlp + "experts.down_proj", dtype, {experts, shape[1], shape[0]}, down);
    rename(moe + "gate.weight", mlp + "gate.weight");
  }
};

inline void change_config(const std::filesystem::path& folder, const char* key, nlohmann::json value) {
  nlohmann::json config = read_json_file(folder / "config.json");
  config[key] = std::move(value);
  write_bytes(folder / "config.json", config.dump());
}

}  // namespace io_test
