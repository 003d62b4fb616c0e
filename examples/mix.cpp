// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// mix: several branches into one model, by a recipe. Trains nothing: `branch` trains the result further.
//
//   build/bin/mix --recipe btx --out models/btx seed=models/seed code=models/code math=models/math
//   build/bin/mix --recipe bam --out models/bam seed=models/seed code=models/code math=models/math
//   build/bin/mix --recipe upcycle --experts clones=8+drop=0.5 --out models/upcycled seed=models/seed

#include <graft/io/attention_card.hpp>
#include <graft/mix/model_directories.hpp>

#include "common/mixture_flags.hpp"
#include "common/options.hpp"
#include "common/origin.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Mixes model directories into one", "mix");
  std::string recipe = "btx";
  fs::path out;
  std::vector<std::string> texts;
  graft::directory_mix_options options;
  app.add_option("--recipe", recipe,
                 "btx: a mixture with one expert per model; bam: the same with their attentions as experts too (the "
                 "paper's has "
                 "--router soft, all experts per token and --balancer none); soup: the mean of all; upcycle: a mixture "
                 "of copies "
                 "of one")
      ->capture_default_str()
      ->check(CLI::IsMember({"btx", "bam", "soup", "upcycle"}));
  app.add_option("--out", out, "model directory to write")->required();
  app.add_option("--weights", options.mix.weights, "W,W,... one per model, for what is averaged; default: equal")
      ->delimiter(',')
      ->allow_extra_args(false);
  const auto* const per_token =
      app.add_option("--experts-per-token", options.experts_per_token, "of a mixture")->capture_default_str();
  std::string experts;
  app.add_option("--experts", experts, std::string(experts_help) + " [whole; clones=8 of upcycle]");
  app.add_option("--moe-period", options.moe_period, "every so many-th block has experts, the others stay dense")
      ->check(at_least(1))
      ->capture_default_str();
  app.add_option("--first-dense", options.first_dense, "so many blocks at the bottom stay dense")
      ->check(at_least(0))
      ->capture_default_str();
  mixture_choice mixture;
  add_mixture_flags(app, mixture);
  graft::attention_experts attention;
  app.add_flag("--shared-kv", attention.shared_kv, "of bam: one pair of keys and values for all attentions");
  app.add_flag("--attention-adapters", attention.adapters, "of bam: a square matrix behind each attention");
  app.add_option("--seed", options.mix.seed, "of the new routers")->capture_default_str();
  app.add_option("models", texts, "NAME=DIRECTORY of each branch; NAME becomes its expert's name")->required();

  return run_program(app, argc, argv, [&] {
    std::vector<graft::branch_directory> branches;
    for (const std::string& text : texts) {
      const graft::domain_source named = parse_domain(text, "models");
      branches.push_back({named.path, named.name, domain_of_model(named.path)});
    }
    const graft::recipe& how = recipe == "btx"    ? graft::btx_recipe
                               : recipe == "bam"  ? graft::bam_recipe
                               : recipe == "soup" ? graft::soup_recipe
                                                  : graft::upcycle_recipe;
    GRAFT_CHECK(recipe != "upcycle" || branches.size() == 1, "--recipe upcycle: expected one model, got ",
                branches.size());
    GRAFT_CHECK(recipe == "bam" || (!attention.shared_kv && !attention.adapters),
                "--shared-kv and --attention-adapters: expected --recipe bam, got ", recipe);
    if (recipe == "soup") {
      refuse_mixture_choice(mixture, "a soup");
      GRAFT_CHECK(experts.empty() && per_token->count() == 0,
                  "--experts and --experts-per-token: expected a mixture, got a soup");
    }
    if (experts.empty()) experts = recipe == "upcycle" ? "clones=8" : "whole";
    if (recipe != "soup") {
      std::vector<graft::expert_card> cards;
      for (const graft::branch_directory& branch : branches) cards.push_back({branch.name, branch.domain});
      const graft::index_t hidden = graft::load_model_info(branches.front().folder).config.shape.hidden;
      const auto count = static_cast<index_t>(planned_experts(experts, cards, hidden).size());
      options.experts = graft::parse_expert_planner(experts);
      mixture_names names = names_of(nullptr, mixture, count, options.experts_per_token);
      if (recipe == "bam") {
        attention.experts = static_cast<index_t>(branches.size());
        names.attention = graft::card_of(attention);
      }
      options.plan = plan_of(names);
    }
    mix_once(how, branches, out, options);
    std::cout << out.string() << ": " << recipe << " of " << branches.size() << " models" << std::endl;
    return 0;
  });
}
