// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How the result of an expert that every token uses joins that of the experts that were chosen.

#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/math.hpp>
#include <graft/ops/operands.hpp>

namespace graft {

namespace detail {

template <class T, class Space>
struct blend_shared_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> out;                // (T, D)
  view<const T, 2, Space> shared;       // (T, D)
  view<const Master, 2, Space> logits;  // (T, 1) or absent
  Master routed_share, shared_share;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    const Master gate = logits.data != nullptr ? math::sigmoid(logits(token, 0)) : Master(1);
    const Master share = shared_share * gate;
    const T* source = shared.row(token);
    T* target = out.row(token);
    group.for_each(out.extent(1), [&](index_t i) {
      target[i] = T(routed_share * static_cast<Master>(target[i]) + share * static_cast<Master>(source[i]));
    });
  }
};

template <class T, class Space>
struct blend_shared_backward_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> d_routed;           // (T, D) or absent
  view<T, 2, Space> d_shared;           // (T, D)
  view<Master, 2, Space> d_logits;      // (T, 1) or absent
  view<const T, 2, Space> d_out;        // (T, D)
  view<const T, 2, Space> shared;       // (T, D)
  view<const Master, 2, Space> logits;  // (T, 1) or absent
  Master routed_share, shared_share;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    const T* upstream = d_out.row(token);
    const T* output = shared.row(token);
    Master gate = Master(1);
    if (logits.data != nullptr) {
      gate = math::sigmoid(logits(token, 0));
      const Master dot = group.sum(d_out.extent(1), [&](index_t i) {
        return static_cast<Master>(upstream[i]) * static_cast<Master>(output[i]);
      });
      group.single([&] { d_logits(token, 0) = shared_share * dot * gate * (Master(1) - gate); });
    }
    const Master share = shared_share * gate;
    T* to_shared = d_shared.row(token);
    group.for_each(d_out.extent(1), [&](index_t i) { to_shared[i] = T(share * static_cast<Master>(upstream[i])); });
    if (d_routed.data == nullptr) return;
    T* to_routed = d_routed.row(token);
    group.for_each(d_out.extent(1),
                   [&](index_t i) { to_routed[i] = T(routed_share * static_cast<Master>(upstream[i])); });
  }
};

}  // namespace detail

// out[t] = routed_share out[t] + shared_share s_t shared[t],   s_t = sigmoid(logits[t]), 1 where logits are absent.
// Shapes: out, shared (T, D), logits (T, 1) or absent.
template <class Context, class T>
void blend_shared(Context& context, matrix_of<Context, T> out, const_matrix_of<Context, T> shared,
                  const_matrix_of<Context, accumulator_t<T>> logits, double routed_share, double shared_share) {
  using Master = accumulator_t<T>;
  launch_rows(context, out.extent(0), out.extent(1),
              detail::blend_shared_row<T, typename Context::space>{
                  out, shared, logits, static_cast<Master>(routed_share), static_cast<Master>(shared_share)});
}

//   d_routed = routed_share d_out,   d_shared = shared_share s d_out,
//   d_logits = shared_share <d_out, shared> s (1 - s)
// d_routed may be absent, for a share of 1; d_logits is read where logits are. d_shared may be shared.
template <class Context, class T>
void blend_shared_backward(Context& context, matrix_of<Context, T> d_routed, matrix_of<Context, T> d_shared,
                           matrix_of<Context, accumulator_t<T>> d_logits, const_matrix_of<Context, T> d_out,
                           const_matrix_of<Context, T> shared, const_matrix_of<Context, accumulator_t<T>> logits,
                           double routed_share, double shared_share) {
  using Master = accumulator_t<T>;
  launch_rows(context, d_out.extent(0), d_out.extent(1),
              detail::blend_shared_backward_row<T, typename Context::space>{d_routed, d_shared, d_logits, d_out, shared,
                                                                            logits, static_cast<Master>(routed_share),
                                                                            static_cast<Master>(shared_share)});
}

}  // namespace graft
