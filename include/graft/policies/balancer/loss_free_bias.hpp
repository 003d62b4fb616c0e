// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Balance without a loss: a bias that moves the selection, and nothing else, towards experts with little load.

#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/options.hpp>

namespace graft {

// After each optimizer step   b_i += rate sign(mean_j load_j - load_i),   sign(0) = 0,   load_i = counts_i of all
// passes of the step. The router adds b to its scores when it selects and leaves it out of the weights, so the loss has
// no gradient to b. b starts at zero and is saved with the model. The sum of b is not held at zero: a constant added to
// all of b changes no selection. Source: Wang et al., "Auxiliary-loss-free load balancing strategy for
// mixture-of-experts", 2024, arXiv 2408.15664, algorithm 1; rate 1e-3 as there and in DeepSeek-V3 (2412.19437), which
// ends its training with rate 0.
struct loss_free_bias {
  static constexpr balancer_spec spec{.selection_bias = true};
  static constexpr const char* name = "loss_free_bias";

  static constexpr auto options() { return std::tuple(option("rate", &loss_free_bias::rate)); }

  double rate = 1e-3;

  template <class Group, class M>
  GRAFT_HOST_DEVICE void end_step(Group& group, M* bias, const M* counts, index_t experts) const {
    const M mean = group.sum(experts, [&](index_t i) { return counts[i]; }) / static_cast<M>(experts);
    const M step = static_cast<M>(rate);
    group.for_each(experts, [&](index_t i) { bias[i] += counts[i] < mean ? step : counts[i] > mean ? -step : M(0); });
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
