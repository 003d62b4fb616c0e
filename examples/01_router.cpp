// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// 1. Write a router. A token of this one goes to its best expert, and to the second best only when the router is in
// doubt between the two. It is checked when compiling, trains in a mixture on the CPU, and prints where tokens went.

#include <cmath>
#include <cstdio>

#include <graft/graft.hpp>

#include "common/counting.hpp"

// p = sigmoid(l_1 - l_2) for the two largest logits. p > certainty: one expert, weight 1; else weights p and 1 - p.
struct one_or_two {
  static constexpr graft::router_spec spec{.experts_per_token = 2, .weights_sum_to_one = true, .empty_slots = true};
  static constexpr const char* name = "one_or_two";
  double certainty = 0.6;

  template <class Group, class M>
  GRAFT_HOST_DEVICE void forward(Group& group, const graft::routing_token<M>&, const M* logits, graft::index_t experts,
                                 std::int32_t* selected, M* weights) const {
    const auto first = group.argmax(experts, [&](graft::index_t i) { return logits[i]; });
    const auto second = group.argmax(
        experts, [&](graft::index_t i) { return i == first.index ? -static_cast<M>(INFINITY) : logits[i]; });
    const M p = graft::math::sigmoid(first.value - second.value);
    const bool certain = p > M(certainty);
    selected[0] = static_cast<std::int32_t>(first.index);
    selected[1] = certain ? -1 : static_cast<std::int32_t>(second.index);
    weights[0] = certain ? M(1) : p;
    weights[1] = certain ? M(0) : M(1) - p;
  }
  // dp/dl_1 = p (1 - p) = -dp/dl_2; a weight that is 1 has no gradient.
  template <class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const graft::routing_token<M>&, const M*, graft::index_t experts,
                                  const std::int32_t* selected, const M* weights, const M* d_weights,
                                  M* d_logits) const {
    const M d = selected[1] < 0 ? M(0) : weights[0] * weights[1] * (d_weights[0] - d_weights[1]);
    group.for_each(experts, [&](graft::index_t i) {
      d_logits[i] = i == selected[0] ? d : i == selected[1] ? -d : M(0);
    });
  }
};
static_assert(graft::check_router<one_or_two>());

int main() {
  using model_type = graft::moe_transformer<one_or_two, graft::switch_loss, graft::routed>;
  graft::context<graft::cpu> context({.threads = 1});  // a second thread does not pay for a model this small
  model_type model(context, examples::counting_shape(4));
  model.initialize(0);
  const graft::step_report last = examples::train_counting(model, 120);

  for (std::size_t block = 0; block < last.load.size(); ++block) {
    const graft::layer_load& load = last.load[block];
    std::printf("block %zu:", block);
    for (const double count : load.counts) std::printf(" %4.0f", count);
    std::printf(" tokens per expert, MaxVio %.2f, %.0f %% of the tokens took two experts\n", load.max_violation(),
                100 * (1 - load.empty_slots / load.tokens));
  }
}
