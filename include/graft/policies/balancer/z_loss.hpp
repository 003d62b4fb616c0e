// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The router z-loss: keeps logits small, so that their softmax stays precise.

#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/options.hpp>

namespace graft {

// loss = coefficient mean_t logsumexp(l_t)^2
// Source: Zoph et al., "ST-MoE", 2022, arXiv 2202.08906, equation 5.
struct z_loss {
  static constexpr balancer_spec spec{.logit_gradients = true};
  static constexpr const char* name = "z_loss";

  static constexpr auto options() { return std::tuple(option("coefficient", &z_loss::coefficient)); }

  double coefficient = 0.001;

  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>& group) const {
    return static_cast<M>(coefficient) * group.mean_squared_lse;
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>&, index_t) const {
    return M(0);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M lse) const {
    return M(2) * static_cast<M>(coefficient) * lse;
  }
};

}  // namespace graft
