// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention on CUDA in bf16: which method computes it, and our own kernels' launches. ops/attention.hpp calls what
// stands here before it turns to the row algorithms.

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <graft/backend/arena.hpp>
#include <graft/backend/cuda/attention_backward.cuh>
#include <graft/backend/cuda/attention_forward.cuh>
#include <graft/backend/cuda/context.cuh>
#include <graft/core/attention_shape.hpp>
#ifdef GRAFT_HAS_CUDNN
#include <graft/backend/cuda/cudnn_attention.cuh>
#endif

namespace graft {

// What computes attention in bf16.
//   own        the tensor-core kernels of this folder; what they do not take goes to the row algorithms
//   cudnn      cuDNN's attention; an error where graft is built without it, or it has no deterministic plan
//   automatic  cuDNN's where there is a plan for the shape, else own
//   rows       the row algorithms of ops/, as for the other element types
// The default is own: no GPU has run cuDNN's path yet, and until one has, nobody gets it unasked.
enum class attention_method { own, cudnn, automatic, rows };

namespace detail {

struct attention_choice {
  explicit attention_choice(context<cuda>&) {}
  attention_method method = attention_method::own;
};

// What the kernels, which move 16 bytes at a time and count a pitch in 32 bits, ask of a matrix.
template <class T>
bool in_vectors(const matrix_view<T, device_space>& m) {
  return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.strides[0] % (16 / index_t{sizeof(T)}) == 0 &&
         m.strides[0] <= std::numeric_limits<std::int32_t>::max();
}

// f(std::integral_constant<int, head_dim>), if the kernels are made for this head_dim.
template <class F>
bool with_head_dim(index_t head_dim, const F& f) {
  const auto is = [&]<int HeadDim>(std::integral_constant<int, HeadDim> made_for) {
    if (head_dim != HeadDim) return false;
    f(made_for);
    return true;
  };
  using std::integral_constant;
  return is(integral_constant<int, 32>{}) || is(integral_constant<int, 48>{}) || is(integral_constant<int, 64>{}) ||
         is(integral_constant<int, 96>{}) || is(integral_constant<int, 128>{});
}

// Positions, pairs of sequence and head, and blocks are counted in 32 bits.
inline bool attention_counts_fit(const attention_shape& shape) {
  constexpr index_t limit = std::numeric_limits<std::int32_t>::max() / attention_padding;
  return shape.positions < limit && shape.sequences * shape.heads < limit &&
         attention_padded(shape.positions) / attention_padding * shape.sequences * shape.heads < limit;
}

inline attention_scale scale_of(const attention_shape& shape) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  return {static_cast<float>(scale), static_cast<float>(scale / std::log(2.0))};
}

// Blocks that take `positions` of every head of every sequence, `each` at a time.
inline unsigned attention_grid(const attention_shape& shape, index_t heads, index_t each) {
  return static_cast<unsigned>((shape.positions + each - 1) / each * heads * shape.sequences);
}

// Templates, as what follows, so that only who uses them compiles the kernels: T is bfloat16.
template <class T>
bool own_attention_forward(context<cuda>& ctx, const matrix_view<T, device_space>& out,
                           const matrix_view<float, device_space>& log_sum_exp,
                           const matrix_view<const T, device_space>& qkv, const attention_shape& shape) {
  if (!in_vectors(out) || !in_vectors(qkv) || !attention_counts_fit(shape)) return false;
  return with_head_dim(shape.head_dim, [&]<int HeadDim>(std::integral_constant<int, HeadDim>) {
    using plan = attention_forward_plan<HeadDim>;
    if (shape.sequences == 0) return;
    launch(ctx, "attention forward", attention_forward_kernel<HeadDim>,
           attention_grid(shape, shape.heads, plan::queries), attention_threads, plan::shared_bytes, out, log_sum_exp,
           qkv, shape, scale_of(shape));
  });
}

template <class T>
bool own_attention_backward(context<cuda>& ctx, const matrix_view<T, device_space>& d_qkv,
                            const matrix_view<const T, device_space>& d_out,
                            const matrix_view<const T, device_space>& out,
                            const matrix_view<const float, device_space>& log_sum_exp,
                            const matrix_view<const T, device_space>& qkv, const attention_shape& shape) {
  if (!in_vectors(d_qkv) || !in_vectors(d_out) || !in_vectors(out) || !in_vectors(qkv) || !attention_counts_fit(shape))
    return false;
  return with_head_dim(shape.head_dim, [&]<int HeadDim>(std::integral_constant<int, HeadDim>) {
    if (shape.sequences == 0) return;
    workspace_scope scope(ctx);
    using keys = attention_key_plan<HeadDim>;
    using queries = attention_query_plan<HeadDim>;
    const index_t rows = shape.sequences * shape.heads * attention_padded(shape.positions);
    attention_statistic* const statistics = ctx.allocate<attention_statistic>(rows).data;
    launch(ctx, "attention statistics", attention_statistics_kernel<HeadDim>,
           static_cast<unsigned>((4 * rows + attention_threads - 1) / attention_threads), attention_threads, 0,
           statistics, d_out, out, log_sum_exp, shape);
    launch(ctx, "attention backward, keys and values", attention_d_key_value_kernel<HeadDim>,
           attention_grid(shape, shape.kv_heads, keys::keys), attention_threads, keys::shared_bytes, d_qkv, d_out, qkv,
           statistics, shape, scale_of(shape));
    launch(ctx, "attention backward, queries", attention_d_query_kernel<HeadDim>,
           attention_grid(shape, shape.heads, queries::queries), attention_threads, queries::shared_bytes, d_qkv, d_out,
           qkv, statistics, shape, scale_of(shape));
  });
}

// Whether cuDNN did it. Throws where it was asked for by name and cannot.
template <class F>
bool attention_by_cudnn(context<cuda>& ctx, const attention_shape& shape, const F& f) {
  const attention_method method = ctx.attached<attention_choice>().method;
  if (method != attention_method::cudnn && method != attention_method::automatic) return false;
#ifdef GRAFT_HAS_CUDNN
  const bool done = f(ctx.attached<cudnn_attention>());
  constexpr const char* reason = "cuDNN has no deterministic plan for it";
#else
  (void)f;
  constexpr bool done = false;
  constexpr const char* reason = "graft is built without cuDNN";
#endif
  GRAFT_CHECK(done || method != attention_method::cudnn,
              "attention: expected cuDNN to compute positions=", shape.positions, ", heads=", shape.heads,
              ", kv_heads=", shape.kv_heads, ", head_dim=", shape.head_dim, ", got none: ", reason,
              "; choose attention_method::automatic or own");
  return done;
}

}  // namespace detail

// Sets what computes attention in bf16 on this context from now on.
inline void choose_attention(context<cuda>& ctx, attention_method method) {
  ctx.attached<detail::attention_choice>().method = method;
}

// ops/attention.hpp's forward pass on the tensor cores. False where it is left to the row algorithms: head_dim other
// than 32, 48, 64, 96, 128; rows or pitches that are no multiples of 16 bytes; attention_method::rows.
// Order: keys ascending, 64 (head_dim 128: 32) at a time; same bits every time. Weights are rounded to bf16 before they
// meet the values, their sum is of the unrounded ones.
template <std::same_as<bfloat16> T>
bool attention_forward_tiles(context<cuda>& ctx, const matrix_view<T, device_space>& out,
                             const matrix_view<float, device_space>& log_sum_exp,
                             const std::type_identity_t<matrix_view<const T, device_space>>& qkv,
                             const attention_shape& shape) {
  if (ctx.attached<detail::attention_choice>().method == attention_method::rows) return false;
  if (detail::attention_by_cudnn(ctx, shape, [&](auto& by) { return by.forward(ctx, out, log_sum_exp, qkv, shape); }))
    return true;
  return detail::own_attention_forward<T>(ctx, out, log_sum_exp, qkv, shape);
}

// The backward pass likewise. Order: heads of a group ascending, then tokens ascending. Cost: 3.5 times the forward
// pass; 8 bytes of workspace for each token and head.
template <std::same_as<bfloat16> T>
bool attention_backward_tiles(context<cuda>& ctx, const matrix_view<T, device_space>& d_qkv,
                              const std::type_identity_t<matrix_view<const T, device_space>>& d_out,
                              const std::type_identity_t<matrix_view<const T, device_space>>& out,
                              const matrix_view<const float, device_space>& log_sum_exp,
                              const std::type_identity_t<matrix_view<const T, device_space>>& qkv,
                              const attention_shape& shape) {
  if (ctx.attached<detail::attention_choice>().method == attention_method::rows) return false;
  if (detail::attention_by_cudnn(
          ctx, shape, [&](auto& by) { return by.backward(ctx, d_qkv, d_out, out, log_sum_exp, qkv, shape); }))
    return true;
  return detail::own_attention_backward<T>(ctx, d_qkv, d_out, out, log_sum_exp, qkv, shape);
}

}  // namespace graft
