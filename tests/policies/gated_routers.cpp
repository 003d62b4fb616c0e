// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Routers over gates of their own: flex_olmo, context_top_k, ermoe.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/router/context_router.hpp>
#include <graft/policies/router/ermoe.hpp>
#include <graft/policies/router/flex_olmo.hpp>

#include "laws/gate_laws.hpp"
#include "laws/router_laws.hpp"

namespace gated_routers_tests {

using namespace graft;
using namespace graft::test;

static_assert(check_router<flex_olmo<2>>() && check_router<flex_olmo_renormalised<2>>() &&
              check_router<context_top_1>() && check_router<sequence_context_top_k<2>>() && check_router<ermoe<2>>());
static_assert(context_top_1::spec.causal && !sequence_context_top_k<2>::spec.causal,
              "graft::test: the router is as causal as its gate. Pass it on.");

namespace {

// The K best of a row by repeated search, ties to the lower index.
std::vector<std::int32_t> best_of(const std::vector<double>& scores, std::size_t count) {
  std::vector<std::int32_t> order;
  while (order.size() < count) {
    std::int32_t best = -1;
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(scores.size()); ++i)
      if (std::find(order.begin(), order.end(), i) == order.end() &&
          (best < 0 || scores[static_cast<std::size_t>(i)] > scores[static_cast<std::size_t>(best)]))
        best = i;
    order.push_back(best);
  }
  return order;
}

// Gate and router on a whole pass: selected and weights (T, K).
template <class R, class M, class G>
std::pair<tensor<std::int32_t>, tensor<M>> route_pass(const R& router, gate_case<G, M>& of) {
  context<cpu> ctx({.threads = 1});
  workspace_scope scope(ctx);
  of.forward();
  tensor<std::int32_t> selected(of.logits.rows, R::spec.experts_per_token, -7);
  tensor<M> weights(of.logits.rows, R::spec.experts_per_token, -7);
  route_forward(ctx, router, no_balancer{}, of.pass(), selected.matrix(), weights.matrix(),
                std::as_const(of.logits).matrix());
  return {selected, weights};
}

// Loss sum(probe * weights) through router and gate, by finite differences of every parameter and x.
template <class R, class G>
void check_router_and_gate(const R& router, gate_case<G, double>& of) {
  const auto before = route_pass(router, of);
  const tensor<std::int32_t>& selected = before.first;
  const tensor<double>& weights = before.second;
  tensor<double> probe = tensor<double>::random(weights.rows, weights.columns, 31);
  {
    context<cpu> ctx({.threads = 1});
    workspace_scope scope(ctx);
    tensor<std::int32_t> chosen = selected;
    tensor<double> again = weights;
    const auto statistics = route_forward(ctx, router, no_balancer{}, of.pass(), chosen.matrix(), again.matrix(),
                                          std::as_const(of.logits).matrix());
    tensor<double> d_weights = probe;
    route_backward(ctx, router, no_balancer{}, of.pass(), of.d_logits.matrix(), statistics,
                   std::as_const(of.logits).matrix(), std::as_const(chosen).matrix(), std::as_const(again).matrix(),
                   d_weights.matrix(), 1.0);
  }
  of.backward();
  const auto loss = [&] {
    const auto now = route_pass(router, of);
    REQUIRE(now.first.values == selected.values);
    double sum = 0;
    for (std::size_t i = 0; i < probe.values.size(); ++i) sum += probe.values[i] * now.second.values[i];
    return sum;
  };
  REQUIRE(gradient_mismatch(loss, of.values, of.gradients) == "");
  REQUIRE(gradient_mismatch(loss, of.x.values, of.d_x.values) == "");
}

}  // namespace

TEST_CASE("routers over gates of their own keep the laws of routers", "[policies]") {
  router_laws(flex_olmo<1>{});
  router_laws(flex_olmo<3>{});
  router_laws(flex_olmo_renormalised<2>{});
  router_laws(context_top_1{});
  router_laws(sequence_context_top_k<2>{});
  // Logits of the laws are multiples of 1/4: the threshold lies between two, and the best of 9 or 72 pass it.
  ermoe<2> two;
  ermoe<3> three;
  two.select.threshold = three.select.threshold = 0.4;
  router_laws(two, {.experts = {9, 72}});
  router_laws(three, {.experts = {9, 72}});
}

TEST_CASE("flex_olmo: softmax over all of W x + min(b, 0), the K best as they are", "[policies]") {
  gate_case<owner_gate, double> of(owner_gate{}, 6, 5, 2, 6, true);
  for (int e = 0; e < 5; ++e) *of.tensor_values(std::to_string(e) + ".bias.weight") = e == 3 ? 0.4 : -0.4 * e;
  const auto [selected, weights] = route_pass(flex_olmo<2>{}, of);
  const auto [same, renormalised] = route_pass(flex_olmo_renormalised<2>{}, of);
  REQUIRE(same.values == selected.values);
  for (index_t t = 0; t < of.x.rows; ++t) {
    std::vector<double> scores;
    for (int e = 0; e < 5; ++e) {
      double logit = e == 0 || e == 3 ? 0 : -0.4 * e;
      for (index_t i = 0; i < 6; ++i) logit += of.tensor_values(std::to_string(e) + ".rows.weight")[i] * of.x.at(t, i);
      scores.push_back(std::exp(logit));
    }
    double sum = 0, kept = 0;
    for (const double score : scores) sum += score;
    const auto best = best_of(scores, 2);
    for (const auto e : best) kept += scores[static_cast<std::size_t>(e)];
    for (std::size_t k = 0; k < 2; ++k) {
      const auto slot = static_cast<index_t>(k);
      const double score = scores[static_cast<std::size_t>(best[k])];
      REQUIRE(selected.matrix()(t, slot) == (of.padding(t) ? -1 : best[k]));
      // Logits of 7 terms below 10, an exponential, a sum of 5.
      REQUIRE(std::abs(weights.at(t, slot) - (of.padding(t) ? 0 : score / sum)) <= 200 * 0x1p-53);
      REQUIRE(std::abs(renormalised.at(t, slot) - (of.padding(t) ? 0 : score / kept)) <= 200 * 0x1p-53);
    }
  }
  check_router_and_gate(flex_olmo<2>{}, of);
}

TEMPLATE_TEST_CASE("flex_olmo: with the other owners masked the merged router is an owner's own", "[policies]", float,
                   double) {
  constexpr index_t width = 6, owners = 3, owner = 2;
  gate_case<owner_gate, TestType> merged(owner_gate{}, width, owners + 1, 2, 6, false);
  gate_case<owner_gate, TestType> own(owner_gate{}, width, 2, 2, 6, false);
  const auto take = [&](int to, index_t from) {
    for (const char* part : {".rows.weight", ".bias.weight"}) {
      const index_t size = part[1] == 'r' ? width : 1;
      std::copy_n(merged.tensor_values(std::to_string(from) + part), size,
                  own.tensor_values(std::to_string(to) + part));
    }
  };
  take(0, 0);
  take(1, owner);
  const auto [selected, weights] = route_pass(flex_olmo<2>{}, own);

  merged.forward();
  context<cpu> ctx({.threads = 1});
  workspace_scope scope(ctx);
  tensor<std::int32_t> all(own.x.rows, 2);
  tensor<TestType> all_weights(own.x.rows, 2);
  for (index_t t = 0; t < own.x.rows; ++t)
    for (index_t e = 1; e <= owners; ++e)
      if (e != owner) merged.logits(t, e) = -std::numeric_limits<TestType>::infinity();
  route_forward(ctx, flex_olmo<2>{}, no_balancer{}, merged.pass(), all.matrix(), all_weights.matrix(),
                std::as_const(merged.logits).matrix());
  for (index_t t = 0; t < own.x.rows; ++t)
    for (index_t k = 0; k < 2; ++k) {
      REQUIRE(all(t, k) == (selected.matrix()(t, k) == 0 ? 0 : static_cast<std::int32_t>(owner)));
      // Products of 6 terms, which may be cut differently for 4 rows and for 2, then a softmax.
      REQUIRE(std::abs(all_weights.at(t, k) - weights.at(t, k)) <= 200 * unit_roundoff<TestType>);
      REQUIRE(weights.at(t, k) < 1);
    }
}

TEST_CASE("flex_olmo: a larger bias below zero moves tokens to the public expert", "[policies]") {
  gate_case<owner_gate, double> of(owner_gate{}, 6, 2, 4, 16, false);
  const auto owned = [&](double bias) {
    *of.tensor_values("1.bias.weight") = bias;
    const auto [selected, weights] = route_pass(flex_olmo<1>{}, of);
    return std::count(selected.values.begin(), selected.values.end(), 1);
  };
  const auto none = owned(0), some = owned(-0.5), fewer = owned(-2);
  CHECK(owned(3) == none);  // min(b, 0)
  CHECK(some < none);
  CHECK(fewer < some);
  CHECK(owned(-100) == 0);
}

TEST_CASE("context_top_k: the un-renormalised weight teaches rows and lambda, also with one slot", "[policies]") {
  gate_case<context_gate, double> of(context_gate{}, 6, 4, 2, 9, true);
  check_router_and_gate(context_top_1{}, of);
  CHECK(*of.tensor_gradients("share.weight") != 0);
  check_router_and_gate(context_top_k<3>{}, of);
  gate_case<sequence_context_gate, double> whole(sequence_context_gate{}, 6, 4, 2, 9, true);
  check_router_and_gate(sequence_context_top_k<2>{}, whole);
}

TEST_CASE("ermoe: the best above the threshold, their scores normalised, else the best", "[policies]") {
  gate_case<eigen_gate, double> of(eigen_gate{.rank = 2}, 8, 5, 3, 12, true);
  int eligible_counts[4] = {};
  for (const double threshold : {0.0, 0.5, 0.9}) {
    ermoe<3> router;
    router.select.threshold = threshold;
    const auto [selected, weights] = route_pass(router, of);
    for (index_t t = 0; t < of.x.rows; ++t) {
      if (of.padding(t)) continue;
      std::vector<double> scores;
      for (index_t e = 0; e < 5; ++e) scores.push_back(of.logits.at(t, e));
      std::vector<std::int32_t> want;
      for (const auto e : best_of(scores, 3))
        if (scores[static_cast<std::size_t>(e)] > threshold) want.push_back(e);
      ++eligible_counts[want.size()];
      if (want.empty()) want = best_of(scores, 3);
      double sum = 0;
      for (const auto e : want) sum += std::max(scores[static_cast<std::size_t>(e)], 0.0);
      for (std::size_t k = 0; k < 3; ++k) {
        const auto slot = static_cast<index_t>(k);
        REQUIRE(selected.matrix()(t, slot) == (k < want.size() ? want[k] : -1));
        const double weight = k >= want.size() ? 0
                              : sum > 0        ? std::max(scores[static_cast<std::size_t>(want[k])], 0.0) / sum
                                               : 1.0 / static_cast<double>(want.size());
        REQUIRE(std::abs(weights.at(t, slot) - weight) <= 8 * 0x1p-53);
      }
    }
  }
  for (const int count : eligible_counts) CHECK(count > 0);  // no case was missed

  // The first token of a sequence agrees with itself in every basis.
  const auto first = route_pass(ermoe<3>{}, of);
  for (int k = 0; k < 3; ++k) CHECK(first.first.values[static_cast<std::size_t>(k)] == k);

  ermoe<3> wrong;
  wrong.select.threshold = -0.1;
  CHECK_THROWS_AS(wrong.check(5), error);
}

TEST_CASE("ermoe: gradients reach the bases, also where no expert is eligible", "[policies]") {
  gate_case<eigen_gate, double> of(eigen_gate{.rank = 2}, 8, 5, 1, 12, false);
  for (const double threshold : {0.3, 0.999999}) {
    CAPTURE(threshold);
    ermoe<2> router;
    router.select.threshold = threshold;
    check_router_and_gate(router, of);
    serial_group serial;
    of.forward();
    for (index_t t = 1; t < of.x.rows; ++t) {
      std::vector<double> logits(of.logits.matrix().row(t), of.logits.matrix().row(t) + 5);
      const routed_token<double> token = route_one(router, serial, logits);
      const std::vector<double> d_weights = {0.7, -1.3};
      const std::vector<double> d_logits = route_one_backward(router, serial, logits, token, d_weights);
      const auto loss = [&] {
        const routed_token<double> now = route_one(router, serial, logits);
        REQUIRE(now.selected == token.selected);
        return d_weights[0] * now.weights[0] + d_weights[1] * now.weights[1];
      };
      if (graft::test::detail::all_zero(d_logits))  // one expert, or one with a positive score
        REQUIRE((token.selected[1] < 0 || token.weights[1] == 0 ||
                 logits[static_cast<std::size_t>(token.selected[0])] <= 0));
      else
        REQUIRE(gradient_mismatch(loss, logits, d_logits) == "");
    }
  }
}

TEST_CASE("ermoe: weights of scores that are not positive", "[policies]") {
  serial_group serial;
  const auto route = [&](const std::vector<double>& scores) { return route_one(ermoe<2>{}, serial, scores); };
  CHECK(route({-0.5, 0.2, -0.1}).selected == std::vector<std::int32_t>{1, 2});
  CHECK(route({-0.5, 0.2, -0.1}).weights == std::vector<double>{1, 0});
  CHECK(route({-0.5, -0.2, -0.1}).weights == std::vector<double>{0.5, 0.5});
  CHECK(route({0.1, 0.3, 0.2}).weights == std::vector<double>{0.3 / 0.5, 0.2 / 0.5});
  CHECK(route({0.6, 0.3, 0.2}).selected == std::vector<std::int32_t>{0, -1});
  CHECK(route({0.5, 0.5, 0.6}).selected == std::vector<std::int32_t>{2, -1});  // 0.5 is not above 0.5
  CHECK(route({0.5, 0.5, 0.5}).selected == std::vector<std::int32_t>{0, 1});
}

}  // namespace gated_routers_tests
