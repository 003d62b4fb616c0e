// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A grouped product and SwiGLU in one: the up product of E feed-forward layers and the gradient that comes back through
// it. A backend that has the two in one kernel (fused_grouped_swiglu_forward, fused_grouped_swiglu_backward, found
// through the context) saves a pass over gate_up and one over hidden or d_hidden; the others get the product and the op
// one after the other. The bits are those of the two, either way.

#include <cstdint>

#include <graft/backend/gathered_rows.hpp>
#include <graft/core/error.hpp>
#include <graft/ops/swiglu.hpp>

namespace graft {

namespace detail {

template <class Context>
using group_offsets = view<const std::int32_t, 1, typename Context::space>;

template <class A, class B>
void check_rows_of(const char* where, const char* a_name, const A& a, const char* b_name, const B& b) {
  GRAFT_CHECK(a.extent(0) == b.extent(0), where, ": expected as many rows in ", a_name, " and ", b_name, ", got ",
              a.extent(0), " and ", b.extent(0));
}
template <class View>
void check_matrix(const char* where, const char* name, const View& v, index_t columns) {
  GRAFT_CHECK(v.extent(1) == columns && (columns <= 1 || v.strides[1] == 1), where, ": expected ", name, " with ",
              columns, " columns next to each other, got ", v.extent(1), " with stride ", v.strides[1]);
}
template <class W>
void check_groups(const char* where, const char* name, const W& w, index_t rows, index_t columns, const auto& offsets) {
  GRAFT_CHECK(w.extent(1) == rows && w.extent(2) == columns && (columns <= 1 || w.strides[2] == 1), where,
              ": expected ", name, " (E,", rows, ",", columns, ") with columns next to each other, got (", w.extent(0),
              ",", w.extent(1), ",", w.extent(2), ") with stride ", w.strides[2]);
  GRAFT_CHECK(offsets.extent(0) == w.extent(0) + 1 && offsets.contiguous(), where,
              ": expected contiguous offsets of size E+1=", w.extent(0) + 1, ", got ", offsets.extent(0));
}

}  // namespace detail

// gate_up = rows w13_e^T,   hidden = silu(gate) * up,   [gate, up] = gate_up, for the rows of each group e.
// Shapes: gate_up (R, 2F), hidden (R, F), w13 (E, 2F, D), offsets (E+1); rows (R, D), a view or gathered_rows.
// Rows beyond offsets[E] are not touched. hidden is made of the rounded gate_up.
template <class Context, class T, class Rows, class W>
void grouped_swiglu_forward(Context& context, matrix_of<Context, T> gate_up, matrix_of<Context, T> hidden,
                            const Rows& rows, const view<W, 3, typename Context::space>& w13,
                            const detail::group_offsets<Context>& offsets) {
  const char* where = "grouped_swiglu_forward";
  const index_t half = hidden.extent(1);
  detail::check_rows_of(where, "gate_up", gate_up, "rows", rows);
  detail::check_rows_of(where, "hidden", hidden, "rows", rows);
  detail::check_matrix(where, "gate_up", gate_up, 2 * half);
  detail::check_matrix(where, "hidden", hidden, half);
  detail::check_groups(where, "w13", w13, 2 * half, rows.extent(1), offsets);
  if constexpr (requires { fused_grouped_swiglu_forward(context, gate_up, hidden, rows, w13, offsets); }) {
    fused_grouped_swiglu_forward(context, gate_up, hidden, rows, w13, offsets);
  } else {
    grouped_gemm_nt(context, gate_up, rows, w13, offsets, accumulate::no);
    swiglu_forward(context, hidden, gate_up, offsets.data + w13.extent(0));
  }
}

// d_gate_up = the gradient through d_hidden = d_results w2_e and SwiGLU (ops/swiglu.hpp).
// Shapes: d_gate_up, gate_up (R, 2F), d_results (R, D), w2 (E, D, F), offsets (E+1). d_hidden (R, F): memory to work
// in; what it holds afterwards is not said. d_gate_up may be gate_up.
template <class Context, class T, class W>
void grouped_swiglu_backward(Context& context, matrix_of<Context, T> d_gate_up, matrix_of<Context, T> d_hidden,
                             const_matrix_of<Context, T> d_results, const view<W, 3, typename Context::space>& w2,
                             const_matrix_of<Context, T> gate_up, const detail::group_offsets<Context>& offsets) {
  const char* where = "grouped_swiglu_backward";
  const index_t half = d_hidden.extent(1);
  detail::check_rows_of(where, "d_gate_up", d_gate_up, "d_results", d_results);
  detail::check_rows_of(where, "d_hidden", d_hidden, "d_results", d_results);
  detail::check_rows_of(where, "gate_up", gate_up, "d_results", d_results);
  detail::check_matrix(where, "d_gate_up", d_gate_up, 2 * half);
  detail::check_matrix(where, "gate_up", gate_up, 2 * half);
  detail::check_matrix(where, "d_results", d_results, w2.extent(1));
  detail::check_groups(where, "w2", w2, d_results.extent(1), half, offsets);
  if constexpr (requires { fused_grouped_swiglu_backward(context, d_gate_up, d_results, w2, gate_up, offsets); }) {
    fused_grouped_swiglu_backward(context, d_gate_up, d_results, w2, gate_up, offsets);
  } else {
    grouped_gemm_nn(context, d_hidden, d_results, w2, offsets, accumulate::no);
    swiglu_backward(context, d_gate_up, d_hidden, gate_up, offsets.data + w2.extent(0));
  }
}

}  // namespace graft
