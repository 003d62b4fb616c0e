// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// ermoe<K>: the router of ERMoE. Experts whose basis a token and its context agree in are eligible; there are no router
// weights and no balancing loss.

#include <cstdint>
#include <tuple>

#include <graft/core/error.hpp>
#include <graft/policies/gate/eigen_gate.hpp>
#include <graft/policies/options.hpp>
#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>

namespace graft {

// The K largest scores among those above the threshold; where none is, the K largest. Slots without an eligible expert
// are empty and come last.
template <int K>
struct select_above_threshold {
  static constexpr int slots = K;
  static constexpr bool may_leave_empty = true;
  static constexpr bool reads_bias = false;

  static constexpr auto options() { return std::tuple(option("threshold", &select_above_threshold::threshold)); }

  double threshold = 0.5;

  template <class M, class Group, class Score>
  GRAFT_HOST_DEVICE void operator()(Group& group, const routing_token<M>& token, const Score& score, const M* logits,
                                    index_t experts, std::int32_t* selected) const {
    select_top<K>{}.template operator()<M>(group, token, score, logits, experts, selected);
    // They descend: the first is eligible if any is.
    const auto eligible = [&](int k) { return score(selected[k]) > static_cast<M>(threshold); };
    if (!eligible(0)) return;
    for (int k = 1; k < K; ++k)
      if (!eligible(k)) selected[k] = -1;
  }

  void check(index_t) const {
    GRAFT_CHECK(
        threshold >= 0 && threshold < 1,
        "select_above_threshold: expected 0 <= threshold < 1, so that eligible cosines are positive, got threshold=",
        threshold);
  }
};

// w_k = p_k / sum_j p_j over the selected, p = max(s, 0). A sum of zero, which only a token has that no expert is
// eligible for, gives equal weights, and no gradient.
struct normalised_positive_part {
  static constexpr bool sums_to_one = true;

  template <int K, class M>
  GRAFT_HOST_DEVICE void forward(const std::int32_t* selected, const M* scores, M* weights) const {
    M sum = 0, filled = 0;
    for (int k = 0; k < K; ++k) {
      filled += selected[k] >= 0 ? M(1) : M(0);
      sum += positive(selected[k], scores[k]);
    }
    for (int k = 0; k < K; ++k) {
      if (selected[k] < 0)
        weights[k] = 0;
      else
        weights[k] = sum > M(0) ? positive(selected[k], scores[k]) / sum : M(1) / filled;
    }
  }

  // ds_k = (dw_k - sum_j w_j dw_j) / sum_j p_j where s_k > 0
  template <int K, class M>
  GRAFT_HOST_DEVICE void backward(const std::int32_t* selected, const M* scores, const M* weights, const M* d_weights,
                                  M* d_scores) const {
    M sum = 0, mean = 0;
    for (int k = 0; k < K; ++k) {
      sum += positive(selected[k], scores[k]);
      mean += weights[k] * d_weights[k];
    }
    for (int k = 0; k < K; ++k)
      d_scores[k] = positive(selected[k], scores[k]) > M(0) ? (d_weights[k] - mean) / sum : M(0);
  }

 private:
  template <class M>
  GRAFT_HOST_DEVICE static M positive(std::int32_t expert, M score) {
    return expert >= 0 && score > M(0) ? score : M(0);
  }
};

// s_e = cos(V_e^T x, V_e^T c) (eigen_gate);  the K largest s_e > threshold,  g_e = s_e / sum of the selected s.
// Where no expert passes the threshold: the K largest all the same, with the positive parts of their scores normalised;
// an expert with a negative score then has weight 0, and equal weights stand where no score is positive.
// The first token of a sequence is its own context, so all its scores are 1 and it goes to experts 0 ... K-1.
// The default threshold of 0.5 is that of its published code, where K is 2.
// Source: "ERMoE", CVPR 2026, arXiv 2511.10971.
template <int K>
struct ermoe : row_router<logit_score, select_above_threshold<K>, normalised_positive_part, eigen_gate> {
  static_assert(K >= 1, "graft::ermoe: K is below 1. A token needs at least one expert.");
  static constexpr const char* name = "ermoe";
};

}  // namespace graft
