// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Token permutation of a mixture-of-experts: rows are grouped by expert, experts work on contiguous rows, and the
// results come back weighted. A token has K slots; a slot is an (expert, weight) pair and may be empty (expert -1).

#include <cstdint>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/ops/detail/strip_sums.hpp>
#include <graft/ops/operands.hpp>

namespace graft {

// Which row works for which slot. Slot s = t * K + k belongs to token t. Rows are sorted by expert, ties by slot. A
// filled slot without a row was dropped: it gives nothing and gets no gradient, as an empty one.
template <class Space>
struct dispatch_plan {
  view<std::int32_t, 1, Space> offsets;      // (E+1): rows [offsets[e], offsets[e+1]) are expert e's
  view<std::int32_t, 1, Space> slot_of_row;  // (R): -1 where a row works for no slot, as all do beyond offsets[E]
  view<std::int32_t, 1, Space> row_of_slot;  // (T K): -1 for a slot that is empty or dropped
  index_t slots = 1;                         // K
  bool padded = false;                       // rows before offsets[E] may work for no slot: they are rows of zeros

  GRAFT_HOST_DEVICE index_t experts() const { return offsets.extent(0) - 1; }
  // R: an upper bound of the rows in use that the host knows.
  GRAFT_HOST_DEVICE index_t rows() const { return slot_of_row.extent(0); }
  // How many rows are in use: a number that only the device knows.
  GRAFT_HOST_DEVICE const std::int32_t* row_count() const { return offsets.data + experts(); }
};

namespace detail {

template <class Space>
struct clear_rows_element {
  view<std::int32_t, 1, Space> rows;
  GRAFT_HOST_DEVICE void operator()(index_t i) const { rows[i] = -1; }
};

// Rows of a padded plan that work for no slot become zero.
template <class T, class Space>
struct clear_padding_row {
  view<T, 2, Space> rows;
  dispatch_plan<Space> plan;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    if (plan.slot_of_row[row] >= 0 || row >= *plan.row_count()) return;
    T* target = rows.row(row);
    group.for_each(rows.extent(1), [&](index_t i) { target[i] = T(0.0f); });
  }
};

template <class Space>
struct invert_rows_element {
  view<std::int32_t, 1, Space> row_of_slot;
  view<const std::int32_t, 1, Space> slot_of_row;
  GRAFT_HOST_DEVICE void operator()(index_t row) const {
    if (slot_of_row[row] >= 0) row_of_slot[slot_of_row[row]] = static_cast<std::int32_t>(row);
  }
};

template <class T, class Space>
struct gather_row {
  view<T, 2, Space> rows;     // (R, D)
  view<const T, 2, Space> x;  // (T, D)
  dispatch_plan<Space> plan;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const std::int32_t slot = plan.slot_of_row[row];
    T* target = rows.row(row);
    if (slot < 0) {
      if (plan.padded && row < *plan.row_count()) group.for_each(x.extent(1), [&](index_t i) { target[i] = T(0.0f); });
      return;
    }
    const T* source = x.row(slot / plan.slots);
    group.for_each(x.extent(1), [&](index_t i) { target[i] = source[i]; });
  }
};

template <class T, class Space>
struct combine_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> out;                 // (T, D)
  view<const T, 2, Space> rows;          // (R, D)
  view<const Master, 2, Space> weights;  // (T, K); absent: every weight is 1
  dispatch_plan<Space> plan;
  bool add;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    const std::int32_t* row_of_slot = plan.row_of_slot.data + token * plan.slots;
    T* target = out.row(token);
    sum_weighted_rows<Master>(
        group, out.extent(1), plan.slots,
        [&](index_t k) {
          const std::int32_t row = row_of_slot[k];
          if (row < 0) return weighted_row<T, Master>{Master(0), nullptr};
          return weighted_row<T, Master>{weights.data != nullptr ? weights(token, k) : Master(1), rows.row(row)};
        },
        [&](index_t i, Master sum) { target[i] = T(add ? static_cast<Master>(target[i]) + sum : sum); });
  }
};

template <class T, class Space>
struct combine_backward_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> d_rows;              // (R, D)
  view<Master, 2, Space> d_weights;      // (T, K)
  view<const T, 2, Space> d_out;         // (T, D)
  view<const T, 2, Space> rows;          // (R, D)
  view<const Master, 2, Space> weights;  // (T, K)
  dispatch_plan<Space> plan;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    const T* upstream = d_out.row(token);
    for (index_t k = 0; k < plan.slots; ++k) {
      const std::int32_t row = plan.row_of_slot[token * plan.slots + k];
      if (row < 0) {
        group.single([&] { d_weights(token, k) = 0; });
        continue;
      }
      const T* output = rows.row(row);
      T* target = d_rows.row(row);
      const Master weight = weights(token, k);
      const Master dot = group.sum(d_out.extent(1), [&](index_t i) {
        return static_cast<Master>(upstream[i]) * static_cast<Master>(output[i]);
      });
      group.for_each(d_out.extent(1), [&](index_t i) { target[i] = T(weight * static_cast<Master>(upstream[i])); });
      group.single([&] { d_weights(token, k) = dot; });
    }
  }
};

}  // namespace detail

// Sorts slots by expert. Shapes: experts_of_slots (T K), entries in [-1, E).
// Order: stable, so equal inputs give equal plans. Cost: one counting sort; no host synchronisation.
// filled_rows: an upper bound of the filled slots, when it is known to be below T K.
template <class Context>
dispatch_plan<typename Context::space> make_dispatch_plan(Context& context,
                                                          const_vector_of<Context, std::int32_t> experts_of_slots,
                                                          index_t experts, index_t slots, index_t filled_rows = -1) {
  using space = typename Context::space;
  const index_t count = experts_of_slots.extent(0);
  dispatch_plan<space> plan;
  plan.offsets = context.template allocate<std::int32_t>(experts + 1);
  plan.slot_of_row = context.template allocate<std::int32_t>(count);
  plan.row_of_slot = context.template allocate<std::int32_t>(count);
  plan.slots = slots;
  counting_sort(context, experts_of_slots, experts, plan.offsets, plan.slot_of_row);
  if (filled_rows >= 0 && filled_rows < count) plan.slot_of_row.extents[0] = filled_rows;
  launch_elements(context, count, detail::clear_rows_element<space>{plan.row_of_slot});
  launch_elements(context, plan.rows(), detail::invert_rows_element<space>{plan.row_of_slot, plan.slot_of_row});
  return plan;
}

// rows[r] = x[token of row r]; 0 in the padding of a padded plan. Shapes: rows (R, D), x (T, D).
template <class Context, class T>
void gather_tokens(Context& context, matrix_of<Context, T> rows, const_matrix_of<Context, T> x,
                   const dispatch_plan<typename Context::space>& plan) {
  launch_rows(context, rows.extent(0), x.extent(1), detail::gather_row<T, typename Context::space>{rows, x, plan});
}

// out[t] (+)= sum over k of weights[t, k] rows[row of slot (t, k)]; empty slots give nothing, an absent weights counts
// as ones (which makes this the backward pass of gather_tokens). Shapes: out (T, D), rows (R, D), weights (T, K).
// Order: k ascending.
template <class Context, class T>
void combine_rows(Context& context, matrix_of<Context, T> out, const_matrix_of<Context, T> rows,
                  const_matrix_of<Context, accumulator_t<T>> weights,
                  const dispatch_plan<typename Context::space>& plan, accumulate add) {
  launch_rows(context, out.extent(0), out.extent(1),
              detail::combine_row<T, typename Context::space>{out, rows, weights, plan, add == accumulate::yes});
}

// d_rows[r] = weight d_out[t],  d_weights[t, k] = <d_out[t], rows[r]>; 0 for a slot without a row and in the padding of
// a padded plan. d_rows may be rows.
template <class Context, class T>
void combine_rows_backward(Context& context, matrix_of<Context, T> d_rows,
                           matrix_of<Context, accumulator_t<T>> d_weights, const_matrix_of<Context, T> d_out,
                           const_matrix_of<Context, T> rows, const_matrix_of<Context, accumulator_t<T>> weights,
                           const dispatch_plan<typename Context::space>& plan) {
  launch_rows(context, d_out.extent(0), d_out.extent(1),
              detail::combine_backward_row<T, typename Context::space>{d_rows, d_weights, d_out, rows, weights, plan});
  if (plan.padded)
    launch_rows(context, plan.rows(), d_rows.extent(1),
                detail::clear_padding_row<T, typename Context::space>{d_rows, plan});
}

}  // namespace graft
