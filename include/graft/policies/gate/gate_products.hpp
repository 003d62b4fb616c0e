// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The product x W^T of a gate, backward, and its rows where they are stored one for each expert.

#include <type_traits>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/ops/cast.hpp>
#include <graft/ops/operands.hpp>

namespace graft::detail {

// The matrices of all experts, rows after rows, as one: (experts rows, columns).
template <class T, class Space>
view<T, 2, Space> all_rows(const parameter_view<T, Space>& leaf) {
  return view<T, 2, Space>(leaf.data, leaf.experts * leaf.rows, leaf.columns);
}

// A gradient of type M as products take it: operands are of one type.
template <class Compute>
view<const typename Compute::storage, 2, typename Compute::space> operand_of(
    typename Compute::context_type& context, view<const typename Compute::master, 2, typename Compute::space> values) {
  using T = typename Compute::storage;
  if constexpr (std::is_same_v<T, typename Compute::master>) {
    return values;
  } else {
    auto copy = context.template allocate<T>(values.extent(0), values.extent(1));
    cast<typename Compute::context_type, T>(context, reshape(copy, copy.size()), reshape(values, values.size()));
    return copy;
  }
}

// dW += dy^T x where it is present, dx += dy W.
// Shapes: d_y (T, N), x, d_x (T, D), weight, gradient (N, D).
template <class Compute>
void gate_product_backward(typename Compute::context_type& context,
                           view<const typename Compute::storage, 2, typename Compute::space> weight,
                           view<typename Compute::master, 2, typename Compute::space> gradient,
                           view<const typename Compute::master, 2, typename Compute::space> d_y,
                           view<const typename Compute::storage, 2, typename Compute::space> x,
                           view<typename Compute::storage, 2, typename Compute::space> d_x) {
  workspace_scope scope(context);
  const auto narrow = operand_of<Compute>(context, d_y);
  if (gradient.data != nullptr) gemm_tn(context, gradient, narrow, x, accumulate::yes);
  gemm_nn(context, d_x, narrow, weight, accumulate::yes);
}

}  // namespace graft::detail
