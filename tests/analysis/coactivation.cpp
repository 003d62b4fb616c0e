// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Co-activation by hand, and its row sums.

#include "catch.hpp"

#include <vector>

#include <graft/analysis/coactivation.hpp>
#include <graft/core/philox.hpp>

namespace coactivation_tests {

using namespace graft;

TEST_CASE("coactivation: by hand", "[analysis]") {
  // Token 0: experts 0, 1, 2 by weight 2, 0, 1. Token 1: 0, 3, 1 by weight 0, 1, 3.
  const block_routing block{0, 4, 3, {0, 1, 2, 0, 3, 1}, {0.3f, 0.2f, 0.5f, 0.6f, 0.1f, 0.3f}};
  const share_matrix all = coactivation(block);
  // N = 2, 2, 1, 1
  CHECK(all.values == std::vector<double>{0, 1, 0.5, 0.5,  //
                                          1, 0, 0.5, 0.5,  //
                                          1, 1, 0, 0,      //
                                          1, 1, 0, 0});
  // Neighbours by weight: 2-0, 0-1 of token 0; 0-1, 1-3 of token 1.
  const share_matrix adjacent = coactivation(block, coactivation_pairs::adjacent);
  CHECK(adjacent.values == std::vector<double>{0, 1, 0.5, 0,  //
                                               1, 0, 0, 0.5,  //
                                               1, 0, 0, 0,    //
                                               0, 1, 0, 0});
}

TEST_CASE("coactivation: row sums", "[analysis]") {
  constexpr index_t tokens = 300, experts = 12, slots = 8;
  block_routing block{0, experts, slots, {}, {}};
  const random_source draw{8, random_stream::data};
  std::vector<double> used(experts);
  for (index_t t = 0; t < tokens; ++t) {
    std::vector<std::int32_t> left;
    for (std::int32_t e = 0; e < experts - 1; ++e) left.push_back(e);  // the last is never selected
    for (index_t k = 0; k < slots; ++k) {
      const auto key = static_cast<std::uint64_t>(t * slots + k);
      const auto pick = static_cast<std::size_t>(draw.below(left.size(), 0, key));
      block.selected.push_back(left[pick]);
      block.weights.push_back(static_cast<float>(draw.below(1000, 1, key)));
      used[static_cast<std::size_t>(left[pick])] += 1;
      left.erase(left.begin() + static_cast<std::ptrdiff_t>(pick));
    }
  }
  const share_matrix all = coactivation(block), adjacent = coactivation(block, coactivation_pairs::adjacent);
  double weighted = 0;
  for (index_t i = 0; i + 1 < experts; ++i) {
    CHECK(all.row_sum(i) == Approx(slots - 1).epsilon(1e-14));  // 11 additions of at most 1
    weighted += adjacent.row_sum(i) * used[static_cast<std::size_t>(i)] / (tokens * slots);
    CHECK(all(i, i) == 0);
  }
  CHECK(all.row_sum(experts - 1) == 0);
  CHECK(weighted == Approx(2.0 * (slots - 1) / slots).epsilon(1e-13));  // 7/8 of 2
}

TEST_CASE("coactivation: empty slots, one expert, bad input", "[analysis]") {
  const share_matrix empty = coactivation({0, 2, 2, {0, -1, 1, 0}, {1, 0, 0.5f, 0.5f}});
  CHECK(empty.values == std::vector<double>{0, 0.5, 1, 0});
  CHECK(coactivation({0, 2, 1, {0, 1, 1}, {1, 1, 1}}).values == std::vector<double>(4));
  CHECK_THROWS_WITH(coactivation({0, 2, 1, {2}, {1}}), Catch::Contains("expected experts from -1 to 1, got 2"));
  CHECK_THROWS_WITH(coactivation({0, 2, 2, {0, 1, 0}, {1, 1, 1}}), Catch::Contains("expected (T, K) selected experts"));
}

}  // namespace coactivation_tests
