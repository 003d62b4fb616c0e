// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Grouped products on CUDA: rows [offsets[e], offsets[e+1]) of x and dy belong to expert e, and offsets (E+1), which
// ascend, stay on the device. The host knows only the bound on the rows, x.extent(0), and launches as many
// blocks as any offsets within it can need; each block finds its group by itself. Rows beyond offsets[E] are not
// touched. Portable kernels for compute capability 8.0 and above: bf16 on the tensor cores
// (grouped_tensor_product.cuh), fp32 and fp64 by fused multiply-adds (block_product.cuh). Any pitch works; operands and
// results whose lines start at multiples of 16 bytes move in 16-byte accesses.

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <graft/backend/cuda/block_product.cuh>
#include <graft/backend/cuda/gemm.cuh>
#include <graft/backend/cuda/grouped_tensor_product.cuh>
#include <graft/backend/cuda/grouped_tiles.hpp>
#include <graft/backend/cuda/launch.cuh>
#include <graft/backend/gathered_rows.hpp>

namespace graft {

template <>
inline constexpr bool gathers_rows<cuda, bfloat16> = true;

namespace detail {

// The three forms in one: a group's result is rows x columns, a sum over depth. Strides between groups are in elements.
template <class T, class Out>
struct device_grouped_product {
  const T* left;   // x or dy
  const T* right;  // w, or x for a weight gradient
  Out* result;
  const std::int32_t* offsets;
  index_t left_pitch, right_pitch, right_group, result_pitch, result_group;
  index_t rows, columns, depth;  // rows: of a weight gradient; depth: of the other two
  int groups;
  bool left_aligned, right_aligned, add;
};

// One element of a tile to memory.
template <class T, class Out>
struct write_product {
  Out* result;
  index_t pitch, rows, columns;
  bool add;

  __device__ void operator()(int row, int column, accumulator_t<T> sum) const {
    if (row >= rows || column >= columns) return;
    Out& target = result[row * pitch + column];
    if (add) sum += static_cast<accumulator_t<T>>(target);
    target = static_cast<Out>(sum);
  }
};

// nt and nn: blockIdx.x runs over column tiles first, then over the tile numbers of grouped_tiles.hpp.
template <contiguous AlongRight, class T, class Out>
static __global__ void __launch_bounds__(product_threads, 2)
    grouped_rows_kernel(const device_grouped_product<T, Out> p) {
  __shared__ product_storage<T, contiguous::depth, AlongRight> shared;
  using shape = product_tile<T>;
  const auto column_tiles = static_cast<unsigned>((p.columns + shape::columns - 1) / shape::columns);
  const index_t column = static_cast<index_t>(blockIdx.x % column_tiles) * shape::columns;
  const grouped_tile tile = find_grouped_tile(p.offsets, p.groups, blockIdx.x / column_tiles, shape::rows);
  if (tile.rows == 0) return;
  const index_t columns = p.columns - column;
  const product_operand<T> a{p.left + tile.begin * p.left_pitch, p.left_pitch, tile.rows, p.left_aligned};
  const product_operand<T> b{
      p.right + tile.group * p.right_group + (AlongRight == contiguous::depth ? column * p.right_pitch : column),
      p.right_pitch, columns, p.right_aligned};
  block_product<contiguous::depth, AlongRight>(shared, a, b, p.depth,
                                               write_product<T, Out>{p.result + tile.begin * p.result_pitch + column,
                                                                     p.result_pitch, tile.rows, columns, p.add});
}

// tn: blockIdx.x runs over column tiles, then row tiles, then groups. The sum runs over the group's rows.
template <class T, class Out>
static __global__ void __launch_bounds__(product_threads, 1)
    grouped_weight_kernel(const device_grouped_product<T, Out> p) {
  __shared__ product_storage<T, contiguous::outer, contiguous::outer> shared;
  using shape = product_tile<T>;
  const auto column_tiles = static_cast<unsigned>((p.columns + shape::columns - 1) / shape::columns);
  const auto row_tiles = static_cast<unsigned>((p.rows + shape::rows - 1) / shape::rows);
  const index_t column = static_cast<index_t>(blockIdx.x % column_tiles) * shape::columns;
  const index_t row = static_cast<index_t>(blockIdx.x / column_tiles % row_tiles) * shape::rows;
  const unsigned group = blockIdx.x / column_tiles / row_tiles;
  const index_t begin = p.offsets[group], depth = p.offsets[group + 1] - begin;
  if (depth <= 0 && p.add) return;  // nothing to add: leave the bits as they are
  const index_t rows = p.rows - row, columns = p.columns - column;
  const product_operand<T> a{p.left + begin * p.left_pitch + row, p.left_pitch, rows, p.left_aligned};
  const product_operand<T> b{p.right + begin * p.right_pitch + column, p.right_pitch, columns, p.right_aligned};
  block_product<contiguous::outer, contiguous::outer>(
      shared, a, b, depth,
      write_product<T, Out>{p.result + group * p.result_group + row * p.result_pitch + column, p.result_pitch, rows,
                            columns, p.add});
}

// The shared part of nt and nn in fp32 and fp64: left (M, depth), weights of E groups, result (M, columns).
template <contiguous AlongRight, class Out, class Left, class Right>
void run_grouped_rows(context<cuda>& ctx, const char* where, const matrix_on_device<Out>& result,
                      const matrix_on_device<Left>& left, const view<Right, 3, device_space>& right,
                      const vector_view<const std::int32_t, device_space>& offsets, accumulate mode) {
  using T = std::remove_const_t<Left>;
  using shape = product_tile<T>;
  const index_t columns = result.extent(1);
  if (left.extent(0) == 0 || columns == 0 || right.extent(0) == 0) return;
  const int groups = static_cast<int>(right.extent(0));
  const device_grouped_product<T, Out> p{left.data,
                                         right.data,
                                         result.data,
                                         offsets.data,
                                         left.strides[0],
                                         right.strides[1],
                                         right.strides[0],
                                         result.strides[0],
                                         0,
                                         0,
                                         columns,
                                         left.extent(1),
                                         groups,
                                         lines_aligned(left.data, left.strides[0]),
                                         lines_aligned(right.data, right.strides[1], right.strides[0]),
                                         mode == accumulate::yes};
  const index_t tiles = grouped_tile_bound(left.extent(0), groups, shape::rows);
  const unsigned grid = product_grid(where, tiles * ((columns + shape::columns - 1) / shape::columns));
  launch(ctx, "a grouped product", grouped_rows_kernel<AlongRight, T, Out>, grid, product_threads, 0, p);
}

// And of tn.
template <class Out, class Dy, class X>
void run_grouped_weights(context<cuda>& ctx, const char* where, const view<Out, 3, device_space>& dw,
                         const matrix_on_device<Dy>& dy, const matrix_on_device<X>& x,
                         const vector_view<const std::int32_t, device_space>& offsets, accumulate mode) {
  using T = std::remove_const_t<Dy>;
  using shape = product_tile<T>;
  const index_t groups = dw.extent(0), rows = dw.extent(1), columns = dw.extent(2);
  if (groups == 0 || rows == 0 || columns == 0) return;
  const device_grouped_product<T, Out> p{dy.data,
                                         x.data,
                                         dw.data,
                                         offsets.data,
                                         dy.strides[0],
                                         x.strides[0],
                                         0,
                                         dw.strides[1],
                                         dw.strides[0],
                                         rows,
                                         columns,
                                         0,
                                         static_cast<int>(groups),
                                         lines_aligned(dy.data, dy.strides[0]),
                                         lines_aligned(x.data, x.strides[0]),
                                         mode == accumulate::yes};
  const unsigned grid = product_grid(
      where, groups * ((rows + shape::rows - 1) / shape::rows) * ((columns + shape::columns - 1) / shape::columns));
  launch(ctx, "a grouped weight gradient", grouped_weight_kernel<T, Out>, grid, product_threads, 0, p);
}

template <class Offsets>
void check_offsets(const char* where, const Offsets& offsets, index_t groups) {
  GRAFT_CHECK(offsets.extent(0) == groups + 1, where, ": expected offsets of size E+1=", groups + 1, ", got ",
              offsets.extent(0));
  GRAFT_CHECK(offsets.contiguous(), where, ": expected contiguous offsets, got strides");
  GRAFT_CHECK(groups <= std::numeric_limits<std::int32_t>::max() / 2, where, ": expected at most 2^30 groups, got ",
              groups);
}

}  // namespace detail

// y (M,N) (+)= x (M,K) w_e (N,K)^T, w (E,N,K). An empty group writes nothing.
template <class Out, class X, class W>
requires std::same_as<std::remove_const_t<X>, std::remove_const_t<W>> &&
    detail::DeviceProduct<std::remove_const_t<X>, Out>
void grouped_gemm_nt(context<cuda>& ctx, const matrix_view<Out, device_space>& y, const matrix_view<X, device_space>& x,
                     const view<W, 3, device_space>& w,
                     const std::type_identity_t<vector_view<const std::int32_t, device_space>>& offsets,
                     accumulate mode = accumulate::no) {
  GRAFT_CHECK(x.extent(0) == y.extent(0) && w.extent(1) == y.extent(1) && x.extent(1) == w.extent(2),
              "grouped_gemm_nt: expected y (M,N), x (M,K), w (E,N,K), got y (", y.extent(0), ",", y.extent(1), "), x (",
              x.extent(0), ",", x.extent(1), "), w (", w.extent(0), ",", w.extent(1), ",", w.extent(2), ")");
  detail::check_device_columns("grouped_gemm_nt", "y", y);
  detail::check_device_columns("grouped_gemm_nt", "x", x);
  detail::check_device_columns("grouped_gemm_nt", "w", w);
  detail::check_offsets("grouped_gemm_nt", offsets, w.extent(0));
  if constexpr (std::same_as<std::remove_const_t<X>, bfloat16>)
    detail::run_grouped_tensor_rows<detail::contiguous::depth>(ctx, "grouped_gemm_nt", y, x, w, offsets.data, mode);
  else
    detail::run_grouped_rows<detail::contiguous::depth>(ctx, "grouped_gemm_nt", y, x, w, offsets, mode);
}

// dx (M,K) (+)= dy (M,N) w_e (N,K), w (E,N,K). An empty group writes nothing.
template <class Out, class Dy, class W>
requires std::same_as<std::remove_const_t<Dy>, std::remove_const_t<W>> &&
    detail::DeviceProduct<std::remove_const_t<Dy>, Out>
void grouped_gemm_nn(context<cuda>& ctx, const matrix_view<Out, device_space>& dx,
                     const matrix_view<Dy, device_space>& dy, const view<W, 3, device_space>& w,
                     const std::type_identity_t<vector_view<const std::int32_t, device_space>>& offsets,
                     accumulate mode = accumulate::no) {
  GRAFT_CHECK(dy.extent(0) == dx.extent(0) && w.extent(2) == dx.extent(1) && dy.extent(1) == w.extent(1),
              "grouped_gemm_nn: expected dx (M,K), dy (M,N), w (E,N,K), got dx (", dx.extent(0), ",", dx.extent(1),
              "), dy (", dy.extent(0), ",", dy.extent(1), "), w (", w.extent(0), ",", w.extent(1), ",", w.extent(2),
              ")");
  detail::check_device_columns("grouped_gemm_nn", "dx", dx);
  detail::check_device_columns("grouped_gemm_nn", "dy", dy);
  detail::check_device_columns("grouped_gemm_nn", "w", w);
  detail::check_offsets("grouped_gemm_nn", offsets, w.extent(0));
  if constexpr (std::same_as<std::remove_const_t<Dy>, bfloat16>)
    detail::run_grouped_tensor_rows<detail::contiguous::outer>(ctx, "grouped_gemm_nn", dx, dy, w, offsets.data, mode);
  else
    detail::run_grouped_rows<detail::contiguous::outer>(ctx, "grouped_gemm_nn", dx, dy, w, offsets, mode);
}

// dw_e (N,K) (+)= dy_e (M_e,N)^T x_e (M_e,K), dw (E,N,K). An empty group writes zeros, or nothing when adding.
template <class Out, class Dy, class X>
requires std::same_as<std::remove_const_t<Dy>, std::remove_const_t<X>> &&
    detail::DeviceProduct<std::remove_const_t<Dy>, Out>
void grouped_gemm_tn(context<cuda>& ctx, const view<Out, 3, device_space>& dw, const matrix_view<Dy, device_space>& dy,
                     const matrix_view<X, device_space>& x,
                     const std::type_identity_t<vector_view<const std::int32_t, device_space>>& offsets,
                     accumulate mode = accumulate::no) {
  GRAFT_CHECK(dy.extent(1) == dw.extent(1) && x.extent(1) == dw.extent(2) && dy.extent(0) == x.extent(0),
              "grouped_gemm_tn: expected dw (E,N,K), dy (M,N), x (M,K), got dw (", dw.extent(0), ",", dw.extent(1), ",",
              dw.extent(2), "), dy (", dy.extent(0), ",", dy.extent(1), "), x (", x.extent(0), ",", x.extent(1), ")");
  detail::check_device_columns("grouped_gemm_tn", "dw", dw);
  detail::check_device_columns("grouped_gemm_tn", "dy", dy);
  detail::check_device_columns("grouped_gemm_tn", "x", x);
  detail::check_offsets("grouped_gemm_tn", offsets, dw.extent(0));
  if constexpr (std::same_as<std::remove_const_t<Dy>, bfloat16>)
    detail::run_grouped_tensor_weights(ctx, "grouped_gemm_tn", dw, dy, x, offsets.data, mode);
  else
    detail::run_grouped_weights(ctx, "grouped_gemm_tn", dw, dy, x, offsets, mode);
}

// The same products of rows that are read where they lie, token by token (gathered_rows.hpp): no copy is needed.

// y (M,N) (+)= rows (M,K) w_e (N,K)^T, w (E,N,K). An empty group writes nothing.
template <class Out, class W>
requires std::same_as<std::remove_const_t<W>, bfloat16> && detail::DeviceProduct<bfloat16, Out>
void grouped_gemm_nt(context<cuda>& ctx, const matrix_view<Out, device_space>& y,
                     const gathered_rows<bfloat16, device_space>& rows, const view<W, 3, device_space>& w,
                     const std::type_identity_t<vector_view<const std::int32_t, device_space>>& offsets,
                     accumulate mode = accumulate::no) {
  GRAFT_CHECK(rows.extent(0) == y.extent(0) && w.extent(1) == y.extent(1) && rows.extent(1) == w.extent(2),
              "grouped_gemm_nt: expected y (M,N), rows (M,K), w (E,N,K), got y (", y.extent(0), ",", y.extent(1),
              "), rows (", rows.extent(0), ",", rows.extent(1), "), w (", w.extent(0), ",", w.extent(1), ",",
              w.extent(2), ")");
  detail::check_device_columns("grouped_gemm_nt", "y", y);
  detail::check_device_columns("grouped_gemm_nt", "x", rows.x);
  detail::check_device_columns("grouped_gemm_nt", "w", w);
  detail::check_offsets("grouped_gemm_nt", offsets, w.extent(0));
  detail::run_grouped_tensor_rows<detail::contiguous::depth>(ctx, "grouped_gemm_nt", y, rows, w, offsets.data, mode);
}

// dw_e (N,K) (+)= dy_e (M_e,N)^T rows_e (M_e,K), dw (E,N,K). An empty group writes zeros, or nothing when adding.
template <class Out, class Dy>
requires std::same_as<std::remove_const_t<Dy>, bfloat16> && detail::DeviceProduct<bfloat16, Out>
void grouped_gemm_tn(context<cuda>& ctx, const view<Out, 3, device_space>& dw, const matrix_view<Dy, device_space>& dy,
                     const gathered_rows<bfloat16, device_space>& rows,
                     const std::type_identity_t<vector_view<const std::int32_t, device_space>>& offsets,
                     accumulate mode = accumulate::no) {
  GRAFT_CHECK(dy.extent(1) == dw.extent(1) && rows.extent(1) == dw.extent(2) && dy.extent(0) == rows.extent(0),
              "grouped_gemm_tn: expected dw (E,N,K), dy (M,N), rows (M,K), got dw (", dw.extent(0), ",", dw.extent(1),
              ",", dw.extent(2), "), dy (", dy.extent(0), ",", dy.extent(1), "), rows (", rows.extent(0), ",",
              rows.extent(1), ")");
  detail::check_device_columns("grouped_gemm_tn", "dw", dw);
  detail::check_device_columns("grouped_gemm_tn", "dy", dy);
  detail::check_device_columns("grouped_gemm_tn", "x", rows.x);
  detail::check_offsets("grouped_gemm_tn", offsets, dw.extent(0));
  detail::run_grouped_tensor_weights(ctx, "grouped_gemm_tn", dw, dy, rows, offsets.data, mode);
}

}  // namespace graft
