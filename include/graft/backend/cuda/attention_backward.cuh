// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Causal grouped-query attention on the tensor cores, backward, without atomics:
//   p = e^(s - lse)    dp = dO v^T    ds = p (dp - delta)    dv = p^T dO    dk = ds^T q / sqrt(d)    dq = ds k /
//   sqrt(d)
// delta_t = <dO_t, O_t> first. Then one kernel whose blocks own keys and go over the group's heads and their queries,
// ascending, for dk and dv; and one whose blocks own queries and go over the keys, ascending, for dq. Scores are
// computed twice, which costs 7 products in place of 5 and saves the sums of dq from meeting in memory. Blocks that own
// keys compute the transpose, s^T = k q^T, so that p^T and ds^T come out as left operands. p and ds are rounded to bf16
// for their products; everything else is fp32.
// Source: Dao et al. 2022, arXiv 2205.14135, algorithm 4; Dao 2023, arXiv 2307.08691, algorithm 2.

#include <algorithm>
#include <limits>
#include <numbers>

#include <graft/backend/cuda/attention_forward.cuh>

namespace graft::detail {

// What a query brings along, prepared once. Kept by sequence, head and position, each head with room for a whole
// number of tiles; queries that do not exist have lse = infinity, so their weights are zero.
struct attention_statistic {
  float log2_sum;  // log2(e) lse
  float delta;
};

// Those of two queries, at an even one: sum, delta, sum, delta.
__device__ __forceinline__ float4 two_statistics(const attention_statistic* at) {
  return *reinterpret_cast<const float4*>(at);
}

// A multiple of the queries that any kernel takes at a time.
inline constexpr int attention_padding = 128;
GRAFT_HOST_DEVICE constexpr index_t attention_padded(index_t positions) {
  return (positions + attention_padding - 1) / attention_padding * attention_padding;
}

// Four lanes a row; rows in the order sequence, position, head.
template <int HeadDim>
static __global__ void __launch_bounds__(attention_threads)
    attention_statistics_kernel(attention_statistic* const statistics,
                                const matrix_view<const bfloat16, device_space> d_out,
                                const matrix_view<const bfloat16, device_space> out,
                                const matrix_view<const float, device_space> log_sum_exp, const attention_shape shape) {
  const index_t padded = attention_padded(shape.positions);
  const index_t row = (static_cast<index_t>(blockIdx.x) * attention_threads + threadIdx.x) / 4;
  const int part = static_cast<int>(threadIdx.x) % 4;
  const index_t head = row % shape.heads, place = row / shape.heads, position = place % padded,
                sequence = place / padded;
  const bool present = sequence < shape.sequences && position < shape.positions;
  const index_t token = sequence * shape.positions + position;
  float delta = 0;
  if (present) {
    const bfloat16* const a = d_out.row(token) + head * HeadDim + 8 * part;
    const bfloat16* const b = out.row(token) + head * HeadDim + 8 * part;
#pragma unroll
    for (int c = 0; c < HeadDim; c += 32) {
      if (c + 8 * part >= HeadDim) continue;
      const uint4 left = *reinterpret_cast<const uint4*>(a + c), right = *reinterpret_cast<const uint4*>(b + c);
      bfloat16 x[8], y[8];
      memcpy(x, &left, sizeof x);
      memcpy(y, &right, sizeof y);
#pragma unroll
      for (int i = 0; i < 8; ++i) delta += static_cast<float>(x[i]) * static_cast<float>(y[i]);
    }
  }
  delta += __shfl_xor_sync(0xffffffffu, delta, 1);
  delta += __shfl_xor_sync(0xffffffffu, delta, 2);
  if (part != 0 || sequence >= shape.sequences) return;
  const float log2_sum =
      present ? std::numbers::log2e_v<float> * log_sum_exp(token, head) : std::numeric_limits<float>::infinity();
  statistics[(sequence * shape.heads + head) * padded + position] = {log2_sum, delta};
}

// ---- keys and values -----------------------------------------------------------------------------

template <int HeadDim>
struct attention_key_plan {
  static constexpr int tiles = HeadDim <= 64 ? 2 : 1;        // of 16 keys, a warp: dk and dv stay in registers
  static constexpr int keys = 16 * tiles * attention_warps;  // a block
  static constexpr int queries = 32;                         // at a time
  static constexpr std::size_t shared_bytes = sizeof(bfloat16) * head_tile<HeadDim>::elements(2 * keys + 4 * queries) +
                                              2 * queries * sizeof(attention_statistic);
};

template <int HeadDim>
static __global__ void __launch_bounds__(attention_threads)
    attention_d_key_value_kernel(const matrix_view<bfloat16, device_space> d_qkv,
                                 const matrix_view<const bfloat16, device_space> d_out,
                                 const matrix_view<const bfloat16, device_space> qkv,
                                 const attention_statistic* const statistics, const attention_shape shape,
                                 const attention_scale scale) {
  using plan = attention_key_plan<HeadDim>;
  using tile = head_tile<HeadDim>;
  constexpr int tiles = plan::tiles, columns = plan::queries / 8;

  bfloat16* const key_tile = reinterpret_cast<bfloat16*>(dynamic_shared());
  bfloat16* const value_tile = key_tile + tile::elements(plan::keys);
  bfloat16* const query_tiles = value_tile + tile::elements(plan::keys);  // of even and odd steps
  bfloat16* const d_out_tiles = query_tiles + tile::elements(2 * plan::queries);
  attention_statistic* const statistic_tiles =
      reinterpret_cast<attention_statistic*>(d_out_tiles + tile::elements(2 * plan::queries));

  // The first keys are seen by the most queries: they come first.
  const int positions = static_cast<int>(shape.positions), kv_heads = static_cast<int>(shape.kv_heads);
  const int pairs = kv_heads * static_cast<int>(shape.sequences), pair = static_cast<int>(blockIdx.x) % pairs;
  const int first = static_cast<int>(blockIdx.x) / pairs * plan::keys;
  const int kv_head = pair % kv_heads, group = static_cast<int>(shape.group()), sequence = pair / kv_heads;
  const index_t token = sequence * shape.positions, padded = attention_padded(positions);

  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * 16 * tiles;
  const int warp_first = first + warp_row, warp_last = warp_first + 16 * tiles - 1;  // positions of its keys
  const int from = first / plan::queries * plan::queries;                            // no earlier query sees these keys
  const int pitch = static_cast<int>(qkv.strides[0]), d_out_pitch = static_cast<int>(d_out.strides[0]);

  // Of the next step to be fetched: its head, and its first query. Heads of the group one after the other.
  const bfloat16* queries = qkv.row(token) + shape.query(kv_head * group);
  const bfloat16* gradients = d_out.row(token) + static_cast<index_t>(kv_head) * group * HeadDim;
  const attention_statistic* given = statistics + (sequence * shape.heads + kv_head * group) * padded;
  int next = from;
  const auto fetch_next = [&](int stage) {
    const int at = stage * tile::elements(plan::queries);
    tile::template fetch<plan::queries>(query_tiles + at, queries, pitch, next, positions);
    tile::template fetch<plan::queries>(d_out_tiles + at, gradients, d_out_pitch, next, positions);
    constexpr int in_a_copy = 16 / static_cast<int>(sizeof(attention_statistic));
    const int i = static_cast<int>(threadIdx.x) * in_a_copy;
    if (i < plan::queries) copy_async_16(statistic_tiles + stage * plan::queries + i, given + next + i, 16);
    copy_async_commit();
    next += plan::queries;
    if (next >= positions) {
      next = from;
      queries += HeadDim;
      gradients += HeadDim;
      given += padded;
    }
  };
  tile::template fetch<plan::keys>(key_tile, qkv.row(token) + shape.key(kv_head), pitch, first, positions);
  tile::template fetch<plan::keys>(value_tile, qkv.row(token) + shape.value(kv_head), pitch, first, positions);
  fetch_next(0);

  float d_key[tiles][HeadDim / 8][4], d_value[tiles][HeadDim / 8][4];
  clear_sums(d_key);
  clear_sums(d_value);

  int stage = 0, begin = from;
  for (int left = (positions - from + plan::queries - 1) / plan::queries * group; left > 0;
       --left, stage ^= 1, begin = begin + plan::queries < positions ? begin + plan::queries : from) {
    copy_async_wait<0>();
    __syncthreads();  // this step's tiles are there, and nobody reads the other ones any more
    if (left > 1) fetch_next(stage ^ 1);
    const int at = stage * tile::elements(plan::queries);
    if (begin + plan::queries - 1 < warp_first) continue;  // these queries see none of the warp's keys
    const attention_statistic* const statistic = statistic_tiles + stage * plan::queries;

    // p^T (keys, queries)
    float p[tiles][columns][4];
    clear_sums(p);
    tile::multiply_rows(p, key_tile, warp_row, query_tiles + at);
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const float4 two = two_statistics(statistic + 8 * j + 2 * t);
#pragma unroll
      for (int i = 0; i < tiles; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          p[i][j][e] = exp2_approximate(fmaf(p[i][j][e], scale.binary, -(e % 2 == 0 ? two.x : two.z)));
    }
    if (warp_last > begin) {
#pragma unroll
      for (int i = 0; i < tiles; ++i)
#pragma unroll
        for (int j = 0; j < columns; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int key = warp_first + 16 * i + g + e / 2 * 8, query = begin + 8 * j + 2 * t + e % 2;
            if (key > query) p[i][j][e] = 0;
          }
    }
    tile::multiply_weights(d_value, p, d_out_tiles + at);

    // ds^T (keys, queries), without its factor 1 / sqrt(d)
    float ds[tiles][columns][4];
    clear_sums(ds);
    tile::multiply_rows(ds, value_tile, warp_row, d_out_tiles + at);
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const float4 two = two_statistics(statistic + 8 * j + 2 * t);
#pragma unroll
      for (int i = 0; i < tiles; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[i][j][e] = p[i][j][e] * (ds[i][j][e] - (e % 2 == 0 ? two.y : two.w));
    }
    tile::multiply_weights(d_key, ds, query_tiles + at);
  }

  float one[tiles][2], factor[tiles][2];
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      one[i][half] = 1;
      factor[i][half] = scale.natural;
    }
  // A warp reads no keys and values but its own, so their places are free.
  bfloat16* const row = d_qkv.row(token + warp_first);
  store_head_rows<HeadDim>(key_tile + warp_row * tile::pitch, d_key, factor, row + shape.key(kv_head), d_qkv.strides[0],
                           positions - warp_first);
  store_head_rows<HeadDim>(value_tile + warp_row * tile::pitch, d_value, one, row + shape.value(kv_head),
                           d_qkv.strides[0], positions - warp_first);
}

// ---- queries -------------------------------------------------------------------------------------

template <int HeadDim>
struct attention_query_plan {
  static constexpr int tiles = 2;                               // of 16 queries, a warp
  static constexpr int queries = 16 * tiles * attention_warps;  // a block
  // At a time. Of wide heads fewer, so that a block fits the 99 KiB of the parts with compute capability 8.6 to 12.
  static constexpr int keys = HeadDim <= 32 ? 64 : HeadDim <= 96 ? 32 : 16;
  static constexpr std::size_t shared_bytes = sizeof(bfloat16) * head_tile<HeadDim>::elements(2 * queries + 4 * keys);
  static_assert(
      shared_bytes <= std::size_t{99} << 10,
      "graft::attention: a block of queries asks for more shared memory than some devices have. Take fewer keys.");
  static_assert(attention_padding % queries == 0 && attention_padding % attention_key_plan<HeadDim>::queries == 0,
                "graft::attention: a tile of queries reaches past the statistics. Enlarge attention_padding.");
};

template <int HeadDim>
static __global__ void __launch_bounds__(attention_threads)
    attention_d_query_kernel(const matrix_view<bfloat16, device_space> d_qkv,
                             const matrix_view<const bfloat16, device_space> d_out,
                             const matrix_view<const bfloat16, device_space> qkv,
                             const attention_statistic* const statistics, const attention_shape shape,
                             const attention_scale scale) {
  using plan = attention_query_plan<HeadDim>;
  using tile = head_tile<HeadDim>;
  constexpr int tiles = plan::tiles, columns = plan::keys / 8;

  bfloat16* const query_tile = reinterpret_cast<bfloat16*>(dynamic_shared());
  bfloat16* const d_out_tile = query_tile + tile::elements(plan::queries);
  bfloat16* const key_tiles = d_out_tile + tile::elements(plan::queries);  // of even and odd steps
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
  tile::template fetch<plan::queries>(d_out_tile, d_out.row(token) + static_cast<index_t>(head) * HeadDim,
                                      static_cast<int>(d_out.strides[0]), place.first, positions);
  fetch_step(0);

  attention_statistic own[tiles][2];  // of rows g and g + 8 of each tile
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      own[i][half] = statistics[place.pair * attention_padded(positions) + warp_first + 16 * i + 8 * half + g];
  float d_query[tiles][HeadDim / 8][4];
  clear_sums(d_query);

  for (int step = 0; step < place.steps; ++step) {
    copy_async_wait<0>();
    __syncthreads();  // this step's tiles are there, and nobody reads the other ones any more
    if (step + 1 < place.steps) fetch_step(step + 1);
    const int begin = step * plan::keys, at = step % 2 * tile::elements(plan::keys);
    if (begin > place.warp_last) continue;  // the warp's queries see none of these keys

    float p[tiles][columns][4], ds[tiles][columns][4];
    clear_sums(p);
    tile::multiply_rows(p, query_tile, warp_row, key_tiles + at);
#pragma unroll
    for (int i = 0; i < tiles; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          p[i][j][e] = exp2_approximate(fmaf(p[i][j][e], scale.binary, -own[i][e / 2].log2_sum));
    clear_sums(ds);
    tile::multiply_rows(ds, d_out_tile, warp_row, value_tiles + at);
#pragma unroll
    for (int i = 0; i < tiles; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[i][j][e] = p[i][j][e] * (ds[i][j][e] - own[i][e / 2].delta);
    if (begin + plan::keys - 1 > warp_first) {
#pragma unroll
      for (int i = 0; i < tiles; ++i)
#pragma unroll
        for (int j = 0; j < columns; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int query = warp_first + 16 * i + g + e / 2 * 8, key = begin + 8 * j + 2 * t + e % 2;
            if (key > query) ds[i][j][e] = 0;
          }
    }
    tile::multiply_weights(d_query, ds, key_tiles + at);
  }

  float factor[tiles][2];
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) factor[i][half] = scale.natural;
  // A warp reads no queries but its own, so their place is free.
  store_head_rows<HeadDim>(query_tile + warp_row * tile::pitch, d_query, factor,
                           d_qkv.row(token + warp_first) + shape.query(head), d_qkv.strides[0], positions - warp_first);
}

}  // namespace graft::detail
