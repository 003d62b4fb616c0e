// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Attention against cached keys and values is attention: the last rows of a whole sequence, however it is cut.

#include "catch.hpp"

#include <cmath>
#include <limits>
#include <string>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/cached_attention.hpp>

#include "reference.hpp"
#include "shuffled_context.hpp"

namespace cached_attention_tests {

using namespace graft;
using namespace graft::test;

namespace {

struct sequence {
  index_t positions, heads, kv_heads, head_dim;
  attention_shape tokens(index_t count) const { return {1, count, heads, kv_heads, head_dim}; }
};

// One position; less than a run of keys, exactly two, and some more; G = 1, G = H and between; odd head sizes.
const sequence sequences[] = {{1, 2, 1, 4}, {37, 4, 2, 24}, {256, 2, 2, 5}, {300, 3, 1, 33}};

template <class T>
struct cached {
  tensor<T> qkv, keys_values;
  explicit cached(const sequence& s)
      : qkv(tensor<T>::random(s.positions, s.tokens(1).qkv_width(), 1)),
        keys_values(s.positions + 2, 2 * s.kv_heads * s.head_dim, std::numeric_limits<double>::quiet_NaN()) {}

  // The output of rows [first, end), given to the cache `step` at a time. Rows after `end` stay NaN: nobody reads them.
  template <class Context>
  tensor<T> extend(Context& ctx, const sequence& s, index_t first, index_t end, index_t step) {
    tensor<T> out(s.positions, s.heads * s.head_dim);
    if (first > 0)
      append_keys_values(ctx, keys_values.matrix(), qkv.matrix().rows(0, first), s.tokens(first), index_t{0});
    for (index_t at = first; at < end; at += step) {
      const index_t next = std::min(at + step, end);
      const auto rows = qkv.matrix().rows(at, next);
      append_keys_values(ctx, keys_values.matrix(), rows, s.tokens(next - at), at);
      cached_attention(ctx, out.matrix().rows(at, next), rows, keys_values.matrix(), s.tokens(next - at), at);
    }
    return out;
  }
};

template <class T>
tensor<T> whole(const sequence& s, const tensor<T>& qkv) {
  context<cpu> ctx({.threads = 1});
  tensor<T> out(s.positions, s.heads * s.head_dim);
  tensor<accumulator_t<T>> log_sum_exp(s.positions, s.heads);
  attention_forward(ctx, out.matrix(), log_sum_exp.matrix(), qkv.matrix(), s.tokens(s.positions));
  return out;
}

// Both ways are off by rounding: of a score, a sum of d products of about 1, by sqrt(d) u times some sigmas, which
// moves a weight by as much; of exp by 5 u in fp32; of sums over n keys by sqrt(n) u. Values are normal, their weighted
// mean is below 5.
template <class T>
double tolerance(const sequence& s) {
  const double u = unit_roundoff<accumulator_t<T>>;
  const double score = 8 * std::sqrt(static_cast<double>(s.head_dim)) + 16;
  return 5 * 2 * (2 * score + 2 * std::sqrt(static_cast<double>(s.positions))) * u +
         (std::is_same_v<T, bfloat16> ? 5 * 2 * unit_roundoff<T> : 0);
}

template <class T>
void check_rows(const sequence& s, const tensor<T>& got, const tensor<T>& want, index_t first, index_t end) {
  index_t wrong = 0;
  for (index_t t = first; t < end; ++t)
    for (index_t i = 0; i < got.columns; ++i)
      wrong += !(std::abs(got.at(t, i) - want.at(t, i)) <= tolerance<T>(s));  // NaN too
  CHECK(wrong == 0);
}

template <class T>
bool same_rows(const tensor<T>& a, const tensor<T>& b, index_t first, index_t end) {
  return std::memcmp(a.matrix().row(first), b.matrix().row(first),
                     static_cast<std::size_t>((end - first) * a.columns) * sizeof(T)) == 0;
}

}  // namespace

TEMPLATE_TEST_CASE("cached_attention: new tokens attend as in the whole sequence", "[ops][attention]", double, float,
                   bfloat16) {
  using T = TestType;
  context<cpu> ctx({.threads = 2});
  for (const sequence& s : sequences) {
    cached<T> own(s);
    const tensor<T> want = whole(s, own.qkv);
    for (const index_t first : {index_t{0}, s.positions / 2, s.positions - 1}) {
      CAPTURE(s.positions, s.heads, s.kv_heads, s.head_dim, first);
      const tensor<T> got = cached<T>(s).extend(ctx, s, first, s.positions, s.positions);
      check_rows(s, got, want, first, s.positions);
      // One at a time, on one thread: the same bits.
      context<cpu> one({.threads = 1});
      const index_t few = std::max(first, s.positions - 3);
      cached<T> single(s);
      const tensor<T> rows = single.extend(one, s, few, s.positions, 1);
      CHECK(same_rows(rows, got, few, s.positions));
      // What is not held stays as it was.
      for (index_t i = 0; i < single.keys_values.columns; ++i)
        for (const index_t past : {s.positions, s.positions + 1}) CHECK(std::isnan(single.keys_values.at(past, i)));
    }
  }
}

TEST_CASE("cached_attention: rows in any order, and more rows than go at once", "[ops][attention]") {
  const sequence s{300, 3, 1, 33};
  shuffled_context shuffled(3);
  cached<double> own(s);
  const tensor<double> want = whole(s, own.qkv);
  check_rows(s, own.extend(shuffled, s, 200, 204, 2), want, 200, 204);
  const sequence wide{300, 16, 1, 2};  // 4096 / (16 * 3) = 85 tokens at once
  context<cpu> ctx({.threads = 3});
  cached<double> many(wide);
  const tensor<double> got = many.extend(ctx, wide, 100, 300, 200);
  check_rows(wide, got, whole(wide, many.qkv), 100, 300);
}

TEST_CASE("cached_attention: scores of thousands neither overflow nor lose the largest", "[ops][attention]") {
  const sequence s{260, 2, 1, 16};
  context<cpu> ctx({.threads = 1});
  cached<float> own(s);
  for (index_t t = 0; t < s.positions; ++t)
    for (const index_t head : {index_t{0}, index_t{1}}) {
      own.qkv(t, head * 16) = head == 0 ? 100.0f : -100.0f;
      own.qkv(t, 32) = t == 140 ? 500.0f : 0.0f;  // towers over all keys for head 0, lies far below them for head 1
    }
  const tensor<float> got = own.extend(ctx, s, 259, 260, 1);
  for (index_t i = 0; i < 16; ++i) CHECK(got.at(259, i) == own.qkv.at(140, 48 + i));
  check_rows(s, got, whole(s, own.qkv), 259, 260);
}

TEST_CASE("cached_attention: sizes that do not fit are refused", "[ops][attention]") {
  const sequence s{8, 2, 1, 4};
  context<cpu> ctx({.threads = 1});
  cached<float> own(s);
  tensor<float> out(8, 8);
  CHECK_THROWS_WITH(append_keys_values(ctx, own.keys_values.matrix(), own.qkv.matrix(), s.tokens(8), index_t{3}),
                    "append_keys_values: expected positions up to 10, got 8 tokens from position 3");
  CHECK_THROWS_WITH(cached_attention(ctx, out.matrix(), own.qkv.matrix().columns(0, 7), own.keys_values.matrix(),
                                     s.tokens(8), index_t{0}),
                    "cached_attention: expected queries of 8 x at least 8, got 8 x 7");
  CHECK_THROWS_AS(cached_attention(ctx, out.matrix(), own.qkv.matrix(), own.keys_values.matrix(),
                                   attention_shape{2, 4, 2, 1, 4}, index_t{0}),
                  error);
}

}  // namespace cached_attention_tests
