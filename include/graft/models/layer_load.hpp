// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How the tokens of some passes were spread over the experts of each block, on the host: what reports are made of.

#include <algorithm>
#include <vector>

namespace graft {

// The load of one layer's experts over passes, on the host.
struct layer_load {
  std::vector<double> counts;  // (E) slots sent to each expert
  double empty_slots = 0;      // that the router left empty, where it may
  double dropped_slots = 0;    // that no expert had room for
  double tokens = 0;
  double entropy_sum = 0;  // of the softmax of the logits, nats, over tokens

  // MaxVio = max load / mean load - 1: 0 at balance. Source: Wang et al., "Auxiliary-loss-free load balancing
  // strategy", 2024, arXiv 2408.15664.
  double max_violation() const {
    double most = 0, all = 0;
    for (const double count : counts) most = std::max(most, count), all += count;
    return all > 0 ? most * static_cast<double>(counts.size()) / all - 1 : 0;
  }
  double mean_entropy() const { return tokens > 0 ? entropy_sum / tokens : 0; }
  layer_load& operator+=(const layer_load& other) {
    counts.resize(other.counts.size());
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
    empty_slots += other.empty_slots;
    dropped_slots += other.dropped_slots;
    tokens += other.tokens;
    entropy_sum += other.entropy_sum;
    return *this;
  }
  bool operator==(const layer_load&) const = default;
};

// The counts of all blocks with experts, one after another.
inline std::vector<double> all_counts(const std::vector<layer_load>& blocks) {
  std::vector<double> counts;
  for (const layer_load& block : blocks) counts.insert(counts.end(), block.counts.begin(), block.counts.end());
  return counts;
}

}  // namespace graft
