// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The balancers of graft keep the laws of balancers, and each computes its equation.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include <graft/policies/balancer/all_balancers.hpp>

#include "laws/balancer_laws.hpp"

namespace balancer_tests {

using namespace graft;
using namespace graft::test;

namespace {

using both = all<switch_loss, z_loss>;
using three = all<no_balancer, z_loss, switch_loss>;
using every_scope = all<sequence_loss, btx_loss, global_batch_loss, z_loss, loss_free_bias>;
using shaped = all<switch_loss, dirichlet_prior>;

std::vector<double> even(index_t experts) {
  return std::vector<double>(static_cast<std::size_t>(experts), 1.0 / static_cast<double>(experts));
}

static_assert(Balancer<both> && Balancer<every_scope> && Balancer<no_balancer> && !Balancer<int>);
static_assert(SingleBalancer<switch_loss> && SingleBalancer<sequence_loss> && SingleBalancer<global_batch_loss> &&
              SingleBalancer<btx_loss> && SingleBalancer<z_loss> && SingleBalancer<loss_free_bias> &&
              SingleBalancer<dirichlet_prior> && !SingleBalancer<both>);
static_assert(!graft::detail::pushes_on_logits<no_balancer> && graft::detail::pushes_on_logits<both> &&
              !graft::detail::pushes_on_logits<all<no_balancer>> && !graft::detail::pushes_on_logits<loss_free_bias>);
static_assert(graft::detail::keeps_selection_bias<every_scope> && !graft::detail::keeps_selection_bias<both>);
static_assert(graft::detail::pushes_on_weights<every_scope> && !graft::detail::pushes_on_weights<both>);
static_assert(graft::detail::reads_all_scores<shaped> && !graft::detail::reads_all_scores<every_scope>);
static_assert(std::is_trivially_copyable_v<three> && std::is_trivially_copyable_v<every_scope>);

// One pass over logits (T, E) in one group, as the layer runs it.
template <class B>
routing_result shape(const B& balancer, const tensor<double>& logits, const std::vector<std::int32_t>& ids = {}) {
  context<cpu> ctx({.threads = 1});
  routed_pass pass;
  pass.experts = logits.columns;
  pass.positions = logits.rows;
  pass.logits = logits;
  pass.ids = ids;
  return route(ctx, top_k<1>{}, balancer, pass, tensor<double>(logits.rows, 1));
}

// Logits whose softmax has the probabilities (p, 1 - p), in the order given.
tensor<double> two_choices(const std::vector<double>& p) {
  tensor<double> logits(static_cast<index_t>(p.size()), 2);
  for (std::size_t t = 0; t < p.size(); ++t)
    logits(static_cast<index_t>(t), 0) = std::log(p[t]), logits(static_cast<index_t>(t), 1) = std::log(1 - p[t]);
  return logits;
}

}  // namespace

TEMPLATE_TEST_CASE("balancer: the laws hold", "[policies]", no_balancer, switch_loss, sequence_loss, global_batch_loss,
                   btx_loss, z_loss, loss_free_bias, dirichlet_prior, both, every_scope, shaped) {
  balancer_laws(with_coefficient<TestType>(0.75));
}

TEST_CASE("balancer: losses over the load are their coefficient at balance, for every number of slots", "[policies]") {
  for (const index_t experts : {1, 3, 8}) {
    for (const index_t slots : {1, 2, 5}) {
      const auto uniform = owned_statistics<double>::proportional(even(experts), slots);
      CHECK(std::abs(switch_loss{.coefficient = 0.25}.loss(uniform.view()) - 0.25) <= 16 * 0x1p-53);
      CHECK(std::abs(sequence_loss{.coefficient = 0.25}.loss(uniform.view()) - 0.25) <= 16 * 0x1p-53);
      CHECK(std::abs(global_batch_loss{.coefficient = 0.25}.loss(uniform.view()) - 0.25) <= 16 * 0x1p-53);
      CHECK(std::abs(btx_loss{.coefficient = 0.25}.loss(uniform.view()) - 0.25) <= 16 * 0x1p-53);
    }
  }
  // All tokens to one of four experts with certainty: 4.
  const auto collapsed = owned_statistics<double>::proportional({0, 1, 0, 0}, 1);
  CHECK(switch_loss{.coefficient = 1}.loss(collapsed.view()) == 4.0);
  CHECK(sequence_loss{.coefficient = 1}.loss(collapsed.view()) == 4.0);
  CHECK(global_batch_loss{.coefficient = 1}.loss(collapsed.view()) == 4.0);
  CHECK(btx_loss{.coefficient = 1}.loss(collapsed.view()) == 4.0);
}

TEST_CASE("balancer: defaults are the published numbers", "[policies]") {
  CHECK(switch_loss{}.coefficient == 0.01);
  CHECK(btx_loss{}.coefficient == 0.01);
  CHECK_FALSE(btx_loss{}.detached);
  CHECK(global_batch_loss{}.coefficient == 0.01);
  CHECK(sequence_loss{}.coefficient == 1e-4);
  CHECK(z_loss{}.coefficient == 0.001);
  CHECK(loss_free_bias{}.rate == 1e-3);
  CHECK(dirichlet_prior{}.coefficient == 0.01);
  CHECK(dirichlet_prior{}.alpha == 1.0);
}

// Three tokens, two slots, four experts: counts (3, 2, 1, 0), scores by hand.
TEST_CASE("balancer: the equations by hand", "[policies]") {
  owned_statistics<double> at;
  at.slots = 2;
  at.tokens = 3;
  at.counts = {3, 2, 1, 0};
  at.mean_scores = {0.5, 0.25, 0.125, 0.125};
  at.mean_weights = {0.625, 0.25, 0.125, 0};
  // 4 (3/6 1/2 + 2/6 1/4 + 1/6 1/8) = 1 + 1/3 + 1/12
  const double load = 1 + 1.0 / 3 + 1.0 / 12;
  CHECK(std::abs(switch_loss{.coefficient = 1}.loss(at.view()) - load) <= 8 * 0x1p-53);
  CHECK(std::abs(sequence_loss{.coefficient = 1}.loss(at.view()) - load) <= 8 * 0x1p-53);
  CHECK(std::abs(global_batch_loss{.coefficient = 1}.loss(at.view()) - load) <= 8 * 0x1p-53);
  // 4 (5/8 1/2 + 1/4 1/4 + 1/8 1/8), exact in binary
  CHECK(btx_loss{.coefficient = 2}.loss(at.view()) == 2 * 4 * (0.3125 + 0.0625 + 0.015625));
  CHECK(btx_loss{.coefficient = 2}.d_mean_score(at.view(), 0) == 2 * 4 * 0.625);
  CHECK(btx_loss{.coefficient = 2}.d_mean_weight(at.view(), 1) == 2 * 4 * 0.25);
  CHECK(btx_loss{.coefficient = 2, .detached = true}.d_mean_weight(at.view(), 1) == 0);
  CHECK(btx_loss{.coefficient = 2, .detached = true}.loss(at.view()) == btx_loss{.coefficient = 2}.loss(at.view()));
}

// Programs differ in how they normalise the same product; numbers from one are no oracle for another.
TEST_CASE("balancer: the load loss against the normalisations of other programs", "[policies]") {
  const index_t experts = 4, slots = 2;
  // Two layers that lean on opposite experts.
  const auto first = owned_statistics<double>::proportional({0.4, 0.3, 0.2, 0.1}, slots);
  const auto second = owned_statistics<double>::proportional({0.1, 0.2, 0.3, 0.4}, slots);
  const switch_loss balancer{.coefficient = 1};
  const auto near = [](double got, double want) { return std::abs(got - want) <= 64 * 0x1p-53 * want; };

  // OLMo-core: (N / k) sum_i c_i P_i / T, summed over layers. The same.
  double summed = 0;
  for (const auto* layer : {&first, &second})
    for (std::size_t i = 0; i < 4; ++i)
      summed += static_cast<double>(experts) / static_cast<double>(slots) * layer->counts[i] * layer->mean_scores[i] /
                layer->tokens;
  CHECK(near(balancer.loss(first.view()) + balancer.loss(second.view()), summed));
  CHECK(near(balancer.loss(first.view()), 1.2));  // 4 (0.16 + 0.09 + 0.04 + 0.01)

  // megablocks: N / (L T k) sum over layers. The mean over layers.
  double averaged = 0;
  for (const auto* layer : {&first, &second})
    for (std::size_t i = 0; i < 4; ++i)
      averaged += static_cast<double>(experts) / (2 * layer->tokens * static_cast<double>(slots)) * layer->counts[i] *
                  layer->mean_scores[i];
  CHECK(near(averaged, (balancer.loss(first.view()) + balancer.loss(second.view())) / 2));

  // transformers: the layers' tokens are pooled before the product, and slots are summed: K at balance, and layers that
  // cancel look balanced.
  double pooled = 0;
  for (std::size_t i = 0; i < 4; ++i)
    pooled += static_cast<double>(experts) * (first.counts[i] + second.counts[i]) / (2 * first.tokens) *
              (first.mean_scores[i] + second.mean_scores[i]) / 2;
  CHECK(near(pooled, static_cast<double>(slots)));
  CHECK(balancer.loss(first.view()) + balancer.loss(second.view()) > 2.3);
}

TEST_CASE("balancer: z_loss is the mean squared logsumexp, at zero logits the squared logarithm of the experts",
          "[policies]") {
  owned_statistics<double> at = owned_statistics<double>::proportional({0.25, 0.25, 0.25, 0.25}, 2);
  at.mean_squared_lse = std::log(4.0) * std::log(4.0);
  CHECK(z_loss{.coefficient = 0.5}.loss(at.view()) == 0.5 * std::log(4.0) * std::log(4.0));
  CHECK(z_loss{.coefficient = 0.5}.d_log_sum_exp(3.0) == 3.0);
  const z_loss one{.coefficient = 1};
  const double zero = std::log(5.0) * std::log(5.0);
  CHECK(std::abs(shape(one, tensor<double>(6, 5)).loss - zero) <= 32 * 0x1p-53 * zero);
  CHECK(shape(one, tensor<double>(6, 5, -std::log(5.0))).loss <= 1e-28);  // its minimum, logsumexp = 0 up to rounding
  // Logits that overflow the sum of their exponentials.
  CHECK(std::abs(shape(one, tensor<double>(6, 5, 1000)).loss / ((1000 + std::log(5.0)) * (1000 + std::log(5.0))) - 1) <=
        32 * 0x1p-53);
}

TEMPLATE_TEST_CASE("balancer: loss_free_bias moves every bias by its rate or not at all", "[policies]", float, double) {
  const loss_free_bias balancer{.rate = 0.125};
  serial_group group;
  std::vector<TestType> bias = {0, 1, -1, 0.5};
  const std::vector<TestType> counts = {7, 4, 4, 1};  // mean 4
  balancer.end_step(group, bias.data(), counts.data(), 4);
  CHECK(bias == std::vector<TestType>{-0.125, 1, -1, 0.625});

  // A mean that is no whole number: nobody rests. The sum moves by the sum of the signs.
  bias = {0, 0, 0};
  balancer.end_step(group, bias.data(), std::vector<TestType>{5, 0, 0}.data(), 3);
  CHECK(bias == std::vector<TestType>{-0.125, 0.125, 0.125});
  // Twice the load: the same signs.
  balancer.end_step(group, bias.data(), std::vector<TestType>{10, 0, 0}.data(), 3);
  CHECK(bias == std::vector<TestType>{-0.25, 0.25, 0.25});
  loss_free_bias off{.rate = 0};
  off.end_step(group, bias.data(), counts.data(), 3);
  CHECK(bias == std::vector<TestType>{-0.25, 0.25, 0.25});
}

// All balancers that keep state are moved, once, by the counts of the step.
TEST_CASE("balancer: end_balance_step reaches into a list", "[policies]") {
  context<cpu> ctx({.threads = 1});
  std::vector<double> bias = {0, 0}, load = {3, 1, 4, 0.5, 0};
  const auto step = [&](const auto& balancer) {
    end_balance_step(ctx, balancer, vector_view<double>(bias.data(), 2), vector_view<double>(load.data(), 5));
  };
  step(both{});
  CHECK(bias == std::vector<double>{0, 0});
  step(all<switch_loss, loss_free_bias>{.balancers = {{}, {loss_free_bias{.rate = 0.5}}}});
  CHECK(bias == std::vector<double>{-0.5, 0.5});
  step(loss_free_bias{.rate = 0.25});
  CHECK(bias == std::vector<double>{-0.75, 0.75});
}

// E = 2, alpha = 1: the marginals are uniform, F(p) = p, and the loss is the squared distance of sorted probabilities
// to their places, the same for both experts.
TEST_CASE("balancer: dirichlet_prior against its equation", "[policies]") {
  const dirichlet_prior one{.coefficient = 1};
  CHECK(shape(one, two_choices({0.25, 0.75, 0.5})).loss <= 1e-28);
  CHECK(std::abs(shape(one, two_choices({0.5, 0.5, 0.5})).loss - 2 * 0.0625 / 3) <= 1e-15);

  // alpha = 1 and E experts: F(p) = 1 - (1 - p)^(E-1). Places by counting; padding takes none.
  const index_t experts = 5, tokens = 23;
  const tensor<double> logits = tensor<double>::random(tokens, experts, 12);
  const tensor<double> p = reference_softmax(logits);
  const bool padded = GENERATE(false, true);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens), 1);
  if (padded) ids[0] = ids[7] = ids[22] = -1;
  const auto present = [&](index_t t) { return ids[static_cast<std::size_t>(t)] >= 0; };
  const double n = padded ? 20 : 23;
  double want = 0;
  for (index_t k = 0; k < experts; ++k) {
    for (index_t t = 0; t < tokens; ++t) {
      if (!present(t)) continue;
      double place = 0;
      for (index_t other = 0; other < tokens; ++other)
        if (present(other) && p.at(other, k) <= p.at(t, k)) place += 1;
      const double difference = place / (n + 1) - (1 - std::pow(1 - p.at(t, k), static_cast<double>(experts - 1)));
      want += difference * difference / (n * static_cast<double>(experts));
    }
  }
  CHECK(std::abs(shape(one, logits, ids).loss - want) <= 1e-13 * want);
  CHECK(want > 0.001);
  // The coefficient is a factor; a sharper prior than the scores pushes the other way than a flatter one.
  CHECK(std::abs(shape(dirichlet_prior{.coefficient = 0.25}, logits, ids).loss - want / 4) <= 1e-13 * want);
  CHECK(shape(dirichlet_prior{.coefficient = 1, .alpha = 50}, logits, ids).loss > want);

  // One expert has nothing to shape; beyond the clamp there is no gradient, and everything is finite.
  CHECK(shape(one, tensor<double>(4, 1)).loss == 0);
  const routing_result far =
      shape(dirichlet_prior{.coefficient = 1, .alpha = 0.5}, two_choices({1e-30, 1 - 1e-9, 0.5}));
  CHECK(std::isfinite(far.loss));
  CHECK(far.d_logits.at(0, 0) == 0);
  CHECK(far.d_logits.at(1, 0) == 0);
  CHECK(shape(one, two_choices({0.2, 0.3})).d_logits.at(0, 0) != 0);
  CHECK_THROWS_WITH(shape(dirichlet_prior{.alpha = 0}, logits), "dirichlet_prior: expected alpha > 0, got alpha=0");
}

TEST_CASE("balancer: dirichlet_prior in float and under threads", "[policies]") {
  const index_t experts = 6, tokens = 900;
  const tensor<double> wide = tensor<double>::random(tokens, experts, 3);
  const dirichlet_prior balancer{.coefficient = 1, .alpha = 0.75};
  const auto run = [&](auto& ctx, auto type) {
    using M = decltype(type);
    tensor<M> scores(tokens, experts), d_scores(tokens, experts, 1);
    const tensor<double> p = reference_softmax(wide);
    for (std::size_t i = 0; i < p.values.size(); ++i) scores.values[i] = static_cast<M>(p.values[i]);
    for (index_t i = 0; i < experts; ++i) scores(5, i) = M(-1);
    tensor<M> loss(1, 1, 2);
    balancer.score_loss(ctx, experts, static_cast<M>(experts), scores.matrix(), d_scores.matrix(), loss.vector());
    d_scores.values.push_back(loss.values[0]);
    d_scores.columns = static_cast<index_t>(d_scores.values.size()), d_scores.rows = 1;
    return d_scores;
  };
  context<cpu> one({.threads = 1}), two({.threads = 2});
  shuffled_context shuffled(3);
  const tensor<double> exact = run(one, double{});
  CHECK(same_bits(exact, run(two, double{})));
  const tensor<float> narrow = run(one, float{});
  CHECK(same_bits(narrow, run(two, float{})));
  // Probabilities rounded to float: F is off by u p F' at most, here p F' < 4; rounding may swap the places of
  // neighbours, which moves a term of the gradient by 2 / (E n^2) F'. Sums of the loss in float.
  const auto close = [&](const auto& got) {
    double worst = 0;
    for (std::size_t i = 0; i < exact.values.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(got.values[i]) - exact.values[i]));
    return worst;
  };
  CHECK(close(narrow) <= 1e-5);
  CHECK(close(run(shuffled, double{})) <= 1e-14);
  // Added to what was there: 1 for every score, of padding too, and 2.
  for (index_t i = 0; i < experts; ++i) CHECK(exact.values[static_cast<std::size_t>(5 * experts + i)] == 1);
  CHECK(exact.values.back() > 2);
  CHECK(exact.values[0] != 1);
}

TEST_CASE("balancer: all adds its balancers", "[policies]") {
  const auto at = owned_statistics<double>::proportional({0.5, 0.25, 0.25}, 2);
  const tensor<double> logits = tensor<double>::random(12, 4, 9);
  const switch_loss load{.coefficient = 0.75};
  const z_loss size{.coefficient = 0.25};
  const both sum{.balancers = {load, {size}}};
  CHECK(sum_over_balancers(sum, [&](const auto& b) { return b.loss(at.view()); }) ==
        load.loss(at.view()) + size.loss(at.view()));
  const routing_result of_sum = shape(sum, logits), of_load = shape(load, logits), of_size = shape(size, logits);
  const routing_result reordered = shape(three{.balancers = {no_balancer{}, {size, {load}}}}, logits);
  CHECK(std::abs(of_sum.loss - of_load.loss - of_size.loss) <= 8 * 0x1p-53);
  CHECK(std::abs(of_sum.loss - reordered.loss) <= 8 * 0x1p-53);
  for (std::size_t i = 0; i < of_sum.d_logits.values.size(); ++i) {
    CHECK(std::abs(of_sum.d_logits.values[i] - of_load.d_logits.values[i] - of_size.d_logits.values[i]) <= 0x1p-50);
    CHECK(std::abs(of_sum.d_logits.values[i] - reordered.d_logits.values[i]) <= 0x1p-50);
  }
  // Scores are shaped once for every balancer that does it, beside the others.
  const dirichlet_prior prior{.coefficient = 1};
  const routing_result twice = shape(all<dirichlet_prior, dirichlet_prior>{.balancers = {prior, {prior}}}, logits);
  const routing_result once = shape(prior, logits);
  CHECK(std::abs(twice.loss - 2 * once.loss) <= 8 * 0x1p-53);
  for (std::size_t i = 0; i < once.d_logits.values.size(); ++i)
    CHECK(std::abs(twice.d_logits.values[i] - 2 * once.d_logits.values[i]) <= 0x1p-50);
}

TEST_CASE("balancer: options by name", "[policies]") {
  every_scope balancer;
  set_option(balancer, "sequence_loss.coefficient", 0.5);
  set_option(balancer, "btx_loss.detached", 1);
  set_option(balancer, "global_batch_loss.coefficient", 0.125);
  set_option(balancer, "loss_free_bias.rate", 0.25);
  CHECK(balancer.balancers.first.coefficient == 0.5);
  CHECK(balancer.balancers.rest.first.detached);
  CHECK(balancer.balancers.rest.rest.first.coefficient == 0.125);
  CHECK(balancer.balancers.rest.rest.rest.rest.first.rate == 0.25);
  dirichlet_prior prior;
  set_option(prior, "alpha", 0.75);
  CHECK(prior.alpha == 0.75);
  CHECK_THROWS(set_option(prior, "beta", 1));
}

}  // namespace balancer_tests
