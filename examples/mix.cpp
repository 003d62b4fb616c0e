// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// mix: several branches into one model, by a recipe. Trains nothing: `branch` trains the result further.
//
//   build/bin/mix --recipe btx --out models/btx seed=models/seed code=models/code math=models/math

#include <graft/mix/model_directories.hpp>

#include "common/options.hpp"
#include "common/origin.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Mixes model directories into one", "mix");
  std::string recipe = "btx";
  fs::path out;
  std::vector<std::string> texts;
  graft::directory_mix_options options;
  app.add_option("--recipe", recipe, "btx: a mixture with one expert per model; soup: the mean of all")
      ->capture_default_str()
      ->check(CLI::IsMember({"btx", "soup"}));
  app.add_option("--out", out, "model directory to write")->required();
  app.add_option("--weights", options.mix.weights, "W,W,... one per model, for what is averaged; default: equal")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--experts-per-token", options.experts_per_token, "of a mixture")->capture_default_str();
  app.add_option("--seed", options.mix.seed, "of the new routers")->capture_default_str();
  app.add_option("models", texts, "NAME=DIRECTORY of each branch; NAME becomes its expert's name")->required();

  return run_program(app, argc, argv, [&] {
    std::vector<graft::branch_directory> branches;
    for (const std::string& text : texts) {
      const graft::domain_source named = parse_domain(text, "models");
      branches.push_back({named.path, named.name, domain_of_model(named.path)});
    }
    const graft::recipe& how = recipe == "btx" ? graft::btx_recipe : graft::soup_recipe;
    mix_once(how, branches, out, options);
    std::cout << out.string() << ": " << recipe << " of " << branches.size() << " models" << std::endl;
    return 0;
  });
}
