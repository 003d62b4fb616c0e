// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Division by a number that the host knows: on the device one multiplication and a shift in place of some twenty
// instructions.

#include <bit>
#include <cstdint>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace graft::detail {

// floor(n / d) = (n m) >> (31 + l),  l = ceil(log2 d),  m = floor(2^(31 + l) / d) + 1.
// Exact for 0 <= n < 2^31: m is off from 2^(31+l) / d by at most 1, so n m from n 2^(31+l) / d by at most n < 2^31,
// which after the division by 2^(31+l) is less than the 1/d that separates a quotient from the next.
// Source: Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994.
struct divisor {
  std::uint64_t multiplier = 0;  // at most 2^32
  std::uint64_t shift = 0;

  constexpr divisor() = default;
  // Requires: 0 < d < 2^31.
  explicit divisor(index_t d) {
    GRAFT_CHECK(d > 0 && d < (index_t{1} << 31), "divisor: expected a number in [1, 2^31), got ", d);
    shift = static_cast<std::uint64_t>(31 + std::bit_width(static_cast<std::uint32_t>(d - 1)));
    multiplier = (std::uint64_t{1} << shift) / static_cast<std::uint64_t>(d) + 1;
  }
  GRAFT_HOST_DEVICE constexpr std::int32_t quotient(std::int32_t n) const {
    return static_cast<std::int32_t>((static_cast<std::uint64_t>(n) * multiplier) >> shift);
  }
};

}  // namespace graft::detail
