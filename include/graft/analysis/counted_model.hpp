// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What of a transformer costs parameters, operations and memory: a transformer_shape, and what other models have that
// graft does not build (biases, latent attention, gated shared experts). Counted by formula; where graft has the type,
// the type counts too and the two must agree.

#include <cmath>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include <graft/core/parameter_spec.hpp>
#include <graft/layers/attention_experts.hpp>
#include <graft/models/counts.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/expert_layout/shared_routed.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>
#include <graft/policies/router/flex_olmo.hpp>
#include <graft/policies/router/top_k.hpp>

namespace graft {

// Multi-head latent attention: keys and values are products of a narrow vector that all heads share.
//   q = W_q x, or W_qb norm(W_qa x);   (c, r) = W_kva x;   (k, v) = W_kvb norm(c);   keys (k, rope(r))
// Source: DeepSeek-AI, "DeepSeek-V2", 2024, arXiv 2405.04434, section 2.1.
struct latent_attention {
  index_t query_rank = 0;  // 0: queries come straight from the hidden state
  index_t kv_rank = 0;
  index_t plain_dim = 0;  // of a head's keys, without position
  index_t rope_dim = 0;   // of the part with position, one for all heads
  index_t value_dim = 0;

  index_t key_dim() const { return plain_dim + rope_dim; }
  bool operator==(const latent_attention&) const = default;
};

// RMSNorm of queries and keys: none, over each head (Qwen3), over all heads together (OLMoE, OLMo 2).
enum class qk_norm_width { none, head, whole };

// What is added to each expert: nothing, products of low rank, a square matrix behind it.
enum class expert_addition { none, lora, adapter };

// Experts that a token uses in a block with experts.
struct slots_rule {
  double slots = 0;
  bool first_block_all = false;  // the first block uses all of them

  constexpr double used(index_t block, index_t experts) const {
    return block == 0 && first_block_all ? static_cast<double>(experts) : slots;
  }
};

struct counted_model {
  std::string name;    // in tables
  std::string place;   // in messages: the file
  std::string family;  // model_type of config.json
  transformer_shape shape{};
  index_t experts_per_token = 0;      // K
  std::optional<slots_rule> slots{};  // of a router that fills other than K of them
  std::vector<bool> routed_blocks;    // (L) which blocks have experts
  qk_norm_width qk_norm = qk_norm_width::none;
  bool qkv_bias = false, output_bias = false, ffn_bias = false;
  index_t window = 0;                            // attention sees so many keys at most, 0: all before it
  std::optional<latent_attention> latent{};      // in the place of grouped queries
  std::optional<attention_experts> attention{};  // experts of the attention that the rest describes
  expert_addition addition = expert_addition::none;
  index_t rank = 16;                 // of lora
  bool owner_gate = false;           // each row of the router has a bias
  bool shared_gate = false;          // the shared expert has a gate of its own, x w
  bool selection_bias = false;       // one number an expert that a balancer moves
  std::vector<std::string> notes{};  // sentences: what the file holds and is not counted
};

// Numbers by the role of the parameters they belong to. Counts are exact: integers below 2^53.
struct role_counts {
  double values[std::size(all_roles)] = {};

  double& operator[](role kind) { return values[static_cast<int>(kind)]; }
  double operator[](role kind) const { return values[static_cast<int>(kind)]; }
  double sum() const {
    double all = 0;
    for (const double value : values) all += value;
    return all;
  }
  role_counts& operator+=(const role_counts& other) {
    for (std::size_t i = 0; i < std::size(values); ++i) values[i] += other.values[i];
    return *this;
  }
};

namespace detail {

// Of one attention; role::norm: what belongs to attention alone.
inline role_counts single_attention_counts(const counted_model& model) {
  const transformer_shape& shape = model.shape;
  const double width = static_cast<double>(shape.width), heads = static_cast<double>(shape.heads);
  role_counts counts;
  if (model.latent) {
    const latent_attention& latent = *model.latent;
    const double key = static_cast<double>(latent.key_dim()), plain = static_cast<double>(latent.plain_dim);
    const double value = static_cast<double>(latent.value_dim), kv_rank = static_cast<double>(latent.kv_rank);
    const double query_rank = static_cast<double>(latent.query_rank), rope = static_cast<double>(latent.rope_dim);
    const double queries = query_rank > 0 ? query_rank * (width + heads * key) : width * heads * key;
    counts[role::attention] =
        queries + width * (kv_rank + rope) + kv_rank * heads * (plain + value) + heads * value * width;
    counts[role::norm] = query_rank + kv_rank;
    return counts;
  }
  const double qkv = static_cast<double>(shape.qkv_width()), query = static_cast<double>(shape.query_width());
  counts[role::attention] = width * (qkv + query) + (model.qkv_bias ? qkv : 0) + (model.output_bias ? width : 0);
  if (model.qk_norm == qk_norm_width::head) counts[role::norm] = 2.0 * static_cast<double>(shape.head_dim);
  if (model.qk_norm == qk_norm_width::whole) counts[role::norm] = query + static_cast<double>(shape.kv_width());
  return counts;
}

// Of one block's attention, or of all its experts, every one of which works for every token: N attentions, less the
// keys and values that they share, a router (N, D), and adapters (D, D).
inline role_counts attention_counts(const counted_model& model) {
  const role_counts one = single_attention_counts(model);
  if (!model.attention) return one;
  const transformer_shape& shape = model.shape;
  const double number = static_cast<double>(model.attention->count(shape)), width = static_cast<double>(shape.width);
  role_counts counts;
  counts[role::attention] = number * one[role::attention];
  counts[role::norm] = number * one[role::norm];
  if (model.attention->shared_kv) {
    GRAFT_CHECK(!model.latent && model.qk_norm != qk_norm_width::whole, model.place,
                ": shared keys and values of attention experts are counted for grouped queries with norms of heads or "
                "none");
    const double kv = 2.0 * static_cast<double>(shape.kv_width());
    counts[role::attention] -= (number - 1.0) * (kv * width + (model.qkv_bias ? kv : 0));
    if (model.qk_norm == qk_norm_width::head)
      counts[role::norm] -= (number - 1.0) * static_cast<double>(shape.head_dim);
  }
  counts[role::router] = number * width;
  if (model.attention->adapters) counts[role::adapter] = number * width * width;
  return counts;
}

// Of one feed-forward layer: three matrices.
inline double ffn_count(const counted_model& model, index_t hidden) {
  const double width = static_cast<double>(model.shape.width), f = static_cast<double>(hidden);
  return 3.0 * width * f + (model.ffn_bias ? 2.0 * f + width : 0);
}

// used: experts that are counted, E for all of them.
inline role_counts block_counts(const counted_model& model, index_t block, double used) {
  const transformer_shape& shape = model.shape;
  const double width = static_cast<double>(shape.width), experts = static_cast<double>(shape.experts);
  role_counts counts = attention_counts(model);
  counts[role::norm] += 2.0 * width;
  if (!model.routed_blocks[static_cast<std::size_t>(block)]) {
    counts[role::ffn] = ffn_count(model, shape.dense_block_hidden());
    return counts;
  }
  counts[role::ffn] = used * ffn_count(model, shape.hidden);
  if (shape.shared_hidden > 0) counts[role::ffn] += ffn_count(model, shape.shared_hidden);
  const double hidden = static_cast<double>(shape.hidden);
  if (model.addition == expert_addition::lora)
    counts[role::adapter] += used * 3.0 * static_cast<double>(model.rank) * (width + hidden);
  if (model.addition == expert_addition::adapter) counts[role::adapter] += used * width * width;
  counts[role::router] += experts * width + (model.owner_gate ? experts : 0) + (model.shared_gate ? width : 0) +
                          (model.selection_bias ? experts : 0);
  return counts;
}

inline role_counts counts_by_formula(const counted_model& model, const std::optional<slots_rule>& rule) {
  const transformer_shape& shape = model.shape;
  role_counts counts;
  counts[role::embedding] = static_cast<double>(shape.vocabulary * shape.width);
  if (!shape.tied) counts[role::head] = counts[role::embedding];
  counts[role::norm] = static_cast<double>(shape.width);
  for (index_t block = 0; block < shape.blocks; ++block)
    counts += block_counts(model, block, rule ? rule->used(block, shape.experts) : static_cast<double>(shape.experts));
  return counts;
}

// What a block holds, from its declaration: of a stack of experts, so many as are used.
template <class Specs>
void add_counts(role_counts& counts, const Specs& specs, double used_share) {
  for_each_leaf(specs, [&](const parameter_spec& spec) {
    if (!spec.present()) return;
    const bool of_experts = spec.experts > 0 && spec.kind != role::router;  // every row of a router is read
    counts[spec.kind] += static_cast<double>(spec.size()) * (of_experts ? used_share : 1.0);
  });
}

template <class Mixture>
role_counts counts_by_type(const counted_model& model, const std::optional<slots_rule>& rule, const Mixture& mixture) {
  const transformer_shape& shape = model.shape;
  auto specs = transformer_specs(shape, mixture);
  role_counts counts;
  for (index_t block = 0; block < shape.blocks; ++block) {
    auto& layer = specs.model.layers[static_cast<std::size_t>(block)];
    add_counts(counts, layer.self_attn, 1.0);
    layer.self_attn = std::decay_t<decltype(layer.self_attn)>();
    add_counts(counts, layer,
               rule && shape.experts > 0 ? rule->used(block, shape.experts) / static_cast<double>(shape.experts) : 1.0);
  }
  specs.model.layers.clear();
  add_counts(counts, specs, 1.0);
  return counts;
}

// Calls visit with the type of mixture that holds what the model does. Routers with any number of slots hold the same.
template <class Visit>
role_counts visit_mixture(const counted_model& model, Visit visit) {
  if (model.attention && model.addition == expert_addition::adapter)
    return visit(with_attention_experts(mixture<top_k<1>, no_balancer, adapted>(), *model.attention));
  if (model.attention) return visit(with_attention_experts(mixture<top_k<1>, no_balancer, routed>(), *model.attention));
  if (model.shape.experts == 0) return visit(no_mixture());
  if (model.owner_gate) return visit(mixture<flex_olmo<1>, no_balancer, routed>());
  if (model.addition == expert_addition::lora) {
    mixture<top_k<1>, no_balancer, lora> result;
    result.layout.experts_form.rank = model.rank;
    return visit(result);
  }
  if (model.addition == expert_addition::adapter) return visit(mixture<top_k<1>, no_balancer, adapted>());
  if (model.shared_gate)
    return visit(mixture<top_k<1>, no_balancer, shared_routed<shared_expert_mode::sigmoid_gated>>());
  if (model.shape.shared_hidden > 0) return visit(mixture<top_k<1>, no_balancer, shared_routed<>>());
  return visit(mixture<top_k<1>, no_balancer, routed>());
}

}  // namespace detail

// What no type of graft has, in words: empty for a dense_transformer or moe_transformer.
inline std::vector<std::string> layers_without_type(const counted_model& model) {
  const transformer_shape& shape = model.shape;
  std::vector<std::string> names;
  if (model.latent) names.emplace_back("latent attention");
  if (model.qkv_bias || model.output_bias || model.ffn_bias) names.emplace_back("biases");
  if (model.qk_norm == qk_norm_width::whole) names.emplace_back("QK-norm over all heads");
  if (model.window > 0) names.emplace_back("a sliding window");
  bool same_order = true;
  for (index_t block = 0; block < shape.blocks; ++block)
    same_order = same_order && model.routed_blocks[static_cast<std::size_t>(block)] == shape.routed_block(block);
  if (!same_order) names.emplace_back("dense blocks in this order");
  return names;
}

// Whether counts come from a type. A balancer's bias is counted by formula.
inline bool has_type(const counted_model& model) {
  const int kinds = (model.owner_gate ? 1 : 0) + (model.addition != expert_addition::none ? 1 : 0) +
                    (model.shape.shared_hidden > 0 ? 1 : 0);
  const bool with_attention =
      !model.attention || (model.shape.experts > 0 && !model.owner_gate && model.shape.shared_hidden == 0 &&
                           model.addition != expert_addition::lora);
  return layers_without_type(model).empty() && !model.selection_bias && kinds <= 1 && with_attention;
}

// Parameters by role; rule: of the experts of a block only those that a token uses, without: all of them. From the
// declaration of the type where graft has it, else by formula.
// Errors: where graft has the type, and the formula gives another number.
inline role_counts count_by_role(const counted_model& model, const std::optional<slots_rule>& rule = {}) {
  const role_counts formula = detail::counts_by_formula(model, rule);
  if (!has_type(model)) return formula;
  const role_counts counts =
      detail::visit_mixture(model, [&](const auto& mixture) { return detail::counts_by_type(model, rule, mixture); });
  for (const role kind : all_roles)
    GRAFT_CHECK(std::abs(formula[kind] - counts[kind]) < 0.5, model.place, ": the ", name_of(kind),
                " parameters by formula are not those of the type, got ", formula[kind], " and ", counts[kind]);
  return counts;
}

// Multiply-adds of products that a token takes: every active parameter but the table of the embedding, which is read.
// A tied head is a product of its own.
inline double products_per_token(const counted_model& model, const role_counts& active) {
  return active.sum() - active[role::embedding] +
         (model.shape.tied ? static_cast<double>(model.shape.vocabulary * model.shape.width) : 0.0);
}

// Multiply-adds between queries and keys and between weights and values, of a token at sequences of S positions: in
// every attention it sees (S + 1) / 2 keys on average, or those of its window W: (W (W + 1) / 2 + (S - W) W) / S.
inline double scores_per_token(const counted_model& model, index_t positions) {
  const double s = static_cast<double>(positions);
  const double w = model.window > 0 && model.window < positions ? static_cast<double>(model.window) : s;
  const double keys = (w * (w + 1.0) / 2.0 + (s - w) * w) / s;
  const double widths =
      model.latent ? static_cast<double>(model.shape.heads * (model.latent->key_dim() + model.latent->value_dim))
                   : 2.0 * static_cast<double>(model.shape.query_width());
  const double attentions = model.attention ? static_cast<double>(model.attention->maps(model.shape)) : 1.0;
  return static_cast<double>(model.shape.blocks) * attentions * widths * keys;
}

}  // namespace graft
