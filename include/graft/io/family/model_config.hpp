// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What config.json says of a model.

#include <graft/core/transformer_shape.hpp>
#include <graft/policies/expert_layout/expert_layout.hpp>

namespace graft {

struct model_config {
  transformer_shape shape{};
  index_t experts_per_token = 0;   // K, 0 for a dense model
  index_t end_of_text = -1;        // id of the token that ends a text, -1 when the file names none or several
  bool normalised_weights = true;  // norm_topk_prob: the router is top_k, which renormalises; false: softmax_top_k
  shared_expert_mode shared = shared_expert_mode::none;  // how an expert of width shape.shared_hidden is added

  bool operator==(const model_config&) const = default;
};

// Whether some blocks of a mixture are dense.
constexpr bool has_dense_blocks(const transformer_shape& shape) {
  return shape.experts > 0 && (shape.first_dense > 0 || shape.moe_period > 1);
}

}  // namespace graft
