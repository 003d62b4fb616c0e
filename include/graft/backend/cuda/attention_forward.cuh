// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Causal grouped-query attention on the tensor cores, forward. A block takes 128 queries of one head and goes over the
// keys that they see in tiles, ascending, with the softmax kept up to date tile by tile:
//   m' = max(m, s_j)   l' = l e^(m-m') + sum e^(s_j-m')   o' = o e^(m-m') + sum e^(s_j-m') v_j    then o / l and m +
//   log l
// The next tile of keys and values is copied while this one is computed. Weights are rounded to bf16 for their product
// with the values; everything else is fp32. e^x is taken as 2^(x log2 e), the factor folded into 1 / sqrt(d).
// Source: Dao 2023, arXiv 2307.08691, algorithm 1.

#include <algorithm>
#include <limits>

#include <graft/backend/cuda/attention_tiles.cuh>
#include <graft/core/attention_shape.hpp>

namespace graft::detail {

template <int HeadDim>
struct attention_forward_plan {
  static constexpr int tiles = 2;                               // of 16 queries, a warp
  static constexpr int queries = 16 * tiles * attention_warps;  // a block
  static constexpr int keys = HeadDim <= 96 ? 64 : 32;          // at a time
  static constexpr std::size_t shared_bytes = sizeof(bfloat16) * head_tile<HeadDim>::elements(queries + 4 * keys);
};

// log2 of what e^(s / sqrt(d)) is to be, for one s.
struct attention_scale {
  float natural;  // 1 / sqrt(d)
  float binary;   // log2(e) / sqrt(d)
};

// Where a block that owns queries, and one of its warps, stands: a block has those of one head of one sequence. The
// last queries see the most keys, so they come first. Plan: tiles, of 16 queries, a warp; queries, a block; keys, at a
// time.
template <class Plan>
struct attention_query_place {
  int pair, head, kv_head;  // pair: of sequence and head
  index_t token;            // the first of the sequence
  int first, steps;         // position of the block's first query; how many times it takes keys
  int warp_row;             // the warp's first query in the block
  int warp_first, warp_last;

  __device__ __forceinline__ explicit attention_query_place(const attention_shape& shape) {
    const int positions = static_cast<int>(shape.positions), heads = static_cast<int>(shape.heads);
    const int pairs = heads * static_cast<int>(shape.sequences), block = static_cast<int>(blockIdx.x);
    pair = block % pairs;
    head = pair % heads;
    kv_head = head / static_cast<int>(shape.group());
    token = static_cast<index_t>(pair / heads) * shape.positions;
    first = ((positions - 1) / Plan::queries - block / pairs) * Plan::queries;
    steps = (std::min(positions, first + Plan::queries) + Plan::keys - 1) / Plan::keys;
    warp_row = static_cast<int>(threadIdx.x) / 32 * 16 * Plan::tiles;
    warp_first = first + warp_row;
    warp_last = warp_first + 16 * Plan::tiles - 1;
  }
};

template <int HeadDim>
static __global__ void __launch_bounds__(attention_threads)
    attention_forward_kernel(const matrix_view<bfloat16, device_space> out,
                             const matrix_view<float, device_space> log_sum_exp,
                             const matrix_view<const bfloat16, device_space> qkv, const attention_shape shape,
                             const attention_scale scale) {
  using plan = attention_forward_plan<HeadDim>;
  using tile = head_tile<HeadDim>;
  constexpr int tiles = plan::tiles, columns = plan::keys / 8;
  constexpr float nothing = -std::numeric_limits<float>::infinity();

  bfloat16* const query_tile = reinterpret_cast<bfloat16*>(dynamic_shared());
  bfloat16* const key_tiles = query_tile + tile::elements(plan::queries);  // of even and odd steps
  bfloat16* const value_tiles = key_tiles + tile::elements(2 * plan::keys);

  const attention_query_place<plan> place(shape);
  const int positions = static_cast<int>(shape.positions), head = place.head, warp_row = place.warp_row,
            warp_first = place.warp_first;
  const index_t token = place.token;
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const int pitch = static_cast<int>(qkv.strides[0]);
  const bfloat16* const keys = qkv.row(token) + shape.key(place.kv_head);
  const bfloat16* const values = qkv.row(token) + shape.value(place.kv_head);

  const auto fetch_step = [&](int step) {
    const int begin = step * plan::keys, at = step % 2 * tile::elements(plan::keys);
    tile::template fetch<plan::keys>(key_tiles + at, keys, pitch, begin, positions);
    tile::template fetch<plan::keys>(value_tiles + at, values, pitch, begin, positions);
    copy_async_commit();
  };
  tile::template fetch<plan::queries>(query_tile, qkv.row(token) + shape.query(head), pitch, place.first, positions);
  fetch_step(0);

  float sums[tiles][HeadDim / 8][4];     // o
  float top[tiles][2], total[tiles][2];  // m, and this lane's part of l; of rows g and g + 8 of each tile
  clear_sums(sums);
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top[i][half] = nothing;
      total[i][half] = 0;
    }

  for (int step = 0; step < place.steps; ++step) {
    copy_async_wait<0>();
    __syncthreads();  // this step's tiles are there, and nobody reads the other ones any more
    if (step + 1 < place.steps) fetch_step(step + 1);
    const int begin = step * plan::keys, at = step % 2 * tile::elements(plan::keys);
    if (begin > place.warp_last) continue;  // the warp's queries see none of these keys

    float score[tiles][columns][4];
    clear_sums(score);
    tile::multiply_rows(score, query_tile, warp_row, key_tiles + at);
    if (begin + plan::keys - 1 > warp_first) {
#pragma unroll
      for (int i = 0; i < tiles; ++i)
#pragma unroll
        for (int j = 0; j < columns; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int query = warp_first + 16 * i + g + e / 2 * 8, key = begin + 8 * j + 2 * t + e % 2;
            if (key > query) score[i][j][e] = nothing;
          }
    }
    // Key 0 is seen by every query and stands in step 0: m is a number from then on.
#pragma unroll
    for (int i = 0; i < tiles; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float larger = top[i][half];
#pragma unroll
        for (int j = 0; j < columns; ++j)
          larger = fmaxf(larger, fmaxf(score[i][j][2 * half], score[i][j][2 * half + 1]));
        larger = fmaxf(larger, __shfl_xor_sync(0xffffffffu, larger, 1));
        larger = fmaxf(larger, __shfl_xor_sync(0xffffffffu, larger, 2));
        const float shrink = exp2_approximate((top[i][half] - larger) * scale.binary), offset = larger * scale.binary;
        top[i][half] = larger;
        float sum = total[i][half] * shrink;
#pragma unroll
        for (int j = 0; j < columns; ++j)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            score[i][j][e] = exp2_approximate(fmaf(score[i][j][e], scale.binary, -offset));
            sum += score[i][j][e];
          }
        total[i][half] = sum;
#pragma unroll
        for (int j = 0; j < HeadDim / 8; ++j) {
          sums[i][j][2 * half] *= shrink;
          sums[i][j][2 * half + 1] *= shrink;
        }
      }
    tile::multiply_weights(sums, score, value_tiles + at);
  }

  float inverse[tiles][2];
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = total[i][half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      inverse[i][half] = 1.0f / sum;
      const int query = warp_first + 16 * i + 8 * half + g;
      if (t == 0 && query < positions) log_sum_exp(token + query, head) = fmaf(top[i][half], scale.natural, logf(sum));
    }
  // A warp reads no queries but its own, so their place is free.
  store_head_rows<HeadDim>(query_tile + warp_row * tile::pitch, sums, inverse,
                           out.row(token + warp_first) + static_cast<index_t>(head) * HeadDim, out.strides[0],
                           positions - warp_first);
}

}  // namespace graft::detail
