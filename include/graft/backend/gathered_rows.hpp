// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rows of a matrix in the order that a routing gives them, as an operand of grouped products. A backend whose products
// gather rows as they load them needs no copy in that order; the others are given one.

#include <cstdint>
#include <type_traits>

#include <graft/backend/backend.hpp>
#include <graft/core/error.hpp>
#include <graft/core/view.hpp>

namespace graft {

// Whether a backend's grouped products of T read rows where they lie. Specialised by the backend.
template <class Backend, class T>
inline constexpr bool gathers_rows = false;

// Row r is x[slot_of_row[r] / slots], or zeros where slot_of_row[r] is -1.
// Shapes: x (T, D), slot_of_row (R), copy (R, D) or absent.
// Where copy is given it holds those rows; beyond the last row in use it may hold anything.
template <class T, class Space>
struct gathered_rows {
  view<const T, 2, Space> x;
  view<const std::int32_t, 1, Space> slot_of_row;
  index_t slots = 1;
  view<const T, 2, Space> copy;

  index_t extent(int axis) const { return axis == 0 ? slot_of_row.extent(0) : x.extent(1); }

  // For what takes a matrix. Errors: no copy was given.
  operator view<const T, 2, Space>() const {
    GRAFT_CHECK(copy.data != nullptr || extent(0) == 0, "gathered_rows: expected a copy of ", extent(0),
                " rows for a function that takes a matrix, got none");
    return copy;
  }
};

// The products of gemm.hpp with gathered rows in place of x, for backends that take the copy.

// y (M,N) (+)= rows (M,K) w_e (N,K)^T, w (E,N,K)
template <class Ctx, class Out, class X, class W, class Space>
requires(!gathers_rows<typename Ctx::backend, X>) void grouped_gemm_nt(
    Ctx& ctx, const view<Out, 2, Space>& y, const gathered_rows<X, Space>& rows, const view<W, 3, Space>& w,
    const std::type_identity_t<view<const std::int32_t, 1, Space>>& offsets, accumulate mode = accumulate::no) {
  grouped_gemm_nt(ctx, y, static_cast<view<const X, 2, Space>>(rows), w, offsets, mode);
}

// dw_e (N,K) (+)= dy_e (M_e,N)^T rows_e (M_e,K), dw (E,N,K)
template <class Ctx, class Out, class Dy, class X, class Space>
requires(!gathers_rows<typename Ctx::backend, X>) void grouped_gemm_tn(
    Ctx& ctx, const view<Out, 3, Space>& dw, const view<Dy, 2, Space>& dy, const gathered_rows<X, Space>& rows,
    const std::type_identity_t<view<const std::int32_t, 1, Space>>& offsets, accumulate mode = accumulate::no) {
  grouped_gemm_tn(ctx, dw, dy, static_cast<view<const X, 2, Space>>(rows), offsets, mode);
}

}  // namespace graft
