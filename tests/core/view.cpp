// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <numeric>
#include <type_traits>
#include <vector>

#include <graft/core/view.hpp>

namespace view_tests {

using namespace graft;

namespace {

// A view is read-only exactly where its elements are, and memory spaces do not mix.
static_assert(std::is_convertible_v<view<float, 2>, view<const float, 2>>);
static_assert(!std::is_convertible_v<view<const float, 2>, view<float, 2>>);
static_assert(!std::is_convertible_v<view<float, 2>, view<float, 1>>);
static_assert(!std::is_convertible_v<view<float, 2, host_space>, view<float, 2, device_space>>);
static_assert(!std::is_convertible_v<float*, view<float, 1>>);
static_assert(std::is_trivially_copyable_v<view<double, 4>>);
static_assert(std::is_same_v<matrix_view<int>, view<int, 2, host_space>> &&
              std::is_same_v<vector_view<int>, view<int, 1>>);

std::vector<int> counted(int count) {
  std::vector<int> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

}  // namespace

TEST_CASE("view: row-major extents, strides and elements", "[core]") {
  std::vector<int> values = counted(24);
  const view<int, 3> v(values.data(), 2, 3, 4);
  CHECK(v.size() == 24);
  CHECK((v.extent(0) == 2 && v.extent(1) == 3 && v.extent(2) == 4));
  CHECK((v.strides[0] == 12 && v.strides[1] == 4 && v.strides[2] == 1));
  CHECK(v.contiguous());
  CHECK(!v.empty());
  int wrong = 0;
  for (int a = 0; a < 2; ++a)
    for (int b = 0; b < 3; ++b)
      for (int c = 0; c < 4; ++c)
        if (v(a, b, c) != (a * 3 + b) * 4 + c || &v[a][b][c] != &v(a, b, c)) ++wrong;
  CHECK(wrong == 0);
  v(1, 2, 3) = -1;  // through a const view, as with a span
  CHECK(values[23] == -1);
}

TEST_CASE("view: slices keep the strides of what they cut", "[core]") {
  std::vector<int> values = counted(40);
  const matrix_view<int> whole(values.data(), 5, 8);

  const matrix_view<int> some_rows = whole.rows(1, 4);
  CHECK((some_rows.extent(0) == 3 && some_rows.extent(1) == 8));
  CHECK(some_rows(0, 0) == 8);
  CHECK(some_rows(2, 7) == 31);
  CHECK(some_rows.contiguous());

  const matrix_view<int> block = whole.rows(1, 4).columns(2, 5);
  CHECK((block.extent(0) == 3 && block.extent(1) == 3 && block.size() == 9));
  CHECK(block.strides[0] == 8);
  CHECK(block(0, 0) == 10);
  CHECK(block(2, 2) == 28);
  CHECK(block.row(1) == &whole(2, 2));
  CHECK(!block.contiguous());
  CHECK(block.rows(1, 2).contiguous());  // a single row of it is

  const vector_view<int> row = block[2];
  CHECK((row.extent(0) == 3 && row[0] == 26 && row[2] == 28));
  CHECK(row.rows(1, 3)[0] == 27);
  CHECK(row.columns(1, 3)[0] == 27);

  CHECK(whole.rows(2, 2).empty());
  CHECK(whole.columns(3, 3).empty());
  CHECK(whole.rows(0, 5).contiguous());
}

TEST_CASE("view: strides made by hand", "[core]") {
  std::vector<int> values = counted(12);
  view<int, 1> column;  // column 1 of a (3, 4) matrix
  column.data = values.data() + 1;
  column.extents[0] = 3;
  column.strides[0] = 4;
  CHECK((column[0] == 1 && column[1] == 5 && column(2) == 9));
  CHECK(!column.contiguous());
  CHECK(column.rows(1, 3)[1] == 9);
  CHECK(column.columns(1, 2)[0] == 5);

  view<int, 2> transposed;
  transposed.data = values.data();
  transposed.extents[0] = 4, transposed.extents[1] = 3;
  transposed.strides[0] = 1, transposed.strides[1] = 4;
  CHECK(transposed(3, 2) == 11);
  CHECK(transposed[1][2] == 9);
  CHECK(transposed.columns(1, 3)(0, 0) == 4);
  CHECK(!transposed.contiguous());
}

TEST_CASE("view: conversion to const keeps everything", "[core]") {
  std::vector<int> values = counted(20);
  const matrix_view<const int> v = matrix_view<int>(values.data(), 4, 5).columns(1, 3);
  CHECK((v.extent(0) == 4 && v.extent(1) == 2 && v.strides[0] == 5 && v.strides[1] == 1));
  CHECK(v.data == values.data() + 1);
  CHECK(v(3, 1) == 17);
}

TEST_CASE("view: default, empty and reshaped", "[core]") {
  const view<float, 2> nothing;
  CHECK(nothing.empty());
  CHECK(nothing.size() == 0);
  std::vector<int> values = counted(24);
  CHECK(view<int, 2>(values.data(), 0, 7).empty());
  const auto cube = reshape(view<int, 2>(values.data(), 4, 6), 2, 2, 6);
  static_assert(std::is_same_v<decltype(cube), const view<int, 3>>);
  CHECK((cube.extent(0) == 2 && cube(1, 1, 5) == 23));
  CHECK(reshape(cube, 24)[13] == 13);
}

}  // namespace view_tests
