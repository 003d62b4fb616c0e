// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/folder.hpp"

#include <algorithm>

namespace examples {

std::string folder_name(const std::filesystem::path& folder) {
  const std::filesystem::path whole = std::filesystem::absolute(folder).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

bool holds_model(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / "config.json") || graft::is_assembly(folder);
}

nlohmann::json origin_of(const graft::model_info& info) {
  return info.card ? info.card->provenance : nlohmann::json::object();
}

nlohmann::json origin_of(const std::filesystem::path& folder) {
  return graft::is_assembly(folder) ? graft::load_assembly_info(folder).card.provenance
                                    : origin_of(graft::load_model_info(folder));
}

graft::tokenizer_card tokenizer_of(const std::filesystem::path& folder) {
  return graft::is_assembly(folder) ? graft::load_assembly_info(folder).card.tokenizer
                                    : graft::load_model_info(folder).tokenizer;
}

graft::index_t positions_of(const std::filesystem::path& folder) {
  if (!graft::is_assembly(folder)) return graft::load_model_info(folder).config.shape.positions;
  graft::index_t fewest = 0;
  for (const graft::model_info& member : graft::load_assembly_info(folder).members)
    fewest = fewest == 0 ? member.config.shape.positions : std::min(fewest, member.config.shape.positions);
  return fewest;
}

}  // namespace examples
