// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention of new tokens against cached keys and values on CUDA, in bf16: what ops/cached_attention.hpp computes for
// each run of 128 keys. A block takes one run for one token and one key/value head and serves all query heads of its
// group, so keys and values are read once; runs side by side let one token use the whole card. Sums in fp32.
// Cost: bound by reading keys and values, 4 d bytes for each key and key/value head.
// Source: Dao et al., "Flash-Decoding for long-context inference", 2023.

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <graft/backend/cuda/attention.cuh>
#include <graft/backend/cuda/attention_tiles.cuh>
#include <graft/core/attention_shape.hpp>

namespace graft {
namespace detail {

template <int HeadDim>
struct cached_attention_plan {
  static constexpr int keys = attention_threads;  // of a run: one a thread
  static constexpr int pairs = HeadDim / 2;       // of neighbouring columns, one a thread
  static constexpr int parts = static_cast<int>(std::bit_floor(static_cast<unsigned>(attention_threads / pairs)));
  static constexpr std::size_t shared_bytes =
      sizeof(bfloat16) * head_tile<HeadDim>::elements(2 * keys) + sizeof(float) * (HeadDim + keys + parts * HeadDim);
};

// The block's largest or sum, known to all. Order: lanes 1 apart, then 2, 4, 8, 16; warps ascending.
template <class Op>
__device__ __forceinline__ float reduce_block(float value, const Op& op) {
  __shared__ float of_warps[attention_warps];
#pragma unroll
  for (int mask = 1; mask < 32; mask *= 2) value = op(value, __shfl_xor_sync(0xffffffffu, value, mask));
  __syncthreads();  // an earlier result is read by all
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  value = of_warps[0];
#pragma unroll
  for (int warp = 1; warp < attention_warps; ++warp) value = op(value, of_warps[warp]);
  return value;
}

// sums(row, c) = sum over the run of e^(s_j - m) v_jc, statistics(row) = {m, sum of e^(s_j - m)}, for row
// (query H + head) runs + run.
template <int HeadDim>
static __global__ void __launch_bounds__(attention_threads)
    cached_attention_kernel(const matrix_view<float, device_space> sums,
                            const matrix_view<float, device_space> statistics,
                            const matrix_view<const bfloat16, device_space> queries,
                            const matrix_view<const bfloat16, device_space> keys_values, const attention_shape shape,
                            const int runs, const index_t first, const attention_scale scale) {
  using plan = cached_attention_plan<HeadDim>;
  using tile = head_tile<HeadDim>;
  const int thread = static_cast<int>(threadIdx.x), kv_heads = static_cast<int>(shape.kv_heads);
  const int run = static_cast<int>(blockIdx.x) % runs, kv_head = static_cast<int>(blockIdx.x) / runs % kv_heads,
            query = static_cast<int>(blockIdx.x) / runs / kv_heads;
  const int begin = run * plan::keys, seen = static_cast<int>(first) + query + 1;
  if (seen <= begin) return;
  const int count = seen - begin < plan::keys ? seen - begin : plan::keys,
            pitch = static_cast<int>(keys_values.strides[0]);

  bfloat16* const keys = reinterpret_cast<bfloat16*>(dynamic_shared());
  bfloat16* const values = keys + tile::elements(plan::keys);
  float* const own = reinterpret_cast<float*>(values + tile::elements(plan::keys));  // the query head's
  float* const weights = own + HeadDim;
  float* const partial = weights + plan::keys;  // (parts, HeadDim)
  tile::template fetch<plan::keys>(keys, keys_values.data + kv_head * HeadDim, pitch, begin, seen);
  tile::template fetch<plan::keys>(values, keys_values.data + (kv_heads + kv_head) * HeadDim, pitch, begin, seen);
  copy_async_commit();
  copy_async_wait<0>();

  const int group = static_cast<int>(shape.group());
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const index_t row = (query * shape.heads + head) * runs + run;
    if (thread < HeadDim) own[thread] = static_cast<float>(queries.row(query)[head * HeadDim + thread]);
    __syncthreads();  // keys, values and the query are there
    float score = 0;
#pragma unroll
    for (int c = 0; c < HeadDim; c += 8) {
      const uint4 eight = *reinterpret_cast<const uint4*>(keys + thread * tile::pitch + c);
      bfloat16 key[8];
      memcpy(key, &eight, sizeof key);
#pragma unroll
      for (int i = 0; i < 8; ++i) score = fmaf(own[c + i], static_cast<float>(key[i]), score);
    }
    if (thread >= count) score = -std::numeric_limits<float>::infinity();
    const float largest = reduce_block(score, [](float a, float b) { return fmaxf(a, b); });
    const float weight = exp2_approximate((score - largest) * scale.binary);
    weights[thread] = weight;
    const float total = reduce_block(weight, [](float a, float b) { return a + b; });  // and all weights are there

    const int part = thread / plan::pairs, column = thread % plan::pairs * 2;
    if (part < plan::parts) {
      float left = 0, right = 0;
      for (int key = part; key < count; key += plan::parts) {
        const auto two = *reinterpret_cast<const std::uint32_t*>(values + key * tile::pitch + column);
        left = fmaf(weights[key], std::bit_cast<float>(two << 16), left);
        right = fmaf(weights[key], std::bit_cast<float>(two & 0xffff0000u), right);
      }
      partial[part * HeadDim + column] = left;
      partial[part * HeadDim + column + 1] = right;
    }
    __syncthreads();
    if (thread < HeadDim) {
      float sum = 0;
#pragma unroll
      for (int p = 0; p < plan::parts; ++p) sum += partial[p * HeadDim + thread];
      sums(row, thread) = sum;
    }
    if (thread == 0) {
      statistics(row, 0) = largest * scale.natural;
      statistics(row, 1) = total;
    }
  }
}

}  // namespace detail

// The parts of ops/cached_attention.hpp's runs of `run` keys. False where it is left to the row algorithms: a run other
// than 128; head_dim other than 32, 48, 64, 96, 128; rows of the cache that are no multiples of 16 bytes;
// attention_method::rows.
// Shapes: sums (n H runs, d), statistics (n H runs, 2), queries (n, >= H d), keys_values (>= first + n, 2 G d).
// Order: keys by parts of the run, each ascending; parts ascending. The bits depend on a token's position alone.
template <std::same_as<bfloat16> T>
bool cached_attention_tiles(context<cuda>& ctx, const matrix_view<float, device_space>& sums,
                            const matrix_view<float, device_space>& statistics,
                            const matrix_view<const T, device_space>& queries,
                            const std::type_identity_t<matrix_view<const T, device_space>>& keys_values,
                            const attention_shape& shape, index_t run, index_t runs, index_t first) {
  if (ctx.attached<detail::attention_choice>().method == attention_method::rows) return false;
  const index_t blocks = queries.extent(0) * shape.kv_heads * runs;
  if (run != detail::attention_threads || !detail::in_vectors(keys_values) ||
      first + queries.extent(0) > std::numeric_limits<std::int32_t>::max() - run ||
      blocks > std::numeric_limits<std::int32_t>::max())
    return false;
  return detail::with_head_dim(shape.head_dim, [&]<int HeadDim>(std::integral_constant<int, HeadDim>) {
    if (blocks == 0) return;
    detail::launch(ctx, "cached attention", detail::cached_attention_kernel<HeadDim>, static_cast<unsigned>(blocks),
                   detail::attention_threads, detail::cached_attention_plan<HeadDim>::shared_bytes, sums, statistics,
                   queries, keys_values, shape, static_cast<int>(runs), first, detail::scale_of(shape));
  });
}

}  // namespace graft
