// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// flex_olmo<K>: the router of FlexOlmo, in which every expert brings its own row and bias.

#include <graft/policies/gate/owner_gate.hpp>
#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// l_0 = r_0 . x,  l_i = r_i . x + min(b_i, 0);  s = softmax(l) over all experts,  g_i = s_i for the K largest. The
// weights sum to less than one. That is harmless where the layer's output is normalised before it joins the residual
// stream, as in OLMo 2; in a pre-norm model it shrinks the output: take flex_olmo_renormalised.
// An owner trains two experts, the public one and its own, with K = 2: then nothing is selected, and the bias only
// moves weight. Rows of several owners are put together without training. Source: Shi et al., "FlexOlmo", 2025, arXiv
// 2507.07024, section 3.3.
template <int K>
struct flex_olmo : row_router<softmax_score, select_top<K>, selected_score, owner_gate> {
  static_assert(K >= 1, "graft::flex_olmo: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "flex_olmo";
};

// The same with g_i = s_i / sum of the K largest s. Weights sum to one; K = 1 gives the router no gradient.
template <int K>
struct flex_olmo_renormalised : row_router<softmax_score, select_top<K>, renormalised, owner_gate> {
  static_assert(K >= 1, "graft::flex_olmo_renormalised: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "flex_olmo_renormalised";
};

}  // namespace graft
