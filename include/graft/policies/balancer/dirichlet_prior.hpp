// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Dirichlet-prior shaping: the distribution of the router's probabilities over the tokens of a pass is pushed towards a
// Dirichlet distribution, expert by expert.

#include <cstdint>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/core/incomplete_beta.hpp>
#include <graft/ops/reduction.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/options.hpp>

namespace graft {

namespace detail {

// 1 for a token, 0 for padding.
template <class M, class Space>
struct has_scores {
  view<const M, 2, Space> scores;
  GRAFT_HOST_DEVICE M operator()(index_t token) const { return scores(token, 0) < M(0) ? M(0) : M(1); }
};

template <class M, class Space>
struct dirichlet_element {
  static constexpr double margin = 1e-6;
  beta_distribution prior;
  view<const M, 2, Space> scores;            // (T, N)
  view<const std::int32_t, 2, Space> order;  // (E, T) tokens, largest score first
  view<const M, 1, Space> count;             // (1) n: tokens that are no padding
  view<M, 2, Space> d_scores;                // (T, N) added to
  view<M, 2, Space> terms;                   // (E, T)
  double coefficient;

  GRAFT_HOST_DEVICE void operator()(index_t index) const {
    const index_t tokens = order.extent(1), expert = index / tokens, place = index % tokens;
    const double n = static_cast<double>(count[0]);
    if (static_cast<double>(place) >= n) {  // padding stands last
      terms(expert, place) = M(0);
      return;
    }
    const index_t token = order(expert, place);
    const double p = static_cast<double>(scores(token, expert));
    const bool low = p<margin, high = p> 1 - margin;
    const double inside = low ? margin : high ? 1 - margin : p;
    const double difference = (n - static_cast<double>(place)) / (n + 1) - prior.probability_below(inside);
    const double share = coefficient / (static_cast<double>(order.extent(0)) * n);
    terms(expert, place) = static_cast<M>(share * difference * difference);
    if (!low && !high) d_scores(token, expert) += static_cast<M>(-2 * share * difference * prior.density(p));
  }
};

}  // namespace detail

// loss = coefficient (1/E) sum_k (1/n) sum_i (i / (n+1) - F(p_(i),k))^2,   p_(1),k <= ... <= p_(n),k the probabilities
// of expert k over the n tokens of a pass in order,   F the distribution function of Beta(alpha, (E-1) alpha), which is
// the marginal of the symmetric Dirichlet distribution.   dL/dp_(i),k = -2/(E n) (i/(n+1) - F) F'(p_(i),k), carried
// back to the token that holds place i. p is clamped to [1e-6, 1 - 1e-6] and has no gradient beyond. alpha = 1: uniform
// on the simplex; below: confident and balanced; above: near 1/E for every token. Where a router has probabilities of
// something besides its E experts (null copies), they count in the prior and are not shaped.
//
// What is unverified: the paper's text was not at hand where this was written. Its normalisation (mean or sum over
// experts and tokens), its weight, whether layers are pooled, and over which tokens it sorts are read from reviews and
// from earlier public code of the same authors for the batch shaping of gates; coefficient is a guess. Here: means, per
// layer, over all tokens of a pass that are no padding, whatever the balance groups. Priors of single experts and tasks
// are not offered. Published use: during warm-up, say the first fifth of the steps.
// Cost: a sort of T scores for each expert and E T values of F, in double precision.
// Source: "Dirichlet-Prior Shaping", 2025, arXiv 2510.01185; batch shaping: Bejnordi, Blankevoort, Welling,
// "Batch-shaping for learning conditional channel gated networks", 2019, arXiv 1907.06627.
struct dirichlet_prior {
  static constexpr balancer_spec spec{.logit_gradients = true, .all_scores = true};
  static constexpr const char* name = "dirichlet_prior";

  static constexpr auto options() {
    return std::tuple(option("coefficient", &dirichlet_prior::coefficient), option("alpha", &dirichlet_prior::alpha));
  }

  double coefficient = 0.01;
  double alpha = 1.0;

  template <class Context, class M>
  void score_loss(Context& context, index_t experts, M choices, const view<M, 2, typename Context::space>& scores,
                  const view<M, 2, typename Context::space>& d_scores,
                  const view<M, 1, typename Context::space>& loss) const {
    using space = typename Context::space;
    GRAFT_CHECK(alpha > 0, "dirichlet_prior: expected alpha > 0, got alpha=", alpha);
    if (choices <= M(1)) return;  // one choice has probability 1
    workspace_scope scope(context);
    const index_t tokens = scores.extent(0);
    auto count = context.template allocate<M>(index_t{1});
    auto order = context.template allocate<std::int32_t>(experts, tokens);
    auto terms = context.template allocate<M>(experts, tokens);
    sum_of<Context, M>(context, count, tokens, detail::has_scores<M, space>{scores});
    view<const M, 2, space> columns(scores.data, experts, tokens);  // the transpose
    columns.strides[0] = scores.strides[1];
    columns.strides[1] = scores.strides[0];
    argsort_rows(context, order, columns);
    const beta_distribution prior(alpha, (static_cast<double>(choices) - 1) * alpha);
    launch_elements(context, experts * tokens,
                    detail::dirichlet_element<M, space>{prior, scores, order, count, d_scores, terms, coefficient});
    if (loss.data != nullptr) sum<Context, M>(context, loss, reshape(terms, terms.size()), accumulate::yes);
  }

  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>&) const {
    return M(0);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>&, index_t) const {
    return M(0);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};

}  // namespace graft
