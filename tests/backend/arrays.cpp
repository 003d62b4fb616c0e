// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Whole-array steps: copies, scan, stable counting sort, sort of rows.

#include <cstdint>
#include <graft/backend/cpu/arrays.hpp>
#include <graft/core/dtype.hpp>
#include <numeric>
#include <random>
#include <vector>

#include "catch.hpp"
#include "cuda/array_laws.hpp"

namespace arrays_tests {

using namespace graft;

namespace {

using ints = std::vector<std::int32_t>;

vector_view<std::int32_t> view_of(ints& v) { return vector_view<std::int32_t>(v.data(), v.size()); }

}  // namespace

TEST_CASE("copies are exact and stay within bounds", "[arrays]") {
  for (const int threads : {1, 3}) {
    context<cpu> ctx({threads, 0});
    for (const index_t count : {0, 1, 1000, 1000003}) {
      std::vector<std::int32_t> source(static_cast<std::size_t>(count)),
          target(static_cast<std::size_t>(count) + 2, -7);
      std::iota(source.begin(), source.end(), 1);
      const vector_view<const std::int32_t> from(source.data(), count);
      const vector_view<std::int32_t> to(target.data() + 1, count);
      const auto check = [&](bool zero) {
        CHECK(target.front() == -7);
        CHECK(target.back() == -7);
        bool same = true;
        for (index_t i = 0; i < count; ++i) same = same && to[i] == (zero ? 0 : source[static_cast<std::size_t>(i)]);
        CHECK(same);
      };
      copy(ctx, to, from);
      check(false);
      fill_zero(ctx, to);
      check(true);
      copy_from_host(ctx, to, source.data());
      check(false);
      fill_zero(ctx, to);
      copy_to_host(ctx, target.data() + 1, from);
      check(false);
    }
  }
  context<cpu> ctx({1, 0});
  ints a(4), b(5);
  CHECK_THROWS_WITH(copy(ctx, view_of(a), view_of(b)), "copy: expected equal sizes, got target=4, source=5");
  CHECK_THROWS_WITH(fill_zero(ctx, matrix_view<std::int32_t>(a.data(), 2, 2).columns(0, 1)),
                    "fill_zero: expected a contiguous view, got one with strides");
}

TEST_CASE("exclusive_scan", "[arrays]") {
  context<cpu> ctx({1, 0});
  ints counts = {3, 0, 5, 1}, sums(5, -1), one(1, -1), none;
  exclusive_scan(ctx, view_of(sums), view_of(counts));
  CHECK(sums == ints{0, 3, 3, 8, 9});
  exclusive_scan(ctx, view_of(one), view_of(none));
  CHECK(one == ints{0});
}

TEST_CASE("counting_sort is stable and leaves out -1", "[arrays]") {
  context<cpu> ctx({2, 0});
  ints keys = {2, -1, 0, 2, 0, -1, 2}, offsets(5, 9), order(7, 9);
  counting_sort(ctx, view_of(keys), 4, view_of(offsets), view_of(order));
  CHECK(offsets == ints{0, 2, 2, 5, 5});
  CHECK(order == ints{2, 4, 0, 3, 6, -1, -1});

  std::mt19937 random(1);
  for (const std::int32_t bins : {1, 7, 128})
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{20000}}) {
      ints k(n), o(static_cast<std::size_t>(bins) + 1), sorted(n), expected;
      for (auto& key : k) key = static_cast<std::int32_t>(random() % (static_cast<unsigned>(bins) + 1)) - 1;
      counting_sort(ctx, view_of(k), bins, view_of(o), view_of(sorted));
      for (std::int32_t b = 0; b < bins; ++b) {
        CHECK(o[static_cast<std::size_t>(b)] == static_cast<std::int32_t>(expected.size()));
        for (std::size_t i = 0; i < n; ++i)
          if (k[i] == b) expected.push_back(static_cast<std::int32_t>(i));
      }
      CHECK(o.back() == static_cast<std::int32_t>(expected.size()));
      expected.resize(n, -1);
      CHECK(sorted == expected);
    }
}

TEST_CASE("argsort_rows is stable, largest first, NaN last", "[arrays][slow]") {
  for (const int threads : {1, 2}) {
    context<cpu> ctx({threads, 0});
    graft::test::check_argsort_rows<float>(ctx);
    graft::test::check_argsort_rows<double>(ctx);
    CHECK(ctx.workspace().live_bytes() == 0);
  }
  context<cpu> ctx({1, 0});
  std::vector<float> keys = {1, 3, -2, 3, NAN, 0, 2, 2, -0.0f, 0};
  ints order(10, -7);
  argsort_rows(ctx, matrix_view<std::int32_t>(order.data(), 2, 5), matrix_view<const float>(keys.data(), 2, 5));
  CHECK(order == ints{1, 3, 0, 2, 4, 1, 2, 0, 3, 4});
}

}  // namespace arrays_tests
