// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Conversion between element types: the narrow copy of the weights, tensors of files.

#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/ops/operands.hpp>

namespace graft {
namespace detail {

inline constexpr index_t cast_block = 4096;

template <class To, class From, class Space>
struct cast_row {
  view<To, 1, Space> out;
  view<const From, 1, Space> x;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t begin = row * cast_block;
    const index_t length = x.extent(0) - begin < cast_block ? x.extent(0) - begin : cast_block;
    const From* source = x.data + begin;
    To* target = out.data + begin;
    group.for_each(length, [&](index_t i) { target[i] = To(static_cast<accumulator_t<From>>(source[i])); });
  }
};

}  // namespace detail

// out[i] = x[i], rounded to nearest even. Requires: both contiguous, of the same length.
template <class Context, class To, class From>
void cast(Context& context, vector_of<Context, To> out, view<From, 1, typename Context::space> x) {
  using source = std::remove_const_t<From>;
  const index_t blocks = (x.extent(0) + detail::cast_block - 1) / detail::cast_block;
  launch_rows(context, blocks, detail::cast_block, detail::cast_row<To, source, typename Context::space>{out, x});
}

}  // namespace graft
