// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The grouped products in bf16: which tile a block takes, where its operands' lines lie, and where its sums go. A
// product is a plain struct that kernels call with a tile; what it does with the sums may be more than to store them
// (grouped_swiglu.cuh).

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include <cuda_bf16.h>

#include <graft/backend/cuda/divisor.hpp>
#include <graft/backend/cuda/grouped_tiles.hpp>
#include <graft/backend/cuda/launch.cuh>
#include <graft/backend/cuda/tensor_product.cuh>
#include <graft/backend/gathered_rows.hpp>

namespace graft::detail {

// ---- rows

// The lines of a gathered operand: line i is that of the token that row i works for.
struct gathered_lines {
  static constexpr bool lookup = true;
  const bfloat16* data;
  std::uint32_t pitch;  // bytes
  int count;
  const std::int32_t* slot_of_row;
  divisor slots;
  bool aligned;

  __device__ int find(int i) const {
    const std::int32_t slot = i < count ? slot_of_row[i] : -1;
    return slot < 0 ? -1 : slots.quotient(slot);
  }
  __device__ const bfloat16* at(int line) const { return plain_lines::line_at(data, pitch, line); }
};

// Lines of a matrix: where they begin, bytes from line to line, and whether they start at multiples of 16 bytes and
// consist of whole vectors of 8.
struct tensor_memory {
  const bfloat16* data = nullptr;
  std::uint32_t pitch = 0;
  std::uint32_t aligned = 0;

  tensor_memory() = default;
  // group: elements from group to group.
  tensor_memory(const char* where, const bfloat16* first, index_t count, index_t length, index_t elements_apart,
                index_t group = 0)
      : data(first),
        pitch(static_cast<std::uint32_t>(2 * elements_apart)),
        aligned(lines_aligned(first, elements_apart, group) && length % tensor_vector == 0) {
    constexpr index_t limit = index_t{1} << 31;
    GRAFT_CHECK(count < limit && length < limit && elements_apart >= 0 && elements_apart < limit, where,
                ": expected fewer than 2^31 rows and columns, and as many elements from row to row, got ", count, ", ",
                length, " and ", elements_apart);
  }
  __device__ const bfloat16* at(index_t line, index_t column) const {
    return reinterpret_cast<const bfloat16*>(reinterpret_cast<const std::byte*>(data) + line * pitch) + column;
  }
};

// An operand (M, columns) whose rows belong to the groups. lines: `count` rows from row `begin` on, from `column` on.
struct plain_operand {
  tensor_memory memory;

  __device__ plain_lines lines(index_t begin, int count, int column) const {
    return {memory.at(begin, column), memory.pitch, count, memory.aligned != 0};
  }
};
struct gathered_operand {
  tensor_memory memory;
  const std::int32_t* slot_of_row;
  divisor slots;

  __device__ gathered_lines lines(index_t begin, int count, int column) const {
    return {memory.at(0, column), memory.pitch, count, slot_of_row + begin, slots, memory.aligned != 0};
  }
};

template <class T>
plain_operand tensor_operand(const char* where, const view<T, 2, device_space>& m) {
  return {{where, m.data, m.extent(0), m.extent(1), m.strides[0]}};
}
inline gathered_operand tensor_operand(const char* where, const gathered_rows<bfloat16, device_space>& rows) {
  const auto& x = rows.x;
  return {{where, x.data, x.extent(0), x.extent(1), x.strides[0]}, rows.slot_of_row.data, divisor(rows.slots)};
}

// The weights of all groups.
struct group_weights {
  tensor_memory memory;
  index_t group;  // elements from group to group

  // `count` lines of a group, from `line` and `column` on.
  __device__ plain_lines lines(int which, int line, int count, int column) const {
    return {memory.at(line, column) + which * group, memory.pitch, count, memory.aligned != 0};
  }
};
template <class W>
group_weights tensor_weights(const char* where, const view<W, 3, device_space>& w) {
  return {{where, w.data, w.extent(1), w.extent(2), w.strides[1], w.strides[0]}, w.strides[0]};
}

// ---- results

// 8 neighbouring elements as one access of 16 bytes, or two. Requires: aligned to that.
__device__ inline void unpack_run(float (&run)[tensor_vector], const uint4& held) {
  const std::uint32_t word[4] = {held.x, held.y, held.z, held.w};
#pragma unroll
  for (int i = 0; i < tensor_vector; ++i)
    run[i] = __uint_as_float(i % 2 == 0 ? word[i / 2] << 16 : word[i / 2] & 0xffff0000u);
}
__device__ inline void load_run(float (&run)[tensor_vector], const bfloat16* from) {
  unpack_run(run, *reinterpret_cast<const uint4*>(from));
}
__device__ inline void load_run(float (&run)[tensor_vector], const float* from) {
#pragma unroll
  for (int i = 0; i < tensor_vector; i += 4) {
    const float4 held = *reinterpret_cast<const float4*>(from + i);
    run[i] = held.x, run[i + 1] = held.y, run[i + 2] = held.z, run[i + 3] = held.w;
  }
}
// Rounded as bfloat16(float) does, two at a time, but that every NaN becomes the same one.
__device__ inline uint4 pack_run(const float (&run)[tensor_vector]) {
  std::uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(run[2 * i], run[2 * i + 1]);
    memcpy(&word[i], &pair, sizeof(pair));
  }
  return {word[0], word[1], word[2], word[3]};
}
__device__ inline void store_run(bfloat16* to, const float (&run)[tensor_vector]) {
  *reinterpret_cast<uint4*>(to) = pack_run(run);
}
__device__ inline void store_run(float* to, const float (&run)[tensor_vector]) {
#pragma unroll
  for (int i = 0; i < tensor_vector; i += 4)
    *reinterpret_cast<float4*>(to + i) = float4{run[i], run[i + 1], run[i + 2], run[i + 3]};
}

// A functor for tensor_sums::visit that reads nothing.
struct nothing_held {};

// A tile's sums to memory, or added to what is there. fp32 sums are rounded once.
template <class Out>
struct store_sums {
  static constexpr bool paired = false;
  struct held {
    float run[tensor_vector];
  };
  Out* result;
  index_t pitch;
  int rows, columns;
  bool add, aligned;

  __device__ held fetch(int row, int column) const {
    held before{};
    if (add && whole(row, column)) load_run(before.run, result + row * pitch + column);
    return before;
  }
  __device__ void operator()(int row, int column, float (&sum)[tensor_vector], const held& before) const {
    if (row >= rows || column >= columns) return;
    Out* to = result + row * pitch + column;
    if (whole(row, column)) {
      if (add) {
#pragma unroll
        for (int i = 0; i < tensor_vector; ++i) sum[i] += before.run[i];
      }
      store_run(to, sum);
      return;
    }
#pragma unroll
    for (int i = 0; i < tensor_vector; ++i)
      if (column + i < columns) to[i] = Out(add ? static_cast<float>(to[i]) + sum[i] : sum[i]);
  }

 private:
  __device__ bool whole(int row, int column) const {
    return aligned && row < rows && column + tensor_vector <= columns;
  }
};

// ---- products

// nt and nn: `rows` (M, depth) times the weights of each row's group. Result (M, columns).
template <contiguous AlongRight, class Operand, class Out>
struct tensor_rows_product {
  Operand left;
  group_weights right;
  Out* result;
  index_t pitch;
  int columns, depth;
  std::uint32_t add, aligned;

  __device__ void operator()(const grouped_tile& tile, int column_tile) const {
    const int column = column_tile * tensor_tile::columns, left_columns = columns - column,
              rows = static_cast<int>(tile.rows);
    const auto lines = left.lines(tile.begin, rows, 0);
    const store_sums<Out> store{
        result + tile.begin * pitch + column, pitch, rows, left_columns, add != 0, aligned != 0};
    using left_loader = tensor_loader<contiguous::depth, std::remove_const_t<decltype(lines)>>;
    using right_loader = tensor_loader<AlongRight, plain_lines>;
    if constexpr (AlongRight == contiguous::depth)
      tensor_product(dynamic_shared(), left_loader(lines, depth),
                     right_loader(right.lines(tile.group, column, left_columns, 0), depth), depth, store);
    else
      tensor_product(dynamic_shared(), left_loader(lines, depth),
                     right_loader(right.lines(tile.group, 0, depth, column), left_columns), depth, store);
  }
};

// tn: dy_e^T x_e over the rows of a group. Result (E, rows, columns).
template <class Operand, class Out>
struct tensor_weight_product {
  plain_operand left;  // dy (M, rows)
  Operand right;       // x (M, columns)
  Out* result;
  index_t pitch, group_pitch;
  int rows, columns;
  std::uint32_t add, aligned;

  // Rows [begin, begin + depth) are the group's.
  __device__ void operator()(std::uint32_t group, int begin, int depth, const tile_position& position) const {
    const int row = static_cast<int>(position.row) * tensor_tile::rows,
              column = static_cast<int>(position.column) * tensor_tile::columns;
    const auto left_lines = left.lines(begin, depth, row);
    const auto right_lines = right.lines(begin, depth, column);
    using left_loader = tensor_loader<contiguous::outer, plain_lines>;
    using right_loader = tensor_loader<contiguous::outer, std::remove_const_t<decltype(right_lines)>>;
    tensor_product(dynamic_shared(), left_loader(left_lines, rows - row), right_loader(right_lines, columns - column),
                   depth,
                   store_sums<Out>{result + group * group_pitch + row * pitch + column, pitch, rows - row,
                                   columns - column, add != 0, aligned != 0});
  }
};

// ---- kernels

// Block b takes tile b of a grid of tile numbers (grouped_tiles.hpp) and columns, in bands. Its threads look at the
// groups side by side; the one that meets the tile's group tells the others.
template <class Product>
static __global__ void __launch_bounds__(tensor_tile::threads, 2)
    grouped_tensor_kernel(const std::int32_t* offsets, int groups, std::uint32_t row_tiles, std::uint32_t column_tiles,
                          const Product product) {
  __shared__ int found;
  const tile_position position = banded_tile(blockIdx.x, row_tiles, column_tiles);
  if (threadIdx.x == 0) found = -1;
  __syncthreads();
  for (int group = static_cast<int>(threadIdx.x); group < groups; group += tensor_tile::threads)
    if (tile_in_group(offsets, group, position.row, tensor_tile::rows).rows > 0) found = group;
  __syncthreads();
  if (found < 0) return;
  product(tile_in_group(offsets, found, position.row, tensor_tile::rows), static_cast<int>(position.column));
}

// Every group has row_tiles x column_tiles tiles, however many rows it has.
template <class Product>
static __global__ void __launch_bounds__(tensor_tile::threads, 2)
    grouped_weight_tensor_kernel(const std::int32_t* offsets, std::uint32_t row_tiles, std::uint32_t column_tiles,
                                 const Product product) {
  const std::uint32_t group = blockIdx.x / (row_tiles * column_tiles);
  const int begin = offsets[group], depth = offsets[group + 1] - begin;
  if (depth <= 0 && product.add != 0) return;  // nothing to add: leave the bits as they are
  product(group, begin, depth, banded_tile(blockIdx.x - group * (row_tiles * column_tiles), row_tiles, column_tiles));
}

inline unsigned product_grid(const char* where, index_t blocks) {
  GRAFT_CHECK(blocks <= std::numeric_limits<std::int32_t>::max(), where, ": expected at most 2^31-1 tiles, got ",
              blocks);
  return static_cast<unsigned>(blocks);
}

// Queues a product of at most `rows` rows and `column_tiles` tiles across. Requires: all of them above 0.
template <class Product>
void launch_grouped_tensor(context<cuda>& ctx, const char* where, const std::int32_t* offsets, index_t groups,
                           index_t rows, index_t column_tiles, const Product& product) {
  const index_t row_tiles = grouped_tile_bound(rows, static_cast<int>(groups), tensor_tile::rows);
  const unsigned grid = product_grid(where, row_tiles * column_tiles);
  launch(ctx, where, grouped_tensor_kernel<Product>, grid, tensor_tile::threads, tensor_tile::shared_bytes, offsets,
         static_cast<int>(groups), static_cast<std::uint32_t>(row_tiles), static_cast<std::uint32_t>(column_tiles),
         product);
}

// rows: a view, or gathered_rows.
template <contiguous AlongRight, class Rows, class Out, class W>
void run_grouped_tensor_rows(context<cuda>& ctx, const char* where, const view<Out, 2, device_space>& result,
                             const Rows& rows, const view<W, 3, device_space>& weights, const std::int32_t* offsets,
                             accumulate mode) {
  const index_t columns = result.extent(1), groups = weights.extent(0), count = rows.extent(0);
  if (count == 0 || columns == 0 || groups == 0) return;
  const auto left = tensor_operand(where, rows);
  const tensor_rows_product<AlongRight, std::remove_const_t<decltype(left)>, Out> product{
      left,
      tensor_weights(where, weights),
      result.data,
      result.strides[0],
      static_cast<int>(columns),
      static_cast<int>(rows.extent(1)),
      mode == accumulate::yes,
      lines_aligned(result.data, result.strides[0])};
  launch_grouped_tensor(ctx, where, offsets, groups, count, (columns + tensor_tile::columns - 1) / tensor_tile::columns,
                        product);
}

// x: a view, or gathered_rows.
template <class Rows, class Out, class Dy>
void run_grouped_tensor_weights(context<cuda>& ctx, const char* where, const view<Out, 3, device_space>& dw,
                                const view<Dy, 2, device_space>& dy, const Rows& x, const std::int32_t* offsets,
                                accumulate mode) {
  const index_t groups = dw.extent(0), rows = dw.extent(1), columns = dw.extent(2);
  if (groups == 0 || rows == 0 || columns == 0) return;
  const auto right = tensor_operand(where, x);
  const tensor_weight_product<std::remove_const_t<decltype(right)>, Out> product{
      tensor_operand(where, dy),
      right,
      dw.data,
      dw.strides[1],
      dw.strides[0],
      static_cast<int>(rows),
      static_cast<int>(columns),
      mode == accumulate::yes,
      lines_aligned(dw.data, dw.strides[1], dw.strides[0])};
  const index_t row_tiles = (rows + tensor_tile::rows - 1) / tensor_tile::rows,
                column_tiles = (columns + tensor_tile::columns - 1) / tensor_tile::columns;
  const unsigned grid = product_grid(where, groups * row_tiles * column_tiles);
  launch(ctx, where, grouped_weight_tensor_kernel<std::remove_const_t<decltype(product)>>, grid, tensor_tile::threads,
         tensor_tile::shared_bytes, offsets, static_cast<std::uint32_t>(row_tiles),
         static_cast<std::uint32_t>(column_tiles), product);
}

}  // namespace graft::detail
