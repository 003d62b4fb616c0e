// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// RMSNorm per head on queries and keys before the rotary embedding (QK-norm as in Qwen3): one weight of head_dim
// elements for all query heads, one for all key heads. Values pass through.
// Source: Henry et al., "Query-key normalization for transformers", 2020, arXiv 2010.04245.

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/math.hpp>
#include <graft/ops/operands.hpp>
#include <graft/ops/rms_norm.hpp>

namespace graft {
namespace detail {

template <class T, class Space>
struct head_norm_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> out;                       // (T, (H+2G) d)
  view<Master, 2, Space> inverse_rms;          // (T, H+G)
  view<const T, 2, Space> raw;                 // (T, (H+2G) d)
  view<const T, 1, Space> q_weight, k_weight;  // (d)
  index_t heads;
  double eps;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t head_dim = q_weight.extent(0), normed = inverse_rms.extent(1);
    for (index_t head = 0; head < normed; ++head) {
      const T* source = raw.row(row) + head * head_dim;
      T* target = out.row(row) + head * head_dim;
      const T* weight = head < heads ? q_weight.data : k_weight.data;
      const Master square = group.sum(
          head_dim, [&](index_t i) { return static_cast<Master>(source[i]) * static_cast<Master>(source[i]); });
      const Master scale = Master(1) / math::sqrt(square / static_cast<Master>(head_dim) + static_cast<Master>(eps));
      group.for_each(head_dim, [&](index_t i) {
        target[i] = T(static_cast<Master>(source[i]) * scale * static_cast<Master>(weight[i]));
      });
      group.single([&] { inverse_rms(row, head) = scale; });
    }
    const index_t values = normed * head_dim;
    group.for_each(out.extent(1) - values, [&](index_t i) { out.row(row)[values + i] = raw.row(row)[values + i]; });
  }
};

template <class T, class Space>
struct head_norm_backward_chunk {
  using Master = accumulator_t<T>;
  view<T, 2, Space> d_qkv;         // (T, (H+2G) d), in and out
  view<Master, 2, Space> partial;  // (chunks, 2 d): queries, then keys
  view<const T, 2, Space> raw;
  view<const Master, 2, Space> inverse_rms;
  view<const T, 1, Space> q_weight, k_weight;
  index_t heads;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t chunk) const {
    const index_t head_dim = q_weight.extent(0), normed = inverse_rms.extent(1), rows = raw.extent(0);
    const index_t end = (chunk + 1) * norm_chunk < rows ? (chunk + 1) * norm_chunk : rows;
    Master* sums = partial.row(chunk);
    group.for_each(2 * head_dim, [&](index_t i) { sums[i] = 0; });
    group.sync();
    for (index_t row = chunk * norm_chunk; row < end; ++row) {
      for (index_t head = 0; head < normed; ++head) {
        const T* source = raw.row(row) + head * head_dim;
        T* gradient = d_qkv.row(row) + head * head_dim;
        const T* weight = head < heads ? q_weight.data : k_weight.data;
        Master* weight_sums = head < heads ? sums : sums + head_dim;
        const Master scale = inverse_rms(row, head);
        const Master dot = group.sum(head_dim, [&](index_t i) {
          return static_cast<Master>(gradient[i]) * static_cast<Master>(weight[i]) * static_cast<Master>(source[i]);
        });
        const Master shrink = dot * scale * scale / static_cast<Master>(head_dim);
        group.for_each(head_dim, [&](index_t i) {
          const Master upstream = static_cast<Master>(gradient[i]);
          weight_sums[i] += upstream * static_cast<Master>(source[i]) * scale;
          gradient[i] =
              T(scale * (upstream * static_cast<Master>(weight[i]) - static_cast<Master>(source[i]) * shrink));
        });
        group.sync();
      }
    }
  }
};

}  // namespace detail

// out = raw with every query and key head normalised and scaled.
// Shapes: out, raw (T, (H+2G) d), inverse_rms (T, H+G), weights (d).
template <class Context, class T>
void head_norm_forward(Context& context, matrix_of<Context, T> out, matrix_of<Context, accumulator_t<T>> inverse_rms,
                       const_matrix_of<Context, T> raw, const_vector_of<Context, T> q_weight,
                       const_vector_of<Context, T> k_weight, index_t heads, double eps) {
  launch_rows(context, out.extent(0), out.extent(1),
              detail::head_norm_row<T, typename Context::space>{out, inverse_rms, raw, q_weight, k_weight, heads, eps});
}

// d_qkv, the gradient to the normalised heads, becomes the gradient to the raw ones; the weights' gradients are added
// where they are present.
template <class Context, class T>
void head_norm_backward(Context& context, matrix_of<Context, T> d_qkv, vector_of<Context, accumulator_t<T>> d_q_weight,
                        vector_of<Context, accumulator_t<T>> d_k_weight, const_matrix_of<Context, T> raw,
                        const_matrix_of<Context, accumulator_t<T>> inverse_rms, const_vector_of<Context, T> q_weight,
                        const_vector_of<Context, T> k_weight, index_t heads) {
  using Master = accumulator_t<T>;
  using space = typename Context::space;
  workspace_scope scope(context);
  const index_t head_dim = q_weight.extent(0);
  const index_t chunks = (raw.extent(0) + detail::norm_chunk - 1) / detail::norm_chunk;
  auto partial = context.template allocate<Master>(chunks, 2 * head_dim);
  launch_rows(context, chunks, detail::norm_chunk * raw.extent(1),
              detail::head_norm_backward_chunk<T, space>{d_qkv, partial, raw, inverse_rms, q_weight, k_weight, heads});
  if (d_q_weight.data != nullptr) add_column_sums<Context, Master>(context, d_q_weight, partial.columns(0, head_dim));
  if (d_k_weight.data != nullptr)
    add_column_sums<Context, Master>(context, d_k_weight, partial.columns(head_dim, 2 * head_dim));
}

}  // namespace graft
