// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Transposition of two-byte elements: every element at its place, whatever the extents, and nothing beside them.

#include <graft/backend/cpu/transpose.hpp>

#include <cstdint>
#include <vector>

#include "catch.hpp"

namespace transpose_tests {

using namespace graft;

TEST_CASE("a transposed matrix has every element at its place", "[transpose]") {
  constexpr std::uint16_t untouched = 65535;
  for (const index_t rows : {0, 1, 7, 8, 31, 32, 33, 64, 75})
    for (const index_t columns : {0, 1, 5, 8, 16, 32, 39, 64, 71})
      for (const index_t gap : {0, 3}) {
        CAPTURE(rows, columns, gap);
        const index_t from_stride = columns + gap, to_stride = rows + 2 * gap;
        std::vector<std::uint16_t> from(static_cast<std::size_t>(rows * from_stride), untouched);
        std::vector<std::uint16_t> to(static_cast<std::size_t>(columns * to_stride), untouched), wanted = to;
        for (index_t i = 0; i < rows; ++i)
          for (index_t j = 0; j < columns; ++j) {
            const auto value = static_cast<std::uint16_t>(1 + i * columns + j);
            from[static_cast<std::size_t>(i * from_stride + j)] = value;
            wanted[static_cast<std::size_t>(j * to_stride + i)] = value;
          }
        detail::transpose(to.data(), to_stride, from.data(), from_stride, rows, columns);
        CHECK(to == wanted);
      }
}

}  // namespace transpose_tests
