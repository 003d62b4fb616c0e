// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What each method of the Branch-Train family costs over a seed and its branches. What is a mixture of experts counts
// through the type of the mixture (counted_model.hpp). The models that graft has no type for, expert routing, BAM and
// BTS, are formulas here, one function each. N: models, the seed among them; n = N - 1; D width, F hidden width, L
// blocks, E experts.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <graft/analysis/cost_row.hpp>

namespace graft {

namespace detail {

// A dense model with experts in the place of its feed-forward layers.
inline counted_model as_mixture(counted_model model, index_t experts) {
  model.shape.experts = experts;
  model.routed_blocks.assign(model.routed_blocks.size(), true);
  return model;
}

struct method_input {
  std::string method;
  std::vector<counted_model> models;  // the seed first
  cost_options options;
  counted_pass pass;

  const counted_model& seed() const { return models.front(); }
  index_t count() const { return static_cast<index_t>(models.size()); }
  // K of a mixture of E experts.
  slots_rule slots(index_t method_default, index_t experts) const {
    const index_t k = options.experts_per_token > 0 ? options.experts_per_token : std::min(method_default, experts);
    GRAFT_CHECK(k <= experts, method, ": expected experts_per_token <= experts, got experts_per_token=", k,
                ", experts=", experts);
    return {static_cast<double>(k)};
  }
  std::string names() const {
    std::string text;
    for (const counted_model& model : models) text += (text.empty() ? "" : ", ") + model.name;
    return text;
  }
};

inline cost_row mixture_row(const method_input& input, const slots_rule& rule) {
  return trained_model(as_mixture(input.seed(), input.count()), rule, input.pass);
}

// ---- models side by side -------------------------------------------------------------------------

// Branch-Train-Merge: p = sum_i p_i p(D = i | prefix); every model reads every token.
// Source: Li et al., "Branch-Train-Merge", 2022, arXiv 2208.03306.
inline cost_row btm_row(const method_input& input) {
  cost_row row;
  double activations = 0;
  for (const counted_model& model : input.models) {
    const slots_rule rule = own_slots(model);
    const role_counts active = count_by_role(model, rule);
    row.total += count_by_role(model).sum();
    row.active += active.sum();
    row.forward += 2.0 * (products_per_token(model, active) + scores_per_token(model, input.pass.positions));
    activations = std::max(activations, inference_activations(model, rule, input.pass));
  }
  row.text = "probabilities of all models averaged";
  return untrained(row, activations, input.pass);
}

// Expert routing: the mean embedding of a prompt times W (C, D) names the model that reads the sequence.
//   parameters (N + 1) D: the count of the paper, 15k = 5 x 3072 for four models, has a class more than models
// Training compares the losses of all models on a sequence, forward only; active and forward are of the mean model.
// Source: Zhang et al., "BTS", 2025, arXiv 2502.00075, baselines and table 2.
inline cost_row routing_row(const method_input& input) {
  cost_row row = btm_row(input);
  const double all = row.forward, number = static_cast<double>(input.count());
  const double router = (number + 1.0) * width_of(input.seed());
  const double a_sequence = static_cast<double>(input.pass.positions);  // the router reads one vector of it
  row.total += router;
  row.active = row.active / number + router;
  row.forward = all / number + 2.0 * router / a_sequence;
  row.trained = router;
  row.train = all + 6.0 * router / a_sequence;
  set_memory(row, router, input.pass);
  row.text = "one model for a sequence, chosen by its embedding";
  return row;
}

// ---- one model -----------------------------------------------------------------------------------

// Model soup: theta = mean of theta_i. Source: Wortsman et al., 2022, arXiv 2203.05482.
inline cost_row soup_row(const method_input& input) {
  const slots_rule rule = own_slots(input.seed());
  cost_row row = untrained(trained_model(input.seed(), rule, input.pass),
                           inference_activations(input.seed(), rule, input.pass), input.pass);
  row.text = "the mean of all models";
  return row;
}

inline cost_row dense_row(const method_input& input) {
  cost_row row = trained_model(input.seed(), own_slots(input.seed()), input.pass);
  row.text = "one model, everything trained";
  return row;
}

// Branch-Train-MiX: feed-forward layers as experts, everything else averaged, a router for each block; all of it is
// trained. Source: Sukhbaatar et al., 2024, arXiv 2403.07816.
inline cost_row btx_row(const method_input& input) {
  cost_row row = mixture_row(input, input.slots(2, input.count()));
  row.text = "mixture of " + std::to_string(input.count()) + " experts, top-k";
  return row;
}
// One expert for a token, drawn; the first block uses all of them, as in the paper. The router has slots for all in
// every block, empty but for one, and rows are kept for slots.
inline cost_row btx_sample_row(const method_input& input) {
  slots_rule rule = input.slots(1, input.count());
  rule.first_block_all = true;
  cost_row row = mixture_row(input, rule);
  row.activations =
      training_activations(as_mixture(input.seed(), input.count()), {static_cast<double>(input.count())}, input.pass);
  row.text = "mixture of " + std::to_string(input.count()) + " experts, one drawn, all in the first block";
  return row;
}
inline cost_row btx_soft_row(const method_input& input) {
  cost_row row = mixture_row(input, input.slots(input.count(), input.count()));
  row.text = "mixture of " + std::to_string(input.count()) + " experts, all used";
  return row;
}
// Sparse upcycling: N clones of the seed's feed-forward layers. Source: Komatsuzaki et al., 2022, arXiv 2212.05055.
inline cost_row upcycling_row(const method_input& input) {
  cost_row row = mixture_row(input, input.slots(2, input.count()));
  row.text = "mixture of " + std::to_string(input.count()) + " clones of the seed's experts";
  return row;
}

// FlexOlmo after the merge: the public model's expert and one of each owner; each row of the router has a bias. Nothing
// is trained together. Source: Shi et al., "FlexOlmo", 2025, arXiv 2507.07024.
inline counted_model flexolmo_model(const method_input& input, index_t experts) {
  counted_model mixture = as_mixture(input.seed(), experts);
  mixture.owner_gate = true;
  return mixture;
}
inline cost_row flexolmo_row(const method_input& input) {
  const counted_model mixture = flexolmo_model(input, input.count());
  const slots_rule rule = input.slots(4, input.count());
  cost_row row =
      untrained(trained_model(mixture, rule, input.pass), inference_activations(mixture, rule, input.pass), input.pass);
  row.text = "the public model and " + std::to_string(input.count() - 1) + " owners' experts, merged";
  return row;
}
// What one owner trains: of a mixture of two, their expert, its row and its bias.
//   trained: L (3 D F + D + 1)
inline cost_row flexolmo_owner_row(const method_input& input) {
  const counted_model mixture = flexolmo_model(input, 2);
  const slots_rule rule = input.slots(2, 2);
  const double blocks = blocks_of(mixture), row_and_bias = width_of(mixture) + 1.0;
  const double expert = ffn_count(mixture, mixture.shape.hidden);
  // With k slots of two experts, the owner's works for k / 2 of the tokens.
  cost_row row = partly_trained(mixture, rule, input.pass, blocks * (expert + row_and_bias),
                                blocks * (rule.slots / 2.0 * expert + row_and_bias));
  row.text = "one owner's expert beside the public one";
  return row;
}
// Router tuning after the merge: all rows and biases, every expert in use.
inline cost_row flexolmo_routers_row(const method_input& input) {
  cost_row row = trained_roles(flexolmo_model(input, input.count()), input.slots(input.count(), input.count()),
                               input.pass, {role::router});
  row.text = "routers tuned after the merge";
  return row;
}

// ---- frozen experts with additions ---------------------------------------------------------------

// A mixture whose experts are frozen, each with what is added to it; additions and routers are trained.
inline cost_row added_row(const method_input& input, expert_addition addition, index_t slots) {
  counted_model mixture = as_mixture(input.seed(), input.count());
  mixture.addition = addition;
  mixture.rank = input.options.rank;
  return trained_roles(mixture, input.slots(slots, input.count()), input.pass, {role::adapter, role::router});
}
// Low-rank products on the three matrices of each expert, 3 r (D + F). Source: lora_experts.
inline cost_row lora_row(const method_input& input) {
  cost_row row = added_row(input, expert_addition::lora, 1);
  row.text = "mixture of " + std::to_string(input.count()) + " frozen experts with low-rank additions";
  return row;
}
// A matrix (D, D) behind each expert. Source: adapted_experts.
inline cost_row adapters_row(const method_input& input) {
  cost_row row = added_row(input, expert_addition::adapter, 2);
  row.text = "mixture of " + std::to_string(input.count()) + " frozen experts with adapters";
  return row;
}

// ---- attention experts ---------------------------------------------------------------------------

// BAM with KV-experts: y = sum_i q_i MHA_i + sum_i p_i FFN_i, every attention used; a router for each of the two sums
// in each block. As in the BTS paper the second sum is over all experts too; --experts-per-token changes that.
//   parameters: embeddings, norms + N (attention + FFN) + 2 L N D
// Source: Zhang et al., "BAM!", 2024, arXiv 2408.08274; arXiv 2502.00075, table 2.
// With adapters each expert's output, of attention and of the feed-forward layers, goes through a matrix (D, D) of its
// own, and only these and the routers are trained: 2 L N D^2 + 2 L N D.
inline cost_row bam_model(const method_input& input, expert_addition addition) {
  counted_model mixture = as_mixture(input.seed(), input.count());
  mixture.addition = addition;
  const slots_rule rule = input.slots(input.count(), input.count());
  const double number = static_cast<double>(input.count()), blocks = blocks_of(mixture), width = width_of(mixture);
  const role_counts attention = attention_counts(mixture), total = count_by_role(mixture);
  const role_counts active = count_by_role(mixture, rule);
  const bool adapters = addition == expert_addition::adapter;
  // Beside the mixture: N - 1 attentions, their router, their adapters.
  const double router = blocks * number * width, square = adapters ? blocks * number * width * width : 0;
  const double beside = blocks * (number - 1.0) * attention.sum() + router + square;

  cost_row row = trained_model(mixture, rule, input.pass);
  row.total += beside;
  row.active += beside;
  row.trained = adapters ? total[role::adapter] + total[role::router] + router + square : row.trained + beside;
  token_work work;
  work.products = work.through = products_per_token(mixture, active) + beside;
  work.scores = work.scores_through = number * scores_per_token(mixture, input.pass.positions);
  work.trained = adapters ? active[role::adapter] + active[role::router] + router + square : work.products;
  row.forward = work.forward();
  row.train = work.train();
  set_memory(row, adapters ? row.trained : row.total, input.pass);
  // Each attention keeps its own and its result, which the gradient of q_i needs; q_i and its logits.
  const double results = number * (input.pass.storage * width * (adapters ? 2.0 : 1.0) + 2.0 * input.pass.master);
  row.activations +=
      input.pass.tokens() * blocks * ((number - 1.0) * attention_activations(mixture, input.pass) + results);
  return row;
}
inline cost_row bam_row(const method_input& input) {
  cost_row row = bam_model(input, expert_addition::none);
  row.text = std::to_string(input.count()) + " experts of attention and of feed-forward layers";
  return row;
}
inline cost_row bam_adapters_row(const method_input& input) {
  cost_row row = bam_model(input, expert_addition::adapter);
  row.text = std::to_string(input.count()) + " frozen experts of attention and of feed-forward layers, with adapters";
  return row;
}

// ---- stitches ------------------------------------------------------------------------------------

// Branch-Train-Stitch: K stitch layers between N frozen models, each with n projections (D, D) and one gate D -> D N.
//   parameters: the models' + K (n D^2 + (n + 1) D^2), of which the latter are trained
// Stitches stand after blocks s, 2s, ..., L with s = floor(L / K). Only the hub's head is computed, and gradients go
// back to the first stitch and no further.
// Source: Zhang et al., 2025, arXiv 2502.00075, section 3 and table 2.
inline cost_row bts_row(const method_input& input) {
  const counted_model& hub = input.seed();
  const counted_pass& pass = input.pass;
  const index_t stitches = input.options.stitches;
  GRAFT_CHECK(stitches >= 1 && stitches <= hub.shape.blocks, "bts: expected stitches from 1 to the ", hub.shape.blocks,
              " blocks of ", hub.place, ", got ", stitches);
  const index_t first = stitches == 1 ? hub.shape.blocks : hub.shape.blocks / stitches;  // blocks below it
  const double width = width_of(hub), experts = static_cast<double>(input.count() - 1);
  const double stitch = experts * width * width + (experts + 1.0) * width * width;
  const double all_stitches = static_cast<double>(stitches) * stitch;
  const double head = static_cast<double>(hub.shape.vocabulary) * width;

  cost_row row;
  token_work work;
  double kept = 0;
  for (const counted_model& model : input.models) {
    const slots_rule rule = own_slots(model);
    const role_counts active = count_by_role(model, rule);
    row.total += count_by_role(model).sum();
    row.active += active.sum();
    work.products += products_per_token(model, active) - head;
    const double scores = scores_per_token(model, pass.positions);
    work.scores += scores;
    work.scores_through +=
        scores * static_cast<double>(model.shape.blocks - first) / static_cast<double>(model.shape.blocks);
    for (index_t block = first; block < model.shape.blocks; ++block) {
      const double used = rule.used(block, model.shape.experts);
      work.through += block_counts(model, block, used).sum();
      kept += block_activations(model, block, used, pass);
    }
  }
  work.products += head + all_stitches;
  work.through += head + all_stitches - stitch;  // below the first stitch nothing asks for a gradient
  work.trained = all_stitches;
  row.total += all_stitches;
  row.active += all_stitches;
  row.trained = all_stitches;
  row.forward = work.forward();
  row.train = work.train();
  set_memory(row, all_stitches, pass);
  // A stitch keeps the states it makes, the projections and the gates.
  kept += static_cast<double>(stitches) * pass.storage * width * (3.0 * experts + 2.0);
  kept += pass.storage * 4.0 * width + 2.0 * pass.master;
  row.activations = pass.tokens() * kept + head_scratch(hub, pass, false);
  row.text = std::to_string(input.count()) + " frozen models, " + std::to_string(stitches) + " stitch layers trained";
  return row;
}

// ---- the list ------------------------------------------------------------------------------------

// What the models of a method must have in common.
enum class common_sizes { vocabulary, streams, all };  // streams: vocabulary, width and blocks

struct cost_method {
  std::string_view name;
  std::string_view text;
  common_sizes common;
  bool dense;  // the models must not be mixtures themselves
  cost_row (*row)(const method_input&);
};

inline constexpr cost_method cost_methods[] = {
    {"seed", "the first model, everything trained", common_sizes::vocabulary, false, dense_row},
    {"dense", "the same: the seed trained on, on all domains", common_sizes::vocabulary, false, dense_row},
    {"soup", "the mean of all models", common_sizes::all, false, soup_row},
    {"btm", "Branch-Train-Merge: probabilities of all models averaged", common_sizes::vocabulary, false, btm_row},
    {"routing", "expert routing: one model a sequence", common_sizes::vocabulary, false, routing_row},
    {"upcycling", "sparse upcycling: clones of the seed's experts", common_sizes::all, true, upcycling_row},
    {"btx", "Branch-Train-MiX, top-2", common_sizes::all, true, btx_row},
    {"btx-top2", "the same", common_sizes::all, true, btx_row},
    {"btx-sample", "Branch-Train-MiX, sample top-1", common_sizes::all, true, btx_sample_row},
    {"btx-soft", "Branch-Train-MiX, soft", common_sizes::all, true, btx_soft_row},
    {"bam", "BAM with KV-experts", common_sizes::all, true, bam_row},
    {"bam-adapters", "BAM, experts frozen, adapters trained", common_sizes::all, true, bam_adapters_row},
    {"bts", "Branch-Train-Stitch", common_sizes::streams, false, bts_row},
    {"flexolmo", "FlexOlmo, merged", common_sizes::all, true, flexolmo_row},
    {"flexolmo-owner", "FlexOlmo, the training of one owner", common_sizes::all, true, flexolmo_owner_row},
    {"flexolmo-routers", "FlexOlmo, router tuning", common_sizes::all, true, flexolmo_routers_row},
    {"lora", "frozen experts with low-rank additions", common_sizes::all, true, lora_row},
    {"adapters", "frozen experts, a square matrix behind each", common_sizes::all, true, adapters_row},
};

// Refuses models of which a method asks the same sizes and that differ. Names both files, the size and its values.
inline void check_common_sizes(const cost_method& method, const std::vector<counted_model>& models) {
  const counted_model& seed = models.front();
  for (const counted_model& model : models) {
    GRAFT_CHECK(!method.dense || model.shape.experts == 0, model.place, ": ", method.name,
                " mixes dense models, this one has ", model.shape.experts, " experts");
    const auto same = [&](const std::string& what, auto ours, auto theirs) {
      GRAFT_CHECK(ours == theirs, model.place, ": ", method.name, " needs the ", what, " of ", seed.place, ", got ",
                  ours, " and ", theirs);
    };
    same("vocabulary", model.shape.vocabulary, seed.shape.vocabulary);
    if (method.common == common_sizes::vocabulary) continue;
    same("width", model.shape.width, seed.shape.width);
    same("number of blocks", model.shape.blocks, seed.shape.blocks);
    if (method.common == common_sizes::streams) continue;
    std::vector<std::pair<std::string, double>> sizes;
    for_each_size(seed.shape,
                  [&](const char* what, auto value) { sizes.emplace_back(what, static_cast<double>(value)); });
    std::size_t at = 0;
    for_each_size(model.shape, [&](const char* what, auto value) {
      const double theirs = sizes[at++].second;
      if (std::string_view(what) != "number of positions") same(what, static_cast<double>(value), theirs);
    });
    same("experts per token", model.experts_per_token, seed.experts_per_token);
    GRAFT_CHECK(model.latent == seed.latent && model.qk_norm == seed.qk_norm && model.qkv_bias == seed.qkv_bias &&
                    model.output_bias == seed.output_bias && model.ffn_bias == seed.ffn_bias &&
                    model.window == seed.window && model.routed_blocks == seed.routed_blocks &&
                    model.shared_gate == seed.shared_gate && model.selection_bias == seed.selection_bias,
                model.place, ": ", method.name, " needs the layers of ", seed.place, ", got model_type ",
                in_quotes(model.family), " and ", in_quotes(seed.family));
  }
}

}  // namespace detail

}  // namespace graft
