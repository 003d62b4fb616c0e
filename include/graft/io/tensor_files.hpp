// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The tensors of a model folder: model.safetensors, or shards with model.safetensors.index.json.
// The index must tell the truth: each tensor it lists is in the file it names, and no file holds others.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/io/atomic_folder.hpp>
#include <graft/io/json.hpp>
#include <graft/io/safetensors.hpp>
#include <graft/io/safetensors_writer.hpp>

namespace graft {

inline constexpr const char* weights_name = "model.safetensors";
inline constexpr const char* weights_index_name = "model.safetensors.index.json";
// Bytes, decimal, of the data of one shard; what transformers 5 writes.
inline constexpr std::uint64_t default_shard_bytes = 50'000'000'000;

// A tensor and the open file that holds it.
struct located_tensor {
  const safetensors_file* file = nullptr;
  const stored_tensor* tensor = nullptr;

  template <class T>
  void read(std::uint64_t first, std::uint64_t count, T* target) const {
    file->read(*tensor, first, count, target);
  }
};

// All tensors of a folder, open. Errors: no weights, both kinds of weights, an index that does not fit the files.
class tensor_files {
 public:
  explicit tensor_files(const std::filesystem::path& folder) : folder_(folder) {
    namespace fs = std::filesystem;
    GRAFT_CHECK(fs::is_directory(folder), folder.string(), ": expected a model folder, ",
                fs::exists(folder) ? "this is no folder" : "there is nothing at this path");
    const bool single = fs::exists(folder / weights_name);
    const bool sharded = fs::exists(folder / weights_index_name);
    GRAFT_CHECK(single || sharded, folder.string(), ": expected ", weights_name, " or ", weights_index_name,
                " in this folder, found neither");
    GRAFT_CHECK(!(single && sharded), folder.string(), ": found both ", weights_name, " and ", weights_index_name,
                ", and they may hold different weights. Remove one of them");
    if (single) {
      add_file(weights_name);
    } else {
      add_shards();
    }
  }

  const std::filesystem::path& folder() const { return folder_; }
  // By name.
  const std::map<std::string, located_tensor, std::less<>>& tensors() const { return tensors_; }
  const located_tensor* find(std::string_view name) const {
    const auto at = tensors_.find(name);
    return at == tensors_.end() ? nullptr : &at->second;
  }

 private:
  const safetensors_file& add_file(const std::string& name) {
    files_.push_back(std::make_unique<safetensors_file>(folder_ / name));
    const safetensors_file& file = *files_.back();
    for (const stored_tensor& tensor : file.tensors()) {
      const auto [at, is_new] = tensors_.emplace(tensor.name, located_tensor{&file, &tensor});
      GRAFT_CHECK(is_new, file.path().string(), ": tensor ", detail::in_quotes(tensor.name), " is also in ",
                  at->second.file->path().string());
    }
    return file;
  }

  void add_shards() {
    const std::string place = (folder_ / weights_index_name).string();
    const nlohmann::json root = read_json_file(place);
    json_reader index(root, place);
    index.ignore({"metadata"});  // writers disagree on total_size
    const nlohmann::json& map = index.get("weight_map");
    index.finish();
    GRAFT_CHECK(map.is_object(), place, ": expected weight_map to be an object of file names, got ",
                detail::shown(map));

    std::map<std::string, std::size_t> listed;  // tensors per file
    for (const auto& [tensor, file] : map.items()) {
      GRAFT_CHECK(file.is_string(), place, ": expected a file name for ", detail::in_quotes(tensor), ", got ",
                  detail::shown(file));
      const auto& name = file.template get_ref<const std::string&>();
      GRAFT_CHECK(!name.empty() && name != "." && name != ".." &&
                      name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos,
                  place, ": expected the name of a file in the same folder for ", detail::in_quotes(tensor), ", got ",
                  detail::in_quotes(name));
      ++listed[name];
    }
    for (const auto& [name, count] : listed) {
      const safetensors_file& file = add_file(name);
      for (const stored_tensor& tensor : file.tensors()) {
        const auto entry = map.find(tensor.name);
        GRAFT_CHECK(entry != map.end(), file.path().string(), ": tensor ", detail::in_quotes(tensor.name),
                    " is not listed in ", weights_index_name);
        GRAFT_CHECK(entry->get_ref<const std::string&>() == name, file.path().string(), ": holds tensor ",
                    detail::in_quotes(tensor.name), ", which ", weights_index_name, " expects in ",
                    detail::shown(*entry));
      }
      if (file.tensors().size() == count) continue;
      for (const auto& [tensor, owner] : map.items())
        GRAFT_CHECK(owner != name || file.find(tensor) != nullptr, file.path().string(), ": tensor ",
                    detail::in_quotes(tensor), " is missing, ", weights_index_name, " expects it in this file");
    }
  }

  std::filesystem::path folder_;
  std::vector<std::unique_ptr<safetensors_file>> files_;
  std::map<std::string, located_tensor, std::less<>> tensors_;
};

namespace detail {

// "model-00002-of-00003.safetensors", numbers from 1.
inline std::string shard_name(std::size_t number, std::size_t count) {
  const auto digits = [](std::size_t n) {
    const std::string text = std::to_string(n);
    return std::string(text.size() < 5 ? 5 - text.size() : 0, '0') + text;
  };
  return "model-" + digits(number) + "-of-" + digits(count) + ".safetensors";
}

inline bool is_shard_name(std::string_view name) {
  constexpr std::string_view head = "model-", tail = ".safetensors";
  if (!name.starts_with(head) || !name.ends_with(tail) || name.size() < head.size() + tail.size()) return false;
  name = name.substr(head.size(), name.size() - head.size() - tail.size());
  return name.size() >= 14 && name.find("-of-") != std::string_view::npos &&
         name.find_first_not_of("0123456789-of") == std::string_view::npos;
}

}  // namespace detail

// Adds the weights to a folder that is being written: one file when the data fits into shard_bytes, else shards filled
// in the order given (a tensor above the limit has a shard of its own) and their index. Weight files of an earlier save
// that are not replaced are retired, so that the folder holds one model.
inline void add_tensor_files(atomic_folder& folder, const std::vector<tensor_source>& tensors,
                             const std::map<std::string, std::string>& metadata = {},
                             std::uint64_t shard_bytes = default_shard_bytes) {
  GRAFT_CHECK(shard_bytes > 0, folder.path().string(), ": expected a positive size of a shard, got 0");
  std::vector<std::vector<tensor_source>> shards(1);
  std::uint64_t total_bytes = 0, filled = 0;
  for (const tensor_source& tensor : tensors) {
    const std::uint64_t bytes = tensor.bytes();
    if (!shards.back().empty() && (bytes > shard_bytes || filled > shard_bytes - bytes)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(tensor);
    filled += bytes;
    total_bytes += bytes;
  }

  std::vector<std::string> written;
  nlohmann::json map = nlohmann::json::object();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    written.push_back(shards.size() == 1 ? weights_name : detail::shard_name(i + 1, shards.size()));
    write_safetensors(folder.add(written.back()), shards[i], metadata);
    for (const tensor_source& tensor : shards[i])
      GRAFT_CHECK(map.emplace(tensor.name, written.back()).second, folder.path().string(),
                  ": cannot write two tensors named ", detail::in_quotes(tensor.name));
  }
  if (shards.size() > 1) {
    written.push_back(weights_index_name);
    folder.add(weights_index_name,
               nlohmann::json{{"metadata", {{"total_size", total_bytes}}}, {"weight_map", map}}.dump(2) + "\n");
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename().string();
    const bool is_weights = name == weights_name || name == weights_index_name || detail::is_shard_name(name);
    if (is_weights && std::find(written.begin(), written.end(), name) == written.end()) folder.retire(name);
  }
}

}  // namespace graft
