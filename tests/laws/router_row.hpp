// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What tests of routers share: one token routed and its gradient, and logits that are good to test with.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include <graft/core/philox.hpp>
#include <graft/policies/router/router.hpp>

#include "reference.hpp"

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

namespace detail {

template <class R, class M>
index_t experts_of_logits(const std::vector<M>& logits) {
  return static_cast<index_t>(logits.size()) - R::spec.extra_logits;
}

}  // namespace detail

// logits (E + extra_logits); a router that reads none gets none.
template <class M, class R, class Group>
routed_token<M> route_one(const R& router, Group& group, const std::vector<M>& logits,
                          const std::type_identity_t<routing_token<M>>& at = {}) {
  constexpr auto slots = static_cast<std::size_t>(R::spec.experts_per_token);
  routed_token<M> token{std::vector<std::int32_t>(slots, -7),
                        std::vector<M>(slots, std::numeric_limits<M>::quiet_NaN())};
  router.forward(group, at, R::spec.logits ? logits.data() : nullptr, detail::experts_of_logits<R>(logits),
                 token.selected.data(), token.weights.data());
  return token;
}

template <class M, class R, class Group>
std::vector<M> route_one_backward(const R& router, Group& group, const std::vector<M>& logits,
                                  const routed_token<M>& token, const std::vector<M>& d_weights,
                                  const std::type_identity_t<routing_token<M>>& at = {}) {
  std::vector<M> d_logits(logits.size(), std::numeric_limits<M>::quiet_NaN());  // must be replaced, not added to
  router.backward(group, at, logits.data(), detail::experts_of_logits<R>(logits), token.selected.data(),
                  token.weights.data(), d_weights.data(), d_logits.data());
  return d_logits;
}

namespace detail {

// A token somewhere in a run.
template <class M>
routing_token<M> law_token(bool training, index_t layer, const M* selection_bias = nullptr) {
  return {{.seed = 99, .step = 3, .first_token = 40, .training = training}, layer, 2, 1234, selection_bias};
}

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

// About how large weights and gradients are: the unit of their rounding errors.
template <class M>
double gradient_scale(const routed_token<M>& token, const std::vector<M>& d_weights) {
  double scale = 1, largest = 1;
  for (const M d : d_weights) scale += std::abs(static_cast<double>(d));
  for (const M w : token.weights) largest = std::max(largest, std::abs(static_cast<double>(w)));
  return scale * largest;
}

// The largest |got[i] - want[i]|, NaN if one is.
template <class A, class B>
double largest_difference(const A& got, const B& want) {
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    if (!(difference <= worst) && !std::isnan(worst)) worst = difference;
  }
  return worst;
}
template <class Values>
bool all_finite(const Values& values) {
  return std::all_of(values.begin(), values.end(), [](auto value) { return std::isfinite(value); });
}
inline bool all_zero(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
}

// A gradient of zero everywhere must be that of a constant.
template <class F>
void require_constant(const F& loss, std::vector<double>& x) {
  const double at = loss();
  for (double& value : x) {
    const double before = value;
    value += 0.01;
    REQUIRE(loss() == at);
    value = before;
  }
}

}  // namespace detail

}  // namespace graft::test
