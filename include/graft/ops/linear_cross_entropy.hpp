// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The language-model head and its loss in one: logits exist for a chunk of tokens at a time, never as a (T, V) matrix
// in fp32, and the gradient is made while the chunk is at hand.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/math.hpp>
#include <graft/core/step_value.hpp>
#include <graft/ops/operands.hpp>

namespace graft {
namespace detail {

// Elements of logits held at once: on the CPU few enough for its caches, on CUDA enough that reading and writing the
// head's gradient for each chunk takes less time than the chunk's products.
inline constexpr index_t logit_budget = index_t{1} << 20, device_logit_budget = index_t{1} << 26;
// But at least so many rows: each chunk reads the whole head and adds to its whole gradient.
inline constexpr index_t fewest_logit_rows = 256;

// The largest logit and the sum of e^(logit - largest), of some of a row's logits.
template <class M>
struct largest_and_sum {
  M largest, sum;
};

template <class M, class Group>
GRAFT_HOST_DEVICE largest_and_sum<M> reduce_logits(Group& group, index_t count, const M* logit) {
#if defined(__CUDA_ARCH__)
  // A row is longer than what the caches hold of it: both in one pass (Milakov, Gimelshein 2018, arXiv 1805.02867).
  using pair = largest_and_sum<M>;
  return group.reduce(
      count,
      [=](index_t i) {
        return pair{logit[i], M(1)};
      },
      [](const pair& a, const pair& b) {
        const M gap = a.largest - b.largest, shrink = math::exp(gap > 0 ? -gap : gap);
        return gap > 0 ? pair{a.largest, a.sum + b.sum * shrink} : pair{b.largest, a.sum * shrink + b.sum};
      },
      pair{std::numeric_limits<M>::lowest(), M(0)});
#else
  const M largest = group.max(count, [&](index_t i) { return logit[i]; });
  return {largest, group.sum(count, [&](index_t i) { return math::exp(logit[i] - largest); })};
#endif
}

template <class T, class Space>
struct cross_entropy_row {
  using Master = accumulator_t<T>;
  view<Master, 1, Space> losses;               // (C)
  view<T, 2, Space> d_logits;                  // (C, V); absent: loss only
  view<const Master, 2, Space> logits;         // (C, V)
  view<const std::int32_t, 1, Space> targets;  // (C); -1: this token has no target
  step_value<double> token_scale;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t vocabulary = logits.extent(1);
    const Master* logit = logits.row(row);
    const std::int32_t target = targets[row];
    if (target < 0) {
      if (d_logits.data != nullptr) group.for_each(vocabulary, [&](index_t i) { d_logits.row(row)[i] = T(Master(0)); });
      group.single([&] { losses[row] = 0; });
      return;
    }
    const auto all = reduce_logits<Master>(group, vocabulary, logit);
    const Master top = all.largest, sum = all.sum;
    if (d_logits.data != nullptr) {
      const auto scale = static_cast<Master>(double{token_scale});
      const Master factor = scale / sum;
      T* gradient = d_logits.row(row);
      group.for_each(vocabulary, [&](index_t i) { gradient[i] = T(math::exp(logit[i] - top) * factor); });
      group.sync();
      group.single([&] { gradient[target] = T(math::exp(logit[target] - top) * factor - scale); });
    }
    group.single([&] { losses[row] = math::log(sum) + top - logit[target]; });
  }
};

template <class Context, class T>
index_t logit_chunk(const const_matrix_of<Context, T>& x, index_t vocabulary) {
  constexpr index_t budget = std::same_as<typename Context::backend, cuda> ? device_logit_budget : logit_budget;
  return std::clamp<index_t>(budget / vocabulary, fewest_logit_rows, std::max(x.extent(0), fewest_logit_rows));
}

}  // namespace detail

// losses[t] = logsumexp_v(x_t . head_v) - x_t . head_target, in nats; 0 where target is -1.
// Shapes: losses (T), x (T, D), head (V, D), targets (T).
template <class Context, class X>
void linear_cross_entropy(Context& context, vector_of<Context, accumulator_t<X>> losses, matrix_of<Context, X> x,
                          const_matrix_of<Context, std::remove_const_t<X>> head,
                          const_vector_of<Context, std::int32_t> targets) {
  using T = std::remove_const_t<X>;
  using Master = accumulator_t<T>;
  const index_t chunk = detail::logit_chunk<Context, T>(x, head.extent(0));
  for (index_t begin = 0; begin < x.extent(0); begin += chunk) {
    const index_t end = std::min(begin + chunk, x.extent(0));
    workspace_scope scope(context);
    auto logits = context.template allocate<Master>(end - begin, head.extent(0));
    gemm_nt(context, logits, x.rows(begin, end), head, accumulate::no);
    launch_rows(context, end - begin, head.extent(0),
                detail::cross_entropy_row<T, typename Context::space>{
                    losses.rows(begin, end), {}, logits, targets.rows(begin, end), 0});
  }
}

// The same, and the gradients of scale * sum of losses:
//   d_logits = scale (softmax(logits) - onehot(target)),   d_x = d_logits head,   d_head += d_logits^T x.
// Shapes: d_x (T, D), d_head (V, D), which may be absent when the head is frozen.
template <class Context, class T>
void linear_cross_entropy_backward(Context& context, vector_of<Context, accumulator_t<T>> losses,
                                   matrix_of<Context, T> d_x, matrix_of<Context, accumulator_t<T>> d_head,
                                   const_matrix_of<Context, T> x, const_matrix_of<Context, T> head,
                                   const_vector_of<Context, std::int32_t> targets, step_value<double> scale) {
  using Master = accumulator_t<T>;
  const index_t chunk = detail::logit_chunk<Context, T>(x, head.extent(0));
  for (index_t begin = 0; begin < x.extent(0); begin += chunk) {
    const index_t end = std::min(begin + chunk, x.extent(0));
    workspace_scope scope(context);
    auto logits = context.template allocate<Master>(end - begin, head.extent(0));
    auto d_logits = context.template allocate<T>(end - begin, head.extent(0));
    gemm_nt(context, logits, x.rows(begin, end), head, accumulate::no);
    launch_rows(context, end - begin, head.extent(0),
                detail::cross_entropy_row<T, typename Context::space>{losses.rows(begin, end), d_logits, logits,
                                                                      targets.rows(begin, end), scale});
    gemm_nn(context, d_x.rows(begin, end), d_logits, head, accumulate::no);
    if (d_head.data != nullptr) gemm_tn(context, d_head, d_logits, x.rows(begin, end), accumulate::yes);
  }
}

}  // namespace graft
