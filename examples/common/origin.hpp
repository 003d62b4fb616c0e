// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What graft.json says of where a mixed model comes from.

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/mix/model_directories.hpp>

#include "common/engine.hpp"
#include "common/folder.hpp"
#include "common/mixtures.hpp"

namespace examples {

// The domain that a branch was trained on last, empty when it had several or none.
std::string domain_of_model(const std::filesystem::path& folder);

// What models have seen that become parts of one.
struct parents_origin {
  graft::index_t train_tokens = 0, critical_path_tokens = 0;
  nlohmann::json names = nlohmann::json::array();
  std::string text;  // names and signatures
};

// Branches share the tokens of the seed they have in common; each adds its own. Branches train at the same time, so the
// critical path is the longest of theirs.
parents_origin origin_of_parents(const std::vector<graft::branch_directory>& branches);

nlohmann::json mix_origin(const graft::recipe& how, const std::vector<graft::branch_directory>& branches,
                          const graft::directory_mix_options& options);

// What mix_directories needs to know of a mixture.
graft::mixture_plan plan_of(const mixture_names& names);

// Mixes branches and writes the result, unless the same one is there. Errors: out holds another model.
void mix_once(const graft::recipe& how, const std::vector<graft::branch_directory>& branches,
              const std::filesystem::path& out, graft::directory_mix_options options);

}  // namespace examples
