// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// From a tile number to the rows of a group, when only the device knows how many rows each group has. Plain
// arithmetic over offsets[E+1] with no table of prefixes, so that it is tested on the host.
//
// Group e owns the tile numbers [offsets[e] / h + e, offsets[e+1] / h + e + 1), h rows a tile: disjoint, without gaps,
// and never fewer than ceil(length / h). At most one number a group has no rows; a bound on all is rows / h + E.

#include <cstdint>

#include <graft/core/host_device.hpp>

namespace graft::detail {

// Rows [begin, begin + rows) of group `group`. rows == 0: nothing to do for this number.
struct grouped_tile {
  int group = 0;
  index_t begin = 0;
  index_t rows = 0;
};

// How many tile numbers are enough, whatever the offsets. Requires: offsets[groups] <= rows.
GRAFT_HOST_DEVICE constexpr index_t grouped_tile_bound(index_t rows, int groups, int height) {
  return rows / height + groups;
}

// Requires: groups > 0, offsets rising, tile >= 0. Cost: log2(groups) reads.
GRAFT_HOST_DEVICE constexpr grouped_tile find_grouped_tile(const std::int32_t* offsets, int groups, index_t tile,
                                                           int height) {
  int low = 0, high = groups;  // the last group whose first number is not above `tile` lies in [low, high)
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (offsets[middle] / height + middle <= tile) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const index_t first = offsets[low] / height + low;
  const index_t begin = offsets[low] + (tile - first) * height;
  const index_t left = offsets[low + 1] - begin;
  const bool nothing = tile < first || left <= 0;
  return {low, begin, nothing ? 0 : (left < height ? left : height)};
}

}  // namespace graft::detail
