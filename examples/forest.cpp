// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// forest: whole models, and the mixture of their probabilities by a posterior (Branch-Train-Merge); or with --routing a
// router that chooses one of them for a whole text. The members stay where they are, the result names their folders.
//
//   build/bin/forest --out models/btm seed=models/seed code=models/code math=models/math
//   build/bin/forest --out models/btm-code --prior cached --domain code=~/src seed=models/seed code=models/code
//   build/bin/forest --out models/routed --routing --domain code=~/src --domain math=~/math
//                    seed=models/seed code=models/code math=models/math

#include "common/assembling.hpp"
#include "common/data.hpp"
#include "common/options.hpp"
#include "common/progress.hpp"
#include "common/training_flags.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Lets whole models answer together", "forest");
  common_options common;
  training_job job;
  std::vector<std::string> texts, domains;
  std::string posterior = graft::prefix_posterior::name, prior = "uniform";
  forest_policy policy;
  bool routing = false;
  index_t max_bytes = 0;
  job.training = {.steps = 200, .learning_rate = 5e-3, .warmup_steps = 0, .decay = graft::decay_form::constant};
  app.add_option("models", texts, "NAME=DIRECTORY of each model, the seed first")->required();
  app.add_option("--out", job.out, "folder to write")->required();
  auto* const weighed =
      app.add_option("--posterior", posterior, "how the models are weighed: prefix, last_token or fixed")
          ->capture_default_str()
          ->check(CLI::IsMember(std::vector<std::string>(std::begin(posterior_names), std::end(posterior_names))));
  auto* const kept =
      app.add_option("--kept", policy.posterior.kept, "models of the largest weight at each token, 0: all")
          ->capture_default_str()
          ->check(at_least(0));
  auto* const temperature =
      app.add_option("--temperature", policy.posterior.temperature, "of the log-likelihoods")->capture_default_str();
  auto* const before = app.add_option("--prior", prior, "uniform, or cached: from held-out text of --domain")
                           ->capture_default_str()
                           ->check(CLI::IsMember({"uniform", "cached"}));
  app.add_flag("--routing", routing, "trains a router on --domain that chooses one model for a text")
      ->excludes(weighed)
      ->excludes(kept)
      ->excludes(temperature)
      ->excludes(before);
  add_repeatable(app, "--domain", domains, "NAME=PATH of text or token files, repeatable");
  app.add_option("--max-bytes", max_bytes, "of text to take from a domain, 0: all")->capture_default_str();
  app.add_option("--checkpoint-seconds", job.checkpoint_seconds, "between checkpoints")->capture_default_str();
  add_common_options(app, common);
  add_training_flags(app, job.training);

  return run_program(app, argc, argv, [&] {
    std::vector<graft::branch_directory> members;
    for (const std::string& text : texts) {
      const graft::domain_source named = parse_domain(text, "models");
      members.push_back({named.path, named.name, domain_of_model(named.path)});
    }
    GRAFT_CHECK(!domains.empty() || (!routing && prior == "uniform"), routing ? "--routing" : "--prior cached",
                ": expected --domain NAME=PATH, got none");
    GRAFT_CHECK(domains.empty() || routing || prior == "cached",
                "--domain: expected --routing or --prior cached, which take text");
    const auto engine = make_engine(common.engine);
    std::vector<graft::corpus> prepared;
    const auto prepare = [&](const graft::assembly_card& card) {
      GRAFT_CHECK(card.tokenizer.kind == "byte", "expected models of the byte tokenizer, got some of the tokenizer ",
                  card.tokenizer.kind);
      prepared =
          prepare_domains(domains_from(domains), job.out / "data", max_bytes, routing ? job.training.positions : 0);
    };
    if (routing) {
      job.assembly =
          assembly_of("expert_routing", "expert_routing", card_of(routing_options(job.training.positions)), members);
      prepare(*job.assembly);
      job.data = training_data(prepared);
      job.label = folder_name(job.out);
      job.method = "expert_routing";
      job.seed = common.seed;
      progress_bar bar(job.label, job.training.steps);
      engine->train(job, std::ref(bar));
      std::cout << job.out.string() << ": a router for " << members.size() << " models" << std::endl;
      return 0;
    }
    policy.posterior.which = static_cast<any_posterior::form>(
        std::find(std::begin(posterior_names), std::end(posterior_names), posterior) - std::begin(posterior_names));
    graft::assembly_card card = assembly_of("forest", "btm", card_of(policy), members);
    forest_policy_of(card.policy, members.size(), job.out.string());  // before text is read
    if (prior == "cached") {
      prepare(card);
      GRAFT_CHECK(prepared.size() == 1, "--prior cached: expected one --domain, got ", prepared.size());
      policy.prior = engine->prior(card, prepared.front().held_out.path, positions_of(members.front().folder));
      card = assembly_of("forest", "btm", card_of(policy), members);
    }
    assemble_once(card, job.out);
    std::cout << job.out.string() << ": a forest of " << members.size() << " models";
    for (std::size_t i = 0; i < policy.prior.size(); ++i)
      std::cout << (i == 0 ? ", prior " : ", ") << members[i].name << ' ' << policy.prior[i];
    std::cout << std::endl;
    return 0;
  });
}
