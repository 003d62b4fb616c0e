// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// generate: continues a prompt.
//
//   build/bin/generate --model runs/quick/models/btx --prompt 'The function returns' --tokens 200

#include <utility>

#include "common/options.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Continues a prompt", "generate");
  common_options common;
  graft::generation_options options;
  fs::path model;
  std::string prompt;
  app.add_option("--model", model, "folder of a model or an assembly of models")->required();
  app.add_option("--prompt", prompt, "text to continue; default: the start of a new text");
  app.add_option("--tokens", options.tokens, "to add")->capture_default_str()->check(at_least(0));
  app.add_option("--temperature", options.temperature, "0: always the most likely token")
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--top-k", options.top_k, "only among the most likely so many, 0: all")
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--top-p", options.top_p, "only among the most likely of this probability")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  add_common_options(app, common);

  return run_program(app, argc, argv, [&] {
    options.seed = common.seed;
    const auto engine = make_engine(common.engine);
    // The prompt is shown with the first piece: a model that cannot be loaded leaves stdout empty.
    std::string before = prompt;
    const auto show = [&](const std::string& piece) { std::cout << std::exchange(before, {}) << piece << std::flush; };
    engine->generate(model, prompt, options, show);
    show("\n");
    return 0;
  });
}
