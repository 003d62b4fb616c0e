// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// cost_sheet: parameters, FLOPs of a token and bytes of models and of methods over them, from config.json (and
// graft.json beside graft's own) alone.
//
//   build/bin/cost_sheet models/*/config.json
//   build/bin/cost_sheet --method btx --method bts seed/config.json code/config.json math/config.json
//   build/bin/cost_sheet --method all --models 4 seed/config.json

#include <algorithm>

#include <graft/analysis/cost_sheet.hpp>

#include "common/options.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Says what models cost before anything is allocated", "cost_sheet");
  std::vector<fs::path> files;
  std::vector<std::string> methods;
  graft::cost_options options;
  bool as_json = false;
  std::vector<std::string> known = graft::cost_method_names();
  std::string list;
  for (const std::string& name : known) list += name + ", ";
  known.emplace_back("all");
  app.add_option("configs", files, "config.json files, or folders that hold one; with --method the seed first")
      ->required();
  CLI::IsMember one_of(known);
  one_of.description("");  // the text has the names
  // As branch_train_mix spells them, too.
  const auto spelled = [](std::string name) {
    std::replace(name.begin(), name.end(), '_', '-');
    return name == "expert-routing" ? std::string("routing") : name;
  };
  auto* const method =
      add_repeatable(app, "--method", methods, "a method over the models: " + list + "or all; repeatable")
          ->transform(spelled)
          ->check(one_of);
  auto* const models =
      app.add_option("--models", options.models, "that one config stands for, the seed and its branches")
          ->check(at_least(1))
          ->capture_default_str();
  app.add_option("--experts-per-token", options.experts_per_token, "of a method's mixture, 0: the method's own")
      ->needs(method)
      ->check(at_least(0))
      ->capture_default_str();
  app.add_option("--stitches", options.stitches, "stitch layers of bts; 0: 4, or one for each of fewer blocks")
      ->needs(method)
      ->check(at_least(0))
      ->capture_default_str();
  app.add_option("--topology", options.topology, "of the stitches of bts")
      ->needs(method)
      ->check(CLI::IsMember(graft::any_topology::names()))
      ->capture_default_str();
  app.add_option("--rank", options.rank, "of the experts of lora and adapters")
      ->needs(method)
      ->check(at_least(1))
      ->capture_default_str();
  app.add_option("--sequences", options.sequences, "of a pass")->check(at_least(1))->capture_default_str();
  app.add_option("--positions", options.positions, "of a sequence; 0: 4096, or what the models take if that is less")
      ->check(at_least(0))
      ->capture_default_str();
  app.add_option("--precision", options.precision, "bf16 or fp32")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
  app.add_flag("--json", as_json, "exact numbers as JSON instead of the table");

  return run_program(app, argc, argv, [&] {
    GRAFT_CHECK(models->count() == 0 || (files.size() == 1 && !methods.empty()),
                "--models: expected one config and a --method, got ", files.size(), " configs and ", methods.size(),
                " methods");
    std::vector<graft::counted_model> read;
    for (const fs::path& file : files) read.push_back(graft::read_counted_model(file));
    std::vector<std::string> wanted;
    for (const std::string& method : methods)
      for (const std::string& name : method == "all" ? graft::cost_method_names() : std::vector{method})
        wanted.push_back(name);
    const graft::cost_sheet sheet =
        wanted.empty() ? graft::sheet_of_models(read, options) : graft::sheet_of_methods(read, wanted, options);
    std::cout << (as_json ? sheet.to_json().dump(2) + "\n" : sheet.to_text());
    return 0;
  });
}
