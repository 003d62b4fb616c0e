// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Mixing: fills the parameters of a new model from those of its branches by a recipe.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/initialization.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/core/transformer_shape.hpp>
#include <graft/mix/recipe.hpp>

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
  std::vector<double> weights = {};  // of the branches in an average, in any scale; empty: equal
  std::uint64_t seed = 0;            // for what is drawn anew
};

namespace detail {

// The tensor of a dense branch that becomes tensor `name` of an expert:
// "...block_sparse_moe.experts.3.w1.weight" <- "...mlp.gate_proj.weight".
inline std::string dense_name(const std::string& name) {
  const std::string marker = ".block_sparse_moe.experts.";
  const auto at = name.find(marker);
  if (at == std::string::npos) return name;
  const auto part = name.substr(name.find('.', at + marker.size()) + 1);
  const std::string dense = part == "w1.weight"   ? "gate_proj.weight"
                            : part == "w2.weight" ? "down_proj.weight"
                            : part == "w3.weight" ? "up_proj.weight"
                                                  : "";
  GRAFT_CHECK(!dense.empty(), "mix: ", name, " is no part of a feed-forward layer that a dense model has");
  return name.substr(0, at) + ".mlp." + dense;
}

}  // namespace detail

// Throws graft::error unless the models have one shape, vocabulary and tokenizer. The sentence names the two models,
// the size, both values.
template <class M>
void check_mixable(const std::vector<mix_source<M>>& sources) {
  GRAFT_CHECK(!sources.empty(), "mix: expected at least one model, got none");
  const mix_source<M>& first = sources.front();
  for (const mix_source<M>& other : sources) {
    const auto check_same = [&](const char* what, const auto& a, const auto& b) {
      GRAFT_CHECK(a == b, "mix: ", first.name, " and ", other.name, " cannot be mixed: expected the same ", what,
                  ", got ", a, " and ", b);
    };
    check_same("tokenizer", first.tokenizer, other.tokenizer);
    for_each_size(first.shape, [&](const char* what, const auto& a) {
      for_each_size(other.shape, [&](const char* other_what, const auto& b) {
        if constexpr (std::is_same_v<decltype(a), decltype(b)>)
          if (what == std::string_view(other_what)) check_same(what, a, b);
      });
    });
    GRAFT_CHECK(first.shape == other.shape, "mix: ", first.name, " and ", other.name,
                " cannot be mixed: their shapes differ");
    check_same("number of experts per token", first.experts_per_token, other.experts_per_token);
  }
}

// Fills target (target_layout.size elements) from the branches. Every tensor of the target is set exactly once, and
// every tensor of every branch is used exactly once, or the call fails and names the tensor. Order: branches in the
// order given; sums in fp64, rounded once. Equal models average to themselves bit for bit.
template <class M>
void mix(const recipe& how, const std::vector<mix_source<M>>& sources, const parameter_layout& target_layout,
         std::span<M> target, const mix_options& options = {}) {
  check_mixable(sources);
  GRAFT_CHECK(static_cast<index_t>(target.size()) >= target_layout.size, "mix: expected room for ", target_layout.size,
              " elements, got ", target.size());
  GRAFT_CHECK(options.weights.empty() || options.weights.size() == sources.size(),
              "mix: expected one weight for each of ", sources.size(), " models, got ", options.weights.size());
  std::vector<double> weights = options.weights.empty() ? std::vector<double>(sources.size(), 1.0) : options.weights;
  double sum = 0;
  for (const double weight : weights) {
    GRAFT_CHECK(std::isfinite(weight) && weight >= 0, "mix: expected weights of at least 0, got ", weight);
    sum += weight;
  }
  GRAFT_CHECK(sum > 0, "mix: expected weights with a positive sum, got ", sum);

  std::vector<std::vector<int>> used;
  for (const auto& source : sources) used.emplace_back(source.layout->tensors.size(), 0);
  // The values of a branch's tensor; counts the use.
  const auto take = [&](std::size_t branch, const std::string& name, const tensor_entry& wanted) {
    const mix_source<M>& source = sources[branch];
    const tensor_entry* entry = source.layout->find(name);
    GRAFT_CHECK(entry != nullptr, "mix: ", source.name, " has no tensor ", name, ", which ", wanted.name,
                " is made from");
    GRAFT_CHECK(entry->rows == wanted.rows && entry->columns == wanted.columns, "mix: tensor ", name, " of ",
                source.name, " is ", entry->rows, " x ", entry->columns, ", expected ", wanted.rows, " x ",
                wanted.columns);
    ++used[branch][static_cast<std::size_t>(entry - source.layout->tensors.data())];
    return source.values.data() + entry->offset;
  };

  for (const tensor_entry& entry : target_layout.tensors) {
    M* out = target.data() + entry.offset;
    switch (how.rule_for(entry.kind)) {
      case merge_rule::fresh:
        draw_initial(entry, options.seed, out);
        break;
      case merge_rule::one_per_branch: {
        GRAFT_CHECK(entry.expert >= 0 && static_cast<std::size_t>(entry.expert) < sources.size(), "mix: recipe ",
                    how.name, " keeps ", name_of(entry.kind), " parameters one per branch, but ", entry.name,
                    " is the share of expert ", entry.expert, " and there are ", sources.size(), " models");
        const auto branch = static_cast<std::size_t>(entry.expert);
        std::copy_n(take(branch, detail::dense_name(entry.name), entry), entry.size(), out);
        break;
      }
      case merge_rule::average: {
        std::vector<const M*> values;
        for (std::size_t branch = 0; branch < sources.size(); ++branch)
          values.push_back(take(branch, entry.name, entry));
        for (index_t i = 0; i < entry.size(); ++i) {
          double total = -0.0, low = INFINITY, high = -INFINITY;
          for (std::size_t branch = 0; branch < sources.size(); ++branch) {
            if (weights[branch] == 0) continue;
            const auto value = static_cast<double>(values[branch][i]);
            total += weights[branch] * value;
            low = std::min(low, value);
            high = std::max(high, value);
          }
          // (A sum that starts at -0.0 keeps the sign of zeros.) A mean lies between its terms. With fp64 parameters
          // rounding could take it outside.
          const double mean = total / sum;
          out[i] = static_cast<M>(mean < low ? low : mean > high ? high : mean);
        }
        break;
      }
    }
  }
  for (std::size_t branch = 0; branch < sources.size(); ++branch)
    for (std::size_t i = 0; i < used[branch].size(); ++i)
      GRAFT_CHECK(used[branch][i] == 1, "mix: tensor ", sources[branch].layout->tensors[i].name, " of ",
                  sources[branch].name, " was used ", used[branch][i], " times by recipe ", how.name,
                  ", expected once");
}

}  // namespace graft
