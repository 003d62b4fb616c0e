// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The sizes of causal grouped-query attention and where its tensors keep what.

#include <graft/core/host_device.hpp>

namespace graft {

// T = sequences * positions rows, row t of sequence t / positions. heads is a multiple of kv_heads: query head h reads
// key and value head h / (heads / kv_heads). A row of qkv holds H query heads, then G key heads, then G value heads.
struct attention_shape {
  index_t sequences = 0;
  index_t positions = 0;
  index_t heads = 0;
  index_t kv_heads = 0;
  index_t head_dim = 0;

  GRAFT_HOST_DEVICE constexpr index_t tokens() const { return sequences * positions; }
  GRAFT_HOST_DEVICE constexpr index_t group() const { return heads / kv_heads; }  // query heads per key/value head
  GRAFT_HOST_DEVICE constexpr index_t out_width() const { return heads * head_dim; }
  GRAFT_HOST_DEVICE constexpr index_t qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
  // Columns of qkv at which a head begins.
  GRAFT_HOST_DEVICE constexpr index_t query(index_t head) const { return head * head_dim; }
  GRAFT_HOST_DEVICE constexpr index_t key(index_t kv_head) const { return (heads + kv_head) * head_dim; }
  GRAFT_HOST_DEVICE constexpr index_t value(index_t kv_head) const { return (heads + kv_heads + kv_head) * head_dim; }
};

}  // namespace graft
