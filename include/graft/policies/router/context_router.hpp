// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// context_top_k<K>: the context-aware router of MetaMoE.

#include <graft/policies/gate/context_gate.hpp>
#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// l = ((1 - lambda) x_t + lambda c_t) W^T,  c_t the mean of the tokens so far;  s = softmax(l),  g_i = s_i for the K
// largest. The weights are not renormalised: with K = 1 a renormalised weight is 1, and neither the rows nor lambda
// would learn anything from the language-model loss. Source: "MetaMoE", 2026, arXiv 2605.14289.
template <int K>
struct context_top_k : row_router<softmax_score, select_top<K>, selected_score, context_gate> {
  static_assert(K >= 1, "graft::context_top_k: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "context_top_k";
};
using context_top_1 = context_top_k<1>;

// The same with c_t the mean of the whole sequence, later tokens included: spec.causal is false.
template <int K>
struct sequence_context_top_k : row_router<softmax_score, select_top<K>, selected_score, sequence_context_gate> {
  static_assert(K >= 1, "graft::sequence_context_top_k: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "sequence_context_top_k";
};

}  // namespace graft
