// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Scan, stable counting sort and sort of rows on CUDA. All but the counting sort of few bins are CUB's device-wide
// algorithms, and this is the one header that includes them (they cost 7 s of compile time). Temporary memory comes
// from the workspace and its size depends on shapes alone: nothing waits for the device, and all of it can be captured
// in a CUDA graph.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <graft/backend/cuda/block_sort.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/backend/sort_key.hpp>

namespace graft {

namespace detail {

// Runs a CUB algorithm: once to ask for the size of its temporary memory, once for the work.
template <class Algorithm>
void run_cub(context<cuda>& ctx, const char* name, const Algorithm& algorithm) {
  std::size_t bytes = 0;
  check_cuda(algorithm(nullptr, bytes), name, __FILE__, __LINE__);
  workspace_scope scope(ctx);
  void* memory = ctx.allocate<std::byte>(bytes).data;  // never null: null would ask for the size again
  check_cuda(algorithm(memory, bytes), name, __FILE__, __LINE__);
}

// counts[i] for i < n and 0 at n, so that a scan over n + 1 items ends with the total.
struct padded_count {
  const std::int32_t* counts;
  int n;
  GRAFT_HOST_DEVICE std::int32_t operator()(int i) const { return i < n ? counts[i] : 0; }
};

// Keys that are left out become the last bin, so that they sort behind all others.
struct keys_to_bins {
  const std::int32_t* keys;
  std::uint32_t bins;
  std::uint32_t* bin;
  std::int32_t* index;
  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    const std::int32_t key = keys[i];
    bin[i] = key < 0 ? bins : static_cast<std::uint32_t>(key);
    index[i] = static_cast<std::int32_t>(i);
  }
};

// offsets[b]: how many of the sorted bins are below b.
struct bins_to_offsets {
  const std::uint32_t* sorted;
  std::int32_t n;
  std::int32_t* offsets;
  GRAFT_HOST_DEVICE void operator()(index_t b) const {
    std::int32_t low = 0, high = n;
    while (low < high) {
      const std::int32_t middle = low + (high - low) / 2;
      if (static_cast<index_t>(sorted[middle]) < b) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    offsets[b] = low;
  }
};

// Element i of all rows: its key as an integer, and i.
template <class T>
struct keys_to_bits {
  matrix_view<const T, device_space> keys;
  sort_bits<T>* bits;
  std::int32_t* index;
  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    const index_t n = keys.extent(1);
    bits[i] = descending_bits(keys(i / n, i % n));
    index[i] = static_cast<std::int32_t>(i);
  }
};

struct indices_to_rows {
  const std::int32_t* index;
  std::int32_t n;
  std::uint32_t* row;
  GRAFT_HOST_DEVICE void operator()(index_t i) const { row[i] = static_cast<std::uint32_t>(index[i] / n); }
};

// An index among all rows becomes one in its row.
struct indices_in_rows {
  std::int32_t n;
  std::int32_t* index;
  GRAFT_HOST_DEVICE void operator()(index_t i) const { index[i] %= n; }
};

struct mark_left_out {
  const std::uint32_t* sorted;
  std::uint32_t bins;
  std::int32_t* order;
  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    if (sorted[i] >= bins) order[i] = -1;
  }
};

}  // namespace detail

// sums[i] = counts[0] + ... + counts[i-1], sums[n] the total. Shapes: sums (n+1), counts (n). sums may start at counts.
inline void exclusive_scan(context<cuda>& ctx, const vector_view<std::int32_t, device_space>& sums,
                           const std::type_identity_t<vector_view<const std::int32_t, device_space>>& counts) {
  const index_t n = counts.extent(0);
  GRAFT_CHECK(sums.extent(0) == n + 1, "exclusive_scan: expected sums of size n+1=", n + 1, ", got ", sums.extent(0));
  GRAFT_CHECK(sums.contiguous() && counts.contiguous(),
              "exclusive_scan: expected contiguous views, got one with strides");
  GRAFT_CHECK(n < std::numeric_limits<std::int32_t>::max(), "exclusive_scan: expected fewer than 2^31-1 counts, got ",
              n);
  const auto padded = thrust::make_transform_iterator(thrust::counting_iterator<int>(0),
                                                      detail::padded_count{counts.data, static_cast<int>(n)});
  detail::run_cub(ctx, "cub::DeviceScan::ExclusiveSum", [&](void* memory, std::size_t& bytes) {
    return cub::DeviceScan::ExclusiveSum(memory, bytes, padded, sums.data, static_cast<int>(n + 1), ctx.stream());
  });
}

// Stable sort of indices by key: the indices i with keys[i] = b stand in order[offsets[b]] ... order[offsets[b+1]-1],
// ascending. Keys of -1 are left out; the entries of order beyond offsets[bins] are -1.
// Shapes: keys (n), offsets (bins+1), order (n). Requires: keys in [-1, bins).
// Cost: two launches for up to 1024 bins (block_sort.cuh); beyond, one radix pass for each 8 bits of bins.
inline void counting_sort(context<cuda>& ctx,
                          const std::type_identity_t<vector_view<const std::int32_t, device_space>>& keys, index_t bins,
                          const vector_view<std::int32_t, device_space>& offsets,
                          const vector_view<std::int32_t, device_space>& order) {
  const index_t n = keys.extent(0);
  GRAFT_CHECK(offsets.extent(0) == bins + 1, "counting_sort: expected offsets of size bins+1=", bins + 1, ", got ",
              offsets.extent(0));
  GRAFT_CHECK(order.extent(0) == n, "counting_sort: expected order of size n=", n, ", got ", order.extent(0));
  GRAFT_CHECK(keys.contiguous() && offsets.contiguous() && order.contiguous(),
              "counting_sort: expected contiguous views, got one with strides");
  constexpr index_t limit = std::numeric_limits<std::int32_t>::max();
  GRAFT_CHECK(n < limit && bins < limit, "counting_sort: expected fewer than 2^31-1 keys and bins, got n=", n,
              ", bins=", bins);
  if (n == 0) {
    GRAFT_CUDA(
        cudaMemsetAsync(offsets.data, 0, static_cast<std::size_t>(bins + 1) * sizeof(std::int32_t), ctx.stream()));
    return;
  }
  if (bins > 0 && bins <= detail::block_sort_bins) {
    detail::block_counting_sort(ctx, keys.data, n, bins, offsets.data, order.data);
    return;
  }
  workspace_scope scope(ctx);
  const auto last = static_cast<std::uint32_t>(bins);
  const auto bin = ctx.allocate<std::uint32_t>(n), sorted = ctx.allocate<std::uint32_t>(n);
  const auto index = ctx.allocate<std::int32_t>(n);
  launch_elements(ctx, n, detail::keys_to_bins{keys.data, last, bin.data, index.data});
  detail::run_cub(ctx, "cub::DeviceRadixSort::SortPairs", [&](void* memory, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(memory, bytes, bin.data, sorted.data, index.data, order.data,
                                           static_cast<int>(n), 0, static_cast<int>(std::bit_width(last)),
                                           ctx.stream());
  });
  launch_elements(ctx, bins + 1, detail::bins_to_offsets{sorted.data, static_cast<std::int32_t>(n), offsets.data});
  launch_elements(ctx, n, detail::mark_left_out{sorted.data, last, order.data});
}

// Stable sort of the indices of each row by its keys, the largest first: order(r, 0) is where the largest of row r is.
// Shapes: order, keys (rows, n); keys may have any strides, order is contiguous. T: float or double.
// Order: ties go to the lower index; both zeros are one key; NaN stands last.
// Cost: all rows are sorted together by key, then by row: one radix pass for each 8 bits of a key, and of the number of
// rows.
template <class T>
void argsort_rows(context<cuda>& ctx, const matrix_view<std::int32_t, device_space>& order,
                  const matrix_view<T, device_space>& keys) {
  using key_type = std::remove_const_t<T>;
  const index_t rows = keys.extent(0), n = keys.extent(1), count = rows * n;
  GRAFT_CHECK(order.extent(0) == rows && order.extent(1) == n,
              "argsort_rows: expected order and keys of one shape, got ", order.extent(0), " x ", order.extent(1),
              " and ", rows, " x ", n);
  GRAFT_CHECK(order.contiguous(), "argsort_rows: expected a contiguous order, got one with strides");
  GRAFT_CHECK(count < std::numeric_limits<std::int32_t>::max(), "argsort_rows: expected fewer than 2^31-1 keys, got ",
              count);
  if (count == 0) return;
  workspace_scope scope(ctx);
  const auto sort_by = [&](auto* key, auto* sorted, const std::int32_t* from, std::int32_t* to, int bits) {
    detail::run_cub(ctx, "cub::DeviceRadixSort::SortPairs", [&](void* memory, std::size_t& bytes) {
      return cub::DeviceRadixSort::SortPairs(memory, bytes, key, sorted, from, to, static_cast<int>(count), 0, bits,
                                             ctx.stream());
    });
  };
  using bits_type = detail::sort_bits<key_type>;
  const auto bits = ctx.allocate<bits_type>(count), sorted = ctx.allocate<bits_type>(count);
  const auto index = ctx.allocate<std::int32_t>(count);
  launch_elements(ctx, count, detail::keys_to_bits<key_type>{keys, bits.data, index.data});
  if (rows == 1) {
    sort_by(bits.data, sorted.data, index.data, order.data, static_cast<int>(8 * sizeof(bits_type)));
    return;
  }
  const auto by_key = ctx.allocate<std::int32_t>(count);
  const auto row = ctx.allocate<std::uint32_t>(count), sorted_row = ctx.allocate<std::uint32_t>(count);
  sort_by(bits.data, sorted.data, index.data, by_key.data, static_cast<int>(8 * sizeof(bits_type)));
  const auto width = static_cast<std::int32_t>(n);
  launch_elements(ctx, count, detail::indices_to_rows{by_key.data, width, row.data});
  sort_by(row.data, sorted_row.data, by_key.data, order.data,
          static_cast<int>(std::bit_width(static_cast<std::uint32_t>(rows - 1))));
  launch_elements(ctx, count, detail::indices_in_rows{width, order.data});
}

}  // namespace graft
