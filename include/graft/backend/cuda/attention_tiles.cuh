// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the attention kernels share: tiles of one head in shared memory, fragments of them for the tensor cores, and
// softmax weights as the left operand of a product. A block is 4 warps; a warp owns `Tiles` times 16 rows of the result
// and all columns, so what the softmax needs of a row never leaves four lanes.
//
// With g = lane / 4 and t = lane % 4, a lane holds of a 16 x 8 tile of sums rows g and g + 8, columns 2t and 2t + 1.
// Two such tiles side by side, rounded, are the left operand of the next product: nothing is moved.

#include <cstdint>
#include <cstring>

#include <cuda_bf16.h>

#include <graft/backend/cuda/intrinsics.cuh>
#include <graft/backend/cuda/launch.cuh>
#include <graft/core/dtype.hpp>
#include <graft/core/view.hpp>

namespace graft::detail {

inline constexpr int attention_threads = 128, attention_warps = 4;

// Two numbers as bf16, the first in the low half.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  std::uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// A tile in shared memory: rows of one head, each 16 bytes longer than the head. Eight consecutive rows then begin in
// eight different groups of four banks, for every head_dim that is a multiple of 16: matrix loads meet no conflict.
template <int HeadDim>
struct head_tile {
  static_assert(HeadDim % 16 == 0, "graft::head_tile: head_dim is no multiple of 16. Use the row algorithms.");
  static constexpr int pitch = HeadDim + 8;
  static constexpr int lanes = HeadDim % 64 == 0   ? 8
                               : HeadDim % 32 == 0 ? 4
                                                   : 2;  // that copy a row, 16 bytes at a time
  static constexpr int rows_at_once = attention_threads / lanes;
  static_assert(HeadDim % (8 * lanes) == 0,
                "graft::head_tile: the lanes that copy a row do not divide it. Choose other lanes.");

  static constexpr int elements(int rows) { return rows * pitch; }

  // Starts the copies of `Rows` rows from `first` on of the head at `source`; rows from `count` on become zeros.
  template <int Rows>
  static __device__ __forceinline__ void fetch(bfloat16* tile, const bfloat16* source, int source_pitch, int first,
                                               int count) {
    static_assert(Rows % rows_at_once == 0 || rows_at_once % Rows == 0,
                  "graft::head_tile: 128 threads do not divide the rows. Change the plan.");
    const int row = static_cast<int>(threadIdx.x) / lanes, column = static_cast<int>(threadIdx.x) % lanes * 8;
    if (rows_at_once > Rows && row >= Rows) return;
    bfloat16* const to = tile + row * pitch + column;
#pragma unroll
    for (int r = 0; r < Rows; r += rows_at_once) {
      const bool there = first + row + r < count;
      const bfloat16* const from = source + static_cast<index_t>(there ? first + row + r : 0) * source_pitch + column;
#pragma unroll
      for (int c = 0; c < HeadDim; c += 8 * lanes) copy_async_16(to + r * pitch + c, from + c, there ? 16 : 0);
    }
  }

  // Where this lane points a matrix load at the 16 x 16 elements from (row, column) on: matrices one below the other
  // first, then side by side.
  static __device__ __forceinline__ const bfloat16* below(const bfloat16* tile, int row, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return tile + (row + lane % 16) * pitch + column + lane / 16 * 8;
  }
  // The same, side by side first.
  static __device__ __forceinline__ const bfloat16* beside(const bfloat16* tile, int row, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return tile + (row + lane % 8 + lane / 16 * 8) * pitch + column + lane / 8 % 2 * 8;
  }

  // sums (16 Tiles, 8 Columns) += a b^T, where a is the rows of `a` from `row` on, and b the first 8 Columns rows of
  // `b`.
  template <int Tiles, int Columns>
  static __device__ __forceinline__ void multiply_rows(float (&sums)[Tiles][Columns][4], const bfloat16* a, int row,
                                                       const bfloat16* b) {
#pragma unroll
    for (int k = 0; k < HeadDim; k += 16) {
      std::uint32_t left[Tiles][4];
#pragma unroll
      for (int i = 0; i < Tiles; ++i) load_matrix_x4(left[i], below(a, row + 16 * i, k));
#pragma unroll
      for (int j = 0; j < Columns; j += 2) {
        std::uint32_t both[4];
        load_matrix_x4(both, beside(b, 8 * j, k));
        add_products(sums, j, left, both);
      }
    }
  }

  // sums (16 Tiles, HeadDim) += w b, where w (16 Tiles, 8 Columns) is rounded to bf16, and b is the first 8 Columns
  // rows of `b`.
  template <int Tiles, int Columns>
  static __device__ __forceinline__ void multiply_weights(float (&sums)[Tiles][HeadDim / 8][4],
                                                          const float (&w)[Tiles][Columns][4], const bfloat16* b) {
#pragma unroll
    for (int k = 0; k < Columns; k += 2) {
      std::uint32_t left[Tiles][4];
#pragma unroll
      for (int i = 0; i < Tiles; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          left[i][2 * half] = pack_bf16(w[i][k + half][0], w[i][k + half][1]);
          left[i][2 * half + 1] = pack_bf16(w[i][k + half][2], w[i][k + half][3]);
        }
#pragma unroll
      for (int j = 0; j < HeadDim / 8; j += 2) {
        std::uint32_t both[4];
        load_matrix_x4_transposed(both, below(b, 8 * k, 8 * j));
        add_products(sums, j, left, both);
      }
    }
  }

 private:
  // The sums of 8 columns from 8 j on, and of the 8 behind them, += left * right, whose two parts one load brought.
  template <int Tiles, int Columns>
  static __device__ __forceinline__ void add_products(float (&sums)[Tiles][Columns][4], int j,
                                                      const std::uint32_t (&left)[Tiles][4],
                                                      const std::uint32_t (&right)[4]) {
    const std::uint32_t parts[2][2] = {{right[0], right[1]}, {right[2], right[3]}};
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      multiply_add_16x8x16(sums[i][j], left[i], parts[0]);
      multiply_add_16x8x16(sums[i][j + 1], left[i], parts[1]);
    }
  }
};

template <int Tiles, int Columns>
__device__ __forceinline__ void clear_sums(float (&sums)[Tiles][Columns][4]) {
#pragma unroll
  for (int i = 0; i < Tiles; ++i)
#pragma unroll
    for (int j = 0; j < Columns; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0;
}

// Writes a warp's sums, rounded, to rows of global memory, by way of its own rows of a tile. factors[i][half] scales
// row 16 i + 8 half + g. Rows from `present` on are left out.
// Requires: nobody reads those rows of the tile any more; target and target_pitch are multiples of 16 bytes.
template <int HeadDim, int Tiles>
__device__ __forceinline__ void store_head_rows(bfloat16* tile_rows, const float (&sums)[Tiles][HeadDim / 8][4],
                                                const float (&factors)[Tiles][2], bfloat16* target,
                                                index_t target_pitch, int present) {
  using tile = head_tile<HeadDim>;
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < Tiles; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int j = 0; j < HeadDim / 8; ++j) {
        bfloat16* to = tile_rows + (16 * i + 8 * half + g) * tile::pitch + 8 * j + 2 * t;
        *reinterpret_cast<std::uint32_t*>(to) =
            pack_bf16(factors[i][half] * sums[i][j][2 * half], factors[i][half] * sums[i][j][2 * half + 1]);
      }
  __syncwarp();
  constexpr int rows_at_once = 32 / tile::lanes;
  const int column = lane % tile::lanes * 8;
#pragma unroll
  for (int r = 0; r < 16 * Tiles; r += rows_at_once) {
    const int row = r + lane / tile::lanes;
    if (row >= present) continue;
#pragma unroll
    for (int c = 0; c < HeadDim; c += 8 * tile::lanes)
      *reinterpret_cast<uint4*>(target + row * target_pitch + column + c) =
          *reinterpret_cast<const uint4*>(tile_rows + row * tile::pitch + column + c);
  }
}

}  // namespace graft::detail
