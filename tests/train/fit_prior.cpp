// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The cached prior of a forest against a computation by hand, and the average of parameters that it weighs.

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <unistd.h>

#include <graft/analysis/evaluate.hpp>
#include <graft/io/token_file_writer.hpp>
#include <graft/mix/mix.hpp>
#include <graft/train/fit_prior.hpp>

#include "models/bigram_member.hpp"
#include "models/model_check.hpp"

namespace fit_prior_tests {

using namespace graft;
using namespace graft::test;

namespace {

using forest_type = forest<prefix_posterior, compute<fp64, cpu>, bigram_member<fp64>>;

struct held_out {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("graft-fit-prior-" + std::to_string(::getpid()));
  std::vector<std::int32_t> tokens;

  explicit held_out(std::size_t count) {
    const random_source draw{4, random_stream::data};
    for (std::size_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>(draw.below(7, 0, i)));
    std::filesystem::create_directories(folder);
    token_file_writer out(folder / "tokens.bin", {static_cast<index_t>(count), byte_tokenizer::ids(), 256, -1});
    out.append(tokens);
    out.finish();
  }
  ~held_out() { std::filesystem::remove_all(folder); }
  evaluation_windows windows() const { return evaluation_windows(token_file(folder / "tokens.bin"), 8); }
};

}  // namespace

TEST_CASE("fit_prior: the moving average of mean posteriors over held-out windows", "[train][forest]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  const held_out text(1 + 5 * 8 + 3);  // five windows of 8 predicted tokens and one of 3
  const index_t sequences = GENERATE(100, 4), rows = GENERATE(1, 3);
  forest_type model(members);
  evaluation_windows windows = text.windows();
  const std::vector<double> fitted = fit_prior(model, windows, {.sequences = sequences, .rows = rows});

  std::vector<double> prior(3, 1.0 / 3);
  for (index_t n = 0; n < std::min<index_t>(sequences, 6); ++n) {
    const index_t length = n == 5 ? 3 : 8;
    std::vector<double> weights = prior, mean(3);
    for (index_t t = 0; t < length; ++t) {
      const auto at = static_cast<std::size_t>(8 * n + t);
      double sum = 0;
      for (const double w : weights) sum += w;
      for (std::size_t j = 0; j < 3; ++j) {
        mean[j] += weights[j] / sum / static_cast<double>(length);
        weights[j] *= std::exp(members[j]->log_probability(text.tokens[at], text.tokens[at + 1]));
      }
    }
    for (std::size_t j = 0; j < 3; ++j) prior[j] = n == 0 ? mean[j] : 0.7 * prior[j] + 0.3 * mean[j];
  }
  for (std::size_t j = 0; j < 3; ++j) CHECK(fitted[j] == Approx(prior[j]).epsilon(1e-12));
  CHECK(fitted[0] + fitted[1] + fitted[2] == Approx(1).epsilon(1e-12));
  CHECK(fitted == model.prior());
  CHECK(model.metrics().load.at(0).tokens == 0);

  // It stays while the forest is evaluated.
  evaluation_windows again = text.windows();
  const evaluation result = evaluate(model, again, 2);
  CHECK(model.prior() == fitted);
  CHECK(result.tokens == 43);
  CHECK(result.load.at(0).tokens == 43);
  CHECK(result.load[0].counts[0] + result.load[0].counts[1] + result.load[0].counts[2] == Approx(43));
}

TEST_CASE("fit_prior: the average of parameters with posterior weights", "[train][forest]") {
  const std::vector<double> prior = {1, 5, 2};
  const average_weights form = GENERATE(average_weights::uniform, average_weights::argmax, average_weights::posterior);
  const std::vector<double> want = form == average_weights::uniform  ? std::vector<double>(3, 1.0 / 3)
                                   : form == average_weights::argmax ? std::vector<double>{0, 1, 0}
                                                                     : std::vector<double>{0.125, 0.625, 0.25};
  const std::vector<double> weights = posterior_weights(prior, form);
  CHECK(weights == want);
  CHECK(name_of(form) != "");

  context<cpu> ctx({.threads = 1});
  std::vector<std::unique_ptr<dense_transformer<compute<fp64, cpu>>>> members;
  std::vector<mix_source<double>> sources;
  for (std::uint64_t j = 0; j < 3; ++j) {
    members.push_back(std::make_unique<dense_transformer<compute<fp64, cpu>>>(ctx, small_shape()));
    randomize(*members.back(), j + 1);
    const auto master = members.back()->parameters().master();
    sources.push_back({"member " + std::to_string(j), small_shape(), "bytes", &members[j]->layout(),
                       std::span<const double>(master.data, static_cast<std::size_t>(master.extent(0)))});
  }
  dense_transformer<compute<fp64, cpu>> average(ctx, small_shape());
  const auto target = average.parameters().master();
  mix<double>(soup_recipe, sources, average.layout(),
              std::span<double>(target.data, static_cast<std::size_t>(target.extent(0))), {.weights = weights});
  for (const tensor_entry& entry : average.layout().tensors)
    for (index_t i = 0; i < entry.size(); ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < 3; ++j)
        sum += want[j] * sources[j].values[static_cast<std::size_t>(entry.offset + i)];
      REQUIRE(target[entry.offset + i] == Approx(sum).epsilon(1e-14).margin(1e-15));
    }
  CHECK_THROWS_WITH(posterior_weights(std::vector<double>{1, -2}),
                    "forest: expected prior weights of at least 0, got -2");
}

}  // namespace fit_prior_tests
