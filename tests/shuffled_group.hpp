// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A group for tests that visits in random order: a row algorithm that depends on the order of its visits gives another
// result under it than under serial_group.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <graft/backend/rows.hpp>

namespace graft::test {

class shuffled_group {
 public:
  explicit shuffled_group(std::uint32_t seed) : random_(seed) {}

  template <class F>
  void for_each(index_t n, const F& f) {
    for (const index_t i : order(n)) f(i);
  }
  template <class F, class Op, class T>
  T reduce(index_t n, const F& f, const Op& op, T identity) {
    T result = identity;
    for (const index_t i : order(n)) result = op(f(i), result);
    return result;
  }
  template <class F>
  auto sum(index_t n, const F& f) {
    using T = std::remove_cvref_t<std::invoke_result_t<const F&, index_t>>;
    return reduce(
        n, f, [](T a, T b) { return a + b; }, T(0));
  }
  template <class F>
  auto max(index_t n, const F& f) {
    return argmax(n, f).value;
  }
  template <class F>
  auto argmax(index_t n, const F& f) {
    using T = std::remove_cvref_t<std::invoke_result_t<const F&, index_t>>;
    using limits = std::numeric_limits<T>;
    const T lowest = limits::has_infinity ? -limits::infinity() : limits::lowest();
    indexed_value<T> best{lowest, 0};
    for (const index_t i : order(n)) {
      const T value = f(i);
      if (value > best.value || (value == best.value && value > lowest && i < best.index)) best = {value, i};
    }
    return best;
  }
  template <class F>
  void single(const F& f) {
    f();
  }
  void sync() {}

 private:
  std::vector<index_t> order(index_t n) {
    std::vector<index_t> result(static_cast<std::size_t>(n));
    for (index_t i = 0; i < n; ++i) result[static_cast<std::size_t>(i)] = i;
    std::shuffle(result.begin(), result.end(), random_);
    return result;
  }

  std::mt19937 random_;
};
static_assert(Group<shuffled_group>);

// The algorithm on every row, rows in random order too, each with a group of its own.
template <class Algorithm>
void launch_shuffled(index_t row_count, std::uint32_t seed, const Algorithm& algorithm) {
  shuffled_group rows(seed);
  rows.for_each(row_count, [&](index_t row) {
    shuffled_group group(seed + 1 + static_cast<std::uint32_t>(row));
    algorithm(group, row);
  });
}

}  // namespace graft::test
