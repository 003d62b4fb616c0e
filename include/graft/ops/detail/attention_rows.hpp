// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Causal grouped-query attention as row algorithms: any backend, any storage type. Sums of vectors live in memory
// (attention_out_rows::sums and so on), since a group has no scratch; what is kept is linear in the sequence length.

#include <limits>
#include <type_traits>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/attention_shape.hpp>
#include <graft/core/dtype.hpp>
#include <graft/core/math.hpp>
#include <graft/core/view.hpp>

namespace graft::detail {

// <a, b> over one head
template <class M, class G, class A, class B>
GRAFT_HOST_DEVICE M head_product(G& group, index_t head_dim, const A* a, const B* b) {
  return group.sum(head_dim, [=](index_t c) { return static_cast<M>(a[c]) * static_cast<M>(b[c]); });
}

// One row per (token, head), softmax kept up to date key by key:
//   m' = max(m, s_j)   l' = l e^(m-m') + e^(s_j-m')   o' = o e^(m-m') + e^(s_j-m') v_j    then o / l and m + log l
template <class T, class Space>
struct attention_out_rows {
  using M = accumulator_t<T>;
  matrix_view<T, Space> out;          // (T, H*d)
  matrix_view<M, Space> log_sum_exp;  // (T, H)
  matrix_view<const T, Space> qkv;    // (T, (H+2G)*d)
  matrix_view<M, Space> sums;         // (T, H*d)
  attention_shape shape;

  template <class G>
  GRAFT_HOST_DEVICE void operator()(G& group, index_t row) const {
    const index_t token = row / shape.heads, head = row % shape.heads, d = shape.head_dim;
    const index_t kv_head = head / shape.group(), first = token - token % shape.positions;
    const T* query = qkv.row(token) + shape.query(head);
    M* sum = sums.row(token) + head * d;
    const M scale = M(1) / math::sqrt(static_cast<M>(d));

    M maximum = -std::numeric_limits<M>::infinity(), total = 0;
    group.for_each(d, [=](index_t c) { sum[c] = M(0); });
    for (index_t key = first; key <= token; ++key) {
      const M score = scale * head_product<M>(group, d, query, qkv.row(key) + shape.key(kv_head));
      const M larger = score > maximum ? score : maximum;
      const M shrink = math::exp(maximum - larger), weight = math::exp(score - larger);
      const T* value = qkv.row(key) + shape.value(kv_head);
      group.sync();
      group.for_each(d, [=](index_t c) { sum[c] = sum[c] * shrink + weight * static_cast<M>(value[c]); });
      total = total * shrink + weight;
      maximum = larger;
    }
    T* result = out.row(token) + head * d;
    group.sync();
    group.for_each(d, [=](index_t c) { result[c] = static_cast<T>(sum[c] / total); });
    M& log_sum = log_sum_exp(token, head);
    group.single([&log_sum, maximum, total] { log_sum = maximum + math::log(total); });
  }
};

// One row per (token, head): delta = <dO, O>, which is the sum over keys of P dP.
template <class T, class Space>
struct attention_delta_rows {
  using M = accumulator_t<T>;
  matrix_view<M, Space> delta;        // (T, H)
  matrix_view<const T, Space> d_out;  // (T, H*d)
  matrix_view<const T, Space> out;    // (T, H*d)
  attention_shape shape;

  template <class G>
  GRAFT_HOST_DEVICE void operator()(G& group, index_t row) const {
    const index_t token = row / shape.heads, head = row % shape.heads, d = shape.head_dim;
    const M value = head_product<M>(group, d, d_out.row(token) + head * d, out.row(token) + head * d);
    M& target = delta(token, head);
    group.single([&target, value] { target = value; });
  }
};

// What both gradients read, and the weights they share.
template <class T, class Space>
struct attention_gradient_inputs {
  using M = accumulator_t<T>;
  matrix_view<const T, Space> d_out;        // (T, H*d)
  matrix_view<const M, Space> log_sum_exp;  // (T, H)
  matrix_view<const M, Space> delta;        // (T, H)
  matrix_view<const T, Space> qkv;          // (T, (H+2G)*d)
  attention_shape shape;

  struct weights {
    M p;   // e^(s - lse)
    M ds;  // p (<dO, v> - delta) / sqrt(d): the gradient to the product of query and key
  };

  template <class G>
  GRAFT_HOST_DEVICE weights at(G& group, index_t query_token, index_t head, index_t key_token) const {
    const index_t d = shape.head_dim, kv_head = head / shape.group();
    const M scale = M(1) / math::sqrt(static_cast<M>(d));
    const M score = scale * head_product<M>(group, d, qkv.row(query_token) + shape.query(head),
                                            qkv.row(key_token) + shape.key(kv_head));
    const M dp =
        head_product<M>(group, d, d_out.row(query_token) + head * d, qkv.row(key_token) + shape.value(kv_head));
    const M p = math::exp(score - log_sum_exp(query_token, head));
    return {p, p * (dp - delta(query_token, head)) * scale};
  }
};

// One row per (token, head): dq_t = sum over keys j <= t of ds_tj k_j.
template <class T, class Space>
struct attention_d_query_rows {
  using M = accumulator_t<T>;
  matrix_view<T, Space> d_qkv;  // (T, (H+2G)*d)
  matrix_view<M, Space> sums;   // (T, (H+2G)*d)
  attention_gradient_inputs<T, Space> in;

  template <class G>
  GRAFT_HOST_DEVICE void operator()(G& group, index_t row) const {
    const attention_shape& shape = in.shape;
    const index_t token = row / shape.heads, head = row % shape.heads, d = shape.head_dim;
    const index_t kv_head = head / shape.group(), first = token - token % shape.positions;
    M* sum = sums.row(token) + shape.query(head);
    group.for_each(d, [=](index_t c) { sum[c] = M(0); });
    for (index_t key = first; key <= token; ++key) {
      const M ds = in.at(group, token, head, key).ds;
      const T* k = in.qkv.row(key) + shape.key(kv_head);
      group.sync();
      group.for_each(d, [=](index_t c) { sum[c] += ds * static_cast<M>(k[c]); });
    }
    T* result = d_qkv.row(token) + shape.query(head);
    group.sync();
    group.for_each(d, [=](index_t c) { result[c] = static_cast<T>(sum[c]); });
  }
};

// One row per (token, kv head): dk_s = sum of ds_ts q_t and dv_s = sum of p_ts dO_t, over the heads of the group and
// their tokens t >= s, in this order.
template <class T, class Space>
struct attention_d_key_value_rows {
  using M = accumulator_t<T>;
  matrix_view<T, Space> d_qkv;  // (T, (H+2G)*d)
  matrix_view<M, Space> sums;   // (T, (H+2G)*d)
  attention_gradient_inputs<T, Space> in;

  template <class G>
  GRAFT_HOST_DEVICE void operator()(G& group, index_t row) const {
    const attention_shape& shape = in.shape;
    const index_t key = row / shape.kv_heads, kv_head = row % shape.kv_heads, d = shape.head_dim;
    const index_t last = key - key % shape.positions + shape.positions;
    M* dk = sums.row(key) + shape.key(kv_head);
    M* dv = sums.row(key) + shape.value(kv_head);
    group.for_each(d, [=](index_t c) { dk[c] = dv[c] = M(0); });
    for (index_t head = kv_head * shape.group(); head < (kv_head + 1) * shape.group(); ++head)
      for (index_t token = key; token < last; ++token) {
        const auto w = in.at(group, token, head, key);
        const T* query = in.qkv.row(token) + shape.query(head);
        const T* gradient = in.d_out.row(token) + head * d;
        group.sync();
        group.for_each(d, [=](index_t c) {
          dk[c] += w.ds * static_cast<M>(query[c]);
          dv[c] += w.p * static_cast<M>(gradient[c]);
        });
      }
    T* k_result = d_qkv.row(key) + shape.key(kv_head);
    T* v_result = d_qkv.row(key) + shape.value(kv_head);
    group.sync();
    group.for_each(d, [=](index_t c) {
      k_result[c] = static_cast<T>(dk[c]);
      v_result[c] = static_cast<T>(dv[c]);
    });
  }
};

// Where sums for `result` are kept: in it where the type allows, else in workspace.
template <class Ctx, class T, class Space>
auto attention_sums(Ctx& ctx, matrix_view<T, Space> result) {
  using M = accumulator_t<T>;
  if constexpr (std::is_same_v<T, M>)
    return result;
  else
    return ctx.template allocate<M>(result.extent(0), result.extent(1));
}

template <class Ctx, class T, class Space>
void attention_forward_rows(Ctx& ctx, matrix_view<T, Space> out, matrix_view<accumulator_t<T>, Space> log_sum_exp,
                            matrix_view<const T, Space> qkv, const attention_shape& shape) {
  workspace_scope<Ctx> scope(ctx);
  const auto sums = attention_sums(ctx, out);
  launch_rows(ctx, shape.tokens() * shape.heads, shape.head_dim,
              attention_out_rows<T, Space>{out, log_sum_exp, qkv, sums, shape});
}

template <class Ctx, class T, class Space>
void attention_backward_rows(Ctx& ctx, matrix_view<T, Space> d_qkv, matrix_view<const T, Space> d_out,
                             matrix_view<const T, Space> out, matrix_view<const accumulator_t<T>, Space> log_sum_exp,
                             matrix_view<const T, Space> qkv, const attention_shape& shape) {
  workspace_scope<Ctx> scope(ctx);
  const auto delta = ctx.template allocate<accumulator_t<T>>(shape.tokens(), shape.heads);
  const auto sums = attention_sums(ctx, d_qkv);
  const attention_gradient_inputs<T, Space> in{d_out, log_sum_exp, delta, qkv, shape};
  launch_rows(ctx, shape.tokens() * shape.heads, shape.head_dim,
              attention_delta_rows<T, Space>{delta, d_out, out, shape});
  launch_rows(ctx, shape.tokens() * shape.heads, shape.head_dim, attention_d_query_rows<T, Space>{d_qkv, sums, in});
  launch_rows(ctx, shape.tokens() * shape.kv_heads, shape.head_dim,
              attention_d_key_value_rows<T, Space>{d_qkv, sums, in});
}

}  // namespace graft::detail
