// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The load-balancing loss of DeepSeek-V3, over each sequence by itself.

#include <graft/policies/balancer/switch_loss.hpp>

namespace graft {

// loss of a sequence = coefficient E sum_i f_i P_i,   f_i = share of the sequence's filled slots,   P_i = mean over its
// tokens of the normalised scores (s_i / sum_j s_j for sigmoid scores, the softmax for others);   1 x coefficient at
// balance. A layer's loss is the mean over its sequences. counts are of the experts that worked, whatever bias took
// part in selecting them; the equation in the paper counts by the scores without it. f is held fixed in the gradient.
// Source: DeepSeek-AI, "DeepSeek-V3 technical report", 2024, arXiv 2412.19437, equations 17 to 20.
struct sequence_loss {
  static constexpr balancer_spec spec{.logit_gradients = true, .scope = balance_scope::sequence};
  static constexpr const char* name = "sequence_loss";

  static constexpr auto options() { return std::tuple(option("coefficient", &sequence_loss::coefficient)); }

  double coefficient = 1e-4;

  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>& sequence) const {
    return detail::load_loss(static_cast<M>(coefficient), sequence);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>& sequence, index_t i) const {
    return detail::d_load_loss(static_cast<M>(coefficient), sequence, i);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};

}  // namespace graft
