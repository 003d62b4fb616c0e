// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrix products on CUDA, through cuBLASLt. fp32 is full fp32 (no TF32); bf16 sums in fp32 and writes bf16 or fp32.
//
// cuBLASLt thinks in columns: a row-major (r, c) matrix with pitch p is to it a (c, r) matrix with pitch p. So each
// product is asked for transposed, C^T = op(B)^T op(A)^T, and nothing is moved.

#include <algorithm>
#include <concepts>
#include <type_traits>

#include <graft/backend/cuda/context.cuh>

namespace graft {

namespace detail {

// The element types of a product on CUDA: operands T, result T or the type of its sums.
template <class T, class Out>
concept DeviceProduct = (std::same_as<T, float> || std::same_as<T, double> ||
                         std::same_as<T, bfloat16>)&&(std::same_as<Out, T> || std::same_as<Out, accumulator_t<T>>);

template <class T>
using matrix_on_device = matrix_view<T, device_space>;

template <class View>
void check_device_columns(const char* where, const char* name, const View& v) {
  constexpr int last = View::rank - 1;
  GRAFT_CHECK(v.strides[last] == 1 || v.extents[last] <= 1, where, ": expected unit column stride, got ", name,
              " stride=", v.strides[last]);
}

// A row-major matrix as cuBLASLt sees it: transposed when `transpose` is set. Pitches of single rows are free in a
// view; cuBLASLt wants them no shorter than the row.
struct column_major {
  const void* data;
  index_t pitch;
  bool transpose;
};
template <class T>
column_major as_columns(const matrix_on_device<T>& m, bool transpose) {
  return {m.data, std::max({m.strides[0], m.extents[1], index_t{1}}), transpose};
}

// Column-major c^T (columns, rows) (+)= op(left) (columns, depth) op(right) (depth, rows).
template <class T, class Out>
void run_product(context<cuda>& ctx, const matrix_on_device<Out>& c, const column_major& left,
                 const column_major& right, index_t depth, accumulate mode) {
  using scale = accumulator_t<T>;
  const index_t rows = c.extent(0), columns = c.extent(1);
  if (rows == 0 || columns == 0) return;
  const auto result = as_columns(c, false);
  if (depth == 0) {  // an empty sum
    if (mode == accumulate::no)
      GRAFT_CUDA(cudaMemset2DAsync(c.data, static_cast<std::size_t>(result.pitch) * sizeof(Out), 0,
                                   static_cast<std::size_t>(columns) * sizeof(Out), static_cast<std::size_t>(rows),
                                   ctx.stream()));
    return;
  }
  const device_matmul_key key{cuda_data_type<T>,
                              cuda_data_type<Out>,
                              left.transpose,
                              right.transpose,
                              columns,
                              rows,
                              depth,
                              left.pitch,
                              right.pitch,
                              result.pitch,
                              alignment_of(left.data),
                              alignment_of(right.data),
                              alignment_of(c.data)};
  ctx.products().multiply(key, left.data, right.data, c.data, scale(mode == accumulate::yes ? 1 : 0), ctx.stream());
}

}  // namespace detail

// y (M,N) (+)= x (M,K) w (N,K)^T: forward of a linear layer.
template <class Out, class X, class W>
requires std::same_as<std::remove_const_t<X>, std::remove_const_t<W>> &&
    detail::DeviceProduct<std::remove_const_t<X>, Out>
void gemm_nt(context<cuda>& ctx, const matrix_view<Out, device_space>& y, const matrix_view<X, device_space>& x,
             const matrix_view<W, device_space>& w, accumulate mode = accumulate::no) {
  GRAFT_CHECK(x.extent(0) == y.extent(0) && w.extent(0) == y.extent(1) && x.extent(1) == w.extent(1),
              "gemm_nt: expected y (M,N), x (M,K), w (N,K), got y (", y.extent(0), ",", y.extent(1), "), x (",
              x.extent(0), ",", x.extent(1), "), w (", w.extent(0), ",", w.extent(1), ")");
  detail::check_device_columns("gemm_nt", "y", y);
  detail::check_device_columns("gemm_nt", "x", x);
  detail::check_device_columns("gemm_nt", "w", w);
  // y^T (N,M) = w (N,K) x^T (K,M); cuBLASLt holds w^T and x^T.
  detail::run_product<std::remove_const_t<X>>(ctx, y, detail::as_columns(w, true), detail::as_columns(x, false),
                                              x.extent(1), mode);
}

// dx (M,K) (+)= dy (M,N) w (N,K): gradient to the input.
template <class Out, class Dy, class W>
requires std::same_as<std::remove_const_t<Dy>, std::remove_const_t<W>> &&
    detail::DeviceProduct<std::remove_const_t<Dy>, Out>
void gemm_nn(context<cuda>& ctx, const matrix_view<Out, device_space>& dx, const matrix_view<Dy, device_space>& dy,
             const matrix_view<W, device_space>& w, accumulate mode = accumulate::no) {
  GRAFT_CHECK(dy.extent(0) == dx.extent(0) && w.extent(1) == dx.extent(1) && dy.extent(1) == w.extent(0),
              "gemm_nn: expected dx (M,K), dy (M,N), w (N,K), got dx (", dx.extent(0), ",", dx.extent(1), "), dy (",
              dy.extent(0), ",", dy.extent(1), "), w (", w.extent(0), ",", w.extent(1), ")");
  detail::check_device_columns("gemm_nn", "dx", dx);
  detail::check_device_columns("gemm_nn", "dy", dy);
  detail::check_device_columns("gemm_nn", "w", w);
  // dx^T (K,M) = w^T (K,N) dy^T (N,M); cuBLASLt holds w^T and dy^T.
  detail::run_product<std::remove_const_t<Dy>>(ctx, dx, detail::as_columns(w, false), detail::as_columns(dy, false),
                                               dy.extent(1), mode);
}

// dw (N,K) (+)= dy (M,N)^T x (M,K): gradient to the weight.
template <class Out, class Dy, class X>
requires std::same_as<std::remove_const_t<Dy>, std::remove_const_t<X>> &&
    detail::DeviceProduct<std::remove_const_t<Dy>, Out>
void gemm_tn(context<cuda>& ctx, const matrix_view<Out, device_space>& dw, const matrix_view<Dy, device_space>& dy,
             const matrix_view<X, device_space>& x, accumulate mode = accumulate::no) {
  GRAFT_CHECK(dy.extent(1) == dw.extent(0) && x.extent(1) == dw.extent(1) && dy.extent(0) == x.extent(0),
              "gemm_tn: expected dw (N,K), dy (M,N), x (M,K), got dw (", dw.extent(0), ",", dw.extent(1), "), dy (",
              dy.extent(0), ",", dy.extent(1), "), x (", x.extent(0), ",", x.extent(1), ")");
  detail::check_device_columns("gemm_tn", "dw", dw);
  detail::check_device_columns("gemm_tn", "dy", dy);
  detail::check_device_columns("gemm_tn", "x", x);
  // dw^T (K,N) = x^T (K,M) dy (M,N); cuBLASLt holds x^T and dy^T.
  detail::run_product<std::remove_const_t<Dy>>(ctx, dw, detail::as_columns(x, false), detail::as_columns(dy, true),
                                               dy.extent(0), mode);
}

}  // namespace graft
