// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// evaluate: bits per byte of models and assemblies of models on the held-out text of domains.
//
//   build/bin/evaluate --data data --domain code=~/src models/seed models/btx

#include <algorithm>
#include <iostream>
#include <map>

#include "common/data.hpp"
#include "common/folder.hpp"
#include "common/options.hpp"
#include "common/results.hpp"
#include "common/row.hpp"

int main(int argc, char** argv) {
  using namespace examples;
  CLI::App app("Evaluates model directories on held-out text", "evaluate");
  common_options common;
  evaluation_job job;
  std::vector<fs::path> models;
  std::vector<std::string> domains;
  fs::path data = "data", json;
  index_t max_bytes = 0;
  app.add_option("models", models, "folders of models or assemblies of models")->required();
  add_repeatable(app, "--domain", domains, "NAME=PATH, repeatable; default: four domains of Debian packages");
  app.add_option("--data", data, "folder for prepared tokens")->capture_default_str();
  job.positions = 0;
  app.add_option("--positions", job.positions, "tokens of a window; default: 256, or what the shortest model takes");
  app.add_option("--max-tokens", job.max_tokens, "per domain, 0: all")->capture_default_str();
  app.add_option("--max-bytes", max_bytes, "of text to take from a domain, 0: all")->capture_default_str();
  app.add_option("--json", json, "file to write the table to");
  add_common_options(app, common);

  return run_program(app, argc, argv, [&] {
    const auto engine = make_engine(common.engine);
    index_t shortest = 256;
    std::map<std::string, int> named;  // models of one name are told apart by their paths
    for (const fs::path& folder : models) {
      shortest = std::min(shortest, positions_of(folder));
      ++named[folder_name(folder)];
    }
    if (job.positions == 0) job.positions = shortest;
    const auto prepared = prepare_domains(domains_from(domains), data, max_bytes, 0);
    job.domains = held_out_data(prepared);
    result_table table;
    for (const auto& domain : job.domains) table.domains.push_back(domain.name);
    table.seed = common.seed;
    table.device = engine->device();
    table.precision = engine->precision();
    for (const fs::path& folder : models) {
      job.model = folder;
      table.rows.push_back(make_row(folder, engine->evaluate(job).domains));
      if (named[table.rows.back().name] > 1) table.rows.back().name = folder.string();
    }
    std::cout << table.to_text();
    if (!json.empty()) graft::write_file(json, table.to_json().dump(2) + "\n");
    return 0;
  });
}
