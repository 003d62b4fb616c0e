// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The routing of a layer's tokens. Forward: a Router over all rows and the statistics that Balancers need, in one pass
// over the logits. Backward: the gradient of both to the logits, in one pass.

#include <cstdint>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/layers/routing_statistics.hpp>
#include <graft/ops/operands.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/router/probabilities.hpp>
#include <graft/policies/router/router.hpp>

namespace graft {

namespace detail {

// A chunk of the tokens of one unit: routes them and sums what is measured.
template <class Router, class M, class Space>
struct route_chunk_row {
  Router router;
  routing_pass<M, Space> pass;
  view<M, 2, Space> partial;              // (units * chunks_per_unit, statistics width)
  view<std::int32_t, 2, Space> selected;  // (T, K)
  view<M, 2, Space> weights;              // (T, K)
  view<const M, 2, Space> logits;         // (T, N); absent for a router that reads none
  index_t experts, tokens_per_unit, chunks_per_unit;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t chunk) const {
    const statistics_columns at{experts + Router::spec.extra_logits};
    const index_t first = chunk % chunks_per_unit * statistics_chunk;
    const index_t start = chunk / chunks_per_unit * tokens_per_unit + first;
    const index_t length = tokens_per_unit - first < statistics_chunk ? tokens_per_unit - first : statistics_chunk;
    M* sums = partial.row(chunk);
    group.for_each(at.width(), [&](index_t i) { sums[i] = 0; });
    group.sync();
    for (index_t token = start; token < start + length; ++token) {
      if (pass.padding(token)) {
        group.for_each(Router::spec.experts_per_token, [&](index_t k) {
          selected(token, k) = -1;
          weights(token, k) = 0;
        });
        continue;
      }
      route(group, token, at, sums);
    }
  }

 private:
  template <class Group>
  GRAFT_HOST_DEVICE void route(Group& group, index_t token, const statistics_columns& at, M* sums) const {
    constexpr int slots = Router::spec.experts_per_token;
    std::int32_t chosen[slots];
    M weight[slots];
    const M* row = nullptr;
    if constexpr (Router::spec.logits) row = logits.row(token);
    if constexpr (RowRouter<Router>) {
      router.forward(group, pass.token(token), row, experts, chosen, weight);
      group.for_each(slots, [&](index_t k) {
        selected(token, k) = chosen[k];
        weights(token, k) = weight[k];
      });
    } else {
      for (int k = 0; k < slots; ++k) {
        chosen[k] = selected(token, k);
        weight[k] = weights(token, k);
      }
    }
    M empty = 0;
    for (int k = 0; k < slots; ++k) empty += chosen[k] < 0 ? M(1) : M(0);
    group.for_each(at.columns, [&](index_t i) {
      if (i >= experts) {
        sums[at.count(i)] += empty;
        return;
      }
      for (int k = 0; k < slots; ++k)
        if (chosen[k] == i) {
          sums[at.count(i)] += M(1);
          sums[at.weight(i)] += weight[k];
        }
    });
    M squared_lse = 0, entropy = 0;
    if constexpr (Router::spec.logits) {
      const auto probabilities = probabilities_of(router).prepare(group, row, experts);
      group.for_each(at.columns, [&](index_t i) { sums[at.score(i)] += probabilities(i); });
      const auto spread = [&](const auto& softmax) {
        const M lse = softmax.log_sum_exp();
        squared_lse = lse * lse;
        // -sum p log p,  log p = l - lse
        entropy = lse - group.sum(at.columns, [&](index_t i) {
          const M share = softmax.d_log_sum_exp(i);
          return share > M(0) ? share * row[i] : M(0);
        });
      };
      if constexpr (requires { probabilities.log_sum_exp(); })
        spread(probabilities);
      else
        spread(softmax_row<M>::over(group, row, at.columns));
    }
    group.single([&] {
      sums[at.squared_lse()] += squared_lse;
      sums[at.tokens()] += M(1);
      sums[at.entropy()] += entropy;
    });
  }
};

// d_weights += what the balancers' losses give to the weights.
template <class Balancer, class M, class Space>
struct balance_weights_row {
  Balancer balancer;
  routing_statistics<M, Space> statistics;
  routing_pass<M, Space> pass;
  view<M, 2, Space> d_weights;                  // (T, K)
  view<const std::int32_t, 2, Space> selected;  // (T, K)
  M scale;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    if (pass.padding(token)) return;
    const token_sets<M> sets = statistics.sets_of(token);
    group.for_each(d_weights.extent(1), [&](index_t k) {
      const std::int32_t expert = selected(token, k);
      if (expert < 0) return;
      M sum = 0;
      for_each_balancer(balancer, [&](const auto& single) {
        constexpr balancer_spec spec = std::remove_cvref_t<decltype(single)>::spec;
        if constexpr (spec.mean_weights) {
          const balance_set<M>& set = sets.template of<spec.scope>();
          sum += single.d_mean_weight(set.measured, expert) * set.share;
        }
      });
      d_weights(token, k) += scale * sum;
    });
  }
};

template <class Router, class Balancer, class M, class Space>
struct route_backward_row {
  Router router;
  Balancer balancer;
  routing_statistics<M, Space> statistics;
  routing_pass<M, Space> pass;
  view<M, 2, Space> d_logits;                   // (T, N)
  view<const M, 2, Space> logits;               // (T, N)
  view<const std::int32_t, 2, Space> selected;  // (T, K)
  view<const M, 2, Space> weights, d_weights;   // (T, K)
  index_t experts;
  M scale;  // what the balancers' loss is multiplied by

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    const index_t columns = logits.extent(1);
    M* gradient = d_logits.row(token);
    if (pass.padding(token)) {
      group.for_each(columns, [&](index_t i) { gradient[i] = 0; });
      return;
    }
    const M* row = logits.row(token);
    if constexpr (RowRouter<Router> && Router::spec.logit_gradients)
      router.backward(group, pass.token(token), row, experts, selected.row(token), weights.row(token),
                      d_weights.row(token), gradient);
    else if constexpr (RowRouter<Router>)
      group.for_each(columns, [&](index_t i) { gradient[i] = 0; });
    if constexpr (pushes_on_logits<Balancer>) {
      group.sync();
      push(group, token, row, gradient);
    }
  }

 private:
  // dL/dp_i of this token and dL/dlse, through the probabilities to the logits
  template <class Group>
  GRAFT_HOST_DEVICE void push(Group& group, index_t token, const M* row, M* gradient) const {
    const auto rule = probabilities_of(router);
    const auto probabilities = rule.prepare(group, row, experts);
    const token_sets<M> sets = statistics.sets_of(token);
    const auto d_probability = [&](index_t i) {
      M sum = 0;
      if constexpr (reads_all_scores<Balancer>) sum += statistics.d_scores(token, i);
      for_each_balancer(balancer, [&](const auto& single) {
        constexpr balancer_spec spec = std::remove_cvref_t<decltype(single)>::spec;
        if constexpr (spec.logit_gradients) {
          const balance_set<M>& set = sets.template of<spec.scope>();
          sum += single.d_mean_score(set.measured, i) * set.share;
        }
      });
      return scale * sum;
    };
    rule.backward(group, probabilities, experts, d_probability, gradient);
    group.sync();
    const auto spread = [&](const auto& softmax) {
      const M lse = softmax.log_sum_exp();
      M through_lse = 0;
      for_each_balancer(balancer, [&](const auto& single) {
        constexpr balancer_spec spec = std::remove_cvref_t<decltype(single)>::spec;
        if constexpr (spec.logit_gradients)
          through_lse += single.d_log_sum_exp(lse) * sets.template of<spec.scope>().share;
      });
      group.for_each(logits.extent(1),
                     [&](index_t i) { gradient[i] += scale * through_lse * softmax.d_log_sum_exp(i); });
    };
    if constexpr (requires { probabilities.log_sum_exp(); })
      spread(probabilities);
    else
      spread(softmax_row<M>::over(group, row, logits.extent(1)));
  }
};

// scores (T, N) = the probabilities of every token; -1 for padding.
template <class Router, class M, class Space>
struct score_row {
  Router router;
  routing_pass<M, Space> pass;
  view<M, 2, Space> scores;
  view<const M, 2, Space> logits;
  index_t experts;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    if (pass.padding(token)) {
      group.for_each(scores.extent(1), [&](index_t i) { scores.row(token)[i] = M(-1); });
      return;
    }
    const auto probabilities = probabilities_of(router).prepare(group, logits.row(token), experts);
    group.for_each(scores.extent(1), [&](index_t i) { scores.row(token)[i] = probabilities(i); });
  }
};

}  // namespace detail

// selected, weights (T, K) from logits (T, N), and the statistics that the balancer needs; adds the balancer's loss to
// pass.loss and the load to pass.load, where these are present. Padding is routed nowhere and is in no statistics.
// To compute a pass again for its backward pass, leave pass.load and pass.loss absent, so that nothing counts twice,
// and give route_backward the statistics of the first time. Requires: T is a multiple of pass.balance_groups and, for
// balancers that look at sequences, of pass.positions, with whole sequences in each group. Order of sums: chunks of
// tokens, in order.
template <class Context, Router R, Balancer B, class M>
routing_statistics<M, typename Context::space> route_forward(Context& context, const R& router, const B& balancer,
                                                             const routing_pass<M, typename Context::space>& pass,
                                                             view<std::int32_t, 2, typename Context::space> selected,
                                                             matrix_of<Context, M> weights,
                                                             const_matrix_of<Context, M> logits) {
  using space = typename Context::space;
  const index_t tokens = selected.extent(0), experts = pass.experts;
  if constexpr (TableRouter<R>) router.route(context, pass, selected, weights, logits);

  routing_statistics<M, space> statistics =
      allocate_statistics<detail::has_scope<B, balance_scope::sequence>, detail::has_scope<B, balance_scope::step>, M>(
          context, pass, tokens, experts + R::spec.extra_logits, R::spec.experts_per_token,
          detail::probabilities_of(router).template choices<M>(experts));
  if constexpr (detail::reads_all_scores<B>)
    statistics.d_scores = context.template allocate<M>(tokens, experts + R::spec.extra_logits);
  {
    workspace_scope scope(context);
    const index_t per_unit = statistics.tokens_per_unit();
    const index_t chunks = (per_unit + detail::statistics_chunk - 1) / detail::statistics_chunk;
    auto partial = context.template allocate<M>(tokens / per_unit * chunks,
                                                detail::statistics_columns{statistics.columns}.width());
    launch_rows(context, partial.extent(0), detail::statistics_chunk * experts,
                detail::route_chunk_row<R, M, space>{router, pass, partial, selected, weights, logits, experts,
                                                     per_unit, chunks});
    summarise_statistics(context, pass, statistics, partial);
    if constexpr (detail::reads_all_scores<B>) {
      fill_zero(context, statistics.d_scores);
      auto scores = context.template allocate<M>(tokens, statistics.columns);
      launch_rows(context, tokens, statistics.columns,
                  detail::score_row<R, M, space>{router, pass, scores, logits, experts});
      detail::for_each_balancer(balancer, [&](const auto& single) {
        if constexpr (std::remove_cvref_t<decltype(single)>::spec.all_scores)
          single.score_loss(context, experts, statistics.choices, scores, statistics.d_scores, pass.loss);
      });
    }
  }
  add_balance_loss(context, balancer, statistics, pass.loss);
  return statistics;
}

// d_logits (T, N): the gradient of the loss through weights plus auxiliary_scale times that of the balancer's loss.
// Adds the balancer's share to d_weights.
template <class Context, Router R, Balancer B, class M>
void route_backward(Context& context, const R& router, const B& balancer,
                    const routing_pass<M, typename Context::space>& pass, matrix_of<Context, M> d_logits,
                    const routing_statistics<M, typename Context::space>& statistics,
                    const_matrix_of<Context, M> logits, view<const std::int32_t, 2, typename Context::space> selected,
                    const_matrix_of<Context, M> weights, matrix_of<Context, M> d_weights, double auxiliary_scale) {
  using space = typename Context::space;
  const index_t tokens = logits.extent(0);
  const M scale = static_cast<M>(auxiliary_scale);
  if constexpr (detail::pushes_on_weights<B>)
    launch_rows(context, tokens, d_weights.extent(1),
                detail::balance_weights_row<B, M, space>{balancer, statistics, pass, d_weights, selected, scale});
  if constexpr (TableRouter<R>)
    router.route_backward(context, pass, d_logits, logits, selected, weights, const_matrix_of<Context, M>(d_weights));
  if constexpr (RowRouter<R> || detail::pushes_on_logits<B>)
    launch_rows(context, tokens, logits.extent(1),
                detail::route_backward_row<R, B, M, space>{router, balancer, statistics, pass, d_logits, logits,
                                                           selected, weights, d_weights, pass.experts, scale});
}

}  // namespace graft
