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

// Trains to the end. observe(report) is called after every step that reports: those whose number is a multiple of
// training_options::report_every, counted from 1, and the last. The data source has fill() and description().
// Ranks: all load the checkpoint, rank 0 alone writes to the folder.
template <class Model, class Communicator, class Source>
run_result run_training(trainer<Model, Communicator>& run, Source& source, const run_options& options,
                        const std::function<void(const step_report&)>& observe = {}) {
  namespace fs = std::filesystem;
  run_result result;
  const fs::path checkpoint = options.folder / "checkpoint.safetensors";
  const bool writes = !options.folder.empty() && run.communicator().rank() == 0;
  std::optional<metrics_log> log;
  if (!options.folder.empty()) {
    fs::create_directories(options.folder);
    if (fs::exists(checkpoint)) {
      load_checkpoint(run, checkpoint, source.description());
      result.resumed_at = run.next_step();
    }
    if (writes) log.emplace(options.folder / "metrics.jsonl", run.next_step());
  }
  auto last = std::chrono::steady_clock::now();
  while (!run.finished()) {
    run.advance(source);
    run.prepare(source);
    ++result.steps;
    if (run.finished() || run.next_step() % run.options().report_every == 0) {
      const step_report report = run.report();
      result.seconds += report.seconds * static_cast<double>(report.steps);
      if (log) log->write(report);
      if (observe) observe(report);
    }
    const auto now = std::chrono::steady_clock::now();
    if (writes && !run.finished() && std::chrono::duration<double>(now - last).count() >= options.checkpoint_seconds) {
      save_checkpoint(run, checkpoint, source.description());
      last = std::chrono::steady_clock::now();
    }
  }
  return result;
}

}  // namespace graft
