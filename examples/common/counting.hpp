// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A task for small programs: sequences that count up by 1, 2, 3 or 5 modulo 61 from somewhere. A model learns it in
// seconds on a CPU.

#include <cstdint>
#include <cstdio>

#include <graft/core/philox.hpp>
#include <graft/core/transformer_shape.hpp>
#include <graft/train/trainer.hpp>

namespace examples {

struct counting_batches {
  void fill(graft::index_t step, graft::matrix_view<std::int32_t> inputs,
            graft::matrix_view<std::int32_t> targets) const {
    const graft::random_source draw{0, graft::random_stream::data};
    constexpr std::int32_t strides[] = {1, 2, 3, 5};
    for (graft::index_t row = 0; row < inputs.extent(0); ++row) {
      const auto major = static_cast<std::uint64_t>(step), minor = static_cast<std::uint64_t>(2 * row);
      std::int32_t number = static_cast<std::int32_t>(draw.below(61, major, minor));
      const std::int32_t stride = strides[draw.below(4, major, minor + 1)];
      for (graft::index_t i = 0; i < inputs.extent(1); ++i) {
        inputs(row, i) = number;
        number = (number + stride) % 61;
        targets(row, i) = number;
      }
    }
  }
};

inline graft::transformer_shape counting_shape(graft::index_t experts) {
  return {.vocabulary = 64,
          .width = 32,
          .blocks = 2,
          .heads = 2,
          .kv_heads = 2,
          .head_dim = 16,
          .hidden = 48,
          .positions = 16,
          .experts = experts};
}

// Trains and prints the loss every 40 steps; returns the report of the last.
template <class Model>
graft::step_report train_counting(Model& model, graft::index_t steps) {
  graft::training_options options;
  options.steps = steps;
  options.sequences = 16;
  options.positions = 16;
  options.learning_rate = 5e-3;
  graft::trainer run(model, options);
  counting_batches batches;
  graft::step_report report;
  while (!run.finished()) {
    report = run.step(batches);
    if (run.next_step() % 40 == 0) std::printf("step %3d: loss %.3f\n", static_cast<int>(run.next_step()), report.loss);
  }
  return report;
}

}  // namespace examples
