// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrix products on the CPU, dense and grouped by expert.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <graft/backend/cpu/blas.hpp>
#include <graft/backend/cpu/tile.hpp>

namespace graft {

namespace detail {

template <product_form Form, class T, class Out>
void run_tile(const tile<T, Out>& t) {
  if (t.rows == 0 || t.columns == 0) return;
  if (t.depth == 0) {
    if (!t.add)
      for (index_t i = 0; i < t.rows; ++i) std::fill_n(t.c + i * t.c_stride, t.columns, Out(0));
    return;
  }
  blas_tile<Form>(t);
}

// The tile of the whole product that starts at (row, column).
template <product_form Form, class T, class Out>
tile<T, Out> cut(const tile<T, Out>& whole, index_t row, index_t column, index_t block_rows, index_t block_columns) {
  tile<T, Out> part = whole;
  part.rows = std::min(block_rows, whole.rows - row);
  part.columns = std::min(block_columns, whole.columns - column);
  part.a += Form == product_form::tn ? row : row * whole.a_stride;
  part.b += Form == product_form::nt ? column * whole.b_stride : column;
  part.c += row * whole.c_stride + column;
  return part;
}

template <product_form Form, class T, class Out>
void product(context<cpu>& ctx, const tile<T, Out>& whole) {
  constexpr index_t block_rows = 256, block_columns = 512;
  const index_t row_blocks = ceil_div(whole.rows, block_rows), column_blocks = ceil_div(whole.columns, block_columns);
  run_tiles(ctx, row_blocks * column_blocks, [&](index_t i) {
    run_tile<Form>(cut<Form>(whole, i / column_blocks * block_rows, i % column_blocks * block_columns, block_rows, block_columns));
  });
}

// What every product asks of its views.
template <class T, class Out>
concept ProductTypes = (std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bfloat16>)&&(
    std::same_as<Out, T> || std::same_as<Out, accumulator_t<T>>);

template <class View>
void check_columns(const char* where, const char* name, const View& v) {
  GRAFT_CHECK(v.strides[View::rank - 1] == 1, where, ": expected unit column stride, got ", name, " stride=", v.strides[View::rank - 1]);
}

}  // namespace detail

// y (M,N) (+)= x (M,K) w (N,K)^T: forward of a linear layer.
template <class Out, class X, class W>
  requires std::same_as<std::remove_const_t<X>, std::remove_const_t<W>> && detail::ProductTypes<std::remove_const_t<X>, Out>
void gemm_nt(context<cpu>& ctx, const matrix_view<Out>& y, const matrix_view<X>& x, const matrix_view<W>& w,
             accumulate mode = accumulate::no) {
  GRAFT_CHECK(x.extent(0) == y.extent(0) && w.extent(0) == y.extent(1) && x.extent(1) == w.extent(1),
              "gemm_nt: expected y (M,N), x (M,K), w (N,K), got y (", y.extent(0), ",", y.extent(1), "), x (", x.extent(0), ",",
              x.extent(1), "), w (", w.extent(0), ",", w.extent(1), ")");
  using T = std::remove_const_t<X>;
  detail::product<detail::product_form::nt>(
      ctx, detail::tile<T, Out>{y.extent(0), y.extent(1), x.extent(1), x.data, x.strides[0], w.data, w.strides[0], y.data,
                                y.strides[0], mode == accumulate::yes});
}

// dx (M,K) (+)= dy (M,N) w (N,K): gradient to the input.
template <class Out, class Dy, class W>
  requires std::same_as<std::remove_const_t<Dy>, std::remove_const_t<W>> && detail::ProductTypes<std::remove_const_t<Dy>, Out>
void gemm_nn(context<cpu>& ctx, const matrix_view<Out>& dx, const matrix_view<Dy>& dy, const matrix_view<W>& w,
             accumulate mode = accumulate::no) {
  GRAFT_CHECK(dy.extent(0) == dx.extent(0) && w.extent(1) == dx.extent(1) && dy.extent(1) == w.extent(0),
              "gemm_nn: expected dx (M,K), dy (M,N), w (N,K), got dx (", dx.extent(0), ",", dx.extent(1), "), dy (", dy.extent(0),
              ",", dy.extent(1), "), w (", w.extent(0), ",", w.extent(1), ")");
  using T = std::remove_const_t<Dy>;
  detail::product<detail::product_form::nn>(
      ctx, detail::tile<T, Out>{dx.extent(0), dx.extent(1), dy.extent(1), dy.data, dy.strides[0], w.data, w.strides[0], dx.data,
                                dx.strides[0], mode == accumulate::yes});
}

// dw (N,K) (+)= dy (M,N)^T x (M,K): gradient to the weight.
template <class Out, class Dy, class X>
  requires std::same_as<std::remove_const_t<Dy>, std::remove_const_t<X>> && detail::ProductTypes<std::remove_const_t<Dy>, Out>
void gemm_tn(context<cpu>& ctx, const matrix_view<Out>& dw, const matrix_view<Dy>& dy, const matrix_view<X>& x,
             accumulate mode = accumulate::no) {
  GRAFT_CHECK(dy.extent(1) == dw.extent(0) && x.extent(1) == dw.extent(1) && dy.extent(0) == x.extent(0),
              "gemm_tn: expected dw (N,K), dy (M,N), x (M,K), got dw (", dw.extent(0), ",", dw.extent(1), "), dy (", dy.extent(0),
              ",", dy.extent(1), "), x (", x.extent(0), ",", x.extent(1), ")");
  using T = std::remove_const_t<Dy>;
  detail::product<detail::product_form::tn>(
      ctx, detail::tile<T, Out>{dw.extent(0), dw.extent(1), dy.extent(0), dy.data, dy.strides[0], x.data, x.strides[0], dw.data,
                                dw.strides[0], mode == accumulate::yes});
}

// Grouped products: rows [offsets[e], offsets[e+1]) of x and dy belong to expert e; offsets (E+1) ascend from 0. Rows
// beyond offsets[E] are not touched. An empty group writes nothing in nt and nn; in tn zeros, or nothing when adding.

// y (M,N) (+)= x (M,K) w_e (N,K)^T, w (E,N,K)
template <class Out, class X, class W>
  requires std::same_as<std::remove_const_t<X>, std::remove_const_t<W>> && detail::ProductTypes<std::remove_const_t<X>, Out>
void grouped_gemm_nt(context<cpu>& ctx, const matrix_view<Out>& y, const matrix_view<X>& x, const view<W, 3>& w,
                     const std::type_identity_t<vector_view<const std::int32_t>>& offsets, accumulate mode = accumulate::no) {
  for (index_t e = 0; e < w.extent(0); ++e)
    gemm_nt(ctx, y.rows(offsets[e], offsets[e + 1]), x.rows(offsets[e], offsets[e + 1]), w[e], mode);
}

// dx (M,K) (+)= dy (M,N) w_e (N,K), w (E,N,K)
template <class Out, class Dy, class W>
  requires std::same_as<std::remove_const_t<Dy>, std::remove_const_t<W>> && detail::ProductTypes<std::remove_const_t<Dy>, Out>
void grouped_gemm_nn(context<cpu>& ctx, const matrix_view<Out>& dx, const matrix_view<Dy>& dy, const view<W, 3>& w,
                     const std::type_identity_t<vector_view<const std::int32_t>>& offsets, accumulate mode = accumulate::no) {
  for (index_t e = 0; e < w.extent(0); ++e)
    gemm_nn(ctx, dx.rows(offsets[e], offsets[e + 1]), dy.rows(offsets[e], offsets[e + 1]), w[e], mode);
}

// dw_e (N,K) (+)= dy_e (M_e,N)^T x_e (M_e,K), dw (E,N,K)
template <class Out, class Dy, class X>
  requires std::same_as<std::remove_const_t<Dy>, std::remove_const_t<X>> && detail::ProductTypes<std::remove_const_t<Dy>, Out>
void grouped_gemm_tn(context<cpu>& ctx, const view<Out, 3>& dw, const matrix_view<Dy>& dy, const matrix_view<X>& x,
                     const std::type_identity_t<vector_view<const std::int32_t>>& offsets, accumulate mode = accumulate::no) {
  for (index_t e = 0; e < dw.extent(0); ++e)
    gemm_tn(ctx, dw[e], dy.rows(offsets[e], offsets[e + 1]), x.rows(offsets[e], offsets[e + 1]), mode);
}

}  // namespace graft
