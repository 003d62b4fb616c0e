// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// SwiGLU: silu(gate) * up, where gate and up are the two halves of one product.
// Source: Shazeer, "GLU variants improve transformer", 2020, arXiv 2002.05202.

#include <cstdint>

#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/math.hpp>
#include <graft/ops/operands.hpp>

namespace graft {
namespace detail {

template <class T, class Space>
struct swiglu_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> out;            // (R, F)
  view<const T, 2, Space> gate_up;  // (R, 2F)
  const std::int32_t* row_count;    // on the device; null: all rows

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    if (row_count != nullptr && row >= *row_count) return;
    const index_t hidden = out.extent(1);
    const T* gate = gate_up.row(row);
    const T* up = gate + hidden;
    T* target = out.row(row);
    group.for_each(hidden, [&](index_t i) {
      target[i] = T(math::swiglu(static_cast<Master>(gate[i]), static_cast<Master>(up[i])));
    });
  }
};

template <class T, class Space>
struct swiglu_backward_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> d_gate_up;      // (R, 2F)
  view<const T, 2, Space> d_out;    // (R, F)
  view<const T, 2, Space> gate_up;  // (R, 2F)
  const std::int32_t* row_count;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    if (row_count != nullptr && row >= *row_count) return;
    const index_t hidden = d_out.extent(1);
    const T* gate = gate_up.row(row);
    const T* up = gate + hidden;
    const T* upstream = d_out.row(row);
    T* d_gate = d_gate_up.row(row);
    T* d_up = d_gate + hidden;
    group.for_each(hidden, [&](index_t i) {
      const auto gradient = math::swiglu_gradient(static_cast<Master>(gate[i]), static_cast<Master>(up[i]),
                                                  static_cast<Master>(upstream[i]));
      d_gate[i] = T(gradient.gate);
      d_up[i] = T(gradient.up);
    });
  }
};

}  // namespace detail

// out = silu(gate) * up with [gate, up] = gate_up.
// Shapes: out (R, F), gate_up (R, 2F). Rows at or beyond *row_count are not touched (row_count in the memory of the
// context, null for all rows): a mixture knows on the device how many rows are in use.
template <class Context, class T>
void swiglu_forward(Context& context, matrix_of<Context, T> out, const_matrix_of<Context, T> gate_up,
                    const std::int32_t* row_count = nullptr) {
  launch_rows(context, out.extent(0), out.extent(1),
              detail::swiglu_row<T, typename Context::space>{out, gate_up, row_count});
}

//   d_gate = d_out up s (1 + gate (1 - s)),   d_up = d_out gate s,   s = sigmoid(gate). d_gate_up may be gate_up.
template <class Context, class T>
void swiglu_backward(Context& context, matrix_of<Context, T> d_gate_up, const_matrix_of<Context, T> d_out,
                     const_matrix_of<Context, T> gate_up, const std::int32_t* row_count = nullptr) {
  launch_rows(context, d_out.extent(0), d_out.extent(1),
              detail::swiglu_backward_row<T, typename Context::space>{d_gate_up, d_out, gate_up, row_count});
}

}  // namespace graft
