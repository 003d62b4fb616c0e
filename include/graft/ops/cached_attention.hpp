// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention of new tokens against cached keys and values: what generation computes for each token.

#include <algorithm>
#include <cstdint>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/math.hpp>
#include <graft/ops/attention.hpp>
#include <graft/ops/detail/strip_sums.hpp>
#include <graft/ops/operands.hpp>

namespace graft {
namespace detail {

template <class T, class Space>
struct append_keys_values_row {
  view<T, 2, Space> keys_values;  // (limit, 2 G d)
  view<const T, 2, Space> qkv;    // (n, (H+2G) d)
  index_t first, keys;            // where keys begin in a row of qkv

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const T* source = qkv.row(row) + keys;
    T* target = keys_values.row(first + row);
    group.for_each(keys_values.extent(1), [=](index_t i) { target[i] = source[i]; });
  }
};

// Asks for the head at row[offset ...], which may lie past the end of the memory: heads of one row after another lie
// far apart, which processors do not foresee.
template <class T>
inline void prefetch_head(const T* row, index_t offset, index_t head_dim) {
  const auto head = reinterpret_cast<std::uintptr_t>(row) + static_cast<std::uintptr_t>(offset) * sizeof(T);
  for (std::uintptr_t byte = 0; byte < static_cast<std::uintptr_t>(head_dim) * sizeof(T); byte += 64)
    __builtin_prefetch(reinterpret_cast<const void*>(head + byte));
}

// Keys are taken in runs of this many, each a row of its own: one token keeps many threads busy, and the order of sums
// follows from the position alone, not from how many tokens come together.
inline constexpr index_t cached_run = 128;

// The runs of some queries. Row (query H + head) runs + run.
template <class T, class Space>
struct cached_runs {
  using M = accumulator_t<T>;
  view<M, 2, Space> sums;        // (rows, d) sum over the run of e^(s_j - m) v_j
  view<M, 2, Space> statistics;  // (rows, 2) m, the largest s_j of the run, and the sum of e^(s_j - m)
  index_t heads, runs, first;

  // Positions that a query attends to.
  GRAFT_HOST_DEVICE index_t seen(index_t query) const { return first + query + 1; }
};

template <class T, class Space>
struct cached_attention_run_row {
  using M = accumulator_t<T>;
  cached_runs<T, Space> to;
  view<M, 2, Space> weights;             // (rows, cached_run)
  view<const T, 2, Space> queries;       // (n, >= H d)
  view<const T, 2, Space> keys, values;  // (>= first + n, G d)
  index_t head_dim, group_size;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t run = row % to.runs, head = row / to.runs % to.heads, query = row / to.runs / to.heads;
    const index_t begin = run * cached_run, left = to.seen(query) - begin, d = head_dim;
    if (left <= 0) return;
    const index_t count = left < cached_run ? left : cached_run, kv = head / group_size * d;
    const T* q = queries.row(query) + head * d;
    M* weight = weights.row(row);
    const M scale = M(1) / math::sqrt(static_cast<M>(d));
#if defined(__CUDA_ARCH__)
    // Threads take a key each: no shuffles.
    group.for_each(count, [&](index_t j) {
      const T* k = keys.row(begin + j) + kv;
      M sum = 0;
      for (index_t c = 0; c < d; ++c) sum += static_cast<M>(q[c]) * static_cast<M>(k[c]);
      weight[j] = scale * sum;
    });
#else
    constexpr index_t ahead = 8;
    for (index_t j = 0; j < count; ++j) {
      prefetch_head(keys.row(begin + j), ahead * keys.strides[0] + kv, d);
      prefetch_head(values.row(begin + j), kv, d);  // read once the weights are known
      const M score = scale * head_product<M>(group, d, q, keys.row(begin + j) + kv);
      group.single([=] { weight[j] = score; });
    }
#endif
    group.sync();
    const M largest = group.max(count, [=](index_t j) { return weight[j]; });
    group.sync();
    group.for_each(count, [=](index_t j) { weight[j] = math::exp(weight[j] - largest); });
    group.sync();
    const M total = group.sum(count, [=](index_t j) { return weight[j]; });
    M* sum = to.sums.row(row);
    sum_weighted_rows<M>(
        group, d, count,
        [&](index_t j) {
          return weighted_row<T, M>{weight[j], values.row(begin + j) + kv};
        },
        [=](index_t c, M value) { sum[c] = value; });
    M* statistics = to.statistics.row(row);
    group.single([=] {
      statistics[0] = largest;
      statistics[1] = total;
    });
  }
};

// Row query H + head: m = max m_r,  out = sum_r e^(m_r - m) o_r / sum_r e^(m_r - m) l_r over its runs r.
template <class T, class Space>
struct cached_attention_combine_row {
  using M = accumulator_t<T>;
  view<T, 2, Space> out;  // (n, H d)
  cached_runs<T, Space> of;
  index_t head_dim;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t head = row % of.heads, query = row / of.heads;
    const index_t count = (of.seen(query) + cached_run - 1) / cached_run, base = row * of.runs;
    const auto statistics = of.statistics.rows(base, base + count);
    const M largest = group.max(count, [&](index_t r) { return statistics(r, 0); });
    const M total =
        group.sum(count, [&](index_t r) { return math::exp(statistics(r, 0) - largest) * statistics(r, 1); });
    T* result = out.row(query) + head * head_dim;
    sum_weighted_rows<M>(
        group, head_dim, count,
        [&](index_t r) {
          return weighted_row<M, M>{math::exp(statistics(r, 0) - largest), of.sums.row(base + r)};
        },
        [=](index_t c, M value) { result[c] = static_cast<T>(value / total); });
  }
};

template <class T, class Space>
void check_cached_attention(const char* where, const matrix_view<T, Space>& keys_values, const attention_shape& shape,
                            index_t first) {
  check_attention_shape(shape);
  GRAFT_CHECK(shape.sequences == 1, where, ": expected tokens of one sequence, got sequences=", shape.sequences);
  GRAFT_CHECK(first >= 0 && first + shape.positions <= keys_values.extent(0), where, ": expected positions up to ",
              keys_values.extent(0), ", got ", shape.positions, " tokens from position ", first);
  check_attention_matrix("keys_values", keys_values, keys_values.extent(0), 2 * shape.kv_heads * shape.head_dim);
}

}  // namespace detail

// keys_values[first + t] = the keys and values in row t of qkv, for the n = shape.positions new tokens.
// Shapes: keys_values (>= first + n, 2 G d), qkv (n, (H+2G) d). Requires: shape.sequences is 1; unit column strides.
template <class Context, class T>
void append_keys_values(Context& context, matrix_of<Context, T> keys_values, const_matrix_of<Context, T> qkv,
                        const attention_shape& shape, index_t first) {
  detail::check_cached_attention("append_keys_values", keys_values, shape, first);
  detail::check_attention_matrix("qkv", qkv, shape.positions, shape.qkv_width());
  launch_rows(
      context, shape.positions, keys_values.extent(1),
      detail::append_keys_values_row<T, typename Context::space>{keys_values, qkv, first, shape.key(index_t{0})});
}

// For each new token t, at position first + t, and head h, over the positions j <= first + t:
//   s_j = <q_t, k_j> / sqrt(d)    p = softmax(s)    out_t = sum p_j v_j
// which is ops/attention.hpp's equation for the last n rows of a sequence.
// Shapes: out (n, H d), n = shape.positions; queries (n, >= H d), such as the rows of qkv; keys_values (>= first + n,
// 2 G d), where the new tokens' own are already. Requires: shape.sequences is 1; unit column strides; out overlaps
// nothing.
// Order: softmax and sums in accumulator_t<T>; keys in runs of 128, each with the softmax of its own, runs ascending.
//   The bits of a token's output do not depend on n, nor on the number of threads.
// Cost: 4 n S d H floating-point operations, S = first + n: a token costs as much as reading its keys and values.
//   Memory: d + 130 numbers for each run of at most 4096 at a time, or of one token.
// Source: Milakov, Gimelshein 2018, arXiv 1805.02867 (softmax in parts); Dao et al., "Flash-Decoding for long-context
// inference", 2023, for runs of keys side by side.
template <class Context, class T>
void cached_attention(Context& context, matrix_of<Context, T> out, const_matrix_of<Context, T> queries,
                      const_matrix_of<Context, T> keys_values, const attention_shape& shape, index_t first) {
  using M = accumulator_t<T>;
  using space = typename Context::space;
  detail::check_cached_attention("cached_attention", keys_values, shape, first);
  detail::check_attention_matrix("out", out, shape.positions, shape.out_width());
  GRAFT_CHECK(queries.extent(0) == shape.positions && queries.extent(1) >= shape.out_width(),
              "cached_attention: expected queries of ", shape.positions, " x at least ", shape.out_width(), ", got ",
              queries.extent(0), " x ", queries.extent(1));
  constexpr index_t rows_at_once = 4096;
  const index_t d = shape.head_dim, heads = shape.heads, kv_width = shape.kv_heads * d;
  const index_t most_runs = (first + shape.positions + detail::cached_run - 1) / detail::cached_run;
  const index_t at_once = std::max<index_t>(1, rows_at_once / (heads * most_runs));
  for (index_t begin = 0; begin < shape.positions; begin += at_once) {
    workspace_scope scope(context);
    const index_t end = std::min(begin + at_once, shape.positions), tokens = end - begin;
    const index_t runs = (first + end + detail::cached_run - 1) / detail::cached_run, rows = tokens * heads * runs;
    const detail::cached_runs<T, space> parts{context.template allocate<M>(rows, d),
                                              context.template allocate<M>(rows, index_t{2}), heads, runs,
                                              first + begin};
    bool done = false;
    if constexpr (detail::attention_in_tiles<Context, T>)
      done = cached_attention_tiles(context, parts.sums, parts.statistics, queries.rows(begin, end), keys_values, shape,
                                    detail::cached_run, runs, first + begin);
    // A row is hinted at four times as wide as a head: it goes over a hundred keys, and a warp is enough for it.
    if (!done)
      launch_rows(context, rows, 4 * d,
                  detail::cached_attention_run_row<T, space>{
                      parts, context.template allocate<M>(rows, detail::cached_run), queries.rows(begin, end),
                      keys_values.columns(0, kv_width), keys_values.columns(kv_width, 2 * kv_width), d, shape.group()});
    launch_rows(context, tokens * heads, d,
                detail::cached_attention_combine_row<T, space>{out.rows(begin, end), parts, d});
  }
}

}  // namespace graft
