// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// softmax_top_k<K>: the router of OLMoE and FlexOlmo.

#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// s = softmax(l) over all experts,  g_i = s_i for the K largest: the weights are not renormalised and sum to less than
// one. Experts that were not selected receive gradient through the softmax.
// Source: Muennighoff et al., "OLMoE", 2024, arXiv 2409.02060, equation 1; Shi et al., "FlexOlmo", 2025, arXiv
// 2507.07024. In Hugging Face's configurations: norm_topk_prob = false.
template <int K>
struct softmax_top_k : row_router<softmax_score, select_top<K>, selected_score> {
  static_assert(K >= 1, "graft::softmax_top_k: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "softmax_top_k";
};

}  // namespace graft
