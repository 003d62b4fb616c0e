// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Small models for tests: shapes, tokens, and weights large enough that gradients stand out.

#include <algorithm>
#include <cstdint>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/balancer/z_loss.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

#include "reference.hpp"

namespace graft::test {

using balancers = all<switch_loss, z_loss>;
template <int K>
using mixture_of = mixture<top_k<K>, balancers, routed>;

// Two blocks, two query heads on one key head, vocabulary of 11.
inline transformer_shape small_shape(index_t experts = 0) {
  return {.vocabulary = 11,
          .width = 8,
          .blocks = 2,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 4,
          .hidden = 12,
          .positions = 16,
          .experts = experts};
}

// Token ids of B sequences of S positions, and the same shifted as targets; one target is missing.
struct token_batch {
  index_t sequences, positions;
  std::vector<std::int32_t> inputs, targets;

  token_batch(index_t b, index_t s, index_t vocabulary, std::uint64_t seed = 1) : sequences(b), positions(s) {
    const random_source draw{seed, random_stream::data};
    for (index_t i = 0; i < b * s; ++i) {
      inputs.push_back(static_cast<std::int32_t>(
          draw.below(static_cast<std::uint64_t>(vocabulary), 0, static_cast<std::uint64_t>(i))));
      targets.push_back(static_cast<std::int32_t>(
          draw.below(static_cast<std::uint64_t>(vocabulary), 1, static_cast<std::uint64_t>(i))));
    }
    targets[targets.size() / 2] = -1;
  }
  index_t target_count() const {
    return static_cast<index_t>(std::count_if(targets.begin(), targets.end(), [](auto t) { return t >= 0; }));
  }
  matrix_view<const std::int32_t> input() const {
    return matrix_view<const std::int32_t>(inputs.data(), sequences, positions);
  }
  matrix_view<const std::int32_t> target() const {
    return matrix_view<const std::int32_t>(targets.data(), sequences, positions);
  }
};

// Matrices normal with the given deviation, norms around 1: at the usual 0.02 a two-block model is nearly linear.
template <class Model>
void randomize(Model& model, std::uint64_t seed, double deviation = 0.3) {
  const random_source draw{seed, random_stream::data};
  const auto arena = model.parameters().master();
  std::uint64_t key = 100;
  for (const tensor_entry& entry : model.layout().tensors) {
    for (index_t i = 0; i < entry.size(); ++i)
      arena[entry.offset + i] = static_cast<typename Model::M>(
          (entry.columns == 0 ? 1 : 0) + deviation * draw.normal(key, static_cast<std::uint64_t>(i)));
    ++key;
  }
  model.parameters().refresh(model.context());
}

}  // namespace graft::test
