// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/row.hpp"

#include <string>
#include <utility>

#include <graft/mix/model_directories.hpp>
#include <graft/models/counts.hpp>

#include "common/assembling.hpp"
#include "common/folder.hpp"
#include "common/mixtures.hpp"

namespace examples {

result_row make_row(const std::filesystem::path& folder, std::vector<graft::evaluation> evaluations) {
  result_row row;
  row.name = folder_name(folder);
  if (graft::is_assembly(folder)) {
    const assembly_counts counts = counts_of(graft::load_assembly_info(folder));
    row.total = counts.total;
    row.active = counts.active;
    for (graft::evaluation& each : evaluations) each.load.clear();  // of members, not of experts that could be even
  } else {
    const graft::model_info info = graft::load_model_info(folder);
    const graft::transformer_shape& shape = info.config.shape;
    if (shape.experts > 0) {
      const graft::model_card card = graft::card_of(info);
      const mixture_facts facts = facts_of(names_of(&card, {}, shape.experts, info.config.experts_per_token), shape);
      row.total = facts.total;
      row.active = facts.active;
    } else {
      row.total = row.active = graft::parameter_count(shape);
    }
  }
  const nlohmann::json origin = origin_of(folder);
  const auto number = [&](const char* key) { return origin_value(origin, folder, key, graft::index_t{0}); };
  row.method = origin_value(origin, folder, "method", std::string("unknown"));
  row.trained = number("last_train_tokens") > 0 ? number("trained_parameters") : 0;
  row.train_tokens = number("train_tokens");
  row.critical_path_tokens = number("critical_path_tokens");
  row.tokens_per_second = origin_value(origin, folder, "tokens_per_second", 0.0);
  if (row.trained > 0) row.peak_bytes = number("peak_memory_bytes");
  row.evaluations = std::move(evaluations);
  return row;
}

}  // namespace examples
