// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The last third of a row router: from the scores of the selected experts to their weights. Works on K numbers.

#include <cstdint>

#include <graft/core/host_device.hpp>
#include <graft/core/math.hpp>

namespace graft {

// w_k = softmax over the selected scores. With logit_score this is softmax(TopK(l)), which equals the softmax over all
// renormalised over the kept.
struct softmax_over_selected {
  static constexpr bool sums_to_one = true;

  template <int K, class M>
  GRAFT_HOST_DEVICE void forward(const M* scores, M* weights) const {
    M top = scores[0];
    for (int k = 1; k < K; ++k) top = scores[k] > top ? scores[k] : top;
    M sum = 0;
    for (int k = 0; k < K; ++k) sum += weights[k] = math::exp(scores[k] - top);
    for (int k = 0; k < K; ++k) weights[k] /= sum;
  }

  // ds_k = w_k (dw_k - sum_j w_j dw_j)
  template <int K, class M>
  GRAFT_HOST_DEVICE void backward(const M*, const M* weights, const M* d_weights, M* d_scores) const {
    M mean = 0;
    for (int k = 0; k < K; ++k) mean += weights[k] * d_weights[k];
    for (int k = 0; k < K; ++k) d_scores[k] = weights[k] * (d_weights[k] - mean);
  }
};

// w_k = s_k, as it is.
struct selected_score {
  static constexpr bool sums_to_one = false;

  template <int K, class M>
  GRAFT_HOST_DEVICE void forward(const M* scores, M* weights) const {
    for (int k = 0; k < K; ++k) weights[k] = scores[k];
  }
  template <int K, class M>
  GRAFT_HOST_DEVICE void backward(const M*, const M*, const M* d_weights, M* d_scores) const {
    for (int k = 0; k < K; ++k) d_scores[k] = d_weights[k];
  }
};

}  // namespace graft
