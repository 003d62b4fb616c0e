// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What graft.json says of where a mixed model comes from.

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/mix/model_directories.hpp>

#include "common/engine.hpp"
#include "common/folder.hpp"
#include "common/mixtures.hpp"

namespace examples {

// The domain that a branch was trained on last, empty when it had several or none.
inline std::string domain_of_model(const std::filesystem::path& folder) {
  return origin_value(graft::load_model_info(folder), "domain", std::string());
}

// Branches share the tokens of the seed they have in common; each adds its own. Branches train at the same time, so the
// critical path is the longest of theirs.
inline nlohmann::json mix_origin(const graft::recipe& how, const std::vector<graft::branch_directory>& branches,
                                 const graft::directory_mix_options& options) {
  graft::index_t critical = 0, own = 0, seed = 0;
  nlohmann::json parents = nlohmann::json::array();
  std::ostringstream text;
  text.precision(17);
  text << how.name << " seed=" << options.mix.seed;
  if (how.rule_for(graft::role::ffn) == graft::merge_rule::one_per_branch)
    text << " experts_per_token=" << options.experts_per_token << " router=" << options.plan.router.name
         << options.plan.router.options.dump() << " layout=" << options.plan.layout.name
         << options.plan.layout.options.dump();
  if (options.experts) text << " experts=" << options.experts.name;
  for (const double weight : options.mix.weights) text << " weight=" << weight;
  for (const graft::branch_directory& branch : branches) {
    const graft::model_info info = graft::load_model_info(branch.folder);
    const graft::index_t all = origin_value(info, "train_tokens", graft::index_t{0}),
                         last = origin_value(info, "last_train_tokens", all);
    const bool is_seed = origin_value(info, "parents", std::vector<std::string>()).empty();
    if (is_seed)
      seed = std::max(seed, all);
    else
      own += last, seed = std::max(seed, all - last);
    critical = std::max(critical, origin_value(info, "critical_path_tokens", graft::index_t{0}));
    parents.push_back(folder_name(branch.folder));
    text << ' ' << branch.name << '=' << origin_value(info, "signature", std::string("unknown"));
  }
  return {{"method", how.name},           {"parents", parents},
          {"train_tokens", seed + own},   {"critical_path_tokens", critical},
          {"mix_seed", options.mix.seed}, {"signature", fingerprint(text.str())}};
}

// What mix_directories needs to know of a mixture.
inline graft::mixture_plan plan_of(const mixture_names& names) {
  graft::transformer_shape smallest{.vocabulary = 1,
                                    .width = 64,
                                    .blocks = 1,
                                    .heads = 1,
                                    .kv_heads = 1,
                                    .head_dim = 64,
                                    .hidden = 64,
                                    .positions = 1,
                                    .experts = names.experts};
  graft::model_card card;
  write_names(names, facts_of(names, smallest).options, card);
  return {*card.router, *card.layout, card.balancers,
          [names](const graft::transformer_shape& shape) { return facts_of(names, shape).layout; }};
}

// Mixes branches and writes the result, unless the same one is there. Errors: out holds another model.
inline void mix_once(const graft::recipe& how, const std::vector<graft::branch_directory>& branches,
                     const std::filesystem::path& out, graft::directory_mix_options options) {
  options.provenance = mix_origin(how, branches, options);
  if (std::filesystem::exists(out / "config.json")) {
    const std::string wanted = options.provenance["signature"],
                      found = origin_value(graft::load_model_info(out), "signature", std::string("unknown"));
    GRAFT_CHECK(found == wanted, out.string(), ": holds another model (signature ", found, ", that of this mix is ",
                wanted, "): remove it or choose another place");
    return;
  }
  graft::mix_directories(how, branches, out, options);
}

}  // namespace examples
