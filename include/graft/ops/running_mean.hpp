// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The mean of the rows of a sequence up to each of them. Padding is in no mean.
//
// Positions are summed in chunks: a pass over all chunks at once gives the sum of each, a second one adds the sums of
// the chunks before and runs through its own. So rows are read twice and nothing waits for a whole sequence.

#include <cstdint>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/error.hpp>
#include <graft/ops/operands.hpp>

namespace graft {

// Which rows of its sequence the mean of a row is over.
enum class mean_over {
  earlier,  // itself and those before it
  all       // all of them: later ones too
};

namespace detail {

enum class sum_direction { forward, backward, both };

inline constexpr index_t running_sum_chunk = 32;

// Terms has term(t, i) -> M and store(t, i, total). Rows are chunks of the positions of a sequence.
template <class Terms, class M, class Space>
struct chunk_sum_row {
  Terms terms;
  view<M, 2, Space> sums;  // (sequences * chunks, W)
  index_t positions, chunks;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t first = row % chunks * running_sum_chunk, start = row / chunks * positions + first;
    const index_t length = positions - first < running_sum_chunk ? positions - first : running_sum_chunk;
    group.for_each(sums.extent(1), [&](index_t i) {
      M sum = 0;
      for (index_t t = start; t < start + length; ++t) sum += terms.term(t, i);
      sums(row, i) = sum;
    });
  }
};

template <class Terms, class M, class Space>
struct running_sum_row {
  Terms terms;
  view<const M, 2, Space> sums;
  index_t positions, chunks;
  sum_direction direction;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t chunk = row % chunks, sequence_row = row - chunk;
    const index_t first = chunk * running_sum_chunk, start = row / chunks * positions + first;
    const index_t length = positions - first < running_sum_chunk ? positions - first : running_sum_chunk;
    group.for_each(sums.extent(1), [&](index_t i) {
      M total = 0;
      if (direction == sum_direction::forward) {
        for (index_t c = 0; c < chunk; ++c) total += sums(sequence_row + c, i);
        for (index_t t = start; t < start + length; ++t) terms.store(t, i, total += terms.term(t, i));
      } else if (direction == sum_direction::backward) {
        for (index_t c = chunks - 1; c > chunk; --c) total += sums(sequence_row + c, i);
        for (index_t t = start + length - 1; t >= start; --t) terms.store(t, i, total += terms.term(t, i));
      } else {
        for (index_t c = 0; c < chunks; ++c) total += sums(sequence_row + c, i);
        for (index_t t = start; t < start + length; ++t) terms.store(t, i, total);
      }
    });
  }
};

// store(t, i, sum of term(s, i) over the s of t's sequence up to t, from t on, or all). store may write what term(t, i)
// reads. Requires: tokens is a multiple of positions.
template <class M, class Context, class Terms>
void running_sum(Context& context, index_t tokens, index_t width, index_t positions, sum_direction direction,
                 const Terms& terms) {
  using space = typename Context::space;
  GRAFT_CHECK(positions >= 1 && tokens % positions == 0, "running_mean: expected whole sequences, got ", tokens,
              " rows of sequences of ", positions);
  workspace_scope scope(context);
  const index_t chunks = (positions + running_sum_chunk - 1) / running_sum_chunk;
  auto sums = context.template allocate<M>(tokens / positions * chunks, width);
  launch_rows(context, sums.extent(0), width * running_sum_chunk,
              chunk_sum_row<Terms, M, space>{terms, sums, positions, chunks});
  launch_rows(context, sums.extent(0), width * running_sum_chunk,
              running_sum_row<Terms, M, space>{terms, sums, positions, chunks, direction});
}

template <class M, class Space>
struct token_count_terms {
  view<M, 1, Space> inverse;
  view<const std::int32_t, 1, Space> ids;  // or absent

  GRAFT_HOST_DEVICE bool counts(index_t t) const { return ids.data == nullptr || ids[t] >= 0; }
  GRAFT_HOST_DEVICE M term(index_t t, index_t) const { return counts(t) ? M(1) : M(0); }
  GRAFT_HOST_DEVICE void store(index_t t, index_t, M total) const { inverse[t] = counts(t) ? M(1) / total : M(0); }
};

template <class M, class Space>
struct mean_terms {
  view<M, 2, Space> mean;
  view<const M, 2, Space> x;
  view<const M, 1, Space> inverse;

  GRAFT_HOST_DEVICE M term(index_t t, index_t i) const { return inverse[t] > M(0) ? x(t, i) : M(0); }
  GRAFT_HOST_DEVICE void store(index_t t, index_t i, M total) const { mean(t, i) = total * inverse[t]; }
};

template <class M, class Space>
struct mean_backward_terms {
  view<M, 2, Space> d_x;
  view<const M, 2, Space> d_mean;
  view<const M, 1, Space> inverse;

  GRAFT_HOST_DEVICE M term(index_t t, index_t i) const { return inverse[t] > M(0) ? d_mean(t, i) * inverse[t] : M(0); }
  GRAFT_HOST_DEVICE void store(index_t t, index_t i, M total) const {
    if (inverse[t] > M(0)) d_x(t, i) += total;
  }
};

}  // namespace detail

// inverse[t] = 1 / n_t, n_t the tokens that the mean of token t is over; 0 for padding.
// Shapes: inverse, ids (T). ids: -1 is padding; absent: no token is.
template <class Context, class M>
void inverse_token_counts(Context& context, vector_of<Context, M> inverse,
                          view<const std::int32_t, 1, typename Context::space> ids, index_t positions, mean_over over) {
  detail::running_sum<M>(context, inverse.extent(0), 1, positions,
                         over == mean_over::earlier ? detail::sum_direction::forward : detail::sum_direction::both,
                         detail::token_count_terms<M, typename Context::space>{inverse, ids});
}

// mean_t = (1 / n_t) sum over s <= t in t's sequence of x_s, or over all s; zeros for padding.
// Shapes: mean, x (T, W); inverse (T) from inverse_token_counts with the same `over`. Order: chunks of 32, in order.
template <class Context, class M>
void running_mean_forward(Context& context, matrix_of<Context, M> mean, const_matrix_of<Context, M> x,
                          const_vector_of<Context, M> inverse, index_t positions, mean_over over) {
  detail::running_sum<M>(context, x.extent(0), x.extent(1), positions,
                         over == mean_over::earlier ? detail::sum_direction::forward : detail::sum_direction::both,
                         detail::mean_terms<M, typename Context::space>{mean, x, inverse});
}

// d_x_s += sum over the t whose mean holds x_s of d_mean_t / n_t. Padding is left alone.
template <class Context, class M>
void running_mean_backward(Context& context, matrix_of<Context, M> d_x, const_matrix_of<Context, M> d_mean,
                           const_vector_of<Context, M> inverse, index_t positions, mean_over over) {
  detail::running_sum<M>(context, d_x.extent(0), d_x.extent(1), positions,
                         over == mean_over::earlier ? detail::sum_direction::backward : detail::sum_direction::both,
                         detail::mean_backward_terms<M, typename Context::space>{d_x, d_mean, inverse});
}

}  // namespace graft
