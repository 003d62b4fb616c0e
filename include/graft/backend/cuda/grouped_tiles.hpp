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

// The rows of `tile` if it is one of the group's numbers and has any. At most one group has. Requires: tile >= 0.
GRAFT_HOST_DEVICE constexpr grouped_tile tile_in_group(const std::int32_t* offsets, int group, index_t tile,
                                                       int height) {
  const index_t first = offsets[group] / height + group;
  const index_t begin = offsets[group] + (tile - first) * height;
  const index_t left = offsets[group + 1] - begin;
  const bool nothing = tile < first || left <= 0;
  return {group, begin, nothing ? 0 : (left < height ? left : height)};
}

// The same when the group is to be found. Requires: groups > 0, offsets rising, tile >= 0. Cost: log2(groups) reads.
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
  return tile_in_group(offsets, low, tile, height);
}

// Which tile of a grid the block of this number takes.
struct tile_position {
  index_t row = 0, column = 0;
};

// Bands of 16 tile rows one after another, each column by column. The 200 to 300 blocks that run at a time then read
// about 16 tile rows of one operand and as many tile columns of the other, the fewest bytes for so many tiles.
// Requires: 0 <= number < row_tiles * column_tiles.
GRAFT_HOST_DEVICE constexpr tile_position banded_tile(std::uint32_t number, std::uint32_t row_tiles,
                                                      std::uint32_t column_tiles) {
  constexpr std::uint32_t band = 16;
  const std::uint32_t first = number / (band * column_tiles) * band;
  const std::uint32_t height = row_tiles - first < band ? row_tiles - first : band;
  const std::uint32_t within = number - first * column_tiles;
  return {first + within % height, within / height};
}

}  // namespace graft::detail
