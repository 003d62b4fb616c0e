// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Saturation by hand, and what holds for any routing.

#include "catch.hpp"

#include <vector>

#include <graft/analysis/saturation.hpp>
#include <graft/core/philox.hpp>

namespace saturation_tests {

using namespace graft;

namespace {

block_routing block_of(index_t experts, index_t slots, std::vector<std::int32_t> selected) {
  block_routing block{3, experts, slots, std::move(selected), {}};
  block.weights.resize(block.selected.size());
  return block;
}

}  // namespace

TEST_CASE("saturation: by hand", "[analysis]") {
  const block_routing last = block_of(4, 2, {0, 1, 2, 3, 1, 2, 0, 3});
  // {1, 0}: both, in another order; {2, 1}: one of two; {0, 3}: none; {3, 1}: one of two
  CHECK(saturation(block_of(4, 2, {1, 0, 2, 1, 0, 3, 3, 1}), last) == (1 + 0.5 + 0 + 0.5) / 4);
  CHECK(saturation(last, last) == 1);
}

TEST_CASE("saturation: empty slots count for nothing", "[analysis]") {
  // One expert in the end: found is all of it. None in the end: the token is left out.
  const block_routing last = block_of(3, 2, {2, -1, -1, -1, 0, 1});
  CHECK(saturation(block_of(3, 2, {0, 2, 1, 0, -1, 1}), last) == (1 + 0.5) / 2);
  CHECK(saturation(last, last) == 1);
  CHECK_THROWS_WITH(saturation(block_of(3, 2, {0, 1}), block_of(3, 2, {-1, -1})),
                    Catch::Contains("expected at least one token with an expert, got none of 1"));
  CHECK_THROWS_WITH(saturation(block_of(3, 2, {0, 1}), last), Catch::Contains("got 1 and 3 tokens"));
}

TEST_CASE("saturation: curves end at 1, and independent choices agree by chance", "[analysis]") {
  constexpr index_t tokens = 4000, experts = 8, slots = 2;
  std::vector<routing_snapshot> snapshots;
  const random_source draw{5, random_stream::data};
  for (const index_t step : {0, 10, 40}) {
    std::vector<std::int32_t> selected;
    for (index_t t = 0; t < tokens; ++t) {
      const auto key = static_cast<std::uint64_t>(step * tokens + t);
      const auto first = static_cast<std::int32_t>(draw.below(experts, 0, key));
      const auto other = static_cast<std::int32_t>(draw.below(experts - 1, 1, key));
      selected.insert(selected.end(), {first, other < first ? other : other + 1});
    }
    snapshots.push_back({step, {block_of(experts, slots, selected)}});
  }
  const std::vector<saturation_curve> curves = saturation_curves(snapshots);
  REQUIRE(curves.size() == 1);
  CHECK(curves[0].block == 3);
  CHECK(curves[0].chance == 0.25);
  CHECK(curves[0].steps == std::vector<double>{0, 10, 40});
  CHECK(curves[0].values[2] == 1);
  // A token's share has a variance below 1/4 * 3/4 (that of one slot): 5 standard deviations of the mean of 4000.
  CHECK(curves[0].values[0] == Approx(0.25).margin(5 * 0.434 / 63.2));
  CHECK(curves[0].values[1] == Approx(0.25).margin(5 * 0.434 / 63.2));
  CHECK(saturation_curves({}).empty());
}

}  // namespace saturation_tests
