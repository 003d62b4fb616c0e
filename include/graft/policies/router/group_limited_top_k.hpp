// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// group_limited_top_k<K>: the router of DeepSeek-V2.

#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// s = softmax(l) over all experts,  g_i = c s_i for the K largest s_i among the experts of the kept groups. Weights are
// not renormalised.
// Options: weigh.scale (c), select.groups, select.kept_groups. With the default of one group and c = 1 this is
// softmax_top_k<K>. DeepSeek-V2 has K = 6, c = 16 and 8 groups of which 3 are kept.
// Source: DeepSeek-AI, "DeepSeek-V2", 2024, arXiv 2405.04434, sections 2.2.1 and 2.2.2; c is that of its published
// code.
template <int K>
struct group_limited_top_k : row_router<softmax_score, select_group_limited<K>, scaled_score> {
  static_assert(K >= 1, "graft::group_limited_top_k: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "group_limited_top_k";

  constexpr group_limited_top_k() { this->select.scores_per_group = 1; }
};

}  // namespace graft
