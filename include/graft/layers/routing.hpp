// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The routing of a layer's tokens: a Router over all rows, the statistics that a Balancer needs, and the gradient
// of both to the logits in one pass.

#include <cstdint>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/ops/operands.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/router/router.hpp>
#include <graft/policies/router/score.hpp>

namespace graft {

// What is known of the load of one layer, per balance group; in the memory of the context.
template <class M, class Space>
struct routing_statistics {
  view<M, 2, Space> counts;            // (groups, E)
  view<M, 2, Space> mean_scores;       // (groups, E)
  view<M, 1, Space> mean_squared_lse;  // (groups)
  index_t slots = 0;                   // K
  index_t tokens_per_group = 0;

  GRAFT_HOST_DEVICE balance_statistics<M> group(index_t i) const {
    return {counts.row(i), mean_scores.row(i), mean_squared_lse[i], counts.extent(1), slots, tokens_per_group};
  }
};

namespace detail {

inline constexpr index_t statistics_chunk = 64;

template <class Router, class M, class Space>
struct route_row {
  Router router;
  view<std::int32_t, 2, Space> selected;  // (T, K)
  view<M, 2, Space> weights;              // (T, K)
  view<const M, 2, Space> logits;         // (T, E)

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    constexpr int slots = Router::spec.experts_per_token;
    std::int32_t row_selected[slots];
    M row_weights[slots];
    router.forward(group, logits.row(token), logits.extent(1), row_selected, row_weights);
    group.for_each(slots, [&](index_t k) {
      selected(token, k) = row_selected[k];
      weights(token, k) = row_weights[k];
    });
  }
};

// Partial sums of a chunk of tokens of one balance group. Columns: E counts, E scores, 1 squared logsumexp.
template <class M, class Space>
struct statistics_chunk_row {
  view<M, 2, Space> partial;                    // (groups * chunks_per_group, 2E + 1)
  view<const M, 2, Space> logits;               // (T, E)
  view<const std::int32_t, 2, Space> selected;  // (T, K)
  index_t tokens_per_group, chunks_per_group;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t chunk) const {
    const index_t experts = logits.extent(1), slots = selected.extent(1);
    const index_t first = chunk % chunks_per_group * statistics_chunk;
    const index_t start = chunk / chunks_per_group * tokens_per_group;
    const index_t length = tokens_per_group - first < statistics_chunk ? tokens_per_group - first : statistics_chunk;
    M* counts = partial.row(chunk);
    M* scores = counts + experts;
    group.for_each(2 * experts + 1, [&](index_t i) { counts[i] = 0; });
    group.sync();
    M squared = 0;
    for (index_t token = start + first; token < start + first + length; ++token) {
      const auto score = softmax_score{}.prepare(group, logits.row(token), experts);
      const M lse = score.top - math::log(score.inverse_sum);
      squared += lse * lse;
      group.for_each(experts, [&](index_t i) {
        scores[i] += score(i);
        for (index_t k = 0; k < slots; ++k) counts[i] += selected(token, k) == i ? M(1) : M(0);
      });
    }
    group.single([&] { scores[experts] = squared; });
  }
};

template <class M, class Space>
struct statistics_group_row {
  routing_statistics<M, Space> statistics;
  view<const M, 2, Space> partial;
  index_t chunks_per_group;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t experts = statistics.counts.extent(1);
    group.for_each(2 * experts + 1, [&](index_t i) {
      M sum = 0;
      for (index_t chunk = 0; chunk < chunks_per_group; ++chunk) sum += partial(row * chunks_per_group + chunk, i);
      if (i < experts)
        statistics.counts(row, i) = sum;
      else if (i < 2 * experts)
        statistics.mean_scores(row, i - experts) = sum / static_cast<M>(statistics.tokens_per_group);
      else
        statistics.mean_squared_lse[row] = sum / static_cast<M>(statistics.tokens_per_group);
    });
  }
};

template <class Balancer, class M, class Space>
struct balance_loss_row {
  Balancer balancer;
  routing_statistics<M, Space> statistics;
  view<M, 1, Space> loss;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t) const {
    const index_t groups = statistics.counts.extent(0);
    const M sum = group.sum(groups, [&](index_t i) { return balancer.loss(statistics.group(i)); });
    group.single([&] { loss[0] += sum / static_cast<M>(groups); });
  }
};

template <class Router, class Balancer, class T, class M, class Space>
struct route_backward_row {
  Router router;
  Balancer balancer;
  routing_statistics<M, Space> statistics;
  view<T, 2, Space> d_logits;                   // (T, E)
  view<M, 2, Space> scratch;                    // (T, E)
  view<const M, 2, Space> logits;               // (T, E)
  view<const std::int32_t, 2, Space> selected;  // (T, K)
  view<const M, 2, Space> weights, d_weights;   // (T, K)
  M auxiliary_scale;                            // what the loss is multiplied by, over all tokens

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    const index_t experts = logits.extent(1);
    M* gradient = scratch.row(token);
    router.backward(group, logits.row(token), experts, selected.row(token), weights.row(token), d_weights.row(token),
                    gradient);
    group.sync();
    if constexpr (Balancer::spec.logit_gradients) {
      // dL/dl_j = s_j (a_j - sum_i a_i s_i) + s_j z,  a = dL/dP, z = dL/dlse
      const auto balance = statistics.group(token / statistics.tokens_per_group);
      const auto score = softmax_score{}.prepare(group, logits.row(token), experts);
      const M mean = group.sum(experts, [&](index_t i) { return balancer.d_mean_score(balance, i) * score(i); });
      const M through_lse = balancer.d_log_sum_exp(score.top - math::log(score.inverse_sum));
      group.for_each(experts, [&](index_t i) {
        gradient[i] += auxiliary_scale * score(i) * (balancer.d_mean_score(balance, i) - mean + through_lse);
      });
      group.sync();
    }
    group.for_each(experts, [&](index_t i) { d_logits.row(token)[i] = T(gradient[i]); });
  }
};

}  // namespace detail

// selected, weights (T, K) from logits (T, E).
template <class Context, Router R, class M>
void route_forward(Context& context, const R& router, view<std::int32_t, 2, typename Context::space> selected,
                   matrix_of<Context, M> weights, const_matrix_of<Context, M> logits) {
  launch_rows(context, logits.extent(0), logits.extent(1),
              detail::route_row<R, M, typename Context::space>{router, selected, weights, logits});
}

// Counts, mean softmax scores and mean squared logsumexp of each of `groups` runs of consecutive tokens.
// Requires: groups divides T. Order: chunks of 64 tokens, chunks in order.
template <class Context, class M>
routing_statistics<M, typename Context::space> measure_routing(
    Context& context, matrix_of<Context, M> logits, view<const std::int32_t, 2, typename Context::space> selected,
    index_t groups) {
  using space = typename Context::space;
  const index_t tokens = logits.extent(0), experts = logits.extent(1);
  GRAFT_CHECK(groups >= 1 && tokens % groups == 0,
              "measure_routing: expected a number of balance groups that divides the tokens, got ", groups, " groups, ",
              tokens, " tokens");
  routing_statistics<M, space> statistics;
  statistics.counts = context.template allocate<M>(groups, experts);
  statistics.mean_scores = context.template allocate<M>(groups, experts);
  statistics.mean_squared_lse = context.template allocate<M>(groups);
  statistics.slots = selected.extent(1);
  statistics.tokens_per_group = tokens / groups;

  workspace_scope scope(context);
  const index_t chunks = (statistics.tokens_per_group + detail::statistics_chunk - 1) / detail::statistics_chunk;
  auto partial = context.template allocate<M>(groups * chunks, 2 * experts + 1);
  launch_rows(context, groups * chunks, detail::statistics_chunk * experts,
              detail::statistics_chunk_row<M, space>{partial, logits, selected, statistics.tokens_per_group, chunks});
  launch_rows(context, groups, 2 * experts + 1, detail::statistics_group_row<M, space>{statistics, partial, chunks});
  return statistics;
}

// loss[0] += the balancer's loss, the mean over balance groups.
template <class Context, Balancer B, class M>
void add_balance_loss(Context& context, const B& balancer,
                      const routing_statistics<M, typename Context::space>& statistics, vector_of<Context, M> loss) {
  launch_rows(context, 1, statistics.counts.extent(0),
              detail::balance_loss_row<B, M, typename Context::space>{balancer, statistics, loss});
}

// d_logits (T, E): the gradient of the loss through weights plus auxiliary_scale times that of the balancer's loss.
template <class Context, Router R, Balancer B, class T, class M>
void route_backward(Context& context, const R& router, const B& balancer, matrix_of<Context, T> d_logits,
                    const routing_statistics<M, typename Context::space>& statistics,
                    const_matrix_of<Context, M> logits, view<const std::int32_t, 2, typename Context::space> selected,
                    const_matrix_of<Context, M> weights, const_matrix_of<Context, M> d_weights,
                    double auxiliary_scale) {
  using space = typename Context::space;
  workspace_scope scope(context);
  auto scratch = context.template allocate<M>(logits.extent(0), logits.extent(1));
  launch_rows(context, logits.extent(0), logits.extent(1),
              detail::route_backward_row<R, B, T, M, space>{
                  router, balancer, statistics, d_logits, scratch, logits, selected, weights, d_weights,
                  static_cast<M>(auxiliary_scale / static_cast<double>(logits.extent(0)))});
}

}  // namespace graft
