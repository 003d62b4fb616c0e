// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/traces.hpp"

#include <algorithm>

#include <graft/io/token_file.hpp>

namespace examples {

graft::marked_text beginnings(const std::vector<held_out_domain>& texts, index_t tokens) {
  graft::marked_text all;
  for (const held_out_domain& text : texts) {
    const graft::token_file file(text.path);
    std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(file.size(), tokens)));
    file.read(0, piece);
    all.append(text.name, piece);
  }
  return all;
}

fs::path routing_log_of(const fs::path& model) { return model / "training" / "routing.jsonl"; }

}  // namespace examples
