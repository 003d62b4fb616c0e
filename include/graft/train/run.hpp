// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A training run that survives being killed: resumes from its checkpoint, writes checkpoints and metrics, ends where an
// undisturbed run would have ended.

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>

#include <graft/train/checkpoint.hpp>
#include <graft/train/metrics_log.hpp>
#include <graft/train/trainer.hpp>

namespace graft {

struct run_options {
  std::filesystem::path folder;    // checkpoint.safetensors and metrics.jsonl; empty: neither
  double checkpoint_seconds = 30;  // between checkpoints; 0: after every step
};

struct run_result {
  index_t steps = 0;       // of this process
  double seconds = 0;      // spent in them
  index_t resumed_at = 0;  // 0: from the start
};

// Trains to the end. observe(report) is called after every step. The data source has fill() and description().
template <class Model, class Source>
run_result run_training(trainer<Model>& run, Source& source, const run_options& options,
                        const std::function<void(const step_report&)>& observe = {}) {
  namespace fs = std::filesystem;
  run_result result;
  const fs::path checkpoint = options.folder / "checkpoint.safetensors";
  std::optional<metrics_log> log;
  if (!options.folder.empty()) {
    fs::create_directories(options.folder);
    if (fs::exists(checkpoint)) {
      load_checkpoint(run, checkpoint, source.description());
      result.resumed_at = run.next_step();
    }
    log.emplace(options.folder / "metrics.jsonl", run.next_step());
  }
  auto last = std::chrono::steady_clock::now();
  while (!run.finished()) {
    const step_report report = run.step(source);
    ++result.steps;
    result.seconds += report.seconds;
    if (log) log->write(report);
    if (observe) observe(report);
    const auto now = std::chrono::steady_clock::now();
    if (log && !run.finished() && std::chrono::duration<double>(now - last).count() >= options.checkpoint_seconds) {
      save_checkpoint(run, checkpoint, source.description());
      last = std::chrono::steady_clock::now();
    }
  }
  return result;
}

}  // namespace graft
