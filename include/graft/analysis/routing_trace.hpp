// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which experts every token of a text was sent to, and with what weights: plain numbers on the host. Saturation,
// co-activation, specialization and coloured text are made of this; trace_routing reads it out of a model.

#include <algorithm>
#include <cstdint>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace graft {

// The choices of one block, on the host.
struct block_routing {
  index_t block = 0;                   // of the model
  index_t experts = 0;                 // E
  index_t slots = 0;                   // K
  std::vector<std::int32_t> selected;  // (T, K); -1 is a slot that was left empty, or padding
  std::vector<float> weights;          // (T, K); 0 in empty slots

  index_t tokens() const { return slots > 0 ? static_cast<index_t>(selected.size()) / slots : 0; }
  std::int32_t expert(index_t token, index_t slot) const {
    return selected[static_cast<std::size_t>(token * slots + slot)];
  }
  float weight(index_t token, index_t slot) const { return weights[static_cast<std::size_t>(token * slots + slot)]; }

  // Every expert works on every token (padding left out), so that only the weights tell experts apart.
  bool all_selected() const {
    if (slots != experts) return false;
    for (index_t token = 0; token < tokens(); ++token) {
      index_t filled = 0;
      for (index_t slot = 0; slot < slots; ++slot) filled += expert(token, slot) >= 0;
      if (filled != 0 && filled != slots) return false;
    }
    return true;
  }
  // The filled slots of a token by descending weight. Order: ties to the lower expert.
  std::vector<index_t> ranked(index_t token) const {
    std::vector<index_t> order;
    for (index_t slot = 0; slot < slots; ++slot)
      if (expert(token, slot) >= 0) order.push_back(slot);
    std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
      const float x = weight(token, a), y = weight(token, b);
      return x > y || (x == y && expert(token, a) < expert(token, b));
    });
    return order;
  }
  // The expert with the largest weight, -1 for none.
  std::int32_t main_expert(index_t token) const {
    std::int32_t best = -1;
    float most = 0;
    for (index_t slot = 0; slot < slots; ++slot) {
      const std::int32_t each = expert(token, slot);
      const float value = weight(token, slot);
      if (each >= 0 && (best < 0 || value > most || (value == most && each < best))) best = each, most = value;
    }
    return best;
  }
};

// A text and its way through the blocks that have experts, in their order; none for a dense model.
struct routing_trace {
  std::vector<std::int32_t> ids;  // (T) -1 is padding
  std::vector<block_routing> blocks;

  index_t tokens() const { return static_cast<index_t>(ids.size()); }
  // Errors: another number of blocks, experts or slots.
  routing_trace& operator+=(const routing_trace& other) {
    if (ids.empty()) return *this = other;
    GRAFT_CHECK(blocks.size() == other.blocks.size(), "routing_trace: expected ", blocks.size(),
                " blocks with experts, got ", other.blocks.size());
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      block_routing& own = blocks[i];
      const block_routing& more = other.blocks[i];
      GRAFT_CHECK(own.block == more.block && own.experts == more.experts && own.slots == more.slots,
                  "routing_trace: expected block ", own.block, " with ", own.experts, " experts and ", own.slots,
                  " slots, got block ", more.block, " with ", more.experts, " experts and ", more.slots, " slots");
      own.selected.insert(own.selected.end(), more.selected.begin(), more.selected.end());
      own.weights.insert(own.weights.end(), more.weights.begin(), more.weights.end());
    }
    ids.insert(ids.end(), other.ids.begin(), other.ids.end());
    return *this;
  }
};

namespace detail {

// Errors: a block that is not (T, K) over E experts.
inline void check_block(const char* where, const block_routing& block) {
  GRAFT_CHECK(block.slots > 0 && block.experts > 0 && block.selected.size() == block.weights.size() &&
                  static_cast<index_t>(block.selected.size()) % block.slots == 0,
              where, ": expected (T, K) selected experts and weights, got ", block.selected.size(), " and ",
              block.weights.size(), " of K=", block.slots, " and E=", block.experts);
  for (const std::int32_t expert : block.selected)
    GRAFT_CHECK(expert >= -1 && expert < block.experts, where, ": expected experts from -1 to ", block.experts - 1,
                ", got ", expert);
}

}  // namespace detail

}  // namespace graft
