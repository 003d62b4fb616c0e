// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <algorithm>
#include <cmath>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/reduction.hpp>

#include "reference.hpp"
#include "shuffled_context.hpp"

namespace reduction_tests {

using namespace graft;
using namespace graft::test;

namespace {

// sum and sum_of_squares of x on ctx, into elements that held 2 and 3; the first sum is added to what is there.
template <class T, class Context>
tensor<accumulator_t<T>> run(Context& ctx, const tensor<T>& x) {
  using M = accumulator_t<T>;
  tensor<M> out(1, 3, 2);
  sum(ctx, out.vector().rows(0, 1), x.vector());
  sum(ctx, out.vector().rows(1, 2), x.vector(), accumulate::yes);
  sum_of_squares(ctx, out.vector().rows(2, 3), x.vector());
  return out;
}

template <class T>
void check_values(const tensor<T>& x, const tensor<accumulator_t<T>>& got) {
  double total = 0, magnitude = 0, squares = 0;
  for (index_t i = 0; i < x.columns; ++i) {
    total += x.at(0, i);
    magnitude += std::abs(x.at(0, i));
    squares += x.at(0, i) * x.at(0, i);
  }
  // A block of 4096 is summed in any order, then the blocks: as many additions at worst, one more for the old value.
  // The reference in fp64 has an error of its own, of n additions.
  const double blocks = std::ceil(static_cast<double>(x.columns) / 4096);
  const double operations = std::min(4096.0, static_cast<double>(x.columns)) + blocks + 2;
  const double own = 0x1p-53 * static_cast<double>(x.columns);
  using M = accumulator_t<T>;
  tensor<double> want(1, 3);
  want(0, 0) = total, want(0, 1) = 2 + total, want(0, 2) = squares;
  CHECK(mismatch(got, want, [&](index_t, index_t i) {
          const double m = i == 2 ? squares : magnitude + 2;
          return bound<M>(want.at(0, i), operations, m) + own * m;
        }) == "");
}

}  // namespace

TEMPLATE_TEST_CASE("reduction: sums of any length", "[ops]", double, float, bfloat16) {
  context<cpu> ctx(context_options{1});
  shuffled_context shuffled(2);
  const index_t count = GENERATE(0, 1, 15, 17, 4095, 4096, 4097, 20000);
  CAPTURE(count);
  const auto x = tensor<TestType>::random(1, count, 1);
  check_values(x, run(ctx, x));
  check_values(x, run(shuffled, x));
}

TEMPLATE_TEST_CASE("reduction: the same bits on one thread and on two", "[ops]", double, float, bfloat16) {
  context<cpu> one(context_options{1}), two(context_options{2});
  const auto x = tensor<TestType>::random(1, 100001, 1);
  CHECK(same_bits(run(one, x), run(two, x)));
}

TEST_CASE("reduction: a wider sum, a strided vector, a function of the index", "[ops]") {
  context<cpu> ctx(context_options{1});
  // In fp32 the sum of so many values of 24 bits would be rounded; in fp64 it is exact.
  const tensor<float> ones(1, 5000, 1.0 + 0x1p-23);
  tensor<double> wide(1, 1);
  sum(ctx, wide.vector(), ones.vector());
  CHECK(wide.at(0, 0) == 5000 * (1.0 + 0x1p-23));

  tensor<double> matrix(3, 4);
  for (index_t t = 0; t < 3; ++t)
    for (index_t i = 0; i < 4; ++i) matrix(t, i) = static_cast<double>(10 * t + i);
  view<const double, 1> column;
  column.data = matrix.values.data() + 2;
  column.extents[0] = 3;
  column.strides[0] = 4;
  sum(ctx, wide.vector(), column);
  CHECK(wide.at(0, 0) == 2 + 12 + 22);
  sum_of_squares(ctx, wide.vector(), column);
  CHECK(wide.at(0, 0) == 4 + 144 + 484);

  sum_of(ctx, wide.vector(), 10001, [](index_t i) { return static_cast<double>(i); });
  CHECK(wide.at(0, 0) == 10000.0 * 10001 / 2);
}

}  // namespace reduction_tests
