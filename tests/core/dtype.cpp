// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <graft/core/dtype.hpp>
#include <graft/core/precision.hpp>

namespace dtype_tests {

using namespace graft;

namespace {

static_assert(std::is_same_v<accumulator_t<double>, double> && std::is_same_v<accumulator_t<float>, float> &&
              std::is_same_v<accumulator_t<bfloat16>, float> && std::is_same_v<accumulator_t<const double>, double>);
static_assert(Precision<fp64> && Precision<fp32> && Precision<bf16> && !Precision<float>);
static_assert(has_narrow_copy<bf16> && !has_narrow_copy<fp32> && !has_narrow_copy<fp64>);
static_assert(bfloat16(1.0f).bits == 0x3f80 && static_cast<float>(bfloat16(-2.0)) == -2.0f);

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

// The magnitude of a finite bfloat16 as a double. 0x7f80, infinity's bits, counts as 2^128: what rounding takes it for.
double magnitude(std::uint32_t upper) {
  return upper == 0x7f80 ? 0x1p128 : static_cast<double>(from_bits(upper << 16));
}

// Nearest bfloat16 of a finite value by comparison with both neighbours, ties to the even bits.
template <class Float>
std::uint16_t nearest(Float value, std::uint32_t lower_neighbour) {
  const auto sign = static_cast<std::uint32_t>(std::signbit(value) ? 0x8000 : 0);
  const double distance_low = std::abs(double{value}) - magnitude(lower_neighbour);
  const double distance_high = magnitude(lower_neighbour + 1) - std::abs(double{value});
  const bool up = distance_high < distance_low || (distance_high == distance_low && lower_neighbour % 2 == 1);
  return static_cast<std::uint16_t>(sign | (up ? lower_neighbour + 1 : lower_neighbour));
}

}  // namespace

TEST_CASE("bfloat16: every value converts to float and back", "[core]") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    bfloat16 value;
    value.bits = static_cast<std::uint16_t>(bits);
    const float wide = value;
    if (std::bit_cast<std::uint32_t>(wide) != bits << 16) ++wrong;
    const std::uint32_t expected = std::isnan(wide) ? bits | 0x40 : bits;  // NaN stays NaN, and quiet
    if (bfloat16(wide).bits != expected) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("bfloat16: float rounds to nearest, ties to even, for every upper half", "[core]") {
  int wrong = 0;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const std::uint32_t lower : {0x0001u, 0x4000u, 0x7fffu, 0x8000u, 0x8001u, 0xc000u, 0xffffu}) {
      const float value = from_bits(upper << 16 | lower);
      const bfloat16 rounded(value);
      if (std::isnan(value)) {
        if (!std::isnan(static_cast<float>(rounded)) || (rounded.bits & 0x8000) != (upper & 0x8000)) ++wrong;
      } else if (rounded.bits != nearest(value, upper & 0x7fff)) {
        ++wrong;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("bfloat16: double rounds once", "[core]") {
  // Just above and below the tie between two neighbours: further from it than a double can say, nearer than a float
  // can.
  int wrong = 0;
  for (std::uint32_t lower = 0x80; lower < 0x7f80; ++lower) {  // normal numbers
    const double tie = (magnitude(lower) + magnitude(lower + 1)) / 2;
    for (const double value :
         {tie, tie * (1 + 0x1p-40), tie * (1 - 0x1p-40), -tie, -tie * (1 + 0x1p-40), -tie * (1 - 0x1p-40)})
      if (bfloat16(value).bits != nearest(value, lower)) ++wrong;
  }
  CHECK(wrong == 0);
  CHECK(bfloat16(1e300).bits == 0x7f80);
  CHECK(bfloat16(-1e300).bits == 0xff80);
  CHECK(bfloat16(1e-300).bits == 0);
  CHECK(bfloat16(-1e-300).bits == 0x8000);
  CHECK(bfloat16(0x1p-134 * (1 + 0x1p-40)).bits == 1);  // half of the smallest denormal, and a little more
  CHECK(bfloat16(0x1p-134).bits == 0);
  CHECK(bfloat16(std::numeric_limits<double>::infinity()).bits == 0x7f80);
  CHECK(std::isnan(static_cast<float>(bfloat16(std::numeric_limits<double>::quiet_NaN()))));
}

}  // namespace dtype_tests
