// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Mixing of model directories: branches in, one model directory out. Needs no device.

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <graft/io/model_directory.hpp>
#include <graft/mix/mix.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

namespace graft {

// A model in host memory: what a directory holds.
struct host_model {
  model_info info;
  parameter_layout layout;
  std::vector<float> values;  // layout.size
};

// The layout of a dense model or of a mixture of routed experts. It does not depend on the router's kind.
inline parameter_layout layout_of(const transformer_shape& shape) {
  if (shape.experts == 0) return make_layout(transformer_specs(shape));
  return make_layout(transformer_specs(shape, mixture<top_k<1>, no_balancer, routed>{}));
}

inline host_model load_host_model(const std::filesystem::path& folder) {
  host_model model{load_model_info(folder), {}, {}};
  model.layout = layout_of(model.info.config.shape);
  model.values.resize(static_cast<std::size_t>(model.layout.size));
  load_parameters(folder, model.layout, model.values.data());
  return model;
}

// A branch of a mix: where it is, what its expert is called, and which domain it was trained on (empty: none).
struct branch_directory {
  std::filesystem::path folder;
  std::string name;
  std::string domain;
};

struct directory_mix_options {
  mix_options mix{};
  index_t experts_per_token = 2;                         // of a mixture
  nlohmann::json provenance = nlohmann::json::object();  // goes into graft.json as it is
};

// Mixes branches by a recipe and writes the result to `out`. A recipe that keeps feed-forward layers one per branch
// gives a mixture with one expert for each branch, named after it; any other gives a model like its branches. Errors:
// models that differ in shape, vocabulary or tokenizer, two branches of one name, and what reading and writing say;
// nothing is written then.
inline void mix_directories(const recipe& how, const std::vector<branch_directory>& branches,
                            const std::filesystem::path& out, const directory_mix_options& options = {}) {
  GRAFT_CHECK(!branches.empty(), "mix: expected at least one model, got none");
  std::vector<host_model> models;
  std::set<std::string> names;
  for (const branch_directory& branch : branches) {
    GRAFT_CHECK(names.insert(branch.name).second, "mix: expected branches of different names, got ", branch.name,
                " twice");
    models.push_back(load_host_model(branch.folder));
  }
  std::vector<mix_source<float>> sources;
  for (std::size_t i = 0; i < models.size(); ++i) {
    const model_info& info = models[i].info;
    GRAFT_CHECK(branches.size() == 1 || info.tokenizer.kind != unknown_tokenizer, "mix: ", branches[i].folder.string(),
                " has neither graft.json nor tokenizer files, so it cannot be known whether its tokens mean what the "
                "others' mean");
    sources.push_back({branches[i].folder.string(), info.config.shape,
                       info.tokenizer.kind + "/" + std::to_string(info.tokenizer.vocabulary), &models[i].layout,
                       std::span<const float>(models[i].values), info.config.experts_per_token});
  }
  check_mixable(sources);

  model_config config = models.front().info.config;
  model_card card = models.front().info.card.value_or(model_card{});
  card.version = version_text();
  card.tokenizer = models.front().info.tokenizer;
  if (config.shape.experts > 0) card.kind = "moe";
  card.provenance = options.provenance;
  if (how.rule_for(role::ffn) == merge_rule::one_per_branch) {
    GRAFT_CHECK(config.shape.experts == 0, "mix: recipe ", how.name, " takes dense models, but ",
                branches.front().folder.string(), " has ", config.shape.experts, " experts");
    GRAFT_CHECK(options.experts_per_token >= 1 && options.experts_per_token <= static_cast<index_t>(branches.size()),
                "mix: expected experts_per_token from 1 to the number of experts, got experts_per_token=",
                options.experts_per_token, ", experts=", branches.size());
    config.shape.experts = static_cast<index_t>(branches.size());
    config.experts_per_token = options.experts_per_token;
    card.kind = "moe";
    card.router = policy_card{"top_k", {{"experts_per_token", options.experts_per_token}}};
    card.layout = policy_card{"routed", nlohmann::json::object()};
    card.experts.clear();
    for (const branch_directory& branch : branches) card.experts.push_back({branch.name, branch.domain});
  }
  const parameter_layout layout = layout_of(config.shape);
  std::vector<float> values(static_cast<std::size_t>(layout.size), 0.0f);
  mix(how, sources, layout, std::span<float>(values), options.mix);
  save_options save;
  save.tokenizer_from = branches.front().folder;
  save_model(out, config, layout, values.data(), card, save);
}

}  // namespace graft
