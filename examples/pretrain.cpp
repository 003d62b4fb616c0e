// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// pretrain: a new dense model from text. The seed of all that follows.
//
//   build/bin/pretrain --out models/seed --domain prose=~/text --domain code=~/src --steps 600
//   torchrun --no-python --nproc-per-node 8 build/bin/pretrain --device cuda --out models/seed ...

#include "common/data.hpp"
#include "common/options.hpp"
#include "common/presets.hpp"
#include "common/progress.hpp"
#include "common/training_flags.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Trains a new dense model on text", "pretrain");
  common_options common;
  training_job job;
  std::vector<std::string> domains;
  job.shape = preset_named("quick").shape;
  job.training = {.steps = 600, .learning_rate = 2e-3, .warmup_steps = 50};
  app.add_option("--out", job.out, "model directory to write")->required();
  add_repeatable(app, "--domain", domains,
                 "NAME=PATH of text or token files, repeatable; default: four domains of Debian packages");
  add_common_options(app, common);
  add_training_flags(app, job.training);
  app.add_option("--checkpoint-seconds", job.checkpoint_seconds, "between checkpoints")->capture_default_str();
  app.add_option("--width", job.shape.width, "of the hidden states")->capture_default_str();
  app.add_option("--blocks", job.shape.blocks, "transformer blocks")->capture_default_str();
  app.add_option("--heads", job.shape.heads, "query heads")->capture_default_str();
  app.add_option("--kv-heads", job.shape.kv_heads, "key and value heads, a divisor of the heads")
      ->capture_default_str();
  app.add_option("--head-dim", job.shape.head_dim, "width of a head")->capture_default_str();
  app.add_option("--hidden", job.shape.hidden, "hidden width of a feed-forward layer")->capture_default_str();
  app.add_flag("--tied", job.shape.tied, "one matrix for embedding and head");
  app.add_flag("--qk-norm", job.shape.qk_norm, "RMSNorm on queries and keys");
  index_t max_bytes = 0;
  app.add_option("--max-bytes", max_bytes, "of text to take from a domain, 0: all")->capture_default_str();

  return run_program(app, argc, argv, [&](rank_world& ranks) {
    const auto engine = make_engine(common.engine);
    job.label = "pretrain";
    job.method = "seed";
    job.seed = common.seed;
    job.shape.positions = job.training.positions;
    graft::check_shape(job.shape);
    const auto prepared = ranks.in_turn(
        [&] { return prepare_domains(domains_from(domains), job.out / "data", max_bytes, job.training.positions); });
    job.data = training_data(prepared);
    progress_bar bar(job.label, job.training.steps);
    engine->train(job, std::ref(bar));
    std::cout << job.out.string() << ": trained on " << job.training.steps * job.training.tokens_per_step() << " tokens"
              << std::endl;
    return 0;
  });
}
