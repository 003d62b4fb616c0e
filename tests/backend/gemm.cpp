// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Dense products against a naive sum: every form and type, extents that are not multiples of anything, strides,
// accumulation; the same bits for any number of threads.

#include "products.hpp"

#include <array>
#include <string>

using namespace graft;
using namespace graft::test;

namespace {

enum class form { nt, nn, tn };

// rows x columns of the output, and the depth of the sum.
struct shape {
  index_t rows, columns, depth;
};

template <class T, class Out>
struct operands {
  gapped_matrix<T> a, b;
  gapped_matrix<Out> c;

  operands(form f, const shape& s, index_t gap, std::mt19937& random)
      : a(f == form::tn ? s.depth : s.rows, f == form::tn ? s.rows : s.depth, gap, random),
        b(f == form::nt ? s.columns : s.depth, f == form::nt ? s.depth : s.columns, 2 * gap, random),
        c(s.rows, s.columns, 3 * gap, random) {}
};

template <class T, class Out>
void multiply(context<cpu>& ctx, form f, operands<T, Out>& o, accumulate mode) {
  if (f == form::nt) gemm_nt(ctx, o.c.view(), o.a.read(), o.b.view(), mode);
  if (f == form::nn) gemm_nn(ctx, o.c.view(), o.a.view(), o.b.read(), mode);
  if (f == form::tn) gemm_tn(ctx, o.c.view(), o.a.read(), o.b.read(), mode);
}

template <class T, class Out>
void check_product(form f, const shape& s, operands<T, Out>& before, operands<T, Out>& after, accumulate mode) {
  long double worst = 0;
  for (index_t i = 0; i < s.rows; ++i)
    for (index_t j = 0; j < s.columns; ++j) {
      reference_sum sum;
      if (mode == accumulate::yes) sum.add(before.c.value(i, j));
      for (index_t k = 0; k < s.depth; ++k)
        sum.add(static_cast<long double>(f == form::tn ? before.a.value(k, i) : before.a.value(i, k)) *
                (f == form::nt ? before.b.value(j, k) : before.b.value(k, j)));
      const long double error = std::fabs(after.c.value(i, j) - sum.value);
      worst = std::max(worst, error / sum.allowed<T, Out>());
      if (!(error <= sum.allowed<T, Out>())) worst = std::numeric_limits<long double>::infinity();  // NaN too
    }
  CHECK(worst <= 1.0L);
  check_gaps(before.c, after.c);
}

const shape shapes[] = {{1, 1, 1},      {1, 7, 3},      {2, 1, 17},   {3, 5, 0},      {16, 16, 32},
                        {17, 33, 31},   {31, 16, 1},    {64, 64, 64}, {33, 129, 65},  {100, 48, 77},
                        {129, 257, 33}, {300, 130, 48}, {5, 600, 40}, {257, 1100, 19}};

}  // namespace

TEMPLATE_TEST_CASE("products agree with a naive sum", "[gemm]", (product_types<float, float>),
                   (product_types<double, double>), (product_types<bfloat16, bfloat16>),
                   (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> ctx({2, 0});
  for (const form f : {form::nt, form::nn, form::tn})
    for (const shape& s : shapes)
      for (const index_t gap : {index_t{0}, index_t{5}})
        for (const accumulate mode : {accumulate::no, accumulate::yes}) {
          CAPTURE(static_cast<int>(f), s.rows, s.columns, s.depth, gap, static_cast<bool>(mode));
          std::mt19937 random(7);
          operands<T, Out> before(f, s, gap, random);
          auto after = before;
          multiply(ctx, f, after, mode);
          check_product(f, s, before, after, mode);
        }
}

TEMPLATE_TEST_CASE("a weight's gradient over many rows", "[gemm]", (product_types<float, float>),
                   (product_types<bfloat16, bfloat16>), (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> ctx;
  const shape s = GENERATE(shape{20, 24, 4096 + 45}, shape{20, 1030, 2 * 4096 + 45}, shape{600, 1100, 530});
  for (const accumulate mode : {accumulate::no, accumulate::yes}) {
    std::mt19937 random(8);
    operands<T, Out> before(form::tn, s, 3, random);
    auto after = before;
    multiply(ctx, form::tn, after, mode);
    check_product(form::tn, s, before, after, mode);
  }
}

TEMPLATE_TEST_CASE("products give the same bits for any number of threads", "[gemm]", (product_types<float, float>),
                   (product_types<double, double>), (product_types<bfloat16, bfloat16>),
                   (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> one({1, 0}), two({2, 0}), three({3, 0});
  for (const form f : {form::nt, form::nn, form::tn})
    for (const shape& s : {shape{1, 512, 320}, shape{33, 129, 65}, shape{300, 130, 48}, shape{520, 1100, 190},
                           shape{257, 70, 1031}, shape{48, 40, 5000}}) {
      CAPTURE(static_cast<int>(f), s.rows, s.columns, s.depth);
      std::mt19937 random(9);
      const operands<T, Out> before(f, s, 1, random);
      auto first = before, again = before, with_two = before, with_three = before;
      multiply(one, f, first, accumulate::yes);
      multiply(one, f, again, accumulate::yes);
      multiply(two, f, with_two, accumulate::yes);
      multiply(three, f, with_three, accumulate::yes);
      CHECK(same_bits(first.c.storage, again.c.storage));
      CHECK(same_bits(first.c.storage, with_two.c.storage));
      CHECK(same_bits(first.c.storage, with_three.c.storage));
      CHECK_FALSE(same_bits(first.c.storage, before.c.storage));
    }
}

TEMPLATE_TEST_CASE("the widened product of processors without bfloat16", "[gemm]", (product_types<bfloat16, bfloat16>),
                   (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  using detail::product_form;
  const shape s{37, 50, 45};
  for (const form f : {form::nt, form::nn, form::tn})
    for (const bool add : {false, true}) {
      CAPTURE(static_cast<int>(f), add);
      std::mt19937 random(10);
      operands<T, Out> before(f, s, 3, random);
      auto after = before;
      const detail::tile<T, Out> t{s.rows,         s.columns,
                                   s.depth,        after.a.storage.data(),
                                   after.a.stride, after.b.storage.data(),
                                   after.b.stride, after.c.storage.data(),
                                   after.c.stride, add};
      if (f == form::nt) detail::blas_tile<product_form::nt>(t);
      if (f == form::nn) detail::blas_tile<product_form::nn>(t);
      if (f == form::tn) detail::blas_tile<product_form::tn>(t);
      check_product(f, s, before, after, add ? accumulate::yes : accumulate::no);
    }
}

TEST_CASE("changing numbers of rows do not compile ever new products", "[gemm]") {
  context<cpu> ctx({1, 0});
  std::mt19937 random(11);
  const auto compiled = [] { return detail::onednn_worker::of_this_thread().products.size(); };
  const auto before = compiled();
  for (index_t rows = 1; rows <= 300; ++rows) {
    operands<float, float> o(form::nt, {rows, 48, 32}, 0, random), g(form::tn, {16, 48, rows}, 0, random);
    multiply(ctx, form::nt, o, accumulate::no);
    multiply(ctx, form::tn, g, accumulate::no);
  }
  // Rows come in multiples of 16 up to 256 (twice: into the output and into a padded copy), depths in multiples of 32.
  CHECK(compiled() - before <= 2 * 16 + 10);
}

TEST_CASE("products refuse shapes and strides that do not fit", "[gemm]") {
  context<cpu> ctx({1, 0});
  std::vector<float> storage(100);
  const matrix_view<float> two_by_three(storage.data(), 2, 3), three_by_three(storage.data(), 3, 3),
      two_by_two(storage.data(), 2, 2);
  const auto message = [&](const auto& call) -> std::string {
    try {
      call();
    } catch (const error& e) {
      return e.what();
    }
    return "none";
  };
  CHECK(message([&] { gemm_nt(ctx, two_by_two, two_by_three, three_by_three); }) ==
        "gemm_nt: expected one N, got y with N=2, w with N=3");
  CHECK(message([&] { gemm_nn(ctx, two_by_three, two_by_two, three_by_three); }) ==
        "gemm_nn: expected one N, got dy with N=2, w with N=3");
  CHECK(message([&] { gemm_tn(ctx, three_by_three, two_by_three, three_by_three); }) ==
        "gemm_tn: expected one M, got dy with M=2, x with M=3");
  matrix_view<float> spaced(storage.data(), 2, 3);
  spaced.strides[1] = 2;
  CHECK(message([&] { gemm_nt(ctx, two_by_three, spaced, three_by_three); }) ==
        "gemm_nt: expected unit column stride, got first operand with column stride 2");
  matrix_view<float> overlapping(storage.data(), 2, 3);
  overlapping.strides[0] = 2;
  CHECK(message([&] { gemm_nt(ctx, two_by_three, overlapping, three_by_three); }) ==
        "gemm_nt: expected rows that do not overlap, got first operand with row stride 2, columns 3");
}
