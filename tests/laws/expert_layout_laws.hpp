// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The laws of the concept ExpertLayout (policies/expert_layout/expert_layout.hpp). A test of a layout of your own:
//
//   #include "catch.hpp"
//   #include "laws/expert_layout_laws.hpp"
//   TEST_CASE("my_layout keeps the laws of expert layouts") { graft::test::expert_layout_laws(my_layout{}); }

#include "catch.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/core/philox.hpp>
#include <graft/layers/routing_statistics.hpp>
#include <graft/policies/expert_layout/expert_layout.hpp>

#include "reference.hpp"
#include "shuffled_context.hpp"

namespace graft::test {

// What a router might have chosen.
struct routing_table {
  index_t experts = 0;
  tensor<std::int32_t> selected;  // (T, K)
  tensor<float> weights;          // (T, K), 0 for an empty slot

  // Different experts for the slots of a token. Of `most` experts only, so that those are overfull; with empty_slots
  // every third slot is empty. Weights come in steps of 1/4, so that some are equal.
  static routing_table random(index_t tokens, index_t slots, index_t experts, index_t most, bool empty_slots,
                              std::uint64_t seed) {
    routing_table table{experts, tensor<std::int32_t>(tokens, slots), tensor<float>(tokens, slots)};
    const random_source draw{seed, random_stream::data};
    const auto below = [&](index_t n, std::uint64_t stream, index_t at) {
      return static_cast<std::int32_t>(
          draw.below(static_cast<std::uint64_t>(n), stream, static_cast<std::uint64_t>(at)));
    };
    for (index_t t = 0; t < tokens; ++t) {
      const index_t first = below(most, 0, t);
      for (index_t k = 0; k < slots; ++k) {
        const index_t at = t * slots + k;
        if (empty_slots && below(3, 1, at) == 0) {
          table.selected(t, k) = -1;
        } else {
          table.selected(t, k) = static_cast<std::int32_t>((first + k) % most);
          table.weights(t, k) = 0.25f * static_cast<float>(1 + below(4, 2, at));
        }
      }
    }
    return table;
  }
  index_t filled() const {
    return std::count_if(selected.values.begin(), selected.values.end(), [](std::int32_t e) { return e >= 0; });
  }
};

// A plan and what was counted, on the host.
struct dispatched {
  std::vector<std::int32_t> offsets, slot_of_row, row_of_slot;
  std::vector<float> load;
  bool padded = false;
  bool operator==(const dispatched&) const = default;
};

template <class M = float, class Context, class L>
dispatched dispatch_of(Context& context, const L& layout, routing_table table) {
  workspace_scope scope(context);
  dispatched result;
  tensor<M> weights(table.weights.rows, table.weights.columns);
  std::copy(table.weights.values.begin(), table.weights.values.end(), weights.values.begin());
  std::vector<M> counted(static_cast<std::size_t>(routing_load{table.experts}.size()), M(0.5));
  const vector_view<M> load(counted.data(), static_cast<index_t>(counted.size()));
  const auto plan = layout.dispatch(context, table.selected.matrix(), weights.matrix(), table.experts,
                                    table.selected.rows * table.selected.columns, load);
  result.load.assign(counted.begin(), counted.end());
  const auto values = [](const vector_view<std::int32_t>& v) {
    return std::vector<std::int32_t>(v.data, v.data + v.extent(0));
  };
  result.offsets = values(plan.offsets);
  result.slot_of_row = values(plan.slot_of_row);
  result.row_of_slot = values(plan.row_of_slot);
  result.padded = plan.padded;
  REQUIRE(plan.slots == table.selected.columns);
  REQUIRE(plan.experts() == table.experts);
  REQUIRE(*plan.row_count() == result.offsets.back());
  return result;
}

// Whether the i-th filled slot has a row; in the order of slots, empty ones false.
inline std::vector<bool> kept_slots(const dispatched& plan) {
  std::vector<bool> kept;
  for (const std::int32_t row : plan.row_of_slot) kept.push_back(row >= 0);
  return kept;
}

namespace detail {

template <class L>
void dispatch_laws(const L& layout, const routing_table& table) {
  context<cpu> one({.threads = 1}), two({.threads = 2});
  shuffled_context shuffled(7);
  const dispatched plan = dispatch_of(one, layout, table);
  REQUIRE(plan == dispatch_of(one, layout, table));
  REQUIRE(plan == dispatch_of(two, layout, table));
  REQUIRE(plan == dispatch_of<double>(one, layout, table));  // weights that are exact in both
  REQUIRE(plan == dispatch_of(shuffled, layout, table));

  const index_t slots = table.selected.columns, count = table.selected.rows * slots;
  index_t room = table.selected.rows;
  if constexpr (requires { layout.capacity_of(count, count, count); })
    room = layout.capacity_of(table.selected.rows, count, table.experts);

  // Rows are sorted by expert, ties by slot, and a row and its slot know each other.
  REQUIRE(plan.offsets.front() == 0);
  REQUIRE(plan.row_of_slot.size() == static_cast<std::size_t>(count));
  REQUIRE(static_cast<std::size_t>(plan.offsets.back()) <= plan.slot_of_row.size());
  std::vector<index_t> working(static_cast<std::size_t>(table.experts), 0);
  for (index_t e = 0; e < table.experts; ++e) {
    const auto first = static_cast<std::size_t>(plan.offsets[static_cast<std::size_t>(e)]);
    const auto last = static_cast<std::size_t>(plan.offsets[static_cast<std::size_t>(e) + 1]);
    REQUIRE(first <= last);
    REQUIRE(static_cast<index_t>(last - first) <= room);
    std::int32_t before = -1;
    for (std::size_t row = first; row < last; ++row) {
      const std::int32_t slot = plan.slot_of_row[row];
      if (slot < 0) {
        REQUIRE(plan.padded);
        continue;
      }
      REQUIRE(slot > before);
      before = slot;
      REQUIRE(table.selected.values[static_cast<std::size_t>(slot)] == e);
      REQUIRE(plan.row_of_slot[static_cast<std::size_t>(slot)] == static_cast<std::int32_t>(row));
      ++working[static_cast<std::size_t>(e)];
    }
  }
  for (std::size_t row = static_cast<std::size_t>(plan.offsets.back()); row < plan.slot_of_row.size(); ++row)
    REQUIRE(plan.slot_of_row[row] == -1);

  // Every filled slot has a row or was dropped, by an expert that is full; what was dropped is counted.
  index_t dropped = 0;
  for (std::size_t slot = 0; slot < plan.row_of_slot.size(); ++slot) {
    const std::int32_t expert = table.selected.values[slot], row = plan.row_of_slot[slot];
    if (expert < 0) REQUIRE(row == -1);
    if (row >= 0) REQUIRE(plan.slot_of_row[static_cast<std::size_t>(row)] == static_cast<std::int32_t>(slot));
    if (expert < 0 || row >= 0) continue;
    REQUIRE(working[static_cast<std::size_t>(expert)] == room);
    ++dropped;
  }
  if (L::spec.dropless) REQUIRE(dropped == 0);
  const auto at = static_cast<std::size_t>(routing_load{table.experts}.dropped());
  for (std::size_t i = 0; i < plan.load.size(); ++i)
    REQUIRE(plan.load[i] == 0.5f + (i == at ? static_cast<float>(dropped) : 0.0f));

  // Without a load nothing is counted, and the plan is the same.
  {
    workspace_scope scope(one);
    routing_table copy = table;
    const auto silent =
        layout.dispatch(one, copy.selected.matrix(), copy.weights.matrix(), table.experts, count, vector_view<float>{});
    REQUIRE(std::equal(plan.row_of_slot.begin(), plan.row_of_slot.end(), silent.row_of_slot.data));
  }

  // A causal layout: what later tokens choose does not matter to the earlier, as long as they are as many.
  if (!L::spec.causal || table.selected.rows < 2) return;
  routing_table other = table;
  const index_t half = table.selected.rows / 2;
  for (index_t t = half; t < table.selected.rows; ++t)
    for (index_t k = 0; k < slots; ++k) {
      other.selected(t, k) = static_cast<std::int32_t>((t + k) % table.experts);
      other.weights(t, k) = 2.0f;
    }
  std::vector<bool> kept = kept_slots(plan), kept_other = kept_slots(dispatch_of(one, layout, other));
  kept.resize(static_cast<std::size_t>(half * slots));
  kept_other.resize(kept.size());
  REQUIRE(kept == kept_other);
}

}  // namespace detail

// All laws: one expert and numbers that are no power of two; one slot and as many slots as experts; loads that are
// even, of one expert alone and of a few; slots left empty; a token and enough for a second thread.
template <ExpertLayout L>
void expert_layout_laws(const L& layout) {
  static_assert(check_expert_layout<L>());
  constexpr index_t fixed = L::spec.experts;
  for (const index_t wanted : {1, 2, 5, 12}) {
    const index_t experts = fixed == dynamic_experts ? wanted : fixed;
    transformer_shape shape{.width = 8, .hidden = 6, .experts = experts};
    REQUIRE(layout.experts(shape) == experts);
    REQUIRE(layout.hidden(shape) > 0);
    for (const index_t slots : {index_t{1}, std::min<index_t>(2, experts), experts})
      for (const index_t most : {slots, std::min(slots + 1, experts), experts})
        for (const index_t tokens : {1, 7, 41})
          for (const bool empty_slots : {false, true}) {
            CAPTURE(L::name, experts, slots, most, tokens, empty_slots);
            detail::dispatch_laws(layout, routing_table::random(tokens, slots, experts, most, empty_slots, 3));
          }
    detail::dispatch_laws(layout,
                          routing_table::random(3000, std::min<index_t>(2, experts), experts, experts, true, 4));
  }
}

}  // namespace graft::test
