// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A row of the table from a model directory and its evaluation.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <graft/mix/model_directories.hpp>
#include <graft/models/counts.hpp>

#include "common/folder.hpp"
#include "common/mixtures.hpp"
#include "common/results.hpp"

namespace examples {

inline result_row make_row(const std::filesystem::path& folder, std::vector<graft::evaluation> evaluations) {
  const graft::model_info info = graft::load_model_info(folder);
  const graft::transformer_shape& shape = info.config.shape;
  result_row row;
  row.name = folder_name(folder);
  row.method = origin_value(info, "method", std::string("unknown"));
  if (shape.experts > 0) {
    const graft::model_card card = graft::card_of(info);
    const mixture_facts facts = facts_of(names_of(&card, {}, shape.experts, info.config.experts_per_token), shape);
    row.total = facts.total;
    row.active = facts.active;
  } else {
    row.total = row.active = graft::parameter_count(shape);
  }
  row.trained = origin_value(info, "trained_parameters", graft::index_t{0});
  row.train_tokens = origin_value(info, "train_tokens", graft::index_t{0});
  row.critical_path_tokens = origin_value(info, "critical_path_tokens", graft::index_t{0});
  row.tokens_per_second = origin_value(info, "tokens_per_second", 0.0);
  row.evaluations = std::move(evaluations);
  return row;
}

}  // namespace examples
