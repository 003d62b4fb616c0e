// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Row algorithms on the CPU: a group is one thread whose loops vectorise, and OpenMP runs the rows.

#include <algorithm>
#include <limits>
#include <type_traits>

#include <graft/backend/cpu/context.hpp>
#include <graft/backend/rows.hpp>

// Before a loop whose iterations are independent. clang needs no word for it: it checks overlap at run time.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define GRAFT_INDEPENDENT_ITERATIONS _Pragma("GCC ivdep")
#else
#define GRAFT_INDEPENDENT_ITERATIONS
#endif

namespace graft {

// One thread as a group.
// Order: reductions run in 16 fixed lanes (element i in lane i mod 16, the elements after the last full 16 in
// lanes 0, 1, ...), and the lanes are combined pairwise: 8 apart, 4, 2, 1. The compiler may use vectors of any width.
struct serial_group {
  template <class F>
  GRAFT_HOST_DEVICE void for_each(index_t n, const F& f) const {
    GRAFT_INDEPENDENT_ITERATIONS
    for (index_t i = 0; i < n; ++i) f(i);
  }
  template <class F, class Op, class T>
  GRAFT_HOST_DEVICE T reduce(index_t n, const F& f, const Op& op, T identity) const {
    constexpr int lanes = 16;
    T lane[lanes];
    for (int l = 0; l < lanes; ++l) lane[l] = identity;
    const index_t full = n / lanes * lanes;
    for (index_t i = 0; i < full; i += lanes)
      for (int l = 0; l < lanes; ++l) lane[l] = op(lane[l], f(i + l));
    const int rest = static_cast<int>(n - full) % lanes;
    for (int l = 0; l < rest; ++l) lane[l] = op(lane[l], f(full + l));
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int l = 0; l < half; ++l) lane[l] = op(lane[l], lane[l + half]);
    return lane[0];
  }
  template <class F>
  GRAFT_HOST_DEVICE auto sum(index_t n, const F& f) const {
    using T = value_type<F>;
    return reduce(
        n, f, [](T a, T b) { return a + b; }, T(0));
  }
  template <class F>
  GRAFT_HOST_DEVICE auto max(index_t n, const F& f) const {
    using T = value_type<F>;
    return reduce(
        n, f, [](T a, T b) { return b > a ? b : a; }, lowest<T>);
  }
  template <class F>
  GRAFT_HOST_DEVICE auto argmax(index_t n, const F& f) const {
    using T = value_type<F>;
    constexpr index_t few = 64;
    indexed_value<T> best{lowest<T>, 0};
    if (n >= few) {  // a vectorised search for the value, then one for its first index
      const T largest = max(n, f);
      if (!(largest > lowest<T>)) return best;
      index_t i = 0;
      while (f(i) != largest) ++i;
      return indexed_value<T>{f(i), i};
    }
    for (index_t i = 0; i < n; ++i) {
      const T value = f(i);
      if (value > best.value) best = {value, i};
    }
    return best;
  }
  template <class F>
  GRAFT_HOST_DEVICE void single(const F& f) const {
    f();
  }
  GRAFT_HOST_DEVICE void sync() const {}

 private:
  template <class F>
  struct value_of {
    using type = std::remove_cvref_t<std::invoke_result_t<const F&, index_t>>;
    static_assert(
        std::is_arithmetic_v<type>,
        "graft::serial_group: f of a reduction does not return an arithmetic type. Turn bfloat16 into float.");
  };
  template <class F>
  using value_type = typename value_of<F>::type;
  template <class T>
  static constexpr T lowest = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                                   : std::numeric_limits<T>::lowest();
};
static_assert(Group<serial_group>, "graft::serial_group: it does not model Group. Compare it with backend/rows.hpp.");

// Cost: below about 16 thousand elements of work the rows run on the calling thread: waking others takes longer.
template <class Algorithm>
void launch_rows([[maybe_unused]] context<cpu>& ctx, index_t row_count, [[maybe_unused]] index_t row_width_hint,
                 const Algorithm& algorithm) {
  const auto run = [&](index_t row) {
    serial_group group;
    algorithm(group, row);
  };
#if defined(_OPENMP)
  const index_t width = std::max<index_t>(row_width_hint, 1);
  if (ctx.threads() > 1 && row_count > 1 && row_count * width > 16384) {
#pragma omp parallel for schedule(static) num_threads(ctx.threads())
    for (index_t row = 0; row < row_count; ++row) run(row);
    return;
  }
#endif
  for (index_t row = 0; row < row_count; ++row) run(row);
}

template <class F>
void launch_elements(context<cpu>& ctx, index_t count, const F& f) {
  constexpr index_t chunk = 4096;
  const index_t chunks = (count + chunk - 1) / chunk;
  launch_rows(ctx, chunks, chunk, [&](serial_group& group, index_t c) {
    const index_t begin = c * chunk;
    group.for_each(std::min(chunk, count - begin), [&](index_t i) { f(begin + i); });
  });
}

}  // namespace graft
