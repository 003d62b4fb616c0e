// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What branch_train_mix leaves beside its models: the table, plots, samples and the report.

#include <algorithm>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/io/corpus.hpp>

#include "common/characters.hpp"
#include "common/data.hpp"
#include "common/evaluations.hpp"
#include "common/plots.hpp"
#include "common/presets.hpp"
#include "common/report.hpp"
#include "common/results.hpp"
#include "common/row.hpp"
#include "common/traces.hpp"

namespace examples {

// A run whose models are there.
struct finished_run {
  examples::engine& engine;
  fs::path out;
  std::string preset_name;
  preset sizes;
  std::uint64_t seed = 0;
  std::vector<graft::corpus> domains;
  std::optional<graft::corpus> cross;
  std::vector<std::string> experts, members;  // names
};

class run_results {
 public:
  explicit run_results(finished_run run) : run_(std::move(run)) {}

  // A row for each model; those that fail are named with the reason.
  result_table evaluate(const std::vector<std::string>& names,
                        std::vector<std::pair<std::string, std::string>>& failed) {
    std::cerr << "evaluation:" << std::flush;
    result_table table;
    for (const graft::corpus& domain : run_.domains) table.domains.push_back(domain.name);
    evaluation_job job{{}, held_out_data(run_.domains), run_.sizes.shape.positions, run_.sizes.eval_tokens};
    if (run_.cross) {
      table.cross = run_.cross->name;
      job.domains.push_back({run_.cross->name, run_.cross->held_out.path});
    }
    table.seed = run_.seed;
    table.device = run_.engine.device();
    table.precision = run_.engine.precision();
    for (const std::string& name : names) {
      std::cerr << ' ' << name << std::flush;
      try {
        job.model = model(name);
        const evaluation_result result = evaluate_once(run_.engine, job, run_.out / "evaluations" / (name + ".json"));
        result_row row = make_row(model(name), result.domains);
        row.domains = run_.domains.size();
        row.timed = true;
        if (row.peak_bytes == 0) row.peak_bytes = result.peak_bytes;
        table.rows.push_back(std::move(row));
      } catch (const std::exception& problem) {
        failed.emplace_back(name, problem.what());
      }
    }
    std::cerr << std::endl;
    return table;
  }

  std::vector<loss_curve> curves(const std::vector<std::string>& trained) const {
    std::vector<loss_curve> curves;
    for (const std::string& name : trained) {
      const fs::path folder = model(name);
      if (!holds_model(folder)) continue;
      const nlohmann::json origin = origin_of(folder);
      const auto tokens = [&](const char* key) {
        return static_cast<double>(origin_value(origin, folder, key, index_t{0}));
      };
      // expert-routing's loss is that of its router, in another unit.
      if (tokens("last_train_tokens") > 0 && origin.value("method", "") != "expert_routing")
        curves.push_back({name, folder / "training" / "metrics.jsonl",
                          tokens("critical_path_tokens") - tokens("last_train_tokens")});
    }
    return curves;
  }

  void draw(const result_table& table, const std::vector<std::string>& trained) const {
    plot_losses(run_.out / "plots", curves(trained));
    for (const result_row& row : table.rows)
      if (row.name == "btx") {
        std::vector<graft::evaluation> own(row.evaluations.begin(),
                                           row.evaluations.begin() + static_cast<std::ptrdiff_t>(row.own_domains()));
        plot_routing(run_.out / "plots", table.domains, run_.experts, own);
      }
  }

  void report(const result_table& table, const result_table& ablation, const std::vector<std::string>& trained) {
    report_input input{run_.preset_name,
                       table,
                       ablation,
                       curves(trained),
                       held_out_data(run_.domains),
                       run_.sizes.shape.positions,
                       run_.out / "models",
                       run_.experts,
                       run_.members};
    write_run_report(run_.engine, input, run_.out / "report.html");
  }

  // Continuations of an excerpt of held-out text, one per domain, by every model that was made of several; those of one
  // of them are shown.
  void sample(const result_table& table) {
    std::vector<std::string> makers;
    for (const result_row& row : table.rows) {
      const bool plain = row.method == "seed" || row.method == "expert" || row.method == "dense";
      if (!plain && !row.name.ends_with("-untrained")) makers.push_back(row.name);
    }
    if (makers.empty()) makers.emplace_back("seed");
    const auto shown = [&](const std::string& name) { return name == "btx" ? 0 : name == "bts" ? 1 : 2; };
    std::stable_sort(makers.begin(), makers.end(),
                     [&](const std::string& a, const std::string& b) { return shown(a) < shown(b); });
    std::ostringstream text;
    for (const std::string& name : makers) {
      const std::string own = samples_of(name);
      if (name == makers.front())
        std::cout << name << " continues held-out text after >>>\n" << own << std::endl;
      else
        text << "\n";
      text << "=== " << name << "\n" << own;
    }
    graft::write_file(run_.out / "samples.txt", text.str());
  }

 private:
  fs::path model(const std::string& name) const { return run_.out / "models" / name; }

  std::string samples_of(const std::string& name) {
    std::ostringstream text;
    for (const held_out_domain& domain : held_out_data(run_.domains)) {
      std::vector<std::int32_t> tokens = excerpts({domain}, std::min<index_t>(96, run_.sizes.shape.positions / 2)).ids;
      tokens.erase(std::find(tokens.begin(), tokens.end(), graft::byte_tokenizer::end_of_text()), tokens.end());
      const std::string prompt = character_stream().take(graft::byte_tokenizer::decode(tokens));
      graft::generation_options generation;
      generation.tokens = run_.sizes.sample_tokens;
      generation.temperature = 0.7;
      generation.seed = run_.seed;
      text << "--- " << domain.name << ": " << prompt << " >>> ";
      try {
        text << run_.engine.generate(model(name), prompt, generation, {});
      } catch (const graft::error& problem) {  // a router that looks at later tokens
        text << "(none: " << problem.what() << ")";
      }
      text << "\n";
    }
    return text.str();
  }

  finished_run run_;
};

}  // namespace examples
