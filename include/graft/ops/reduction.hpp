// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Sums of many values into one number on the device, in an order that depends on nothing but the count.

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/dtype.hpp>
#include <graft/ops/operands.hpp>

namespace graft {
namespace detail {

inline constexpr index_t reduction_block = 4096;

// partial[row] = sum of f over one block of indices
template <class F, class Sum, class Space>
struct partial_sum_row {
  F f;
  view<Sum, 1, Space> partial;
  index_t count;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t begin = row * reduction_block;
    const index_t length = count - begin < reduction_block ? count - begin : reduction_block;
    const Sum sum = group.sum(length, [&](index_t i) { return static_cast<Sum>(f(begin + i)); });
    group.single([&] { partial[row] = sum; });
  }
};

template <class Sum, class Space>
struct final_sum_row {
  view<const Sum, 1, Space> partial;
  view<Sum, 1, Space> out;
  bool add;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t) const {
    const Sum sum = group.sum(partial.extent(0), [&](index_t i) { return partial[i]; });
    group.single([&] { out[0] = add ? out[0] + sum : sum; });
  }
};

template <class T, class Sum, class Space>
struct square_of {
  view<const T, 1, Space> x;
  GRAFT_HOST_DEVICE Sum operator()(index_t i) const { return static_cast<Sum>(x[i]) * static_cast<Sum>(x[i]); }
};

template <class T, class Sum, class Space>
struct element_of {
  view<const T, 1, Space> x;
  GRAFT_HOST_DEVICE Sum operator()(index_t i) const { return static_cast<Sum>(x[i]); }
};

}  // namespace detail

// out[0] = (or +=) sum over i < count of f(i). f: a trivially copyable function object.
template <class Context, class Sum, class F>
void sum_of(Context& context, vector_of<Context, Sum> out, index_t count, F f, accumulate add = accumulate::no) {
  using space = typename Context::space;
  workspace_scope scope(context);
  const index_t blocks = (count + detail::reduction_block - 1) / detail::reduction_block;
  auto partial = context.template allocate<Sum>(blocks);
  launch_rows(context, blocks, detail::reduction_block, detail::partial_sum_row<F, Sum, space>{f, partial, count});
  launch_rows(context, 1, blocks, detail::final_sum_row<Sum, space>{partial, out, add == accumulate::yes});
}

// out[0] = (or +=) sum of the elements of x.
template <class Context, class Sum, class T>
void sum(Context& context, vector_of<Context, Sum> out, view<T, 1, typename Context::space> x,
         accumulate add = accumulate::no) {
  using element = std::remove_const_t<T>;
  sum_of<Context, Sum>(context, out, x.extent(0), detail::element_of<element, Sum, typename Context::space>{x}, add);
}

// out[0] = sum of squares of the elements of x: the square of a gradient's norm.
template <class Context, class Sum, class T>
void sum_of_squares(Context& context, vector_of<Context, Sum> out, view<T, 1, typename Context::space> x) {
  using element = std::remove_const_t<T>;
  sum_of<Context, Sum>(context, out, x.extent(0), detail::square_of<element, Sum, typename Context::space>{x});
}

}  // namespace graft
