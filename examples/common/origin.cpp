// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/origin.hpp"

#include <algorithm>
#include <sstream>

namespace examples {

std::string domain_of_model(const std::filesystem::path& folder) {
  return origin_value(graft::load_model_info(folder), "domain", std::string());
}

parents_origin origin_of_parents(const std::vector<graft::branch_directory>& branches) {
  parents_origin result;
  graft::index_t own = 0, seed = 0;
  for (const graft::branch_directory& branch : branches) {
    const graft::model_info info = graft::load_model_info(branch.folder);
    const graft::index_t all = origin_value(info, "train_tokens", graft::index_t{0}),
                         last = origin_value(info, "last_train_tokens", all);
    const bool is_seed = origin_value(info, "parents", std::vector<std::string>()).empty();
    if (is_seed)
      seed = std::max(seed, all);
    else
      own += last, seed = std::max(seed, all - last);
    result.critical_path_tokens =
        std::max(result.critical_path_tokens, origin_value(info, "critical_path_tokens", graft::index_t{0}));
    result.names.push_back(folder_name(branch.folder));
    result.text += ' ' + branch.name + '=' + origin_value(info, "signature", std::string("unknown"));
  }
  result.train_tokens = seed + own;
  return result;
}

nlohmann::json mix_origin(const graft::recipe& how, const std::vector<graft::branch_directory>& branches,
                          const graft::directory_mix_options& options) {
  std::ostringstream text;
  text.precision(17);
  text << how.name << " seed=" << options.mix.seed;
  if (how.rule_for(graft::role::ffn) == graft::merge_rule::one_per_branch)
    text << " experts_per_token=" << options.experts_per_token << " router=" << options.plan.router.name
         << options.plan.router.options.dump() << " layout=" << options.plan.layout.name
         << options.plan.layout.options.dump();
  if (options.plan.attention)
    text << " attention=" << options.plan.attention->name << options.plan.attention->options.dump();
  if (options.experts) text << " experts=" << options.experts.name;
  if (options.first_dense > 0 || options.moe_period > 1)
    text << " first_dense=" << options.first_dense << " moe_period=" << options.moe_period;
  for (const double weight : options.mix.weights) text << " weight=" << weight;
  const parents_origin parents = origin_of_parents(branches);
  return {{"method", how.name},
          {"parents", parents.names},
          {"train_tokens", parents.train_tokens},
          {"critical_path_tokens", parents.critical_path_tokens},
          {"mix_seed", options.mix.seed},
          {"signature", fingerprint(text.str() + parents.text)}};
}

graft::mixture_plan plan_of(const mixture_names& names) {
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
          [names](const graft::transformer_shape& shape) { return facts_of(names, shape).layout; }, card.attention};
}

void mix_once(const graft::recipe& how, const std::vector<graft::branch_directory>& branches,
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
