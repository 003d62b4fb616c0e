// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// soft<E>: every token uses every expert.

#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// g = softmax(l) over all E experts, slot k holds expert k. Weights sum to one. Costs E experts a token.
// Requires: a layer of E experts.
// Source: Sukhbaatar et al., "Branch-Train-MiX", 2024, arXiv 2403.07816, "soft routing"; Zhang et al., "BAM",
// 2024, arXiv 2408.08274.
template <int E>
struct soft : row_router<logit_score, select_all<E>, softmax_over_selected> {
  static_assert(E >= 1, "graft::soft: E is below 1. A token needs at least one expert.");
  static constexpr const char* name = "soft";
};

}  // namespace graft
