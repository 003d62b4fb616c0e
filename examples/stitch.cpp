// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// stitch: a seed and its experts, frozen side by side, with stitch layers between them that are trained. The members
// stay where they are, the result names their folders. `branch` trains the stitches further.
//
//   build/bin/stitch --out models/bts --domain code=~/src --domain math=~/math
//                    seed=models/seed code=models/code math=models/math

#include "common/assembling.hpp"
#include "common/data.hpp"
#include "common/options.hpp"
#include "common/progress.hpp"
#include "common/stitch_flags.hpp"
#include "common/training_flags.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Stitches frozen models together", "stitch");
  common_options common;
  training_job job;
  stitch_choice choice;
  std::vector<std::string> texts, domains, token_files;
  index_t max_bytes = 0;
  job.training = {.steps = 200, .learning_rate = 3e-3, .warmup_steps = 20};
  app.add_option("models", texts, "NAME=DIRECTORY of each model, the seed first")->required();
  app.add_option("--out", job.out, "folder to write")->required();
  add_stitch_flags(app, choice);
  add_repeatable(app, "--domain", domains, "NAME=PATH of text or token files, repeatable");
  add_repeatable(app, "--tokens", token_files,
                 "NAME=FILE of tokens that are taken whole, nothing held out, repeatable");
  app.add_option("--max-bytes", max_bytes, "of text to take from a domain, 0: all")->capture_default_str();
  app.add_option("--checkpoint-seconds", job.checkpoint_seconds, "between checkpoints")->capture_default_str();
  add_common_options(app, common);
  add_training_flags(app, job.training);

  return run_program(app, argc, argv, [&](rank_world& ranks) {
    const auto engine = make_engine(common.engine);
    std::vector<graft::branch_directory> members;
    for (const std::string& text : texts) {
      const graft::domain_source named = parse_domain(text, "models");
      members.push_back({named.path, named.name, domain_of_model(named.path)});
    }
    const index_t blocks = graft::load_model_info(members.front().folder).config.shape.blocks;
    job.assembly =
        assembly_of("stitched", "bts", card_of(stitch_policy_of(choice, blocks, members.size())), members, choice.hub);
    GRAFT_CHECK(!domains.empty() || !token_files.empty(),
                "expected --domain NAME=PATH or --tokens NAME=FILE, got neither");
    if (!domains.empty()) {
      GRAFT_CHECK(job.assembly->tokenizer.kind == "byte",
                  "expected models of the byte tokenizer, got some of the tokenizer ", job.assembly->tokenizer.kind,
                  "; their own tokens can be given with --tokens");
      job.data = training_data(ranks.in_turn(
          [&] { return prepare_domains(domains_from(domains), job.out / "data", max_bytes, job.training.positions); }));
    }
    for (const std::string& text : token_files) {
      const graft::domain_source named = parse_domain(text, "--tokens");
      job.data.push_back({named.name, named.path, 1.0});
    }
    job.label = folder_name(job.out);
    job.method = "bts";
    job.seed = common.seed;
    progress_bar bar(job.label, job.training.steps);
    engine->train(job, std::ref(bar));
    std::cout << job.out.string() << ": stitches of " << members.size() << " models, trained on "
              << job.training.steps * job.training.tokens_per_step() << " tokens" << std::endl;
    return 0;
  });
}
