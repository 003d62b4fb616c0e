// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Floating-point keys as unsigned integers, so that every backend sorts them in the same order.

#include <bit>
#include <cstdint>
#include <type_traits>

#include <graft/core/host_device.hpp>

namespace graft::detail {

template <class T>
using sort_bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

// Integers that ascend where the keys descend: infinity first, both zeros the same, minus infinity, NaN last.
template <class T>
GRAFT_HOST_DEVICE constexpr sort_bits<T> descending_bits(T key) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>,
                "graft::argsort_rows: the keys are neither float nor double. Convert them.");
  using bits_type = sort_bits<T>;
  if (key != key) return ~bits_type{0};
  const auto bits = std::bit_cast<bits_type>(key == T(0) ? T(0) : key);
  constexpr auto sign = static_cast<bits_type>(bits_type{1} << (8 * sizeof(T) - 1));
  // Read as integers, positive floats ascend and negative ones descend, with the sign on top.
  return (bits & sign) != 0 ? bits : static_cast<bits_type>(~(bits | sign));
}

}  // namespace graft::detail
