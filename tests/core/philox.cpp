// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <tuple>
#include <vector>

#include <graft/core/philox.hpp>

namespace philox_tests {

using namespace graft;

namespace {

__extension__ typedef unsigned __int128 wide;

constexpr bool equal(philox_block a, philox_block b) {
  return a.word[0] == b.word[0] && a.word[1] == b.word[1] && a.word[2] == b.word[2] && a.word[3] == b.word[3];
}

// philox4x32 with 10 rounds in kat_vectors of the Random123 distribution.
static_assert(equal(philox({{0, 0, 0, 0}}, 0, 0), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));

}  // namespace

TEST_CASE("philox: known answers of Random123", "[core]") {
  const std::uint32_t all = 0xffffffffu;
  CHECK(equal(philox({{0, 0, 0, 0}}, 0, 0), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));
  CHECK(equal(philox({{all, all, all, all}}, all, all), {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}));
  CHECK(equal(philox({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0),
              {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));
}

TEST_CASE("random_source: below is the upper half of a 128-bit product", "[core]") {
  const std::vector<std::uint64_t> counts = {1,
                                             2,
                                             3,
                                             10,
                                             0xffffffffu,
                                             0x100000000u,
                                             0x100000001u,
                                             0x123456789abcdefu,
                                             std::uint64_t{1} << 63,
                                             (std::uint64_t{1} << 63) + 1,
                                             std::numeric_limits<std::uint64_t>::max()};
  const random_source source{42, random_stream::data};
  int wrong = 0;
  for (const std::uint64_t count : counts) {
    for (std::uint64_t i = 0; i < 2000; ++i) {
      const philox_block block = source.words(7, i);
      const std::uint64_t word = (std::uint64_t{block.word[0]} << 32) | block.word[1];
      const auto expected = static_cast<std::uint64_t>((static_cast<wide>(word) * count) >> 64);
      const std::uint64_t got = source.below(count, 7, i);
      if (got != expected || got >= count) ++wrong;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("random_source: below is even over its range", "[core]") {
  // Chi-square with 9 degrees of freedom: mean 9, and above 45 with a probability of 1e-6.
  const random_source source{3, random_stream::sampling};
  constexpr int draws = 100000;
  std::vector<int> seen(10);
  for (std::uint64_t i = 0; i < draws; ++i) ++seen[source.below(10, 1, i)];
  double chi_square = 0;
  for (const int n : seen) chi_square += std::pow(n - draws / 10.0, 2) / (draws / 10.0);
  CHECK(chi_square < 45);
  CHECK(chi_square > 0.01);  // nor suspiciously even
}

TEST_CASE("random_source: uniform is in (0, 1] and exact at its ends", "[core]") {
  static_assert(random_source::uniform(0) > 0);
  CHECK(random_source::uniform(0) == 0x1p-32);
  CHECK(random_source::uniform(0x7fffffffu) == 0.5);
  CHECK(random_source::uniform(0xffffffffu) == 1.0);
}

TEST_CASE("random_source: seed, stream, major and minor all matter", "[core]") {
  std::set<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>> seen;
  const std::vector<std::uint64_t> items = {0, 1, 2, 0xffffffffu, std::uint64_t{1} << 32, std::uint64_t{1} << 48};
  int asked = 0;
  for (const std::uint64_t seed : items) {
    for (const auto stream : {random_stream::initialization, random_stream::data, random_stream::router,
                              random_stream::dropout, random_stream::sampling}) {
      for (const std::uint64_t major : items) {
        for (const std::uint64_t minor : items) {
          const philox_block block = random_source{seed, stream}.words(major, minor);
          seen.emplace(block.word[0], block.word[1], block.word[2], block.word[3]);
          ++asked;
        }
      }
    }
  }
  CHECK(static_cast<int>(seen.size()) ==
        asked);  // a collision of 128 bits among 1080 blocks has a probability of 1e-33
}

TEST_CASE("random_source: normal has the moments of a normal", "[core]") {
  constexpr int draws = 200000;
  const random_source source{11, random_stream::initialization};
  double sum = 0, square = 0, fourth = 0;
  bool finite = true;
  for (std::uint64_t i = 0; i < draws; ++i) {
    const double z = source.normal(5, i);
    finite = finite && std::isfinite(z);
    sum += z;
    square += z * z;
    fourth += z * z * z * z;
  }
  CHECK(finite);
  // Variances of z, z^2 and z^4 are 1, 2 and 96. Five standard errors each.
  const double error = 5 / std::sqrt(double{draws});
  CHECK(std::abs(sum / draws) < error);
  CHECK(std::abs(square / draws - 1) < error * std::sqrt(2.0));
  CHECK(std::abs(fourth / draws - 3) < error * std::sqrt(96.0));
}

}  // namespace philox_tests
