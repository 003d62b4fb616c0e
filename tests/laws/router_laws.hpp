// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The laws of the concept Router (policies/router/router.hpp). A test of a router of your own:
//
//   #include "catch.hpp"
//   #include "laws/router_laws.hpp"
//   TEST_CASE("my_router keeps the laws of routers") { graft::test::router_laws(my_router{}); }

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/core/philox.hpp>
#include <graft/layers/routing.hpp>
#include <graft/policies/router/router.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"
#include "shuffled_group.hpp"

namespace graft::test {

// What a router says about one token.
template <class M>
struct routed_token {
  std::vector<std::int32_t> selected;  // (K)
  std::vector<M> weights;              // (K)
  bool operator==(const routed_token& other) const {
    return selected == other.selected &&
           std::memcmp(weights.data(), other.weights.data(), weights.size() * sizeof(M)) == 0;
  }
};

template <class M, class R, class Group>
routed_token<M> route_one(const R& router, Group& group, const std::vector<M>& logits) {
  constexpr auto slots = static_cast<std::size_t>(R::spec.experts_per_token);
  routed_token<M> token{std::vector<std::int32_t>(slots, -7),
                        std::vector<M>(slots, std::numeric_limits<M>::quiet_NaN())};
  router.forward(group, logits.data(), static_cast<index_t>(logits.size()), token.selected.data(),
                 token.weights.data());
  return token;
}

template <class M, class R, class Group>
std::vector<M> route_one_backward(const R& router, Group& group, const std::vector<M>& logits,
                                  const routed_token<M>& token, const std::vector<M>& d_weights) {
  std::vector<M> d_logits(logits.size(), std::numeric_limits<M>::quiet_NaN());  // must be replaced, not added to
  router.backward(group, logits.data(), static_cast<index_t>(logits.size()), token.selected.data(),
                  token.weights.data(), d_weights.data(), d_logits.data());
  return d_logits;
}

namespace detail {

// Values -E/8, ..., 1/4 apart, in random order: no small change of one alters their order. Exact in float.
template <class M>
std::vector<M> separated_logits(index_t experts, std::uint64_t seed) {
  std::vector<M> logits(static_cast<std::size_t>(experts));
  for (index_t i = 0; i < experts; ++i)
    logits[static_cast<std::size_t>(i)] = static_cast<M>(0.25 * static_cast<double>(i - experts / 2));
  const random_source draw{seed, random_stream::data};
  for (std::size_t i = logits.size(); i > 1; --i) std::swap(logits[i - 1], logits[draw.below(i, 0, i)]);
  return logits;
}

template <class M>
std::vector<M> normal_values(std::size_t count, std::uint64_t seed) {
  return tensor<M>::random(1, static_cast<index_t>(count), seed).values;
}

// Slots hold different experts that exist; weights of filled slots are finite and sum to one where that is declared.
template <class R, class M>
void router_table_law(const routed_token<M>& token, index_t experts) {
  double sum = 0;
  bool filled = false;
  for (std::size_t k = 0; k < token.selected.size(); ++k) {
    REQUIRE(token.selected[k] >= -1);
    REQUIRE(token.selected[k] < experts);
    if (token.selected[k] < 0) continue;
    for (std::size_t earlier = 0; earlier < k; ++earlier) REQUIRE(token.selected[k] != token.selected[earlier]);
    REQUIRE(std::isfinite(token.weights[k]));
    sum += static_cast<double>(token.weights[k]);
    filled = true;
  }
  // A quotient by a sum of K terms, K of them added: each of the 2K operations is off by at most u, and the sum is one.
  if (R::spec.weights_sum_to_one && filled)
    REQUIRE(std::abs(sum - 1) <= 2.0 * static_cast<double>(token.weights.size()) * unit_roundoff<M>);
}

template <class M, class R>
void router_row_laws(const R& router, index_t experts) {
  serial_group serial;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const std::vector<M> logits = normal_values<M>(static_cast<std::size_t>(experts), seed);
    const routed_token<M> token = route_one(router, serial, logits);
    router_table_law<R>(token, experts);
    REQUIRE(route_one(router, serial, logits) == token);

    // A group that visits in another order selects the same, and sums of E terms are off by at most E u from one
    // another: 4 (E + 4) u covers a softmax and its gradient.
    const std::vector<M> d_weights = normal_values<M>(token.weights.size(), 100 + seed);
    const std::vector<M> d_logits = route_one_backward(router, serial, logits, token, d_weights);
    shuffled_group shuffled(static_cast<std::uint32_t>(seed));
    const routed_token<M> other = route_one(router, shuffled, logits);
    REQUIRE(other.selected == token.selected);
    const std::vector<M> other_d = route_one_backward(router, shuffled, logits, token, d_weights);
    double scale = 1;
    for (const M d : d_weights) scale += std::abs(static_cast<double>(d));
    const double allowed = 4.0 * static_cast<double>(experts + 4) * unit_roundoff<M> * scale;
    for (std::size_t k = 0; k < token.weights.size(); ++k)
      if (token.selected[k] >= 0)
        REQUIRE(std::abs(static_cast<double>(other.weights[k] - token.weights[k])) <= allowed);
    for (std::size_t i = 0; i < d_logits.size(); ++i)
      REQUIRE(std::abs(static_cast<double>(other_d[i] - d_logits[i])) <= allowed);
  }

  // Logits far apart: nothing overflows.
  std::vector<M> far = separated_logits<M>(experts, 3);
  for (M& logit : far) logit *= M(40000);
  const routed_token<M> token = route_one(router, serial, far);
  router_table_law<R>(token, experts);
  for (const M d : route_one_backward(router, serial, far, token, std::vector<M>(token.weights.size(), M(1))))
    REQUIRE(std::isfinite(d));

  // Ties go to the lower index: no expert is chosen while an equal one before it is not. Three levels make many ties.
  const random_source draw{11, random_stream::sampling};
  for (std::uint64_t round = 0; round < 8; ++round) {
    std::vector<M> tied(static_cast<std::size_t>(experts));
    for (std::size_t i = 0; i < tied.size(); ++i)
      tied[i] = round == 0 ? M(0.5) : static_cast<M>(draw.below(3, round, i));
    const routed_token<M> chosen = route_one(router, serial, tied);
    router_table_law<R>(chosen, experts);
    shuffled_group shuffled(static_cast<std::uint32_t>(round + 1));
    REQUIRE(route_one(router, shuffled, tied).selected == chosen.selected);
    std::vector<bool> is_chosen(tied.size(), false);
    for (const std::int32_t expert : chosen.selected)
      if (expert >= 0) is_chosen[static_cast<std::size_t>(expert)] = true;
    for (std::size_t i = 0; i < tied.size(); ++i)
      for (std::size_t before = 0; before < i; ++before)
        if (is_chosen[i] && tied[before] == tied[i]) REQUIRE(is_chosen[before]);
  }
}

// d_logits is the derivative of sum_k d_weights[k] weights[k] where the selection does not change.
template <class R>
void router_gradient_law(const R& router, index_t experts) {
  if (!R::spec.logit_gradients) return;
  serial_group serial;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    std::vector<double> logits = separated_logits<double>(experts, seed);
    const routed_token<double> token = route_one(router, serial, logits);
    const std::vector<double> d_weights = normal_values<double>(token.weights.size(), 200 + seed);
    const std::vector<double> d_logits = route_one_backward(router, serial, logits, token, d_weights);
    const auto loss = [&] {
      const routed_token<double> now = route_one(router, serial, logits);
      REQUIRE(now.selected == token.selected);
      double sum = 0;
      for (std::size_t k = 0; k < d_weights.size(); ++k)
        if (now.selected[k] >= 0) sum += d_weights[k] * now.weights[k];
      return sum;
    };
    const bool constant =
        R::spec.weights_sum_to_one && R::spec.experts_per_token == 1;  // the weight is 1, whatever the logits
    if (constant || (experts == 1 && std::all_of(d_logits.begin(), d_logits.end(), [](double d) { return d == 0; }))) {
      const double at = loss();
      for (std::size_t i = 0; i < logits.size(); ++i) {
        REQUIRE(d_logits[i] == 0);
        logits[i] += 0.01;
        REQUIRE(loss() == at);
        logits[i] -= 0.01;
      }
    } else {
      REQUIRE(gradient_mismatch(loss, logits, d_logits) == "");
    }

    // float against double on the same logits and upstream gradients. exp is off by 5 u(float) at most, sums of E terms
    // by E u.
    std::vector<float> narrow_logits(logits.begin(), logits.end()), narrow_d(d_weights.begin(), d_weights.end());
    const routed_token<float> narrow = route_one(router, serial, narrow_logits);
    REQUIRE(narrow.selected == token.selected);
    const std::vector<float> narrow_d_logits = route_one_backward(router, serial, narrow_logits, narrow, narrow_d);
    double scale = 1;
    for (const double d : d_weights) scale += std::abs(d);
    const double allowed = 4.0 * static_cast<double>(experts + 10) * 0x1p-24 * scale;
    for (std::size_t k = 0; k < d_weights.size(); ++k)
      if (token.selected[k] >= 0)
        REQUIRE(std::abs(static_cast<double>(narrow.weights[k]) - token.weights[k]) <= allowed);
    for (std::size_t i = 0; i < d_logits.size(); ++i)
      REQUIRE(std::abs(static_cast<double>(narrow_d_logits[i]) - d_logits[i]) <= allowed);
  }
}

// A token's result depends on its own logits alone: neither on the other tokens, nor on their order, nor on the
// threads.
template <class M, class R>
void router_token_laws(const R& router, index_t experts, index_t tokens) {
  constexpr index_t slots = R::spec.experts_per_token;
  const tensor<M> logits = tensor<M>::random(tokens, experts, 17);
  const auto route = [&](auto& ctx, const tensor<M>& of) {
    tensor<std::int32_t> selected(of.rows, slots);
    tensor<M> weights(of.rows, slots);
    route_forward(ctx, router, selected.matrix(), weights.matrix(), of.matrix());
    return std::pair{selected, weights};
  };
  context<cpu> one({.threads = 1}), two({.threads = 2});
  const auto [selected, weights] = route(one, logits);
  const auto [selected_two, weights_two] = route(two, logits);
  REQUIRE(selected.values == selected_two.values);
  REQUIRE(same_bits(weights, weights_two));

  serial_group serial;
  tensor<M> reversed(tokens, experts);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t i = 0; i < experts; ++i) reversed(t, i) = logits.matrix()(tokens - 1 - t, i);
  const auto [selected_back, weights_back] = route(one, reversed);
  for (index_t t = 0; t < tokens; ++t) {
    const M* row = logits.matrix().row(t);
    const routed_token<M> alone = route_one(router, serial, std::vector<M>(row, row + experts));
    const auto at = [&](const auto& of, index_t token) { return of.values.begin() + token * slots; };
    REQUIRE(std::equal(alone.selected.begin(), alone.selected.end(), at(selected, t)));
    REQUIRE(std::equal(alone.selected.begin(), alone.selected.end(), at(selected_back, tokens - 1 - t)));
    for (index_t k = 0; k < slots; ++k) {
      if (alone.selected[static_cast<std::size_t>(k)] < 0) continue;
      REQUIRE(alone.weights[static_cast<std::size_t>(k)] == weights.values[static_cast<std::size_t>(t * slots + k)]);
      REQUIRE(alone.weights[static_cast<std::size_t>(k)] ==
              weights_back.values[static_cast<std::size_t>((tokens - 1 - t) * slots + k)]);
    }
  }
}

}  // namespace detail

// All laws, for as many experts as slots, one more, and numbers that are no power of two and wider than a vector.
template <Router R>
void router_laws(const R& router) {
  static_assert(check_router<R>());
  constexpr index_t slots = R::spec.experts_per_token;
  for (const index_t experts : {slots, slots + 1, slots + 6, slots + 70}) {
    CAPTURE(R::name, slots, experts);
    detail::router_row_laws<float>(router, experts);
    detail::router_row_laws<double>(router, experts);
    detail::router_gradient_law(router, experts);
    detail::router_token_laws<float>(router, experts, 9);
  }
  detail::router_token_laws<float>(router, slots + 70, 300);  // enough rows for a second thread
  detail::router_token_laws<double>(router, slots + 70, 300);
}

}  // namespace graft::test
