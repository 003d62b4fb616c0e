// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What goes into a mix, and which models may be mixed.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/core/transformer_shape.hpp>
#include <graft/mix/expert_plan.hpp>

namespace graft {

// One model that goes into a mix: its name for messages, what it is, and its parameters on the host in the order of its
// layout.
template <class M>
struct mix_source {
  std::string name;
  transformer_shape shape;
  std::string tokenizer;
  const parameter_layout* layout = nullptr;
  std::span<const M> values;
  index_t experts_per_token = 0;  // of a mixture
};

struct mix_options {
  std::vector<double> weights = {};          // of the branches in an average, in any scale; empty: equal
  std::uint64_t seed = 0;                    // for what is drawn anew
  std::vector<mixed_expert> experts = {};    // empty: branch i is expert i
  std::vector<branch_expert> left_out = {};  // experts of the branches that the result does not have
};

// Throws graft::error unless the models have one shape, vocabulary and tokenizer. The sentence names the two models,
// the size, both values. own_experts: the number and widths of their experts, and of feed-forward layers, may differ.
template <class M>
void check_mixable(const std::vector<mix_source<M>>& sources, bool own_experts = false) {
  GRAFT_CHECK(!sources.empty(), "mix: expected at least one model, got none");
  const auto compared = [&](const mix_source<M>& source) {
    transformer_shape shape = source.shape;
    if (own_experts) {
      shape.experts = shape.hidden = shape.shared_hidden = shape.first_dense = shape.dense_hidden = 0;
      shape.moe_period = 1;
    }
    return shape;
  };
  const mix_source<M>& first = sources.front();
  const transformer_shape first_shape = compared(first);
  for (const mix_source<M>& other : sources) {
    const auto check_same = [&](const char* what, const auto& a, const auto& b) {
      GRAFT_CHECK(a == b, "mix: ", first.name, " and ", other.name, " cannot be mixed: expected the same ", what,
                  ", got ", a, " and ", b);
    };
    check_same("tokenizer", first.tokenizer, other.tokenizer);
    const transformer_shape other_shape = compared(other);
    for_each_size(first_shape, [&](const char* what, const auto& a) {
      for_each_size(other_shape, [&](const char* other_what, const auto& b) {
        if constexpr (std::is_same_v<decltype(a), decltype(b)>)
          if (what == std::string_view(other_what)) check_same(what, a, b);
      });
    });
    GRAFT_CHECK(first_shape == other_shape, "mix: ", first.name, " and ", other.name,
                " cannot be mixed: their shapes differ");
    if (!own_experts) check_same("number of experts per token", first.experts_per_token, other.experts_per_token);
  }
}

}  // namespace graft
