// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The load-balancing loss of the Switch Transformer, generalised to K slots a token.

#include <graft/policies/balancer/balancer.hpp>

namespace graft {

// loss = coefficient E sum_i f_i P_i,   f_i = counts_i / (K tokens),   P_i = mean softmax_i;   1 x coefficient at
// balance. f is held fixed in the gradient: counting is not differentiable. Source: Fedus, Zoph, Shazeer, "Switch
// Transformers", 2021, arXiv 2101.03961, equation 4; divided by K so that the value at balance is 1 for every K.
struct switch_loss {
  static constexpr balancer_spec spec{.logit_gradients = true};
  static constexpr const char* name = "switch_loss";

  double coefficient = 0.01;

  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>& group, index_t i) const {
    return static_cast<M>(coefficient) * static_cast<M>(group.experts) * group.counts[i] /
           (static_cast<M>(group.slots) * static_cast<M>(group.tokens));
  }
  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>& group) const {
    M sum = 0;
    for (index_t i = 0; i < group.experts; ++i) sum += d_mean_score(group, i) * group.mean_scores[i];
    return sum;
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};

}  // namespace graft
