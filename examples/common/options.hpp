// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Options that all programs share, and the frame around main: an error is one sentence on stderr and exit status 1.

#include <cstdint>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <graft/io/domain.hpp>

#include "common/engine.hpp"

namespace examples {

struct common_options {
  engine_options engine{};
  std::uint64_t seed = 0;
};

inline void add_common_options(CLI::App& app, common_options& options) {
  app.add_option("--device", options.engine.device, "auto, cpu or cuda")->capture_default_str();
  app.add_option("--precision", options.engine.precision, "bf16 or fp32")->capture_default_str();
  app.add_option("--threads", options.engine.threads, "CPU threads, 0: all")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--seed", options.seed, "of initial weights, data order and sampling")->capture_default_str();
}

// NAME=PATH
inline graft::domain_source parse_domain(const std::string& text) {
  const auto equals = text.find('=');
  GRAFT_CHECK(equals != std::string::npos && equals > 0 && equals + 1 < text.size(), "--domain: expected NAME=PATH, got ", text);
  return {text.substr(0, equals), text.substr(equals + 1)};
}

// Runs a program's body. Usage errors are CLI11's.
template <class Body>
int run_program(CLI::App& app, int argc, char** argv, Body body) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? 0 : 1;
  }
  try {
    return body();
  } catch (const std::exception& problem) {
    std::cerr << app.get_name() << ": " << problem.what() << std::endl;
    return 1;
  }
}

}  // namespace examples
