// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// row_router<Score, Select, Weigh, Gate>: a router from three row functions, fused into one pass forward and one
// backward, over the logits of a gate.
//
//   Score   prepare(group, token, logits, E) -> s with s(i)
//           backward<K>(group, token, s, E, selected, d_scores, d_logits)    replaces d_logits
//   Select  slots; may_leave_empty; reads_bias
//           operator()<M>(group, token, s, logits, E, selected)              fills every slot, with -1 for none
//   Weigh   sums_to_one; forward<K>(selected, scores, weights); backward<K>(selected, scores, weights, d_weights,
//           d_scores)                                                        0 for empty slots

#include <cstdint>

#include <graft/core/host_device.hpp>
#include <graft/policies/gate/linear_gate.hpp>
#include <graft/policies/router/router.hpp>

namespace graft {

template <class Score, class Select, class Weigh, Gate G = linear_gate>
struct row_router {
  static constexpr int slots = Select::slots;
  static constexpr router_spec spec{.experts_per_token = slots,
                                    .weights_sum_to_one = Weigh::sums_to_one,
                                    .empty_slots = Select::may_leave_empty,
                                    .selection_bias = Select::reads_bias,
                                    .causal = detail::gate_causal<G>()};

  G gate{};
  Score score{};
  Select select{};
  Weigh weigh{};

  template <class Group, class M>
  GRAFT_HOST_DEVICE void forward(Group& group, const routing_token<M>& token, const M* logits, index_t experts,
                                 std::int32_t* selected, M* weights) const {
    const auto scores = score.prepare(group, token, logits, experts);
    select.template operator()<M>(group, token, scores, logits, experts, selected);
    M selected_scores[slots];
    for (int k = 0; k < slots; ++k) selected_scores[k] = selected[k] < 0 ? M(0) : scores(selected[k]);
    weigh.template forward<slots>(selected, selected_scores, weights);
  }

  template <class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const routing_token<M>& token, const M* logits, index_t experts,
                                  const std::int32_t* selected, const M* weights, const M* d_weights,
                                  M* d_logits) const {
    const auto scores = score.prepare(group, token, logits, experts);
    M selected_scores[slots], d_scores[slots];
    for (int k = 0; k < slots; ++k) selected_scores[k] = selected[k] < 0 ? M(0) : scores(selected[k]);
    weigh.template backward<slots>(selected, selected_scores, weights, d_weights, d_scores);
    score.template backward<slots>(group, token, scores, experts, selected, d_scores, d_logits);
  }

  // Errors: those of the parts' own check(experts), where they have one.
  void check(index_t experts) const {
    if constexpr (requires { score.check(experts); }) score.check(experts);
    if constexpr (requires { select.check(experts); }) select.check(experts);
    if constexpr (requires { weigh.check(experts); }) weigh.check(experts);
  }
};

}  // namespace graft
