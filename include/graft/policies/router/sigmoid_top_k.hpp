// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// sigmoid_top_k<K>: the router of DeepSeek-V3.

#include <graft/policies/router/probabilities.hpp>
#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// s = sigmoid(l),  S = the K largest s_i + b_i,  g_i = c s_i / (sum_{j in S} s_j + eps) for i in S. b is the layer's
// selection bias, which the balancer loss_free_bias moves; it is in no weight. Balancers see s_i / sum_j s_j.
// Options: weigh.scale (c), weigh.epsilon, and select.groups, select.kept_groups, select.scores_per_group for
// node-limited routing. The defaults are the paper's equations without groups; DeepSeek-V3 itself has K = 8, c = 2.5, 8
// groups of which 4 are kept.
// Source: DeepSeek-AI, "DeepSeek-V3", 2024, arXiv 2412.19437, equations 12 to 16; Wang et al., "Auxiliary-loss-free
// load balancing", 2024, arXiv 2408.15664.
template <int K>
struct sigmoid_top_k : row_router<sigmoid_score, select_group_limited<K>, scaled_renormalised> {
  static_assert(K >= 1, "graft::sigmoid_top_k: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "sigmoid_top_k";

  sigmoid_probabilities probabilities{};
};

}  // namespace graft
