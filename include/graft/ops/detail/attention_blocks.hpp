// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Causal grouped-query attention for the CPU in blocks of 64 queries x 64 keys: fp32 arithmetic for float and bfloat16.
// A task belongs to one (sequence, kv head): it converts keys and values once, packed as the products read them, and
// then goes through the query blocks of the group's heads. Masked parts of diagonal blocks are skipped in steps of a
// few rows. Scores are in units of log 2 (queries are multiplied by log2(e) / sqrt(d)), so that weights are 2^(s-m).
//
// Longer than 400 lines because forward, both ways backward and their packing share one blocking, read side by side.
//
// Every sum has an order that does not depend on how tasks are cut or on which thread runs them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <graft/backend/cpu/context.hpp>
#include <graft/backend/cpu/tile.hpp>
#include <graft/core/attention_shape.hpp>
#include <graft/core/dtype.hpp>
#include <graft/core/math.hpp>
#include <graft/core/view.hpp>
#include <graft/ops/detail/attention_simd.hpp>

namespace graft::detail {

inline constexpr index_t attention_block = 64;
inline constexpr index_t attention_tile = attention_block * attention_block;
static_assert(
    attention_block % register_rows == 0 && simd_lanes % register_rows == 0,
    "graft::attention: a group of rows crosses a vector of columns. Make simd_lanes a multiple of register_rows.");

constexpr index_t round_up(index_t n, index_t unit) { return (n + unit - 1) / unit * unit; }

inline constexpr float log2_of_e = 1.44269504088896341f;
inline constexpr float ln_of_2 = 0.69314718055994531f;

// Sizes of one call, and where a packed block of positions begins.
struct attention_blocking {
  attention_shape shape;
  index_t width;   // head_dim rounded up to whole vectors; the rest is zero
  index_t blocks;  // of positions
  float query_scale;

  explicit attention_blocking(const attention_shape& s)
      : shape(s),
        width(round_up(s.head_dim, simd_lanes)),
        blocks(ceil_div(s.positions, attention_block)),
        query_scale(log2_of_e / std::sqrt(static_cast<float>(s.head_dim))) {}

  index_t block_size() const { return attention_block * width; }  // floats of a packed block, either way round
  index_t sequence_size() const { return blocks * block_size(); }
  index_t rows(index_t block) const { return std::min(attention_block, shape.positions - block * attention_block); }
  index_t padded_rows(index_t block) const { return round_up(rows(block), register_rows); }
};

// target (64, width) = factor * source rows, zero where there are none. Heads lie far apart in memory, which processors
// do not foresee: rows are asked for 16 ahead (worth 5 percent of the whole at S = 256); those may lie past the end.
template <class T>
void pack_rows(float* target, const attention_blocking& cut, const T* source, index_t stride, index_t rows,
               float factor) {
  const index_t d = cut.shape.head_dim, bytes = d * static_cast<index_t>(sizeof(T)), ahead = 16;
  for (index_t r = 0; r < rows; ++r) {
    const T* from = source + r * stride;
    float* to = target + r * cut.width;
    const auto next = reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead * stride) * sizeof(T);
    for (index_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(reinterpret_cast<const void*>(next + byte));
    for (index_t c = 0; c < d; ++c) to[c] = static_cast<float>(from[c]) * factor;
    for (index_t c = d; c < cut.width; ++c) to[c] = 0.0f;
  }
  std::fill(target + rows * cut.width, target + cut.block_size(), 0.0f);
}

// target rows = factor(r) * source (64, width)
template <class T, class Factor>
void unpack_rows(T* target, index_t stride, const attention_blocking& cut, const float* source, index_t rows,
                 const Factor& factor) {
  for (index_t r = 0; r < rows; ++r) {
    const float scale = factor(r);
    const float* from = source + r * cut.width;
    T* to = target + r * stride;
    for (index_t c = 0; c < cut.shape.head_dim; ++c) to[c] = static_cast<T>(from[c] * scale);
  }
}

// scores (rows, 64) = a (rows, d) bt (d, 64); on the diagonal, columns after a group's last row are left alone.
inline void multiply_scores(float* scores, const attention_blocking& cut, const float* a, const float* bt, index_t rows,
                            bool diagonal) {
  for (index_t r = 0; r < rows; r += register_rows) {
    const index_t vectors = diagonal ? r / simd_lanes + 1 : attention_block / simd_lanes;
    multiply_rows<left_factor::plain>(scores + r * attention_block, attention_block, a + r * cut.width, cut.width, bt,
                                      attention_block, cut.shape.head_dim, vectors, false);
  }
}

// sums (rows, width) += weights (rows, keys) b (keys, width), without the keys that a diagonal block masks
inline void multiply_by_keys(float* sums, const attention_blocking& cut, const float* weights, const float* b,
                             index_t rows, bool diagonal, bool add) {
  for (index_t r = 0; r < rows; r += register_rows)
    multiply_rows<left_factor::plain>(sums + r * cut.width, cut.width, weights + r * attention_block, attention_block,
                                      b, cut.width, diagonal ? r + register_rows : attention_block,
                                      cut.width / simd_lanes, add);
}

// sums (keys, width) += weights (rows, keys)^T b (rows, width), without the rows that a diagonal block masks
inline void multiply_by_queries(float* sums, const attention_blocking& cut, const float* weights, const float* b,
                                index_t rows, index_t keys, bool diagonal) {
  for (index_t k = 0; k < keys; k += register_rows) {
    const index_t first = diagonal ? k : 0;
    multiply_rows<left_factor::transposed>(sums + k * cut.width, cut.width, weights + first * attention_block + k,
                                           attention_block, b + first * cut.width, cut.width, rows - first,
                                           cut.width / simd_lanes, true);
  }
}

// Lanes of the vector that begins at column `base` whose key comes after query r of a diagonal block.
inline simd_int masked_lanes(index_t r, index_t base) {
  return simd_iota(simd_lane_sequence{}) > static_cast<int>(r - base);
}

// The state of a block's online softmax.
struct alignas(64) softmax_rows {
  float maximum[attention_block];
  float total[attention_block * simd_lanes];  // a row's sum is spread over lanes until the end
  float shrink[attention_block];              // e^(m - m') of the last step
};

// scores become weights 2^(s-m'); state goes from m, l to m', l'
template <bool Diagonal>
[[gnu::noinline]] void softmax_step(float* scores, index_t rows, softmax_rows& state) {
  alignas(64) float larger[attention_block] = {};  // rows past the last are computed too, and nobody reads them
  constexpr index_t all = attention_block / simd_lanes;
  for (index_t r = 0; r < rows; ++r) {
    float* row = scores + r * attention_block;
    const index_t last = Diagonal ? r / simd_lanes : all - 1, base = last * simd_lanes;
    simd_float largest = simd_load(row + base);
    if constexpr (Diagonal) {
      largest = masked_lanes(r, base) ? simd_all(-std::numeric_limits<float>::infinity()) : largest;
      simd_store(row + base, largest);
    }
    for (index_t v = 0; v < last; ++v) largest = simd_max(largest, simd_load(row + v * simd_lanes));
    const float previous = state.maximum[r], found = simd_max_across(largest, simd_lane_sequence{})[0];
    larger[r] = found > previous ? found : previous;
  }
  for (index_t r = 0; r < rows; r += simd_lanes) {
    const simd_float now = simd_load(larger + r);
    simd_store(state.shrink + r, simd_exp2(simd_load(state.maximum + r) - now));
    simd_store(state.maximum + r, now);
  }
  for (index_t r = 0; r < rows; ++r) {
    float* row = scores + r * attention_block;
    const index_t last = Diagonal ? r / simd_lanes : all - 1, base = last * simd_lanes;
    simd_float total = simd_load(state.total + r * simd_lanes) * simd_all(state.shrink[r]);
    for (index_t v = 0; v < last; ++v) {
      const simd_float weight = simd_exp2(simd_load(row + v * simd_lanes) - state.maximum[r]);
      simd_store(row + v * simd_lanes, weight);
      total += weight;
    }
    simd_float weight = simd_exp2(simd_load(row + base) - state.maximum[r]);
    if constexpr (Diagonal) weight = masked_lanes(r, base) ? simd_float{} : weight;
    simd_store(row + base, weight);
    simd_store(state.total + r * simd_lanes, total + weight);
  }
}

// scores become p = 2^(s - lse) and d_weights become ds = p (dp - delta)
template <bool Diagonal>
[[gnu::noinline]] void softmax_gradient(float* scores, float* d_weights, index_t rows, const float* log_sum,
                                        const float* delta) {
  for (index_t r = 0; r < rows; ++r) {
    const index_t end = Diagonal ? (r / simd_lanes + 1) * simd_lanes : attention_block;
    for (index_t base = 0; base < end; base += simd_lanes) {
      float* score = scores + r * attention_block + base;
      float* gradient = d_weights + r * attention_block + base;
      simd_float p = simd_exp2(simd_load(score) - log_sum[r]);
      simd_float ds = p * (simd_load(gradient) - delta[r]);
      if (Diagonal && base + simd_lanes == end) {
        p = masked_lanes(r, base) ? simd_float{} : p;
        ds = masked_lanes(r, base) ? simd_float{} : ds;
      }
      simd_store(score, p);
      simd_store(gradient, ds);
    }
  }
}

// Into how many tasks the items (heads of a group x query blocks, or key blocks) of each (sequence, kv head) are cut:
// more than one only where threads would stand idle, since each task packs keys and values anew. Never changes results.
inline index_t attention_pieces(const context<cpu>& ctx, const attention_shape& shape, index_t items) {
  const index_t tasks = shape.sequences * shape.kv_heads;
  if (tasks == 0 || ctx.threads() == 1 || tasks >= 2 * ctx.threads()) return 1;
  return std::min(items, ceil_div(4 * static_cast<index_t>(ctx.threads()), tasks));
}

template <class T>
void attention_forward_blocks(context<cpu>& ctx, matrix_view<T, host_space> out,
                              matrix_view<float, host_space> log_sum_exp, matrix_view<const T, host_space> qkv,
                              const attention_shape& shape) {
  const attention_blocking cut(shape);
  const index_t items = shape.group() * cut.blocks, pieces = attention_pieces(ctx, shape, items);

  run_tiles(ctx, shape.sequences * shape.kv_heads * pieces, [&](index_t task) {
    const index_t piece = task % pieces, kv_head = task / pieces % shape.kv_heads;
    const index_t first = task / pieces / shape.kv_heads * shape.positions;  // token
    static thread_local tile_scratch scratch;
    float* keys =
        scratch.get<float>(2 * cut.sequence_size() + 2 * cut.block_size() + attention_tile);  // blocks of (width, 64)
    float* values = keys + cut.sequence_size();                                               // blocks of (64, width)
    float* query = values + cut.sequence_size();                                              // (64, width)
    float* sums = query + cut.block_size();                                                   // (64, width)
    float* scores = sums + cut.block_size();                                                  // (64, 64)
    softmax_rows softmax;

    for (index_t j = 0; j < cut.blocks; ++j) {
      const T* row = qkv.row(first + j * attention_block);
      pack_rows(query, cut, row + shape.key(kv_head), qkv.strides[0], cut.rows(j), 1.0f);
      transpose(keys + j * cut.block_size(), attention_block, query, cut.width, attention_block, cut.width);
      pack_rows(values + j * cut.block_size(), cut, row + shape.value(kv_head), qkv.strides[0], cut.rows(j), 1.0f);
    }
    for (index_t item = piece; item < items; item += pieces) {
      const index_t head = kv_head * shape.group() + item / cut.blocks, i = item % cut.blocks;
      const index_t token = first + i * attention_block, rows = cut.padded_rows(i);
      pack_rows(query, cut, qkv.row(token) + shape.query(head), qkv.strides[0], cut.rows(i), cut.query_scale);
      std::fill(softmax.maximum, softmax.maximum + attention_block, -std::numeric_limits<float>::infinity());
      std::fill(softmax.total, softmax.total + attention_block * simd_lanes, 0.0f);
      for (index_t j = 0; j <= i; ++j) {
        const bool diagonal = j == i;
        multiply_scores(scores, cut, query, keys + j * cut.block_size(), rows, diagonal);
        diagonal ? softmax_step<true>(scores, rows, softmax) : softmax_step<false>(scores, rows, softmax);
        if (j > 0)
          for (index_t r = 0; r < rows; ++r)
            for (index_t c = 0; c < cut.width; c += simd_lanes) {
              float* sum = sums + r * cut.width + c;
              simd_store(sum, simd_load(sum) * simd_all(softmax.shrink[r]));
            }
        multiply_by_keys(sums, cut, scores, values + j * cut.block_size(), rows, diagonal, j > 0);
      }
      float inverse[attention_block];
      for (index_t r = 0; r < cut.rows(i); ++r) {
        const float total = simd_sum(simd_load(softmax.total + r * simd_lanes));
        inverse[r] = 1.0f / total;
        log_sum_exp(token + r, head) = softmax.maximum[r] * ln_of_2 + math::log(total);
      }
      unpack_rows(out.row(token) + head * shape.head_dim, out.strides[0], cut, sums, cut.rows(i),
                  [&](index_t r) { return inverse[r]; });
    }
  });
}

// The backward pass of one (sequence, kv head): everything packed, and the steps that both ways of cutting it share.
template <class T>
struct attention_backward_task {
  const attention_blocking& cut;
  matrix_view<T, host_space> d_qkv;
  matrix_view<const T, host_space> d_out;
  matrix_view<const T, host_space> out;
  matrix_view<const float, host_space> log_sum_exp;
  matrix_view<const T, host_space> qkv;
  index_t first;  // token
  index_t kv_head;
  // Blocks of (64, width) for the whole sequence; across: transposed, (width, 64).
  float *keys = nullptr, *keys_across = nullptr, *values_across = nullptr, *d_keys = nullptr, *d_values = nullptr;
  float *query = nullptr, *gradient = nullptr, *d_query = nullptr;  // (64, width): q log2(e) / sqrt(d), dO, sum of ds k
  float *weights = nullptr, *d_weights = nullptr;                   // (64, 64): p, ds
  float log_sum[attention_block] = {}, delta[attention_block] = {};

  static index_t scratch_size(const attention_blocking& cut) {
    return 5 * cut.sequence_size() + 3 * cut.block_size() + 2 * attention_tile;
  }
  void place(float* scratch) {
    for (float** block : {&keys, &keys_across, &values_across, &d_keys, &d_values}) {
      *block = scratch;
      scratch += cut.sequence_size();
    }
    for (float** block : {&query, &gradient, &d_query}) {
      *block = scratch;
      scratch += cut.block_size();
    }
    weights = scratch;
    d_weights = scratch + attention_tile;
  }

  void pack_keys(index_t j) {
    const index_t at = j * cut.block_size(), token = first + j * attention_block, rows = cut.rows(j);
    const T* row = qkv.row(token);
    pack_rows(query, cut, row + cut.shape.value(kv_head), qkv.strides[0], rows, 1.0f);
    transpose(values_across + at, attention_block, query, cut.width, attention_block, cut.width);
    pack_rows(keys + at, cut, row + cut.shape.key(kv_head), qkv.strides[0], rows, 1.0f);
    transpose(keys_across + at, attention_block, keys + at, cut.width, attention_block, cut.width);
    std::fill(d_keys + at, d_keys + at + cut.block_size(), 0.0f);
    std::fill(d_values + at, d_values + at + cut.block_size(), 0.0f);
  }

  // Rows beyond the last token get zero everywhere: their weights are 1, but they add products with zero.
  void pack_query(index_t head, index_t i) {
    const index_t d = cut.shape.head_dim, token = first + i * attention_block, rows = cut.rows(i);
    pack_rows(query, cut, qkv.row(token) + cut.shape.query(head), qkv.strides[0], rows, cut.query_scale);
    pack_rows(gradient, cut, d_out.row(token) + head * d, d_out.strides[0], rows, 1.0f);
    pack_rows(d_query, cut, out.row(token) + head * d, out.strides[0], rows, 1.0f);
    for (index_t r = 0; r < attention_block; ++r) {
      simd_float sum{};
      for (index_t c = r * cut.width; c < (r + 1) * cut.width; c += simd_lanes)
        sum += simd_load(gradient + c) * simd_load(d_query + c);
      delta[r] = simd_sum(sum);
      log_sum[r] = r < rows ? log_sum_exp(token + r, head) * log2_of_e : 0.0f;
    }
  }

  // weights and d_weights of query block i and key block j
  void weigh(index_t i, index_t j) {
    const index_t rows = cut.padded_rows(i), at = j * cut.block_size();
    multiply_scores(weights, cut, query, keys_across + at, rows, i == j);
    multiply_scores(d_weights, cut, gradient, values_across + at, rows, i == j);
    i == j ? softmax_gradient<true>(weights, d_weights, rows, log_sum, delta)
           : softmax_gradient<false>(weights, d_weights, rows, log_sum, delta);
  }
  void add_to_query(index_t i, index_t j) {
    multiply_by_keys(d_query, cut, d_weights, keys + j * cut.block_size(), cut.padded_rows(i), i == j, j > 0);
  }
  void add_to_keys_values(index_t i, index_t j) {
    const index_t at = j * cut.block_size(), rows = cut.padded_rows(i), keys_here = cut.padded_rows(j);
    multiply_by_queries(d_values + at, cut, weights, gradient, rows, keys_here, i == j);
    multiply_by_queries(d_keys + at, cut, d_weights, query, rows, keys_here, i == j);
  }

  void write_query(index_t head, index_t i) {
    const float scale = cut.query_scale * ln_of_2;
    unpack_rows(d_qkv.row(first + i * attention_block) + cut.shape.query(head), d_qkv.strides[0], cut, d_query,
                cut.rows(i), [=](index_t) { return scale; });
  }
  void write_keys_values(index_t j) {
    T* row = d_qkv.row(first + j * attention_block);
    const index_t at = j * cut.block_size();
    unpack_rows(row + cut.shape.key(kv_head), d_qkv.strides[0], cut, d_keys + at, cut.rows(j),
                [](index_t) { return ln_of_2; });  // query holds log2(e) q / sqrt(d)
    unpack_rows(row + cut.shape.value(kv_head), d_qkv.strides[0], cut, d_values + at, cut.rows(j),
                [](index_t) { return 1.0f; });
  }
};

// One task per (sequence, kv head) computes all three gradients from one set of weights. With fewer such tasks than
// threads the gradients of queries and of keys and values are computed apart, block by block, from weights computed
// twice: 7 products instead of 5. Both ways add in the same order and give the same bits.
template <class T>
void attention_backward_blocks(context<cpu>& ctx, matrix_view<T, host_space> d_qkv,
                               matrix_view<const T, host_space> d_out, matrix_view<const T, host_space> out,
                               matrix_view<const float, host_space> log_sum_exp, matrix_view<const T, host_space> qkv,
                               const attention_shape& shape) {
  const attention_blocking cut(shape);
  const index_t tasks = shape.sequences * shape.kv_heads, group = shape.group(), blocks = cut.blocks;
  const auto with_task = [&](index_t number, const auto& run) {
    static thread_local tile_scratch scratch;
    attention_backward_task<T> task{.cut = cut,
                                    .d_qkv = d_qkv,
                                    .d_out = d_out,
                                    .out = out,
                                    .log_sum_exp = log_sum_exp,
                                    .qkv = qkv,
                                    .first = number / shape.kv_heads * shape.positions,
                                    .kv_head = number % shape.kv_heads};
    task.place(scratch.get<float>(attention_backward_task<T>::scratch_size(cut)));
    run(task);
  };

  if (tasks >= ctx.threads()) {
    run_tiles(ctx, tasks, [&](index_t number) {
      with_task(number, [&](attention_backward_task<T>& task) {
        for (index_t j = 0; j < blocks; ++j) task.pack_keys(j);
        for (index_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head)
          for (index_t i = 0; i < blocks; ++i) {
            task.pack_query(head, i);
            for (index_t j = 0; j <= i; ++j) {
              task.weigh(i, j);
              task.add_to_query(i, j);
              task.add_to_keys_values(i, j);
            }
            task.write_query(head, i);
          }
        for (index_t j = 0; j < blocks; ++j) task.write_keys_values(j);
      });
    });
    return;
  }
  const index_t query_pieces = attention_pieces(ctx, shape, group * blocks);
  run_tiles(ctx, tasks * query_pieces, [&](index_t number) {
    with_task(number / query_pieces, [&](attention_backward_task<T>& task) {
      for (index_t j = 0; j < blocks; ++j) task.pack_keys(j);
      for (index_t item = number % query_pieces; item < group * blocks; item += query_pieces) {
        const index_t head = task.kv_head * group + item / blocks, i = item % blocks;
        task.pack_query(head, i);
        for (index_t j = 0; j <= i; ++j) {
          task.weigh(i, j);
          task.add_to_query(i, j);
        }
        task.write_query(head, i);
      }
    });
  });
  run_tiles(ctx, tasks * blocks, [&](index_t number) {
    with_task(number / blocks, [&](attention_backward_task<T>& task) {
      const index_t j = number % blocks;
      task.pack_keys(j);
      for (index_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head)
        for (index_t i = j; i < blocks; ++i) {
          task.pack_query(head, i);
          task.weigh(i, j);
          task.add_to_keys_values(i, j);
        }
      task.write_keys_values(j);
    });
  });
}

}  // namespace graft::detail
