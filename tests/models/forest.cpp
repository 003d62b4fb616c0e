// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Forests against the definition in long double: posteriors, mixtures, priors, generation. Members are bigram models,
// whose probabilities can be written down, and where it matters transformers. Long, since all cases share the reference
// and the instances of the forest, which take most of the time to compile.

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <graft/models/forest.hpp>
#include <graft/models/generation.hpp>

#include "bigram_member.hpp"
#include "model_check.hpp"
#include "shuffled_context.hpp"

namespace forest_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class P, class Posterior = prefix_posterior>
using bigram_forest = forest<Posterior, compute<P, cpu>, bigram_member<P>>;
using dense = dense_transformer<compute<fp64, cpu>>;
constexpr long double none = -std::numeric_limits<long double>::infinity();

// A policy of one's own: the mean of what the prefix and the last token say.
struct mean_posterior {
  index_t kept = 0;
  double log_weight(index_t, double log_prior, double prefix, double last) const {
    return log_prior + (prefix + last) / 2;
  }
};
struct without_kept {
  double log_weight(index_t, double, double, double) const { return 0; }
};
static_assert(ForestPosterior<prefix_posterior> && ForestPosterior<last_token_posterior> &&
              ForestPosterior<fixed_weights> && ForestPosterior<mean_posterior>);
static_assert(!ForestPosterior<int> && !ForestPosterior<without_kept>);

enum class evidence { prefix, last_token, nothing };

struct weighing {
  evidence from = evidence::prefix;
  std::vector<double> prior;
  double temperature = 1;
  index_t kept = 0;
};

// w_j(t) of one sequence, from losses[j][t].
std::vector<std::vector<long double>> reference_weights(const std::vector<std::vector<double>>& losses,
                                                        const weighing& how) {
  const std::size_t members = losses.size(), positions = losses[0].size();
  long double prior_sum = 0;
  for (const double p : how.prior) prior_sum += p;
  std::vector<std::vector<long double>> weights(positions, std::vector<long double>(members));
  for (std::size_t t = 0; t < positions; ++t) {
    std::vector<long double> score(members);
    for (std::size_t j = 0; j < members; ++j) {
      score[j] = how.prior[j] > 0 ? std::log(how.prior[j] / prior_sum) : none;
      long double sum = 0;
      for (std::size_t s = how.from == evidence::last_token && t > 0 ? t - 1 : 0; s < t; ++s) sum -= losses[j][s];
      if (how.from != evidence::nothing) score[j] += sum / how.temperature;
      if (how.from == evidence::last_token && t == 0 && how.prior[j] > 0) score[j] = 0;
    }
    if (how.kept > 0) {
      std::vector<std::size_t> order(members);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return score[a] > score[b]; });
      for (std::size_t i = static_cast<std::size_t>(how.kept); i < members; ++i) score[order[i]] = none;
    }
    long double top = none, sum = 0;
    for (const long double s : score) top = std::max(top, s);
    for (const long double s : score) sum += std::exp(s - top);
    for (std::size_t j = 0; j < members; ++j) weights[t][j] = std::exp(score[j] - top) / sum;
  }
  return weights;
}

// The losses of each member on sequence b, by the definition of a bigram model.
template <class P>
std::vector<std::vector<double>> losses_of(const bigrams<P>& members, const text_batch& batch, index_t b) {
  std::vector<std::vector<double>> losses;
  for (const auto& member : members) {
    losses.emplace_back();
    for (index_t t = 0; t < batch.positions; ++t) {
      const auto at = static_cast<std::size_t>(b * batch.positions + t);
      losses.back().push_back(member->offset - member->log_probability(batch.inputs[at], batch.targets[at]));
    }
  }
  return losses;
}

template <class Forest>
tensor<typename Forest::M> posteriors_of(Forest& model, const text_batch& batch) {
  tensor<typename Forest::M> out(batch.tokens(), model.size());
  model.posteriors(out.matrix(), batch.input(), batch.target());
  return out;
}
template <class Forest, class Batch>
tensor<typename Forest::M> mixture_losses(Forest& model, const Batch& batch) {
  tensor<typename Forest::M> out(1, batch.sequences * batch.positions);
  model.token_losses(out.vector(), batch.input(), batch.target());
  return out;
}

// "" where posteriors and losses of the forest are those of the definition. Weights: the score is a sum in fp64 of S
// terms that are right to u(M) each; losses of `size` nats.
template <class Forest, class P>
std::string against_reference(Forest& model, const bigrams<P>& members, const text_batch& batch, const weighing& how) {
  using M = typename Forest::M;
  const double slack = 16 * static_cast<double>(batch.positions) * unit_roundoff<M> * 8 / how.temperature;
  const auto weights = posteriors_of(model, batch);
  const auto losses = mixture_losses(model, batch);
  tensor<double> want_weights(batch.tokens(), model.size()), want_losses(1, batch.tokens());
  for (index_t b = 0; b < batch.sequences; ++b) {
    const auto of_members = losses_of(members, batch, b);
    const auto want = reference_weights(of_members, how);
    for (std::size_t t = 0; t < want.size(); ++t) {
      const index_t row = b * batch.positions + static_cast<index_t>(t);
      long double mixed = 0;
      for (std::size_t j = 0; j < members.size(); ++j) {
        want_weights(row, static_cast<index_t>(j)) = static_cast<double>(want[t][j]);
        mixed += want[t][j] * std::exp(-static_cast<long double>(of_members[j][t]));
      }
      want_losses(0, row) = static_cast<double>(-std::log(mixed));
    }
  }
  const std::string first = mismatch(weights, want_weights, [&](index_t, index_t) { return slack; });
  return first != "" ? first : mismatch(losses, want_losses, [&](index_t, index_t) { return 4 * slack; });
}

}  // namespace

TEMPLATE_TEST_CASE("forest: posteriors and losses are those of the definition", "[models][forest]", fp64, fp32) {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<TestType>(ctx, 4, 7);
  const text_batch batch(3, 9, 7);
  const index_t kept = GENERATE(0, 1, 2, 4);
  const double temperature = GENERATE(1.0, 3.0);
  const std::vector<double> prior = {0.4, 0.1, 0.2, 0.3};

  bigram_forest<TestType> prefix(members, {.kept = kept, .temperature = temperature});
  prefix.set_prior(prior);
  CHECK(against_reference(prefix, members, batch, {evidence::prefix, prior, temperature, kept}) == "");
  bigram_forest<TestType, last_token_posterior> last(members, {.kept = kept, .temperature = temperature});
  last.set_prior(prior);
  CHECK(against_reference(last, members, batch, {evidence::last_token, prior, temperature, kept}) == "");
  bigram_forest<TestType, fixed_weights> fixed(members, {.kept = kept});
  fixed.set_prior(prior);
  CHECK(against_reference(fixed, members, batch, {evidence::nothing, prior, 1, kept}) == "");

  const auto sums_to_one = [&](auto& model) {
    const auto weights = posteriors_of(model, batch);
    for (index_t t = 0; t < batch.tokens(); ++t) {
      double sum = 0;
      index_t above = 0;
      for (index_t j = 0; j < 4; ++j) sum += weights.at(t, j), above += weights.at(t, j) > 0 ? 1 : 0;
      // four weights, each right to a few roundings
      CHECK(std::abs(sum - 1) <= 64 * unit_roundoff<typename TestType::master>);
      CHECK(above <= (kept == 0 ? 4 : kept));
    }
  };
  sums_to_one(prefix);
  sums_to_one(last);
  sums_to_one(fixed);
}

// Two members, two tokens. Member 0 says token 0 with 3/4, member 1 with 1/4, whatever stood before; prior 1/2.
// Text 0 0 1 0. Position 0: weights 1/2, 1/2; p(0) = 1/2. Position 1, after one 0: 3/4, 1/4; p(1) = 3/16 + 3/16 = 3/8.
// Position 2, after 0 and 1: 3/16 each: 1/2, 1/2; p(0) = 1/2. With the last token alone: position 1 the same, position
// 2 after a 1: 1/4, 3/4; p(0) = 3/16 + 3/16 = 3/8.
TEST_CASE("forest: an example by hand", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  bigrams<fp64> members;
  for (index_t token = 0; token < 2; ++token) {
    tensor<double> table(2, 2);
    table(0, token) = table(1, token) = std::log(3.0);
    members.push_back(std::make_shared<bigram_member<fp64>>(ctx, table));
  }
  text_batch batch(1, 3, 2);
  batch.inputs = {0, 0, 1};
  batch.targets = {0, 1, 0};
  const auto check = [&](auto&& model, const std::vector<double>& first_weights, const std::vector<double>& p) {
    const auto weights = posteriors_of(model, batch);
    const auto losses = mixture_losses(model, batch);
    for (index_t t = 0; t < 3; ++t) {
      const auto at = static_cast<std::size_t>(t);
      CHECK(weights.at(t, 0) == Approx(first_weights[at]).epsilon(1e-14));
      CHECK(weights.at(t, 1) == Approx(1 - first_weights[at]).epsilon(1e-14));
      CHECK(losses.at(0, t) == Approx(-std::log(p[at])).epsilon(1e-14));
    }
  };
  check(bigram_forest<fp64>(members), {0.5, 0.75, 0.5}, {0.5, 0.375, 0.5});
  check(bigram_forest<fp64, last_token_posterior>(members), {0.5, 0.75, 0.25}, {0.5, 0.375, 0.375});
  check(bigram_forest<fp64, fixed_weights>(members), {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5});
  // Equal scores at positions 0 and 2: the lower index is kept. Position 0: 3/4; 1: p(1) of member 0 = 1/4; 2: 3/4.
  check(bigram_forest<fp64>(members, {.kept = 1}), {1, 1, 1}, {0.75, 0.25, 0.75});
  // At temperature 2 the ratio of 3 counts as sqrt(3).
  const double w = std::sqrt(3.0) / (1 + std::sqrt(3.0));
  check(bigram_forest<fp64>(members, {.temperature = 2}), {0.5, w, 0.5}, {0.5, w / 4 + (1 - w) * 0.75, 0.5});
  // The last token counts 3/2: 1 after 0, then ratios of 3^(1/2) and 3^(-1/2).
  const double a = 3.0 / 4, b = 1 / (1 + std::sqrt(3.0));
  check(bigram_forest<fp64, mean_posterior>(members), {0.5, a, b}, {0.5, 0.375, b * 0.75 + (1 - b) / 4});
  // A prior of 4 to 1. The published last-token rule leaves it out at position 0.
  bigram_forest<fp64> prior(members);
  prior.set_prior(std::vector<double>{4, 1});
  check(prior, {0.8, 12.0 / 13, 0.8}, {0.65, 3.0 / 13 + 0.75 / 13, 0.65});
  bigram_forest<fp64, last_token_posterior> last(members);
  last.set_prior(std::vector<double>{4, 1});
  check(last, {0.5, 12.0 / 13, 4.0 / 7}, {0.5, 3.0 / 13 + 0.75 / 13, (3.0 + 0.75) / 7});
}

TEST_CASE("forest: a constant added to all log-likelihoods changes no posterior", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  const text_batch batch(2, 12, 7);
  bigram_forest<fp64> model(members);
  bigram_forest<fp64, last_token_posterior> last(members);
  const auto before = posteriors_of(model, batch), last_before = posteriors_of(last, batch);
  const auto losses = mixture_losses(model, batch);
  const double offset = GENERATE(-3.0, 40.0, 1000.0);
  for (const auto& member : members) member->offset = offset;
  const auto after = posteriors_of(model, batch), last_after = posteriors_of(last, batch);
  const auto moved = mixture_losses(model, batch);
  // Sums of up to 12 offsets, each rounded.
  const double slack = 1e-14 + 12 * 12 * std::abs(offset) * 0x1p-52;
  for (index_t t = 0; t < batch.tokens(); ++t) {
    for (index_t j = 0; j < 3; ++j) {
      CHECK(std::abs(after.at(t, j) - before.at(t, j)) <= slack);
      CHECK(std::abs(last_after.at(t, j) - last_before.at(t, j)) <= slack);
    }
    CHECK(std::abs(moved.at(0, t) - losses.at(0, t) - offset) <= slack);
  }
}

TEST_CASE("forest: identical members keep the prior, and are that member", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  const auto one = random_bigrams<fp64>(ctx, 1, 7);
  const bigrams<fp64> same = {one[0], one[0], one[0]};
  const text_batch batch(2, 16, 7);
  bigram_forest<fp64> model(same);
  model.set_prior(std::vector<double>{1, 2, 5});
  const auto weights = posteriors_of(model, batch);
  const auto losses = mixture_losses(model, batch);
  for (index_t t = 0; t < batch.tokens(); ++t) {
    CHECK(weights.at(t, 0) == Approx(0.125).epsilon(1e-14));
    CHECK(weights.at(t, 1) == Approx(0.25).epsilon(1e-14));
    CHECK(weights.at(t, 2) == Approx(0.625).epsilon(1e-14));
    const auto at = static_cast<std::size_t>(t);
    CHECK(losses.at(0, t) == Approx(-one[0]->log_probability(batch.inputs[at], batch.targets[at])).epsilon(1e-13));
  }
}

TEST_CASE("forest: a member of prior zero changes nothing and does not run", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp32>(ctx, 3, 7);
  const text_batch batch(2, 12, 7);
  const bigrams<fp32> without = {members[0], members[2]};
  const auto check = [&](auto&& all, auto&& two) {
    all.set_prior(std::vector<double>{0.25, 0, 0.75});
    two.set_prior(std::vector<double>{0.25, 0.75});
    const index_t before = members[1]->sequences;
    CHECK(same_bits(mixture_losses(all, batch), mixture_losses(two, batch)));
    const auto weights = posteriors_of(all, batch), others = posteriors_of(two, batch);
    CHECK(members[1]->sequences == before);
    for (index_t t = 0; t < batch.tokens(); ++t) {
      CHECK(weights.at(t, 0) == others.at(t, 0));
      CHECK(weights.at(t, 1) == 0);
      CHECK(weights.at(t, 2) == others.at(t, 1));
    }
    tensor<float> a(2, 7), b(2, 7);
    all.next_token_logits(a.matrix(), batch.input());
    two.next_token_logits(b.matrix(), batch.input());
    CHECK(same_bits(a, b));
  };
  check(bigram_forest<fp32>(members), bigram_forest<fp32>(without));
  check(bigram_forest<fp32, last_token_posterior>(members), bigram_forest<fp32, last_token_posterior>(without));
}

// Twenty members' worth of nats apart within a few tokens, and sums of -20000 at the end: in linear space every weight
// is zero after some hundred tokens.
TEST_CASE("forest: ten thousand tokens in fp32", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  const index_t length = 10000;
  auto members = random_bigrams<fp32>(ctx, 2, 7, length, 0.5);
  // The same numbers on other tokens: members that are equally good, whose evidence goes up and down.
  for (index_t row = 0; row < 7; ++row)
    for (index_t v = 0; v < 7; ++v) members[1]->table(row, v) = members[0]->table(row, 6 - v);
  const text_batch batch(1, length, 7);
  bigram_forest<fp32> model(members);
  const auto weights = posteriors_of(model, batch);
  const auto losses = mixture_losses(model, batch);
  const auto of_members = losses_of(members, batch, 0);
  long double first = 0, second = 0;
  index_t undecided = 0;
  for (index_t t = 0; t < length; ++t) {
    const auto at = static_cast<std::size_t>(t);
    const long double want = 1 / (1 + std::exp(second - first));
    // A loss of about 2 nats is right to u(fp32) of 4, in fp64 sums: t of them.
    const double slack = 1e-6 + 4 * static_cast<double>(t) * 0x1p-24;
    REQUIRE(std::isfinite(losses.at(0, t)));
    REQUIRE(std::abs(weights.at(t, 0) - static_cast<double>(want)) <= slack);
    REQUIRE(std::abs(weights.at(t, 0) + weights.at(t, 1) - 1) <= 1e-6);
    undecided += want > 0.01 && want < 0.99 ? 1 : 0;
    first -= of_members[0][at];
    second -= of_members[1][at];
  }
  CHECK(undecided > 5);
  CHECK(first < -10000);
}

TEST_CASE("forest: metrics are the share of tokens of each member", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  text_batch batch(2, 8, 7);
  batch.targets[7] = -1;  // the last of a sequence: no evidence for what follows
  bigram_forest<fp64> model(members);
  const auto weights = posteriors_of(model, batch);
  CHECK(model.metrics().load.at(0).tokens == 0);
  const auto losses = mixture_losses(model, batch);
  const pass_metrics metrics = model.metrics();
  CHECK(losses.at(0, 7) == 0);
  CHECK(metrics.loss_sum == Approx(std::accumulate(losses.values.begin(), losses.values.end(), 0.0)));
  REQUIRE(metrics.load.size() == 1);
  REQUIRE(metrics.load[0].counts.size() == 3);
  CHECK(metrics.load[0].tokens == 15);
  double entropy = 0;
  for (index_t j = 0; j < 3; ++j) {
    double share = 0;
    for (index_t t = 0; t < 16; ++t) {
      if (t == 7) continue;
      share += weights.at(t, j);
      entropy -= weights.at(t, j) * std::log(weights.at(t, j));
    }
    CHECK(metrics.load[0].counts[static_cast<std::size_t>(j)] == Approx(share));
  }
  CHECK(metrics.load[0].entropy_sum == Approx(entropy));
  model.clear_metrics();
  CHECK(model.metrics().loss_sum == 0);
  CHECK(model.metrics().load.at(0).tokens == 0);
  CHECK(model.parameter_count() == 3 * 49);
  CHECK(model.active_parameter_count() == 3 * 49);
  CHECK(bigram_forest<fp64, fixed_weights>(members, {.kept = 2}).active_parameter_count() == 2 * 49);
}

// pi <- q, then pi <- 0.7 pi + 0.3 q, sequence after sequence, also within a batch.
TEST_CASE("forest: an updated prior against a computation by hand", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  const text_batch batch(4, 6, 7);
  const index_t kept = GENERATE(0, 1);
  bigram_forest<fp64> model(members, {.kept = kept});
  model.update_prior(0.3);
  const auto losses = mixture_losses(model, batch);
  std::vector<double> prior(3, 1.0 / 3);
  for (index_t b = 0; b < 4; ++b) {
    const auto of_members = losses_of(members, batch, b);
    const auto all = reference_weights(of_members, {evidence::prefix, prior, 1, 0});
    const auto used = reference_weights(of_members, {evidence::prefix, prior, 1, kept});
    for (std::size_t t = 0; t < 6; ++t) {
      long double mixed = 0;
      for (std::size_t j = 0; j < 3; ++j) mixed += used[t][j] * std::exp(-static_cast<long double>(of_members[j][t]));
      CHECK(losses.at(0, b * 6 + static_cast<index_t>(t)) ==
            Approx(static_cast<double>(-std::log(mixed))).epsilon(1e-12));
    }
    for (std::size_t j = 0; j < 3; ++j) {
      long double q = 0;
      for (std::size_t t = 0; t < 6; ++t) q += all[t][j] / 6;
      prior[j] = b == 0 ? static_cast<double>(q) : 0.7 * prior[j] + 0.3 * static_cast<double>(q);
    }
  }
  for (std::size_t j = 0; j < 3; ++j) CHECK(model.prior()[j] == Approx(prior[j]).epsilon(1e-12));

  // Reports do not move it, and no more does evaluation once it is fixed.
  posteriors_of(model, batch);
  CHECK(model.prior()[0] == Approx(prior[0]).epsilon(1e-12));
  model.update_prior(0);
  mixture_losses(model, batch);
  CHECK(model.prior()[0] == Approx(prior[0]).epsilon(1e-12));
  // A member that has been silent for long can come back: after 2800 sequences its prior is below what fp64 holds.
  model.update_prior(0.3);
  members[0]->offset = 300;
  for (int i = 0; i < 700; ++i) mixture_losses(model, batch);
  CHECK(model.prior()[0] == 0);
  members[0]->offset = -300;
  for (int i = 0; i < 2; ++i) mixture_losses(model, batch);
  CHECK(model.prior()[0] > 0.5);
}

TEST_CASE("forest: a prior of each sequence, and members that run where they have one", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  const text_batch batch(4, 6, 7);
  const std::vector<std::vector<double>> rows = {{1, 0, 0}, {0.5, 0.2, 0.3}, {0, 0, 2}, {0, 1, 1}};
  bigram_forest<fp64, fixed_weights> model(members, {.kept = 2});
  index_t seen = 0;
  model.set_prior_source([&](matrix_view<const std::int32_t> inputs, matrix_view<double> prior) {
    seen = inputs.extent(1);
    for (index_t b = 0; b < prior.extent(0); ++b)
      for (index_t j = 0; j < 3; ++j) prior(b, j) = rows[static_cast<std::size_t>(b)][static_cast<std::size_t>(j)];
  });
  const auto losses = mixture_losses(model, batch);
  CHECK(members[0]->sequences == 2);
  CHECK(members[1]->sequences == 1);
  CHECK(members[2]->sequences == 3);
  for (index_t b = 0; b < 4; ++b) {
    const auto of_members = losses_of(members, batch, b);
    const auto weights = reference_weights(of_members, {evidence::nothing, rows[static_cast<std::size_t>(b)], 1, 2});
    for (std::size_t t = 0; t < 6; ++t) {
      long double mixed = 0;
      for (std::size_t j = 0; j < 3; ++j)
        mixed += weights[t][j] * std::exp(-static_cast<long double>(of_members[j][t]));
      CHECK(losses.at(0, b * 6 + static_cast<index_t>(t)) ==
            Approx(static_cast<double>(-std::log(mixed))).epsilon(1e-12));
    }
  }
  CHECK(seen == 6);
  tensor<double> next(4, 7), one(1, 7);
  model.next_token_logits(next.matrix(), batch.input());
  for (index_t b = 0; b < 4; ++b) {
    double sum = 0;
    for (index_t v = 0; v < 7; ++v) sum += std::exp(next.at(b, v));
    CHECK(sum == Approx(1).epsilon(1e-13));
  }
  model.next_token_logits(one.matrix(), batch.input().rows(0, 1), 2);
  CHECK(seen == 2);
  CHECK(one.at(0, 3) == next.at(0, 3));

  CHECK_THROWS_WITH(model.next_token_logits(next.matrix(), batch.input(), 2),
                    "forest: expected one sequence where its prompt is named, got 4");
  model.update_prior(0.3);
  CHECK_THROWS_WITH(mixture_losses(model, batch),
                    "forest: expected a prior that is updated or one from a source, got both");
  model.update_prior(0);
  model.set_prior(std::vector<double>{1, 1, 1});
  mixture_losses(model, batch);
  CHECK(seen == 2);
  model.set_prior_source([](matrix_view<const std::int32_t>, matrix_view<double> prior) {
    for (index_t i = 0; i < prior.size(); ++i) prior.data[i] = 0;
  });
  CHECK_THROWS_WITH(mixture_losses(model, batch), "forest: expected prior weights with a positive sum, got 0");
}

// The clusters of c-BTM: weights from the tokens before the next one, and from no later ones.
TEMPLATE_TEST_CASE("forest: a prior of each token", "[models][forest]", fixed_weights, last_token_posterior) {
  constexpr bool fixed = std::is_same_v<TestType, fixed_weights>;
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  const text_batch batch(2, 6, 7);
  TestType policy;
  policy.kept = 2;
  bigram_forest<fp64, TestType> model(members, policy);
  // Member j by how many tokens so far are j modulo 3.
  const auto weights_of = [](const std::int32_t* text, index_t length) {
    std::vector<double> weights = {0.5, 0.6, 0.7};
    for (index_t s = 0; s < length; ++s) weights[static_cast<std::size_t>(text[s] % 3)] += 1;
    return weights;
  };
  model.set_prior_source(
      [&](matrix_view<const std::int32_t> inputs, matrix_view<double> prior) {
        const index_t length = inputs.extent(1), each = prior.extent(0) / inputs.extent(0);
        for (index_t i = 0; i < prior.extent(0); ++i) {
          const auto row = weights_of(inputs.row(i / each), each == 1 ? length : i % each + 1);
          for (index_t j = 0; j < 3; ++j) prior(i, j) = row[static_cast<std::size_t>(j)];
        }
      },
      prior_scope::token);
  const auto weights = posteriors_of(model, batch);
  for (const auto& member : members) CHECK(member->sequences <= 2);
  const auto losses = mixture_losses(model, batch);
  tensor<double> next(2, 7);
  model.next_token_logits(next.matrix(), batch.input());
  for (index_t b = 0; b < 2; ++b) {
    const auto of_members = losses_of(members, batch, b);
    for (index_t t = 0; t < 6; ++t) {
      const auto at = static_cast<std::size_t>(t);
      const auto want = reference_weights(of_members, {fixed ? evidence::nothing : evidence::last_token,
                                                       weights_of(batch.input().row(b), t + 1), 1, 2})[at];
      double mixed = 0, last = 0;
      for (std::size_t j = 0; j < 3; ++j) {
        CHECK(weights.at(6 * b + t, static_cast<index_t>(j)) == Approx(static_cast<double>(want[j])).epsilon(1e-12));
        mixed += static_cast<double>(want[j]) * std::exp(-of_members[j][at]);
        last += static_cast<double>(want[j]) * std::exp(members[j]->log_probability(batch.input()(b, t), 4));
      }
      CHECK(losses.at(0, 6 * b + t) == Approx(-std::log(mixed)).epsilon(1e-12));
      if (t == 5) CHECK(next.at(b, 4) == Approx(std::log(last)).epsilon(1e-12));
    }
  }
  CHECK(generate(model, {1, 2, 3}, {.tokens = 60, .temperature = 1, .seed = 3}) ==
        generate(model, {1, 2, 3}, {.tokens = 60, .temperature = 1, .seed = 3, .use_cache = false}));
}

TEST_CASE("forest: next-token logits are the mixture's log-probabilities", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  const text_batch batch(2, 6, 7);
  bigram_forest<fp64> model(members, {.kept = 2});
  tensor<double> next(2, 7), cached(1, 7);
  model.next_token_logits(next.matrix(), batch.input());
  for (index_t b = 0; b < 2; ++b) {
    const auto weights = reference_weights(losses_of(members, batch, b), {evidence::prefix, {1, 1, 1}, 1, 2});
    const std::int32_t last = batch.input()(b, 5);
    for (index_t v = 0; v < 7; ++v) {
      double p = 0;
      for (std::size_t j = 0; j < 3; ++j)
        p += static_cast<double>(weights[5][j]) * std::exp(members[j]->log_probability(last, static_cast<int>(v)));
      CHECK(next.at(b, v) == Approx(std::log(p)).epsilon(1e-12));
    }
    // Any cut of the text.
    auto cache = model.make_cache(16);
    for (const auto& cut : {std::vector<index_t>{6}, {1, 5}, {2, 1, 3}, {1, 1, 1, 1, 1, 1}}) {
      cache.clear();
      index_t at = 0;
      for (const index_t count : cut) {
        model.extend(cache, reshape(batch.input().rows(b, b + 1), index_t{6}).rows(at, at + count), cached.vector());
        at += count;
      }
      CHECK(cache.length == 6);
      for (index_t v = 0; v < 7; ++v) CHECK(cached.at(0, v) == Approx(next.at(b, v)).epsilon(1e-12));
    }
  }
}

TEMPLATE_TEST_CASE("forest: cached and uncached generation give the same tokens", "[models][forest]", prefix_posterior,
                   last_token_posterior, fixed_weights) {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);  // 16 positions: the text is cut several times
  TestType policy;
  policy.kept = 2;
  bigram_forest<fp64, TestType> model(members, policy);
  CHECK(model.can_cache());
  const double temperature = GENERATE(0.0, 1.0);
  const std::vector<std::int32_t> prompt = {1, 2, 3, 4, 5};
  const auto with = generate(model, prompt, {.tokens = 60, .temperature = temperature, .seed = 3, .use_cache = true});
  const index_t ran = members[0]->caches;
  CHECK(ran == 1);
  const auto without =
      generate(model, prompt, {.tokens = 60, .temperature = temperature, .seed = 3, .use_cache = false});
  CHECK(with.size() == 60);
  CHECK(with == without);
  CHECK(members[0]->caches == ran);
}

// The laws on transformers: one member is the model, and the mixture is that of the members' own logits.
TEST_CASE("forest: of transformers", "[models][forest]") {
  context<cpu> ctx({.threads = 1});
  std::vector<std::shared_ptr<dense>> members;
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    members.push_back(std::make_shared<dense>(ctx, small_shape()));
    randomize(*members.back(), seed);
  }
  const token_batch batch(3, 5, 11);
  using forest_type = forest<prefix_posterior, compute<fp64, cpu>>;
  forest_type one({members[0]}), two(members);
  tensor<double> alone(1, 15), next_alone(3, 11), next(3, 11);
  members[0]->token_losses(alone.vector(), batch.input(), batch.target());
  CHECK(same_bits(mixture_losses(one, batch), alone));
  members[0]->next_token_logits(next_alone.matrix(), batch.input());
  one.next_token_logits(next.matrix(), batch.input());
  for (index_t b = 0; b < 3; ++b) {
    double sum = 0;
    for (index_t v = 0; v < 11; ++v) sum += std::exp(next_alone.at(b, v));
    for (index_t v = 0; v < 11; ++v) CHECK(next.at(b, v) == Approx(next_alone.at(b, v) - std::log(sum)).margin(1e-13));
  }

  // Position 0 of a sequence: the mean of the probabilities.
  const auto mixed = mixture_losses(two, batch);
  tensor<double> other(1, 15);
  members[1]->token_losses(other.vector(), batch.input(), batch.target());
  for (index_t b = 0; b < 3; ++b) {
    const index_t t = 5 * b;
    if (batch.targets[static_cast<std::size_t>(t)] < 0) continue;
    CHECK(mixed.at(0, t) ==
          Approx(-std::log((std::exp(-alone.at(0, t)) + std::exp(-other.at(0, t))) / 2)).epsilon(1e-13));
  }

  // The same bits again, on other threads, and without asking for memory.
  const std::size_t requests = ctx.workspace().requests();
  CHECK(same_bits(mixture_losses(two, batch), mixed));
  CHECK(ctx.workspace().live_bytes() == 0);
  CHECK(ctx.workspace().requests() == requests);
  CHECK(two.parameter_count() == 2 * members[0]->layout().parameter_count());

  CHECK(two.can_cache());
  CHECK(generate(two, {1, 2, 3}, {.tokens = 40, .seed = 1, .use_cache = true}) ==
        generate(two, {1, 2, 3}, {.tokens = 40, .seed = 1, .use_cache = false}));
}

// Row algorithms under a group that works in another order.
TEST_CASE("forest: rows in any order", "[models][forest]") {
  const index_t tokens = 24, positions = 8, count = 5;
  tensor<float> losses = tensor<float>::random(count, tokens, 1), posterior[2], mixed[2], statistics[2];
  tensor<double> prior(1, count, std::log(0.2)), prefix[2], last[2], moved[2];
  std::vector<std::int32_t> targets(static_cast<std::size_t>(tokens), 1);
  targets[5] = -1;
  const auto run = [&](auto& context, int i) {
    prefix[i] = last[i] = tensor<double>(tokens, count, 9);
    posterior[i] = tensor<float>(tokens, count), mixed[i] = tensor<float>(1, tokens);
    statistics[i] = tensor<float>(tokens, count + 2), moved[i] = prior;
    detail::evidence_terms<float, host_space> terms{prefix[i].matrix(), last[i].matrix(), losses.matrix(), positions};
    for (index_t b = 0; b < 3; ++b)
      for (index_t j = 0; j < count; ++j) {
        double total = 0;
        for (index_t t = b * positions; t < (b + 1) * positions; ++t) terms.store(t, j, total += terms.term(t, j));
      }
    launch_rows(
        context, tokens, count,
        detail::posterior_row<prefix_posterior, float, host_space>{
            {.kept = 3}, posterior[i].matrix(), prior.matrix(), prefix[i].matrix(), last[i].matrix(), positions, 0});
    const view<const std::int32_t, 1> target_view(targets.data(), tokens);
    launch_rows(context, tokens, count,
                detail::mixture_loss_row<float, host_space>{mixed[i].vector(), statistics[i].matrix(),
                                                            posterior[i].matrix(), losses.matrix(), target_view});
    launch_rows(context, count, positions,
                detail::prior_update_row<float, host_space>{moved[i].vector(), posterior[i].matrix().rows(0, positions),
                                                            target_view.rows(0, positions), 0.3, false});
  };
  context<cpu> plain({.threads = 1});
  shuffled_context shuffled(7);
  run(plain, 0);
  run(shuffled, 1);
  // Sums of up to 8 terms in another order.
  for (index_t i = 0; i < tokens * count; ++i) {
    const double a = posterior[0].at(0, i), b = posterior[1].at(0, i);
    CHECK((a == b || std::abs(a - b) <= 1e-5 * (1 + std::abs(a))));
  }
  for (index_t t = 0; t < tokens; ++t) CHECK(std::abs(mixed[0].at(0, t) - mixed[1].at(0, t)) <= 1e-5);
  for (index_t j = 0; j < count; ++j) {
    CHECK(std::abs(moved[0].at(0, j) - moved[1].at(0, j)) <= 1e-12);
    CHECK(moved[0].at(0, j) != prior.at(0, j));
  }
}

TEST_CASE("forest: wrong members and priors are refused", "[models][forest]") {
  context<cpu> ctx({.threads = 1}), elsewhere({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 2, 7);
  using forest_type = bigram_forest<fp64>;
  CHECK_THROWS_WITH(forest_type({}), "forest: expected at least one member, got none");
  CHECK_THROWS_WITH(forest_type({members[0], nullptr}), "forest: expected members, got a null pointer");
  CHECK_THROWS_WITH(forest_type({members[0], random_bigrams<fp64>(ctx, 1, 8)[0]}),
                    "forest: expected members of one vocabulary, got 7 and 8");
  CHECK_THROWS_WITH(forest_type({members[0], random_bigrams<fp64>(elsewhere, 1, 7)[0]}),
                    "forest: expected members on one context, got two");
  forest_type model(members);
  CHECK(forest_type({members[0], random_bigrams<fp64>(ctx, 1, 7, 9)[0]}).shape().positions == 9);
  CHECK_THROWS_WITH(model.set_prior(std::vector<double>{1}), "forest: expected a prior of 2 members, got 1 values");
  CHECK_THROWS_WITH(model.set_prior(std::vector<double>{1, -1}),
                    "forest: expected prior weights of at least 0, got -1");
  CHECK_THROWS_WITH(model.set_prior(std::vector<double>{0, 0}),
                    "forest: expected prior weights with a positive sum, got 0");
  CHECK_THROWS_AS(model.set_prior(std::vector<double>{1, std::numeric_limits<double>::quiet_NaN()}), error);
  const text_batch batch(1, 3, 7);
  tensor<double> losses(1, 3);
  model.posterior().kept = -1;
  CHECK_THROWS_WITH(model.token_losses(losses.vector(), batch.input(), batch.target()),
                    "forest: expected to keep at least 0 members (0: all), got -1");
  model.posterior() = {.temperature = 0};
  CHECK_THROWS_WITH(model.token_losses(losses.vector(), batch.input(), batch.target()),
                    "forest: expected a temperature above 0, got 0");
  CHECK_THROWS_WITH(model.update_prior(1.5), "forest: expected a share of the newest sequence in [0, 1], got 1.5");
}

}  // namespace forest_tests
