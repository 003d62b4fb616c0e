// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Who has how much say along a text: gates of a stitched model and the posterior of a forest, where the answer is
// known.

#include "catch.hpp"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <graft/analysis/trace_gates.hpp>
#include <graft/models/stitched_transformer.hpp>
#include <graft/policies/stitch_topology/hub_and_spokes.hpp>

#include "models/bigram_member.hpp"
#include "models/model_check.hpp"

namespace trace_gates_tests {

using namespace graft;
using namespace graft::test;

namespace {

using number = compute<fp64, cpu>;
const std::vector<std::int32_t> text{3, 1, 4, 1, 5};
const std::vector<std::string> names{"seed", "code", "french"};

}  // namespace

TEST_CASE("trace_stitches: a panel for what is read where", "[analysis]") {
  using member = dense_transformer<number>;
  context<cpu> ctx;
  std::vector<std::shared_ptr<member>> members;
  for (std::uint64_t i = 0; i < 3; ++i) {
    members.push_back(std::make_shared<member>(ctx, small_shape()));
    randomize(*members.back(), i);
  }
  stitched_transformer<hub_and_spokes, number> model(ctx, members, {}, {.stitches = 2});
  model.initialize();
  const gate_trace fresh = trace_stitches(model, text, names);
  CHECK(fresh.tokens == 5);
  REQUIRE(fresh.panels.size() == 2);
  CHECK(fresh.panels[0].title == "behind layer 0: seed into the others");
  CHECK(fresh.panels[1].title == "behind layer 1: into seed");
  REQUIRE(fresh.panels[0].series.size() == 2);
  CHECK(fresh.panels[0].series[0].name == "code");
  CHECK(fresh.panels[0].series[1].name == "french");
  REQUIRE(fresh.panels[1].series.size() == 3);
  // Gates of zero logits: half of the hub into each expert, and all members alike into the hub.
  for (const gate_series& series : fresh.panels[0].series) CHECK(series.values == std::vector<double>(5, 0.5));
  for (const gate_series& series : fresh.panels[1].series)
    for (const double value : series.values) CHECK(value == Approx(1.0 / 3).epsilon(1e-15));

  // Anywhere: shares of the hub sum to one, and every number is the model's own.
  randomize(model, 9);
  const gate_trace trace = trace_stitches(model, text, names);
  tensor<double> all(2 * 5 * 3, 3);
  model.gate_values(view<double, 4>(all.values.data(), 2, 5, 3, 3), matrix_view<const std::int32_t>(text.data(), 1, 5));
  for (std::size_t t = 0; t < 5; ++t) {
    double sum = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      const double value = trace.panels[1].series[i].values[t];
      CHECK(value == all.values[((5 + t) * 3 + 0) * 3 + i]);  // stitch 1, into 0, from i
      sum += value;
    }
    CHECK(sum == Approx(1).epsilon(1e-14));
    for (std::size_t i = 0; i < 2; ++i)
      CHECK(trace.panels[0].series[i].values[t] == all.values[(t * 3 + i + 1) * 3 + 0]);  // stitch 0, from 0
  }
  CHECK(trace.panels[1].series[0].values[0] != trace.panels[1].series[0].values[1]);

  CHECK_THROWS_WITH(trace_stitches(model, text, {"seed", "code"}), Catch::Contains("names of 3 members, got 2"));
  CHECK_THROWS_WITH(trace_stitches(model, std::vector<std::int32_t>(17, 1), names),
                    Catch::Contains("to the 16 positions that the model is meant for, got 17"));
  CHECK_THROWS_WITH(trace_stitches(model, {11}, names), Catch::Contains("below the vocabulary of 11, got 11"));
}

TEST_CASE("trace_posterior: Bayes' rule along the text", "[analysis]") {
  context<cpu> ctx;
  const bigrams<fp64> members = random_bigrams<fp64>(ctx, 3, 6);
  forest<prefix_posterior, number, bigram_member<fp64>> model(members);
  const gate_trace trace = trace_posterior(model, text, names);
  REQUIRE(trace.panels.size() == 1);
  CHECK(trace.panels[0].title == "posterior");
  REQUIRE(trace.panels[0].series.size() == 3);
  CHECK(trace.panels[0].series[2].name == "french");
  std::vector<double> likelihood(3, 1.0 / 3);
  for (std::size_t t = 0; t < text.size(); ++t) {
    double sum = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      if (t > 0) likelihood[j] *= std::exp(members[j]->log_probability(text[t - 1], text[t]));
      sum += likelihood[j];
    }
    for (std::size_t j = 0; j < 3; ++j)  // exp and log of sums of 4 terms
      CHECK(trace.panels[0].series[j].values[t] == Approx(likelihood[j] / sum).epsilon(1e-13));
  }
  CHECK_THROWS_WITH(trace_posterior(model, text, {"seed"}), Catch::Contains("names of 3 members, got 1"));
}

}  // namespace trace_gates_tests
