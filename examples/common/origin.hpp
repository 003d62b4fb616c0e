// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What graft.json says of where a mixed model comes from.

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/mix/model_directories.hpp>

#include "common/engine.hpp"

namespace examples {

// The domain that a branch was trained on last, empty when it had several or none.
inline std::string domain_of_model(const std::filesystem::path& folder) {
  const graft::model_info info = graft::load_model_info(folder);
  return info.card ? info.card->provenance.value("domain", std::string()) : std::string();
}

// Branches share the tokens of the seed they have in common; each adds its own. Branches train at the same time, so the critical path
// is the longest of theirs.
inline nlohmann::json mix_origin(const graft::recipe& how, const std::vector<graft::branch_directory>& branches, const graft::mix_options& mix) {
  graft::index_t critical = 0, own = 0, seed = 0;
  nlohmann::json parents = nlohmann::json::array();
  std::ostringstream text;
  text.precision(17);
  text << how.name << " seed=" << mix.seed;
  for (const double weight : mix.weights) text << " weight=" << weight;
  for (const graft::branch_directory& branch : branches) {
    const graft::model_info info = graft::load_model_info(branch.folder);
    const nlohmann::json origin = info.card ? info.card->provenance : nlohmann::json::object();
    const graft::index_t all = origin.value("train_tokens", graft::index_t{0}), last = origin.value("last_train_tokens", all);
    const bool is_seed = origin.value("parents", nlohmann::json::array()).empty();
    if (is_seed)
      seed = std::max(seed, all);
    else
      own += last, seed = std::max(seed, all - last);
    critical = std::max(critical, origin.value("critical_path_tokens", graft::index_t{0}));
    parents.push_back(branch.folder.filename().string());
    text << ' ' << branch.name << '=' << origin.value("signature", std::string("unknown"));
  }
  return {{"method", how.name},          {"parents", parents},
          {"train_tokens", seed + own},  {"critical_path_tokens", critical},
          {"mix_seed", mix.seed},        {"signature", fingerprint(text.str())}};
}

}  // namespace examples
