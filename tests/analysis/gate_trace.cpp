// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Values along a text: where each number of a model's answer goes, and the weights of a mixture.

#include "catch.hpp"

#include <vector>

#include <graft/analysis/gate_trace.hpp>

namespace gate_trace_tests {

using namespace graft;

TEST_CASE("make_gate_trace: panels, series, tokens", "[analysis]") {
  std::vector<double> values(12);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  const gate_trace trace = make_gate_trace(values, {"stitch 0", "stitch 1"}, {"hub", "code", "french"}, 2);
  REQUIRE(trace.panels.size() == 2);
  CHECK(trace.tokens == 2);
  CHECK(trace.panels[1].title == "stitch 1");
  REQUIRE(trace.panels[1].series.size() == 3);
  CHECK(trace.panels[1].series[2].name == "french");
  CHECK(trace.panels[1].series[2].values == std::vector<double>{10, 11});
  CHECK(trace.panels[0].series[1].values == std::vector<double>{2, 3});
  CHECK_THROWS_WITH(make_gate_trace(values, {"stitch 0"}, {"hub", "code"}, 2),
                    Catch::Contains("expected 1 x 2 x 2 values, got 12"));
}

TEST_CASE("gate_trace_of: the weights of a mixture", "[analysis]") {
  // The second token has one expert, and the third the same expert twice.
  routing_trace routing{{1, 2, 3}, {{4, 3, 2, {2, 0, 1, -1, 1, 1}, {0.75f, 0.25f, 1.0f, 0.0f, 0.5f, 0.25f}}}};
  const gate_trace trace = gate_trace_of(routing, {"a", "b", "c"});
  REQUIRE(trace.panels.size() == 1);
  CHECK(trace.panels[0].title == "layer 4");
  CHECK(trace.panels[0].series[0].values == std::vector<double>{0.25, 0, 0});
  CHECK(trace.panels[0].series[1].values == std::vector<double>{0, 1, 0.75});
  CHECK(trace.panels[0].series[2].values == std::vector<double>{0.75, 0, 0});
  CHECK_THROWS_WITH(gate_trace_of(routing, {"a", "b"}), Catch::Contains("expected names of 3 experts, got 2"));
}

TEST_CASE("marked_text and running means", "[analysis]") {
  marked_text text;
  text.append("code", {1, 2, 3});
  text.append("french", {4});
  CHECK(text.ids == std::vector<std::int32_t>{1, 2, 3, 4});
  REQUIRE(text.spans.size() == 2);
  CHECK(text.spans[1].name == "french");
  CHECK(text.spans[1].first == 3);
  CHECK(text.spans[1].last == 4);

  CHECK(running_mean_of({4, 0, 2, 2}, 2) == std::vector<double>{4, 2, 1, 2});
  CHECK(running_mean_of({4, 0, 2, 2}, 1) == std::vector<double>{4, 0, 2, 2});
  CHECK(running_mean_of({4, 0, 2, 2}, 9) == std::vector<double>{4, 2, 2, 2});
  CHECK_THROWS_WITH(running_mean_of({1}, 0), Catch::Contains("got 0"));
}

TEST_CASE("block_routing: order of a token's experts, and traces end to end", "[analysis]") {
  const block_routing block{0, 4, 3, {3, 0, 2, 1, -1, 2, -1, -1, -1}, {0.2f, 0.6f, 0.2f, 0.5f, 0.0f, 0.5f, 0, 0, 0}};
  CHECK(block.tokens() == 3);
  CHECK(block.ranked(0) == std::vector<index_t>{1, 2, 0});  // ties to the lower expert
  CHECK(block.ranked(1) == std::vector<index_t>{0, 2});
  CHECK(block.ranked(2).empty());
  CHECK(block.main_expert(0) == 0);
  CHECK(block.main_expert(1) == 1);
  CHECK(block.main_expert(2) == -1);

  routing_trace all, first{{5}, {{2, 2, 1, {1}, {1.0f}}}}, second{{6}, {{2, 2, 1, {0}, {1.0f}}}};
  all += first;
  all += second;
  CHECK(all.ids == std::vector<std::int32_t>{5, 6});
  CHECK(all.blocks[0].selected == std::vector<std::int32_t>{1, 0});
  second.blocks[0].experts = 3;
  CHECK_THROWS_WITH(all += second, Catch::Contains("got block 2 with 3 experts"));
}

}  // namespace gate_trace_tests
