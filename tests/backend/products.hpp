// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the product tests share: matrices with gaps between rows, a naive reference, and the error it allows.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include <graft/backend/cpu/gemm.hpp>

#include "catch.hpp"

namespace graft::test {

template <class T, class Out>
struct product_types {
  using operand = T;
  using output = Out;
};

// A matrix (rows, columns) in storage with `gap` elements after each row. Gaps are NaN: reading one shows.
template <class T>
struct gapped_matrix {
  index_t rows, columns, stride;
  std::vector<T> storage;

  gapped_matrix(index_t rows_, index_t columns_, index_t gap, std::mt19937& random)
      : rows(rows_), columns(columns_), stride(columns_ + gap), storage(static_cast<std::size_t>(rows_ * stride)) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (auto& value : storage) value = T(std::numeric_limits<float>::quiet_NaN());
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < columns; ++j) at(i, j) = T(uniform(random));
  }
  T& at(index_t i, index_t j) { return storage[static_cast<std::size_t>(i * stride + j)]; }
  double value(index_t i, index_t j) { return static_cast<double>(at(i, j)); }
  matrix_view<T> view() {
    matrix_view<T> result(storage.data(), rows, columns);
    result.strides[0] = stride;
    return result;
  }
  matrix_view<const T> read() { return view(); }
  // (count, rows / count, columns): the rows in equal groups.
  graft::view<T, 3> stacked(index_t count) {
    graft::view<T, 3> result(storage.data(), count, rows / count, columns);
    result.strides[1] = stride;
    result.strides[0] = rows / count * stride;
    return result;
  }
  graft::view<const T, 3> read_stacked(index_t count) { return stacked(count); }
};

// How bfloat16 products reach oneDNN, for one scope: what the machine would choose, or the other way.
class product_ways {
 public:
  product_ways(bool transposes, bool packs)
      : transposes_(std::exchange(detail::transposes_left_operand(), transposes)),
        packs_(std::exchange(detail::packs_right_operand(), packs)) {}
  ~product_ways() {
    detail::transposes_left_operand() = transposes_;
    detail::packs_right_operand() = packs_;
  }
  product_ways(const product_ways&) = delete;
  product_ways& operator=(const product_ways&) = delete;

 private:
  bool transposes_, packs_;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// One element of a product, in long double, and the error a sum of n terms in the accumulator may have.
struct reference_sum {
  long double value = 0, magnitude = 0;
  index_t terms = 0;

  void add(long double term) {
    value += term;
    magnitude += std::fabs(term);
    ++terms;
  }
  // Each of n additions rounds by at most u |partial sum| <= u sum|terms|, u = 2^-24 or 2^-53; each product once more.
  // A narrow output rounds by half its spacing, 2^-8 of the value in bfloat16; when it is added to, that is all: sums
  // are kept in fp32 until then.
  template <class T, class Out>
  long double allowed() const {
    const long double unit = std::is_same_v<T, double> ? 0x1p-53L : 0x1p-24L;
    const long double rounding = std::is_same_v<Out, bfloat16> ? 0x1p-8L * std::fabs(value) : 0.0L;
    return (terms + 2) * unit * magnitude * 1.01L + rounding * 1.01L + 1e-37L;
  }
};

// Bits of everything in `after` that the predicate calls outside must be those of `before`.
template <class T>
void check_gaps(const gapped_matrix<T>& before, const gapped_matrix<T>& after) {
  bool untouched = true;
  for (index_t i = 0; i < before.rows; ++i)
    for (index_t j = before.columns; j < before.stride; ++j) {
      const auto k = static_cast<std::size_t>(i * before.stride + j);
      untouched = untouched && std::memcmp(&before.storage[k], &after.storage[k], sizeof(T)) == 0;
    }
  CHECK(untouched);
}

}  // namespace graft::test
