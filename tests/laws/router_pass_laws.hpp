// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The laws of the concept Router over a pass of many tokens (layers/routing.hpp). Part of router_laws.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/router/router.hpp>

#include "gradient_check.hpp"
#include "laws/router_row.hpp"
#include "reference.hpp"

namespace graft::test {

namespace detail {

// A pass over tokens and what became of it.
template <class M, class R>
struct routed_pass {
  static constexpr index_t slots = R::spec.experts_per_token;
  R router;
  pass_position at;
  index_t layer, experts;
  std::vector<std::int32_t> ids;  // -1: padding
  tensor<M> logits;               // (T, N)
  tensor<std::int32_t> selected{};
  tensor<M> weights{};

  index_t tokens() const { return static_cast<index_t>(ids.size()); }
  routing_pass<M, host_space> pass() const {
    return {.at = at,
            .layer = layer,
            .experts = experts,
            .ids = view<const std::int32_t, 1>(ids.data(), tokens()),
            .selection_bias = {}};
  }
  view<const M, 2> logit_matrix() const { return R::spec.logits ? logits.matrix() : view<const M, 2>{}; }

  void route(int threads = 1) {
    context<cpu> ctx({.threads = threads});
    workspace_scope scope(ctx);
    selected = tensor<std::int32_t>(tokens(), slots, -7);
    weights = tensor<M>(tokens(), slots, std::numeric_limits<M>::quiet_NaN());
    route_forward(ctx, router, no_balancer{}, pass(), selected.matrix(), weights.matrix(), logit_matrix());
  }
  tensor<M> backward(tensor<M> d_weights) {
    context<cpu> ctx({.threads = 1});
    workspace_scope scope(ctx);
    const auto statistics =
        route_forward(ctx, router, no_balancer{}, pass(), selected.matrix(), weights.matrix(), logit_matrix());
    tensor<M> d_logits(logits.rows, logits.columns, std::numeric_limits<M>::quiet_NaN());
    route_backward(ctx, router, no_balancer{}, pass(), d_logits.matrix(), statistics, logit_matrix(),
                   static_cast<const tensor<std::int32_t>&>(selected).matrix(),
                   static_cast<const tensor<M>&>(weights).matrix(), d_weights.matrix(), 1.0);
    return d_logits;
  }
  routed_token<M> token(index_t t) const {
    const auto first = static_cast<std::ptrdiff_t>(t * slots), last = first + static_cast<std::ptrdiff_t>(slots);
    return {{selected.values.begin() + first, selected.values.begin() + last},
            {weights.values.begin() + first, weights.values.begin() + last}};
  }
  std::vector<M> row(index_t t) const { return {logits.matrix().row(t), logits.matrix().row(t) + logits.columns}; }
  bool padding(index_t t) const { return ids[static_cast<std::size_t>(t)] < 0; }
};

// Padding fills no slot and has no gradient, and what its logits hold does not matter.
template <class M, class R>
void padding_law(routed_pass<M, R> pass) {
  const auto before = pass;
  for (index_t t = 0; t < pass.tokens(); ++t)
    for (index_t i = 0; i < pass.logits.columns; ++i)
      if (pass.padding(t)) pass.logits(t, i) = std::numeric_limits<M>::quiet_NaN();
  pass.route();
  REQUIRE(pass.selected.values == before.selected.values);
  REQUIRE(same_bits(pass.weights, before.weights));
  for (index_t t = 0; t < pass.tokens(); ++t)
    for (index_t k = 0; pass.padding(t) && k < pass.slots; ++k) {
      REQUIRE(pass.selected(t, k) == -1);
      REQUIRE(pass.weights(t, k) == M(0));
    }
  if constexpr (R::spec.logits) {
    const tensor<M> d_logits = pass.backward(tensor<M>(pass.tokens(), pass.slots, 1.0));
    REQUIRE(all_finite(d_logits.values));
    for (index_t t = 0; t < pass.tokens(); ++t)
      if (pass.padding(t))
        for (index_t i = 0; i < pass.logits.columns; ++i) REQUIRE(d_logits.at(t, i) == 0.0);
  }
}

// A token's result depends on its own logits, its id and where it stands alone: neither on the other tokens, nor on how
// a batch is cut into passes.
template <class M, class R>
void independence_laws(routed_pass<M, R>& pass) {
  serial_group serial;
  const auto agrees = [&](const routed_pass<M, R>& now) {
    for (index_t t = 0; t < now.tokens(); ++t)
      if (!now.padding(t)) REQUIRE(route_one(now.router, serial, now.row(t), now.pass().token(t)) == now.token(t));
  };
  agrees(pass);
  routed_pass<M, R> reversed = pass;
  std::reverse(reversed.ids.begin(), reversed.ids.end());
  for (index_t t = 0; t < pass.tokens(); ++t)
    std::copy_n(pass.logits.matrix().row(pass.tokens() - 1 - t), pass.logits.columns, reversed.logits.matrix().row(t));
  reversed.route();
  agrees(reversed);

  const index_t half = pass.tokens() / 2;
  routed_pass<M, R> second{pass.router,
                           pass.at,
                           pass.layer,
                           pass.experts,
                           {pass.ids.begin() + half, pass.ids.end()},
                           tensor<M>(pass.tokens() - half, pass.logits.columns)};
  second.at.first_token += half;
  std::copy_n(pass.logits.matrix().row(half), second.logits.values.size(), second.logits.values.begin());
  second.route();
  for (index_t t = 0; t < second.tokens(); ++t) REQUIRE(second.token(t) == pass.token(half + t));

  if constexpr (R::spec.logit_gradients) {
    const tensor<M> d_weights = tensor<M>::random(pass.tokens(), pass.slots, 19);
    const tensor<M> d_logits = pass.backward(d_weights);
    for (index_t t = 0; t < pass.tokens(); ++t) {
      if (pass.padding(t)) continue;
      const M* upstream = d_weights.matrix().row(t);
      const std::vector<M> alone =
          route_one_backward(pass.router, serial, pass.row(t), pass.token(t),
                             std::vector<M>(upstream, upstream + pass.slots), pass.pass().token(t));
      REQUIRE(std::equal(alone.begin(), alone.end(), d_logits.matrix().row(t)));
    }
  }
}

// d_logits of a whole pass by finite differences, for routers that look at all tokens at once.
template <class R>
void pass_gradient_law(routed_pass<double, R> pass) {
  const tensor<double> d_weights = tensor<double>::random(pass.tokens(), pass.slots, 19);
  const tensor<double> d_logits = pass.backward(d_weights);
  const auto selected = pass.selected.values;
  const auto loss = [&] {
    pass.route();
    REQUIRE(pass.selected.values == selected);
    double sum = 0;
    for (std::size_t i = 0; i < d_weights.values.size(); ++i) sum += d_weights.values[i] * pass.weights.values[i];
    return sum;
  };
  if (all_zero(d_logits.values))
    require_constant(loss, pass.logits.values);
  else
    REQUIRE(gradient_mismatch(loss, pass.logits.values, d_logits.values) == "");
}

}  // namespace detail

// The same bits on one thread and on two; filled_rows bounds the filled slots; and the laws above.
template <class M, Router R>
void router_pass_laws(const R& router, index_t experts, index_t tokens) {
  for (const bool training : {false, true}) {
    for (const index_t layer : {0, 1}) {
      CAPTURE(training, layer, tokens);
      detail::routed_pass<M, R> pass{router,
                                     {.seed = 99, .step = 3, .first_token = 40, .training = training},
                                     layer,
                                     experts,
                                     std::vector<std::int32_t>(static_cast<std::size_t>(tokens)),
                                     tensor<M>::random(tokens, experts + R::spec.extra_logits, 17)};
      for (index_t t = 0; t < tokens; ++t)
        pass.ids[static_cast<std::size_t>(t)] = t % 5 == 3 ? -1 : static_cast<std::int32_t>(3 * t + 1);
      pass.route();
      auto two = pass;
      two.route(2);
      REQUIRE(two.selected.values == pass.selected.values);
      REQUIRE(same_bits(two.weights, pass.weights));
      const auto filled =
          std::count_if(pass.selected.values.begin(), pass.selected.values.end(), [](auto e) { return e >= 0; });
      REQUIRE(filled <= graft::detail::filled_rows(router, tokens, experts));
      detail::padding_law(pass);
      if constexpr (RowRouter<R>)
        detail::independence_laws(pass);
      else if constexpr (std::is_same_v<M, double> && R::spec.logit_gradients)
        if (tokens < 20) detail::pass_gradient_law(pass);
    }
  }
}

}  // namespace graft::test
