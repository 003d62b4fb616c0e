// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The stable counting sort for few bins, such as the experts of a layer, in two launches: each block counts the keys of
// its own stretch, then each block knows from all counts where its keys go and puts them there in order. Integer sums
// alone, so the same bits every time.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <graft/backend/cuda/launch.cuh>
#include <graft/core/host_device.hpp>

namespace graft::detail {

// Bins whose counts for every warp of a block fit into 48 KiB of shared memory.
inline constexpr index_t block_sort_bins = 1024;
inline constexpr int block_sort_threads = 256, block_sort_warps = block_sort_threads / 32;

// A block's stretch of the keys: so many that at most 128 blocks are needed, since each of them reads the counts of
// all.
struct sort_stretch {
  int each, blocks;

  explicit sort_stretch(index_t n)
      : each(static_cast<int>(std::max<index_t>(
            2048, ((n + 127) / 128 + block_sort_threads - 1) / block_sort_threads * block_sort_threads))),
        blocks(static_cast<int>((n + each - 1) / each)) {}
};

// counts (blocks, bins). Shared memory: bins integers.
static __global__ void __launch_bounds__(block_sort_threads)
    count_keys_kernel(const std::int32_t* keys, int n, int each, int bins, std::int32_t* counts) {
  auto* count = reinterpret_cast<std::int32_t*>(dynamic_shared());
  const int thread = static_cast<int>(threadIdx.x), begin = static_cast<int>(blockIdx.x) * each;
  const int length = n - begin < each ? n - begin : each;
  for (int bin = thread; bin < bins; bin += block_sort_threads) count[bin] = 0;
  __syncthreads();
  for (int i = thread; i < length; i += block_sort_threads)
    if (keys[begin + i] >= 0) atomicAdd(&count[keys[begin + i]], 1);
  __syncthreads();
  for (int bin = thread; bin < bins; bin += block_sort_threads)
    counts[static_cast<index_t>(blockIdx.x) * bins + bin] = count[bin];
}

// The lanes whose digit is this lane's. digit < 2^bits.
__device__ inline unsigned same_lanes(unsigned digit, int bits) {
  unsigned same = 0xffffffffu;
  for (int bit = 0; bit < bits; ++bit) {
    const unsigned set = __ballot_sync(0xffffffffu, static_cast<int>((digit >> bit) & 1u));
    same &= ((digit >> bit) & 1u) != 0 ? set : ~set;
  }
  return same;
}

// Shared memory: 10 bins + 1 integers.
static __global__ void __launch_bounds__(block_sort_threads)
    place_keys_kernel(const std::int32_t* keys, int n, int each, int bins, int bits, const std::int32_t* counts,
                      std::int32_t* offsets, std::int32_t* order) {
  auto* next = reinterpret_cast<std::int32_t*>(dynamic_shared());  // (warps, bins): where a warp's next key goes
  std::int32_t* before = next + block_sort_warps * bins;           // (bins): keys of the blocks before this one
  std::int32_t* start = before + bins;                             // (bins + 1): where a bin starts
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int begin = static_cast<int>(blockIdx.x) * each, length = n - begin < each ? n - begin : each;

  for (int bin = thread; bin < bins; bin += block_sort_threads) {
    std::int32_t total = 0, ahead = 0;
    for (unsigned block = 0; block < gridDim.x; ++block) {
      const std::int32_t count = counts[static_cast<index_t>(block) * bins + bin];
      total += count;
      if (block < blockIdx.x) ahead += count;
    }
    start[bin] = total;
    before[bin] = ahead;
    for (int w = 0; w < block_sort_warps; ++w) next[w * bins + bin] = 0;
  }
  __syncthreads();

  // A warp's share is contiguous, so that order within a bin is that of the warps.
  const int share = each / block_sort_warps, first = warp * share;
  const int last = length < first + share ? length : first + share;
  for (int i = first + lane; i < last; i += 32)
    if (keys[begin + i] >= 0) atomicAdd(&next[warp * bins + keys[begin + i]], 1);
  if (warp == 0) {  // an exclusive scan; each lane has neighbouring bins
    const int per_lane = (bins + 31) / 32, from = lane * per_lane < bins ? lane * per_lane : bins,
              to = from + per_lane < bins ? from + per_lane : bins;
    std::int32_t sum = 0;
    for (int bin = from; bin < to; ++bin) sum += start[bin];
    std::int32_t up_to = sum;
    for (unsigned step = 1; step < 32; step *= 2) {
      const std::int32_t other = __shfl_up_sync(0xffffffffu, up_to, step);
      if (lane >= static_cast<int>(step)) up_to += other;
    }
    std::int32_t running = up_to - sum;
    for (int bin = from; bin < to; ++bin) {
      const std::int32_t count = start[bin];
      start[bin] = running;
      running += count;
    }
    if (lane == 31) start[bins] = up_to;
  }
  __syncthreads();

  for (int bin = thread; bin < bins; bin += block_sort_threads) {
    std::int32_t at = start[bin] + before[bin];
    for (int w = 0; w < block_sort_warps; ++w) {
      const std::int32_t count = next[w * bins + bin];
      next[w * bins + bin] = at;
      at += count;
    }
  }
  __syncthreads();

  for (int i = first; i < last; i += 32) {
    const std::int32_t key = i + lane < last ? keys[begin + i + lane] : -1;
    const unsigned same = same_lanes(static_cast<unsigned>(key < 0 ? bins : key), bits);
    const int rank = __popc(same & ((1u << lane) - 1u));
    const std::int32_t at = key >= 0 ? next[warp * bins + key] + rank : 0;
    __syncwarp();  // all have read: the first of each bin may write
    if (key >= 0 && rank == 0) next[warp * bins + key] += __popc(same);
    __syncwarp();
    if (key >= 0) order[at] = begin + i + lane;
  }

  const std::int32_t kept = start[bins];
  for (int i = (kept > begin ? kept - begin : 0) + thread; i < length; i += block_sort_threads) order[begin + i] = -1;
  if (blockIdx.x == 0)
    for (int bin = thread; bin <= bins; bin += block_sort_threads) offsets[bin] = start[bin];
}

// As counting_sort (scan_sort.cuh) for bins <= block_sort_bins. Requires: 0 < n < 2^31 - 1, contiguous memory.
inline void block_counting_sort(context<cuda>& ctx, const std::int32_t* keys, index_t n, index_t bins,
                                std::int32_t* offsets, std::int32_t* order) {
  const sort_stretch stretch(n);
  const auto grid = static_cast<unsigned>(stretch.blocks);
  const auto some = static_cast<std::size_t>(bins) * sizeof(std::int32_t);
  workspace_scope scope(ctx);
  const auto counts = ctx.allocate<std::int32_t>(index_t{stretch.blocks}, bins);
  launch(ctx, "a count of keys", count_keys_kernel, grid, block_sort_threads, some, keys, static_cast<int>(n),
         stretch.each, static_cast<int>(bins), counts.data);
  launch(ctx, "a counting sort", place_keys_kernel, grid, block_sort_threads,
         (block_sort_warps + 2) * some + sizeof(std::int32_t), keys, static_cast<int>(n), stretch.each,
         static_cast<int>(bins), static_cast<int>(std::bit_width(static_cast<std::uint32_t>(bins))), counts.data,
         offsets, order);
}

}  // namespace graft::detail
