// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Row algorithms on CUDA: a group is a warp or a block of 256 threads, and reductions go through shuffles, each
// step in a fixed order. (CUB's WarpReduce and BlockReduce would do the same and cost 6 s of compile time.)

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include <graft/backend/cuda/launch.cuh>
#include <graft/backend/rows.hpp>

namespace graft {

namespace detail {

inline constexpr int warp_size = 32;
inline constexpr int row_block_threads = 256;
inline constexpr int row_block_warps = row_block_threads / warp_size;

// The value of the lane whose number differs in the bits of `mask`, for any trivially copyable T.
template <class T>
__device__ T shuffle_xor(const T& value, int mask) {
  static_assert(std::is_trivially_copyable_v<T>,
                "graft::Group: a reduced type is not trivially copyable. Reduce plain values.");
  constexpr int words = (sizeof(T) + 3) / 4;
  std::uint32_t word[words] = {};
  memcpy(word, &value, sizeof(T));
#pragma unroll
  for (int w = 0; w < words; ++w) word[w] = __shfl_xor_sync(0xffffffffu, word[w], mask);
  T result;
  memcpy(&result, word, sizeof(T));
  return result;
}

// op over the 32 lanes, known to all. The lower lane's part always stands left, so that every lane computes the same
// bits.
template <class T, class Op>
__device__ T reduce_lanes(T value, int lane, const Op& op) {
#pragma unroll
  for (int mask = 1; mask < warp_size; mask *= 2) {
    const T other = shuffle_xor(value, mask);
    value = (lane & mask) != 0 ? op(other, value) : op(value, other);
  }
  return value;
}

template <class F>
using row_value_t = std::remove_cvref_t<std::invoke_result_t<const F&, index_t>>;

// What all group sizes have in common. Derived has rank(), threads(), sync() and combine(value, op): op over the
// members' values, known to all.
template <class Derived>
struct device_group {
  template <class F>
  __device__ void for_each(index_t n, const F& f) const {
    for (index_t i = self().rank(); i < n; i += Derived::threads()) f(i);
  }
  template <class F, class Op, class T>
  __device__ T reduce(index_t n, const F& f, const Op& op, T identity) const {
    T value = identity;
    for (index_t i = self().rank(); i < n; i += Derived::threads()) value = op(value, f(i));
    return self().combine(value, op);
  }
  template <class F>
  __device__ row_value_t<F> sum(index_t n, const F& f) const {
    using T = row_value_t<F>;
    return reduce(
        n, f, [](T a, T b) { return a + b; }, T(0));
  }
  template <class F>
  __device__ row_value_t<F> max(index_t n, const F& f) const {
    using T = row_value_t<F>;
    return reduce(
        n, f, [](T a, T b) { return b > a ? b : a; }, lowest<T>());
  }
  template <class F>
  __device__ indexed_value<row_value_t<F>> argmax(index_t n, const F& f) const {
    using T = row_value_t<F>;
    using best_type = indexed_value<T>;
    best_type best{lowest<T>(), 0};
    for (index_t i = self().rank(); i < n; i += Derived::threads()) {
      const T value = f(i);
      if (value > best.value) best = best_type{value, i};
    }
    return self().combine(best, [](const best_type& a, const best_type& b) {
      return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
    });
  }
  template <class F>
  __device__ void single(const F& f) const {
    if (self().rank() == 0) f();
  }

 private:
  template <class T>
  __device__ static constexpr T lowest() {
    return std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                : std::numeric_limits<T>::lowest();
  }
  __device__ const Derived& self() const { return static_cast<const Derived&>(*this); }
};

}  // namespace detail

// A warp as a group. Order: element i goes to lane i mod 32, lanes are combined 1 apart, then 2, 4, 8, 16.
struct warp_group : detail::device_group<warp_group> {
  __device__ warp_group() : lane_(static_cast<int>(threadIdx.x) % detail::warp_size) {}

  __device__ static constexpr int threads() { return detail::warp_size; }
  __device__ int rank() const { return lane_; }
  __device__ void sync() const { __syncwarp(); }
  template <class T, class Op>
  __device__ T combine(T value, const Op& op) const {
    return detail::reduce_lanes(value, lane_, op);
  }

 private:
  int lane_;
};

// A block of 256 threads as a group. Order: element i goes to thread i mod 256; each warp as above, then warps 0 to 7.
struct block_group : detail::device_group<block_group> {
  static constexpr std::size_t largest_value = 16;
  // One value of each warp, in shared memory.
  struct alignas(largest_value) scratch {
    std::byte bytes[largest_value * detail::row_block_warps];
  };

  __device__ explicit block_group(scratch& shared) : scratch_(&shared), rank_(static_cast<int>(threadIdx.x)) {}

  __device__ static constexpr int threads() { return detail::row_block_threads; }
  __device__ int rank() const { return rank_; }
  __device__ void sync() const { __syncthreads(); }
  template <class T, class Op>
  __device__ T combine(T value, const Op& op) const {
    static_assert(sizeof(T) <= largest_value,
                  "graft::Group: a reduced type is larger than 16 bytes. Reduce its members one by one.");
    T* part = reinterpret_cast<T*>(scratch_->bytes);
    value = detail::reduce_lanes(value, rank_ % detail::warp_size, op);
    if (rank_ % detail::warp_size == 0) part[rank_ / detail::warp_size] = value;
    __syncthreads();
    value = part[0];
#pragma unroll
    for (int warp = 1; warp < detail::row_block_warps; ++warp) value = op(value, part[warp]);
    __syncthreads();  // all have read: the next reduction may write
    return value;
  }

 private:
  scratch* scratch_;
  int rank_;
};

static_assert(Group<warp_group> && Group<block_group>,
              "graft::rows: a CUDA group does not model Group. Compare it with backend/rows.hpp.");

namespace detail {

template <class Algorithm>
static __global__ void __launch_bounds__(row_block_threads)
    warp_rows_kernel(index_t row_count, const Algorithm algorithm) {
  warp_group group;
  const index_t stride = static_cast<index_t>(gridDim.x) * row_block_warps;
  for (index_t row = static_cast<index_t>(blockIdx.x) * row_block_warps + threadIdx.x / warp_size; row < row_count;
       row += stride)
    algorithm(group, row);
}

template <class Algorithm>
static __global__ void __launch_bounds__(row_block_threads)
    block_rows_kernel(index_t row_count, const Algorithm algorithm) {
  __shared__ block_group::scratch shared;
  block_group group(shared);
  for (index_t row = blockIdx.x; row < row_count; row += gridDim.x) algorithm(group, row);
}

template <class F>
static __global__ void __launch_bounds__(row_block_threads) elements_kernel(index_t count, const F f) {
  const index_t stride = static_cast<index_t>(gridDim.x) * row_block_threads;
  for (index_t i = static_cast<index_t>(blockIdx.x) * row_block_threads + threadIdx.x; i < count; i += stride) f(i);
}

// Enough blocks for the work, and at most 32 for each multiprocessor: 4 times what it can hold at once.
inline unsigned bounded_grid(const context<cuda>& ctx, index_t wanted) {
  return static_cast<unsigned>(std::min<index_t>(wanted, index_t{32} * ctx.multiprocessors()));
}

}  // namespace detail

// The widest row that one warp works on: 32 elements a lane.
inline constexpr index_t warp_row_width = 1024;

// row_width_hint chooses the group: a warp up to warp_row_width, else a block of 256. The choice changes the order of
// sums, so callers give the row's width and never a number that varies from run to run.
template <class Algorithm>
void launch_rows(context<cuda>& ctx, index_t row_count, index_t row_width_hint, const Algorithm& algorithm) {
  static_assert(std::is_trivially_copyable_v<Algorithm>,
                "graft::launch_rows: the algorithm is not trivially copyable. Hold views and plain values.");
  if (row_count <= 0) return;
  if (row_width_hint <= warp_row_width) {
    const unsigned grid =
        detail::bounded_grid(ctx, (row_count + detail::row_block_warps - 1) / detail::row_block_warps);
    detail::launch(ctx, "a row algorithm by warps", detail::warp_rows_kernel<Algorithm>, grid,
                   detail::row_block_threads, 0, row_count, algorithm);
  } else {
    const unsigned grid = detail::bounded_grid(ctx, row_count);
    detail::launch(ctx, "a row algorithm by blocks", detail::block_rows_kernel<Algorithm>, grid,
                   detail::row_block_threads, 0, row_count, algorithm);
  }
}

template <class F>
void launch_elements(context<cuda>& ctx, index_t count, const F& f) {
  if (count <= 0) return;
  const unsigned grid = detail::bounded_grid(ctx, (count + detail::row_block_threads - 1) / detail::row_block_threads);
  detail::launch(ctx, "an element function", detail::elements_kernel<F>, grid, detail::row_block_threads, 0, count, f);
}

}  // namespace graft
