// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Options that all programs share, and the frame around main: an error is one sentence on stderr and exit status 1.

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include <CLI/CLI.hpp>

#include <graft/io/domain.hpp>

#include "common/engine.hpp"
#include "common/ranks.hpp"
#include "common/validators.hpp"

namespace examples {

struct common_options {
  engine_options engine{};
  std::uint64_t seed = 0;
};

inline void add_common_options(CLI::App& app, common_options& options) {
  app.add_option("--device", options.engine.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--precision", options.engine.precision, "bf16 or fp32")->capture_default_str();
  app.add_option("--threads", options.engine.threads, "CPU threads, 0: all")->check(at_least(0))->capture_default_str();
  app.add_option("--seed", options.seed, "of initial weights, data order and sampling")->capture_default_str();
}

// An option that may be given several times, with one value each time: what follows the value is not taken for a second
// one.
template <class Value>
CLI::Option* add_repeatable(CLI::App& app, const std::string& flag, std::vector<Value>& values,
                            const std::string& text) {
  return app.add_option(flag, values, text)->allow_extra_args(false);
}

// NAME=PATH; what: how a message calls it. Not every shell knows a ~ after the =, so it is the home folder here.
inline graft::domain_source parse_domain(const std::string& text, const std::string& what = "--domain") {
  const auto equals = text.find('=');
  GRAFT_CHECK(equals != std::string::npos && equals > 0 && equals + 1 < text.size(), what,
              ": expected NAME=PATH, got '", text, "'");
  std::string path = text.substr(equals + 1);
  const char* const home = std::getenv("HOME");
  if (home != nullptr && (path == "~" || path.starts_with("~/"))) path.replace(0, 1, home);
  return {text.substr(0, equals), path};
}

// The command as all ranks of a run must have it.
inline std::uint64_t command_hash(int argc, char** argv) {
  std::uint64_t hash = graft::fnv1a_start;
  for (int i = 1; i < argc; ++i) hash = graft::fnv1a("\n", graft::fnv1a(argv[i], hash));
  return hash;
}

// Runs a program's body. Usage errors are CLI11's. Results go to stdout; progress, notes and errors to stderr.
// A body that takes a rank_world& runs as every rank of a launch by torchrun, mpirun or srun; any other is one process.
template <class Body>
int run_program(CLI::App& app, int argc, char** argv, Body body) {
  app.failure_message([](const CLI::App* program, const CLI::Error& problem) {
    return program->get_name() + ": " + problem.what() + "; " + program->get_name() + " --help lists the options\n";
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? 0 : 1;
  }
  std::string name = app.get_name() + ": ";
  try {
    const graft::launch_ranks launch = graft::launch_ranks::from_environment();
    if constexpr (std::is_invocable_v<Body, rank_world&>) {
      if (launch.rank > 0) name += "rank " + std::to_string(launch.rank) + ": ";
      rank_world ranks(launch, app.get_name(), command_hash(argc, argv));
      const int status = body(ranks);
      ranks.go_on_alone();
      return status;
    } else {
      GRAFT_CHECK(launch.size == 1, "expected one process, got ", launch.size, " ranks of ", launch.launcher,
                  "; this program does not train on several, start it alone or with GRAFT_LAUNCHER=none");
      return body();
    }
  } catch (const fs::filesystem_error& problem) {
    // Its words are "filesystem error: cannot create directories: No such file or directory [/proc/x]".
    const std::string words = problem.what();
    const auto begin = words.find(": "), end = words.find(": ", begin + 2);
    std::cerr << name << problem.path1().string() << ": "
              << (end == std::string::npos ? std::string() : words.substr(begin + 2, end - begin))
              << problem.code().message() << std::endl;
    return 1;
  } catch (const std::bad_alloc&) {
    std::cerr << name << "not enough memory for a model or batch of this size" << std::endl;
    return 1;
  } catch (const std::exception& problem) {
    // Some messages name their place by the word that is the program's name: "mix: expected ...".
    const std::string text = problem.what();
    std::cerr << (text.starts_with(name) ? text : name + text) << std::endl;
    return 1;
  }
}

}  // namespace examples
