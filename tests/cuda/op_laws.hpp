// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every op on any context and element type against the same op on the CPU in fp64. A body makes its inputs, runs one op
// and gives back everything that the op wrote. Inputs are rounded to S, the type under test, whatever type T the body
// runs in, so both runs see the same numbers; what a backward pass reads from the forward pass is an input like any
// other.
//
// Tolerance of an element: its result is rounded to S (or to S's accumulator M), and before that to M in each of
// `operations` steps and to S in each of `roundings` steps (what an op stores on its way), each time at most by the
// unit roundoff times the size of the terms. The size is taken as the largest result of the tensor, which for these
// inputs, centred and of one scale, is not far below the sum of the terms' absolute values; operations and roundings
// have a factor of 4 for that.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <graft/core/transformer_shape.hpp>
#include <graft/ops/attention.hpp>
#include <graft/ops/cached_attention.hpp>
#include <graft/ops/cast.hpp>
#include <graft/ops/embedding.hpp>
#include <graft/ops/head_norm.hpp>
#include <graft/ops/linear_cross_entropy.hpp>
#include <graft/ops/permutation.hpp>
#include <graft/ops/reduction.hpp>
#include <graft/ops/rms_norm.hpp>
#include <graft/ops/rope.hpp>
#include <graft/ops/swiglu.hpp>

#include "catch.hpp"
#include "resident.hpp"

namespace graft::test {

// One tensor that a body gives back.
struct result {
  std::string name;
  tensor<double> values;
  bool stored;            // in S, else in M or as integers
  double operations = 0;  // roundings to M on the way
  double roundings = 0;   // roundings to S on the way
  double size = 0;        // of the terms; 0: the largest element
};
using results = std::vector<result>;

// "" if two runs of a body agree within the tolerance, else a sentence with the first tensor that does not.
template <class S>
std::string disagreement(const results& got, const results& want) {
  using M = accumulator_t<S>;
  if (got.size() != want.size()) return "different numbers of results";
  for (std::size_t i = 0; i < got.size(); ++i) {
    const result& w = want[i];
    double size = w.size;
    for (const double v : w.values.values) size = w.size > 0 ? size : std::max(size, std::abs(v));
    const double last = w.stored ? unit_roundoff<S> : unit_roundoff<M>;
    const double before = (w.operations * unit_roundoff<M> + w.roundings * unit_roundoff<S>)*size;
    const std::string message = mismatch(got[i].values, w.values, [&](index_t r, index_t c) {
      return 1.0001 * last * std::abs(w.values.at(r, c)) + before + 0x1p-120;
    });
    if (!message.empty()) return w.name + " " + message;
  }
  return {};
}

inline bool same_bits(const results& a, const results& b) {
  bool same = a.size() == b.size();
  for (std::size_t i = 0; same && i < a.size(); ++i) same = same_bits(a[i].values, b[i].values);
  return same;
}

// The inputs of a body: random numbers that S can hold, in the memory of the context as T, and of M as T's accumulator.
template <class S, class T, class Ctx>
struct stage {
  using storage = T;
  using M = accumulator_t<T>;
  using space = typename Ctx::space;
  Ctx& ctx;

  resident<Ctx, T> stored(index_t rows, index_t columns, std::uint64_t seed, double stddev = 1) const {
    return resident<Ctx, T>(ctx, as<T>(tensor<S>::random(rows, columns, seed, stddev)));
  }
  resident<Ctx, M> master(index_t rows, index_t columns, std::uint64_t seed, double stddev = 1, double mean = 0) const {
    auto values = tensor<accumulator_t<S>>::random(rows, columns, seed, stddev);
    for (auto& v : values.values) v += static_cast<accumulator_t<S>>(mean);
    return resident<Ctx, M>(ctx, as<M>(values));
  }
  resident<Ctx, std::int32_t> integers(const std::vector<std::int32_t>& values) const {
    return resident<Ctx, std::int32_t>(ctx, one_row(values));
  }

  template <class U, class V>
  static tensor<U> as(const tensor<V>& x) {
    tensor<U> result(x.rows, x.columns);
    for (std::size_t i = 0; i < x.values.size(); ++i) result.values[i] = narrow<U>(widen(x.values[i]));
    return result;
  }
};

template <class Ctx>
tensor<double> wide(const resident<Ctx, std::int32_t>& x) {
  const auto values = x.get();
  tensor<double> result(values.rows, values.columns);
  std::copy(values.values.begin(), values.values.end(), result.values.begin());
  return result;
}
template <class Ctx, class T>
tensor<double> wide(const resident<Ctx, T>& x) {
  return x.get().wide();
}
// A contiguous view of workspace.
template <class Ctx, class T, int Rank, class Space>
tensor<double> wide(Ctx& ctx, const view<T, Rank, Space>& x) {
  std::vector<std::remove_const_t<T>> host(static_cast<std::size_t>(x.size()));
  copy_to_host(ctx, host.data(), x);
  tensor<double> result(1, x.size());
  for (std::size_t i = 0; i < host.size(); ++i) result.values[i] = static_cast<double>(host[i]);
  return result;
}

// n integers in [low, high).
inline std::vector<std::int32_t> random_integers(index_t n, std::int32_t low, std::int32_t high, std::uint64_t seed) {
  const random_source source{seed, random_stream::data};
  std::vector<std::int32_t> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = low + static_cast<std::int32_t>(source.below(static_cast<std::uint64_t>(high - low), 5, i));
  return values;
}

// ---- bodies: operator()(stage) -> results
// -------------------------------------------------------------------------------

struct embedding_body {
  index_t rows, width, vocabulary;
  template <class Stage>
  results operator()(const Stage& s) const {
    const auto tokens = s.integers(random_integers(rows, 0, static_cast<std::int32_t>(vocabulary), 1));
    const auto out = s.stored(rows, width, 9), table = s.stored(vocabulary, width, 2), d_out = s.stored(rows, width, 3);
    const auto d_table = s.master(vocabulary, width, 4);
    embedding_forward(s.ctx, out.matrix(), table.matrix(), tokens.vector());
    embedding_backward(s.ctx, d_table.matrix(), d_out.matrix(), tokens.vector());
    return {{"out", wide(out), true}, {"d_table", wide(d_table), false, static_cast<double>(rows)}};
  }
};

struct rms_norm_body {
  index_t rows, width;
  bool add;
  template <class Stage>
  results operator()(const Stage& s) const {
    using T = typename Stage::storage;
    using space = typename Stage::space;
    const auto x = s.stored(rows, width, 1), delta = s.stored(rows, width, 2), weight = s.stored(1, width, 3);
    const auto stream = s.stored(rows, width, 8), out = s.stored(rows, width, 9), d_stream = s.stored(rows, width, 6),
               d_out = s.stored(rows, width, 5);
    const auto inverse = s.master(1, rows, 9), d_weight = s.master(1, width, 4),
               given_inverse = s.master(1, rows, 7, 0.1, 0.8);
    add_rms_norm_forward(s.ctx, stream.matrix(), out.matrix(), inverse.vector(), x.matrix(),
                         add ? view<const T, 2, space>(delta.matrix()) : view<const T, 2, space>{}, weight.vector(),
                         1e-5);
    // The product reads the sum as it is stored.
    const double n = 4 * static_cast<double>(width + 4);
    rms_norm_backward(s.ctx, d_stream.matrix(), d_weight.vector(), d_out.matrix(), x.matrix(), given_inverse.vector(),
                      weight.vector(), add ? accumulate::yes : accumulate::no);
    return {{"residual", wide(stream), true, 1},
            {"out", wide(out), true, n, 2},
            {"inverse_rms", wide(inverse), false, n, 2},
            {"d_residual", wide(d_stream), true, n},
            {"d_weight", wide(d_weight), false, 4 * static_cast<double>(rows + 4)}};
  }
};

struct head_norm_body {
  index_t rows, heads, kv_heads, head_dim;
  template <class Stage>
  results operator()(const Stage& s) const {
    const index_t width = (heads + 2 * kv_heads) * head_dim, normed = heads + kv_heads;
    const auto raw = s.stored(rows, width, 1), out = s.stored(rows, width, 9), d_qkv = s.stored(rows, width, 2);
    const auto q = s.stored(1, head_dim, 3), k = s.stored(1, head_dim, 4);
    const auto inverse = s.master(rows, normed, 5), given_inverse = s.master(rows, normed, 6, 0.1, 0.8);
    const auto d_q = s.master(1, head_dim, 7), d_k = s.master(1, head_dim, 8);
    head_norm_forward(s.ctx, out.matrix(), inverse.matrix(), raw.matrix(), q.vector(), k.vector(), heads, 1e-5);
    head_norm_backward(s.ctx, d_qkv.matrix(), d_q.vector(), d_k.vector(), raw.matrix(), given_inverse.matrix(),
                       q.vector(), k.vector(), heads);
    const double n = 4 * static_cast<double>(head_dim + 4), m = 4 * static_cast<double>(rows * heads + 4);
    return {{"out", wide(out), true, n},
            {"inverse_rms", wide(inverse), false, n},
            {"d_qkv", wide(d_qkv), true, n},
            {"d_q", wide(d_q), false, m},
            {"d_k", wide(d_k), false, m}};
  }
};

struct rope_body {
  index_t rows, positions, heads, head_dim;
  template <class Stage>
  results operator()(const Stage& s) const {
    const auto forward = s.stored(rows, (heads + 1) * head_dim, 1),
               backward = s.stored(rows, (heads + 1) * head_dim, 2);
    const auto table = s.master(positions, head_dim, 3, 0.5);  // a pure function of its table, whatever stands in it
    rope_forward(s.ctx, forward.matrix(), table.matrix(), heads, positions - 7, 7);
    rope_backward(s.ctx, backward.matrix(), table.matrix(), heads, positions);
    return {{"qk", wide(forward), true, 8}, {"d_qk", wide(backward), true, 8}};
  }
};

struct attention_body {
  attention_shape shape;
  template <class Stage>
  results operator()(const Stage& s) const {
    const index_t rows = shape.tokens(), out_width = shape.out_width();
    const auto qkv = s.stored(rows, shape.qkv_width(), 1), out = s.stored(rows, out_width, 9),
               d_qkv = s.stored(rows, shape.qkv_width(), 8);
    const auto given_out = s.stored(rows, out_width, 2), d_out = s.stored(rows, out_width, 3);
    const auto lse = s.master(rows, shape.heads, 9), given_lse = s.master(rows, shape.heads, 4, 0.1, 3);
    attention_forward(s.ctx, out.matrix(), lse.matrix(), qkv.matrix(), shape);
    attention_backward(s.ctx, d_qkv.matrix(), d_out.matrix(), given_out.matrix(), given_lse.matrix(), qkv.matrix(),
                       shape);
    const double n = 4 * static_cast<double>(shape.head_dim + shape.positions),
                 m = 4 * static_cast<double>(2 * shape.head_dim + shape.group() * shape.positions);
    // Weights and their gradients may be rounded before they meet the vectors.
    return {{"out", wide(out), true, n, 4}, {"log_sum_exp", wide(lse), false, n}, {"d_qkv", wide(d_qkv), true, m, 4}};
  }
};

struct cached_attention_body {
  attention_shape shape;  // of the new tokens
  index_t first;
  template <class Stage>
  results operator()(const Stage& s) const {
    using T = typename Stage::storage;
    using space = typename Stage::space;
    const index_t rows = shape.positions, held = first + rows;
    const auto qkv = s.stored(rows, shape.qkv_width(), 1),
               keys_values = s.stored(held, 2 * shape.kv_heads * shape.head_dim, 2);
    const auto out = s.stored(rows, shape.out_width(), 9);
    append_keys_values(s.ctx, keys_values.matrix(), view<const T, 2, space>(qkv.matrix()), shape, first);
    cached_attention(s.ctx, out.matrix(), view<const T, 2, space>(qkv.matrix()),
                     view<const T, 2, space>(keys_values.matrix()), shape, first);
    return {{"keys_values", wide(keys_values), true},
            {"out", wide(out), true, 4 * static_cast<double>(shape.head_dim + held)}};
  }
};

struct swiglu_body {
  index_t rows, hidden, used;
  template <class Stage>
  results operator()(const Stage& s) const {
    const auto gate_up = s.stored(rows, 2 * hidden, 1), out = s.stored(rows, hidden, 9),
               d_out = s.stored(rows, hidden, 2);
    const auto count = s.integers({static_cast<std::int32_t>(used)});
    swiglu_forward(s.ctx, out.matrix(), gate_up.matrix(), used < rows ? count.vector().data : nullptr);
    swiglu_backward(s.ctx, gate_up.matrix(), d_out.matrix(), gate_up.matrix(),
                    used < rows ? count.vector().data : nullptr);
    return {{"out", wide(out), true, 32}, {"d_gate_up", wide(gate_up), true, 32}};
  }
};

struct cross_entropy_body {
  index_t rows, width, vocabulary;
  template <class Stage>
  results operator()(const Stage& s) const {
    const auto x = s.stored(rows, width, 1), head = s.stored(vocabulary, width, 2, 0.3), d_x = s.stored(rows, width, 9);
    const auto targets = s.integers(random_integers(rows, -1, static_cast<std::int32_t>(vocabulary), 3));
    const auto only = s.master(1, rows, 8), losses = s.master(1, rows, 9), d_head = s.master(vocabulary, width, 4, 0.1);
    linear_cross_entropy(s.ctx, only.vector(),
                         view<const typename Stage::storage, 2, typename Stage::space>(x.matrix()), head.matrix(),
                         targets.vector());
    linear_cross_entropy_backward(s.ctx, losses.vector(), d_x.matrix(), d_head.matrix(), x.matrix(), head.matrix(),
                                  targets.vector(), 0.25);
    const double n = 4 * static_cast<double>(width + vocabulary), m = n + 4 * static_cast<double>(rows);
    return {{"losses alone", wide(only), false, n},
            {"losses", wide(losses), false, n},
            {"d_x", wide(d_x), true, n, 4},
            {"d_head", wide(d_head), false, m, 4}};
  }
};

struct permutation_body {
  index_t tokens, width, slots;
  std::int32_t experts;
  bool weighted;
  template <class Stage>
  results operator()(const Stage& s) const {
    using M = typename Stage::M;
    using space = typename Stage::space;
    workspace_scope scope(s.ctx);
    auto chosen = random_integers(tokens * slots, -1, experts, 1);  // some slots are empty
    for (auto& e : chosen) e = e == 1 ? 0 : e;                      // and expert 1 has no token
    const auto experts_of_slots = s.integers(chosen);
    const auto plan = make_dispatch_plan(s.ctx, experts_of_slots.vector(), experts, slots);
    const auto x = s.stored(tokens, width, 2), gathered = s.stored(tokens * slots, width, 3),
               rows = s.stored(tokens * slots, width, 4);
    const auto sum = s.stored(tokens, width, 5), added = s.stored(tokens, width, 6), d_out = s.stored(tokens, width, 7);
    const auto weights = s.master(tokens, slots, 8), d_weights = s.master(tokens, slots, 9);
    const auto used = weighted ? view<const M, 2, space>(weights.matrix()) : view<const M, 2, space>{};
    gather_tokens(s.ctx, gathered.matrix(), x.matrix(), plan);
    combine_rows(s.ctx, sum.matrix(), rows.matrix(), used, plan, accumulate::no);
    combine_rows(s.ctx, added.matrix(), rows.matrix(), used, plan, accumulate::yes);
    combine_rows_backward(s.ctx, rows.matrix(), d_weights.matrix(), d_out.matrix(), rows.matrix(), weights.matrix(),
                          plan);  // in place
    return {{"offsets", wide(s.ctx, plan.offsets), false},
            {"slot_of_row", wide(s.ctx, plan.slot_of_row), false},
            {"row_of_slot", wide(s.ctx, plan.row_of_slot), false},
            {"gathered", wide(gathered), true},
            {"sum", wide(sum), true, 4 * static_cast<double>(slots + 1)},
            {"added", wide(added), true, 4 * static_cast<double>(slots + 2)},
            {"d_rows", wide(rows), true, 4},
            {"d_weights", wide(d_weights), false, 4 * static_cast<double>(width)}};
  }
};

struct reduction_body {
  index_t count;
  template <class Stage>
  results operator()(const Stage& s) const {
    using M = typename Stage::M;
    using ctx_type = std::remove_reference_t<decltype(s.ctx)>;
    const auto x = s.master(1, count, 1), total = s.master(1, 1, 2), squares = s.master(1, 1, 3);
    const auto narrow = s.stored(1, count, 4);
    sum<ctx_type, M>(s.ctx, total.vector(), x.vector(), accumulate::yes);
    sum_of_squares<ctx_type, M>(s.ctx, squares.vector(), x.vector());
    cast<ctx_type, typename Stage::storage>(s.ctx, narrow.vector(), x.vector());
    const auto n = static_cast<double>(count);
    return {{"sum", wide(total), false, n, 0, n + 1},
            {"squares", wide(squares), false, n, 0, 2 * n + 1},
            {"cast", wide(narrow), true}};
  }
};

// The body on ctx in S against the CPU in fp64, and twice the same bits. exact: a context<cpu>.
template <class S, class Ctx, class Exact, class Body>
void check_body(Ctx& ctx, Exact& exact, const char* name, const Body& body) {
  INFO(name);
  const results want = body(stage<S, double, Exact>{exact});
  const results got = body(stage<S, S, Ctx>{ctx});
  CHECK(disagreement<S>(got, want) == "");
  CHECK(same_bits(got, body(stage<S, S, Ctx>{ctx})));
}

// Widths on both sides of a warp's 1024, rows on both sides of the 64 of a chunk.
template <class S, class Ctx, class Exact>
void check_ops(Ctx& ctx, Exact& exact) {
  for (const index_t width : {5, 96, 1100}) {
    INFO("width " << width);
    check_body<S>(ctx, exact, "embedding", embedding_body{150, width, 11});
    check_body<S>(ctx, exact, "rms_norm", rms_norm_body{150, width, false});
    check_body<S>(ctx, exact, "rms_norm of a sum", rms_norm_body{70, width, true});
    check_body<S>(ctx, exact, "swiglu", swiglu_body{70, width, 70});
    check_body<S>(ctx, exact, "swiglu of some rows", swiglu_body{70, width, 33});
    check_body<S>(ctx, exact, "permutation", permutation_body{70, width, 2, 5, true});
    check_body<S>(ctx, exact, "permutation without weights", permutation_body{33, width, 3, 4, false});
  }
  check_body<S>(ctx, exact, "head_norm", head_norm_body{100, 4, 2, 20});
  check_body<S>(ctx, exact, "rope", rope_body{60, 20, 3, 34});
  check_body<S>(ctx, exact, "attention", attention_body{{2, 37, 4, 2, 24}});
  check_body<S>(ctx, exact, "attention of one key head", attention_body{{1, 70, 3, 1, 64}});
  check_body<S>(ctx, exact, "cached attention", cached_attention_body{{1, 1, 4, 2, 24}, 300});
  check_body<S>(ctx, exact, "cached attention of many tokens", cached_attention_body{{1, 40, 3, 1, 64}, 100});
  check_body<S>(ctx, exact, "cached attention of a group", cached_attention_body{{1, 3, 4, 1, 128}, 254});
  check_body<S>(ctx, exact, "cached attention of a wide group", cached_attention_body{{1, 1, 6, 2, 48}, 130});
  check_body<S>(ctx, exact, "cross entropy", cross_entropy_body{70, 40, 50});
  check_body<S>(ctx, exact, "cross entropy in chunks", cross_entropy_body{70, 8, 20000});
  for (const index_t count : {1, 4096, 10001}) check_body<S>(ctx, exact, "reduction", reduction_body{count});
}

}  // namespace graft::test
