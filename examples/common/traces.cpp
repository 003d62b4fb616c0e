// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/traces.hpp"

#include <algorithm>

#include <graft/io/token_file.hpp>

namespace examples {

graft::marked_text excerpts(const std::vector<held_out_domain>& texts, index_t tokens) {
  graft::marked_text all;
  for (const held_out_domain& text : texts) {
    const graft::token_file file(text.path);
    std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(file.size(), 2 * tokens)));
    file.read((file.size() - static_cast<index_t>(piece.size())) / 2, piece);
    const auto last = piece.end() - static_cast<std::ptrdiff_t>(std::min(file.size(), tokens));  // it may start at
    const auto line = std::find(piece.begin(), last, '\n');
    const auto first = line == last ? last : line + 1;
    all.append(text.name, {first, first + (piece.end() - last)});
  }
  return all;
}

fs::path routing_log_of(const fs::path& model) { return model / "training" / "routing.jsonl"; }

}  // namespace examples
