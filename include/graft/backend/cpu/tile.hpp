// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The ground under the CPU's products: what a tile is, how tiles run on threads, and the memory a thread keeps for
// them.

#include <cstddef>
#include <exception>
#include <limits>

#include <graft/backend/cpu/context.hpp>

namespace graft::detail {

// The three products of a linear layer and its gradients, named as BLAS names them: n as stored, t transposed.
enum class product_form { nt, nn, tn };

// One tile: c (rows, columns) (+)= A B with A (rows, depth), B (depth, columns). a points at A for nt and nn and at A^T
// for tn; b points at B for nn and tn and at B^T for nt. Strides count elements from one stored row to the next.
template <class T, class Out>
struct tile {
  index_t rows, columns, depth;
  const T* a;
  index_t a_stride;
  const T* b;
  index_t b_stride;
  Out* c;
  index_t c_stride;
  bool add;  // c += instead of c =
};

// While it lives, libraries called from this thread do not start threads of their own: both read OpenMP's setting,
// which belongs to the calling thread. Inside a team of one they would not notice the parallel region otherwise.
class sequential_libraries {
 public:
#if defined(_OPENMP)
  sequential_libraries() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~sequential_libraries() { omp_set_num_threads(before_); }

 private:
  int before_;

 public:
#else
  sequential_libraries() {}
#endif
  sequential_libraries(const sequential_libraries&) = delete;
  sequential_libraries& operator=(const sequential_libraries&) = delete;
};

// run(i) for i in [0, count), each on one thread; tiles are handed out in turn, so uneven ones balance. The first
// exception, in the order of time, is thrown again when all have stopped. `work` counts the multiplications of all
// tiles: few are done sooner than other threads wake, and those would spin at the end where others want the cores.
template <class F>
void run_tiles([[maybe_unused]] context<cpu>& ctx, index_t count, [[maybe_unused]] index_t work, const F& run) {
#if defined(_OPENMP)
  constexpr index_t little_work = index_t{1} << 16;
  if (ctx.threads() > 1 && count > 1 && work > little_work) {
    std::exception_ptr failure;
#pragma omp parallel num_threads(ctx.threads())
    {
      sequential_libraries sequential;
#pragma omp for schedule(dynamic, 1)
      for (index_t i = 0; i < count; ++i) {
        try {
          run(i);
        } catch (...) {
#pragma omp critical(graft_run_tiles)
          if (!failure) failure = std::current_exception();
        }
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
#endif
  sequential_libraries sequential;
  for (index_t i = 0; i < count; ++i) run(i);
}

// The same where the work of the tiles is always worth the threads.
template <class F>
void run_tiles(context<cpu>& ctx, index_t count, const F& run) {
  run_tiles(ctx, count, std::numeric_limits<index_t>::max(), run);
}

// Memory that one thread keeps between tiles: grows to the largest request and stays.
class tile_scratch {
 public:
  tile_scratch() = default;
  tile_scratch(const tile_scratch&) = delete;
  tile_scratch& operator=(const tile_scratch&) = delete;
  ~tile_scratch() { host_memory().deallocate(data_, size_); }

  // Uninitialised. The previous request's contents are lost.
  template <class T>
  T* get(index_t count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (bytes > size_) {
      host_memory().deallocate(data_, size_);
      data_ = nullptr;
      size_ = 0;
      data_ = host_memory().allocate(bytes);
      size_ = bytes;
    }
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// The libraries count in 32 bits.
inline int library_int(index_t value) {
  GRAFT_CHECK(value >= 0 && value <= std::numeric_limits<int>::max(), "gemm: expected sizes and strides of at most ",
              std::numeric_limits<int>::max(), ", got ", value);
  return static_cast<int>(value);
}

constexpr index_t ceil_div(index_t a, index_t b) { return (a + b - 1) / b; }

}  // namespace graft::detail
