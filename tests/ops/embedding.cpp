// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/embedding.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace embedding_tests {

using namespace graft;
using namespace graft::test;

namespace {

// Tokens below `distinct`, so that most occur often and some rows of the table never.
tensor<std::int32_t> make_tokens(index_t count, std::uint64_t distinct) {
  tensor<std::int32_t> tokens;
  tokens.rows = 1, tokens.columns = count;
  const random_source source{9, random_stream::data};
  for (index_t t = 0; t < count; ++t)
    tokens.values.push_back(static_cast<std::int32_t>(source.below(distinct, 0, static_cast<std::uint64_t>(t))));
  return tokens;
}

template <class T, class Context>
tensor<accumulator_t<T>> backward(Context& ctx, tensor<accumulator_t<T>> d_table, const tensor<T>& d_out,
                                  const tensor<std::int32_t>& tokens) {
  embedding_backward(ctx, d_table.matrix(), d_out.matrix(), tokens.vector());
  return d_table;
}

}  // namespace

TEMPLATE_TEST_CASE("embedding: rows of the table, bit for bit", "[ops]", double, float, bfloat16) {
  using T = TestType;
  context<cpu> one(context_options{1}), two(context_options{2});
  shuffled_context shuffled(4);
  const index_t count = GENERATE(1, 37, 1500);
  const index_t vocabulary = 29, width = 13;
  const auto table = tensor<T>::random(vocabulary, width, 1);
  const auto tokens = make_tokens(count, vocabulary);
  tensor<T> out(count, width), on_two(count, width), in_any_order(count, width);
  embedding_forward(one, out.matrix(), table.matrix(), tokens.vector());
  embedding_forward(two, on_two.matrix(), table.matrix(), tokens.vector());
  embedding_forward(shuffled, in_any_order.matrix(), table.matrix(), tokens.vector());
  int wrong = 0;
  for (index_t t = 0; t < count; ++t)
    for (index_t i = 0; i < width; ++i)
      if (out.at(t, i) != table.at(tokens.values[static_cast<std::size_t>(t)], i)) ++wrong;
  CHECK(wrong == 0);
  CHECK(same_bits(out, on_two));
  CHECK(same_bits(out, in_any_order));
}

TEMPLATE_TEST_CASE("embedding: gradients of a token add in the order of its positions", "[ops]", double, float,
                   bfloat16) {
  using T = TestType;
  using M = accumulator_t<T>;
  context<cpu> one(context_options{1}), two(context_options{2});
  shuffled_context shuffled(4);
  const index_t count = GENERATE(1, 37, 700);
  const index_t vocabulary = 600, width = 33,
                distinct = GENERATE(1, 20);  // one token alone, and rows that no token names
  CAPTURE(count, distinct);
  const auto d_out = tensor<T>::random(count, width, 1);
  const auto before = tensor<M>::random(vocabulary, width, 2);
  const auto tokens = make_tokens(count, static_cast<std::uint64_t>(distinct));
  const tensor<M> got = backward(one, before, d_out, tokens);

  // The documented order, in the type of the sum: the same bits.
  tensor<M> exact = before;
  for (index_t t = 0; t < count; ++t)
    for (index_t i = 0; i < width; ++i)
      exact(tokens.values[static_cast<std::size_t>(t)], i) +=
          static_cast<M>(d_out.values[static_cast<std::size_t>(t * width + i)]);
  CHECK(same_bits(got, exact));
  CHECK(same_bits(got, backward(two, before, d_out, tokens)));
  CHECK(same_bits(got, backward(shuffled, before, d_out, tokens)));

  // And the value in fp64: as many additions as the token has positions, `count` at worst.
  tensor<double> want = before.wide(), magnitude(vocabulary, width);
  for (index_t v = 0; v < vocabulary; ++v)
    for (index_t i = 0; i < width; ++i) magnitude(v, i) = std::abs(want.at(v, i));
  for (index_t t = 0; t < count; ++t) {
    for (index_t i = 0; i < width; ++i) {
      want(tokens.values[static_cast<std::size_t>(t)], i) += d_out.at(t, i);
      magnitude(tokens.values[static_cast<std::size_t>(t)], i) += std::abs(d_out.at(t, i));
    }
  }
  CHECK(mismatch(got, want, [&](index_t v, index_t i) {
          return bound<M>(want.at(v, i), 2 * static_cast<double>(count), magnitude.at(v, i));
        }) == "");
}

TEST_CASE("embedding: gradient by central differences", "[ops]") {
  context<cpu> ctx(context_options{1});
  auto table = tensor<double>::random(6, 4, 1);
  const auto upstream = tensor<double>::random(15, 4, 2);
  const auto tokens = make_tokens(15, 5);
  const auto f = [&] {
    tensor<double> out(15, 4);
    embedding_forward(ctx, out.matrix(), table.matrix(), tokens.vector());
    double sum = 0;
    for (std::size_t i = 0; i < out.values.size(); ++i) sum += upstream.values[i] * out.values[i];
    return sum;
  };
  const tensor<double> gradient = backward(ctx, tensor<double>(6, 4), upstream, tokens);
  CHECK(gradient_mismatch(f, table.values, gradient.values) == "");
}

// Padding (-1) has a zero row whatever the memory held, and gives no gradient.
TEMPLATE_TEST_CASE("embedding: padding", "[ops]", double, float, bfloat16) {
  using T = TestType;
  using M = accumulator_t<T>;
  context<cpu> one(context_options{1}), two(context_options{2});
  shuffled_context shuffled(4);
  const index_t count = GENERATE(6, 700), vocabulary = 29, width = 13;
  const auto table = tensor<T>::random(vocabulary, width, 1);
  tensor<std::int32_t> tokens = make_tokens(count, vocabulary);
  for (index_t t = 0; t < count; ++t)
    if (t % 3 != 0) tokens.values[static_cast<std::size_t>(t)] = -1;
  const auto check = [&](auto& ctx) {
    tensor<T> out(count, width, 7);
    embedding_forward(ctx, out.matrix(), table.matrix(), tokens.vector());
    int wrong = 0;
    for (index_t t = 0; t < count; ++t) {
      const std::int32_t token = tokens.values[static_cast<std::size_t>(t)];
      for (index_t i = 0; i < width; ++i)
        if (out.at(t, i) != (token < 0 ? 0.0 : table.at(token, i))) ++wrong;
    }
    CHECK(wrong == 0);
    const auto d_out = tensor<T>::random(count, width, 1);
    const auto before = tensor<M>::random(vocabulary, width, 2);
    tensor<M> exact = before;
    for (index_t t = 0; t < count; t += 3)
      for (index_t i = 0; i < width; ++i)
        exact(tokens.values[static_cast<std::size_t>(t)], i) +=
            static_cast<M>(d_out.values[static_cast<std::size_t>(t * width + i)]);
    CHECK(same_bits(backward(ctx, before, d_out, tokens), exact));
  };
  check(one);
  check(two);
  check(shuffled);

  // Nothing but padding.
  tensor<std::int32_t> none = make_tokens(count, 1);
  for (std::int32_t& token : none.values) token = -1;
  tensor<T> out(count, width, 7);
  embedding_forward(one, out.matrix(), table.matrix(), none.vector());
  CHECK(std::all_of(out.values.begin(), out.values.end(), [](T value) { return widen(value) == 0; }));
  const auto before = tensor<M>::random(vocabulary, width, 2);
  CHECK(same_bits(backward(one, before, tensor<T>::random(count, width, 1), none), before));
}

}  // namespace embedding_tests
