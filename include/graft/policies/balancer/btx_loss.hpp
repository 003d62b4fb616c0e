// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The load-balancing loss of Branch-Train-MiX, over combine weights instead of counts.

#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/options.hpp>

namespace graft {

// loss = coefficient E sum_i u_i P_i,   u_i = mean over tokens of the weight g_i that expert i is combined with (0
// where it is not selected),   P_i = mean softmax_i;   1 x coefficient at balance where the weights of a token sum to
// one. dL/dP_i = coefficient E u_i,   dL/du_i = coefficient E P_i: u is a function of the logits, and the equation as
// printed is differentiated through both factors. detached holds u fixed, as counts are in switch_loss. Source:
// Sukhbaatar et al., "Branch-Train-MiX", 2024, arXiv 2403.07816.
struct btx_loss {
  static constexpr balancer_spec spec{.logit_gradients = true, .mean_weights = true};
  static constexpr const char* name = "btx_loss";

  static constexpr auto options() {
    return std::tuple(option("coefficient", &btx_loss::coefficient), option("detached", &btx_loss::detached));
  }

  double coefficient = 0.01;
  bool detached = false;

  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>& group) const {
    M sum = 0;
    for (index_t i = 0; i < group.columns; ++i) sum += d_mean_score(group, i) * group.mean_scores[i];
    return sum;
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>& group, index_t i) const {
    return static_cast<M>(coefficient) * group.choices * group.mean_weights[i];
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_weight(const balance_statistics<M>& group, index_t i) const {
    return detached ? M(0) : static_cast<M>(coefficient) * group.choices * group.mean_scores[i];
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};

}  // namespace graft
