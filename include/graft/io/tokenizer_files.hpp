// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The tokenizer files of a model directory: which tokenizer they are, and taking them along when a model is made from
// another.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include <graft/core/error.hpp>
#include <graft/core/hash.hpp>
#include <graft/io/atomic_folder.hpp>
#include <graft/io/byte_tokenizer.hpp>
#include <graft/io/graft_json.hpp>
#include <graft/io/hub_tokenizer.hpp>
#include <graft/io/json.hpp>

namespace graft {

// Files that belong to the tokenizer and not to the weights.
inline constexpr const char* tokenizer_file_names[] = {
    "tokenizer.json",    "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "tokenizer.model",       "vocab.json",
    "merges.txt",        "chat_template.jinja",   "generation_config.json"};

namespace detail {

inline std::string whole_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  GRAFT_CHECK(in.is_open(), path.string(), ": cannot be read");
  return std::string(std::istreambuf_iterator<char>(in), {});
}

}  // namespace detail

// The kind of a directory that holds no tokenizer files and no word of graft's: nobody knows what its ids mean.
inline constexpr const char* unknown_tokenizer = "unknown";

// The tokenizer that a directory's files are: "byte", or "files-" and a hash of the vocabulary's file, so that two
// directories have equal kinds where they have equal files, or unknown_tokenizer. vocabulary: rows of the model's
// embedding.
inline tokenizer_card identify_tokenizer(const std::filesystem::path& folder, index_t vocabulary) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json"}) {
    if (!std::filesystem::exists(folder / name)) continue;
    const std::string contents = detail::whole_file(folder / name);
    if (std::string(name) == "tokenizer.json" &&
        parse_json(contents, (folder / name).string()) == byte_tokenizer_json())
      return {"byte", byte_tokenizer::ids()};
    std::ostringstream kind;
    kind << "files-" << std::hex << fnv1a(contents);
    return {kind.str(), vocabulary};
  }
  return {unknown_tokenizer, vocabulary};
}

// Copies the tokenizer files of `from` into a folder that is being written.
inline void add_tokenizer_files(atomic_folder& out, const std::filesystem::path& from) {
  for (const char* name : tokenizer_file_names)
    if (std::filesystem::exists(from / name)) out.add(name, detail::whole_file(from / name));
}

}  // namespace graft
