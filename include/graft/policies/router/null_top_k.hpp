// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// null_top_k<K>: a token may use fewer than K experts, as many as its logits ask for.

#include <graft/core/host_device.hpp>
#include <graft/core/math.hpp>
#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// p = softmax over N experts and M copies of the null expert: Z = sum_i exp(l_i) + M exp(l_null), p_i = exp(l_i) / Z.
// Column N holds one copy's probability, so that sum_{i<N} p_i + M p_N = 1 and a balancer that sums choices f_i P_i
// over columns, f_N the share of all empty slots, sums over the N + M slots.
struct null_probabilities {
  double rho = 0.5;

  template <class M>
  struct row {
    const M* logits;
    index_t experts;
    M copies, top, inverse_sum;

    GRAFT_HOST_DEVICE M times(index_t i) const { return i < experts ? M(1) : copies; }
    GRAFT_HOST_DEVICE M operator()(index_t i) const {
      return times(i) > M(0) ? math::exp(logits[i] - top) * inverse_sum : M(0);
    }
    GRAFT_HOST_DEVICE M log_sum_exp() const { return top - math::log(inverse_sum); }
    GRAFT_HOST_DEVICE M d_log_sum_exp(index_t i) const { return times(i) * (*this)(i); }
  };

  // N + M
  template <class M>
  GRAFT_HOST_DEVICE constexpr M choices(index_t experts) const {
    return static_cast<M>(experts + null_copies(rho, experts));
  }
  template <class Group, class M>
  GRAFT_HOST_DEVICE row<M> prepare(Group& group, const M* logits, index_t experts) const {
    row<M> p{logits, experts, static_cast<M>(null_copies(rho, experts)), M(0), M(1)};
    const index_t columns = p.copies > M(0) ? experts + 1 : experts;
    p.top = group.max(columns, [&](index_t i) { return logits[i]; });
    p.inverse_sum = M(1) / group.sum(columns, [&](index_t i) { return p.times(i) * math::exp(logits[i] - p.top); });
    return p;
  }
  // dl_i = p_i (a_i - m_i sum_j a_j p_j),  m = 1 for an expert and M for the null logit, j over the N + 1 columns
  template <class Group, class M, class A>
  GRAFT_HOST_DEVICE void backward(Group& group, const row<M>& p, index_t experts, const A& a, M* d_logits) const {
    const M mean = group.sum(experts + 1, [&](index_t i) { return a(i) * p(i); });
    group.for_each(experts + 1, [&](index_t i) { d_logits[i] += p(i) * (a(i) - p.times(i) * mean); });
  }
};

// The K largest of N logits and M copies of a null logit (row N of the gate); g = softmax over the experts among them.
// Weights sum to one, or to zero for a token that got null experts only: its output is that of the shared experts.
// M = N (1 - rho) / rho, rounded, and N + M slots in even use make K rho experts a token. Option: select.rho.
// The null logit has no gradient from the weights, only from the balancer: balance with global_batch_loss (0.02) and
// z_loss (0.001), which see all N + M slots.
// Source: Kilian et al., "Improving MoE compute efficiency by composing weight and data sparsity", 2026, arXiv
// 2601.15370.
template <int K>
struct null_top_k : row_router<logit_score, select_above_null<K>, softmax_over_selected> {
  using base = row_router<logit_score, select_above_null<K>, softmax_over_selected>;
  static_assert(K >= 1, "graft::null_top_k: K is below 1. A token needs at least one slot.");
  static constexpr const char* name = "null_top_k";
  static constexpr router_spec spec{
      .experts_per_token = K, .weights_sum_to_one = true, .empty_slots = true, .extra_logits = 1};

  template <class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const routing_token<M>& token, const M* logits, index_t experts,
                                  const std::int32_t* selected, const M* weights, const M* d_weights,
                                  M* d_logits) const {
    base::backward(group, token, logits, experts, selected, weights, d_weights, d_logits);
    group.single([&] { d_logits[experts] = 0; });
  }

  constexpr null_probabilities probabilities() const { return {this->select.rho}; }

  // K N / (N + M), which is K rho but for the rounding of M
  constexpr double slots_used(index_t, index_t experts) const {
    return K * static_cast<double>(experts) / static_cast<double>(experts + null_copies(this->select.rho, experts));
  }
};

}  // namespace graft
