// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The tile search of the CUDA grouped products, on the host: every row belongs to exactly one tile, of its own group.

#include <cstdint>
#include <vector>

#include <graft/backend/cuda/grouped_tiles.hpp>
#include <graft/core/philox.hpp>

#include "catch.hpp"

namespace graft {
namespace {

std::vector<std::int32_t> offsets_of(const std::vector<int>& lengths, std::int32_t first = 0) {
  std::vector<std::int32_t> offsets{first};
  for (const int length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

// Walks all tile numbers up to the bound and says whether they cover each row of each group once and nothing else.
bool covers_each_row_once(const std::vector<std::int32_t>& offsets, index_t row_bound, int height) {
  const int groups = static_cast<int>(offsets.size()) - 1;
  std::vector<int> covered(static_cast<std::size_t>(row_bound), 0);
  for (index_t tile = 0; tile < detail::grouped_tile_bound(row_bound, groups, height); ++tile) {
    const auto found = detail::find_grouped_tile(offsets.data(), groups, tile, height);
    if (found.rows < 0 || found.rows > height || found.group < 0 || found.group >= groups) return false;
    if (found.rows == 0) continue;
    if (found.begin < offsets[found.group] || found.begin + found.rows > offsets[found.group + 1]) return false;
    for (index_t row = found.begin; row < found.begin + found.rows; ++row) ++covered[row];
  }
  for (index_t row = 0; row < row_bound; ++row)
    if (covered[row] != (row >= offsets.front() && row < offsets.back() ? 1 : 0)) return false;
  return true;
}

}  // namespace

TEST_CASE("grouped tiles: every row lies in one tile of its own group") {
  const int height = GENERATE(1, 2, 64, 128);
  const index_t slack = GENERATE(0, 1, 300);
  const std::vector<std::vector<int>> cases = {
      {0},         {1},       {127},        {128},          {129},
      {0, 0, 0},   {0, 5, 0}, {64, 64, 64}, {128, 0, 0, 1}, {63, 65, 127, 129, 1, 0, 2},
      {0, 0, 1000}};
  for (const auto& lengths : cases) {
    const auto offsets = offsets_of(lengths);
    CHECK(covers_each_row_once(offsets, offsets.back() + slack, height));
  }
}

TEST_CASE("grouped tiles: random lengths") {
  const random_source source{7, random_stream::data};
  for (std::uint64_t trial = 0; trial < 200; ++trial) {
    std::vector<int> lengths(1 + source.below(40, trial, 0));
    for (std::size_t e = 0; e < lengths.size(); ++e)
      lengths[e] = source.below(3, trial, 2 * e + 1) == 0 ? 0 : static_cast<int>(source.below(300, trial, 2 * e + 2));
    const auto offsets = offsets_of(lengths);
    const int height = static_cast<int>(1 + source.below(160, trial, 1000));
    INFO("trial " << trial << ", height " << height);
    REQUIRE(
        covers_each_row_once(offsets, offsets.back() + static_cast<index_t>(source.below(500, trial, 1001)), height));
  }
}

TEST_CASE("grouped tiles: rows before the first group belong to none") {
  const auto offsets = offsets_of({5, 0, 70}, 200);
  CHECK(covers_each_row_once(offsets, offsets.back() + 3, 64));
}

}  // namespace graft
