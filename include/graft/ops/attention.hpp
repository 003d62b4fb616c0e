// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Causal grouped-query attention, forward and backward, with memory linear in the sequence length.

#include <concepts>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/core/attention_shape.hpp>
#include <graft/core/dtype.hpp>
#include <graft/core/error.hpp>
#include <graft/core/view.hpp>
#include <graft/ops/detail/attention_blocks.hpp>
#include <graft/ops/detail/attention_rows.hpp>

namespace graft {
namespace detail {

inline void check_attention_shape(const attention_shape& shape) {
  GRAFT_CHECK(
      shape.sequences >= 0 && shape.positions >= 1 && shape.heads >= 1 && shape.kv_heads >= 1 && shape.head_dim >= 1,
      "attention: expected positive sizes, got sequences=", shape.sequences, ", positions=", shape.positions,
      ", heads=", shape.heads, ", kv_heads=", shape.kv_heads, ", head_dim=", shape.head_dim);
  GRAFT_CHECK(shape.heads % shape.kv_heads == 0,
              "attention: expected heads to be a multiple of kv_heads, got heads=", shape.heads,
              ", kv_heads=", shape.kv_heads);
}

template <class T, class Space>
void check_attention_matrix(const char* name, const matrix_view<T, Space>& m, index_t rows, index_t columns) {
  GRAFT_CHECK(m.extent(0) == rows && m.extent(1) == columns, "attention: expected ", name, " of ", rows, " x ", columns,
              ", got ", m.extent(0), " x ", m.extent(1));
  GRAFT_CHECK(columns == 1 || m.strides[1] == 1, "attention: expected ", name, " with unit column stride, got ",
              m.strides[1]);
}

// The CPU has a blocked version for fp32 arithmetic, CUDA kernels for bf16 (backend/cuda/attention.cuh) that leave some
// shapes out; everything else runs the row algorithms.
template <class Ctx, class T>
inline constexpr bool attention_in_blocks =
    std::same_as<typename Ctx::backend, cpu>&& std::same_as<accumulator_t<T>, float>;
template <class Ctx, class T>
inline constexpr bool attention_in_tiles = std::same_as<typename Ctx::backend, cuda>&& std::same_as<T, bfloat16>;

}  // namespace detail

// For each token t and head h, over the keys j <= t of its sequence:
//   s_j = <q_t, k_j> / sqrt(d)    p = softmax(s)    out_t = sum p_j v_j    log_sum_exp_t = log sum e^(s_j)
// Shapes: out (T, H*d); log_sum_exp (T, H), which the backward pass reads; qkv (T, (H+2G)*d): query heads, key heads,
// value heads. Requires: unit column strides; out does not overlap qkv.
// Order: softmax and sums in accumulator_t<T>, keys in ascending order; same bits for any number of threads. On CUDA in
//   bf16 weights are rounded before they meet the values. A later token never changes an earlier output, unless it is
//   not finite.
// Cost: 2 S^2 d H B floating-point operations (half of the square is masked and skipped); on the CPU a thread keeps
//   about 2 S d floats.
// Source: Milakov, Gimelshein 2018, arXiv 1805.02867 (online softmax); Dao 2023, arXiv 2307.08691.
template <Context Ctx, class T, class Space>
void attention_forward(Ctx& ctx, matrix_view<T, Space> out,
                       std::type_identity_t<matrix_view<accumulator_t<T>, Space>> log_sum_exp,
                       std::type_identity_t<matrix_view<const T, Space>> qkv, const attention_shape& shape) {
  detail::check_attention_shape(shape);
  detail::check_attention_matrix("out", out, shape.tokens(), shape.out_width());
  detail::check_attention_matrix("log_sum_exp", log_sum_exp, shape.tokens(), shape.heads);
  detail::check_attention_matrix("qkv", qkv, shape.tokens(), shape.qkv_width());
  if constexpr (detail::attention_in_blocks<Ctx, T>) {
    detail::attention_forward_blocks(ctx, out, log_sum_exp, qkv, shape);
  } else {
    if constexpr (detail::attention_in_tiles<Ctx, T>)
      if (attention_forward_tiles(ctx, out, log_sum_exp, qkv, shape)) return;
    detail::attention_forward_rows(ctx, out, log_sum_exp, qkv, shape);
  }
}

// The gradient to qkv, all of it written, from the forward pass's results and d_out:
//   dp_j = <dO_t, v_j>   delta_t = <dO_t, O_t>   ds_j = p_j (dp_j - delta_t) / sqrt(d)
//   dq_t = sum ds_j k_j     dk_j = sum over the group's heads and t of ds_j q_t     dv_j = sum over the same of p_j
//   dO_t
// Shapes: d_qkv and qkv (T, (H+2G)*d); d_out and out (T, H*d); log_sum_exp (T, H).
// Requires: unit column strides; d_qkv does not overlap the others.
// Order: sums in accumulator_t<T>; heads ascending, then tokens ascending; same bits for any number of threads. On CUDA
//   in bf16 p and ds are rounded before they meet the vectors.
// Cost: 2.5 times the forward pass, 3.5 times on CUDA in bf16; on the CPU a thread keeps about 5 S d floats.
// Source: Dao et al. 2022, arXiv 2205.14135, algorithm 4.
template <Context Ctx, class T, class Space>
void attention_backward(Ctx& ctx, matrix_view<T, Space> d_qkv, std::type_identity_t<matrix_view<const T, Space>> d_out,
                        std::type_identity_t<matrix_view<const T, Space>> out,
                        std::type_identity_t<matrix_view<const accumulator_t<T>, Space>> log_sum_exp,
                        std::type_identity_t<matrix_view<const T, Space>> qkv, const attention_shape& shape) {
  detail::check_attention_shape(shape);
  detail::check_attention_matrix("d_qkv", d_qkv, shape.tokens(), shape.qkv_width());
  detail::check_attention_matrix("d_out", d_out, shape.tokens(), shape.out_width());
  detail::check_attention_matrix("out", out, shape.tokens(), shape.out_width());
  detail::check_attention_matrix("log_sum_exp", log_sum_exp, shape.tokens(), shape.heads);
  detail::check_attention_matrix("qkv", qkv, shape.tokens(), shape.qkv_width());
  if constexpr (detail::attention_in_blocks<Ctx, T>) {
    detail::attention_backward_blocks(ctx, d_qkv, d_out, out, log_sum_exp, qkv, shape);
  } else {
    if constexpr (detail::attention_in_tiles<Ctx, T>)
      if (attention_backward_tiles(ctx, d_qkv, d_out, out, log_sum_exp, qkv, shape)) return;
    detail::attention_backward_rows(ctx, d_qkv, d_out, out, log_sum_exp, qkv, shape);
  }
}

}  // namespace graft
