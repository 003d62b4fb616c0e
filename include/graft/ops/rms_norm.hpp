// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Root mean square normalisation with the residual addition in front of it fused in: one pass over the residual
// stream instead of two.
// Source: Zhang and Sennrich, "Root mean square layer normalization", 2019, arXiv 1910.07467.

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/math.hpp>
#include <graft/ops/operands.hpp>

namespace graft {
namespace detail {

template <class T, class Space>
struct add_rms_norm_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> residual, out;     // (T, D)
  view<Master, 1, Space> inverse_rms;  // (T)
  view<const T, 2, Space> x, delta;    // (T, D); delta may be absent
  view<const T, 1, Space> weight;      // (D)
  double eps;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t width = x.extent(1);
    const T* source = x.row(row);
    T* stream = residual.row(row);
    if (delta.data != nullptr) {
      const T* added = delta.row(row);
      group.for_each(width,
                     [&](index_t i) { stream[i] = T(static_cast<Master>(source[i]) + static_cast<Master>(added[i])); });
    } else if (stream != source) {
      group.for_each(width, [&](index_t i) { stream[i] = source[i]; });
    }
    group.sync();
    const Master square =
        group.sum(width, [&](index_t i) { return static_cast<Master>(stream[i]) * static_cast<Master>(stream[i]); });
    const Master scale = Master(1) / math::sqrt(square / static_cast<Master>(width) + static_cast<Master>(eps));
    T* target = out.row(row);
    group.for_each(width, [&](index_t i) {
      target[i] = T(static_cast<Master>(stream[i]) * scale * static_cast<Master>(weight[i]));
    });
    group.single([&] { inverse_rms[row] = scale; });
  }
};

inline constexpr index_t norm_chunk = 64;

// A group owns a chunk of rows, so that the weight's gradient is a sum of few partial rows in a fixed order.
template <class T, class Space>
struct rms_norm_backward_chunk {
  using Master = accumulator_t<T>;
  view<T, 2, Space> d_residual;              // (T, D), in and out
  view<Master, 2, Space> partial;            // (chunks, D); absent when the weight is frozen
  view<const T, 2, Space> d_out, residual;   // (T, D)
  view<const Master, 1, Space> inverse_rms;  // (T)
  view<const T, 1, Space> weight;            // (D)
  bool add;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t chunk) const {
    const index_t width = residual.extent(1);
    const index_t rows = residual.extent(0);
    const index_t end = (chunk + 1) * norm_chunk < rows ? (chunk + 1) * norm_chunk : rows;
    Master* sums = partial.data != nullptr ? partial.row(chunk) : nullptr;
    if (sums != nullptr) group.for_each(width, [&](index_t i) { sums[i] = 0; });
    for (index_t row = chunk * norm_chunk; row < end; ++row) {
      const T* gradient = d_out.row(row);
      const T* stream = residual.row(row);
      const Master scale = inverse_rms[row];
      const Master dot = group.sum(width, [&](index_t i) {
        return static_cast<Master>(gradient[i]) * static_cast<Master>(weight[i]) * static_cast<Master>(stream[i]);
      });
      const Master shrink = dot * scale * scale / static_cast<Master>(width);
      T* target = d_residual.row(row);
      group.for_each(width, [&](index_t i) {
        const Master through = scale * (static_cast<Master>(gradient[i]) * static_cast<Master>(weight[i]) -
                                        static_cast<Master>(stream[i]) * shrink);
        target[i] = T((add ? static_cast<Master>(target[i]) : Master(0)) + through);
      });
      if (sums != nullptr)
        group.for_each(width, [&](index_t i) {
          sums[i] += static_cast<Master>(gradient[i]) * static_cast<Master>(stream[i]) * scale;
        });
    }
  }
};

template <class Master, class Space>
struct column_sum_element {
  view<Master, 1, Space> out;
  view<const Master, 2, Space> partial;
  GRAFT_HOST_DEVICE void operator()(index_t column) const {
    Master sum = 0;
    for (index_t row = 0; row < partial.extent(0); ++row) sum += partial(row, column);
    out[column] += sum;
  }
};

}  // namespace detail

// out[j] += sum over rows of partial[row][j], rows in order.
template <class Context, class Master>
void add_column_sums(Context& context, vector_of<Context, Master> out,
                     matrix_of<Context, std::type_identity_t<Master>> partial) {
  launch_elements(context, out.extent(0), detail::column_sum_element<Master, typename Context::space>{out, partial});
}

// residual = x + delta;  out = residual / sqrt(mean(residual^2) + eps) * weight.
// Shapes: residual, out, x, delta (T, D), inverse_rms (T), weight (D). An absent delta counts as zero; residual may be
// x. Cost: reads x and delta once, writes residual and out once. Statistics in fp32 or above.
template <class Context, class T>
void add_rms_norm_forward(Context& context, matrix_of<Context, T> residual, matrix_of<Context, T> out,
                          vector_of<Context, accumulator_t<T>> inverse_rms, const_matrix_of<Context, T> x,
                          const_matrix_of<Context, T> delta, const_vector_of<Context, T> weight, double eps) {
  launch_rows(context, out.extent(0), out.extent(1),
              detail::add_rms_norm_row<T, typename Context::space>{residual, out, inverse_rms, x, delta, weight, eps});
}

// d_residual (+)= gradient through the normalisation; d_weight += its gradient. With r = inverse_rms, g = d_out *
// weight:
//   dx = r (g - x r^2 mean(g x)),   dw = sum over rows of d_out x r.
// Shapes: as in the forward pass; d_weight (D) may be absent, then it is not computed.
// Order: rows in chunks of 64, chunks in order.
template <class Context, class T>
void rms_norm_backward(Context& context, matrix_of<Context, T> d_residual,
                       vector_of<Context, accumulator_t<T>> d_weight, const_matrix_of<Context, T> d_out,
                       const_matrix_of<Context, T> residual, const_vector_of<Context, accumulator_t<T>> inverse_rms,
                       const_vector_of<Context, T> weight, accumulate add) {
  using Master = accumulator_t<T>;
  using space = typename Context::space;
  workspace_scope scope(context);
  const index_t chunks = (residual.extent(0) + detail::norm_chunk - 1) / detail::norm_chunk;
  view<Master, 2, space> partial;
  if (d_weight.data != nullptr) partial = context.template allocate<Master>(chunks, residual.extent(1));
  launch_rows(context, chunks, detail::norm_chunk * residual.extent(1),
              detail::rms_norm_backward_chunk<T, space>{d_residual, partial, d_out, residual, inverse_rms, weight,
                                                        add == accumulate::yes});
  if (d_weight.data != nullptr) add_column_sums<Context, Master>(context, d_weight, partial);
}

}  // namespace graft
