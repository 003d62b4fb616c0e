// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every backend's products satisfy, written on the context: the dense and grouped forms against sums in double,
// with free row strides, empty groups, rows that belong to nobody, and results that are added to.
//
// Tolerance: products of T are exact in the accumulator or rounded once, and each of the depth + 1 sums is off by at
// most 2 u of the accumulator (tensor cores cut off where others round), so `operations` of reference.hpp's bound is 2
// (depth + 2).

#include <limits>
#include <string>
#include <vector>

#include <graft/backend/backend.hpp>

#include "catch.hpp"
#include "resident.hpp"

namespace graft::test {

enum class form { nt, nn, tn };

struct product_case {
  index_t rows, columns, depth;  // of the result, and of the sum
  index_t padding = 0;           // row stride minus row length, in all matrices
};

// The rows [begin, end) of a sum over depth: what one product, or one group, must give.
template <class T>
void reference_product(form f, const tensor<T>& left, const tensor<T>& right, index_t right_row, tensor<double>& want,
                       tensor<double>& magnitude, index_t row, index_t rows, index_t columns, index_t depth_begin,
                       index_t depth) {
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < columns; ++j)
      for (index_t k = 0; k < depth; ++k) {
        const double a = f == form::tn ? left.at(depth_begin + k, i) : left.at(row + i, k);
        const double b = f == form::nt ? right.at(right_row + j, k) : right.at(right_row + depth_begin + k, j);
        want(row + i, j) += a * b;
        magnitude(row + i, j) += std::abs(a * b);
      }
}

// Compares the result with want in `columns` columns where `written` holds, and with `before`, bit by bit, elsewhere.
template <class Out, class Written>
std::string compare_product(const tensor<Out>& got, const tensor<Out>& before, const tensor<double>& want,
                            const tensor<double>& magnitude, index_t columns, double operations,
                            const Written& written) {
  tensor<Out> touched(got.rows, columns);
  tensor<double> expected(got.rows, columns);
  for (index_t r = 0; r < got.rows; ++r)
    for (index_t c = 0; c < got.columns; ++c) {
      const std::size_t at = static_cast<std::size_t>(r * got.columns + c);
      if (c < columns && written(r)) {
        touched(r, c) = got.values[at];
        expected(r, c) = want.at(r, c);
      } else if (std::memcmp(&got.values[at], &before.values[at], sizeof(Out)) != 0) {
        return "element (" + std::to_string(r) + ", " + std::to_string(c) + ") was touched";
      }
    }
  return mismatch(touched, expected,
                  [&](index_t r, index_t c) { return bound<Out>(expected.at(r, c), operations, magnitude.at(r, c)); });
}

template <class Out>
void start_sums(const tensor<Out>& before, accumulate mode, tensor<double>& want, tensor<double>& magnitude) {
  if (mode == accumulate::no) return;
  for (index_t r = 0; r < want.rows; ++r)
    for (index_t c = 0; c < want.columns; ++c) {
      want(r, c) = before.at(r, c);
      magnitude(r, c) = std::abs(before.at(r, c));
    }
}

template <class T, class Out, class Ctx>
void check_dense_product(Ctx& ctx, form f, const product_case& c, accumulate mode) {
  INFO("form " << static_cast<int>(f) << ", rows " << c.rows << ", columns " << c.columns << ", depth " << c.depth
               << ", padding " << c.padding << ", add " << (mode == accumulate::yes));
  const bool tn = f == form::tn, nt = f == form::nt;
  const auto left = tensor<T>::random(tn ? c.depth : c.rows, (tn ? c.rows : c.depth) + c.padding, 1);
  const auto right = tensor<T>::random(nt ? c.columns : c.depth, (nt ? c.depth : c.columns) + c.padding, 2);
  const auto before = tensor<Out>::random(c.rows, c.columns + c.padding, 3);
  tensor<double> want(c.rows, c.columns), magnitude(c.rows, c.columns);
  start_sums(before, mode, want, magnitude);
  reference_product(f, left, right, 0, want, magnitude, 0, c.rows, c.columns, 0, c.depth);

  const auto run = [&] {
    const resident<Ctx, T> a(ctx, left), b(ctx, right);
    const resident<Ctx, Out> result(ctx, before);
    const auto y = result.matrix().columns(0, c.columns);
    const auto x = a.matrix().columns(0, tn ? c.rows : c.depth);
    const auto w = b.matrix().columns(0, nt ? c.depth : c.columns);
    if (nt) gemm_nt(ctx, y, x, w, mode);
    if (f == form::nn) gemm_nn(ctx, y, x, w, mode);
    if (tn) gemm_tn(ctx, y, x, w, mode);
    return result.get();
  };
  const auto got = run();
  CHECK(compare_product(got, before, want, magnitude, c.columns, 2.0 * static_cast<double>(c.depth + 2),
                        [](index_t) { return true; }) == "");
  CHECK(same_bits(got, run()));
}

// Groups of the given lengths, then `slack` rows that belong to nobody and hold NaN. For nt and nn, c.rows is ignored,
// and for tn c.depth; the lengths say how many there are.
template <class T, class Out, class Ctx>
void check_grouped_product(Ctx& ctx, form f, const std::vector<std::int32_t>& lengths, index_t slack,
                           const product_case& c, accumulate mode) {
  INFO("form " << static_cast<int>(f) << ", groups " << lengths.size() << ", rows " << c.rows << ", columns "
               << c.columns << ", depth " << c.depth << ", padding " << c.padding << ", slack " << slack << ", add "
               << (mode == accumulate::yes));
  const bool tn = f == form::tn, nt = f == form::nt;
  const auto groups = static_cast<index_t>(lengths.size());
  std::vector<std::int32_t> offsets{0};
  for (const auto length : lengths) offsets.push_back(offsets.back() + length);
  const index_t used = offsets.back(), bound_rows = used + slack;

  auto left = tensor<T>::random(bound_rows, (tn ? c.rows : c.depth) + c.padding, 1);
  const index_t right_rows = nt ? c.columns : c.depth;  // of one group's weights
  auto right = tensor<T>::random(tn ? bound_rows : groups * right_rows, (nt ? c.depth : c.columns) + c.padding, 2);
  const T poison = T(std::numeric_limits<float>::quiet_NaN());
  for (index_t r = used; r < bound_rows; ++r) {
    for (index_t i = 0; i < left.columns; ++i) left(r, i) = poison;
    for (index_t i = 0; tn && i < right.columns; ++i) right(r, i) = poison;
  }
  const auto before = tensor<Out>::random(tn ? groups * c.rows : bound_rows, c.columns + c.padding, 3);
  tensor<double> want(before.rows, c.columns), magnitude(before.rows, c.columns);
  start_sums(before, mode, want, magnitude);
  index_t longest = c.depth;
  for (index_t e = 0; e < groups; ++e) {
    const index_t begin = offsets[static_cast<std::size_t>(e)], length = lengths[static_cast<std::size_t>(e)];
    if (tn) {  // the result's rows start at e * c.rows, the operands' at 0: shift both through a group of its own
      tensor<double> part(c.rows, c.columns), size(c.rows, c.columns);
      reference_product(f, left, right, 0, part, size, 0, c.rows, c.columns, begin, length);
      for (index_t r = 0; r < c.rows; ++r)
        for (index_t i = 0; i < c.columns; ++i) {
          want(e * c.rows + r, i) += part(r, i);
          magnitude(e * c.rows + r, i) += size(r, i);
        }
      longest = std::max(longest, length);
    } else {
      reference_product(f, left, right, e * right_rows, want, magnitude, begin, length, c.columns, 0, c.depth);
    }
  }

  const auto run = [&] {
    using space = typename Ctx::space;
    const resident<Ctx, T> a(ctx, left), b(ctx, right);
    const resident<Ctx, Out> result(ctx, before);
    const resident<Ctx, std::int32_t> where(ctx, one_row(offsets));
    const auto stack = [](const auto& matrix, index_t count, index_t rows, index_t columns) {
      using E = typename std::remove_cvref_t<decltype(matrix)>::element_type;
      view<E, 3, space> v(matrix.data, count, rows, matrix.extent(1));
      v.extents[2] = columns;
      return v;
    };
    const auto x = a.matrix().columns(0, tn ? c.rows : c.depth);
    if (tn) {
      grouped_gemm_tn(ctx, stack(result.matrix(), groups, c.rows, c.columns), x, b.matrix().columns(0, c.columns),
                      where.vector(), mode);
    } else {
      const auto y = result.matrix().columns(0, c.columns);
      const auto w = stack(b.matrix(), groups, right_rows, nt ? c.depth : c.columns);
      if (nt) grouped_gemm_nt(ctx, y, x, w, where.vector(), mode);
      if (!nt) grouped_gemm_nn(ctx, y, x, w, where.vector(), mode);
    }
    return result.get();
  };
  const auto written = [&](index_t row) {
    if (!tn) return row < used;
    return lengths[static_cast<std::size_t>(row / c.rows)] > 0 || mode == accumulate::no;
  };
  const auto got = run();
  CHECK(compare_product(got, before, want, magnitude, c.columns, 2.0 * static_cast<double>(longest + 2), written) ==
        "");
  CHECK(same_bits(got, run()));
}

// The whole suite for operands T and results Out.
template <class T, class Out, class Ctx>
void check_dense_products(Ctx& ctx) {
  const std::vector<product_case> cases = {
      {1, 1, 1},       {1, 96, 64},      {5, 3, 7},       {64, 64, 64}, {128, 128, 32}, {129, 67, 130}, {33, 200, 1},
      {96, 80, 48, 8}, {65, 31, 100, 3}, {200, 264, 520}, {0, 8, 8},    {8, 0, 8},      {16, 24, 0},    {16, 24, 0, 8}};
  for (const form f : {form::nt, form::nn, form::tn})
    for (const product_case& c : cases)
      for (const accumulate mode : {accumulate::no, accumulate::yes}) check_dense_product<T, Out>(ctx, f, c, mode);
}
template <class T, class Out, class Ctx>
void check_grouped_products(Ctx& ctx) {
  struct grouping {
    std::vector<std::int32_t> lengths;
    index_t slack;
  };
  const std::vector<grouping> groupings = {
      {{7}, 0}, {{0}, 5}, {{0, 0, 0}, 130}, {{128, 64, 192}, 0}, {{0, 5, 0, 130, 64, 1, 0}, 70}, {{3, 0, 0, 257}, 1}};
  const std::vector<product_case> cases = {{64, 64, 64},   {40, 136, 72, 8}, {3, 5, 7},
                                           {130, 129, 67}, {20, 70, 33, 3},  {8, 24, 296}};
  // Each form meets each grouping, case and mode, but not all of them at once.
  for (const form f : {form::nt, form::nn, form::tn})
    for (std::size_t g = 0; g < groupings.size(); ++g)
      for (std::size_t c = 0; c < cases.size(); ++c)
        check_grouped_product<T, Out>(ctx, f, groupings[g].lengths, groupings[g].slack, cases[c],
                                      (g + c) % 2 == 0 ? accumulate::no : accumulate::yes);
}

}  // namespace graft::test
