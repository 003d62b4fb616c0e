// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The laws of the concept Router (policies/router/router.hpp). A test of a router of your own:
//
//   #include "catch.hpp"
//   #include "laws/router_laws.hpp"
//   TEST_CASE("my_router keeps the laws of routers") { graft::test::router_laws(my_router{}); }
//
// The laws of one token are here, those of a pass over many in router_pass_laws.hpp.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/core/philox.hpp>
#include <graft/policies/router/probabilities.hpp>
#include <graft/policies/router/router.hpp>

#include "gradient_check.hpp"
#include "laws/router_pass_laws.hpp"
#include "laws/router_row.hpp"
#include "reference.hpp"
#include "shuffled_group.hpp"

namespace graft::test {

// For routers that keep a law only in part.
struct router_law_options {
  std::vector<index_t> experts = {};  // numbers of experts to try; none: K, K + 1, K + 6, K + 70
  bool ties_by_index = true;         // false: an equal expert of a lower index may stay behind, outside the kept groups
  bool noise_in_evaluation = false;  // true: it samples without training too
};

namespace detail {

// Slots hold different experts that exist; weights are finite, 0 for an empty slot, and sum to one over filled slots
// where that is declared; only a router that says so leaves slots empty.
template <class R, class M>
void router_table_law(const routed_token<M>& token, index_t experts) {
  double sum = 0;
  bool filled = false;
  for (std::size_t k = 0; k < token.selected.size(); ++k) {
    REQUIRE(token.selected[k] >= (R::spec.empty_slots ? -1 : 0));
    REQUIRE(token.selected[k] < experts);
    REQUIRE(std::isfinite(token.weights[k]));
    if (token.selected[k] < 0) {
      REQUIRE(token.weights[k] == M(0));
      continue;
    }
    for (std::size_t earlier = 0; earlier < k; ++earlier) REQUIRE(token.selected[k] != token.selected[earlier]);
    sum += static_cast<double>(token.weights[k]);
    filled = true;
  }
  // A quotient by a sum of K terms, K of them added: each of the 2K operations is off by at most u, and the sum is one.
  if (R::spec.weights_sum_to_one && filled)
    REQUIRE(std::abs(sum - 1) <= 2.0 * static_cast<double>(token.weights.size()) * unit_roundoff<M>);
}

template <class M, class R>
void router_row_laws(const R& router, index_t experts, const routing_token<M>& at) {
  serial_group serial;
  const auto columns = static_cast<std::size_t>(experts + R::spec.extra_logits);
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const std::vector<M> logits = normal_values<M>(columns, seed);
    const routed_token<M> token = route_one(router, serial, logits, at);
    router_table_law<R>(token, experts);
    REQUIRE(route_one(router, serial, logits, at) == token);

    // A group that visits in another order selects the same, and sums of E terms are off by at most E u from one
    // another: 4 (E + 4) u covers a softmax and its gradient.
    shuffled_group shuffled(static_cast<std::uint32_t>(seed));
    const routed_token<M> other = route_one(router, shuffled, logits, at);
    REQUIRE(other.selected == token.selected);
    const std::vector<M> d_weights = normal_values<M>(token.weights.size(), 100 + seed);
    const double allowed = 4.0 * static_cast<double>(experts + 4) * unit_roundoff<M> * gradient_scale(token, d_weights);
    REQUIRE(largest_difference(other.weights, token.weights) <= allowed);
    if (!R::spec.logit_gradients) continue;
    const std::vector<M> d_logits = route_one_backward(router, serial, logits, token, d_weights, at);
    const std::vector<M> other_d = route_one_backward(router, shuffled, logits, token, d_weights, at);
    REQUIRE(largest_difference(other_d, d_logits) <= allowed);
  }

  // Logits far apart: nothing overflows.
  std::vector<M> far = separated_logits<M>(static_cast<index_t>(columns), 3);
  for (M& logit : far) logit *= M(40000);
  const routed_token<M> token = route_one(router, serial, far, at);
  router_table_law<R>(token, experts);
  if (!R::spec.logit_gradients) return;
  REQUIRE(all_finite(route_one_backward(router, serial, far, token, std::vector<M>(token.weights.size(), M(1)), at)));
}

// Ties go to the lower index: no expert is chosen while an equal one before it is not. Three levels make many ties.
template <class M, class R>
void router_tie_law(const R& router, index_t experts) {
  serial_group serial;
  const random_source draw{11, random_stream::sampling};
  for (std::uint64_t round = 0; round < 8; ++round) {
    std::vector<M> tied(static_cast<std::size_t>(experts + R::spec.extra_logits));
    for (std::size_t i = 0; i < tied.size(); ++i)
      tied[i] = round == 0 ? M(0.5) : static_cast<M>(draw.below(3, round, i));
    const routed_token<M> chosen = route_one(router, serial, tied);
    router_table_law<R>(chosen, experts);
    shuffled_group shuffled(static_cast<std::uint32_t>(round + 1));
    REQUIRE(route_one(router, shuffled, tied).selected == chosen.selected);
    std::vector<bool> is_chosen(static_cast<std::size_t>(experts), false);
    for (const std::int32_t expert : chosen.selected)
      if (expert >= 0) is_chosen[static_cast<std::size_t>(expert)] = true;
    for (std::size_t i = 0; i < is_chosen.size(); ++i)
      for (std::size_t before = 0; before < i; ++before)
        if (is_chosen[i] && tied[before] == tied[i]) REQUIRE(is_chosen[before]);
  }
}

// d_logits is the derivative of sum_k d_weights[k] weights[k] where the selection does not change. A router that drew
// other noise in its backward pass would fail here.
template <class R>
void router_gradient_law(const R& router, index_t experts, const routing_token<double>& at) {
  serial_group serial;
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    std::vector<double> logits = separated_logits<double>(experts + R::spec.extra_logits, seed);
    const routed_token<double> token = route_one(router, serial, logits, at);
    const std::vector<double> d_weights = normal_values<double>(token.weights.size(), 200 + seed);
    const std::vector<double> d_logits = route_one_backward(router, serial, logits, token, d_weights, at);
    const auto loss = [&] {
      const routed_token<double> now = route_one(router, serial, logits, at);
      if (now.selected != token.selected) FAIL("the selection changed with logits apart by much more than the step");
      double sum = 0;
      for (std::size_t k = 0; k < d_weights.size(); ++k) sum += d_weights[k] * now.weights[k];
      return sum;
    };
    if (all_zero(d_logits))
      require_constant(loss, logits);
    else
      REQUIRE(gradient_mismatch(loss, logits, d_logits) == "");

    // float against double on the same logits and upstream gradients. exp is off by 5 u(float) at most, sums of E terms
    // by E u, logits and noise below 32 in size by 32 u.
    std::vector<float> narrow_logits(logits.begin(), logits.end()), narrow_d(d_weights.begin(), d_weights.end());
    std::vector<float> bias;
    routing_token<float> narrow_at{at.at, at.layer, at.token, at.id, nullptr};
    if (at.selection_bias != nullptr) {
      bias.assign(at.selection_bias, at.selection_bias + experts);
      narrow_at.selection_bias = bias.data();
    }
    const routed_token<float> narrow = route_one(router, serial, narrow_logits, narrow_at);
    REQUIRE(narrow.selected == token.selected);
    const std::vector<float> narrow_d_logits =
        route_one_backward(router, serial, narrow_logits, narrow, narrow_d, narrow_at);
    const double allowed = 4.0 * static_cast<double>(experts + 42) * 0x1p-24 * gradient_scale(token, d_weights);
    REQUIRE(largest_difference(narrow.weights, token.weights) <= allowed);
    REQUIRE(largest_difference(narrow_d_logits, d_logits) <= allowed);
  }
}

// A bias moves the selection of a router that reads it, and is in no weight. Other routers do not look at it.
template <class R>
void router_bias_law(const R& router, index_t experts, routing_token<double> at) {
  serial_group serial;
  const std::vector<double> logits = separated_logits<double>(experts + R::spec.extra_logits, 5);
  at.selection_bias = nullptr;
  const routed_token<double> plain = route_one(router, serial, logits, at);
  std::vector<double> bias(static_cast<std::size_t>(experts), 0.0);
  at.selection_bias = bias.data();
  REQUIRE(route_one(router, serial, logits, at) == plain);
  const auto is_selected = [](const routed_token<double>& token, std::int32_t expert) {
    return std::find(token.selected.begin(), token.selected.end(), expert) != token.selected.end();
  };
  for (std::int32_t expert = 0; expert < experts; ++expert) {
    if (is_selected(plain, expert)) continue;
    bias[static_cast<std::size_t>(expert)] = 100;
    const routed_token<double> moved = route_one(router, serial, logits, at);
    REQUIRE((is_selected(moved, expert) == R::spec.selection_bias));
    if (!R::spec.selection_bias) REQUIRE(moved == plain);
    bias[static_cast<std::size_t>(expert)] = 0;
  }
  // A bias that changes no selection changes no bit.
  for (const std::int32_t expert : plain.selected)
    if (expert >= 0) bias[static_cast<std::size_t>(expert)] = 100;
  REQUIRE(route_one(router, serial, logits, at) == plain);
}

// Probabilities are non-negative and sum to one, all copies counted; their backward and the derivative of logsumexp
// agree with finite differences; logsumexp(l + c) = logsumexp(l) + c.
template <class R>
void router_probability_laws(const R& router, index_t experts) {
  serial_group serial;
  const auto rule = graft::detail::probabilities_of(router);
  const index_t extra = R::spec.extra_logits, columns = experts + extra;
  const double choices = rule.template choices<double>(experts);
  REQUIRE(choices >= static_cast<double>(experts));
  const double copies = extra > 0 ? (choices - static_cast<double>(experts)) / static_cast<double>(extra) : 0.0;
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    std::vector<double> logits = normal_values<double>(static_cast<std::size_t>(columns), 30 + seed);
    const std::vector<double> a = normal_values<double>(logits.size(), 40 + seed);
    const auto d_probability = [&](index_t i) { return a[static_cast<std::size_t>(i)]; };
    const auto p = rule.prepare(serial, static_cast<const double*>(logits.data()), experts);
    double sum = 0;
    for (index_t i = 0; i < columns; ++i) {
      REQUIRE(p(i) >= 0);
      sum += (i < experts ? 1.0 : copies) * p(i);
    }
    REQUIRE(std::abs(sum - 1) <= 4.0 * static_cast<double>(columns + 4) * 0x1p-53);  // two sums of N terms

    std::vector<double> gradient(logits.size(), 0.5);  // is added to
    rule.backward(serial, p, experts, d_probability, gradient.data());
    for (double& g : gradient) g -= 0.5;
    const auto loss = [&] {
      const auto now = rule.prepare(serial, static_cast<const double*>(logits.data()), experts);
      double total = 0;
      for (index_t i = 0; i < columns; ++i) total += d_probability(i) * now(i);
      return total;
    };
    if (all_zero(gradient))  // one expert and no copies: its probability is 1
      require_constant(loss, logits);
    else
      REQUIRE(gradient_mismatch(loss, logits, gradient) == "");

    if constexpr (requires { p.log_sum_exp(); }) {
      const auto lse = [&] {
        return rule.prepare(serial, static_cast<const double*>(logits.data()), experts).log_sum_exp();
      };
      std::vector<double> d_lse;
      for (index_t i = 0; i < columns; ++i) d_lse.push_back(p.d_log_sum_exp(i));
      REQUIRE(gradient_mismatch(lse, logits, d_lse) == "");
      const double before = lse();
      for (double& logit : logits) logit += 1;
      REQUIRE(std::abs(lse() - before - 1) <= 8.0 * static_cast<double>(columns) * 0x1p-53 * (1 + std::abs(before)));
    }
  }
}

// Slots used lie in (0, K], and are K where none is left empty. Evaluation depends neither on the seed nor on the step.
template <class R>
void router_promises(const R& router, index_t experts, const router_law_options& options) {
  for (const index_t layer : {0, 1, 5}) {
    const double used = graft::detail::slots_used(router, layer, experts);
    REQUIRE(used > 0);
    REQUIRE(used <= R::spec.experts_per_token);
    if (!R::spec.empty_slots) REQUIRE(used == R::spec.experts_per_token);
  }
  if (options.noise_in_evaluation) return;
  serial_group serial;
  const std::vector<double> logits =
      normal_values<double>(static_cast<std::size_t>(experts + R::spec.extra_logits), 60);
  routing_token<double> at = law_token<double>(false, 1);
  const routed_token<double> token = route_one(router, serial, logits, at);
  at.at.seed += 1;
  at.at.step = at.at.step + 1000;
  at.at.first_token += 77;
  REQUIRE(route_one(router, serial, logits, at) == token);
}

template <class M, class R>
void router_laws_of_type(const R& router, index_t experts) {
  const std::vector<M> bias = normal_values<M>(static_cast<std::size_t>(experts), 70);
  for (const bool training : {false, true}) {
    for (const index_t layer : {0, 1}) {
      for (const M* selection_bias : {static_cast<const M*>(nullptr), bias.data()}) {
        if (selection_bias != nullptr && !R::spec.selection_bias) continue;
        CAPTURE(training, layer, selection_bias != nullptr);
        const routing_token<M> at = law_token<M>(training, layer, selection_bias);
        router_row_laws<M>(router, experts, at);
        if constexpr (std::is_same_v<M, double> && R::spec.logit_gradients) router_gradient_law(router, experts, at);
        if constexpr (std::is_same_v<M, double>) router_bias_law(router, experts, at);
      }
    }
  }
}

}  // namespace detail

// All laws, for as many experts as slots, one more, and numbers that are no power of two and wider than a vector, as
// far as the router's check accepts them. At least one must be accepted.
template <Router R>
void router_laws(const R& router, const router_law_options& options = {}) {
  static_assert(check_router<R>());
  constexpr index_t slots = R::spec.experts_per_token;
  int accepted = 0;
  for (const index_t experts :
       options.experts.empty() ? std::vector<index_t>{slots, slots + 1, slots + 6, slots + 70} : options.experts) {
    CAPTURE(R::name, slots, experts);
    try {
      graft::detail::check_experts(router, experts);
    } catch (const error&) {
      continue;
    }
    ++accepted;
    if constexpr (RowRouter<R>) {
      detail::router_laws_of_type<float>(router, experts);
      detail::router_laws_of_type<double>(router, experts);
      detail::router_promises(router, experts, options);
      if (R::spec.logits && options.ties_by_index && !options.noise_in_evaluation) {
        detail::router_tie_law<float>(router, experts);
        detail::router_tie_law<double>(router, experts);
      }
    }
    if constexpr (R::spec.logits) detail::router_probability_laws(router, experts);
    router_pass_laws<float>(router, experts, 12);
    router_pass_laws<double>(router, experts, experts > 40 ? 300 : 12);  // enough rows for a second thread
  }
  REQUIRE(accepted > 0);
}

}  // namespace graft::test
