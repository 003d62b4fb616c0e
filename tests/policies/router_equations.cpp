// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Each router computes its equation: against naive references in double precision that are written from the equation
// and share no code with the router, and by what the equations imply. Longer than 400 lines: a reference for each
// router.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/router/all_routers.hpp>

#include "laws/router_row.hpp"
#include "reference.hpp"

namespace router_equations_tests {

using namespace graft;
using namespace graft::test;

namespace {

using numbers = std::vector<double>;
using test::detail::law_token;
using test::detail::normal_values;

double& at(numbers& values, std::int32_t i) { return values[static_cast<std::size_t>(i)]; }
double at(const numbers& values, std::int32_t i) { return values[static_cast<std::size_t>(i)]; }

// ---- naive pieces: a gate over all experts is a vector of E weights, 0 for those that are not used ----

numbers softmax(const numbers& l) {
  double sum = 0;
  for (const double x : l) sum += std::exp(x);
  numbers p;
  for (const double x : l) p.push_back(std::exp(x) / sum);
  return p;
}
numbers sigmoid(const numbers& l) {
  numbers s;
  for (const double x : l) s.push_back(1 / (1 + std::exp(-x)));
  return s;
}
std::vector<std::int32_t> sorted(const numbers& keys, std::size_t count) {
  std::vector<std::int32_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return at(keys, a) > at(keys, b); });
  order.resize(count);
  return order;
}
numbers spread(const std::vector<std::int32_t>& selected, const numbers& values) {
  numbers gate(values.size());
  for (const std::int32_t expert : selected) at(gate, expert) = at(values, expert);
  return gate;
}
numbers scaled_to(double total, numbers gate) {
  const double sum = std::accumulate(gate.begin(), gate.end(), 0.0);
  for (double& g : gate) g *= total / sum;
  return gate;
}
// The experts of the groups with the largest sum of their `count` largest keys keep their keys, others minus infinity.
numbers limited(const numbers& keys, int groups, int kept, int count) {
  const std::size_t size = keys.size() / static_cast<std::size_t>(groups);
  numbers totals;
  for (std::size_t g = 0; g < static_cast<std::size_t>(groups); ++g) {
    numbers members(keys.begin() + static_cast<std::ptrdiff_t>(g * size),
                    keys.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
    std::sort(members.rbegin(), members.rend());
    totals.push_back(std::accumulate(members.begin(), members.begin() + count, 0.0));
  }
  numbers result(keys.size(), -std::numeric_limits<double>::infinity());
  for (const std::int32_t g : sorted(totals, static_cast<std::size_t>(kept)))
    for (std::size_t i = static_cast<std::size_t>(g) * size; i < (static_cast<std::size_t>(g) + 1) * size; ++i)
      result[i] = keys[i];
  return result;
}

// ---- what a router says, in the same form ----

template <class R>
numbers gate_of(const R& router, const numbers& logits, const routing_token<double>& token = {}) {
  serial_group group;
  const auto routed = route_one(router, group, logits, token);
  numbers gate(logits.size() - static_cast<std::size_t>(R::spec.extra_logits));
  for (std::size_t k = 0; k < routed.selected.size(); ++k)
    if (routed.selected[k] >= 0) at(gate, routed.selected[k]) += routed.weights[k];
  return gate;
}
template <class R>
std::vector<std::int32_t> experts_of(const R& router, const numbers& logits, const routing_token<double>& token = {}) {
  serial_group group;
  return route_one(router, group, logits, token).selected;
}
// dL/dl for dL/dg given for every expert.
template <class R>
numbers gradient_of(const R& router, const numbers& logits, const numbers& d_gate,
                    const routing_token<double>& token = {}) {
  serial_group group;
  const auto routed = route_one(router, group, logits, token);
  numbers d_weights;
  for (const std::int32_t expert : routed.selected) d_weights.push_back(expert < 0 ? 0.0 : at(d_gate, expert));
  return route_one_backward(router, group, logits, routed, d_weights, token);
}

// The largest difference. Tolerance of all comparisons below: both sides are a few tens of operations and sums of at
// most 24 terms on numbers of about 1 (times `size`), each off by u: 128 u.
void check_close(const numbers& got, const numbers& want, double size = 1) {
  REQUIRE(got.size() == want.size());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - want[i]));
  CHECK(worst <= 128 * 0x1p-53 * size);
  CHECK(std::any_of(want.begin(), want.end(), [](double x) { return x != 0; }));
}

constexpr std::size_t experts = 12;

}  // namespace

TEST_CASE("router: gates over softmax against naive ones", "[policies]") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const numbers l = normal_values<double>(experts, seed);
    const numbers s = softmax(l);
    const auto top = sorted(l, 3);
    check_close(gate_of(top_k<3>{}, l), scaled_to(1, spread(top, s)));
    check_close(gate_of(renormalised_top_k<3>{}, l), scaled_to(1, spread(top, s)));
    check_close(gate_of(softmax_top_k<3>{}, l), spread(top, s));
    check_close(gate_of(switch_top_1{}, l), spread(sorted(l, 1), s));
    check_close(gate_of(soft<12>{}, l), s);
    CHECK(experts_of(softmax_top_k<3>{}, l) == top);  // the largest first
    CHECK(experts_of(top_k<3>{}, l) == top);
  }
}

// ---- what the equations imply ----

TEST_CASE("router: softmax over the kept is the softmax over all, renormalised, backward too", "[policies]") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const numbers l = normal_values<double>(experts, seed), d = normal_values<double>(experts, 100 + seed);
    check_close(gate_of(top_k<4>{}, l), gate_of(renormalised_top_k<4>{}, l));
    check_close(gradient_of(top_k<4>{}, l, d), gradient_of(renormalised_top_k<4>{}, l, d), 8);
  }
}

TEST_CASE("router: with as many slots as experts every softmax gate is soft", "[policies]") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const numbers l = normal_values<double>(5, seed), d = normal_values<double>(5, 100 + seed);
    const numbers want = gate_of(soft<5>{}, l), d_want = gradient_of(soft<5>{}, l, d);
    check_close(gate_of(top_k<5>{}, l), want);
    check_close(gate_of(softmax_top_k<5>{}, l), want);
    check_close(gate_of(renormalised_top_k<5>{}, l), want);
    check_close(gradient_of(top_k<5>{}, l, d), d_want, 8);
    check_close(gradient_of(softmax_top_k<5>{}, l, d), d_want, 8);
    check_close(gradient_of(renormalised_top_k<5>{}, l, d), d_want, 8);
  }
}

TEST_CASE("router: one renormalised slot has weight 1 and no gradient, switch_top_1 has one", "[policies]") {
  const numbers l = {0.1, 3.0, -2.0}, d = {0.0, 5.0, 0.0};
  CHECK(gate_of(top_k<1>{}, l) == numbers{0, 1, 0});
  CHECK(gate_of(renormalised_top_k<1>{}, l) == numbers{0, 1, 0});
  CHECK(gradient_of(top_k<1>{}, l, d) == numbers{0, 0, 0});
  CHECK(gradient_of(renormalised_top_k<1>{}, l, d) == numbers{0, 0, 0});
  // s = softmax(l): dl_1 = 5 s_1 (1 - s_1), dl_j = -5 s_1 s_j
  const numbers s = softmax(l);
  check_close(gradient_of(switch_top_1{}, l, d), {-5 * s[1] * s[0], 5 * s[1] * (1 - s[1]), -5 * s[1] * s[2]}, 8);
}

TEST_CASE("router: experts that were not selected receive gradient through the softmax over all alone", "[policies]") {
  const numbers l = {0.25, -1.5, 2.0, 0.75, 2.0}, d = {0, 0, 1, 0, 0};
  for (const double g : gradient_of(softmax_top_k<2>{}, l, d)) CHECK(g != 0);
  const numbers kept = gradient_of(top_k<2>{}, l, d);
  CHECK((kept[0] == 0 && kept[1] == 0 && kept[3] == 0 && kept[2] > 0 && kept[4] < 0));
  const numbers single = gradient_of(sigmoid_top_k<2>{}, l, d);
  CHECK((single[0] == 0 && single[1] == 0 && single[3] == 0 && single[2] > 0 && single[4] < 0));
}

// A mask of minus infinity must not make two slots hold one expert.
TEST_CASE("router: slots hold different experts where scores are minus infinity", "[policies]") {
  serial_group group;
  const double none = -std::numeric_limits<double>::infinity();
  const auto token = route_one(top_k<3>{}, group, numbers{none, none, 1.0, none});
  CHECK(token.selected == std::vector<std::int32_t>{2, 0, 1});
  CHECK(token.weights == numbers{1, 0, 0});
}

// exp(-200) is below the smallest float: equal scores must not hide that one logit is larger.
TEST_CASE("router: experts are sorted by logits where their softmax vanishes", "[policies]") {
  serial_group group;
  const std::vector<float> logits = {-300.0f, 0.0f, -200.0f};
  CHECK(route_one(softmax_top_k<2>{}, group, logits).selected == std::vector<std::int32_t>{1, 2});
  CHECK(route_one(renormalised_top_k<2>{}, group, logits).selected == std::vector<std::int32_t>{1, 2});
}

// ---- DeepSeek ----

TEST_CASE("router: sigmoid_top_k against a naive gate, with bias, groups and scale", "[policies]") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const numbers l = normal_values<double>(experts, seed), b = normal_values<double>(experts, 50 + seed);
    const numbers s = sigmoid(l);
    numbers biased = s;
    for (std::size_t i = 0; i < experts; ++i) biased[i] += b[i];
    const auto token = law_token<double>(true, 1, b.data());
    sigmoid_top_k<3> router;
    check_close(gate_of(router, l), scaled_to(1, spread(sorted(s, 3), s)));
    check_close(gate_of(router, l, token), scaled_to(1, spread(sorted(biased, 3), s)));
    router.weigh.scale = 2.5;
    router.select.groups = 4;
    router.select.kept_groups = 2;
    check_close(gate_of(router, l, token), scaled_to(2.5, spread(sorted(limited(biased, 4, 2, 2), 3), s)), 2.5);
    router.weigh.epsilon = 0.5;
    numbers damped = spread(sorted(limited(biased, 4, 2, 2), 3), s);
    const double sum = std::accumulate(damped.begin(), damped.end(), 0.0);
    for (double& g : damped) g *= 2.5 / (sum + 0.5);
    check_close(gate_of(router, l, token), damped, 2.5);
  }
}

TEST_CASE("router: group_limited_top_k against a naive gate", "[policies]") {
  bool limits = false;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const numbers l = normal_values<double>(experts, seed), s = softmax(l);
    group_limited_top_k<3> router;
    check_close(gate_of(router, l), gate_of(softmax_top_k<3>{}, l));
    router.weigh.scale = 16;
    router.select.groups = 6;
    router.select.kept_groups = 2;
    numbers want = spread(sorted(limited(s, 6, 2, 1), 3), s);
    for (double& g : want) g *= 16;
    check_close(gate_of(router, l), want, 16);
    auto chosen = experts_of(router, l), top = sorted(s, 3);
    std::sort(chosen.begin(), chosen.end());
    std::sort(top.begin(), top.end());
    limits = limits || chosen != top;
  }
  CHECK(limits);  // somewhere the limit excluded an expert
}

// With 0 in the place of minus infinity an expert outside the kept groups would win where s + b is negative.
TEST_CASE("router: a token reaches experts of kept groups alone, though s + b is negative", "[policies]") {
  sigmoid_top_k<4> router;
  router.select.groups = 4;
  router.select.kept_groups = 2;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const numbers l = normal_values<double>(16, seed);
    numbers bias = normal_values<double>(16, 50 + seed);
    for (double& b : bias) b = -5 - std::abs(b);
    const auto token = law_token<double>(true, 0, bias.data());
    std::set<std::int32_t> groups, chosen;
    for (const std::int32_t expert : experts_of(router, l, token)) {
      groups.insert(expert / 4);
      chosen.insert(expert);
    }
    CHECK(groups.size() <= 2);
    CHECK(chosen.size() == 4);
  }
}

TEST_CASE("router: a selection bias moves experts and leaves weights as they are", "[policies]") {
  const numbers l = {2.0, 1.0, 0.0, -1.0}, none(4, 0.0), up = {0, 0, 0.5, 0};
  const sigmoid_top_k<2> router;
  CHECK(experts_of(router, l, law_token<double>(true, 0, none.data())) == std::vector<std::int32_t>{0, 1});
  CHECK(experts_of(router, l, law_token<double>(true, 0, up.data())) == std::vector<std::int32_t>{2, 0});
  const numbers s = sigmoid(l);
  check_close(gate_of(router, l, law_token<double>(true, 0, up.data())),
              {s[0] / (s[0] + s[2]), 0, s[2] / (s[0] + s[2]), 0});
}

// exp(-60) = 8.8e-27 is far below epsilon: weights vanish with the scores, and nothing divides zero by zero.
TEMPLATE_TEST_CASE("router: sigmoid scores below 1e-20 give finite weights and gradients", "[policies]", float,
                   double) {
  using M = TestType;
  serial_group group;
  sigmoid_top_k<2> router;
  for (const double size : {-60.0, -200.0, -2000.0}) {
    const std::vector<M> l = {static_cast<M>(size), static_cast<M>(size + 1), static_cast<M>(size - 1)};
    const auto token = route_one(router, group, l);
    const auto d = route_one_backward(router, group, l, token, {M(1), M(-1)});
    for (const M w : token.weights) CHECK((std::isfinite(w) && w >= 0 && w < M(1e-5)));
    for (const M g : d) CHECK(std::isfinite(g));
  }
  // s / (sum + eps): exp(-59) / 1e-20, within the float's exp and the neglect of the sum beside eps
  const auto token = route_one(router, group, std::vector<M>{M(-60), M(-59), M(-61)});
  CHECK(token.selected == std::vector<std::int32_t>{1, 0});
  CHECK(std::abs(static_cast<double>(token.weights[0]) / (std::exp(-59.0) / 1e-20) - 1) <= 1e-5);
  // Without eps the scores are renormalised, however small, until they are zero.
  router.weigh.epsilon = 0;
  const auto bare = route_one(router, group, std::vector<M>{M(-60), M(-59), M(-61)});
  CHECK(std::abs(static_cast<double>(bare.weights[0]) - 1 / (1 + std::exp(-1.0))) <= 1e-5);
  const auto zero = route_one(router, group, std::vector<M>{M(-2000), M(-2000), M(-2000)});
  CHECK(zero.weights == std::vector<M>{M(0), M(0)});
}

TEST_CASE("router: balancers see the sigmoid scores over their sum", "[policies]") {
  serial_group group;
  const numbers l = normal_values<double>(experts, 4);
  const auto p = graft::detail::probabilities_of(sigmoid_top_k<2>{}).prepare(group, l.data(), experts);
  numbers got;
  for (std::size_t i = 0; i < experts; ++i) got.push_back(p(static_cast<index_t>(i)));
  check_close(got, scaled_to(1, sigmoid(l)));
}

// ---- sample_top_1 ----

TEST_CASE("router: sample_top_1 against a naive gate with its own noise", "[policies]") {
  sample_top_1<1> router;
  router.score.rate = 0.1;
  for (const index_t step : {0, 3, 100}) {
    const double tau = std::max(0.5, std::exp(-0.1 * static_cast<double>(step)));
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      const numbers l = normal_values<double>(experts, seed), d = normal_values<double>(experts, 70 + seed);
      const routing_token<double> token{{seed, step, 8, true}, 2, 5, 0, nullptr};
      numbers y = l;
      for (std::size_t i = 0; i < experts; ++i) {
        const double u = token.uniform(static_cast<index_t>(i)) - 0x1p-33;
        y[i] = (l[i] - std::log(-std::log(u))) / tau;
      }
      const auto m = sorted(y, 1)[0];
      const numbers s = softmax(y);
      check_close(gate_of(router, l, token), spread({m}, s), 32);
      // dl_j = s_m dg_m (delta_jm - s_j) / tau
      numbers want;
      for (std::int32_t j = 0; j < 12; ++j) want.push_back(at(s, m) * at(d, m) * ((j == m) - at(s, j)) / tau);
      check_close(gradient_of(router, l, d, token), want, 64);

      // The noise differs between tokens, steps and layers, and is gone in evaluation: weight 1 at the largest logit.
      routing_token<double> other = token;
      other.token += 1;
      CHECK(gate_of(router, l, other) != gate_of(router, l, token));
      other = token;
      other.at.step = other.at.step + 1;
      CHECK(gate_of(router, l, other) != gate_of(router, l, token));
      other = token;
      other.layer += 1;
      CHECK(gate_of(router, l, other) != gate_of(router, l, token));
      other = token;
      other.at.training = false;
      CHECK(gate_of(router, l, other) == spread(sorted(l, 1), numbers(experts, 1.0)));
    }
  }
}

TEST_CASE("router: the temperature of sample_top_1 falls to its floor at step 6932", "[policies]") {
  const gumbel_score score;
  CHECK(score.temperature(0) == 1.0);
  CHECK(std::abs(score.temperature(1000) - std::exp(-0.1)) <= 0x1p-52);
  CHECK(score.temperature(6931) > 0.5);  // ln 2 / 1e-4 = 6931.47
  CHECK(score.temperature(6932) == 0.5);
}

// The largest of l + G is a sample from softmax(l), whatever the temperature. Of n draws the share of an expert has
// standard deviation sqrt(p (1 - p) / n); five of them are exceeded once in 1.7 million times.
TEST_CASE("router: sample_top_1 samples experts from the softmax of the logits", "[policies]") {
  const numbers l = {0.5, -1.0, 1.5, 0.0};
  const numbers p = softmax(l);
  constexpr int draws = 20000;
  sample_top_1<1> sampled;
  sampled.score.sampled_evaluation = true;
  for (const bool training : {true, false}) {
    for (const index_t step : {0, 9000}) {
      numbers share(4);
      for (int i = 0; i < draws; ++i) {
        const routing_token<double> token{{17, step, 0, training}, 0, i, 0, nullptr};
        const numbers gate = gate_of(sampled, l, token);
        for (std::size_t e = 0; e < 4; ++e) share[e] += gate[e] > 0 ? 1.0 / draws : 0.0;
        if (!training) REQUIRE(std::accumulate(gate.begin(), gate.end(), 0.0) == 1.0);
      }
      for (std::size_t e = 0; e < 4; ++e) {
        CAPTURE(training, step, e);
        CHECK(std::abs(share[e] - p[e]) <= 5 * std::sqrt(p[e] * (1 - p[e]) / draws));
      }
    }
  }
}

TEST_CASE("router: sample_top_1 with slots for all experts is soft in the first layer", "[policies]") {
  const sample_top_1<12> router;
  for (const bool training : {true, false}) {
    const numbers l = normal_values<double>(experts, 3), d = normal_values<double>(experts, 4);
    const auto first = law_token<double>(training, 0), second = law_token<double>(training, 1);
    check_close(gate_of(router, l, first), softmax(l));
    check_close(gradient_of(router, l, d, first), gradient_of(soft<12>{}, l, d), 8);
    CHECK(gate_of(router, l, second) == gate_of(sample_top_1<1>{}, l, second));
    CHECK(gradient_of(router, l, d, second) == gradient_of(sample_top_1<1>{}, l, d, second));
  }
  CHECK(router.slots_used(0, 12) == 12);
  CHECK(router.slots_used(1, 12) == 1);
  CHECK(sample_top_1<1>{}.slots_used(0, 12) == 1);
}

// ---- null experts ----

namespace {

// The K largest of N logits and `copies` copies of the null logit, made one by one. Ties go to the experts.
numbers naive_null_gate(const numbers& logits, std::size_t slots, std::size_t copies) {
  const numbers real(logits.begin(), logits.end() - 1);
  numbers all = real;
  all.insert(all.end(), copies, logits.back());
  numbers gate(real.size());
  double sum = 0;
  for (const std::int32_t slot : sorted(all, slots))
    if (slot < static_cast<std::int32_t>(real.size())) sum += at(gate, slot) = std::exp(at(real, slot));
  for (double& g : gate) g = sum > 0 ? g / sum : 0.0;
  return gate;
}

}  // namespace

TEST_CASE("router: null_top_k against a gate with every copy of the null expert", "[policies]") {
  null_top_k<4> router;
  std::set<long> seen;
  for (const auto& [rho, copies] : std::map<double, std::size_t>{{0.5, 12}, {0.25, 36}, {0.8, 3}, {0.9, 1}, {1, 0}}) {
    router.select.rho = rho;
    CHECK(null_copies(rho, 12) == static_cast<index_t>(copies));
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      numbers l = normal_values<double>(experts + 1, seed);
      l.back() *= 2;
      const numbers want = naive_null_gate(l, 4, copies), got = gate_of(router, l);
      double worst = 0;
      for (std::size_t i = 0; i < experts; ++i) worst = std::max(worst, std::abs(want[i] - got[i]));
      CHECK(worst <= 128 * 0x1p-53);
      const auto chosen = experts_of(router, l);
      const auto filled = std::count_if(chosen.begin(), chosen.end(), [](auto e) { return e >= 0; });
      CHECK(filled >= 4 - static_cast<long>(copies));
      seen.insert(filled);
      CHECK(gradient_of(router, l, normal_values<double>(experts, 90)).back() == 0);  // nothing pulls the null logit
    }
  }
  CHECK(seen == std::set<long>{0, 1, 2, 3, 4});
  router.select.rho = 0.5;
  numbers tied(experts + 1, 1.0);
  CHECK(experts_of(router, tied) == std::vector<std::int32_t>{0, 1, 2, 3});
}

// Z = sum_i exp(l_i) + M exp(l_null)
TEST_CASE("router: the probabilities of null_top_k are a softmax over all copies", "[policies]") {
  serial_group group;
  null_top_k<2> router;
  router.select.rho = 0.75;  // 4 copies
  const numbers l = normal_values<double>(experts + 1, 6);
  numbers all(l.begin(), l.end() - 1);
  all.insert(all.end(), 4, l.back());
  const numbers want = softmax(all);
  const auto rule = graft::detail::probabilities_of(router);
  const auto p = rule.prepare(group, l.data(), index_t{12});
  CHECK(rule.choices<double>(12) == 16.0);
  numbers got;
  for (index_t i = 0; i < 13; ++i) got.push_back(p(i));
  check_close(got, numbers(want.begin(), want.begin() + 13));
  double sum = 0;
  for (const double x : all) sum += std::exp(x);
  CHECK(std::abs(p.log_sum_exp() - std::log(sum)) <= 128 * 0x1p-53);
  CHECK(std::abs(router.slots_used(3, 12) - 1.5) <= 0x1p-52);
}

// The push of switch_loss on the null logit is zero exactly where an expert and a copy of the null expert are used
// alike, and a token then fills K rho slots. Here every logit row comes with all its rotations, so that experts are
// used alike; the null logit is found by bisection on the sign of its gradient. One row more or less moves the mean
// number of experts by 1 / rows.
TEST_CASE("router: even load fills the share rho of the slots of null_top_k", "[policies]") {
  constexpr index_t rows = 100, wide = 8, slots = 4, tokens = rows * wide;
  context<cpu> ctx({.threads = 1});
  const tensor<double> base = tensor<double>::random(rows, wide, 12);
  for (const double rho : {0.5, 0.8, 0.25}) {
    null_top_k<slots> router;
    router.select.rho = rho;
    const switch_loss balancer{.coefficient = 1};
    tensor<double> logits(tokens, wide + 1), weights(tokens, slots), d_weights(tokens, slots);
    tensor<double> d_logits(tokens, wide + 1);
    tensor<std::int32_t> selected(tokens, slots);
    for (index_t t = 0; t < tokens; ++t)
      for (index_t i = 0; i < wide; ++i) logits(t, i) = base.at(t / wide, (i + t) % wide);
    const routing_pass<double, host_space> pass{.experts = wide, .ids = {}, .selection_bias = {}};
    const auto push = [&](double null_logit) {
      workspace_scope scope(ctx);
      for (index_t t = 0; t < tokens; ++t) logits(t, wide) = null_logit;
      const auto statistics = route_forward(ctx, router, balancer, pass, selected.matrix(), weights.matrix(),
                                            static_cast<const tensor<double>&>(logits).matrix());
      route_backward(ctx, router, balancer, pass, d_logits.matrix(), statistics,
                     static_cast<const tensor<double>&>(logits).matrix(),
                     static_cast<const tensor<std::int32_t>&>(selected).matrix(),
                     static_cast<const tensor<double>&>(weights).matrix(), d_weights.matrix(), 1.0);
      double sum = 0;
      for (index_t t = 0; t < tokens; ++t) sum += d_logits.at(t, wide);
      return sum;
    };
    double low = -5, high = 5;
    REQUIRE(push(low) < 0);   // too few empty slots: descent lifts the null logit
    REQUIRE(push(high) > 0);  // too many
    for (int i = 0; i < 40; ++i) {
      const double middle = (low + high) / 2;
      (push(middle) > 0 ? high : low) = middle;
    }
    const auto filled =
        std::count_if(selected.values.begin(), selected.values.end(), [](auto expert) { return expert >= 0; });
    CAPTURE(rho);
    CHECK(std::abs(static_cast<double>(filled) - slots * rho * tokens) <= wide);
  }
}

// ---- hash_router ----

// Of n ids an expert holds K n / E slots; whether an id chooses it is a draw with p = K / E.
TEST_CASE("router: hash_router fixes different experts by id and layer, in even shares", "[policies]") {
  constexpr int ids = 20000, slots = 2, wide = 7;
  const hash_router<slots> router;
  const std::vector<double> none(wide);
  serial_group group;
  const double p = static_cast<double>(slots) / wide, deviation = std::sqrt(p * (1 - p) * ids);
  std::map<std::pair<std::int32_t, std::int32_t>, int> pairs;
  for (const index_t layer : {0, 1}) {
    numbers count(wide);
    int same_elsewhere = 0;
    for (std::int32_t id = 0; id < ids; ++id) {
      routing_token<double> token{{5, 0, 0, true}, layer, id, id, nullptr};
      const auto routed = route_one(router, group, none, token);
      REQUIRE(routed.selected[0] != routed.selected[1]);
      for (const std::int32_t expert : routed.selected) at(count, expert) += 1;
      for (const double w : routed.weights) REQUIRE(w == 0.5);
      if (layer == 0) pairs[{routed.selected[0], routed.selected[1]}] += 1;
      // Neither seed, step, training nor place matters; the layer and the table do.
      token.at = {99, 1234, 77, false};
      token.token = 3;
      REQUIRE(experts_of(router, none, token) == routed.selected);
      token.layer = layer + 1;
      same_elsewhere += experts_of(router, none, token)[0] == routed.selected[0];
    }
    for (const double c : count) CHECK(std::abs(c - p * ids) <= 5 * deviation);
    CHECK(std::abs(same_elsewhere - ids / wide) <= 5 * std::sqrt(ids / wide));
  }
  // All ordered pairs of different experts are equally likely.
  CHECK(pairs.size() == wide * (wide - 1));
  const double share = static_cast<double>(ids) / (wide * (wide - 1));
  for (const auto& [pair, count] : pairs) CHECK(std::abs(count - share) <= 5 * std::sqrt(share));
  hash_router<slots> other;
  other.table = 1;
  CHECK(experts_of(other, none, law_token<double>(true, 0)) != experts_of(router, none, law_token<double>(true, 0)));
}

}  // namespace router_equations_tests
