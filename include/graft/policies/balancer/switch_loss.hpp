// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The load-balancing loss of the Switch Transformer, generalised to K slots a token.

#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/options.hpp>

namespace graft {

namespace detail {

// L = c N sum_i f_i P_i,   f_i = counts_i / sum_j counts_j,   P_i = mean_scores_i;   dL/dP_i = c N f_i.
// The losses made of it differ in their scope. Where every token fills its K slots, f_i = counts_i / (K tokens).
template <class M>
GRAFT_HOST_DEVICE M d_load_loss(M coefficient, const balance_statistics<M>& set, index_t i) {
  return set.filled > M(0) ? coefficient * set.choices * set.counts[i] / set.filled : M(0);
}
template <class M>
GRAFT_HOST_DEVICE M load_loss(M coefficient, const balance_statistics<M>& set) {
  M sum = 0;
  for (index_t i = 0; i < set.columns; ++i) sum += d_load_loss(coefficient, set, i) * set.mean_scores[i];
  return sum;
}

}  // namespace detail

// loss = coefficient E sum_i f_i P_i,   f_i = share of the filled slots,   P_i = mean softmax_i;   1 x coefficient at
// balance, for every K. f is held fixed in the gradient: counting is not differentiable. Other programs take f as a
// share of the tokens or pool the tokens of all layers: their numbers are K times larger, or blind to layers that
// cancel. Source: Fedus, Zoph, Shazeer, "Switch Transformers", 2021, arXiv 2101.03961, equation 4, where K = 1.
struct switch_loss {
  static constexpr balancer_spec spec{.logit_gradients = true};
  static constexpr const char* name = "switch_loss";

  static constexpr auto options() { return std::tuple(option("coefficient", &switch_loss::coefficient)); }

  double coefficient = 0.01;

  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>& group) const {
    return detail::load_loss(static_cast<M>(coefficient), group);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>& group, index_t i) const {
    return detail::d_load_loss(static_cast<M>(coefficient), group, i);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};

}  // namespace graft
