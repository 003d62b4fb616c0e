// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One tile of a matrix product in bf16 on the tensor cores, computed by one block of 128 threads with sums in fp32:
// C (128, 128) = A (128, depth) B (128, depth)^T. Either operand may lie in memory with its depth contiguous or with
// its rows (columns) contiguous; where its lines lie, one after another or wherever a routing says, is told by a
// `Lines`. Asynchronous copies bring tiles 32 deep into a ring of four stages in shared memory, three steps ahead of
// their use; matrix loads take them to registers half a step ahead of their use. Sums run over the depth in ascending
// order: the same bits every time.
//
// A line in shared memory is cut into vectors of 16 bytes, which are permuted by exclusive or with the line's number,
// so that the 8 rows that a matrix load reads lie in 8 different groups of banks, with no padding.

#include <cstddef>
#include <cstdint>

#include <graft/backend/cuda/intrinsics.cuh>
#include <graft/backend/cuda/product_tile.hpp>

namespace graft::detail {

using tensor_tile = product_tile<bfloat16>;
inline constexpr int tensor_vector = 8;  // elements in 16 bytes

// Lines of an operand in global memory: the rows (columns) of the tile, or the steps of its depth, whichever has its
// elements contiguous. A Lines has
//   find(i)    which line of memory is line i, -1 for a line of zeros: beyond the last one, or nobody's
//   at(line)   its first element
//   aligned    whether lines start at multiples of 16 bytes and consist of whole vectors
//   lookup     whether find reads memory
struct plain_lines {
  static constexpr bool lookup = false;
  const bfloat16* data;
  std::uint32_t pitch;  // bytes
  int count;
  bool aligned;

  __device__ int find(int i) const { return i < count ? i : -1; }
  __device__ const bfloat16* at(int line) const { return line_at(data, pitch, line); }

  // One instruction: 32 x 32 + 64 bits.
  __device__ static const bfloat16* line_at(const bfloat16* data, std::uint32_t pitch, int line) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(static_cast<std::uint32_t>(line)) * pitch;
    return reinterpret_cast<const bfloat16*>(reinterpret_cast<const std::byte*>(data) + bytes);
  }
};

// One operand's part of a stage: 128 lines of 4 vectors, or 32 lines of 16.
template <contiguous Along>
struct tensor_slot {
  static constexpr int vectors = (Along == contiguous::depth ? tensor_tile::depth : tensor_tile::rows) / tensor_vector;
  static constexpr int lines = Along == contiguous::depth ? tensor_tile::rows : tensor_tile::depth;
  static constexpr int line_bytes = vectors * 16;

  // Bytes to a vector of a line; the same for all lines 8 apart, but for the lines between. Two lines of 4 vectors
  // share the 128 bytes of all banks.
  __device__ static constexpr int at(int line, int vector) {
    const int permuted = vector ^ (Along == contiguous::depth ? line / 2 % 4 : line % 8);
    return line * line_bytes + permuted * 16;
  }
};

// Copies an operand's part of one stage after another. Each thread copies one vector of every 32nd line (of every 8th,
// of the long ones).
template <contiguous Along, class Lines>
class tensor_loader {
  using slot = tensor_slot<Along>;
  static constexpr int apart = tensor_tile::threads / slot::vectors, each = slot::lines / apart;
  static constexpr bool along_depth = Along == contiguous::depth;
  static_assert(
      slot::lines % apart == 0 && apart % 8 == 0 && each <= 32,
      "graft::tensor_loader: the threads do not cover the tile. Change product_tile and the copies together.");

 public:
  // extent: elements of a line that exist from here on, the depth where that is contiguous.
  __device__ tensor_loader(const Lines& lines, int extent)
      : lines_(lines),
        first_(static_cast<int>(threadIdx.x) / slot::vectors),
        element_(static_cast<int>(threadIdx.x) % slot::vectors * tensor_vector),
        left_(extent - element_),
        target_(slot::at(first_, element_ / tensor_vector)) {
    if constexpr (along_depth) {
#pragma unroll
      for (int v = 0; v < each; ++v) {
        const int line = lines_.find(first_ + v * apart);
        source_[v] = lines_.at(line < 0 ? 0 : line) + element_;
        present_ |= (line < 0 ? 0u : 1u) << v;
      }
    } else if constexpr (Lines::lookup) {
      look_up(0);
    }
  }

  // The tile that starts at `begin` of the depth into `stage`. Called with begin = 0, 32, 64, ...
  __device__ void copy(std::byte* stage, int begin) {
    if (!lines_.aligned) {
      copy_elements(stage, begin);
      return;
    }
    std::byte* target = stage + target_;
    if constexpr (along_depth) {
      const std::uint32_t present = begin < left_ ? present_ : 0u;
#pragma unroll
      for (int v = 0; v < each; ++v) {
        copy_async_16(target + v * (apart * slot::line_bytes), source_[v], (present & (1u << v)) != 0 ? 16 : 0);
        source_[v] += tensor_tile::depth;
      }
    } else {
      const bool present = left_ > 0;
#pragma unroll
      for (int v = 0; v < each; ++v) {
        int line;
        if constexpr (Lines::lookup)
          line = next_[v];
        else
          line = lines_.find(begin + first_ + v * apart);
        copy_async_16(target + v * (apart * slot::line_bytes), lines_.at(line < 0 ? 0 : line) + element_,
                      present && line >= 0 ? 16 : 0);
      }
      if constexpr (Lines::lookup) look_up(begin + tensor_tile::depth);
    }
  }

 private:
  // A step ahead, so that no copy waits for its address.
  __device__ void look_up(int begin) {
#pragma unroll
    for (int v = 0; v < each; ++v) next_[v] = lines_.find(begin + first_ + v * apart);
  }
  // For lines that start anywhere: element by element, through registers.
  __device__ void copy_elements(std::byte* stage, int begin) const {
    const int count = left_ - (along_depth ? begin : 0);
#pragma unroll 1
    for (int v = 0; v < each; ++v) {
      const int line = lines_.find((along_depth ? 0 : begin) + first_ + v * apart);
      const bfloat16* source = lines_.at(line < 0 ? 0 : line) + element_ + (along_depth ? begin : 0);
      std::uint32_t word[tensor_vector / 2];
#pragma unroll
      for (int i = 0; i < tensor_vector; i += 2) {
        const std::uint32_t low = line >= 0 && i < count ? source[i].bits : 0u;
        const std::uint32_t high = line >= 0 && i + 1 < count ? source[i + 1].bits : 0u;
        word[i / 2] = low | (high << 16);
      }
      *reinterpret_cast<uint4*>(stage + target_ + v * (apart * slot::line_bytes)) =
          uint4{word[0], word[1], word[2], word[3]};
    }
  }

  Lines lines_;
  int first_, element_;  // this thread's first line, and where its vector begins in all of them
  int left_;             // elements from there on; of the depth: from its start on
  int target_;           // bytes into the stage
  const bfloat16* source_[along_depth ? each : 1];
  std::uint32_t present_ = 0;  // bit v: source_[v] exists
  int next_[!along_depth && Lines::lookup ? each : 1];
};

// Where in a slot this lane's rows of the matrix loads lie. A load takes 16 rows (columns) at 16 of the depth.
// `left`: of the operand A, whose four 8 x 8 matrices come in another order than B's.
template <contiguous Along>
class tensor_fragments {
 public:
  __device__ tensor_fragments(int outer, bool left) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int low = lane % 16, high = lane / 16;                       // matrices 0 and 1, 2 and 3: one after the other
    const int paired = high * 8 + lane % 8, alternate = lane / 8 % 2;  // matrices 0 and 2, 1 and 3
    // A: matrices are ordered by rows first, then by depth. B: by depth first, then by columns.
    const bool rows_first = left == (Along == contiguous::depth);
    const int line = rows_first ? low : paired, vector = rows_first ? high : alternate;
    base_ = Along == contiguous::depth ? outer * tensor_slot<Along>::line_bytes + tensor_slot<Along>::at(line, vector)
                                       : tensor_slot<Along>::at(line, vector) + outer * 2;
  }
  // Loads rows (columns) [16 i, 16 i + 16) at the depth [16 k, 16 k + 16).
  __device__ void load(std::uint32_t (&r)[4], const std::byte* slot, int i, int k) const {
    if constexpr (Along == contiguous::depth) {
      load_matrix_x4(r, slot + ((base_ ^ (k << 5)) + i * (16 * tensor_slot<Along>::line_bytes)));
    } else {
      load_matrix_x4_transposed(r, slot + ((base_ ^ (i << 5)) + k * (16 * tensor_slot<Along>::line_bytes)));
    }
  }

 private:
  int base_;
};

// A warp's 64 x 64 sums: 4 x 8 fragments of 16 x 8.
class tensor_sums {
 public:
  static constexpr int down = tensor_tile::warp_rows / 16, across = tensor_tile::warp_columns / 8;
  static constexpr int warps_across = tensor_tile::columns / tensor_tile::warp_columns;
  static constexpr int warps = tensor_tile::threads / 32;
  static_assert(tensor_tile::rows / tensor_tile::warp_rows * warps_across == warps,
                "graft::tensor_product: the warps do not cover the tile. Change product_tile.");
  static_assert(warps * tensor_tile::warp_rows * tensor_tile::warp_columns * sizeof(float) <= tensor_tile::shared_bytes,
                "graft::tensor_product: the shared memory is too small to stage the output. Enlarge it.");

  __device__ static int warp() { return static_cast<int>(threadIdx.x) / 32; }
  __device__ static int first_row() { return warp() / warps_across * tensor_tile::warp_rows; }
  __device__ static int first_column() { return warp() % warps_across * tensor_tile::warp_columns; }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < down; ++i)
#pragma unroll
      for (int j = 0; j < across; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum_[i][j][e] = 0.0f;
  }
  // b[j]: two neighbouring fragments of 8 columns.
  __device__ void add(const std::uint32_t (&a)[down][4], const std::uint32_t (&b)[across / 2][4]) {
#pragma unroll
    for (int i = 0; i < down; ++i)
#pragma unroll
      for (int j = 0; j < across; ++j) {
        const std::uint32_t right[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
        multiply_add_16x8x16(sum_[i][j], a[i], right);
      }
  }

  // Calls f for every run of 8 sums of a row, those beyond the edges among them (their sums are zero):
  //   held = f.fetch(row, column), then f(row, column, sums, held)     columns [column, column + 8) of the tile
  //   the same with f(row, column, first, second, held)                for f.paired: of the tile's 64-column halves,
  //       each half's first 32 columns and its last 32, side by side; column counts the pairs
  // Through shared memory, so that lanes next to each other have runs next to each other. What f reads of global memory
  // is fetched for four runs at a time, before any of them is stored.
  // Requires: no thread of the block reads or writes `shared` any more.
  template <class F>
  __device__ void visit(std::byte* shared, const F& f) const {
    constexpr int pitch = tensor_tile::warp_columns, together = 4;
    float* stage = reinterpret_cast<float*>(shared) + warp() * (tensor_tile::warp_rows * pitch);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    // Runs are permuted by exclusive or with the row, so that the lanes that write hit all banks.
    const int row_of_lane = lane / 4;
#pragma unroll
    for (int i = 0; i < down; ++i)
#pragma unroll
      for (int j = 0; j < across; ++j) {
        float* target = stage + (i * 16 + row_of_lane) * pitch + (j ^ (row_of_lane % 4)) * tensor_vector + lane % 4 * 2;
        *reinterpret_cast<float2*>(target) = float2{sum_[i][j][0], sum_[i][j][1]};
        *reinterpret_cast<float2*>(target + 8 * pitch) = float2{sum_[i][j][2], sum_[i][j][3]};
      }
    __syncwarp();
    constexpr int runs = (F::paired ? pitch / 2 : pitch) / tensor_vector, rows = 32 / runs;
    const int run = lane % runs, column = (F::paired ? first_column() / 2 : first_column()) + run * tensor_vector;
#pragma unroll 1
    for (int begin = lane / runs; begin < tensor_tile::warp_rows; begin += rows * together) {
      typename F::held held[together];
#pragma unroll
      for (int k = 0; k < together; ++k) held[k] = f.fetch(first_row() + begin + k * rows, column);
#pragma unroll
      for (int k = 0; k < together; ++k) {
        const int row = begin + k * rows;
        const float* from = stage + row * pitch;
        float first[tensor_vector];
        read(first, from + (run ^ (row % 4)) * tensor_vector);
        if constexpr (F::paired) {
          float second[tensor_vector];
          read(second, from + ((run + runs) ^ (row % 4)) * tensor_vector);
          f(first_row() + row, column, first, second, held[k]);
        } else {
          f(first_row() + row, column, first, held[k]);
        }
      }
    }
  }

 private:
  __device__ static void read(float (&run)[tensor_vector], const float* from) {
    const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
    run[0] = low.x, run[1] = low.y, run[2] = low.z, run[3] = low.w;
    run[4] = high.x, run[5] = high.y, run[6] = high.z, run[7] = high.w;
  }

  float sum_[down][across][4];
};

// The product of the block's tile; f as for tensor_sums::visit.
// shared: product_tile<bfloat16>::shared_bytes, aligned to 128. depth: the operands' whole depth.
// Requires: called by all 128 threads with the same arguments, once in a kernel.
template <contiguous AlongA, contiguous AlongB, class LinesA, class LinesB, class F>
__device__ void tensor_product(std::byte* shared, tensor_loader<AlongA, LinesA> left,
                               tensor_loader<AlongB, LinesB> right, int depth, const F& f) {
  constexpr int stages = tensor_tile::stages, ahead = stages - 1;
  static_assert(tensor_tile::depth == 32, "graft::tensor_product: a stage is two steps of 16. Change the loop too.");
  const auto stage = [&](int which) { return shared + which * (2 * tensor_tile::operand_bytes); };
  const auto copy = [&](int which, int begin) {
    left.copy(stage(which), begin);
    right.copy(stage(which) + tensor_tile::operand_bytes, begin);
  };
  const tensor_fragments<AlongA> a_at(tensor_sums::first_row(), true);
  const tensor_fragments<AlongB> b_at(tensor_sums::first_column(), false);
  std::uint32_t a[2][tensor_sums::down][4], b[2][tensor_sums::across / 2][4];
  const auto load = [&](int half, int which) {
    const std::byte *from_a = stage(which), *from_b = from_a + tensor_tile::operand_bytes;
#pragma unroll
    for (int i = 0; i < tensor_sums::down; ++i) a_at.load(a[half][i], from_a, i, half);
#pragma unroll
    for (int j = 0; j < tensor_sums::across / 2; ++j) b_at.load(b[half][j], from_b, j, half);
  };
  tensor_sums sums;
  sums.clear();

  // A group is committed for every stage, if need be an empty one, so that their number alone says which have arrived.
  for (int s = 0; s < ahead; ++s) {
    const int begin = s * tensor_tile::depth;
    if (begin < depth) copy(s, begin);
    copy_async_commit();
  }
  copy_async_wait<ahead - 1>();
  __syncthreads();
  if (depth > 0) load(0, 0);
  int now = 0, free = ahead;
  for (int begin = 0; begin < depth; begin += tensor_tile::depth) {
    load(1, now);
    // The free stage was read last before the barrier below.
    const int next = begin + ahead * tensor_tile::depth;
    if (next < depth) copy(free, next);
    copy_async_commit();
    sums.add(a[0], b[0]);
    copy_async_wait<ahead - 1>();
    __syncthreads();
    now = now + 1 == stages ? 0 : now + 1;
    free = free + 1 == stages ? 0 : free + 1;
    if (begin + tensor_tile::depth < depth) load(0, now);
    sums.add(a[1], b[1]);
  }
  // All copies have arrived and all matrix loads are done: the last barrier came after them.
  sums.visit(shared, f);
}

}  // namespace graft::detail
