// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// sample_top_1<E>: one expert a token, sampled while training.

#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/soft.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// Training: y = softmax((l + G) / tau) with Gumbel noise G (score.hpp, gumbel_score),  g_m = y_m for m = argmax y. The
// weight is the soft value, not 1, and no gradient goes straight through.
// Evaluation: g_m = 1 for m = argmax l, or for m sampled from softmax(l) with the option score.sampled_evaluation.
// sample_top_1<1> is that in every layer. sample_top_1<E> with E > 1 uses all E experts in the first layer (the block
// with index 0), softly and without noise, as the paper does; in other layers slot 0 is filled and the rest are empty.
// Requires: layers of E experts where E > 1.
// Source: Sukhbaatar et al., "Branch-Train-MiX", 2024, arXiv 2403.07816, "Sample Top-1", with
// tau = max(0.5, exp(-1e-4 step)) where the paper prints max(0.5, -rate step). It leaves evaluation open.
template <int E = 1>
struct sample_top_1 : row_router<gumbel_score, select_top<1>, selected_score> {
  using base = row_router<gumbel_score, select_top<1>, selected_score>;
  static_assert(E >= 1, "graft::sample_top_1: E is below 1. Use 1, or the number of experts for a soft first layer.");
  static constexpr const char* name = "sample_top_1";
  static constexpr router_spec spec{.experts_per_token = E, .empty_slots = (E > 1)};

  soft<E> first{};  // of which only the rows are used

  template <class Group, class M>
  GRAFT_HOST_DEVICE void forward(Group& group, const routing_token<M>& token, const M* logits, index_t experts,
                                 std::int32_t* selected, M* weights) const {
    if (is_soft(token.layer)) {
      first.forward(group, token, logits, experts, selected, weights);
      return;
    }
    base::forward(group, token, logits, experts, selected, weights);
    if (!token.at.training) weights[0] = 1;
    for (int k = 1; k < E; ++k) {
      selected[k] = -1;
      weights[k] = 0;
    }
  }

  template <class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const routing_token<M>& token, const M* logits, index_t experts,
                                  const std::int32_t* selected, const M* weights, const M* d_weights,
                                  M* d_logits) const {
    if (is_soft(token.layer))
      first.backward(group, token, logits, experts, selected, weights, d_weights, d_logits);
    else if (token.at.training)
      base::backward(group, token, logits, experts, selected, weights, d_weights, d_logits);
    else
      group.for_each(experts, [&](index_t i) { d_logits[i] = 0; });
  }

  constexpr double slots_used(index_t layer, index_t) const { return is_soft(layer) ? E : 1; }

  void check(index_t experts) const {
    base::check(experts);
    if constexpr (E > 1) first.check(experts);
  }

 private:
  GRAFT_HOST_DEVICE static constexpr bool is_soft(index_t layer) { return E > 1 && layer == 0; }
};

}  // namespace graft
