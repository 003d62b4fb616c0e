// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The first third of a row router: from logits to scores. A score is evaluated where it is needed, so that no row of
// scores is stored.

#include <cstdint>

#include <graft/core/host_device.hpp>
#include <graft/core/math.hpp>

namespace graft {

// s_i = l_i
struct logit_score {
  template <class M>
  struct row {
    const M* logits;
    GRAFT_HOST_DEVICE M operator()(index_t i) const { return logits[i]; }
  };

  template <class Group, class M>
  GRAFT_HOST_DEVICE row<M> prepare(Group&, const M* logits, index_t) const {
    return {logits};
  }

  // d_logits from the gradients to the scores of the selected experts.
  template <int K, class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const row<M>&, index_t experts, const std::int32_t* selected,
                                  const M* d_scores, M* d_logits) const {
    group.for_each(experts, [&](index_t i) {
      M gradient = 0;
      for (int k = 0; k < K; ++k) gradient += selected[k] == i ? d_scores[k] : M(0);
      d_logits[i] = gradient;
    });
  }
};

// s_i = softmax(l)_i over all experts
struct softmax_score {
  template <class M>
  struct row {
    const M* logits;
    M top, inverse_sum;
    GRAFT_HOST_DEVICE M operator()(index_t i) const { return math::exp(logits[i] - top) * inverse_sum; }
  };

  template <class Group, class M>
  GRAFT_HOST_DEVICE row<M> prepare(Group& group, const M* logits, index_t experts) const {
    const M top = group.max(experts, [&](index_t i) { return logits[i]; });
    const M sum = group.sum(experts, [&](index_t i) { return math::exp(logits[i] - top); });
    return {logits, top, M(1) / sum};
  }

  // dl_j = s_j (ds_j - sum_i s_i ds_i), ds = 0 for experts that were not selected, which receive gradient all the same.
  template <int K, class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const row<M>& score, index_t experts, const std::int32_t* selected,
                                  const M* d_scores, M* d_logits) const {
    M mean = 0;
    for (int k = 0; k < K; ++k)
      if (selected[k] >= 0) mean += score(selected[k]) * d_scores[k];
    group.for_each(experts, [&](index_t i) {
      M gradient = -mean;
      for (int k = 0; k < K; ++k) gradient += selected[k] == i ? d_scores[k] : M(0);
      d_logits[i] = score(i) * gradient;
    });
  }
};

}  // namespace graft
