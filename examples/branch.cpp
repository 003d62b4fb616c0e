// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// branch: a copy of a seed, trained alone on its own domain. Also trains any model further, mixtures and stitched
// models included.
//
//   build/bin/branch --from models/seed --out models/code --domain code=~/src --steps 300

#include "common/data.hpp"
#include "common/folder.hpp"
#include "common/mixture_flags.hpp"
#include "common/options.hpp"
#include "common/progress.hpp"
#include "common/training_flags.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Trains a copy of a model on a domain of its own", "branch");
  common_options common;
  training_job job;
  std::vector<std::string> domains, token_files;
  fs::path from;
  index_t max_bytes = 0;
  job.training = {.steps = 300, .learning_rate = 2e-3, .warmup_steps = 20};
  job.method = "expert";
  app.add_option("--from", from, "model to start from")->required();
  app.add_option("--out", job.out, "model directory to write")->required();
  add_repeatable(app, "--domain", domains, "NAME=PATH of text or token files, repeatable");
  add_repeatable(app, "--tokens", token_files,
                 "NAME=FILE of tokens that are taken whole, nothing held out, repeatable");
  add_trained_flag(app, "--trained", job.trained, "what of the model is trained");
  app.add_option("--method", job.method, "what graft.json calls the result")->capture_default_str();
  app.add_option("--label", job.label, "name in the progress bar");
  app.add_option("--max-bytes", max_bytes, "of text to take from a domain, 0: all")->capture_default_str();
  app.add_option("--checkpoint-seconds", job.checkpoint_seconds, "between checkpoints")->capture_default_str();
  add_common_options(app, common);
  add_training_flags(app, job.training);
  add_mixture_flags(app, job.mixture);

  return run_program(app, argc, argv, [&](rank_world& ranks) {
    const auto engine = make_engine(common.engine);
    if (graft::is_assembly(from))
      refuse_mixture_choice(job.mixture, "the assembly " + from.string());
    else if (graft::load_model_info(from).config.shape.experts == 0)
      refuse_mixture_choice(job.mixture, "the dense model " + from.string());
    GRAFT_CHECK(!domains.empty() || !token_files.empty(),
                "expected --domain NAME=PATH or --tokens NAME=FILE, got neither");
    if (!domains.empty()) {
      const std::string tokenizer = tokenizer_of(from).kind;
      GRAFT_CHECK(tokenizer == "byte", from.string(),
                  ": expected a model of the byte tokenizer, got one of the tokenizer ", tokenizer,
                  "; its own tokens can be given with --tokens");
      job.data = training_data(ranks.in_turn(
          [&] { return prepare_domains(domains_from(domains), job.out / "data", max_bytes, job.training.positions); }));
    }
    for (const std::string& text : token_files) {
      const graft::domain_source named = parse_domain(text, "--tokens");
      job.data.push_back({named.name, named.path, 1.0});
    }
    if (job.label.empty()) job.label = folder_name(job.out);
    job.start = from;
    job.seed = common.seed;
    progress_bar bar(job.label, job.training.steps);
    engine->train(job, std::ref(bar));
    std::cout << job.out.string() << ": trained on " << job.training.steps * job.training.tokens_per_step() << " tokens"
              << std::endl;
    return 0;
  });
}
