// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The last third of a row router: from the scores of the selected experts to their weights. Works on K numbers. The
// weight of an empty slot is 0, and so is the gradient to its score.

#include <cmath>
#include <cstdint>
#include <tuple>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>
#include <graft/core/math.hpp>
#include <graft/policies/options.hpp>

namespace graft {

// w_k = softmax over the selected scores. With logit_score this is softmax(TopK(l)), which equals the softmax over all
// renormalised over the kept.
struct softmax_over_selected {
  static constexpr bool sums_to_one = true;

  template <int K, class M>
  GRAFT_HOST_DEVICE void forward(const std::int32_t* selected, const M* scores, M* weights) const {
    M top = -static_cast<M>(INFINITY);
    for (int k = 0; k < K; ++k) top = selected[k] >= 0 && scores[k] > top ? scores[k] : top;
    M sum = 0;
    for (int k = 0; k < K; ++k) sum += weights[k] = selected[k] >= 0 ? math::exp(scores[k] - top) : M(0);
    for (int k = 0; k < K; ++k) weights[k] = selected[k] >= 0 ? weights[k] / sum : M(0);
  }

  // ds_k = w_k (dw_k - sum_j w_j dw_j)
  template <int K, class M>
  GRAFT_HOST_DEVICE void backward(const std::int32_t*, const M*, const M* weights, const M* d_weights,
                                  M* d_scores) const {
    M mean = 0;
    for (int k = 0; k < K; ++k) mean += weights[k] * d_weights[k];
    for (int k = 0; k < K; ++k) d_scores[k] = weights[k] * (d_weights[k] - mean);
  }
};

// w_k = s_k, as it is.
struct selected_score {
  static constexpr bool sums_to_one = false;

  template <int K, class M>
  GRAFT_HOST_DEVICE void forward(const std::int32_t* selected, const M* scores, M* weights) const {
    for (int k = 0; k < K; ++k) weights[k] = selected[k] >= 0 ? scores[k] : M(0);
  }
  template <int K, class M>
  GRAFT_HOST_DEVICE void backward(const std::int32_t* selected, const M*, const M*, const M* d_weights,
                                  M* d_scores) const {
    for (int k = 0; k < K; ++k) d_scores[k] = selected[k] >= 0 ? d_weights[k] : M(0);
  }
};

// w_k = c s_k
struct scaled_score {
  static constexpr bool sums_to_one = false;
  static constexpr auto options() { return std::tuple(option("scale", &scaled_score::scale)); }

  double scale = 1;

  template <int K, class M>
  GRAFT_HOST_DEVICE void forward(const std::int32_t* selected, const M* scores, M* weights) const {
    for (int k = 0; k < K; ++k) weights[k] = selected[k] >= 0 ? static_cast<M>(scale) * scores[k] : M(0);
  }
  template <int K, class M>
  GRAFT_HOST_DEVICE void backward(const std::int32_t* selected, const M*, const M*, const M* d_weights,
                                  M* d_scores) const {
    for (int k = 0; k < K; ++k) d_scores[k] = selected[k] >= 0 ? static_cast<M>(scale) * d_weights[k] : M(0);
  }
};

namespace detail {

// w_k = c s_k / D,  D = sum_j s_j + eps over the selected. D = 0 gives zeros.
template <int K, class M>
GRAFT_HOST_DEVICE M selected_sum(const std::int32_t* selected, const M* scores, M epsilon) {
  M sum = epsilon;
  for (int k = 0; k < K; ++k) sum += selected[k] >= 0 ? scores[k] : M(0);
  return sum;
}
template <int K, class M>
GRAFT_HOST_DEVICE void renormalise(const std::int32_t* selected, const M* scores, M scale, M epsilon, M* weights) {
  const M sum = selected_sum<K>(selected, scores, epsilon);
  for (int k = 0; k < K; ++k) weights[k] = selected[k] >= 0 && sum != M(0) ? scale * (scores[k] / sum) : M(0);
}
// ds_k = (c dw_k - sum_j w_j dw_j) / D
template <int K, class M>
GRAFT_HOST_DEVICE void renormalise_backward(const std::int32_t* selected, const M* scores, const M* weights,
                                            const M* d_weights, M scale, M epsilon, M* d_scores) {
  const M sum = selected_sum<K>(selected, scores, epsilon);
  M mean = 0;
  for (int k = 0; k < K; ++k) mean += weights[k] * d_weights[k];
  for (int k = 0; k < K; ++k)
    d_scores[k] = selected[k] >= 0 && sum != M(0) ? (scale * d_weights[k] - mean) / sum : M(0);
}

}  // namespace detail

// w_k = s_k / sum_j s_j over the selected. Requires: a score above 0 among them, as softmax_score has.
struct renormalised {
  static constexpr bool sums_to_one = true;

  template <int K, class M>
  GRAFT_HOST_DEVICE void forward(const std::int32_t* selected, const M* scores, M* weights) const {
    detail::renormalise<K>(selected, scores, M(1), M(0), weights);
  }
  template <int K, class M>
  GRAFT_HOST_DEVICE void backward(const std::int32_t* selected, const M* scores, const M* weights, const M* d_weights,
                                  M* d_scores) const {
    detail::renormalise_backward<K>(selected, scores, weights, d_weights, M(1), M(0), d_scores);
  }
};

// w_k = c s_k / (sum_j s_j + eps) over the selected. Scores that all vanish give weights that vanish.
// Source: DeepSeek-AI, "DeepSeek-V3", 2024, arXiv 2412.19437, equation 13; the factor c (2.5 in the released model) and
// eps are those of its published code.
struct scaled_renormalised {
  static constexpr bool sums_to_one = false;
  static constexpr auto options() {
    return std::tuple(option("scale", &scaled_renormalised::scale), option("epsilon", &scaled_renormalised::epsilon));
  }

  double scale = 1;
  double epsilon = 1e-20;

  template <int K, class M>
  GRAFT_HOST_DEVICE void forward(const std::int32_t* selected, const M* scores, M* weights) const {
    detail::renormalise<K>(selected, scores, static_cast<M>(scale), static_cast<M>(epsilon), weights);
  }
  template <int K, class M>
  GRAFT_HOST_DEVICE void backward(const std::int32_t* selected, const M* scores, const M* weights, const M* d_weights,
                                  M* d_scores) const {
    detail::renormalise_backward<K>(selected, scores, weights, d_weights, static_cast<M>(scale),
                                    static_cast<M>(epsilon), d_scores);
  }

  void check(index_t) const {
    GRAFT_CHECK(epsilon >= 0, "scaled_renormalised: expected epsilon >= 0, got epsilon=", epsilon);
  }
};

}  // namespace graft
