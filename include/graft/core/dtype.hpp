// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Element types: bfloat16 as a trivially copyable 16-bit value that both compilers understand, and the
// run-time names of the types that files hold.

#include <bit>
#include <cstdint>
#include <type_traits>

#include <graft/core/host_device.hpp>

namespace graft {

// bfloat16: the upper half of an IEEE float. Conversion rounds to nearest, ties to even, NaN stays NaN.
struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  GRAFT_HOST_DEVICE constexpr explicit bfloat16(float value) : bits(round(value)) {}
  GRAFT_HOST_DEVICE constexpr explicit bfloat16(double value) : bits(round(to_odd(value))) {}
  GRAFT_HOST_DEVICE constexpr operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }

 private:
  // A double on its way through float, rounded to odd: the second rounding then sees on which side of a tie it lay.
  GRAFT_HOST_DEVICE static constexpr float to_odd(double value) {
    const float nearest = static_cast<float>(value);
    const auto word = std::bit_cast<std::uint32_t>(nearest);
    if (nearest == value || value != value || (word & 1u) != 0) return nearest;
    const bool grew = value > 0 ? nearest > value : nearest < value;
    return std::bit_cast<float>(grew ? word - 1 : word + 1);
  }
  // Written without a branch so that loops over it vectorise.
  GRAFT_HOST_DEVICE static constexpr std::uint16_t round(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
    const std::uint32_t quiet_nan = (word >> 16) | 0x40u;
    return static_cast<std::uint16_t>((word & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
  }
};
static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>,
              "graft::bfloat16: expected a 16-bit trivially copyable type. Do not add members.");

// The type in which values of T are summed, normalised and compared: never below fp32.
template <class T>
struct accumulator {
  using type = float;
};
template <>
struct accumulator<double> {
  using type = double;
};
template <class T>
using accumulator_t = typename accumulator<std::remove_cv_t<T>>::type;

}  // namespace graft
