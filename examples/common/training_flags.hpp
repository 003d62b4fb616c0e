// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The options of a training run on a command line, in both directions: as flags of a program, and as the words that
// start another program with the same options.

#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <graft/mix/trainable.hpp>
#include <graft/train/trainer.hpp>

#include "common/engine.hpp"
#include "common/validators.hpp"

namespace examples {

inline void add_training_flags(CLI::App& app, graft::training_options& o) {
  const auto add = [&](const char* flag, auto& value, const char* text) {
    app.add_option(flag, value, text)->capture_default_str();
  };
  add("--steps", o.steps, "optimizer steps");
  add("--sequences", o.sequences, "sequences of a step");
  add("--positions", o.positions, "tokens of a sequence");
  add("--micro-sequences", o.micro_sequences, "sequences of one pass, 0: all of a step");
  add("--learning-rate", o.learning_rate, "at its peak");
  add("--warmup-steps", o.warmup_steps, "steps in which the learning rate rises to it");
  add_named_option(app, "--decay", o.decay, graft::all_decay_forms, "how the learning rate falls afterwards");
  add("--final-fraction", o.final_fraction, "of the peak, left at the last step");
  add("--weight-decay", o.optimizer.weight_decay, "decoupled, of matrices");
  add("--clip", o.optimizer.clip, "largest gradient norm, 0: none");
  add("--report-every", o.report_every, "steps between reports; the host waits for a GPU at each");
  app.add_flag_callback(
      "--no-graph", [&o] { o.record_graph = false; }, "queue every step anew instead of replaying a CUDA graph");
}

// What of a mixture is trained, by name.
inline void add_trained_flag(CLI::App& app, const char* flag, graft::mix_training& trained, const char* text) {
  add_named_option(app, flag, trained, graft::all_mix_trainings, text);
}

inline std::vector<std::string> training_words(const graft::training_options& o) {
  std::vector<std::string> words;
  const auto add = [&](const char* flag, const auto& value) {
    std::ostringstream text;
    text.precision(17);
    text << value;
    words.emplace_back(flag);
    words.push_back(text.str());
  };
  add("--steps", o.steps);
  add("--sequences", o.sequences);
  add("--positions", o.positions);
  add("--micro-sequences", o.micro_sequences);
  add("--learning-rate", o.learning_rate);
  add("--warmup-steps", o.warmup_steps);
  add("--decay", graft::name_of(o.decay));
  add("--final-fraction", o.final_fraction);
  add("--weight-decay", o.optimizer.weight_decay);
  add("--clip", o.optimizer.clip);
  add("--report-every", o.report_every);
  if (!o.record_graph) words.emplace_back("--no-graph");
  return words;
}

}  // namespace examples
