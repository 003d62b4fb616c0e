// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Domains as the programs take them: prepared once into token files in a folder, then read from there.

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include <graft/io/corpus.hpp>

#include "common/engine.hpp"

namespace examples {

// NAME=PATH texts, or the default domains when there are none.
std::vector<graft::domain_source> domains_from(const std::vector<std::string>& texts);

// Removes the folders that were not there before, where they are empty still.
class new_folders {
 public:
  explicit new_folders(const fs::path& folder) {
    for (fs::path path = fs::absolute(folder).lexically_normal(); !fs::exists(path) && path != path.root_path();
         path = path.parent_path())
      missing_.push_back(path);
  }
  ~new_folders() {
    std::error_code ignored;
    for (const fs::path& path : missing_) fs::remove(path, ignored);
  }
  new_folders(const new_folders&) = delete;
  new_folders& operator=(const new_folders&) = delete;

 private:
  std::vector<fs::path> missing_;
};

// Prepares every domain (or finds it prepared) and says what it has. positions: of the windows to train on, 0 when
// there is no training. Errors: before anything is prepared, two domains of one name and paths without files; then
// those of prepare_corpus, and too little text.
std::vector<graft::corpus> prepare_domains(const std::vector<graft::domain_source>& sources, const fs::path& folder,
                                           index_t max_bytes, index_t positions);

std::vector<graft::weighted_tokens> training_data(const std::vector<graft::corpus>& domains,
                                                  const std::vector<double>& weights = {});

std::vector<held_out_domain> held_out_data(const std::vector<graft::corpus>& domains);

}  // namespace examples
