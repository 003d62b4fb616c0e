// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The training loop: micro-batches, gradient accumulation, schedule, AdamW. A run is a function of its options, its
// data and the model it starts from; where it stands is one number, the step.

#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <graft/backend/buffer.hpp>
#include <graft/core/hash.hpp>
#include <graft/models/transformer.hpp>
#include <graft/train/adamw.hpp>
#include <graft/train/schedule.hpp>

namespace graft {

struct training_options {
  index_t steps = 100;
  index_t sequences = 16;       // B of a step
  index_t positions = 256;      // S
  index_t micro_sequences = 0;  // sequences of one pass; 0: all at once
  index_t balance_groups = 1;   // per micro-batch
  std::uint64_t seed = 0;       // of the noise that routers draw
  double learning_rate = 1e-3;
  index_t warmup_steps = 20;
  decay_form decay = decay_form::cosine;
  double final_fraction = 0.1;
  adamw_options optimizer{};

  index_t tokens_per_step() const { return sequences * positions; }
};

// What one step reports.
struct step_report {
  index_t step = 0;          // counted from 0
  double loss = 0;           // mean cross entropy in nats
  double auxiliary = 0;      // balancers' losses, mean over micro-batches
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  double seconds = 0;
  index_t tokens = 0;
  std::vector<layer_load> load;  // of every block, over the whole step
};

// Source of batches: source.fill(step, inputs, targets) writes (sequences, positions) token ids of step `step` into two
// host matrices, a function of the step alone; a target of -1 is none, an input of -1 is padding.
template <class Model>
class trainer {
 public:
  using compute_type = typename Model::compute_type;
  using space = typename Model::space;
  using T = typename Model::T;
  using M = typename Model::M;

  // The model and its context must outlive the trainer. Sets which parameters of the model have gradients.
  trainer(Model& model, const training_options& options, const trainable_rule& rule = {})
      : model_(&model), options_(checked(options)), optimizer_(prepared(model, rule)) {
    const index_t count = options_.tokens_per_step();
    host_inputs_ = buffer<std::int32_t, host_space>(count);
    host_targets_ = buffer<std::int32_t, host_space>(count);
    inputs_ = buffer<std::int32_t, space>(count);
    targets_ = buffer<std::int32_t, space>(count);
    GRAFT_CHECK(options_.positions <= model.shape().positions, "trainer: expected at most the ",
                model.shape().positions, " positions that the model is meant for, got ", options_.positions);
    std::vector<M> master(static_cast<std::size_t>(model.layout().size));
    copy_to_host(model.context(), master.data(), model.parameters().master());
    start_hash_ = fnv1a({reinterpret_cast<const char*>(master.data()), master.size() * sizeof(M)});
  }

  const training_options& options() const { return options_; }
  index_t next_step() const { return step_; }
  void set_next_step(index_t step) { step_ = step; }
  // A hash of the master weights that the run starts from: part of what the run is.
  std::uint64_t start_hash() const { return start_hash_; }
  bool finished() const { return step_ >= options_.steps; }
  Model& model() { return *model_; }
  adamw<compute_type>& optimizer() { return optimizer_; }

  // One optimizer step. Equal for 1 x 4 and 4 x 1 micro-batches up to rounding, with balance_groups scaled along.
  template <class Source>
  step_report step(Source& source) {
    const auto start = std::chrono::steady_clock::now();
    auto& context = model_->context();
    const matrix_view<std::int32_t> inputs = host_inputs_.view(options_.sequences, options_.positions);
    const matrix_view<std::int32_t> targets = host_targets_.view(options_.sequences, options_.positions);
    source.fill(step_, inputs, targets);
    index_t target_count = 0;
    for (index_t i = 0; i < targets.size(); ++i) {
      const bool padding = inputs.data[i] == -1 && targets.data[i] < 0;
      GRAFT_CHECK((padding || inputs.data[i] >= 0) && inputs.data[i] < model_->shape().vocabulary &&
                      targets.data[i] < model_->shape().vocabulary,
                  "trainer: token ids must be below the vocabulary of ", model_->shape().vocabulary, ", got input ",
                  inputs.data[i], " and target ", targets.data[i], " in step ", step_);
      target_count += targets.data[i] >= 0 ? 1 : 0;
    }
    GRAFT_CHECK(target_count > 0, "trainer: the batch of step ", step_, " has no target");
    copy_from_host(context, inputs_.view(), inputs.data);
    copy_from_host(context, targets_.view(), targets.data);

    const index_t micro = options_.micro_sequences;
    const index_t passes = options_.sequences / micro;
    model_->clear_metrics();
    for (index_t pass = 0; pass < passes; ++pass) {
      const view<const std::int32_t, 2, space> all_inputs = inputs_.view(options_.sequences, options_.positions);
      const view<const std::int32_t, 2, space> all_targets = targets_.view(options_.sequences, options_.positions);
      model_->forward_backward(all_inputs.rows(pass * micro, (pass + 1) * micro),
                               all_targets.rows(pass * micro, (pass + 1) * micro),
                               {.token_scale = 1.0 / static_cast<double>(target_count),
                                .auxiliary_scale = 1.0 / static_cast<double>(passes),
                                .balance_groups = options_.balance_groups,
                                .at = {.seed = options_.seed,
                                       .step = step_,
                                       .first_token = pass * micro * options_.positions,
                                       .training = true}});
    }
    step_report report;
    report.step = step_;
    report.learning_rate = learning_rate(
        {options_.learning_rate, options_.warmup_steps, options_.steps, options_.decay, options_.final_fraction},
        step_);
    auto& parameters = model_->parameters();
    optimizer_.update(context, parameters.master(), parameters.narrow(), parameters.gradients(), report.learning_rate,
                      step_);
    model_->end_step();

    pass_metrics metrics = model_->metrics();
    report.loss = metrics.loss_sum / static_cast<double>(target_count);
    report.auxiliary = metrics.auxiliary_sum / static_cast<double>(passes);
    report.load = std::move(metrics.load);
    report.gradient_norm = optimizer_.gradient_norm(context);
    report.tokens = options_.tokens_per_step();
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    GRAFT_CHECK(std::isfinite(report.loss) && std::isfinite(report.gradient_norm), "trainer: step ", step_,
                " gave a loss of ", report.loss, " and a gradient norm of ", report.gradient_norm,
                ": training diverged, lower the learning rate");
    ++step_;
    return report;
  }

 private:
  static training_options checked(training_options options) {
    if (options.micro_sequences == 0) options.micro_sequences = options.sequences;
    GRAFT_CHECK(options.steps >= 0 && options.sequences > 0 && options.positions > 0,
                "trainer: expected steps >= 0, sequences > 0, positions > 0, got steps=", options.steps,
                ", sequences=", options.sequences, ", positions=", options.positions);
    GRAFT_CHECK(options.micro_sequences > 0 && options.sequences % options.micro_sequences == 0,
                "trainer: expected micro_sequences to divide sequences, got micro_sequences=", options.micro_sequences,
                ", sequences=", options.sequences);
    return options;
  }
  adamw<compute_type> prepared(Model& model, const trainable_rule& rule) const {
    model.parameters().set_trainable(rule);
    model.parameters().refresh(model.context());
    return adamw<compute_type>(model.context(), model.layout(), model.parameters().trainable(), options_.optimizer);
  }

  Model* model_;
  training_options options_;
  adamw<compute_type> optimizer_;
  index_t step_ = 0;
  std::uint64_t start_hash_ = 0;
  buffer<std::int32_t, host_space> host_inputs_, host_targets_;
  buffer<std::int32_t, space> inputs_, targets_;
};

}  // namespace graft
