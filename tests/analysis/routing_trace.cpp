// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What is read out of a model is what the model counted itself, for every kind of mixture; snapshots of a training.

#include "catch.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <graft/analysis/routing_log.hpp>
#include <graft/layers/any_mixture.hpp>
#include <graft/layers/peer.hpp>
#include <graft/layers/smear.hpp>

#include "models/model_check.hpp"

namespace routing_trace_tests {

using namespace graft;
using namespace graft::test;

namespace {

using number = compute<fp64, cpu>;
using model_type = transformer<any_mixture<number>, number>;

const std::vector<std::int32_t> text{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4};

// Losses and loads of one sequence, with nobody looking.
pass_metrics unobserved(model_type& model, const std::vector<std::int32_t>& ids) {
  const auto count = static_cast<index_t>(ids.size());
  const matrix_view<const std::int32_t> inputs(ids.data(), 1, count);
  std::vector<double> losses(ids.size());
  model.clear_metrics();
  model.token_losses(vector_view<double>(losses.data(), count), inputs, inputs);
  const pass_metrics metrics = model.metrics();
  model.clear_metrics();
  return metrics;
}

std::vector<double> counted(const block_routing& block, bool by_weight) {
  std::vector<double> counts(static_cast<std::size_t>(block.experts));
  for (std::size_t i = 0; i < block.selected.size(); ++i)
    if (block.selected[i] >= 0)
      counts[static_cast<std::size_t>(block.selected[i])] += by_weight ? static_cast<double>(block.weights[i]) : 1.0;
  return counts;
}

}  // namespace

TEST_CASE("trace_routing: the counts of the model, whatever the mixture", "[analysis]") {
  context<cpu> ctx({.threads = 2});
  transformer_shape shape = small_shape(3);
  const auto check = [&](const any_mixture<number>& mixture, index_t experts, index_t slots, bool by_weight) {
    shape.experts = experts;
    model_type model(ctx, shape, mixture);
    randomize(model, 4);
    const pass_metrics before = unobserved(model, text);
    const routing_trace trace = trace_routing(model, text, 16);
    CHECK(trace.ids == text);
    REQUIRE(trace.blocks.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
      const block_routing& block = trace.blocks[i];
      CHECK(block.block == static_cast<index_t>(i));
      CHECK(block.experts == experts);
      CHECK(block.slots == slots);
      REQUIRE(block.tokens() == 20);
      // Sequences of 16 and 4 tokens, each by itself.
      const std::vector<std::int32_t> first(text.begin(), text.begin() + 16), second(text.begin() + 16, text.end());
      const pass_metrics a = unobserved(model, first), b = unobserved(model, second);
      const std::vector<double> own = counted(block, by_weight);
      for (std::size_t e = 0; e < own.size(); ++e)  // fp32 weights: 20 roundings of 2^-24
        CHECK(own[e] == Approx(a.load[i].counts[e] + b.load[i].counts[e]).margin(20 * 6e-8));
    }
    CHECK(model.metrics().loss_sum == 0);  // cleared
    const pass_metrics after = unobserved(model, text);
    CHECK(after.loss_sum == before.loss_sum);
    CHECK(after.load == before.load);
  };
  SECTION("top-k") { check(any_mixture<number>(mixture_of<2>{}), 3, 2, false); }
  SECTION("smear: every expert, with the weight of its segment") {
    smear_mixture<> smear;
    smear.segment = 8;
    check(any_mixture<number>(smear), 3, 3, true);
  }
  SECTION("peer") { check(any_mixture<number>(peer_mixture<2, 2>{}), 9, 4, false); }
}

TEST_CASE("trace_routing: what it refuses", "[analysis]") {
  context<cpu> ctx;
  model_type model(ctx, small_shape(3), any_mixture<number>(mixture_of<2>{}));
  CHECK_THROWS_WITH(trace_routing(model, {}, 4), Catch::Contains("expected at least one token"));
  CHECK_THROWS_WITH(trace_routing(model, {1, 11}, 4), Catch::Contains("below the vocabulary of 11, got 11"));
  CHECK_THROWS_WITH(trace_routing(model, {1}, 17), Catch::Contains("expected at most the 16 positions"));
}

TEST_CASE("routing_probe: snapshots over a training that was taken up again", "[analysis]") {
  const auto folder = std::filesystem::temp_directory_path() / ("graft-routing-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto path = folder / "routing.jsonl";
  context<cpu> ctx;
  model_type model(ctx, small_shape(3), any_mixture<number>(mixture_of<2>{}));
  const auto after = [](index_t step) {
    step_report report;
    report.step = step;
    return report;
  };
  const auto steps = [&] {
    std::vector<index_t> all;
    for (const routing_snapshot& snapshot : read_routing_log(path)) all.push_back(snapshot.step);
    return all;
  };
  randomize(model, 1);
  const routing_trace start = trace_routing(model, text, 16);
  {
    routing_probe<model_type> probe(model, text, 16, 2, 5, path);
    for (index_t step = 0; step < 4; ++step) {
      randomize(model, 2 + static_cast<std::uint64_t>(step));
      probe(after(step));
    }
  }
  CHECK(steps() == std::vector<index_t>{0, 2, 4});
  std::ofstream(path, std::ios::app) << "{\"step\": 4, \"blo";  // killed while writing
  randomize(model, 1);
  {
    routing_probe<model_type> probe(model, text, 16, 2, 5, path);  // taken up after three steps
    for (index_t step = 3; step < 5; ++step) {
      randomize(model, 2 + static_cast<std::uint64_t>(step));
      probe(after(step));
    }
  }
  CHECK(steps() == std::vector<index_t>{0, 2, 4, 5});

  const std::vector<routing_snapshot> kept = read_routing_log(path);
  REQUIRE(kept[0].blocks.size() == 2);
  CHECK(kept[0].blocks[1].selected == start.blocks[1].selected);
  CHECK(kept[0].blocks[1].experts == 3);
  const std::vector<saturation_curve> curves = saturation_curves(kept);
  REQUIRE(curves.size() == 2);
  CHECK(curves[0].values.back() == 1);
  CHECK(curves[0].values[0] ==
        saturation(start.blocks[0], trace_routing(model, text, 16).blocks[0]));  // the model is that of the last step
  CHECK(read_routing_log(folder / "none.jsonl").empty());
  std::ofstream(folder / "bad.jsonl") << "{\"step\": 1, \"blocks\": [{\"block\": 0}]}\n";
  CHECK_THROWS_WITH(read_routing_log(folder / "bad.jsonl"), Catch::Contains("bad.jsonl line 1: expected a snapshot"));
  std::filesystem::remove_all(folder);
}

}  // namespace routing_trace_tests
