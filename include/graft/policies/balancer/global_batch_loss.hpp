// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The load-balancing loss with the load of the whole batch of a step, however many passes compute it.

#include <graft/policies/balancer/switch_loss.hpp>

namespace graft {

// loss = coefficient E sum_i f_i P_i,   f_i = share of the filled slots over all passes of the step so far, this one
// included,   P_i = mean softmax_i over this pass;   1 x coefficient at balance. f is held fixed in the gradient.
// One pass a step: exactly the loss of the whole batch. Several: the first pass knows its own load alone, the last one
// that of the batch; the mean over the passes approaches the whole batch's loss, it is not equal to it. A sequence or a
// pass may lean on few experts as long as the batch does not, so that experts can specialise.
// Source: Qiu et al., "Demons in the detail: on implementing load balancing loss for training specialized
// mixture-of-expert models", 2025, arXiv 2501.11873; with null experts: arXiv 2601.15370, whose coefficient is 0.02.
struct global_batch_loss {
  static constexpr balancer_spec spec{.logit_gradients = true, .scope = balance_scope::step};
  static constexpr const char* name = "global_batch_loss";

  static constexpr auto options() { return std::tuple(option("coefficient", &global_batch_loss::coefficient)); }

  double coefficient = 0.01;

  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>& step) const {
    return detail::load_loss(static_cast<M>(coefficient), step);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>& step, index_t i) const {
    return detail::d_load_loss(static_cast<M>(coefficient), step, i);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};

}  // namespace graft
