// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Products of few rows: against a naive sum, in columns that are cut for threads and that are not, and without a
// library.

#include "products.hpp"

#include <cstdint>
#include <vector>

namespace vector_product_tests {

using namespace graft;
using namespace graft::test;

namespace {

// y (rows, columns) (+)= x (rows, depth) w_e (columns, depth)^T, row r by its expert's w.
template <class T, class Out>
struct few_rows {
  index_t columns, depth;
  std::vector<std::int32_t> offsets;
  gapped_matrix<T> x, w;
  gapped_matrix<Out> y;

  few_rows(index_t columns_, index_t depth_, std::vector<std::int32_t> offsets_, index_t rows, std::mt19937& random)
      : columns(columns_),
        depth(depth_),
        offsets(std::move(offsets_)),
        x(rows, depth, 3, random),
        w(experts() * columns, depth, 5, random),
        y(rows, columns, 7, random) {}
  index_t experts() const { return static_cast<index_t>(offsets.size()) - 1; }
  void run(context<cpu>& ctx, accumulate mode) {
    if (experts() == 1)
      gemm_nt(ctx, y.view(), x.read(), w.read(), mode);
    else
      grouped_gemm_nt(ctx, y.view(), x.read(), w.read_stacked(experts()),
                      vector_view<const std::int32_t>(offsets.data(), experts() + 1), mode);
  }
};

template <class T, class Out>
void check(few_rows<T, Out>& before, few_rows<T, Out>& after, accumulate mode) {
  long double worst = 0;
  for (index_t e = 0; e < before.experts(); ++e)
    for (index_t r = before.offsets[static_cast<std::size_t>(e)]; r < before.offsets[static_cast<std::size_t>(e + 1)];
         ++r)
      for (index_t j = 0; j < before.columns; ++j) {
        reference_sum sum;
        if (mode == accumulate::yes) sum.add(before.y.value(r, j));
        for (index_t k = 0; k < before.depth; ++k)
          sum.add(static_cast<long double>(before.x.value(r, k)) * before.w.value(e * before.columns + j, k));
        const long double error = std::fabs(after.y.value(r, j) - sum.value);
        worst = std::max(worst, error / sum.template allowed<T, Out>());
        if (!(error <= sum.template allowed<T, Out>())) worst = std::numeric_limits<long double>::infinity();
      }
  CHECK(worst <= 1.0L);
  check_gaps(before.y, after.y);
}

std::size_t compiled() { return detail::onednn_worker::of_this_thread().products.size(); }

}  // namespace

TEMPLATE_TEST_CASE("products of few rows agree with a naive sum", "[gemm]", (product_types<float, float>),
                   (product_types<bfloat16, bfloat16>), (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> one({1, 0}), three({3, 0});
  const std::size_t known = compiled();
  // One row; eight rows of five experts, of which two have none, in nine rows of memory.
  const std::vector<std::int32_t> offsets =
      GENERATE(std::vector<std::int32_t>{0, 1}, std::vector<std::int32_t>{0, 3, 3, 4, 8, 8});
  struct size {
    index_t columns, depth;
  };
  // The last two are cut: more than 2^18 multiplications.
  for (const size& s :
       {size{1, 1}, size{7, 3}, size{16, 32}, size{33, 31}, size{5, 0}, size{515, 130}, size{1030, 300}})
    for (const accumulate mode : {accumulate::no, accumulate::yes}) {
      CAPTURE(offsets.size(), s.columns, s.depth, static_cast<bool>(mode));
      std::mt19937 random(7);
      few_rows<T, Out> before(s.columns, s.depth, offsets, offsets.back(), random);
      auto after = before, with_three = before;
      after.run(one, mode);
      check(before, after, mode);
      with_three.run(three, mode);
      CHECK(same_bits(after.y.storage, with_three.y.storage));
    }
  CHECK(compiled() == known);  // no library was asked
}

// An expert's rows have the bits that they have alone.
TEST_CASE("a row of few has the same bits whatever the others are", "[gemm]") {
  context<cpu> ctx({1, 0});
  std::mt19937 random(3);
  few_rows<float, float> together(130, 77, {0, 3, 5}, 5, random);
  auto alone = together;
  together.run(ctx, accumulate::no);
  for (index_t r = 0; r < 5; ++r) {
    const index_t e = r < 3 ? 0 : 1;
    gemm_nt(ctx, alone.y.view().rows(r, r + 1), alone.x.read().rows(r, r + 1),
            alone.w.read().rows(e * 130, (e + 1) * 130), accumulate::no);
  }
  CHECK(same_bits(together.y.storage, alone.y.storage));
}

}  // namespace vector_product_tests
