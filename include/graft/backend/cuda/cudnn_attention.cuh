// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Causal grouped-query attention in bf16 by cuDNN, forward and backward: its fused kernels are found from a graph of
// elementary operations in the order below. q, k and v are read out of the packed rows by their strides; nothing is
// copied but the log-sum-exps, which cuDNN keeps head by head.
// Cost: the backward pass takes workspace of 2 S^2 bytes for each sequence and head where cuDNN's deterministic kernels
// want it.
// Source: NVIDIA, cuDNN documentation, fused flash attention, forward and backward graph patterns.

#if defined(GRAFT_HAS_CUDNN)

#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <vector>

#include <graft/backend/arena.hpp>
#include <graft/backend/cuda/context.cuh>
#include <graft/backend/cuda/cudnn_graph.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/core/attention_shape.hpp>
#include <graft/core/dtype.hpp>

namespace graft::detail {

// What a plan depends on. Pitches in elements; those that a pass does not use are 0.
struct cudnn_attention_key {
  bool backward;
  index_t sequences, positions, heads, kv_heads, head_dim;
  index_t qkv_pitch, out_pitch, d_out_pitch, d_qkv_pitch;
  auto operator<=>(const cudnn_attention_key&) const = default;
};

// Names of what lies in memory, and of numbers.
enum cudnn_attention_id : std::int64_t {
  id_query = 1,
  id_key,
  id_value,
  id_out,
  id_log_sum_exp,
  id_d_out,
  id_d_query,
  id_d_key,
  id_d_value,
  id_delta,
  id_scale,
  id_nothing,
  id_one
};

// Both passes' tensors of one shape.
struct cudnn_attention_axes {
  explicit cudnn_attention_axes(const cudnn_attention_key& k)
      : query{k.sequences, k.heads, k.positions, k.head_dim},
        key{k.sequences, k.kv_heads, k.positions, k.head_dim},
        key_transposed{k.sequences, k.kv_heads, k.head_dim, k.positions},
        square{k.sequences, k.heads, k.positions, k.positions},
        row{k.sequences, k.heads, k.positions, 1} {}

  cudnn_axes query, key, key_transposed, square, row;

  // Strides of heads in rows that are `pitch` apart, as they lie and with the last two axes exchanged.
  cudnn_axes strides(std::int64_t pitch) const { return {query[2] * pitch, query[3], pitch, 1}; }
  cudnn_axes transposed(std::int64_t pitch) const { return {query[2] * pitch, query[3], 1, pitch}; }
  // Of numbers that are kept sequence by sequence, head by head.
  cudnn_axes row_strides() const { return {query[1] * query[2], query[2], 1, 1}; }
};

// scores where the key is not after the query, else `nothing`
inline cudnn_tensor cudnn_causal(cudnn_graph& g, const cudnn_tensor& scores) {
  const cudnn_tensor row = g.between(scores.sizes, CUDNN_DATA_INT32),
                     column = g.between(scores.sizes, CUDNN_DATA_INT32),
                     seen = g.between(scores.sizes, CUDNN_DATA_BOOLEAN), result = g.between(scores.sizes),
                     nothing = g.number(id_nothing);
  g.apply(CUDNN_POINTWISE_GEN_INDEX, row, scores, nullptr, nullptr, CUDNN_DATA_FLOAT, 2);
  g.apply(CUDNN_POINTWISE_GEN_INDEX, column, scores, nullptr, nullptr, CUDNN_DATA_FLOAT, 3);
  g.apply(CUDNN_POINTWISE_CMP_GE, seen, row, &column, nullptr, CUDNN_DATA_BOOLEAN);
  g.apply(CUDNN_POINTWISE_BINARY_SELECT, result, scores, &nothing, &seen);
  return result;
}

// s = q k^T scale    m = max s    e = e^(s - m)    l = sum e    lse = m + log l    out = (e / l) v
inline cudnn_graph cudnn_forward_graph(const cudnn_attention_key& k) {
  const cudnn_attention_axes axes(k);
  cudnn_graph g;
  const cudnn_tensor query = g.memory(id_query, CUDNN_DATA_BFLOAT16, axes.query, axes.strides(k.qkv_pitch)),
                     key = g.memory(id_key, CUDNN_DATA_BFLOAT16, axes.key_transposed, axes.transposed(k.qkv_pitch)),
                     value = g.memory(id_value, CUDNN_DATA_BFLOAT16, axes.key, axes.strides(k.qkv_pitch)),
                     out = g.memory(id_out, CUDNN_DATA_BFLOAT16, axes.query, axes.strides(k.out_pitch)),
                     log_sum_exp = g.memory(id_log_sum_exp, CUDNN_DATA_FLOAT, axes.row, axes.row_strides()),
                     scale = g.number(id_scale);
  const cudnn_tensor product = g.between(axes.square);
  g.multiply(product, query, key);
  const cudnn_tensor scores = cudnn_causal(g, g.apply(CUDNN_POINTWISE_MUL, product, &scale));
  const cudnn_tensor top = g.between(axes.row), total = g.between(axes.row);
  g.reduce(CUDNN_REDUCE_TENSOR_MAX, top, scores);
  const cudnn_tensor weight = g.apply(CUDNN_POINTWISE_EXP, g.apply(CUDNN_POINTWISE_SUB, scores, &top));
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, total, weight);
  const cudnn_tensor logarithm = g.apply(CUDNN_POINTWISE_LOG, total);
  g.apply(CUDNN_POINTWISE_ADD, log_sum_exp, top, &logarithm);
  const cudnn_tensor p = g.between(axes.square, CUDNN_DATA_BFLOAT16);
  g.apply(CUDNN_POINTWISE_DIV, p, weight, &total);
  g.multiply(out, p, value);
  return g;
}

// delta = sum dO out    p = e^(q k^T scale - lse)    dv = p^T dO    ds = (dO v^T - delta) p scale    dk = ds^T q
// dq = ds k; gradients of a group's heads are summed at the end.
inline cudnn_graph cudnn_backward_graph(const cudnn_attention_key& k) {
  const cudnn_attention_axes axes(k);
  cudnn_graph g;
  const cudnn_tensor query = g.memory(id_query, CUDNN_DATA_BFLOAT16, axes.query, axes.strides(k.qkv_pitch)),
                     key = g.memory(id_key, CUDNN_DATA_BFLOAT16, axes.key_transposed, axes.transposed(k.qkv_pitch)),
                     value = g.memory(id_value, CUDNN_DATA_BFLOAT16, axes.key_transposed, axes.transposed(k.qkv_pitch)),
                     out = g.memory(id_out, CUDNN_DATA_BFLOAT16, axes.query, axes.strides(k.out_pitch)),
                     d_out = g.memory(id_d_out, CUDNN_DATA_BFLOAT16, axes.query, axes.strides(k.d_out_pitch)),
                     log_sum_exp = g.memory(id_log_sum_exp, CUDNN_DATA_FLOAT, axes.row, axes.row_strides()),
                     d_query = g.memory(id_d_query, CUDNN_DATA_BFLOAT16, axes.query, axes.strides(k.d_qkv_pitch)),
                     d_key = g.memory(id_d_key, CUDNN_DATA_BFLOAT16, axes.key, axes.strides(k.d_qkv_pitch)),
                     d_value = g.memory(id_d_value, CUDNN_DATA_BFLOAT16, axes.key, axes.strides(k.d_qkv_pitch)),
                     delta = g.memory(id_delta, CUDNN_DATA_FLOAT, axes.row, axes.row_strides()),
                     scale = g.number(id_scale), one = g.number(id_one);

  const cudnn_tensor sum = g.between(axes.row);
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, sum, g.apply(CUDNN_POINTWISE_MUL, d_out, &out));
  g.apply(CUDNN_POINTWISE_MUL, delta, sum, &one);

  const cudnn_tensor product = g.between(axes.square);
  g.multiply(product, query, key);
  const cudnn_tensor scaled = g.apply(CUDNN_POINTWISE_MUL, product, &scale);
  const cudnn_tensor p =
      g.apply(CUDNN_POINTWISE_EXP, cudnn_causal(g, g.apply(CUDNN_POINTWISE_SUB, scaled, &log_sum_exp)));

  // a weight's gradient by its transpose: of the group's heads one by one, then of the group
  const auto sum_over_queries = [&](const cudnn_tensor& result, const cudnn_tensor& weight, const cudnn_tensor& by) {
    const std::int64_t b = axes.square[0], h = axes.square[1], s = axes.square[2];
    const cudnn_tensor transposed = g.between(axes.square, {h * s * s, s * s, 1, s}, CUDNN_DATA_BFLOAT16);
    g.reshape(transposed, weight);
    if (k.heads == k.kv_heads) {
      g.multiply(result, transposed, by);
    } else {
      const cudnn_tensor each = g.between({b, h, s, axes.query[3]}, CUDNN_DATA_BFLOAT16);
      g.multiply(each, transposed, by);
      g.reduce(CUDNN_REDUCE_TENSOR_ADD, result, each);
    }
  };
  sum_over_queries(d_value, p, d_out);

  const cudnn_tensor dp = g.between(axes.square);
  g.multiply(dp, d_out, value);
  const cudnn_tensor difference = g.apply(CUDNN_POINTWISE_SUB, dp, &delta);
  const cudnn_tensor weighted = g.apply(CUDNN_POINTWISE_MUL, difference, &p);
  const cudnn_tensor ds = g.apply(CUDNN_POINTWISE_MUL, weighted, &scale);
  sum_over_queries(d_key, ds, query);

  const cudnn_tensor keys = g.between(axes.key, axes.strides(k.qkv_pitch), CUDNN_DATA_BFLOAT16);
  g.reshape(keys, key);
  g.multiply(d_query, ds, keys);
  return g;
}

// log-sum-exps between the rows of ops/attention.hpp, (T, H), and cuDNN's order, sequence by sequence, head by head.
struct log_sum_exp_by_heads {
  matrix_view<float, device_space> rows;
  float* by_heads;
  index_t positions;
  bool to_rows;
  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    const index_t heads = rows.extent(1), position = i % positions, head = i / positions % heads,
                  token = i / positions / heads * positions + position;
    if (to_rows) {
      rows(token, head) = by_heads[i];
    } else {
      by_heads[i] = rows(token, head);
    }
  }
};

// What a context keeps of cuDNN: its handle, and a plan, or that there is none, for each shape seen so far.
class cudnn_attention {
 public:
  explicit cudnn_attention(context<cuda>& ctx) : device_(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
    GRAFT_CUDNN(cudnnCreate(&handle_));
    GRAFT_CUDNN(cudnnSetStream(handle_, ctx.stream()));
    device_.set(CUDNN_ATTR_DEVICEPROP_HANDLE, handle_);
    device_.finalize();
  }
  cudnn_attention(const cudnn_attention&) = delete;
  cudnn_attention& operator=(const cudnn_attention&) = delete;
  ~cudnn_attention() {
    plans_.clear();
    (void)cudnnDestroy(handle_);
  }

  // False where cuDNN has no plan for the shape.
  bool forward(context<cuda>& ctx, const matrix_view<bfloat16, device_space>& out,
               const matrix_view<float, device_space>& log_sum_exp,
               const matrix_view<const bfloat16, device_space>& qkv, const attention_shape& shape) {
    if (!aligned(out) || !aligned(qkv)) return false;
    const cudnn_plan* const plan = find({false, shape.sequences, shape.positions, shape.heads, shape.kv_heads,
                                         shape.head_dim, qkv.strides[0], out.strides[0], 0, 0});
    if (plan == nullptr) return false;
    workspace_scope scope(ctx);
    const index_t rows = shape.tokens() * shape.heads;
    float* const by_heads = ctx.allocate<float>(rows).data;
    numbers n(shape);
    run(ctx, *plan, {id_query, id_key, id_value, id_out, id_log_sum_exp, id_scale, id_nothing},
        {at(qkv, shape.query(0)), at(qkv, shape.key(0)), at(qkv, shape.value(0)), out.data, by_heads, &n.scale,
         &n.nothing});
    launch_elements(ctx, rows, log_sum_exp_by_heads{log_sum_exp, by_heads, shape.positions, true});
    return true;
  }

  bool backward(context<cuda>& ctx, const matrix_view<bfloat16, device_space>& d_qkv,
                const matrix_view<const bfloat16, device_space>& d_out,
                const matrix_view<const bfloat16, device_space>& out,
                const matrix_view<const float, device_space>& log_sum_exp,
                const matrix_view<const bfloat16, device_space>& qkv, const attention_shape& shape) {
    if (!aligned(d_qkv) || !aligned(d_out) || !aligned(out) || !aligned(qkv)) return false;
    const cudnn_plan* const plan =
        find({true, shape.sequences, shape.positions, shape.heads, shape.kv_heads, shape.head_dim, qkv.strides[0],
              out.strides[0], d_out.strides[0], d_qkv.strides[0]});
    if (plan == nullptr) return false;
    workspace_scope scope(ctx);
    const index_t rows = shape.tokens() * shape.heads;
    float *const by_heads = ctx.allocate<float>(rows).data, *const delta = ctx.allocate<float>(rows).data;
    matrix_view<float, device_space> given;  // only read
    given.data = const_cast<float*>(log_sum_exp.data);
    for (int axis = 0; axis < 2; ++axis) {
      given.extents[axis] = log_sum_exp.extents[axis];
      given.strides[axis] = log_sum_exp.strides[axis];
    }
    launch_elements(ctx, rows, log_sum_exp_by_heads{given, by_heads, shape.positions, false});
    numbers n(shape);
    run(ctx, *plan,
        {id_query, id_key, id_value, id_out, id_d_out, id_log_sum_exp, id_d_query, id_d_key, id_d_value, id_delta,
         id_scale, id_nothing, id_one},
        {at(qkv, shape.query(0)), at(qkv, shape.key(0)), at(qkv, shape.value(0)), at(out, 0), at(d_out, 0), by_heads,
         at(d_qkv, shape.query(0)), at(d_qkv, shape.key(0)), at(d_qkv, shape.value(0)), delta, &n.scale, &n.nothing,
         &n.one});
    return true;
  }

 private:
  struct numbers {
    explicit numbers(const attention_shape& shape)
        : scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)))) {}
    float scale, nothing = -std::numeric_limits<float>::infinity(), one = 1;
  };

  // cuDNN as it is at run time, which need not be the one of the headers. Up to 9.15.0 the gradients of lengths that
  // are no multiple of 128 may be wrong. Source: NVIDIA, cudnn-frontend, which pads there.
  static bool computes_rightly(const cudnn_attention_key& key) {
    const std::size_t version = cudnnGetVersion();
    return version >= 91100 && (version > 91500 || !key.backward || key.positions % 128 == 0);
  }

  template <class T>
  static bool aligned(const matrix_view<T, device_space>& m) {
    return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.strides[0] % 8 == 0;
  }
  template <class T>
  static void* at(const matrix_view<T, device_space>& m, index_t column) {
    return const_cast<bfloat16*>(m.data + column);
  }

  const cudnn_plan* find(const cudnn_attention_key& key) {
    auto place = plans_.find(key);
    if (place == plans_.end()) {
      std::optional<cudnn_plan> plan;
      if (key.sequences > 0 && key.head_dim % 8 == 0 && key.positions > 1 && computes_rightly(key))
        plan = find_cudnn_plan(key.backward ? cudnn_backward_graph(key) : cudnn_forward_graph(key), device_, handle_);
      place = plans_.emplace(key, std::move(plan)).first;
    }
    return place->second.has_value() ? &*place->second : nullptr;
  }

  void run(context<cuda>& ctx, const cudnn_plan& plan, const std::vector<std::int64_t>& ids,
           const std::vector<void*>& pointers) {
    void* const workspace = ctx.allocate<std::byte>(static_cast<index_t>(plan.workspace_bytes)).data;
    run_cudnn_plan(handle_, plan, ids, pointers, workspace);
  }

  cudnnHandle_t handle_ = nullptr;
  cudnn_descriptor device_;
  std::map<cudnn_attention_key, std::optional<cudnn_plan>> plans_;
};

}  // namespace graft::detail

#endif
