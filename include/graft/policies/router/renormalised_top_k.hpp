// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// renormalised_top_k<K>: softmax over all experts, renormalised over the kept.

#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// s = softmax(l) over all experts,  g_i = s_i / sum of the K largest s. Weights sum to one.
// In exact arithmetic this is top_k<K>, forward and backward, with its trap: K = 1 gives weight 1 and no gradient.
// Source: Yang et al., "Qwen3 technical report", 2025, arXiv 2505.09388. In Hugging Face's configurations:
// norm_topk_prob = true.
template <int K>
struct renormalised_top_k : row_router<softmax_score, select_top<K>, renormalised> {
  static_assert(K >= 1, "graft::renormalised_top_k: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "renormalised_top_k";
};

}  // namespace graft
