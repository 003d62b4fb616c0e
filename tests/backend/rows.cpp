// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Groups and launchers: the laws of Group, under serial_group and the shuffled group.

#include "shuffled_group.hpp"

#include <cmath>
#include <cstring>
#include <graft/backend/cpu/rows.hpp>
#include <graft/core/math.hpp>
#include <limits>
#include <vector>

#include "catch.hpp"

namespace rows_tests {

using namespace graft;
using graft::test::launch_shuffled;
using graft::test::shuffled_group;

namespace {

// p_i = e^(x_i - max) / sum: uses every member of a group.
struct softmax_rows {
  matrix_view<const float> x;  // (T, D)
  matrix_view<float> p;        // (T, D)
  vector_view<index_t> best;   // (T)
  vector_view<int> calls;      // (T)

  template <Group G>
  void operator()(G& group, index_t row) const {
    const float* from = x.row(row);
    float* to = p.row(row);
    const index_t n = x.extent(1);
    const float largest = group.max(n, [=](index_t i) { return from[i]; });
    group.for_each(n, [=](index_t i) { to[i] = math::exp(from[i] - largest); });
    group.sync();
    const float total = group.sum(n, [=](index_t i) { return to[i]; });
    group.for_each(n, [=](index_t i) { to[i] /= total; });
    best[row] = group.argmax(n, [=](index_t i) { return from[i]; }).index;
    group.single([&] { ++calls[row]; });
  }
};

template <class G>
void check_laws(G group) {
  for (const index_t n : {0, 1, 2, 15, 16, 17, 63, 64, 65, 1000}) {
    CAPTURE(n);
    std::vector<int> visits(static_cast<std::size_t>(n), 0);
    group.for_each(n, [&](index_t i) { ++visits[static_cast<std::size_t>(i)]; });
    CHECK(visits == std::vector<int>(static_cast<std::size_t>(n), 1));
    CHECK(group.sum(n, [](index_t i) { return i; }) == n * (n - 1) / 2);
    CHECK(group.sum(n, [](index_t i) { return 0.5 * static_cast<double>(i); }) ==
          0.25 * static_cast<double>(n * (n - 1)));
    CHECK(group.reduce(
              n, [](index_t i) { return static_cast<std::uint32_t>(i) * 2654435761u; },
              [](std::uint32_t a, std::uint32_t b) { return a ^ b; }, 0u) == [n] {
      std::uint32_t all = 0;
      for (index_t i = 0; i < n; ++i) all ^= static_cast<std::uint32_t>(i) * 2654435761u;
      return all;
    }());
    if (n == 0) continue;
    const auto hill = [n](index_t i) { return static_cast<float>(-std::abs(i - n / 3)); };
    CHECK(group.max(n, hill) == 0.0f);
    CHECK(group.argmax(n, hill).index == n / 3);
    CHECK(group.argmax(n, hill).value == 0.0f);
    // Ties go to the lower index.
    CHECK(group.argmax(n, [](index_t) { return 3; }).index == 0);
    CHECK(group.argmax(n, [n](index_t i) { return i >= n / 2 ? 1.0f : -1.0f; }).index == n / 2);
    // NaN is passed over; nothing above the lowest gives index 0.
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    const auto holes = [=](index_t i) { return i % 2 == 0 && n > 1 ? nan : static_cast<float>(i); };
    if (n > 1) CHECK(group.argmax(n, holes).index == (n % 2 == 0 ? n - 1 : n - 2));
    CHECK(group.argmax(n, [=](index_t) { return nan; }).index == 0);
    CHECK(group.argmax(n, [=](index_t) { return -infinity; }).index == 0);
    CHECK(group.max(n, [=](index_t) { return nan; }) == -infinity);
  }
  CHECK(group.max(0, [](index_t) { return 1.0f; }) == -std::numeric_limits<float>::infinity());
  CHECK(group.max(0, [](index_t) { return 1; }) == std::numeric_limits<int>::lowest());
  CHECK(group.sum(0, [](index_t) { return 1.0f; }) == 0.0f);
  int calls = 0;
  group.single([&] { ++calls; });
  CHECK(calls == 1);
}

}  // namespace

TEST_CASE("serial_group obeys the laws of Group", "[rows]") { check_laws(serial_group()); }
TEST_CASE("shuffled_group obeys the laws of Group", "[rows]") { check_laws(shuffled_group(5)); }

TEST_CASE("serial_group sums in sixteen fixed lanes", "[rows]") {
  std::vector<float> x(1003);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = std::sin(static_cast<float>(i)) * std::pow(10.0f, static_cast<float>(i % 7));
  for (const index_t n : {5, 16, 40, 1003}) {
    float lane[16] = {};
    for (index_t i = 0; i < n; ++i) lane[i % 16] += x[static_cast<std::size_t>(i)];
    for (const int half : {8, 4, 2, 1})
      for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
    const float sum = serial_group().sum(n, [&](index_t i) { return x[static_cast<std::size_t>(i)]; });
    CHECK(std::memcmp(&sum, &lane[0], sizeof(float)) == 0);
  }
}

TEST_CASE("a row algorithm gives one result for any threads and any order", "[rows]") {
  const index_t rows = 301, width = 83;
  std::vector<float> x(static_cast<std::size_t>(rows * width));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i) * 1.7f) * 4.0f;
  struct result {
    std::vector<float> p;
    std::vector<index_t> best;
    std::vector<int> calls;
  };
  const auto run = [&](const auto& launch) {
    result r{std::vector<float>(x.size()), std::vector<index_t>(rows), std::vector<int>(rows, 0)};
    launch(softmax_rows{matrix_view<const float>(x.data(), rows, width), matrix_view<float>(r.p.data(), rows, width),
                        vector_view<index_t>(r.best.data(), rows), vector_view<int>(r.calls.data(), rows)});
    CHECK(r.calls == std::vector<int>(rows, 1));
    return r;
  };
  const auto with_threads = [&](int threads) {
    context<cpu> ctx({threads, 0});
    return run([&](const softmax_rows& algorithm) { launch_rows(ctx, rows, width, algorithm); });
  };
  const result one = with_threads(1), three = with_threads(3);
  CHECK(one.p == three.p);
  CHECK(one.best == three.best);
  const result shuffled = run([&](const softmax_rows& algorithm) { launch_shuffled(rows, 11, algorithm); });
  CHECK(shuffled.best == one.best);
  // A sum of 83 positive terms, each addition within 2^-24: relative error below 83 * 2^-24, on both sides.
  float worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::fabs(shuffled.p[i] - one.p[i]) / one.p[i]);
  CHECK(worst <= 2 * 83 * 0x1p-24f);
  CHECK(one.p[0] > 0.0f);
}

TEST_CASE("launch_elements visits every element once", "[rows]") {
  for (const int threads : {1, 2, 5}) {
    context<cpu> ctx({threads, 0});
    for (const index_t count : {0, 1, 4095, 4096, 4097, 100000}) {
      std::vector<std::uint8_t> visits(static_cast<std::size_t>(count), 0);
      launch_elements(ctx, count, [data = visits.data()](index_t i) { ++data[i]; });
      CHECK(visits == std::vector<std::uint8_t>(static_cast<std::size_t>(count), 1));
    }
  }
}

}  // namespace rows_tests
