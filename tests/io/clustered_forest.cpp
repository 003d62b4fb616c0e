// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Forests of clusters against the definition, token by token; chunks; generation with and without caches; the prior
// source of a forest; errors.

#include "catch.hpp"

#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <graft/io/clustered_forest.hpp>
#include <graft/models/generation.hpp>

#include "io/io_test.hpp"
#include "io/topics.hpp"
#include "models/bigram_member.hpp"

namespace clustered_forest_tests {

namespace {

using namespace graft;
using member = test::bigram_member<fp64>;
using number = compute<fp64, cpu>;

context<cpu>& one_thread() {
  static context<cpu> ctx(context_options{1});
  return ctx;
}

std::shared_ptr<const document_clusters> three_clusters() {
  static const std::shared_ptr<const document_clusters> clusters = [] {
    document_clusters_options options;
    options.clusters = 3, options.dimensions = 8;
    return std::make_shared<const document_clusters>(
        fit_document_clusters(one_thread(), io_test::topic_documents(3, 20), options));
  }();
  return clusters;
}

const test::bigrams<fp64>& members() {
  static const test::bigrams<fp64> all = test::random_bigrams<fp64>(one_thread(), 3, 257, 64);
  return all;
}

std::vector<std::int32_t> bytes(const std::string& text) {
  std::vector<std::int32_t> tokens;
  byte_tokenizer::encode(text, tokens);
  return tokens;
}

}  // namespace

TEST_CASE("clustered_forest: each token is weighed by the text before it", "[io][clusters]") {
  const std::string texts[] = {"t0word1 t0word2 common1 t1word", "t2word11\nt2word4 Zebra, t0word"};
  const index_t positions = static_cast<index_t>(texts[0].size()) - 1;
  REQUIRE(texts[1].size() == texts[0].size());
  std::vector<std::int32_t> inputs, targets;
  for (const std::string& text : texts) {
    const std::vector<std::int32_t> tokens = bytes(text);
    inputs.insert(inputs.end(), tokens.begin(), tokens.end() - 1);
    targets.insert(targets.end(), tokens.begin() + 1, tokens.end());
  }
  targets[5] = -1;
  for (const index_t chunk : {1, 7}) {
    auto forest = clustered_forest<number>(members(), three_clusters(), {}, chunk);
    std::vector<double> losses(inputs.size());
    const matrix_view<const std::int32_t> input(inputs.data(), 2, positions), target(targets.data(), 2, positions);
    forest.token_losses(view<double, 1>(losses.data(), 2 * positions), input, target);
    std::vector<double> posteriors(inputs.size() * 3);
    forest.posteriors(matrix_view<double>(posteriors.data(), 2 * positions, 3), input, target);
    double all = 0;
    std::vector<double> counts(3, 0.0);
    for (std::size_t t = 0; t < inputs.size(); ++t) {
      const std::size_t at = t % static_cast<std::size_t>(positions),
                        seen = at - at % static_cast<std::size_t>(chunk) + 1;
      const std::vector<double> weights =
          cluster_weights(*three_clusters(), texts[t / static_cast<std::size_t>(positions)].substr(0, seen));
      double probability = 0;
      for (std::size_t j = 0; j < 3; ++j) {
        CHECK(posteriors[t * 3 + j] == Approx(weights[j]).epsilon(1e-13));
        if (targets[t] >= 0) probability += weights[j] * std::exp(members()[j]->log_probability(inputs[t], targets[t]));
        if (targets[t] >= 0) counts[j] += weights[j];
      }
      CHECK(losses[t] == Approx(targets[t] >= 0 ? -std::log(probability) : 0.0).epsilon(1e-12).margin(1e-15));
      all += losses[t];
    }
    const pass_metrics metrics = forest.metrics();
    CHECK(metrics.loss_sum == Approx(all).epsilon(1e-12));
    CHECK(metrics.load.at(0).tokens == static_cast<double>(targets.size() - 1));
    for (std::size_t j = 0; j < 3; ++j) CHECK(metrics.load[0].counts[j] == Approx(counts[j]).epsilon(1e-12));
    forest.clear_metrics();
    CHECK(forest.metrics().loss_sum == 0);
  }
}

TEST_CASE("clustered_forest: generation follows the text, with caches as without", "[io][clusters]") {
  cluster_posterior_options options;
  options.clusters = 2;
  auto forest = clustered_forest<number>(members(), three_clusters(), options);
  const std::string text = "t1word3 t1word4 ";
  const std::vector<std::int32_t> tokens = bytes(text);
  std::vector<double> whole(257), grown(257);
  const auto length = static_cast<index_t>(tokens.size());
  forest.next_token_logits(matrix_view<double>(whole.data(), 1, 257),
                           matrix_view<const std::int32_t>(tokens.data(), 1, length));
  double sum = 0;
  const std::vector<double> weights = cluster_weights(*three_clusters(), text, options);
  for (std::int32_t v = 0; v < 257; ++v) {
    double probability = 0;
    for (std::size_t j = 0; j < 3; ++j) probability += weights[j] * std::exp(members()[j]->log_probability(' ', v));
    CHECK(whole[static_cast<std::size_t>(v)] == Approx(std::log(probability)).epsilon(1e-12));
    sum += std::exp(whole[static_cast<std::size_t>(v)]);
  }
  CHECK(sum == Approx(1).epsilon(1e-12));
  REQUIRE(forest.can_cache());
  auto cache = forest.make_cache(64);
  for (index_t first = 0; first < length; first += 3)
    forest.extend(cache, view<const std::int32_t, 1>(tokens.data() + first, std::min<index_t>(3, length - first)),
                  view<double, 1>(grown.data(), 257));
  CHECK(cache.length == length);
  CHECK((grown == whole));  // the same sums in the same order

  generation_options generation;
  generation.tokens = 90;  // beyond the 64 positions
  generation.use_cache = false;
  const std::vector<std::int32_t> plain = generate(forest, tokens, generation);
  generation.use_cache = true;
  CHECK(generate(forest, tokens, generation) == plain);
  CHECK(plain.size() > 0);
}

TEST_CASE("cluster_prior_source: a forest's prior from the beginning of each sequence", "[io][clusters]") {
  const std::string texts[] = {"t0word1 t1word2", "t2word3 t0word1"};
  std::vector<std::int32_t> inputs = bytes(texts[0] + texts[1]);
  for (const index_t seen : {0, 7}) {
    std::vector<double> prior(6);
    const cluster_prior_source<context<cpu>> source(one_thread(), three_clusters(), {{}, seen, 1});
    source(matrix_view<const std::int32_t>(inputs.data(), 2, 15), matrix_view<double>(prior.data(), 2, 3));
    for (std::size_t b = 0; b < 2; ++b) {
      const auto length = seen > 0 ? static_cast<std::size_t>(seen) : texts[b].size();
      const std::vector<double> wanted = cluster_weights(*three_clusters(), texts[b].substr(0, length));
      for (std::size_t j = 0; j < 3; ++j) CHECK(prior[b * 3 + j] == wanted[j]);
    }
  }
  forest<fixed_weights, number, member> trees(members());
  trees.set_prior_source(cluster_prior_source<context<cpu>>(one_thread(), three_clusters()));
  std::vector<double> posteriors(30 * 3);
  const std::vector<std::int32_t> targets(30, 'x');
  trees.posteriors(matrix_view<double>(posteriors.data(), 30, 3), matrix_view<const std::int32_t>(inputs.data(), 2, 15),
                   matrix_view<const std::int32_t>(targets.data(), 2, 15));
  const std::vector<double> wanted = cluster_weights(*three_clusters(), texts[1]);
  for (std::size_t j = 0; j < 3; ++j) CHECK(posteriors[20 * 3 + j] == Approx(wanted[j]).epsilon(1e-12));
}

TEST_CASE("clustered_forest: bad input", "[io][clusters]") {
  const test::bigrams<fp64> two(members().begin(), members().begin() + 2);
  CHECK_ERROR(clustered_forest<number>(two, three_clusters()), "members=2", "clusters=3");
  CHECK_ERROR(clustered_forest<number>(members(), three_clusters(), {}, 0), "chunks of at least one token", "got 0");
  CHECK_ERROR(clustered_forest<number>(members(), nullptr), "null pointer");
  cluster_posterior_options options;
  options.temperature = -1;
  CHECK_ERROR(clustered_forest<number>(members(), three_clusters(), options), "positive temperature", "-1");
}

}  // namespace clustered_forest_tests
