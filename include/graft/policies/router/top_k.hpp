// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// top_k<K>: the gate of Branch-Train-MiX and Mixtral.

#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// g = softmax(TopK(l)): the K largest logits, softmax over the kept. Weights sum to one.
// With K = 1 the weight is always 1 and the router receives no gradient from the language-model loss, only from its
// balancer: use a Switch-style router for top-1.
// Source: Sukhbaatar et al., "Branch-Train-MiX", 2024, arXiv 2403.07816, equation 2; Jiang et al., "Mixtral of
// experts", 2024, arXiv 2401.04088.
template <int K>
struct top_k : row_router<logit_score, select_top<K>, softmax_over_selected> {
  static_assert(K >= 1, "graft::top_k: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "top_k";
};

}  // namespace graft
