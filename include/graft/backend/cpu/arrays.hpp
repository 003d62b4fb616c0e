// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whole-array steps on the CPU: copies, scan, stable counting sort, sort of rows.

#include <algorithm>
#include <compare>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include <graft/backend/cpu/context.hpp>
#include <graft/backend/cpu/rows.hpp>
#include <graft/backend/sort_key.hpp>

namespace graft {

namespace detail {

// memcpy and memset over the context's threads, in pieces large enough to be worth a thread.
inline void copy_bytes(context<cpu>& ctx, void* target, const void* source, std::size_t bytes) {
  if (bytes == 0) return;
  constexpr index_t piece = index_t{1} << 18;
  const index_t total = static_cast<index_t>(bytes);
  launch_rows(ctx, (total + piece - 1) / piece, piece, [=](serial_group&, index_t i) {
    std::memcpy(static_cast<char*>(target) + i * piece, static_cast<const char*>(source) + i * piece,
                static_cast<std::size_t>(std::min(piece, total - i * piece)));
  });
}
inline void zero_bytes(context<cpu>& ctx, void* target, std::size_t bytes) {
  if (bytes == 0) return;
  constexpr index_t piece = index_t{1} << 18;
  const index_t total = static_cast<index_t>(bytes);
  launch_rows(ctx, (total + piece - 1) / piece, piece, [=](serial_group&, index_t i) {
    std::memset(static_cast<char*>(target) + i * piece, 0,
                static_cast<std::size_t>(std::min(piece, total - i * piece)));
  });
}

}  // namespace detail

// Copies source to target. Requires: both contiguous, equal sizes, no overlap.
template <class T, int TargetRank, class S, int SourceRank>
requires std::same_as<T, std::remove_const_t<S>>
void copy(context<cpu>& ctx, const view<T, TargetRank, host_space>& target,
          const view<S, SourceRank, host_space>& source) {
  GRAFT_CHECK(target.size() == source.size(), "copy: expected equal sizes, got target=", target.size(),
              ", source=", source.size());
  GRAFT_CHECK(target.contiguous() && source.contiguous(), "copy: expected contiguous views, got one with strides");
  detail::copy_bytes(ctx, target.data, source.data, static_cast<std::size_t>(target.size()) * sizeof(T));
}

// The elements of a contiguous view to and from plain host memory.
template <class T, int Rank>
void copy_to_host(context<cpu>& ctx, std::remove_const_t<T>* target, const view<T, Rank, host_space>& source) {
  GRAFT_CHECK(source.contiguous(), "copy_to_host: expected a contiguous view, got one with strides");
  detail::copy_bytes(ctx, target, source.data, static_cast<std::size_t>(source.size()) * sizeof(T));
}
template <class T, int Rank>
void copy_from_host(context<cpu>& ctx, const view<T, Rank, host_space>& target, const std::type_identity_t<T>* source) {
  GRAFT_CHECK(target.contiguous(), "copy_from_host: expected a contiguous view, got one with strides");
  detail::copy_bytes(ctx, target.data, source, static_cast<std::size_t>(target.size()) * sizeof(T));
}

// Sets every element to zero. Requires: contiguous.
template <class T, int Rank>
void fill_zero(context<cpu>& ctx, const view<T, Rank, host_space>& target) {
  GRAFT_CHECK(target.contiguous(), "fill_zero: expected a contiguous view, got one with strides");
  detail::zero_bytes(ctx, target.data, static_cast<std::size_t>(target.size()) * sizeof(T));
}

// sums[i] = counts[0] + ... + counts[i-1], sums[n] the total. Shapes: sums (n+1), counts (n).
inline void exclusive_scan(context<cpu>&, const vector_view<std::int32_t, host_space>& sums,
                           const std::type_identity_t<vector_view<const std::int32_t, host_space>>& counts) {
  const index_t n = counts.extent(0);
  GRAFT_CHECK(sums.extent(0) == n + 1, "exclusive_scan: expected sums of size n+1=", n + 1, ", got ", sums.extent(0));
  std::int32_t total = 0;
  for (index_t i = 0; i < n; ++i) {
    const std::int32_t count = counts[i];  // read first: sums may start at counts
    sums[i] = total;
    total += count;
  }
  sums[n] = total;
}

// Stable sort of indices by key: the indices i with keys[i] = b stand in order[offsets[b]] ... order[offsets[b+1]-1],
// ascending. Keys of -1 are left out; the entries of order beyond offsets[bins] are -1.
// Shapes: keys (n), offsets (bins+1), order (n). Requires: keys in [-1, bins).
inline void counting_sort(context<cpu>& ctx,
                          const std::type_identity_t<vector_view<const std::int32_t, host_space>>& keys, index_t bins,
                          const vector_view<std::int32_t, host_space>& offsets,
                          const vector_view<std::int32_t, host_space>& order) {
  const index_t n = keys.extent(0);
  GRAFT_CHECK(offsets.extent(0) == bins + 1, "counting_sort: expected offsets of size bins+1=", bins + 1, ", got ",
              offsets.extent(0));
  GRAFT_CHECK(order.extent(0) == n, "counting_sort: expected order of size n=", n, ", got ", order.extent(0));
  workspace_scope scope(ctx);
  const auto next = ctx.template allocate<std::int32_t>(bins + 1);
  for (index_t b = 0; b <= bins; ++b) next[b] = 0;
  for (index_t i = 0; i < n; ++i)
    if (keys[i] >= 0) ++next[keys[i]];
  exclusive_scan(ctx, offsets, next.rows(0, bins));
  for (index_t b = 0; b < bins; ++b) next[b] = offsets[b];
  for (index_t i = 0; i < n; ++i)
    if (keys[i] >= 0) order[next[keys[i]]++] = static_cast<std::int32_t>(i);
  for (index_t i = offsets[bins]; i < n; ++i) order[i] = -1;
}

namespace detail {

// A key and where it stood. No two of a row are equal, so that any sort is a stable one.
template <class T>
struct sort_entry {
  sort_bits<T> key;
  std::int32_t index;
  friend auto operator<=>(const sort_entry&, const sort_entry&) = default;
};

}  // namespace detail

// Stable sort of the indices of each row by its keys, the largest first: order(r, 0) is where the largest of row r is.
// Shapes: order, keys (rows, n); keys may have any strides, order is contiguous. T: float or double.
// Order: ties go to the lower index; both zeros are one key; NaN stands last. One row is one thread's.
template <class T>
void argsort_rows(context<cpu>& ctx, const matrix_view<std::int32_t, host_space>& order,
                  const matrix_view<T, host_space>& keys) {
  using key_type = std::remove_const_t<T>;
  const index_t rows = keys.extent(0), n = keys.extent(1);
  GRAFT_CHECK(order.extent(0) == rows && order.extent(1) == n,
              "argsort_rows: expected order and keys of one shape, got ", order.extent(0), " x ", order.extent(1),
              " and ", rows, " x ", n);
  GRAFT_CHECK(order.contiguous(), "argsort_rows: expected a contiguous order, got one with strides");
  GRAFT_CHECK(n < std::numeric_limits<std::int32_t>::max(), "argsort_rows: expected fewer than 2^31-1 keys a row, got ",
              n);
  workspace_scope scope(ctx);
  const auto entries = ctx.template allocate<detail::sort_entry<key_type>>(rows, n);
  launch_rows(ctx, rows, n, [=](serial_group&, index_t r) {
    auto* row = entries.row(r);
    for (index_t i = 0; i < n; ++i) row[i] = {detail::descending_bits(keys(r, i)), static_cast<std::int32_t>(i)};
    std::sort(row, row + n);
    for (index_t i = 0; i < n; ++i) order(r, i) = row[i].index;
  });
}

}  // namespace graft
