// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bf16 products of ops/grouped_swiglu.hpp with SwiGLU done on the sums while they are in registers. Forward: a
// block's tile takes 64 columns of the gate and the 64 of the up half that belong to them, and writes both and what
// they give. Backward: the tile of d_hidden is spent on the spot and never written.

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <graft/backend/cuda/grouped_gemm.cuh>
#include <graft/core/math.hpp>

namespace graft {

namespace detail {

// Weights (2 F, D) as lines of a tile: of each 64, 32 rows of the gate half and then the same rows of the up half.
struct paired_lines {
  static constexpr bool lookup = false;
  plain_lines lines;  // count: pairs from here on
  int half;           // F
  bool aligned;

  __device__ int find(int i) const {
    const int pair = i / 64 * 32 + i % 32;
    return pair < lines.count ? pair + i / 32 % 2 * half : -1;
  }
  __device__ const bfloat16* at(int line) const { return lines.at(line); }
};
static_assert(tensor_tile::warp_columns == 64,
              "graft::paired_lines: a warp's tile is not 64 wide. Change what a run of pairs is.");

// Rounds a run to what bf16 holds, so that what follows has the bits that it has without the fusion.
__device__ inline uint4 round_run(float (&run)[tensor_vector]) {
  const uint4 packed = pack_run(run);
  unpack_run(run, packed);
  return packed;
}
// The first `count` of a run, where it has fewer or the lines are not aligned.
__device__ inline void store_some(bfloat16* to, const float (&run)[tensor_vector], int count) {
#pragma unroll
  for (int i = 0; i < tensor_vector; ++i)
    if (i < count) to[i] = bfloat16(run[i]);
}
__device__ inline void load_some(float (&run)[tensor_vector], const bfloat16* from, int count) {
#pragma unroll
  for (int i = 0; i < tensor_vector; ++i) run[i] = i < count ? static_cast<float>(from[i]) : 0.0f;
}

struct store_swiglu {
  static constexpr bool paired = true;
  using held = nothing_held;
  bfloat16 *gate_up, *hidden;
  index_t gate_up_pitch, hidden_pitch;
  int half, rows, columns;  // columns: of hidden, from here on
  bool aligned;

  __device__ held fetch(int, int) const { return {}; }
  __device__ void operator()(int row, int column, float (&gate)[tensor_vector], float (&up)[tensor_vector],
                             const held&) const {
    if (row >= rows || column >= columns) return;
    const uint4 gate_bits = round_run(gate), up_bits = round_run(up);
    float result[tensor_vector];
#pragma unroll
    for (int i = 0; i < tensor_vector; ++i) result[i] = math::swiglu(gate[i], up[i]);
    bfloat16* to_gate = gate_up + row * gate_up_pitch + column;
    bfloat16* to_hidden = hidden + row * hidden_pitch + column;
    if (aligned && column + tensor_vector <= columns) {
      *reinterpret_cast<uint4*>(to_gate) = gate_bits;
      *reinterpret_cast<uint4*>(to_gate + half) = up_bits;
      store_run(to_hidden, result);
    } else {
      store_some(to_gate, gate, columns - column);
      store_some(to_gate + half, up, columns - column);
      store_some(to_hidden, result, columns - column);
    }
  }
};

// d_gate_up may be gate_up: each element is read and written by one thread.
struct store_swiglu_gradient {
  static constexpr bool paired = false;
  struct held {
    uint4 gate, up;
  };
  bfloat16* d_gate_up;
  const bfloat16* gate_up;
  index_t d_gate_up_pitch, gate_up_pitch;
  int half, rows, columns;
  bool aligned;

  __device__ held fetch(int row, int column) const {
    if (!whole(row, column)) return {};
    const bfloat16* from = gate_up + row * gate_up_pitch + column;
    return {*reinterpret_cast<const uint4*>(from), *reinterpret_cast<const uint4*>(from + half)};
  }
  __device__ void operator()(int row, int column, float (&d_hidden)[tensor_vector], const held& forward) const {
    if (row >= rows || column >= columns) return;
    bfloat16* to = d_gate_up + row * d_gate_up_pitch + column;
    float gate[tensor_vector], up[tensor_vector];
    if (whole(row, column)) {
      unpack_run(gate, forward.gate);
      unpack_run(up, forward.up);
    } else {
      const bfloat16* from = gate_up + row * gate_up_pitch + column;
      load_some(gate, from, columns - column);
      load_some(up, from + half, columns - column);
    }
    round_run(d_hidden);
#pragma unroll
    for (int i = 0; i < tensor_vector; ++i) {
      const auto gradient = math::swiglu_gradient(gate[i], up[i], d_hidden[i]);
      gate[i] = gradient.gate;
      up[i] = gradient.up;
    }
    if (whole(row, column)) {
      store_run(to, gate);
      store_run(to + half, up);
    } else {
      store_some(to, gate, columns - column);
      store_some(to + half, up, columns - column);
    }
  }

 private:
  __device__ bool whole(int row, int column) const {
    return aligned && row < rows && column + tensor_vector <= columns;
  }
};

template <class Operand>
struct swiglu_product {
  static constexpr int columns = tensor_tile::columns / 2;  // of hidden, in a tile
  Operand left;                                             // rows (M, depth)
  group_weights right;                                      // w13 (E, 2 F, depth)
  bfloat16 *gate_up, *hidden;
  index_t gate_up_pitch, hidden_pitch, aligned;
  int half, depth;

  __device__ void operator()(const grouped_tile& tile, int column_tile) const {
    const int column = column_tile * columns, left_columns = half - column, rows = static_cast<int>(tile.rows);
    const auto lines = left.lines(tile.begin, rows, 0);
    const plain_lines of_weights = right.lines(tile.group, column, left_columns, 0);
    using left_loader = tensor_loader<contiguous::depth, std::remove_const_t<decltype(lines)>>;
    using right_loader = tensor_loader<contiguous::depth, paired_lines>;
    tensor_product(
        dynamic_shared(), left_loader(lines, depth),
        right_loader(paired_lines{of_weights, half, of_weights.aligned}, depth), depth,
        store_swiglu{gate_up + tile.begin * gate_up_pitch + column, hidden + tile.begin * hidden_pitch + column,
                     gate_up_pitch, hidden_pitch, half, rows, left_columns, aligned != 0});
  }
};

struct swiglu_gradient_product {
  plain_operand left;   // d_results (M, depth)
  group_weights right;  // w2 (E, depth, F)
  bfloat16* d_gate_up;
  const bfloat16* gate_up;
  index_t d_gate_up_pitch, gate_up_pitch, aligned;
  int half, depth;

  __device__ void operator()(const grouped_tile& tile, int column_tile) const {
    const int column = column_tile * tensor_tile::columns, left_columns = half - column,
              rows = static_cast<int>(tile.rows);
    using left_loader = tensor_loader<contiguous::depth, plain_lines>;
    using right_loader = tensor_loader<contiguous::outer, plain_lines>;
    tensor_product(dynamic_shared(), left_loader(left.lines(tile.begin, rows, 0), depth),
                   right_loader(right.lines(tile.group, 0, depth, column), left_columns), depth,
                   store_swiglu_gradient{d_gate_up + tile.begin * d_gate_up_pitch + column,
                                         gate_up + tile.begin * gate_up_pitch + column, d_gate_up_pitch, gate_up_pitch,
                                         half, rows, left_columns, aligned != 0});
  }
};

}  // namespace detail

// What ops/grouped_swiglu.hpp calls, which checks shapes. rows: a view, or gathered_rows.
template <class Rows, class W>
requires std::same_as<std::remove_const_t<W>, bfloat16>
void fused_grouped_swiglu_forward(context<cuda>& ctx, const matrix_view<bfloat16, device_space>& gate_up,
                                  const matrix_view<bfloat16, device_space>& hidden, const Rows& rows,
                                  const view<W, 3, device_space>& w13,
                                  const vector_view<const std::int32_t, device_space>& offsets) {
  const char* where = "grouped_swiglu_forward";
  const index_t half = hidden.extent(1), groups = w13.extent(0);
  if (rows.extent(0) == 0 || half == 0 || groups == 0) return;
  const auto left = detail::tensor_operand(where, rows);
  using product = detail::swiglu_product<std::remove_const_t<decltype(left)>>;
  const bool aligned = detail::lines_aligned(gate_up.data, gate_up.strides[0], half) &&
                       detail::lines_aligned(hidden.data, hidden.strides[0]);
  detail::launch_grouped_tensor(
      ctx, where, offsets.data, groups, rows.extent(0), (half + product::columns - 1) / product::columns,
      product{left, detail::tensor_weights(where, w13), gate_up.data, hidden.data, gate_up.strides[0],
              hidden.strides[0], aligned, static_cast<int>(half), static_cast<int>(rows.extent(1))});
}

template <class W>
requires std::same_as<std::remove_const_t<W>, bfloat16>
void fused_grouped_swiglu_backward(context<cuda>& ctx, const matrix_view<bfloat16, device_space>& d_gate_up,
                                   const matrix_view<const bfloat16, device_space>& d_results,
                                   const view<W, 3, device_space>& w2,
                                   const matrix_view<const bfloat16, device_space>& gate_up,
                                   const vector_view<const std::int32_t, device_space>& offsets) {
  const char* where = "grouped_swiglu_backward";
  const index_t half = w2.extent(2), groups = w2.extent(0);
  if (d_results.extent(0) == 0 || half == 0 || groups == 0) return;
  const bool aligned = detail::lines_aligned(gate_up.data, gate_up.strides[0], half) &&
                       detail::lines_aligned(d_gate_up.data, d_gate_up.strides[0]);
  detail::launch_grouped_tensor(
      ctx, where, offsets.data, groups, d_results.extent(0),
      (half + detail::tensor_tile::columns - 1) / detail::tensor_tile::columns,
      detail::swiglu_gradient_product{detail::tensor_operand(where, d_results), detail::tensor_weights(where, w2),
                                      d_gate_up.data, gate_up.data, d_gate_up.strides[0], gate_up.strides[0], aligned,
                                      static_cast<int>(half), static_cast<int>(d_results.extent(1))});
}

}  // namespace graft
