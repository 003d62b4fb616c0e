// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What one block of a grouped product on CUDA computes, and how an operand lies in memory.

#include <cstdint>

#include <graft/core/dtype.hpp>
#include <graft/core/host_device.hpp>

namespace graft::detail {

// What of an operand lies contiguous in memory: along the sum, or along the rows (columns) of the result.
enum class contiguous : bool { depth, outer };

// Rows, columns and depth of a block's tile, and its threads.
template <class T>
struct product_tile {
  static constexpr int rows = 64, columns = 64, depth = 16, threads = 256;
};

// 4 warps, each with 64 x 64 of the sums, and two such blocks at a time on a multiprocessor (254 registers a thread, 64
// KiB of shared memory a block). For 16 of the depth a block reads 16 KiB of shared memory and writes 8, 192 cycles at
// 128 bytes each, while its 2^18 multiply-adds take 256 at the 1024 a cycle of an A100. With 64 x 32 a warp both would
// take as long. Two blocks let one write its results while the other multiplies. One block of 8 warps with 128 x 256
// reads a quarter less of global memory, but nothing multiplies while it writes, and more is wasted where columns end.
template <>
struct product_tile<bfloat16> {
  static constexpr int rows = 128, columns = 128, depth = 32, threads = 128;
  static constexpr int stages = 4;  // tiles of both operands under way, in a ring
  static constexpr int warp_rows = 64, warp_columns = 64;
  static constexpr int operand_bytes = rows * depth * 2;
  static constexpr int shared_bytes = stages * 2 * operand_bytes;
  static_assert(rows == columns, "graft::product_tile: the operands' tiles differ in size. Give each its own bytes.");
};

// Whether 16-byte accesses may be used: every line of every group starts at a multiple of 16 bytes.
template <class T>
bool lines_aligned(const T* data, index_t pitch, index_t group = 0) {
  constexpr auto unit = static_cast<index_t>(16 / sizeof(T));
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && pitch % unit == 0 && group % unit == 0;
}

}  // namespace graft::detail
