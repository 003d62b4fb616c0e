// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Token embedding: rows of a table by token id, and the gradient back into the table without atomics.

#include <cstdint>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/ops/operands.hpp>

namespace graft {
namespace detail {

template <class T, class Space>
struct embedding_forward_row {
  view<T, 2, Space> out;                      // (T, D)
  view<const T, 2, Space> table;              // (V, D)
  view<const std::int32_t, 1, Space> tokens;  // (T)

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const std::int32_t token = tokens[row];
    T* target = out.row(row);
    if (token < 0) {
      group.for_each(out.extent(1), [&](index_t i) { target[i] = T(0.0f); });
      return;
    }
    const T* source = table.row(token);
    group.for_each(out.extent(1), [&](index_t i) { target[i] = source[i]; });
  }
};

// One group owns one row of the table and adds the gradients of its tokens in the order of their positions.
template <class T, class Master, class Space>
struct embedding_backward_row {
  view<Master, 2, Space> d_table;              // (V, D)
  view<const T, 2, Space> d_out;               // (T, D)
  view<const std::int32_t, 1, Space> offsets;  // (V+1)
  view<const std::int32_t, 1, Space> order;    // (T)

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    Master* target = d_table.row(token);
    for (index_t at = offsets[token]; at < offsets[token + 1]; ++at) {
      const T* source = d_out.row(order[at]);
      group.for_each(d_table.extent(1), [&](index_t i) { target[i] += static_cast<Master>(source[i]); });
    }
  }
};

}  // namespace detail

// out[t] = table[tokens[t]], zeros where tokens[t] is -1 (padding).
// Shapes: out (T, D), table (V, D), tokens (T). Requires: -1 <= tokens[t] < V (checked where batches are made).
template <class Context, class T>
void embedding_forward(Context& context, matrix_of<Context, T> out, const_matrix_of<Context, T> table,
                       const_vector_of<Context, std::int32_t> tokens) {
  launch_rows(context, out.extent(0), out.extent(1),
              detail::embedding_forward_row<T, typename Context::space>{out, table, tokens});
}

// d_table[v] += sum of d_out[t] over the t with tokens[t] == v, in the order of t. Padding (-1) is skipped.
// Shapes: d_table (V, D), d_out (T, D), tokens (T). Cost: one stable counting sort and one pass over d_out.
template <class Context, class Master, class T>
void embedding_backward(Context& context, matrix_of<Context, Master> d_table, view<T, 2, typename Context::space> d_out,
                        const_vector_of<Context, std::int32_t> tokens) {
  workspace_scope scope(context);
  auto offsets = context.template allocate<std::int32_t>(d_table.extent(0) + 1);
  auto order = context.template allocate<std::int32_t>(tokens.extent(0));
  counting_sort(context, tokens, d_table.extent(0), offsets, order);
  launch_rows(context, d_table.extent(0), d_table.extent(1),
              detail::embedding_backward_row<std::remove_const_t<T>, Master, typename Context::space>{d_table, d_out,
                                                                                                      offsets, order});
}

}  // namespace graft
