// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The sizes of a transformer, known at run time: what config.json holds. A value, usable in constant
// expressions, so that the parameter count of a fixed shape can stand in a static_assert.

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace graft {

// Llama-3 frequency scaling of rotary embeddings. factor 1 means none.
struct rope_scaling {
  double factor = 1.0;
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;
  index_t original_positions = 8192;
  bool operator==(const rope_scaling&) const = default;
};

struct transformer_shape {
  index_t vocabulary = 0;  // V
  index_t width = 0;       // D
  index_t blocks = 0;      // L
  index_t heads = 0;       // H
  index_t kv_heads = 0;    // G
  index_t head_dim = 0;
  index_t hidden = 0;     // F: the hidden width of one FFN, of one expert in a mixture
  index_t positions = 0;  // the longest sequence the model is meant for
  double rope_theta = 10000.0;
  rope_scaling scaling{};
  double norm_eps = 1e-5;
  bool tied = false;     // the head is the transposed embedding
  bool qk_norm = false;  // RMSNorm per head on queries and keys
  index_t experts = 0;   // E: 0 for a dense model
  // Of a model with experts:
  index_t shared_hidden = 0;  // hidden width of an expert that all tokens use, 0 for none
  index_t first_dense = 0;    // so many blocks at the bottom are dense
  index_t moe_period = 1;    // of the others, every moe_period-th has experts, counted so that block moe_period - 1 has
  index_t dense_hidden = 0;  // hidden width of the dense blocks among them; 0: hidden

  bool operator==(const transformer_shape&) const = default;

  constexpr index_t query_width() const { return heads * head_dim; }
  constexpr index_t kv_width() const { return kv_heads * head_dim; }
  constexpr index_t qkv_width() const { return query_width() + 2 * kv_width(); }
  // Whether a block has experts.
  constexpr bool routed_block(index_t block) const {
    return experts > 0 && block >= first_dense && (block + 1) % moe_period == 0;
  }
  // The hidden width of the feed-forward layer of a block that has none.
  constexpr index_t dense_block_hidden() const { return dense_hidden > 0 ? dense_hidden : hidden; }
};

// Calls visit(name, value) for every size, with its name in messages. The one list of them: what compares or prints
// shapes uses it.
template <class Visit>
void for_each_size(const transformer_shape& shape, Visit visit) {
  visit("vocabulary", shape.vocabulary);
  visit("width", shape.width);
  visit("number of blocks", shape.blocks);
  visit("number of heads", shape.heads);
  visit("number of key/value heads", shape.kv_heads);
  visit("head_dim", shape.head_dim);
  visit("hidden width", shape.hidden);
  visit("number of positions", shape.positions);
  visit("rope_theta", shape.rope_theta);
  visit("rope scaling factor", shape.scaling.factor);
  visit("rope scaling low_frequency_factor", shape.scaling.low_frequency_factor);
  visit("rope scaling high_frequency_factor", shape.scaling.high_frequency_factor);
  visit("rope scaling original_positions", shape.scaling.original_positions);
  visit("norm_eps", shape.norm_eps);
  visit("tying of head and embedding", shape.tied);
  visit("QK-norm", shape.qk_norm);
  visit("number of experts", shape.experts);
  visit("hidden width of the shared expert", shape.shared_hidden);
  visit("number of dense blocks at the bottom", shape.first_dense);
  visit("period of blocks with experts", shape.moe_period);
  visit("hidden width of dense blocks", shape.dense_hidden);
}

// Errors: throws graft::error when a size is missing or two of them contradict each other.
inline void check_shape(const transformer_shape& shape) {
  GRAFT_CHECK(shape.vocabulary > 0 && shape.width > 0 && shape.blocks > 0 && shape.heads > 0 && shape.kv_heads > 0 &&
                  shape.head_dim > 0 && shape.hidden > 0 && shape.positions > 0,
              "transformer_shape: every size must be positive, got vocabulary=", shape.vocabulary,
              ", width=", shape.width, ", blocks=", shape.blocks, ", heads=", shape.heads,
              ", kv_heads=", shape.kv_heads, ", head_dim=", shape.head_dim, ", hidden=", shape.hidden,
              ", positions=", shape.positions);
  GRAFT_CHECK(shape.heads % shape.kv_heads == 0,
              "transformer_shape: expected heads to be a multiple of kv_heads, got heads=", shape.heads,
              ", kv_heads=", shape.kv_heads);
  GRAFT_CHECK(shape.head_dim % 2 == 0, "transformer_shape: rotary embedding needs an even head_dim, got ",
              shape.head_dim);
  GRAFT_CHECK(shape.scaling.factor == 1.0 || shape.scaling.high_frequency_factor > shape.scaling.low_frequency_factor,
              "transformer_shape: rope scaling needs high_frequency_factor above low_frequency_factor, got ",
              shape.scaling.high_frequency_factor, " and ", shape.scaling.low_frequency_factor);
  GRAFT_CHECK(shape.experts >= 0, "transformer_shape: experts cannot be negative, got ", shape.experts);
  GRAFT_CHECK(shape.shared_hidden >= 0 && shape.first_dense >= 0 && shape.moe_period >= 1 && shape.dense_hidden >= 0,
              "transformer_shape: expected shared_hidden, first_dense and dense_hidden not to be negative and "
              "moe_period at least 1, got ",
              shape.shared_hidden, ", ", shape.first_dense, ", ", shape.dense_hidden, ", ", shape.moe_period);
  GRAFT_CHECK(shape.experts > 0 || (shape.shared_hidden == 0 && shape.first_dense == 0 && shape.moe_period == 1 &&
                                    shape.dense_hidden == 0),
              "transformer_shape: shared_hidden, first_dense, moe_period and dense_hidden belong to a model with "
              "experts, this one has none");
  GRAFT_CHECK(shape.experts == 0 || shape.first_dense < shape.blocks,
              "transformer_shape: expected fewer dense blocks at the bottom than blocks, got first_dense=",
              shape.first_dense, ", blocks=", shape.blocks);
}

}  // namespace graft
