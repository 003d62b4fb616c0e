// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// row_router<Score, Select, Weigh>: a router from three row functions, fused into one pass forward and one backward.
//
//   Score   prepare(group, logits, E) -> s with s(i);  backward<K>(group, s, E, selected, d_scores, d_logits)
//   Select  slots;  operator()<M>(group, s, E, selected): fills every slot
//   Weigh   sums_to_one;  forward<K>(scores, weights);  backward<K>(scores, weights, d_weights, d_scores)

#include <cstdint>

#include <graft/core/host_device.hpp>
#include <graft/policies/router/router.hpp>

namespace graft {

template <class Score, class Select, class Weigh>
struct row_router {
  static constexpr int slots = Select::slots;
  static constexpr router_spec spec{.experts_per_token = slots, .weights_sum_to_one = Weigh::sums_to_one};

  Score score{};
  Select select{};
  Weigh weigh{};

  template <class Group, class M>
  GRAFT_HOST_DEVICE void forward(Group& group, const M* logits, index_t experts, std::int32_t* selected,
                                 M* weights) const {
    const auto scores = score.prepare(group, logits, experts);
    select.template operator()<M>(group, scores, experts, selected);
    M selected_scores[slots];
    for (int k = 0; k < slots; ++k) selected_scores[k] = scores(selected[k]);
    weigh.template forward<slots>(selected_scores, weights);
  }

  template <class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const M* logits, index_t experts, const std::int32_t* selected,
                                  const M* weights, const M* d_weights, M* d_logits) const {
    const auto scores = score.prepare(group, logits, experts);
    M selected_scores[slots], d_scores[slots];
    for (int k = 0; k < slots; ++k) selected_scores[k] = scores(selected[k]);
    weigh.template backward<slots>(selected_scores, weights, d_weights, d_scores);
    score.template backward<slots>(group, scores, experts, selected, d_scores, d_logits);
  }
};

}  // namespace graft
