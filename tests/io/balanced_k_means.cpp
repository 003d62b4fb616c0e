// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Balanced k-means: sizes, assignments worked out by hand, groups that are there to be found, threads, errors.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include <graft/io/balanced_k_means.hpp>

#include "io/io_test.hpp"

namespace balanced_k_means_tests {

namespace {

using graft::index_t;

std::vector<index_t> sizes(const std::vector<std::int32_t>& cluster, index_t k) {
  std::vector<index_t> result(static_cast<std::size_t>(k), 0);
  for (const std::int32_t c : cluster) ++result.at(static_cast<std::size_t>(c));
  return result;
}

// groups of `each` points around (10 g, 0, ..., 0) with a spread of about 1, in turn.
std::vector<double> points_in_groups(index_t groups, index_t each, index_t dimensions) {
  const graft::random_source random{11};
  std::vector<double> points;
  for (index_t i = 0; i < groups * each; ++i)
    for (index_t e = 0; e < dimensions; ++e)
      points.push_back((e == 0 ? 10.0 * static_cast<double>(i % groups) : 0.0) +
                       random.normal(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(e)));
  return points;
}

}  // namespace

TEST_CASE("assign_balanced: by hand", "[io][clusters]") {
  graft::context<graft::cpu> ctx(graft::context_options{1});
  // Margins 1, 2, 3, 4 towards cluster 0 and 1 towards cluster 1: 0 takes one more than half, those of largest margin.
  CHECK(graft::assign_balanced(ctx, std::vector<double>{0, 1, 0, 2, 0, 3, 0, 4, 1, 0}, 2) ==
        std::vector<std::int32_t>{1, 0, 0, 0, 1});
  // The margin of point 1 is taken anew when cluster 0 is full: then it is 7 - 1 and above that of point 2, before 1.
  CHECK(graft::assign_balanced(ctx, std::vector<double>{0, 9, 9, 0, 1, 7, 0, 2, 3}, 3) ==
        std::vector<std::int32_t>{0, 1, 2});
  // Equal margins: the lower point; equal distances: the lower cluster.
  CHECK(graft::assign_balanced(ctx, std::vector<double>{1, 1, 1, 1, 1, 1, 1, 1}, 2) ==
        std::vector<std::int32_t>{0, 0, 1, 1});
}

TEST_CASE("assign_balanced: sizes differ by at most one, and nearest centres are kept where they fit",
          "[io][clusters]") {
  graft::context<graft::cpu> ctx(graft::context_options{1});
  const graft::random_source random{2};
  for (index_t k = 2; k <= 7; ++k)
    for (index_t n = k; n < 40; n += 3) {
      std::vector<double> distances;
      for (index_t i = 0; i < n * k; ++i)
        distances.push_back(
            random.words(static_cast<std::uint64_t>(n * 100 + k), static_cast<std::uint64_t>(i)).word[0]);
      const std::vector<index_t> found = sizes(graft::assign_balanced(ctx, distances, k), k);
      const auto [least, most] = std::minmax_element(found.begin(), found.end());
      CHECK(*most - *least <= 1);
      for (index_t i = 0; i < n; ++i) distances[static_cast<std::size_t>(i * k + i % k)] = -1;
      const std::vector<std::int32_t> cluster = graft::assign_balanced(ctx, distances, k);
      for (index_t i = 0; i < n; ++i) CHECK(cluster[static_cast<std::size_t>(i)] == i % k);
    }
}

TEST_CASE("balanced_k_means: finds groups, with their means as centres", "[io][clusters]") {
  const index_t groups = 5, each = 21, dimensions = 3;
  const std::vector<double> points = points_in_groups(groups, each, dimensions);
  graft::context<graft::cpu> ctx(graft::context_options{1});
  graft::balanced_k_means_options options;
  options.clusters = groups;
  const graft::balanced_clusters found = graft::balanced_k_means(ctx, points, dimensions, options);
  std::set<std::int32_t> used;
  double cost = 0;
  for (index_t g = 0; g < groups; ++g) {
    const std::int32_t cluster = found.cluster[static_cast<std::size_t>(g)];
    CHECK(used.insert(cluster).second);
    std::vector<double> mean(3, 0.0);
    for (index_t i = g; i < groups * each; i += groups) {
      CHECK(found.cluster[static_cast<std::size_t>(i)] == cluster);
      for (std::size_t e = 0; e < 3; ++e) mean[e] += points[static_cast<std::size_t>(i) * 3 + e] / each;
    }
    for (std::size_t e = 0; e < 3; ++e)
      CHECK(std::abs(found.centres[static_cast<std::size_t>(cluster) * 3 + e] - mean[e]) < 1e-13);  // 21 terms up to 45
    for (index_t i = g; i < groups * each; i += groups)
      for (std::size_t e = 0; e < 3; ++e)
        cost += (points[static_cast<std::size_t>(i) * 3 + e] - mean[e]) *
                (points[static_cast<std::size_t>(i) * 3 + e] - mean[e]);
  }
  CHECK(found.cost == Approx(cost).epsilon(1e-12));
  for (index_t g = 0; g < groups; ++g) {
    const std::vector<double> at{10.0 * static_cast<double>(g), 0, 0};
    CHECK(graft::nearest_centre(at, found.centres) == found.cluster[static_cast<std::size_t>(g)]);
  }
}

TEST_CASE("balanced_k_means: groups of unequal size are cut to equal ones", "[io][clusters]") {
  graft::context<graft::cpu> ctx(graft::context_options{1});
  std::vector<double> points;
  for (int i = 0; i < 31; ++i) points.push_back(i < 24 ? 0.01 * i : 5 + 0.01 * i);
  graft::balanced_k_means_options options;
  options.clusters = 2;
  const graft::balanced_clusters found = graft::balanced_k_means(ctx, points, 1, options);
  const std::vector<index_t> size = sizes(found.cluster, 2);
  CHECK(std::abs(size[0] - size[1]) == 1);
  for (std::size_t i = 25; i < 31; ++i) CHECK(found.cluster[i] == found.cluster[24]);
}

TEST_CASE("balanced_k_means: points that are all alike, and as many clusters as points", "[io][clusters]") {
  graft::context<graft::cpu> ctx(graft::context_options{1});
  graft::balanced_k_means_options options;
  options.clusters = 3;
  const graft::balanced_clusters alike = graft::balanced_k_means(ctx, std::vector<double>(14, 0.5), 2, options);
  CHECK(alike.cost == 0);
  CHECK(sizes(alike.cluster, 3) == std::vector<index_t>{3, 2, 2});
  const graft::balanced_clusters own = graft::balanced_k_means(ctx, std::vector<double>{1, 5, 9}, 1, options);
  CHECK(own.cost == 0);
}

TEST_CASE("balanced_k_means: the same bits for any number of threads", "[io][clusters]") {
  const graft::random_source random{7};
  std::vector<double> points;
  for (std::uint64_t i = 0; i < 600 * 8; ++i) points.push_back(random.normal(0, i));
  graft::balanced_k_means_options options;
  options.clusters = 6, options.iterations = 5, options.starts = 2;
  graft::context<graft::cpu> one(graft::context_options{1}), two(graft::context_options{2});
  const graft::balanced_clusters a = graft::balanced_k_means(one, points, 8, options);
  const graft::balanced_clusters b = graft::balanced_k_means(two, points, 8, options);
  CHECK((a.centres == b.centres));
  CHECK((a.cluster == b.cluster));
  CHECK(a.cost == b.cost);
  CHECK(sizes(a.cluster, 6) == std::vector<index_t>(6, 100));
}

TEST_CASE("balanced_k_means: bad input", "[io][clusters]") {
  graft::context<graft::cpu> ctx(graft::context_options{1});
  graft::balanced_k_means_options options;
  const std::vector<double> three{1, 2, 3};
  CHECK_ERROR(graft::balanced_k_means(ctx, three, 1, options), "points=3", "clusters=4");
  CHECK_ERROR(graft::balanced_k_means(ctx, three, 2, options), "2 dimensions", "3 numbers");
  options.clusters = 1;
  CHECK_ERROR(graft::balanced_k_means(ctx, three, 1, options), "at least 2 clusters", "got 1");
  options.clusters = 2;
  const std::vector<double> bad{1, 2, std::numeric_limits<double>::quiet_NaN()};
  CHECK_ERROR(graft::balanced_k_means(ctx, bad, 1, options), "finite");
}

}  // namespace balanced_k_means_tests
