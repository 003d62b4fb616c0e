// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Expert capacity: an expert takes at most C slots, the rest is dropped. What is dropped is decided on the device and
// counted there.

#include <cmath>
#include <cstdint>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/error.hpp>
#include <graft/ops/operands.hpp>
#include <graft/ops/permutation.hpp>

namespace graft {

// C = min(T, ceil(factor filled / E)): a token fills at most one slot of an expert, so that nothing is dropped at T.
// filled: (token, slot) pairs of the pass, K T unless the router promises fewer.
// Source: Fedus, Zoph, Shazeer, "Switch Transformers", 2021, arXiv 2101.03961, equation 3, with K T pairs in the place
// of T tokens.
inline index_t expert_capacity(double factor, index_t filled, index_t experts, index_t tokens) {
  GRAFT_CHECK(factor > 0, "expert_capacity: expected a capacity factor above 0, got ", factor);
  const double wanted = std::ceil(factor * static_cast<double>(filled) / static_cast<double>(experts));
  return wanted >= static_cast<double>(tokens) ? tokens : static_cast<index_t>(wanted);
}

namespace detail {

template <class Space>
struct permute_keys_element {
  view<std::int32_t, 1, Space> permuted;
  view<const std::int32_t, 1, Space> keys, order;
  GRAFT_HOST_DEVICE void operator()(index_t i) const { permuted[i] = keys[order[i]]; }
};

// Place i of `sorted` is the (i - offsets[e])-th in line for its expert e.
template <class Space>
struct keep_first_element {
  view<std::int32_t, 1, Space> kept;
  view<const std::int32_t, 1, Space> experts_of_slots, sorted, offsets;
  view<const std::int32_t, 1, Space> order;  // absent: slots stand in line as they are numbered
  index_t capacity;

  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    if (sorted[i] < 0) return;
    const std::int32_t slot = order.data != nullptr ? order[sorted[i]] : sorted[i];
    const std::int32_t expert = experts_of_slots[slot];
    kept[slot] = i - offsets[expert] < capacity ? expert : -1;
  }
};

template <class M, class Space>
struct count_dropped_row {
  view<M, 1, Space> dropped;
  view<const std::int32_t, 1, Space> offsets;
  index_t capacity;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t) const {
    const M sum = group.sum(offsets.extent(0) - 1, [&](index_t e) {
      const index_t count = offsets[e + 1] - offsets[e];
      return count > capacity ? static_cast<M>(count - capacity) : M(0);
    });
    group.single([&] { dropped[0] += sum; });
  }
};

template <class Space>
struct pad_offsets_element {
  view<std::int32_t, 1, Space> offsets;
  index_t capacity;
  GRAFT_HOST_DEVICE void operator()(index_t e) const { offsets[e] = static_cast<std::int32_t>(e * capacity); }
};

// Moves a compact row of expert e to the same place among the rows [e C, (e+1) C).
template <class Space>
struct pad_rows_element {
  dispatch_plan<Space> padded, compact;
  view<const std::int32_t, 1, Space> experts_of_slots;
  index_t capacity;

  GRAFT_HOST_DEVICE void operator()(index_t row) const {
    const std::int32_t slot = compact.slot_of_row[row];
    if (slot < 0) return;
    const std::int32_t expert = experts_of_slots[slot];
    const index_t target = expert * capacity + row - compact.offsets[expert];
    padded.slot_of_row[target] = slot;
    padded.row_of_slot[slot] = static_cast<std::int32_t>(target);
  }
};

}  // namespace detail

// kept[s] = the expert of slot s, or -1 where it is empty or its expert has C slots before it in line. The line of an
// expert: by descending priority, ties to the lower slot; without priorities, by slot. dropped[0] += how many filled
// slots were dropped.
// Shapes: kept, experts_of_slots (T K), priorities (T K) or absent, dropped (1) or absent. kept is another memory than
// experts_of_slots. Order: same inputs, same bits. Cost: one counting sort, with priorities one sort more; no host
// synchronisation.
template <class Context, class M>
void keep_within_capacity(Context& context, vector_of<Context, std::int32_t> kept,
                          const_vector_of<Context, std::int32_t> experts_of_slots, vector_of<Context, M> priorities,
                          index_t experts, index_t capacity, vector_of<Context, M> dropped) {
  using space = typename Context::space;
  const index_t count = experts_of_slots.extent(0);
  workspace_scope scope(context);
  const auto offsets = context.template allocate<std::int32_t>(experts + 1);
  const auto sorted = context.template allocate<std::int32_t>(count);
  view<std::int32_t, 1, space> order;
  if (priorities.data != nullptr) {
    // Sorted by priority first and then, stably, by expert: each expert's slots stand by priority.
    order = context.template allocate<std::int32_t>(count);
    const auto permuted = context.template allocate<std::int32_t>(count);
    argsort_rows(context, reshape(order, index_t{1}, count), reshape(priorities, index_t{1}, count));
    launch_elements(context, count, detail::permute_keys_element<space>{permuted, experts_of_slots, order});
    counting_sort(context, permuted, experts, offsets, sorted);
  } else {
    counting_sort(context, experts_of_slots, experts, offsets, sorted);
  }
  launch_elements(context, count, detail::clear_rows_element<space>{kept});
  launch_elements(context, count,
                  detail::keep_first_element<space>{kept, experts_of_slots, sorted, offsets, order, capacity});
  if (dropped.data != nullptr)
    launch_rows(context, 1, experts, detail::count_dropped_row<M, space>{dropped, offsets, capacity});
}

// The plan with C rows for every expert: offsets[e] = e C, whatever the router chose. Rows that work for no slot are
// rows of zeros. Requires: at most C rows an expert in `compact`. Shapes: experts_of_slots (T K), those of the plan.
template <class Context>
dispatch_plan<typename Context::space> pad_dispatch_plan(Context& context,
                                                         const dispatch_plan<typename Context::space>& compact,
                                                         const_vector_of<Context, std::int32_t> experts_of_slots,
                                                         index_t capacity) {
  using space = typename Context::space;
  const index_t experts = compact.experts();
  dispatch_plan<space> padded;
  padded.offsets = context.template allocate<std::int32_t>(experts + 1);
  padded.slot_of_row = context.template allocate<std::int32_t>(experts * capacity);
  padded.row_of_slot = context.template allocate<std::int32_t>(experts_of_slots.extent(0));
  padded.slots = compact.slots;
  padded.padded = true;
  launch_elements(context, experts + 1, detail::pad_offsets_element<space>{padded.offsets, capacity});
  launch_elements(context, padded.rows(), detail::clear_rows_element<space>{padded.slot_of_row});
  launch_elements(context, experts_of_slots.extent(0), detail::clear_rows_element<space>{padded.row_of_slot});
  launch_elements(context, compact.rows(),
                  detail::pad_rows_element<space>{padded, compact, experts_of_slots, capacity});
  return padded;
}

}  // namespace graft
