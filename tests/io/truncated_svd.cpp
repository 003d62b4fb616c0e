// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The truncated decomposition against one known in closed form and one by Jacobi's method; rank, threads, errors.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <graft/io/truncated_svd.hpp>

#include "io/io_test.hpp"

namespace truncated_svd_tests {

namespace {

using graft::index_t;

graft::sparse_matrix matrix(index_t rows, index_t columns, const std::vector<double>& dense) {
  graft::sparse_matrix x{rows, columns, {0}, {}, {}};
  for (index_t i = 0; i < rows; ++i) {
    for (index_t j = 0; j < columns; ++j)
      if (const double value = dense[static_cast<std::size_t>(i * columns + j)]; value != 0) {
        x.column.push_back(static_cast<std::int32_t>(j));
        x.value.push_back(static_cast<float>(value));
      }
    x.begin.push_back(static_cast<index_t>(x.column.size()));
  }
  return x;
}

// The j-th cosine of n points: these are orthonormal for j = 1, 2, ..., n - 1.
double cosine(index_t n, index_t j, index_t i) {
  return std::sqrt(2.0 / static_cast<double>(n)) *
         std::cos(3.141592653589793 * (static_cast<double>(i) + 0.5) * static_cast<double>(j) / static_cast<double>(n));
}

// Eigenvalues of a symmetric matrix, descending, by two-sided Jacobi rotations.
std::vector<double> eigenvalues(std::vector<double> a, std::size_t n) {
  for (int sweep = 0; sweep < 30; ++sweep)
    for (std::size_t p = 0; p < n; ++p)
      for (std::size_t q = p + 1; q < n; ++q) {
        if (a[p * n + q] == 0) continue;
        const double angle = 0.5 * std::atan2(2 * a[p * n + q], a[q * n + q] - a[p * n + p]);
        const double c = std::cos(angle), s = std::sin(angle);
        for (std::size_t i = 0; i < n; ++i) {
          const double x = a[i * n + p], y = a[i * n + q];
          a[i * n + p] = c * x - s * y, a[i * n + q] = s * x + c * y;
        }
        for (std::size_t i = 0; i < n; ++i) {
          const double x = a[p * n + i], y = a[q * n + i];
          a[p * n + i] = c * x - s * y, a[q * n + i] = s * x + c * y;
        }
      }
  std::vector<double> values;
  for (std::size_t i = 0; i < n; ++i) values.push_back(a[i * n + i]);
  std::sort(values.begin(), values.end(), std::greater<>());
  return values;
}

void check_orthonormal(const graft::truncated_svd& svd, index_t rows) {
  for (index_t a = 0; a < svd.dimensions; ++a)
    for (index_t b = 0; b <= a; ++b) {
      double dot = 0;
      for (index_t i = 0; i < rows; ++i)
        dot += svd.right[static_cast<std::size_t>(i * svd.dimensions + a)] *
               svd.right[static_cast<std::size_t>(i * svd.dimensions + b)];
      CHECK(std::abs(dot - (a == b ? 1 : 0)) < 1e-13);  // 1e3 roundings of 1e-16
    }
}

}  // namespace

TEST_CASE("truncated_svd: a decomposition known in closed form", "[io][clusters]") {
  const index_t rows = 60, columns = 40, rank = 30;
  std::vector<double> dense;
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (index_t r = 1; r <= rank; ++r) sum += std::pow(2.0, -r) * cosine(rows, r, i) * cosine(columns, r, j);
      dense.push_back(sum);
    }
  graft::context<graft::cpu> ctx(graft::context_options{1});
  graft::truncated_svd_options options;
  options.dimensions = 4, options.oversampling = 6;  // 10 of 30 directions
  const graft::truncated_svd svd = graft::make_truncated_svd(ctx, matrix(rows, columns, dense), options);
  REQUIRE(svd.dimensions == 4);
  check_orthonormal(svd, columns);
  for (index_t r = 0; r < 4; ++r) {
    // The elements are floats: an error of at most 2^-24 of the Frobenius norm, which is below 0.6.
    CHECK(std::abs(svd.singular_values[static_cast<std::size_t>(r)] - std::pow(2.0, -r - 1)) < 4e-8);
    double dot = 0;
    for (index_t i = 0; i < columns; ++i)
      dot += svd.right[static_cast<std::size_t>(i * 4 + r)] * cosine(columns, r + 1, i);
    CHECK(std::abs(std::abs(dot) - 1) < 1e-10);  // the square of that error over the gap of 2^-5: 2e-12
  }
}

TEST_CASE("truncated_svd: all singular values of a sparse matrix", "[io][clusters]") {
  const index_t rows = 14, columns = 9;
  const graft::random_source random{3};
  std::vector<double> dense;
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(rows * columns); ++i)
    dense.push_back(random.words(0, i).word[0] % 3 == 0 ? static_cast<float>(random.normal(1, i)) : 0.0);
  std::vector<double> gram(static_cast<std::size_t>(columns * columns), 0.0);
  for (index_t a = 0; a < columns; ++a)
    for (index_t b = 0; b < columns; ++b)
      for (index_t i = 0; i < rows; ++i)
        gram[static_cast<std::size_t>(a * columns + b)] +=
            dense[static_cast<std::size_t>(i * columns + a)] * dense[static_cast<std::size_t>(i * columns + b)];
  const std::vector<double> squares = eigenvalues(gram, static_cast<std::size_t>(columns));
  graft::context<graft::cpu> ctx(graft::context_options{1});
  const graft::truncated_svd svd = graft::make_truncated_svd(ctx, matrix(rows, columns, dense));
  REQUIRE(svd.dimensions == columns);
  check_orthonormal(svd, columns);
  for (std::size_t r = 0; r < squares.size(); ++r)
    CHECK(std::abs(svd.singular_values[r] * svd.singular_values[r] - squares[r]) < 1e-13 * squares[0]);
  // X V has orthogonal columns of these lengths.
  for (index_t r = 0; r < columns; ++r)
    for (index_t other = 0; other <= r; ++other) {
      double dot = 0;
      for (index_t i = 0; i < rows; ++i) {
        double a = 0, b = 0;
        for (index_t j = 0; j < columns; ++j) {
          a += dense[static_cast<std::size_t>(i * columns + j)] * svd.right[static_cast<std::size_t>(j * columns + r)];
          b += dense[static_cast<std::size_t>(i * columns + j)] *
               svd.right[static_cast<std::size_t>(j * columns + other)];
        }
        dot += a * b;
      }
      CHECK(std::abs(dot - (r == other ? squares[static_cast<std::size_t>(r)] : 0)) < 1e-13 * squares[0]);
    }
  // The component of largest size is positive.
  for (index_t r = 0; r < columns; ++r) {
    double largest = 0;
    for (index_t i = 0; i < columns; ++i) {
      const double value = svd.right[static_cast<std::size_t>(i * columns + r)];
      if (std::abs(value) > std::abs(largest)) largest = value;
    }
    CHECK(largest > 0);
  }
}

TEST_CASE("truncated_svd: no more dimensions than the rank", "[io][clusters]") {
  std::vector<double> dense;
  for (int i = 0; i < 12; ++i)
    for (int j = 0; j < 8; ++j) dense.push_back((i % 4 + 1) * (j % 3) + (i % 3) * (j + 1));
  graft::context<graft::cpu> ctx(graft::context_options{1});
  const graft::truncated_svd svd = graft::make_truncated_svd(ctx, matrix(12, 8, dense));
  CHECK(svd.dimensions == 2);
  check_orthonormal(svd, 8);
}

TEST_CASE("truncated_svd: the same bits for any number of threads", "[io][clusters]") {
  const graft::random_source random{5};
  std::vector<double> dense;
  for (std::uint64_t i = 0; i < 400 * 150; ++i)
    dense.push_back(random.words(0, i).word[0] % 8 == 0 ? random.normal(1, i) : 0.0);
  const graft::sparse_matrix x = matrix(400, 150, dense);
  graft::truncated_svd_options options;
  options.dimensions = 50, options.iterations = 1;
  graft::context<graft::cpu> one(graft::context_options{1}), two(graft::context_options{2});
  const graft::truncated_svd a = graft::make_truncated_svd(one, x, options);
  const graft::truncated_svd b = graft::make_truncated_svd(two, x, options);
  CHECK((a.singular_values == b.singular_values));
  CHECK((a.right == b.right));
}

TEST_CASE("truncated_svd: bad input", "[io][clusters]") {
  graft::context<graft::cpu> ctx(graft::context_options{1});
  CHECK_ERROR(graft::make_truncated_svd(ctx, matrix(2, 3, std::vector<double>(6, 0.0))), "2 x 3 zeros");
  graft::truncated_svd_options options;
  options.dimensions = 0;
  CHECK_ERROR(graft::make_truncated_svd(ctx, matrix(1, 1, {1.0}), options), "dimensions >= 1", "got 0");
}

}  // namespace truncated_svd_tests
