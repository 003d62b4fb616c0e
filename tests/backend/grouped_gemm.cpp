// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Grouped products: groups of any size, empty ones too, against the dense products of each group, which
// tests/backend/gemm.cpp holds against a naive sum.

#include "products.hpp"

#include <numeric>

namespace grouped_gemm_tests {

using namespace graft;
using namespace graft::test;

namespace {

// Sizes of the groups; the last entry is rows that belong to none.
const std::vector<std::vector<std::int32_t>> groupings = {
    {0, 5},
    {40, 0},
    {3, 0, 0, 20, 1, 7},
    {0, 0, 9},
    {17, 300, 0, 64, 33, 2, 0, 513, 0},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0},
};

std::vector<std::int32_t> offsets_of(const std::vector<std::int32_t>& sizes) {
  std::vector<std::int32_t> offsets(sizes.size(), 0);
  std::partial_sum(sizes.begin(), sizes.end() - 1, offsets.begin() + 1);
  return offsets;
}

// Where two ways of cutting may sum in another order: as in reference_sum, twice.
template <class T, class Out>
bool close(double a, double b, index_t depth, double magnitude) {
  const double unit = std::is_same_v<T, double> ? 0x1p-53 : 0x1p-24;
  const double narrow = std::is_same_v<Out, bfloat16> ? 0x1p-7 * std::max(std::fabs(a), std::fabs(b)) : 0;
  return std::fabs(a - b) <= 2.0 * static_cast<double>(depth + 2) * unit * magnitude + narrow;
}

template <class Out>
void check_rows_untouched(const gapped_matrix<Out>& before, const gapped_matrix<Out>& after, index_t first_row) {
  const auto start = static_cast<std::size_t>(first_row * before.stride);
  CHECK(std::memcmp(before.storage.data() + start, after.storage.data() + start,
                    (before.storage.size() - start) * sizeof(Out)) == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("grouped products are the products of the groups", "[gemm][grouped]", (product_types<float, float>),
                   (product_types<double, double>), (product_types<bfloat16, bfloat16>),
                   (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  context<cpu> ctx({2, 0});
  const product_ways way(GENERATE(false, true), false);
  for (const auto& sizes : groupings)
    for (const accumulate mode : {accumulate::no, accumulate::yes})
      for (const index_t width : {index_t{24}, index_t{145}}) {
        const auto experts = static_cast<index_t>(sizes.size()) - 1;
        auto offsets = offsets_of(sizes);
        const index_t used = offsets.back(), rows = used + sizes.back(), depth = 50;
        const vector_view<const std::int32_t> ends(offsets.data(), experts + 1);
        CAPTURE(experts, rows, width, static_cast<bool>(mode));
        std::mt19937 random(3);
        gapped_matrix<T> x(rows, depth, 2, random), w(experts * width, depth, 3, random), dy(rows, width, 1, random);
        gapped_matrix<Out> y(rows, width, 4, random), dx(rows, depth, 0, random), dw(experts * width, depth, 1, random);
        const auto y_before = y, dx_before = dx, dw_before = dw;
        auto y_wanted = y, dx_wanted = dx, dw_wanted = dw;

        grouped_gemm_nt(ctx, y.view(), x.read(), w.read_stacked(experts), ends, mode);
        grouped_gemm_nn(ctx, dx.view(), dy.read(), w.read_stacked(experts), ends, mode);
        grouped_gemm_tn(ctx, dw.stacked(experts), dy.read(), x.read(), ends, mode);
        for (index_t e = 0; e < experts; ++e) {
          const index_t begin = ends[e], end = ends[e + 1];
          gemm_nt(ctx, y_wanted.view().rows(begin, end), x.read().rows(begin, end), w.read_stacked(experts)[e], mode);
          gemm_nn(ctx, dx_wanted.view().rows(begin, end), dy.read().rows(begin, end), w.read_stacked(experts)[e], mode);
          gemm_tn(ctx, dw_wanted.stacked(experts)[e], dy.read().rows(begin, end), x.read().rows(begin, end), mode);
        }
        // All values are below 1 in magnitude, so a sum of n products is below n.
        bool good = true;
        for (index_t i = 0; i < used; ++i) {
          for (index_t j = 0; j < width; ++j)
            good = good && close<T, Out>(y.value(i, j), y_wanted.value(i, j), depth, double(depth) + 1);
          for (index_t j = 0; j < depth; ++j)
            good = good && close<T, Out>(dx.value(i, j), dx_wanted.value(i, j), width, double(width) + 1);
        }
        CHECK(good);
        for (index_t i = 0; i < experts * width; ++i)
          for (index_t j = 0; j < depth; ++j)
            good = good && close<T, Out>(dw.value(i, j), dw_wanted.value(i, j), rows, double(rows) + 1);
        CHECK(good);
        check_rows_untouched(y_before, y, used);
        check_rows_untouched(dx_before, dx, used);
        check_gaps(y_before, y);
        check_gaps(dw_before, dw);

        // An expert without rows: its gradient is zero, or what it was.
        for (index_t e = 0; e < experts; ++e)
          if (ends[e] == ends[e + 1])
            for (index_t i = e * width; i < (e + 1) * width; ++i)
              for (index_t j = 0; j < depth; ++j) {
                const Out expected = mode == accumulate::yes
                                         ? dw_before.storage[static_cast<std::size_t>(i * dw.stride + j)]
                                         : Out(0.0f);
                good = good && dw.value(i, j) == static_cast<double>(expected);
              }
        CHECK(good);
      }
}

TEMPLATE_TEST_CASE("grouped products give the same bits for any number of threads", "[gemm][grouped]",
                   (product_types<float, float>), (product_types<bfloat16, bfloat16>),
                   (product_types<bfloat16, float>)) {
  using T = typename TestType::operand;
  using Out = typename TestType::output;
  const product_ways way(GENERATE(false, true), false);
  const auto& sizes = groupings[4];
  const auto experts = static_cast<index_t>(sizes.size()) - 1;
  auto offsets = offsets_of(sizes);
  const index_t rows = offsets.back(), width = 130, depth = 70;
  const vector_view<const std::int32_t> ends(offsets.data(), experts + 1);
  std::vector<std::vector<Out>> results;
  for (const int threads : {1, 2, 3, 1}) {
    context<cpu> ctx({threads, 0});
    std::mt19937 random(4);
    gapped_matrix<T> x(rows, depth, 2, random), w(experts * width, depth, 0, random), dy(rows, width, 1, random);
    gapped_matrix<Out> y(rows, width, 0, random), dx(rows, depth, 0, random), dw(experts * width, depth, 0, random);
    grouped_gemm_nt(ctx, y.view(), x.read(), w.read_stacked(experts), ends, accumulate::no);
    grouped_gemm_nn(ctx, dx.view(), dy.read(), w.read_stacked(experts), ends, accumulate::yes);
    grouped_gemm_tn(ctx, dw.stacked(experts), dy.read(), x.read(), ends, accumulate::yes);
    auto& all = results.emplace_back(y.storage);
    all.insert(all.end(), dx.storage.begin(), dx.storage.end());
    all.insert(all.end(), dw.storage.begin(), dw.storage.end());
  }
  for (std::size_t i = 1; i < results.size(); ++i) CHECK(same_bits(results[0], results[i]));
}

TEST_CASE("grouped products refuse offsets that do not fit", "[gemm][grouped]") {
  context<cpu> ctx({1, 0});
  std::vector<float> storage(200);
  const matrix_view<float> y(storage.data(), 6, 3), x(storage.data(), 6, 3);
  const view<float, 3> w(storage.data(), 2, 3, 3);
  std::vector<std::int32_t> falling = {0, 4, 2}, beyond = {0, 4, 7}, few = {0, 4};
  const auto call = [&](std::vector<std::int32_t>& o) {
    grouped_gemm_nt(ctx, y, x, w, vector_view<const std::int32_t>(o.data(), o.size()), accumulate::no);
  };
  CHECK_THROWS_WITH(call(falling), "grouped_gemm_nt: expected ascending offsets, got offsets[1]=4, offsets[2]=2");
  CHECK_THROWS_WITH(call(beyond), "grouped_gemm_nt: expected offsets in [0, 6], got 0 to 7");
  CHECK_THROWS_WITH(call(few), "grouped_gemm_nt: expected offsets of size E+1=3, got 2");
}

}  // namespace grouped_gemm_tests
