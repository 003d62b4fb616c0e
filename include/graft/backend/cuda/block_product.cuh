// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One tile of a matrix product in fp32 or fp64, computed by one block of 256 threads with fused multiply-adds (there is
// no TF32 here): C (rows, columns) = A (rows, depth) B (columns, depth)^T. Either operand may lie in memory with its
// depth contiguous or with its rows (columns) contiguous, which covers the three forms of a linear layer. Global memory
// -> registers -> one of two shared buffers, so that the next step's loads run while this one is computed; every edge
// is predicated. Sums run over the depth in ascending order: the same bits every time. bf16: tensor_product.cuh.

#include <cstdint>
#include <cstring>

#include <graft/backend/cuda/product_tile.hpp>

namespace graft::detail {

inline constexpr int product_threads = product_tile<float>::threads;

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

// The two shared buffers of both operands.
template <class T, contiguous AlongA, contiguous AlongB>
struct product_storage {
  using shape = product_tile<T>;
  using a_tile = operand_tile<T, AlongA, shape::rows, shape::depth>;
  using b_tile = operand_tile<T, AlongB, shape::columns, shape::depth>;
  alignas(16) T a[2][a_tile::elements];
  alignas(16) T b[2][b_tile::elements];
};

// The block's sums: 16 x 16 threads, 4 x 4 sums each, 16 rows and 16 columns apart.
template <class T, contiguous AlongA, contiguous AlongB>
struct product_sums {
  using storage = product_storage<T, AlongA, AlongB>;
  static constexpr int side = 16, each = 4;
  static_assert(product_tile<T>::rows == side * each && product_tile<T>::columns == side * each,
                "graft::block_product: the threads do not cover the tile. Change product_tile and the thread "
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
  __device__ void visit(const F& f) const {
    const int row = threadIdx.x / side, column = threadIdx.x % side;
#pragma unroll
    for (int i = 0; i < each; ++i)
#pragma unroll
      for (int j = 0; j < each; ++j) f(row + side * i, column + side * j, sum_[i][j]);
  }

 private:
  T sum_[each][each];
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
  sums.visit(f);
}

}  // namespace graft::detail
