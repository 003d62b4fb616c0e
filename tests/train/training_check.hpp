// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A task that a small model learns in a few steps, and what two runs are compared by.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <unistd.h>

#include <graft/train/checkpoint.hpp>
#include <graft/train/trainer.hpp>

#include "models/model_check.hpp"

namespace graft::test {

template <class P>
using dense_of = dense_transformer<compute<P, cpu>>;
template <class P>
using moe_of = transformer<mixture_of<2>, compute<P, cpu>>;

// The token after t is 3 t + 1 modulo the vocabulary. A function of the step alone; with holes, one target in seven is
// missing.
struct arithmetic_source {
  index_t vocabulary;
  bool holes = false;

  void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) {
    const random_source draw{9, random_stream::data};
    for (index_t i = 0; i < inputs.size(); ++i) {
      const auto token = static_cast<index_t>(draw.below(
          static_cast<std::uint64_t>(vocabulary), static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(i)));
      inputs.data[i] = static_cast<std::int32_t>(token);
      targets.data[i] = holes && i % 7 == 3 ? -1 : static_cast<std::int32_t>((3 * token + 1) % vocabulary);
    }
  }
};

template <class Model>
std::vector<typename Model::M> master_of(Model& model) {
  const auto arena = model.parameters().master();
  return {arena.data, arena.data + arena.extent(0)};
}

// Large enough for rows, products and attention to be shared among threads.
template <class Model>
transformer_shape medium_shape() {
  return {.vocabulary = 61,
          .width = 64,
          .blocks = 2,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .hidden = 96,
          .positions = 32,
          .qk_norm = true,
          .experts = Model::mixture_type::present ? 3 : 0};
}
inline constexpr index_t step_count = 5;

inline training_options some_steps() {
  return {.steps = step_count,
          .sequences = 16,
          .positions = 32,
          .micro_sequences = 8,
          .learning_rate = 0.01,
          .warmup_steps = 2};
}

// A model and its trainer with a context of their own: what a process has.
template <class Model>
struct process {
  context<cpu> ctx;
  Model model;
  trainer<Model> run;
  arithmetic_source source{61};

  explicit process(int threads = 1, const training_options& options = some_steps(), const trainable_rule& rule = {},
                   std::uint64_t seed = 1, const transformer_shape& shape = medium_shape<Model>())
      : ctx({.threads = threads}), model(ctx, shape), run((model.initialize(seed), model), options, rule) {}

  std::vector<double> losses(index_t until) {
    std::vector<double> result;
    while (run.next_step() < until) result.push_back(run.step(source).loss);
    return result;
  }
  std::string signature(const std::string& data = "data") { return run_signature(run, data); }
  // Everything that a run has learned, as bytes.
  std::string state() {
    std::string bytes;
    const auto append = [&](auto arena) {
      bytes.append(reinterpret_cast<const char*>(arena.data),
                   static_cast<std::size_t>(arena.extent(0)) * sizeof(*arena.data));
    };
    append(model.parameters().master());
    if (model.parameters().narrow().data != nullptr) append(model.parameters().narrow());
    append(run.optimizer().first_moment());
    append(run.optimizer().second_moment());
    return bytes;
  }
};

struct scratch_folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("graft_train_" + std::to_string(::getpid()));
  scratch_folder() { std::filesystem::create_directories(path); }
  ~scratch_folder() { std::filesystem::remove_all(path); }
};

}  // namespace graft::test
