// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One tile of a matrix product, computed by one block of 256 threads: C (rows, columns) = A (rows, depth) B (columns,
// depth)^T. Either operand may lie in memory with its depth contiguous or with its rows (columns) contiguous, which
// covers the three forms of a linear layer. Global memory -> registers -> one of two shared buffers, so that the next
// step's loads run while this one is computed; every edge is predicated. bf16 goes through the tensor cores (wmma, fp32
// sums), fp32 and fp64 through fused multiply-adds. Sums run over the depth in ascending order: the same bits every
// time.

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <cuda_bf16.h>
#include <mma.h>

#include <graft/core/dtype.hpp>
#include <graft/core/host_device.hpp>

namespace graft::detail {

inline constexpr int product_threads = 256;

// What of an operand lies contiguous in memory.
enum class contiguous : bool { depth, outer };

// Rows, columns and depth of a block's tile.
template <class T>
struct product_tile {
  static constexpr int rows = 64, columns = 64, depth = 16;
};
template <>
struct product_tile<bfloat16> {
  static constexpr int rows = 128, columns = 128, depth = 32;
};

// An operand in global memory, seen from the first element of a block's tile. A line is what lies contiguous.
template <class T>
struct product_operand {
  const T* data;
  index_t pitch;  // elements from line to line
  index_t outer;  // how many rows (columns) there are from here on; what lies beyond reads as zero
  bool aligned;   // data and pitch are multiples of 16 bytes
};

// The part of an operand that one step works on: `Outer` rows (columns) times `Depth`, kept in shared memory as it lies
// in global memory, each line padded by 16 bytes against bank conflicts.
template <class T, contiguous Along, int Outer, int Depth>
struct operand_tile {
  static constexpr int vector = 16 / static_cast<int>(sizeof(T));  // elements in a 16-byte load
  static constexpr int lines = Along == contiguous::depth ? Outer : Depth;
  static constexpr int line_length = Along == contiguous::depth ? Depth : Outer;
  static constexpr int pitch = line_length + vector;
  static constexpr int elements = lines * pitch;
  static constexpr int vectors_per_line = line_length / vector;
  static constexpr int per_thread = lines * vectors_per_line / product_threads;
  static_assert(line_length % vector == 0 && lines * vectors_per_line % product_threads == 0,
                "graft::operand_tile: the tile is no multiple of what 256 threads load at once. Change product_tile.");

  // Position in shared memory of row (column) `outer` at `depth`.
  __device__ static constexpr int at(int outer, int depth) {
    return Along == contiguous::depth ? outer * pitch + depth : depth * pitch + outer;
  }

  // Loads the step that starts at `begin` into registers; `depth` is the operand's whole depth.
  __device__ void fetch(const product_operand<T>& from, index_t begin, index_t depth) {
    const T* origin = from.data + (Along == contiguous::depth ? begin : begin * from.pitch);
    const index_t line_limit = Along == contiguous::depth ? from.outer : depth - begin;
    const index_t length_limit = Along == contiguous::depth ? depth - begin : from.outer;
#pragma unroll
    for (int v = 0; v < per_thread; ++v) {
      const int which = v * product_threads + static_cast<int>(threadIdx.x);
      const int line = which / vectors_per_line, first = which % vectors_per_line * vector;
      held_[v] = uint4{0, 0, 0, 0};
      if (line >= line_limit || first >= length_limit) continue;
      const T* source = origin + line * from.pitch + first;
      if (from.aligned && first + vector <= length_limit) {
        held_[v] = *reinterpret_cast<const uint4*>(source);
      } else {
        T element[vector];
#pragma unroll
        for (int i = 0; i < vector; ++i) element[i] = first + i < length_limit ? source[i] : T(0.0f);
        memcpy(&held_[v], element, 16);
      }
    }
  }

  // Writes what fetch loaded to shared memory. Requires: shared is aligned to 16 bytes.
  __device__ void stash(T* shared) const {
#pragma unroll
    for (int v = 0; v < per_thread; ++v) {
      const int which = v * product_threads + static_cast<int>(threadIdx.x);
      const int line = which / vectors_per_line, first = which % vectors_per_line * vector;
      *reinterpret_cast<uint4*>(shared + line * pitch + first) = held_[v];
    }
  }

 private:
  uint4 held_[per_thread];
};

// The two shared buffers of both operands; afterwards the same memory stages a bf16 product's results.
template <class T, contiguous AlongA, contiguous AlongB>
struct product_storage {
  using shape = product_tile<T>;
  using a_tile = operand_tile<T, AlongA, shape::rows, shape::depth>;
  using b_tile = operand_tile<T, AlongB, shape::columns, shape::depth>;
  alignas(32) T a[2][a_tile::elements];
  alignas(32) T b[2][b_tile::elements];
};

// The block's sums for fp32 and fp64: 16 x 16 threads, 4 x 4 sums each, 16 rows and 16 columns apart.
template <class T, contiguous AlongA, contiguous AlongB>
struct product_sums {
  using storage = product_storage<T, AlongA, AlongB>;
  static constexpr int side = 16, each = 4;
  static_assert(product_tile<T>::rows == side * each && product_tile<T>::columns == side * each,
                "graft::block_product: the warps or threads do not cover the tile. Change product_tile and the thread "
                "layout together.");

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < each; ++i)
#pragma unroll
      for (int j = 0; j < each; ++j) sum_[i][j] = T(0);
  }
  __device__ void add(const T* a, const T* b) {
    const int row = threadIdx.x / side, column = threadIdx.x % side;
#pragma unroll
    for (int k = 0; k < product_tile<T>::depth; ++k) {
      T left[each], right[each];
#pragma unroll
      for (int i = 0; i < each; ++i) {
        left[i] = a[storage::a_tile::at(row + side * i, k)];
        right[i] = b[storage::b_tile::at(column + side * i, k)];
      }
#pragma unroll
      for (int i = 0; i < each; ++i)
#pragma unroll
        for (int j = 0; j < each; ++j) sum_[i][j] += left[i] * right[j];
    }
  }
  // f(row, column, sum) for every element of the tile.
  template <class F>
  __device__ void visit(storage&, const F& f) const {
    const int row = threadIdx.x / side, column = threadIdx.x % side;
#pragma unroll
    for (int i = 0; i < each; ++i)
#pragma unroll
      for (int j = 0; j < each; ++j) f(row + side * i, column + side * j, sum_[i][j]);
  }

 private:
  T sum_[each][each];
};

// For bf16: 2 x 4 warps, each 64 x 32 of the tile as 4 x 2 fragments of 16 x 16.
template <contiguous AlongA, contiguous AlongB>
struct product_sums<bfloat16, AlongA, AlongB> {
  using storage = product_storage<bfloat16, AlongA, AlongB>;
  using a_tile = typename storage::a_tile;
  using b_tile = typename storage::b_tile;
  static constexpr int side = 16, down = 4, across = 2, warps_down = 2, warps_across = 4,
                       warps = warps_down * warps_across;
  static constexpr int stage_pitch = across * side + 4;  // floats; a warp stages 16 rows of its 32 columns at a time
  static_assert(product_tile<bfloat16>::rows == warps_down * down * side && warps * 32 == product_threads,
                "graft::block_product: the warps or threads do not cover the tile. Change product_tile and the thread "
                "layout together.");
  static_assert(product_tile<bfloat16>::columns == warps_across * across * side,
                "graft::block_product: the warps or threads do not cover the tile. Change product_tile and the thread "
                "layout together.");
  static_assert(sizeof(storage) >= warps * side * stage_pitch * sizeof(float),
                "graft::block_product: the shared storage is too small to stage the output. Enlarge it.");
  // wmma wants fragments at multiples of 32 bytes, and pitches at multiples of 16.
  static_assert(a_tile::elements * 2 % 32 == 0 && b_tile::elements * 2 % 32 == 0 &&
                side * stage_pitch * sizeof(float) % 32 == 0);

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < down; ++i)
#pragma unroll
      for (int j = 0; j < across; ++j) nvcuda::wmma::fill_fragment(sum_[i][j], 0.0f);
  }
  __device__ void add(const bfloat16* a, const bfloat16* b) {
#pragma unroll
    for (int k = 0; k < product_tile<bfloat16>::depth; k += side) {
      a_fragment left[down];
      b_fragment right[across];
#pragma unroll
      for (int i = 0; i < down; ++i) load(left[i], a + a_tile::at(first_row() + i * side, k), a_tile::pitch);
#pragma unroll
      for (int j = 0; j < across; ++j) load(right[j], b + b_tile::at(first_column() + j * side, k), b_tile::pitch);
#pragma unroll
      for (int i = 0; i < down; ++i)
#pragma unroll
        for (int j = 0; j < across; ++j) nvcuda::wmma::mma_sync(sum_[i][j], left[i], right[j], sum_[i][j]);
    }
  }
  // Which thread holds which element of a fragment is not defined, so the sums go through shared memory.
  // Requires: no thread of the block reads or writes shared any more.
  template <class F>
  __device__ void visit(storage& shared, const F& f) const {
    float* stage = reinterpret_cast<float*>(&shared) + warp() * side * stage_pitch;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < down; ++i) {
#pragma unroll
      for (int j = 0; j < across; ++j)
        nvcuda::wmma::store_matrix_sync(stage + j * side, sum_[i][j], stage_pitch, nvcuda::wmma::mem_row_major);
      __syncwarp();
      for (int row = 0; row < side; ++row)
        f(first_row() + i * side + row, first_column() + lane, stage[row * stage_pitch + lane]);
      __syncwarp();
    }
  }

 private:
  static_assert(across * side == 32, "graft::product_sums: a lane visits one column. Keep a warp's tile 32 wide.");
  // In shared memory A is (row, depth) when depth is contiguous, and the transpose of that otherwise; B is seen as
  // (depth, column).
  using a_layout = std::conditional_t<AlongA == contiguous::depth, nvcuda::wmma::row_major, nvcuda::wmma::col_major>;
  using b_layout = std::conditional_t<AlongB == contiguous::depth, nvcuda::wmma::col_major, nvcuda::wmma::row_major>;
  using a_fragment = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, side, side, side, __nv_bfloat16, a_layout>;
  using b_fragment = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, side, side, side, __nv_bfloat16, b_layout>;
  using sum_fragment = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, side, side, side, float>;

  __device__ static int warp() { return threadIdx.x / 32; }
  __device__ static int first_row() { return warp() / warps_across * down * side; }
  __device__ static int first_column() { return warp() % warps_across * across * side; }
  template <class Fragment>
  __device__ static void load(Fragment& fragment, const bfloat16* from, unsigned pitch) {
    nvcuda::wmma::load_matrix_sync(fragment, reinterpret_cast<const __nv_bfloat16*>(from), pitch);
  }

  sum_fragment sum_[down][across];
};

// f(row, column, sum) for every element of the block's tile, those beyond its edges among them (their sums are zero).
// Requires: called by all 256 threads with the same arguments; not called again before all threads are done.
template <contiguous AlongA, contiguous AlongB, class T, class F>
__device__ void block_product(product_storage<T, AlongA, AlongB>& shared, const product_operand<T>& a,
                              const product_operand<T>& b, index_t depth, const F& f) {
  using storage = product_storage<T, AlongA, AlongB>;
  constexpr int step = product_tile<T>::depth;
  typename storage::a_tile a_next;
  typename storage::b_tile b_next;
  product_sums<T, AlongA, AlongB> sums;
  sums.clear();
  if (depth > 0) {
    a_next.fetch(a, 0, depth);
    b_next.fetch(b, 0, depth);
    a_next.stash(shared.a[0]);
    b_next.stash(shared.b[0]);
    __syncthreads();
  }
  int now = 0;
  for (index_t begin = 0; begin < depth; begin += step) {
    const bool more = begin + step < depth;
    if (more) {
      a_next.fetch(a, begin + step, depth);
      b_next.fetch(b, begin + step, depth);
    }
    sums.add(shared.a[now], shared.b[now]);
    // The other buffer was last read one step ago, before the barrier below.
    if (more) {
      a_next.stash(shared.a[1 - now]);
      b_next.stash(shared.b[1 - now]);
    }
    __syncthreads();
    now = 1 - now;
  }
  sums.visit(shared, f);
}

}  // namespace graft::detail
