// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The laws of routers refuse routers that break them: one router with one fault at a time. Without a fault it passes.

#include "catch.hpp"

#include <graft/policies/router/all_routers.hpp>

#include "laws/router_laws.hpp"

namespace router_laws_tests {

using namespace graft;
using namespace graft::test;

namespace {

enum class fault {
  none,
  same_expert_twice,
  higher_index_of_a_tie,
  weight_in_an_empty_slot,
  adds_to_the_gradient,
  other_noise_backward,
  noise_of_the_pass,
  noise_in_evaluation,
  bias_in_weights,
  deaf_to_the_bias,
  reads_an_undeclared_bias,
  gradient_misses_the_mean,
  probabilities_of_one_copy,
  order_of_visits,
};

struct wrong_copies : null_probabilities {
  // One copy whatever rho is.
  template <class M>
  GRAFT_HOST_DEVICE constexpr M choices(index_t experts) const {
    return static_cast<M>(experts + 1);
  }
};

// Noisy top-2 with a null logit and a selection bias, or without what the fault is about.
template <fault F>
struct faulty {
  static constexpr bool biased = F != fault::reads_an_undeclared_bias;
  static constexpr router_spec spec{
      .experts_per_token = 2, .empty_slots = true, .selection_bias = biased, .extra_logits = 1};
  static constexpr const char* name = "faulty";
  gumbel_score score{};
  std::conditional_t<F == fault::probabilities_of_one_copy, wrong_copies, null_probabilities> probabilities{};

  template <class M>
  routing_token<M> noise_of(routing_token<M> token) const {
    if (F == fault::noise_of_the_pass) token.at.first_token = 0;
    if (F == fault::noise_in_evaluation) token.at.training = true;
    return token;
  }

  template <class Group, class M>
  void forward(Group& group, const routing_token<M>& token, const M* logits, index_t experts, std::int32_t* selected,
               M* weights) const {
    const auto s = score.prepare(group, noise_of(token), logits, experts);
    const M* bias = F == fault::deaf_to_the_bias ? nullptr : token.selection_bias;
    const auto key = [&](index_t i) { return s(i) + (bias != nullptr ? bias[i] : M(0)); };
    const auto all = [](index_t) { return true; };
    graft::detail::select_largest<2, M>(group, experts, key, all, selected);
    if (F == fault::same_expert_twice) selected[1] = selected[0];
    if (F == fault::higher_index_of_a_tie)
      for (index_t i = 0; i < experts; ++i)
        if (i != selected[1] && key(i) == key(selected[0])) selected[0] = static_cast<std::int32_t>(i);
    if (F == fault::order_of_visits)
      group.for_each(experts,
                     [&](index_t i) { selected[0] = selected[1] == i ? selected[0] : static_cast<std::int32_t>(i); });
    for (int k = 0; k < 2; ++k) weights[k] = s(selected[k]);
    if (F == fault::bias_in_weights) weights[0] = key(selected[0]);
    if (logits[selected[1]] < logits[experts]) {
      selected[1] = -1;
      weights[1] = F == fault::weight_in_an_empty_slot ? M(0.5) : M(0);
    }
  }
  template <class Group, class M>
  void backward(Group& group, const routing_token<M>& token, const M* logits, index_t experts,
                const std::int32_t* selected, const M*, const M* d_weights, M* d_logits) const {
    routing_token<M> noise = noise_of(token);
    if (F == fault::other_noise_backward) noise.token += 1;
    const auto s = score.prepare(group, noise, logits, experts);
    const M before = d_logits[0];
    M d_scores[2];
    for (int k = 0; k < 2; ++k) d_scores[k] = selected[k] < 0 ? M(0) : d_weights[k];
    if (F == fault::gradient_misses_the_mean)
      group.for_each(experts, [&](index_t i) {
        d_logits[i] = s(i) * graft::detail::score_gradient<2>(i, selected, d_scores) * s.inverse_temperature;
      });
    else
      score.backward<2>(group, noise, s, experts, selected, d_scores, d_logits);
    d_logits[experts] = 0;
    if (F == fault::adds_to_the_gradient) d_logits[0] += before;
  }
};

}  // namespace

TEST_CASE("router laws: a router without a fault keeps them", "[policies]") { router_laws(faulty<fault::none>{}); }

#define GRAFT_TEST_FAULT(f) \
  TEST_CASE("router laws: refuse " #f, "[policies][!shouldfail]") { router_laws(faulty<fault::f>{}); }

GRAFT_TEST_FAULT(same_expert_twice)
GRAFT_TEST_FAULT(higher_index_of_a_tie)
GRAFT_TEST_FAULT(weight_in_an_empty_slot)
GRAFT_TEST_FAULT(adds_to_the_gradient)
GRAFT_TEST_FAULT(other_noise_backward)
GRAFT_TEST_FAULT(noise_of_the_pass)
GRAFT_TEST_FAULT(noise_in_evaluation)
GRAFT_TEST_FAULT(bias_in_weights)
GRAFT_TEST_FAULT(deaf_to_the_bias)
GRAFT_TEST_FAULT(reads_an_undeclared_bias)
GRAFT_TEST_FAULT(gradient_misses_the_mean)
GRAFT_TEST_FAULT(probabilities_of_one_copy)
GRAFT_TEST_FAULT(order_of_visits)

}  // namespace router_laws_tests
