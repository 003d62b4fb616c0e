// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Dense products against a naive sum: every form and type, extents that are not multiples of anything, strides,
// accumulation; the same bits for any number of threads.

#include "products.hpp"

#include <array>
#include <string>

namespace gemm_tests {

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

// How many ways a type's products have (product_ways).
template <class T>
constexpr int ways = std::is_same_v<T, bfloat16> ? 2 : 1;

// Counts what this thread compiled, by form and by layout.
struct compiled_products {
  int tn = 0, nn = 0, packed = 0;
};
compiled_products compiled() {
  compiled_products count;
  for (const auto& product : detail::onednn_worker::of_this_thread().products) {
    count.tn += product.first.form == detail::product_form::tn;
    count.nn += product.first.form == detail::product_form::nn && !product.first.packed;
    count.packed += product.first.packed;
  }
  return count;
}

}  // namespace

TEMPLATE_TEST_CASE("products agree with a naive sum", "[gemm][slow]", (product_types<float, float>),
                   (product_types<double, double>), (product_types<bfloat16, bfloat16>),
                   (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> ctx({2, 0});
  const bool either = GENERATE(range(0, ways<T>)) == 1;
  const product_ways way(either, either);
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

TEMPLATE_TEST_CASE("a weight's gradient over many rows", "[gemm][slow]", (product_types<float, float>),
                   (product_types<bfloat16, bfloat16>), (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> ctx;
  const bool transposes = GENERATE(range(0, ways<T>)) == 1;
  const product_ways way(transposes, false);
  const shape s =
      GENERATE(shape{20, 24, 4096 + 45}, shape{20, 1030, 4096 + 45}, shape{20, 2100, 600}, shape{300, 1100, 530});
  for (const accumulate mode : {accumulate::no, accumulate::yes}) {
    std::mt19937 random(8);
    operands<T, Out> before(form::tn, s, 3, random);
    auto after = before;
    multiply(ctx, form::tn, after, mode);
    check_product(form::tn, s, before, after, mode);
  }
}

TEMPLATE_TEST_CASE("a weight read by many rows", "[gemm][slow]", (product_types<bfloat16, bfloat16>),
                   (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> ctx({2, 0});
  const product_ways way(false, GENERATE(false, true));
  const shape s = GENERATE(shape{513, 40, 33}, shape{512, 64, 64}, shape{530, 2070, 9}, shape{1100, 1, 17});
  for (const form f : {form::nt, form::nn})
    for (const index_t gap : {index_t{0}, index_t{5}})
      for (const accumulate mode : {accumulate::no, accumulate::yes}) {
        CAPTURE(static_cast<int>(f), s.rows, s.columns, s.depth, gap, static_cast<bool>(mode));
        std::mt19937 random(12);
        operands<T, Out> before(f, s, gap, random);
        auto after = before;
        multiply(ctx, f, after, mode);
        check_product(f, s, before, after, mode);
      }
}

TEST_CASE("the ways of a bfloat16 product are taken as set", "[gemm]") {
  context<cpu> ctx({1, 0});
  std::mt19937 random(13);
  const bool transposes = GENERATE(false, true), packs = GENERATE(false, true);
  const product_ways way(transposes, packs);
  detail::onednn_worker::of_this_thread().products.clear();
  operands<bfloat16, float> gradient(form::tn, {32, 48, 96}, 0, random), forward(form::nt, {512, 32, 48}, 0, random),
      few(form::nt, {64, 32, 48}, 0, random);
  multiply(ctx, form::tn, gradient, accumulate::no);
  const bool library = detail::onednn_has_bfloat16();
  CHECK(compiled().tn == (library && !transposes));
  CHECK(compiled().nn == (library && transposes));
  multiply(ctx, form::nt, few, accumulate::no);
  CHECK(compiled().packed == 0);
  multiply(ctx, form::nt, forward, accumulate::no);
  CHECK((compiled().packed > 0) == (library && packs));
}

TEST_CASE("oneDNN packs a weight in one layout whatever the rows", "[gemm]") {
  // Otherwise tiles would read the plain weight: right, but slow.
  if (!detail::onednn_has_bfloat16()) return;
  const detail::sequential_libraries sequential;
  const auto layout = [](index_t rows, auto output) {
    detail::tile<bfloat16, decltype(output)> t{rows, 192, 160, nullptr, 160, nullptr, 192, nullptr, 192, false};
    return detail::compiled_product(detail::onednn_worker::of_this_thread(),
                                    detail::packed_key_of<detail::product_form::nn>(t))
        .b_layout();
  };
  const auto wanted = layout(256, bfloat16());
  for (const index_t rows : {16, 32, 64, 112, 240}) {
    const auto narrow = layout(rows, bfloat16()), wide = layout(rows, 0.0f);
    CHECK(dnnl_memory_desc_equal(&wanted, &narrow));
    CHECK(dnnl_memory_desc_equal(&wanted, &wide));
  }
}

TEMPLATE_TEST_CASE("products give the same bits for any number of threads", "[gemm][slow]", (product_types<float, float>),
                   (product_types<double, double>), (product_types<bfloat16, bfloat16>),
                   (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> one({1, 0}), two({2, 0}), three({3, 0});
  const bool either = GENERATE(range(0, ways<T>)) == 1;
  const product_ways way(either, either);
  for (const form f : {form::nt, form::nn, form::tn})
    for (const shape& s : {shape{1, 512, 320}, shape{33, 129, 65}, shape{300, 130, 48}, shape{520, 1100, 190},
                           shape{530, 2070, 40}, shape{257, 70, 1031}, shape{48, 40, 5000}}) {
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
  const auto count = [] { return detail::onednn_worker::of_this_thread().products.size(); };
  const auto before = count();
  for (index_t rows = 1; rows <= 300; ++rows) {
    operands<float, float> o(form::nt, {rows, 48, 32}, 0, random), g(form::tn, {16, 48, rows}, 0, random);
    multiply(ctx, form::nt, o, accumulate::no);
    multiply(ctx, form::tn, g, accumulate::no);
  }
  // Rows come in multiples of 16 up to 256 (twice: into the output and into a padded copy), depths in multiples of 32.
  CHECK(count() - before <= 2 * 16 + 10);
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

}  // namespace gemm_tests
