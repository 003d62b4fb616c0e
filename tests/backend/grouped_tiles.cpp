// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The arithmetic of the CUDA grouped products, on the host: every row belongs to exactly one tile, of its own group;
// every tile of a grid to exactly one block; and quotients by multiplication.

#include <cstdint>
#include <limits>
#include <vector>

#include <graft/backend/cuda/divisor.hpp>
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
    // A search among all groups finds the same.
    int owners = 0;
    for (int group = 0; group < groups; ++group) {
      const auto one = detail::tile_in_group(offsets.data(), group, tile, height);
      if (one.rows == 0) continue;
      ++owners;
      if (one.group != found.group || one.begin != found.begin || one.rows != found.rows) return false;
    }
    if (owners != (found.rows > 0 ? 1 : 0)) return false;
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

TEST_CASE("grouped tiles: bands take each tile of the grid once, and no more than 16 tile rows at a time") {
  for (const std::uint32_t rows : {1u, 15u, 16u, 17u, 40u})
    for (const std::uint32_t columns : {1u, 2u, 7u}) {
      std::vector<int> taken(rows * columns, 0);
      for (std::uint32_t number = 0; number < rows * columns; ++number) {
        const auto at = detail::banded_tile(number, rows, columns);
        REQUIRE((at.row >= 0 && at.row < index_t{rows} && at.column >= 0 && at.column < index_t{columns}));
        CHECK(at.row / 16 == number / (16 * columns));
        ++taken[static_cast<std::size_t>(at.row * columns + at.column)];
      }
      CHECK(taken == std::vector<int>(rows * columns, 1));
    }
}

TEST_CASE("divisor: quotients by multiplication are exact for all of 31 bits") {
  const random_source source{11, random_stream::data};
  constexpr std::int32_t last = std::numeric_limits<std::int32_t>::max();
  std::uint64_t draw = 0;
  for (const std::int32_t d : {1, 2, 3, 5, 6, 7, 8, 10, 255, 256, 641, 65535, 65537, 1 << 30, last - 1, last}) {
    const detail::divisor by(d);
    bool exact = true;
    const auto check = [&](std::int64_t n) {
      if (n >= 0 && n <= last) exact = exact && by.quotient(static_cast<std::int32_t>(n)) == n / d;
    };
    for (std::int64_t k = 0; k < 1000; ++k)  // around multiples of d, where a quotient changes
      for (const std::int64_t n : {k * d, last / d * std::int64_t{d} - k * d,
                                   static_cast<std::int64_t>(source.below(last, 0, draw++)) / d * d})
        for (const std::int64_t off : {-1, 0, 1}) check(n + off);
    check(last);
    CHECK(exact);
  }
  CHECK_THROWS_WITH(detail::divisor(0), "divisor: expected a number in [1, 2^31), got 0");
}

}  // namespace graft
