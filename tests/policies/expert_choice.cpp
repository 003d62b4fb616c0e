// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// expert_choice: experts choose tokens.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/router/expert_choice.hpp>

#include "gradient_check.hpp"
#include "laws/router_laws.hpp"
#include "shuffled_context.hpp"

namespace expert_choice_tests {

using namespace graft;
using namespace graft::test;

static_assert(check_router<expert_choice<4>>() && TableRouter<expert_choice<4>>);
static_assert(!RowRouter<expert_choice<4>> && !expert_choice<4>::spec.causal && expert_choice<4>::spec.empty_slots);

namespace {

template <class M, int E>
struct choice_case {
  expert_choice<E> router;
  index_t positions;
  std::vector<std::int32_t> ids;
  tensor<M> logits;
  tensor<std::int32_t> selected{};
  tensor<M> weights{};

  choice_case(const expert_choice<E>& tested, index_t sequences, index_t length, std::uint64_t seed = 1)
      : router(tested),
        positions(length),
        ids(static_cast<std::size_t>(sequences * length), 7),
        logits(tensor<M>::random(sequences * length, E, seed)) {}

  routing_pass<M, host_space> pass() const {
    return {.at = {},
            .experts = E,
            .positions = positions,
            .ids = view<const std::int32_t, 1>(ids.data(), static_cast<index_t>(ids.size())),
            .selection_bias = {}};
  }
  template <class Context>
  void route(Context& ctx) {
    workspace_scope scope(ctx);
    selected = tensor<std::int32_t>(logits.rows, E, -7);
    weights = tensor<M>(logits.rows, E, std::nan(""));
    route_forward(ctx, router, no_balancer{}, pass(), selected.matrix(), weights.matrix(),
                  std::as_const(logits).matrix());
  }
  void route(int threads = 1) {
    context<cpu> ctx({.threads = threads});
    route(ctx);
  }
  tensor<M> backward(tensor<M> d_weights) {
    context<cpu> ctx({.threads = 1});
    workspace_scope scope(ctx);
    tensor<M> d_logits(logits.rows, E, std::nan(""));
    const auto statistics = route_forward(ctx, router, no_balancer{}, pass(), selected.matrix(), weights.matrix(),
                                          std::as_const(logits).matrix());
    route_backward(ctx, router, no_balancer{}, pass(), d_logits.matrix(), statistics, std::as_const(logits).matrix(),
                   std::as_const(selected).matrix(), std::as_const(weights).matrix(), d_weights.matrix(), 1.0);
    return d_logits;
  }
  index_t load(index_t expert, index_t first, index_t end) const {
    index_t count = 0;
    for (index_t t = first; t < end; ++t) count += selected.matrix()(t, expert) >= 0 ? 1 : 0;
    return count;
  }
  bool padding(index_t t) const { return ids[static_cast<std::size_t>(t)] < 0; }

  // The table from the definition: each expert sorts the tokens of each set.
  void check_against_definition() const {
    const tensor<double> scores = reference_softmax(logits.wide());
    const index_t n = router.grouped ? logits.rows : positions;
    tensor<std::int32_t> want(logits.rows, E, -1);
    for (index_t first = 0; first < logits.rows; first += n)
      for (index_t e = 0; e < E; ++e) {
        std::vector<index_t> tokens;
        for (index_t t = first; t < first + n; ++t)
          if (!padding(t)) tokens.push_back(t);
        std::stable_sort(tokens.begin(), tokens.end(),
                         [&](index_t a, index_t b) { return scores.at(a, e) > scores.at(b, e); });
        const auto taken = std::min(tokens.size(), static_cast<std::size_t>(router.tokens_per_expert(n)));
        for (std::size_t i = 0; i < taken; ++i) want(tokens[i], e) = static_cast<std::int32_t>(e);
      }
    REQUIRE(selected.values == want.values);
    for (index_t t = 0; t < logits.rows; ++t)
      for (index_t e = 0; e < E; ++e)
        // A softmax of E terms: exp is off by 5 u(float) at most.
        REQUIRE(std::abs(weights.at(t, e) - (want(t, e) < 0 ? 0 : scores.at(t, e))) <= 2 * (E + 10) * unit_roundoff<M>);
  }
};

}  // namespace

TEST_CASE("expert_choice keeps the laws of routers", "[policies]") {
  // Those laws take every token for a sequence: the experts choose among all.
  expert_choice<3> three;
  three.grouped = true;
  router_laws(three, {.experts = {3}});
  expert_choice<5> five;
  five.grouped = true;
  five.capacity_factor = 1.5;
  router_laws(five, {.experts = {5}});
}

TEMPLATE_TEST_CASE("expert_choice: each expert takes its best tokens of every sequence, or of all", "[policies]", float,
                   double) {
  for (const bool grouped : {false, true})
    for (const double factor : {1.0, 2.0, 1.3, 7.0})
      for (const bool padded : {false, true}) {
        CAPTURE(grouped, factor, padded);
        expert_choice<7> router;
        router.capacity_factor = factor;
        router.grouped = grouped;
        choice_case<TestType, 7> tested(router, 3, 29);
        for (std::size_t t = 0; padded && t < tested.ids.size(); ++t)
          if (t % 4 == 1) tested.ids[t] = -1;
        tested.route();
        tested.check_against_definition();
        const index_t n = grouped ? 87 : 29;
        const index_t taken = router.tokens_per_expert(n);
        CHECK(taken == static_cast<index_t>(static_cast<double>(n) * factor / 7));
        // Exactly C tokens for each expert of each set, if there are so many.
        if (!padded)
          for (index_t e = 0; e < 7; ++e)
            for (index_t first = 0; first < 87; first += n) REQUIRE(tested.load(e, first, first + n) == taken);
        const auto filled = std::count_if(tested.selected.values.begin(), tested.selected.values.end(),
                                          [](std::int32_t e) { return e >= 0; });
        CHECK(filled <= router.filled_rows(87, 7));
      }
}

TEST_CASE("expert_choice: ties go to the earlier token, padding is taken by nobody", "[policies]") {
  choice_case<float, 4> tested(expert_choice<4>{.capacity_factor = 1}, 1, 12);
  for (float& logit : tested.logits.values) logit = 0.25f;
  tested.ids[1] = -1;
  tested.route();
  for (index_t e = 0; e < 4; ++e)
    for (index_t t = 0; t < 12; ++t) CHECK((tested.selected(t, e) == e) == (t == 0 || t == 2 || t == 3));
  // Fewer tokens than an expert may take: it takes all of them.
  for (std::size_t t = 2; t < 12; ++t) tested.ids[t] = -1;
  tested.route();
  for (index_t e = 0; e < 4; ++e) CHECK(tested.load(e, 0, 12) == 1);
  CHECK(tested.selected(0, 3) == 3);

  // The router alone, without what the layer does for padding.
  context<cpu> ctx({.threads = 1});
  tested.selected = tensor<std::int32_t>(12, 4, -7);
  tested.router.route(ctx, tested.pass(), tested.selected.matrix(), tested.weights.matrix(),
                      std::as_const(tested.logits).matrix());
  for (index_t e = 0; e < 4; ++e) CHECK(tested.load(e, 0, 12) == 1);
}

TEST_CASE("expert_choice: gradients by central differences, to the experts that did not take a token too",
          "[policies]") {
  for (const bool grouped : {false, true}) {
    choice_case<double, 5> tested(expert_choice<5>{.grouped = grouped}, 2, 9, 3);
    tested.ids[4] = tested.ids[17] = -1;
    tested.route();
    const tensor<double> probe = tensor<double>::random(18, 5, 5);
    const tensor<double> d_logits = tested.backward(probe);
    const auto selected = tested.selected.values;
    const auto loss = [&] {
      tested.route();
      REQUIRE(tested.selected.values == selected);
      double sum = 0;
      for (std::size_t i = 0; i < selected.size(); ++i) sum += probe.values[i] * tested.weights.values[i];
      return sum;
    };
    REQUIRE(gradient_mismatch(loss, tested.logits.values, d_logits.values) == "");
  }
}

TEST_CASE("expert_choice: sequences are apart unless grouped, and later tokens compete", "[policies]") {
  for (const bool grouped : {false, true}) {
    expert_choice<4> router;
    router.grouped = grouped;
    choice_case<double, 4> tested(router, 2, 16);
    tested.route();
    const auto before = tested.selected.values;
    const auto first_half_is_the_same = [&] {
      return std::equal(before.begin(), before.begin() + 8 * 4, tested.selected.values.begin());
    };
    const tensor<double> logits = tested.logits;
    for (index_t t = 16; t < 32; ++t) tested.logits(t, 0) += 5;
    tested.route();
    CHECK(std::equal(before.begin(), before.begin() + 16 * 4, tested.selected.values.begin()) == !grouped);
    tested.logits = logits;
    for (index_t t = 8; t < 16; ++t) tested.logits(t, 0) += 5;
    tested.route();
    CHECK(!first_half_is_the_same());
  }
}

TEST_CASE("expert_choice: same bits on two threads and in any order of rows", "[policies]") {
  choice_case<float, 16> tested(expert_choice<16>{}, 4, 512);
  tested.route();
  const auto selected = tested.selected.values;
  const tensor<float> weights = tested.weights;
  tested.route(2);
  CHECK(tested.selected.values == selected);
  CHECK(same_bits(tested.weights, weights));
  choice_case<double, 5> narrow(expert_choice<5>{}, 2, 20);
  narrow.route();
  const auto table = narrow.selected.values;
  shuffled_context ctx(4);
  narrow.route(ctx);
  CHECK(narrow.selected.values == table);
}

TEST_CASE("expert_choice: what does not fit is refused", "[policies]") {
  CHECK_THROWS_WITH(expert_choice<4>{}.check(5),
                    "expert_choice: expected as many experts as slots, got slots=4, experts=5");
  CHECK_THROWS_AS((expert_choice<4>{.capacity_factor = 4.5}.check(4)), error);
  CHECK_THROWS_AS((expert_choice<4>{.capacity_factor = 0}.check(4)), error);
  choice_case<float, 4> few(expert_choice<4>{.capacity_factor = 1}, 2, 3);
  CHECK_THROWS_WITH(few.route(),
                    "expert_choice: expected enough tokens to give each expert one, got 3 tokens, 4 "
                    "experts and capacity_factor=1");
}

}  // namespace expert_choice_tests
