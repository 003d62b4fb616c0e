// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Metrics of a run as JSON lines, one object per step. A resumed run first drops the lines of steps that it will
// repeat, so that the file of a killed run ends as that of an undisturbed one.

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <sstream>
#include <string>

#include <graft/core/error.hpp>
#include <graft/io/atomic_file.hpp>
#include <graft/train/trainer.hpp>

namespace graft {

class metrics_log {
 public:
  // Continues `path` at `next_step`: keeps the complete lines of earlier steps. Errors: what the disk says.
  metrics_log(const std::filesystem::path& path, index_t next_step) : path_(path.string()) {
    std::string kept;
    std::ifstream old(path);
    for (std::string line; std::getline(old, line) && !old.eof();)
      if (step_of(line) >= 0 && step_of(line) < next_step) kept += line + "\n";
    old.close();
    write_file(path, kept);
    out_.open(path, std::ios::app);
    GRAFT_CHECK(out_.is_open(), path_, ": cannot be opened for writing");
  }

  void write(const step_report& report) {
    std::ostringstream line;
    line << std::setprecision(9) << "{\"step\": " << report.step << ", \"loss\": " << report.loss
         << ", \"auxiliary\": " << report.auxiliary << ", \"gradient_norm\": " << report.gradient_norm
         << ", \"learning_rate\": " << report.learning_rate << ", \"tokens\": " << report.tokens
         << ", \"seconds\": " << report.seconds;
    const bool routed = std::any_of(report.load.begin(), report.load.end(),
                                    [](const layer_load& load) { return !load.counts.empty(); });
    if (routed) write_load(line, report.load);
    out_ << line.str() << "}\n" << std::flush;
    GRAFT_CHECK(out_.good(), path_, ": writing failed: is the disk full");
  }

 private:
  // An entry for each block with experts.
  static void write_load(std::ostringstream& line, const std::vector<layer_load>& blocks) {
    const auto list = [&](const char* key, const auto& value_of) {
      line << ", \"" << key << "\": [";
      bool first = true;
      for (const layer_load& load : blocks) {
        if (load.counts.empty()) continue;
        line << (first ? "" : ", ");
        value_of(load);
        first = false;
      }
      line << "]";
    };
    list("load", [&](const layer_load& load) {
      line << "[";
      for (std::size_t i = 0; i < load.counts.size(); ++i) line << (i > 0 ? ", " : "") << load.counts[i];
      line << "]";
    });
    list("max_violation", [&](const layer_load& load) { line << load.max_violation(); });
    list("entropy", [&](const layer_load& load) { line << load.mean_entropy(); });
    list("empty_slots", [&](const layer_load& load) { line << load.empty_slots; });
    list("dropped_slots", [&](const layer_load& load) { line << load.dropped_slots; });
  }

  // The number after "step": of a line, -1 when there is none.
  static index_t step_of(const std::string& line) {
    const std::string head = "{\"step\": ";
    if (!line.starts_with(head) || !line.ends_with("}")) return -1;
    index_t step = -1;
    std::from_chars(line.data() + head.size(), line.data() + line.size(), step);
    return step;
  }

  std::string path_;
  std::ofstream out_;
};

}  // namespace graft
